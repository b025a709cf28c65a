package test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// without takes the header lines of that name out of a message.
func without(text, header string) string {
	head, body, _ := strings.Cut(text, "\r\n\r\n")
	var lines []string
	for _, line := range strings.Split(head, "\r\n") {
		if name, _, _ := strings.Cut(line, ":"); !strings.EqualFold(name, header) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + body
}

// needed are the headers without which there is no answer but 400 (RFC 3261
// 8.1.1).
var needed = []string{"From", "To", "Call-ID", "CSeq", "Via"}

// B1: a datagram without one of the headers everything relies on costs nothing
// but an answer of 400, whatever the method, inside a call and outside. An ACK
// is never answered, and without a Via there is nowhere to answer to.
func TestDatagramWithoutANeededHeaderIsRefused(t *testing.T) {
	methods := []string{
		"INVITE", "BYE", "ACK", "REFER", "CANCEL", "OPTIONS", "NOTIFY", "INFO", "UPDATE", "PRACK",
		"MESSAGE", "SUBSCRIBE", "REGISTER", "PUBLISH", "UNHEARD",
	}
	headers := append([]string{"Max-Forwards", "Contact", "Content-Length", "Refer-To", "Event"}, needed...)
	bubble(t, func(t *testing.T, w *world) {
		a, b, p := w.stack("10.0.0.1"), w.stack("10.0.0.2"), w.peer("10.0.0.9")
		caller, in := w.toPeer(a, p)
		seq := uint32(100)
		for _, method := range methods {
			for _, header := range headers {
				seq++
				r := dialogtest.Request{
					Method: method, CSeq: seq, CallID: fmt.Sprintf("b1-%d", seq), URI: "sip:us@10.0.0.1:5060",
					Headers: []string{"Refer-To: <sip:carol@10.0.0.3>", "Event: refer"}, Body: offerSDP,
				}
				w.say(p, a, without(p.Request(r), header))
				if method != "BYE" {
					w.say(p, a, without(p.inside(in, r), header))
				}
				w.say(p, a, without(p.Request(dialogtest.Request{
					Method: method, CSeq: seq, CallID: fmt.Sprintf("b1-tag-%d", seq), ToTag: "nobody",
				}), header))
				synctest.Wait()
			}
		}
		refused := make(map[string]int)
		for _, method := range methods {
			for _, m := range w.sent("10.0.0.1", "400 "+method) {
				for _, header := range needed {
					if strings.Contains(m.raw, "400 Missing "+header+"\r\n") {
						refused[method+" "+header]++
					}
				}
			}
		}
		for _, method := range methods {
			for _, header := range []string{"From", "To", "Call-ID"} {
				want := 3
				switch method {
				case "BYE":
					want = 2
				case "ACK":
					want = 0
				}
				require.Equal(t, want, refused[method+" "+header], "%s without %s", method, header)
			}
			require.Zero(t, refused[method+" Via"])
		}
		require.Len(t, w.sent("10.0.0.1", "400"), 3*(len(methods)-1)-1, "without CSeq")
		require.Equal(t, dialog.DialogStateEstablished, caller.State(), "none of it touched the call")
		w.works(a, b)
		w.works(b, a)
		defer p.answers(always(200))()
		require.NoError(t, caller.Bye(context.Background(), ""))
	})
}

// B1: an answer without one of them is dropped; the call goes on with the
// next.
func TestAnswerWithoutANeededHeaderIsDropped(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		d, err := a.NewInvite(context.Background(), uri("peer", p.ip), offer(offerSDP))
		require.NoError(t, err)
		in := p.next("INVITE")
		for _, code := range []int{100, 180, 200, 404} {
			for _, header := range needed {
				text := p.Response(in.Request(), dialogtest.Response{Code: code, ToTag: "bad", Body: answerSDP})
				w.say(p, a, without(text, header))
			}
		}
		synctest.Wait()
		require.Equal(t, dialog.DialogStateTrying, d.State())
		require.Empty(t, d.Key().RemoteTag)
		p.reply(in, dialogtest.Response{Code: 200, ToTag: "callee", Body: answerSDP})
		p.next("ACK")
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		defer p.answers(always(200))()
		require.NoError(t, d.Bye(context.Background(), ""))
	})
}

// B1: what is no SIP, or half of it.
func TestRubbishIsDropped(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, p := w.stack("10.0.0.1"), w.stack("10.0.0.2"), w.peer("10.0.0.9")
		whole := p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:us@10.0.0.1:5060", Body: offerSDP})
		for i := range len(whole) {
			w.net.Inject(netip.MustParseAddrPort("10.0.0.77:5060"), a.Addr(), []byte(whole[:i]))
		}
		for _, text := range []string{
			"\r\n", "\r\n\r\n", "\x00\x01\x02", "INVITE", "SIP/2.0", "SIP/2.0 \r\n\r\n", "SIP/2.0 -1 X\r\n\r\n",
			"INVITE sip:us SIP/2.0\r\n\r\n", "CANCEL sip:us@10.0.0.1 SIP/2.0\r\nVia: x\r\n\r\n",
			"BYE sip:us@10.0.0.1 SIP/2.0\r\nTo:\r\nFrom:\r\nCall-ID:\r\nCSeq:\r\nVia:\r\n\r\n",
			strings.Replace(whole, "CSeq: 1 INVITE", "CSeq: 1 BYE", 1),
			strings.Replace(whole, "CSeq: 1 INVITE", "CSeq: 99999999999999 INVITE", 1),
			strings.Replace(whole, "Content-Length: ", "Content-Length: 9", 1),
			strings.Replace(whole, "Content-Length: ", "Content-Length: -", 1),
			strings.Repeat("A", 60000),
		} {
			w.net.Inject(netip.MustParseAddrPort("10.0.0.77:5060"), a.Addr(), []byte(text))
		}
		synctest.Wait()
		w.works(a, b)
		w.works(b, a)
	})
}

// B2: a ReInvite that nobody answers returns, without any deadline of the
// caller's; so does one that is only ever told to wait.
func TestUnansweredReInviteReturns(t *testing.T) {
	for name, c := range map[string]struct {
		provisional bool
		timeout     time.Duration
		after       time.Duration
	}{
		"never answered":                {after: 32 * time.Second},
		"never answered, own TxTimeout": {timeout: 7 * time.Second, after: 7 * time.Second},
		"provisionally answered":        {provisional: true, after: 180 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a := w.stack("10.0.0.1", func(s *dialog.StackConfig) { s.TxTimeout = c.timeout })
				p := w.peer("10.0.0.9")
				d, _ := w.toPeer(a, p)
				stop := p.answers(func(req *sip.Request) int {
					if c.provisional && req.Method == sip.INVITE {
						return 180
					}
					return 0
				})
				defer stop()
				began := time.Now()
				require.ErrorIs(t, d.ReInvite(context.Background(), offer(offerSDP)), dialog.ErrTimeout)
				require.InDelta(t, c.after.Seconds(), time.Since(began).Seconds(), 0.1)
			})
		})
	}
}

// B2: so does SendNotify.
func TestUnansweredNotifyReturns(t *testing.T) {
	for _, timeout := range []time.Duration{0, 7 * time.Second} {
		t.Run(timeout.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a := w.stack("10.0.0.1", func(s *dialog.StackConfig) { s.TxTimeout = timeout })
				p := w.peer("10.0.0.9")
				d, in := w.toPeer(a, p)
				w.say(p, a, p.inside(in, dialogtest.Request{
					Method: "REFER", CSeq: 2, Headers: []string{"Refer-To: <sip:carol@10.0.0.3>"},
				}))
				p.next("NOTIFY")
				sub, ok := d.GetReferSubscription("2 REFER")
				require.True(t, ok)
				began := time.Now()
				require.ErrorIs(t, sub.SendNotify(context.Background(), 180, "Ringing"), dialog.ErrTimeout)
				limit := timeout
				if limit == 0 {
					limit = 32 * time.Second
				}
				require.InDelta(t, limit.Seconds(), time.Since(began).Seconds(), 0.1)
			})
		})
	}
}

// B2: and neither waits longer than its caller wants.
func TestWaitsEndWithTheirContext(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		d, in := w.toPeer(a, p)
		w.say(p, a, p.inside(in, dialogtest.Request{
			Method: "REFER", CSeq: 2, Headers: []string{"Refer-To: <sip:carol@10.0.0.3>"},
		}))
		p.next("NOTIFY")
		sub, ok := d.GetReferSubscription("2 REFER")
		require.True(t, ok)
		require.NoError(t, d.Refer(context.Background(), uri("carol", "10.0.0.3"), dialog.ReferOpts{}))
		for name, call := range map[string]func(ctx context.Context) error{
			"ReInvite":   func(ctx context.Context) error { return d.ReInvite(ctx, offer(offerSDP)) },
			"SendNotify": func(ctx context.Context) error { return sub.SendNotify(ctx, 180, "Ringing") },
			"WaitRefer":  func(ctx context.Context) error { _, err := d.WaitRefer(ctx); return err },
		} {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			began := time.Now()
			require.ErrorIs(t, call(ctx), context.DeadlineExceeded, name)
			require.Equal(t, time.Second, time.Since(began), name)
			cancel()
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.ErrorIs(t, d.Bye(ctx, ""), context.DeadlineExceeded)
	})
}

// B3: a 200 that comes after Close ends what it began, by ACK and BYE; the
// dialog stays Terminated.
func TestAnswerAfterCloseDoesNotReviveTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		opts, seen := watchedOffer(offerSDP)
		d, err := a.NewInvite(context.Background(), uri("peer", p.ip), opts)
		require.NoError(t, err)
		in := p.next("INVITE")
		p.reply(in, dialogtest.Response{Code: 180, ToTag: "callee"})
		synctest.Wait()
		done := d.(*dialog.Dialog).Done()
		require.NoError(t, d.Close())
		require.Equal(t, dialog.DialogStateTerminated, d.State())
		<-done
		p.next("CANCEL")
		p.reply(in, dialogtest.Response{Code: 200, ToTag: "callee", Body: answerSDP})
		p.next("ACK")
		bye := p.next("BYE")
		require.Equal(t, dialog.DialogStateTerminated, d.State())
		p.reply(bye, dialogtest.Response{Code: 200})
		synctest.Wait()
		require.Equal(t, []dialog.DialogState{
			dialog.DialogStateTrying, dialog.DialogStateRinging, dialog.DialogStateTerminated,
		}, seen.seen())
		require.ErrorIs(t, d.(*dialog.Dialog).WaitAnswer(context.Background()), dialog.ErrCanceled)
		require.Error(t, d.(*dialog.Dialog).ReInvite(context.Background(), dialog.InviteOpts{}))
		_, ok := a.DialogByKey(d.Key())
		require.False(t, ok)
	})
}

// B3: the same when nothing had come before Close: no CANCEL may be sent yet
// (RFC 3261 9.1).
func TestFirstAnswerAfterCloseIsReleased(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		d, err := a.NewInvite(context.Background(), uri("peer", p.ip), offer(offerSDP))
		require.NoError(t, err)
		in := p.next("INVITE")
		require.NoError(t, d.Close())
		p.reply(in, dialogtest.Response{Code: 200, ToTag: "callee", Body: answerSDP})
		p.next("ACK")
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
		synctest.Wait()
		require.Equal(t, dialog.DialogStateTerminated, d.State())
		require.Empty(t, w.sent("10.0.0.1", "CANCEL"))
	})
}

// B4: MaxDialogs is exact, however many begin at once, in either direction.
func TestMaxDialogsIsExact(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		five := func(c *dialog.StackConfig) { c.MaxDialogs = 5 }
		a, b, p := w.stack("10.0.0.1", five), w.stack("10.0.0.2", five), w.peer("10.0.0.9")
		var admitted, refused atomic.Int32
		atOnce(100, func(int) {
			_, err := a.NewInvite(context.Background(), uri("peer", p.ip), offer(offerSDP))
			switch {
			case err == nil:
				admitted.Add(1)
			case errors.Is(err, dialog.ErrMaxDialogs):
				refused.Add(1)
			}
		})
		require.EqualValues(t, 5, admitted.Load())
		require.EqualValues(t, 95, refused.Load())
		require.Len(t, w.sent("10.0.0.1", "INVITE"), 5)
		defer p.answers(always(486))()
		synctest.Wait()
		require.Equal(t, 5, len(w.sent("10.0.0.9", "486 INVITE")))
		d, err := a.NewInvite(context.Background(), uri("peer", p.ip), offer(offerSDP))
		require.NoError(t, err, "the refused ones made room")
		require.Error(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))

		b.OnIncomingDialog(func(dialog.IDialog) {})
		for i := range 24 {
			w.say(p, b, p.Request(dialogtest.Request{
				Method: "INVITE", URI: "sip:us@10.0.0.2:5060", CallID: fmt.Sprintf("b4-%d", i), Body: offerSDP,
			}))
		}
		synctest.Wait()
		require.Len(t, w.sent("10.0.0.2", "180 INVITE"), 5)
		busy := w.sent("10.0.0.2", "503 INVITE")
		require.NotEmpty(t, busy)
		require.Contains(t, busy[0].raw, "Retry-After: ")
		ids := make(map[string]bool)
		for _, m := range busy {
			ids[m.msg.CallID().Value()] = true
		}
		require.Len(t, ids, 19)
	})
}

// B4: a negative MaxDialogs is no bound, zero is 1000.
func TestMaxDialogsDefaults(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack("10.0.0.1")
		b := w.stack("10.0.0.2", func(c *dialog.StackConfig) { c.MaxDialogs = -1 })
		for i := range 1001 {
			_, err := b.NewInvite(context.Background(), uri("peer", "10.0.0.99"), dialog.InviteOpts{})
			require.NoError(t, err)
			_, err = a.NewInvite(context.Background(), uri("peer", "10.0.0.99"), dialog.InviteOpts{})
			if i < 1000 {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, dialog.ErrMaxDialogs)
			}
		}
		w.stacks = nil
		done, cancel := context.WithCancel(context.Background())
		cancel()
		var incomplete *dialog.ShutdownError
		require.ErrorAs(t, a.Shutdown(done), &incomplete)
		require.Equal(t, 1000, incomplete.Unreleased, "RFC 3261 9.1: no CANCEL before a provisional response")
		require.ErrorAs(t, b.Shutdown(done), &incomplete)
		require.Equal(t, 1001, incomplete.Unreleased)
	})
}

// B5: Start returns the bind error, and may be called again; a second Start
// returns a typed error and leaves the first alone; nothing stays bound.
func TestStartReturnsWhatKeepsItFromBinding(t *testing.T) {
	for _, protocol := range []string{"udp", "tcp"} {
		t.Run(protocol, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				host := w.net.Host("10.0.0.1")
				first := w.stack("10.0.0.1", func(c *dialog.StackConfig) { c.Transport.Protocol = protocol })
				second, err := dialog.NewStack(&dialog.StackConfig{
					Transport: &dialog.TransportConfig{Protocol: protocol, Address: "10.0.0.1", Port: 5060}, Network: host,
				})
				require.NoError(t, err)
				err = second.Start(context.Background())
				require.ErrorIs(t, err, dialog.ErrTransport)
				require.ErrorIs(t, err, syscall.EADDRINUSE)
				require.ErrorIs(t, first.Start(context.Background()), dialog.ErrAlreadyStarted)
				_, err = second.NewInvite(context.Background(), uri("bob", "10.0.0.2"), dialog.InviteOpts{})
				require.ErrorIs(t, err, dialog.ErrNotStarted)

				require.NoError(t, first.Shutdown(context.Background()))
				require.NoError(t, second.Start(context.Background()), "the port is free")
				require.Equal(t, "10.0.0.1:5060", second.Addr().String())
				require.NoError(t, second.Shutdown(context.Background()))
				third := w.stack("10.0.0.1", func(c *dialog.StackConfig) { c.Transport.Protocol = protocol })
				require.NoError(t, third.Shutdown(context.Background()))
			})
		})
	}
}

// B5: two Starts at once: one serves, the other is told.
func TestOnlyOneOfManyStartsBinds(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, err := dialog.NewStack(&dialog.StackConfig{
			Transport: &dialog.TransportConfig{Protocol: "udp", Address: "10.0.0.1", Port: 0}, Network: w.net.Host("10.0.0.1"),
		})
		require.NoError(t, err)
		var started, told atomic.Int32
		atOnce(20, func(int) {
			switch err := s.Start(context.Background()); {
			case err == nil:
				started.Add(1)
			case errors.Is(err, dialog.ErrAlreadyStarted):
				told.Add(1)
			}
		})
		require.EqualValues(t, 1, started.Load())
		require.EqualValues(t, 19, told.Load())
		require.NoError(t, s.Shutdown(context.Background()))
	})
}

// B6, FT12: WaitAnswer twice, at once, after establishment and after the end returns
// the same outcome each time.
func TestWaitAnswerMayBeCalledAgain(t *testing.T) {
	for name, c := range map[string]struct {
		code  int
		check func(t *testing.T, err error)
	}{
		"accepted": {200, func(t *testing.T, err error) { require.NoError(t, err) }},
		"refused": {486, func(t *testing.T, err error) {
			var refused *dialog.ResponseError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, 486, refused.StatusCode)
		}},
		"never": {0, func(t *testing.T, err error) { require.ErrorIs(t, err, dialog.ErrTimeout) }},
	} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " late=", late), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) { waitsAgain(t, w, c.code, late, c.check) })
			})
		}
	}
}

// waitsAgain has many wait for one answer, all of them before it comes, or all after.
func waitsAgain(t *testing.T, w *world, code int, late bool, check func(t *testing.T, err error)) {
	a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
	d, err := a.NewInvite(context.Background(), uri("peer", p.ip), offer(offerSDP))
	require.NoError(t, err)
	caller := d.(*dialog.Dialog)
	results := make(chan error, 10)
	wait := func() {
		for range cap(results) {
			go func() { results <- caller.WaitAnswer(context.Background()) }()
		}
		synctest.Wait()
	}
	if !late {
		wait()
	}
	defer p.answers(func(req *sip.Request) int {
		if req.Method == sip.BYE {
			return 200
		}
		return code
	})()
	time.Sleep(time.Minute) // also when there is none
	if late {
		wait()
	}
	for range cap(results) {
		check(t, <-results)
	}
	check(t, caller.WaitAnswer(context.Background()))
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for range 100 { // a select between the two would take either
		check(t, caller.WaitAnswer(ended))
	}
	require.NoError(t, caller.Bye(context.Background(), ""))
	check(t, caller.WaitAnswer(context.Background()))
}

// B6: the same when it was given up, and WaitAnswer of a callee is an error.
func TestWaitAnswerAfterGivingUp(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		incoming := make(chan dialog.IDialog, 1)
		b.OnIncomingDialog(func(d dialog.IDialog) { incoming <- d })
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		caller, callee := d.(*dialog.Dialog), (<-incoming).(*dialog.Dialog)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.ErrorIs(t, caller.WaitAnswer(ctx), context.DeadlineExceeded)
		require.ErrorIs(t, caller.WaitAnswer(context.Background()), dialog.ErrCanceled)
		require.ErrorIs(t, caller.WaitAnswer(context.Background()), dialog.ErrCanceled)
		require.ErrorIs(t, callee.WaitAnswer(context.Background()), dialog.ErrState)
		synctest.Wait()
		require.Equal(t, dialog.DialogStateTerminated, callee.State())
	})
}
