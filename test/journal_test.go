package test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testcert"
)

// Log records of the stack.

// written is a slog handler that keeps its records as lines, and does something with
// each.
type written struct {
	level slog.Leveler
	do    func()
	attrs []slog.Attr
	lines *lines
}

type lines struct {
	mu   sync.Mutex // guards the field below
	list []map[string]string
}

func (h written) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level.Level() }

func (h written) WithGroup(string) slog.Handler { return h }

func (h written) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.attrs = append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)
	return h
}

func (h written) Handle(_ context.Context, record slog.Record) error {
	line := map[string]string{"level": record.Level.String(), "event": record.Message}
	for _, a := range h.attrs {
		line[a.Key] = a.Value.String()
	}
	record.Attrs(func(a slog.Attr) bool { line[a.Key] = a.Value.String(); return true })
	h.lines.mu.Lock()
	h.lines.list = append(h.lines.list, line)
	h.lines.mu.Unlock()
	if h.do != nil {
		h.do()
	}
	return nil
}

// writes has a stack log to lines, as much as level says.
func writes(level slog.Leveler, do func()) (*lines, func(*dialog.StackConfig)) {
	l := &lines{}
	return l, func(c *dialog.StackConfig) { c.Slog = slog.New(written{level: level, do: do, lines: l}) }
}

// taken returns what was logged since the last call, once all is still.
func (l *lines) taken() []map[string]string {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.list
	l.list = nil
	return list
}

// told is the events with their method, and what else is asked for.
func told(list []map[string]string) (short []string) {
	for _, line := range list {
		text := line["event"] + " " + line["method"]
		for _, key := range []string{"from", "to", "status", "by", "answered", "error"} {
			if value := line[key]; value != "" && !strings.Contains(value, "sip:") {
				text += " " + value
			}
		}
		short = append(short, text)
	}
	return short
}

// FA5: at LevelDebug the course of a call can be read, on either side; each line names
// the call, a method and the peer.
func TestDebugTellsTheCourseOfACall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		calling, logged := writes(slog.LevelDebug, nil)
		called, loggedToo := writes(slog.LevelDebug, nil)
		a, b := w.stack(stackIP, logged), w.stack(peerIP, loggedToo)
		caller, _ := w.established(a, b)
		require.NoError(t, caller.Hold(context.Background()))
		_, err := caller.Update(context.Background(), nil)
		require.NoError(t, err)
		require.NoError(t, caller.Bye(context.Background(), "done"))

		own := calling.taken()
		require.Equal(t, []string{
			"state changed INVITE Init Trying", "request sent INVITE", "call placed INVITE",
			"response received INVITE 180", "state changed INVITE Trying Ringing",
			"response received INVITE 200", "request sent ACK", "state changed INVITE Ringing Established",
			"request sent INVITE", "response received INVITE 200", "request sent ACK",
			"request sent UPDATE", "response received UPDATE 200",
			"request sent BYE", "response received BYE 200",
			"state changed BYE Established Terminated", "call ended BYE 0 local",
		}, inOrder(told(own)))
		far := called.taken()
		require.Equal(t, []string{
			"request received INVITE", "call arrived INVITE", "response sent INVITE 180", "state changed INVITE Init Ringing",
			"offer decided INVITE 200 application", "state changed INVITE Ringing Established", "response sent INVITE 200",
			"request received ACK",
			"request received INVITE", "offer decided INVITE 200 default", "response sent INVITE 200", "request received ACK",
			"request received UPDATE", "response sent UPDATE 200",
			"request received BYE", "response sent BYE 200", "state changed BYE Established Terminated", "call ended BYE 0 remote",
		}, told(far))
		for _, line := range append(own, far...) {
			require.Equal(t, "DEBUG", line["level"])
			require.Equal(t, caller.Key().CallID, line["call_id"], "%v", line)
			require.NotEmpty(t, line["method"], "%v", line)
			require.Regexp(t, `^10\.0\.0\.[19]:5060$`, line["peer"], "%v", line)
		}
	})
}

// inOrder puts "call placed" where it belongs: the 180 may be here before NewInvite
// returns.
func inOrder(list []string) []string {
	var rest []string
	for _, line := range list {
		if line != "call placed INVITE" {
			rest = append(rest, line)
		}
	}
	return append(rest[:2:2], append([]string{"call placed INVITE"}, rest[2:]...)...)
}

// FA5: failures are logged with their reason at LevelDebug, since an operator cannot act on
// them.
func TestDebugLogsFailures(t *testing.T) {
	for name, c := range map[string]struct {
		play func(t *testing.T, w *world, config func(*dialog.StackConfig))
		told []string
	}{
		"busy": {func(_ *testing.T, w *world, config func(*dialog.StackConfig)) {
			w.alerting(w.stack(stackIP, config), w.peer(peerIP)).answer(dialogtest.Response{Code: 486})
		}, []string{"response received INVITE 486", "state changed INVITE Ringing Terminated", "call ended INVITE 486 remote dialog: INVITE answered 486 Busy Here"}},
		"nobody": {func(_ *testing.T, w *world, config func(*dialog.StackConfig)) {
			w.calls(w.stack(stackIP, config), w.peer(peerIP), offer(offerSDP))
			time.Sleep(time.Minute)
		}, []string{"request failed INVITE timeout", "call ended INVITE 0 timeout dialog: no response in time"}},
		"not sent": {func(t *testing.T, w *world, config func(*dialog.StackConfig)) {
			s := w.stack(stackIP, config)
			w.net.Host(stackIP).Unreachable(true)
			_, err := s.NewInvite(context.Background(), uri("bob", peerIP), offer(offerSDP))
			require.Error(t, err)
		}, []string{"request not sent INVITE write udp 10.0.0.1:5060->10.0.0.9:5060: sendto: network is unreachable"}},
		"unknown there": {func(t *testing.T, w *world, config func(*dialog.StackConfig)) {
			l := w.calls(w.stack(stackIP, config), w.peer(peerIP), offer(offerSDP))
			l.answer(dialogtest.Response{Code: 404})
			require.Error(t, l.d.WaitAnswer(context.Background()))
		}, []string{"response received INVITE 404", "state changed INVITE Trying Terminated", "call ended INVITE 404 remote dialog: INVITE answered 404 Scripted"}},
		"cancelled by us": {func(t *testing.T, w *world, config func(*dialog.StackConfig)) {
			p := w.peer(peerIP)
			l := w.alerting(w.stack(stackIP, config), p)
			cancelled := began(func() error { return l.d.Bye(context.Background(), "") })
			p.reply(p.next("CANCEL"), dialogtest.Response{Code: 200})
			l.answer(dialogtest.Response{Code: 487})
			<-cancelled
		}, []string{"request sent CANCEL", "response received INVITE 487", "call ended BYE 0 local"}},
		"cancelled by the peer": {func(t *testing.T, w *world, config func(*dialog.StackConfig)) {
			s := w.stack(stackIP, config)
			s.OnIncomingDialog(func(dialog.IDialog) {})
			d, err := w.stack(peerIP).NewInvite(context.Background(), uri("bob", stackIP), offer(offerSDP))
			require.NoError(t, err)
			synctest.Wait()
			require.NoError(t, d.(*dialog.Dialog).Hangup(context.Background()))
		}, []string{"request received CANCEL", "response sent CANCEL 200", "response sent INVITE 487", "call ended CANCEL 487 remote"}},
		"nobody of that name": {func(t *testing.T, w *world, config func(*dialog.StackConfig)) {
			_, err := w.stack(stackIP, config).NewInvite(context.Background(), sip.Uri{Scheme: "sip", User: "bob", Host: "nowhere.example"}, offer(offerSDP))
			require.Error(t, err)
		}, []string{"request not sent INVITE lookup nowhere.example", "call ended INVITE 0 transport"}},
		"TLS that cannot be verified": {func(t *testing.T, w *world, config func(*dialog.StackConfig)) {
			ca := testcert.New(t)
			b := w.site("10.0.0.2", "tls", ca, func(c *dialog.StackConfig) { c.Transport.TLSConfig = ca.Server("10.0.0.77") })
			a := w.site("10.0.0.1", "tls", ca, config)
			require.Error(t, a.refused(t, b.uri("bob")))
		}, []string{"request not sent INVITE TLS failed: 10.0.0.2:5061", "call ended INVITE 0 transport dialog: transport failed: TLS failed"}},
		"a peer that has died": {func(t *testing.T, w *world, config func(*dialog.StackConfig)) {
			l := w.outgoing(w.stack(stackIP, config), w.peer(peerIP))
			require.Error(t, l.d.ReInvite(context.Background(), offer(offerSDP)))
			time.Sleep(time.Minute)
		}, []string{"state changed INVITE Trying Established", "request failed INVITE timeout", "call ended INVITE 0 timeout dialog: no response in time"}},
		"credentials that are wrong": {func(t *testing.T, w *world, config func(*dialog.StackConfig)) {
			p := w.peer(peerIP)
			l := w.calls(w.stack(stackIP, config, known), p, offer(offerSDP))
			challenge := dialogtest.Response{Code: 401, Headers: []string{`WWW-Authenticate: Digest realm="far", nonce="n", algorithm=MD5`}}
			l.answer(challenge)
			p.reply(p.next("INVITE"), challenge)
			require.Error(t, l.d.WaitAnswer(context.Background()))
		}, []string{"credentials requested INVITE true", "response received INVITE 401", "call ended INVITE 401 remote dialog: INVITE answered 401 Unauthorized"}},
		"credentials": {func(t *testing.T, w *world, config func(*dialog.StackConfig)) {
			p := w.peer(peerIP)
			l := w.outgoing(w.stack(stackIP, config, func(c *dialog.StackConfig) {
				c.Credentials = func(string) (string, string, bool) { return "", "", false }
			}), p)
			asked := began(func() error { return l.d.SendInfo(context.Background(), nil) })
			p.reply(p.next("INFO"), dialogtest.Response{Code: 401, Headers: []string{`WWW-Authenticate: Digest realm="far", nonce="n", algorithm=MD5`}})
			require.Error(t, <-asked)
		}, []string{"credentials requested INFO false"}},
		"an offer that is refused": {func(_ *testing.T, w *world, config func(*dialog.StackConfig)) {
			l := w.incoming(w.stack(stackIP, config), w.peer(peerIP))
			l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return nil, dialog.ErrNoSession })
			l.ask("INVITE", withBody(offerSDP))
			l.next("488 INVITE")
			l.acknowledge(2)
			l.ask("UPDATE", withBody(offerSDP))
			l.next("488 UPDATE")
		}, []string{"offer decided INVITE 488", "offer decided UPDATE 488"}},
		"an offer in a 200": {func(t *testing.T, w *world, config func(*dialog.StackConfig)) {
			p := w.peer(peerIP)
			l := w.calls(w.stack(stackIP, config), p, dialog.InviteOpts{})
			l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return ourSession(), nil })
			l.answer(dialogtest.Response{Code: 200, Body: offerSDP})
			require.NoError(t, l.d.WaitAnswer(context.Background()))
		}, []string{"offer decided ACK 200 application"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				logged, config := writes(slog.LevelDebug, nil)
				c.play(t, w, config)
				list := logged.taken()
				for _, line := range c.told {
					require.True(t, slices.ContainsFunc(told(list), func(s string) bool { return strings.HasPrefix(s, line) }),
						"%s: %q", line, told(list))
				}
				for _, line := range list {
					require.Equal(t, "DEBUG", line["level"], "%v", line)
					if !strings.HasPrefix(line["event"], "transport: ") { // whose connection may belong to no call
						require.NotEmpty(t, line["call_id"], "%v", line)
						require.NotEmpty(t, line["method"], "%v", line)
						require.NotEmpty(t, line["peer"], "%v", line)
					}
				}
			})
		})
	}
}

// FA5: a handler may do whatever it likes with the stack that it logs for, since no
// record is handed over under a lock.
func TestALogHandlerMayUseTheStack(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var s *dialog.Stack
		used := 0
		logged, config := writes(slog.LevelDebug, func() {
			used++
			s.Stats()
			for _, d := range s.Dialogs() {
				d.Info()
				d.OnBody(func(dialog.Body) {})
				_ = d.Hold(expired())
			}
		})
		s = w.stack(stackIP, config)
		l := w.incoming(s, w.peer(peerIP))
		l.ask("BYE")
		require.Greater(t, len(logged.taken()), 8)
		require.Positive(t, used)
	})
}

func expired() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// FA5: one that does not return keeps nothing up but itself, and is counted at
// Shutdown as a callback is; what waits for it is bounded.
func TestALogHandlerThatBlocksKeepsNothingUp(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		leave := make(chan struct{})
		_, config := writes(slog.LevelDebug, func() { <-leave })
		s := w.stack(stackIP, config, func(c *dialog.StackConfig) { c.GraceTime = time.Second })
		s.OnIncomingDialog(func(dialog.IDialog) {}) // else OPTIONS gets 480
		p := w.peer(peerIP)
		for i := range 600 {
			require.Equal(t, 200, p.ask(s, dialogtest.Request{Method: "OPTIONS", URI: "sip:s@" + stackIP, CallID: fmt.Sprint(i)}).StatusCode)
		}
		require.Positive(t, s.Stats().Dropped["records"])
		start := time.Now()
		var left *dialog.ShutdownError
		require.ErrorAs(t, s.Shutdown(context.Background()), &left)
		require.Equal(t, 1, left.Callbacks)
		require.Less(t, time.Since(start), 2*time.Second)
		close(leave)
		w.stacks = nil
	})
}

// FA5: LevelDebug may be switched while the stack runs.
func TestDebugMayBeSwitched(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		level := new(slog.LevelVar) // Info
		logged, config := writes(level, nil)
		l := w.incoming(w.stack(stackIP, config), w.peer(peerIP))
		require.Empty(t, logged.taken())
		for _, c := range []struct {
			level  slog.Level
			events int
		}{{slog.LevelDebug, 2}, {slog.LevelInfo, 0}} {
			level.Set(c.level)
			time.Sleep(time.Second)
			l.ask("OPTIONS")
			l.next("200 OPTIONS")
			synctest.Wait()
			logged.taken()
			l.ask("OPTIONS")
			l.next("200 OPTIONS")
			require.Len(t, logged.taken(), c.events)
		}
	})
}

// A panic of the application's, and what keeps the stack from working, is what an
// operator has to see.
func TestAPanicIsLoggedAsAnError(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		logged, config := writes(slog.LevelInfo, nil)
		s, p := w.stack(stackIP, config), w.peer(peerIP)
		s.OnIncomingDialog(func(dialog.IDialog) { panic("in the application") })
		p.invites(s)
		p.next("500 INVITE")
		list := logged.taken()
		require.Len(t, list, 1, fmt.Sprint(list))
		require.Equal(t, "ERROR", list[0]["level"])
		require.Equal(t, "OnIncomingDialog", list[0]["where"])
	})
}

// records is a slog handler that keeps what it is given.
type records struct {
	attrs []slog.Attr
	kept  *kept
}

type kept struct {
	mu   sync.Mutex // guards the field below
	list []map[string]string
}

func (r records) Enabled(context.Context, slog.Level) bool { return true }

func (r records) WithGroup(string) slog.Handler { return r }

func (r records) WithAttrs(attrs []slog.Attr) slog.Handler {
	return records{append(r.attrs[:len(r.attrs):len(r.attrs)], attrs...), r.kept}
}

func (r records) Handle(_ context.Context, record slog.Record) error {
	values := map[string]string{"message": record.Message}
	for _, a := range r.attrs {
		values[a.Key] = a.Value.String()
	}
	record.Attrs(func(a slog.Attr) bool { values[a.Key] = a.Value.String(); return true })
	r.kept.mu.Lock()
	defer r.kept.mu.Unlock()
	r.kept.list = append(r.kept.list, values)
	return nil
}

// Each log record about a call names the call.
func TestEveryRecordOfACallNamesIt(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		all := &kept{}
		b := w.stack("10.0.0.2", func(c *dialog.StackConfig) { c.Slog = slog.New(records{kept: all}) })
		p := w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		ctx := context.Background()
		d.OnStateChange(func(dialog.DialogState) { panic("OnStateChange") })
		d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { panic("OnOffer") })
		require.NoError(t, d.OnRequest("INFO", func(context.Context, *sip.Request) dialog.Answer { panic("OnRequest") }))
		b.OnIncomingRefer(func(dialog.IDialog, sip.Uri, *dialog.ReplacesInfo) { panic("OnIncomingRefer") })
		require.Equal(t, 500, p.ask(b, inside("INFO", 11)).StatusCode)
		require.Equal(t, 500, p.ask(b, inside("INVITE", 12, contactOfPeer)).StatusCode)
		require.NoError(t, p.Send(b.Addr(), p.Request(inside("ACK", 12))))
		require.Equal(t, 202, p.ask(b, inside("REFER", 13, contactOfPeer, "Refer-To: <sip:c@10.0.0.3>")).StatusCode)
		w.net.Host("10.0.0.2").Unreachable(true) // its answers cannot be written
		require.Error(t, d.Bye(ctx, ""))
		<-d.Done()
		w.net.Host("10.0.0.2").Unreachable(false)
		b.OnIncomingDialog(func(dialog.IDialog) { panic("OnIncomingDialog") })
		require.Equal(t, 500, p.ask(b, dialogtest.Request{Method: "INVITE", URI: "sip:b@10.0.0.2", CallID: d.Key().CallID + "2", Headers: []string{contactOfPeer}}).StatusCode)
		synctest.Wait()

		all.mu.Lock()
		defer all.mu.Unlock()
		where := make(map[string]bool)
		for _, r := range all.list {
			where[r["where"]] = true
			require.Contains(t, []string{d.Key().CallID, d.Key().CallID + "2"}, r["call_id"], "%v", r)
		}
		for _, w := range []string{"notification", "OnOffer", "OnIncomingRefer", "OnIncomingDialog", "request handler of INFO"} {
			require.True(t, where[w], w)
		}
	})
}
