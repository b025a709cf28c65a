package test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

const (
	demands = "Require: 100rel"
	knows   = "Supported: 100rel"
)

// withoutBody returns a change that leaves a request without a body.
func withoutBody(r *dialogtest.Request) { r.Body = "" }

// progress has the application send a provisional response.
func (l *peerCall) progress(code int, opts ...dialog.ResponseOpt) {
	l.t.Helper()
	require.NoError(l.t, l.d.Provisional(context.Background(), code, "", opts...))
}

// rackFor is the RAck that acknowledges a response.
func rackFor(res sip.Message) string {
	return fmt.Sprintf("RAck: %d %d INVITE", testkit.RSeq(res), res.CSeq().SeqNo)
}

// prack acknowledges a provisional response and returns the text of the PRACK.
func (l *peerCall) prack(res sip.Message, change ...func(*dialogtest.Request)) string {
	l.t.Helper()
	return l.ask("PRACK", append(change, withHeaders(rackFor(res)))...)
}

// pracked is prack that waits for the 200, which it returns.
func (l *peerCall) pracked(res sip.Message, change ...func(*dialogtest.Request)) *sip.Response {
	l.t.Helper()
	l.prack(res, change...)
	return response(l.next("200 PRACK").Message)
}

// cancels sends the peer's CANCEL of its INVITE.
func (l *peerCall) cancels() {
	l.t.Helper()
	r := l.made("CANCEL")
	l.seq--
	r.CSeq, r.ToTag, r.URI = 1, "", l.stackURI
	r.Branch = branchIn(l.inviteText)
	require.NoError(l.t, l.Send(l.stack, l.Request(r)))
}

func branchIn(text string) string {
	msg, err := sip.ParseMessage([]byte(text))
	if err != nil {
		return ""
	}
	return testkit.BranchOf(msg)
}

// settled checks that the stack holds nothing any more, some time after.
func (l *peerCall) settled(s *dialog.Stack) {
	l.t.Helper()
	time.Sleep(70 * time.Second)
	synctest.Wait()
	require.Zero(l.t, testkit.Held(s))
}

// RFC 3262 3: which provisional responses are sent reliably.
func TestProvisionalResponsesAreReliableWhereTheCallerAllowsIt(t *testing.T) {
	sdp, mark := withSDP(answerSDP), dialog.WithReliable()
	for _, c := range []struct {
		name     string
		caller   string
		set      dialog.Reliability
		opts     []dialog.ResponseOpt
		reliable bool
	}{
		{"demanded", demands, dialog.ReliableSupported, nil, true},
		{"known, with a body", knows, dialog.ReliableSupported, []dialog.ResponseOpt{sdp}, true},
		{"known, and asked for", knows, dialog.ReliableSupported, []dialog.ResponseOpt{mark}, true},
		{"known, and we insist", knows, dialog.ReliableRequired, []dialog.ResponseOpt{sdp}, true},
		{"known, but worth nothing", knows, dialog.ReliableSupported, nil, false},
		{"known, but off", knows, dialog.ReliableOff, []dialog.ResponseOpt{sdp, mark}, false},
		{"not known", "Supported: timer", dialog.ReliableSupported, []dialog.ResponseOpt{sdp, mark}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP, reliability(c.set), func(s *dialog.StackConfig) { s.NoAutoRinging = true }), w.peer(peerIP)
				calls := make(chan dialog.IDialog, 1)
				b.OnIncomingDialog(func(d dialog.IDialog) { calls <- d })
				require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{
					Method: "INVITE", URI: "sip:b@" + stackIP, Headers: []string{c.caller}, Body: offerSDP,
				})))
				d := (<-calls).(*dialog.Dialog)
				require.NoError(t, d.Provisional(context.Background(), 183, "", c.opts...))
				p.next("183 INVITE")
				synctest.Wait()
				sent := w.sent(stackIP, "183 INVITE")[0]
				if c.reliable {
					require.Equal(t, "100rel", sent.value(t, "Require"))
					require.NotZero(t, testkit.RSeq(sent.msg))
					require.Less(t, testkit.RSeq(sent.msg), uint32(1<<31))
				} else {
					require.Empty(t, sent.values("Require"))
					require.Empty(t, sent.values("RSeq"))
				}
				require.Empty(t, w.one(stackIP, "100 INVITE").values("RSeq"), "100 is never reliable")
				require.NoError(t, d.Reject(context.Background(), 486, ""))
			})
		})
	}
}

// RFC 3262 3: T1, doubling without a cap, until the PRACK; 504 after 64*T1. A
// PRACK that crosses the 504 gets its 200.
func TestProvisionalThatIsNeverAcknowledgedEndsTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, withHeaders(knows))
		l.progress(183, withSDP(answerSDP))
		early := p.next("183 INVITE").Message
		accepted := began(func() error { return l.d.Accept(context.Background()) })
		p.next("504 INVITE")
		require.ErrorIs(t, <-accepted, dialog.ErrAnswered)
		synctest.Wait()
		at := func(list ...float64) (times []time.Duration) {
			for _, s := range list {
				times = append(times, time.Duration(s*float64(time.Second)))
			}
			return times
		}
		sent := w.sent(stackIP, "183 INVITE")
		require.Equal(t, at(0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5), times(sent))
		require.Equal(t, sent[0].raw, sent[6].raw)
		require.Equal(t, 32*time.Second, w.one(stackIP, "504 INVITE").at.Sub(sent[0].at))
		cause := l.d.Cause()
		require.Equal(t, dialog.PartyTimeout, cause.By)
		require.Equal(t, "PRACK", cause.Method)
		require.ErrorIs(t, cause.Err, dialog.ErrTimeout)

		l.ask("PRACK", withHeaders(fmt.Sprintf("RAck: %d 1 INVITE", testkit.RSeq(early)+1)))
		p.next("481 PRACK")
		l.pracked(early)
		time.Sleep(33 * time.Second)
		l.prack(early)
		p.next("481 PRACK")
		l.settled(b)
	})
}

// RFC 3262 3: the PRACK ends the repetition; the same one again gets the same
// answer, and a new one for the same response 481.
func TestPRACKEndsTheRepetition(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, withHeaders(knows))
		l.progress(183, withSDP(answerSDP))
		early := p.next("183 INVITE").Message
		text := l.prack(early)
		first := p.next("200 PRACK")
		require.Empty(t, first.Message.Body())
		require.NoError(t, p.Send(b.Addr(), text))
		require.Equal(t, string(first.Data), string(p.next("200 PRACK").Data))
		l.prack(early)
		p.next("481 PRACK")
		p.quiet("183 INVITE", 10*time.Second)
		require.Equal(t, dialog.DialogStateRinging, l.d.State())
		require.NoError(t, l.d.Reject(context.Background(), 486, ""))
		p.next("486 INVITE")
		l.settled(b)
	})
}

// RFC 3262 7.2, 3: a malformed RAck gets 400, one without a match 481, and neither ends the
// repetition.
func TestPRACKThatFitsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, withHeaders(knows))
		l.ask("PRACK", withHeaders("RAck: 0 0 INVITE"))
		p.next("481 PRACK") // nothing has been sent reliably
		l.progress(183, withSDP(answerSDP))
		early := p.next("183 INVITE").Message
		n := testkit.RSeq(early)
		for _, c := range []struct {
			headers []string
			status  int
		}{
			{nil, 400},
			{[]string{"RAck: "}, 400},
			{[]string{"RAck: x 1 INVITE"}, 400},
			{[]string{"RAck: -1 1 INVITE"}, 400},
			{[]string{fmt.Sprintf("RAck: %d INVITE", n)}, 400},
			{[]string{fmt.Sprintf("RAck: %d 1 INVITE x", n)}, 400},
			{[]string{fmt.Sprintf("RAck: %d 4294967297 INVITE", n)}, 400},
			{[]string{rackFor(early), rackFor(early)}, 400},
			{[]string{fmt.Sprintf("RAck: %d 1 INVITE", n+1)}, 481},
			{[]string{fmt.Sprintf("RAck: %d 1 INVITE", n-1)}, 481},
			{[]string{fmt.Sprintf("RAck: %d 2 INVITE", n)}, 481},
			{[]string{fmt.Sprintf("RAck: %d 1 invite", n)}, 481},
			{[]string{fmt.Sprintf("RAck: %d 1 UPDATE", n)}, 481},
		} {
			l.ask("PRACK", withHeaders(c.headers...))
			require.Equal(t, c.status, p.final("PRACK").StatusCode, "%v", c.headers)
		}
		l.ask("PRACK", withHeaders(rackFor(early)), func(r *dialogtest.Request) { r.ToTag = "nosuch" })
		p.next("481 PRACK")
		l.ask("PRACK", withHeaders(rackFor(early)), func(r *dialogtest.Request) { r.CSeq = 1 })
		p.next("500 PRACK") // RFC 3261 12.2.2
		require.Equal(t, string(p.next("183 INVITE").Data), w.sent(stackIP, "183 INVITE")[0].raw)
		l.ask("PRACK", withHeaders(fmt.Sprintf("RAck:  %d   1\tINVITE", n)))
		p.next("200 PRACK")
		require.NoError(t, l.d.Close())
		l.settled(b)
	})
}

// RFC 3262 3: one after the other, each with the next number; the application
// does not wait for it.
func TestProvisionalResponsesLeaveOneAfterTheOther(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, withHeaders(demands))
		codes := []int{181, 182, 183, 199}
		for _, code := range codes {
			l.progress(code)
		}
		last := w.sent(stackIP, "180 INVITE")[0].msg
		for _, code := range codes {
			time.Sleep(4 * time.Second)
			synctest.Wait()
			require.Empty(t, w.sent(stackIP, fmt.Sprint(code, " INVITE")), "the one before is not acknowledged")
			l.pracked(last)
			next := p.next(fmt.Sprint(code, " INVITE")).Message
			require.Equal(t, testkit.RSeq(last)+1, testkit.RSeq(next))
			last = next
		}
		// A final answer ends the queue; the PRACK may still come.
		l.progress(183)
		require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
		p.next("200 INVITE")
		l.acknowledge(1)
		l.pracked(last)
		p.quiet("183 INVITE", time.Minute)
		require.Len(t, w.sent(stackIP, "183 INVITE"), 4, "at 0, 0.5, 1.5 and 3.5 s: the later one has never left")
		l.ask("BYE")
		p.next("200 BYE")
		l.settled(b)
	})
}

func TestTheQueueOfProvisionalResponsesIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, withHeaders(demands))
		for range 16 {
			l.progress(183)
		}
		require.ErrorIs(t, l.d.Provisional(context.Background(), 183, ""), dialog.ErrPending)
		require.NoError(t, l.d.Reject(context.Background(), 486, ""))
		require.ErrorIs(t, l.d.Provisional(context.Background(), 183, ""), dialog.ErrState)
		l.settled(b)
	})
}

// RFC 3262 3: the 2xx waits for the PRACK of a response with a session
// description; ctx bounds the waiting, and the call goes on.
func TestAcceptWaitsForThePRACKOfASession(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, withHeaders(demands))
		first := w.sent(stackIP, "180 INVITE")[0].msg
		l.progress(183, withSDP(answerSDP)) // behind the 180
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		require.ErrorIs(t, l.d.Accept(ctx), context.DeadlineExceeded)
		require.Equal(t, dialog.DialogStateRinging, l.d.State())

		accepted := began(func() error { return l.d.Accept(context.Background()) })
		l.pracked(first)
		early := p.next("183 INVITE").Message
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Empty(t, w.sent(stackIP, "200 INVITE"))
		l.pracked(early)
		require.Empty(t, p.next("200 INVITE").Message.Body())
		require.NoError(t, <-accepted)
		l.acknowledge(1)
		synctest.Wait()
		p.quiet("183 INVITE", 5*time.Second)
		l.hangUp(p)
		l.settled(b)
	})
}

// RFC 3262 3: without a session description the 2xx waits for nothing, and a
// PRACK that crosses it gets its 200.
func TestAcceptDoesNotWaitForAPRACKWithoutASession(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, withHeaders(knows))
		l.progress(180, dialog.WithReliable())
		early := p.next("180 INVITE").Message
		require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP), dialog.WithReliable()))
		require.Empty(t, testkit.Value(p.next("200 INVITE").Message, "Require"))
		l.acknowledge(1)
		l.pracked(early)
		l.prack(early)
		p.next("481 PRACK")
		p.quiet("180 INVITE", 5*time.Second)
		l.hangUp(p)
		l.settled(b)
	})
}

// RFC 3262 3: while it rings reliably, it says so every two and a half minutes.
func TestRingingReliablyIsSaidAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP, func(c *dialog.StackConfig) { c.RingingLimit = 5 * time.Minute }), w.peer(peerIP)
		l := w.rings(b, p, withHeaders(demands))
		first := w.sent(stackIP, "180 INVITE")[0]
		l.pracked(first.msg)
		again := p.next("180 INVITE").Message
		require.Equal(t, testkit.RSeq(first.msg)+1, testkit.RSeq(again))
		l.pracked(again)
		time.Sleep(time.Minute)
		third := p.next("180 INVITE").Message
		require.Equal(t, testkit.RSeq(again)+1, testkit.RSeq(third))
		synctest.Wait()
		require.Equal(t, []time.Duration{0, time.Minute, 210 * time.Second}, times(w.sent(stackIP, "180 INVITE")))
		l.pracked(third)
		p.next("480 INVITE")
		l.settled(b)
	})
}

// FT11: a call that has ended and expects no PRACK takes none for the one that it does
// not expect.
func TestALatePRACKOfAnEndedCallGets481(t *testing.T) {
	for _, rack := range []string{"0 0 BYE", "0 0 INVITE", "1 1 INVITE", "0 1 INVITE"} {
		bubble(t, func(t *testing.T, w *world) {
			p := w.peer(peerIP)
			l := w.incoming(w.stack(stackIP), p)
			l.ask("PRACK", withHeaders("RAck: "+rack))
			require.Equal(t, 481, p.final("PRACK").StatusCode)
			l.ask("BYE")
			p.next("200 BYE")
			synctest.Wait()
			l.ask("PRACK", withHeaders("RAck: "+rack))
			require.Equal(t, 481, p.final("PRACK").StatusCode, rack)
		})
	}
}

func reliability(r dialog.Reliability) func(*dialog.StackConfig) {
	return func(c *dialog.StackConfig) { c.Reliable = r }
}

// RFC 3262 4: what our INVITEs and answers say of it.
func TestReliabilityIsAnnouncedAsConfigured(t *testing.T) {
	for _, c := range []struct {
		set               dialog.Reliability
		supported, allow  string
		require, reinvite []string
	}{
		{dialog.ReliableSupported, "norefersub, nosub, timer, replaces, 100rel, 199", "INFO, PRACK", nil, nil},
		{dialog.ReliableOff, "norefersub, nosub, timer, replaces, 199", "NOTIFY, INFO", nil, nil},
		{dialog.ReliableRequired, "norefersub, nosub, timer, replaces, 100rel, 199", "INFO, PRACK", []string{"100rel"}, nil},
	} {
		bubble(t, func(t *testing.T, w *world) {
			a, p := w.stack(stackIP, reliability(c.set)), w.peer(peerIP)
			l := w.outgoing(a, p)
			invite := w.one(stackIP, "INVITE")
			require.Equal(t, c.supported, invite.value(t, "Supported"))
			require.Regexp(t, c.allow+"$", invite.value(t, "Allow"))
			require.Equal(t, c.require, invite.values("Require"))

			// Only the INVITE that begins a call insists.
			done := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
			p.reply(p.next("INVITE"), dialogtest.Response{Code: 200, Body: answerSDP})
			require.NoError(t, <-done)
			synctest.Wait()
			require.Equal(t, c.reinvite, w.last(stackIP, "INVITE").values("Require"))
			l.hangUp(p)
		})
	}
}

// RFC 3261 21.4.16, RFC 3262 3: 421 where we insist, 420 where we refuse.
func TestCallersWithoutARequiredExtension(t *testing.T) {
	for _, c := range []struct {
		name          string
		set           dialog.Reliability
		headers       []string
		status        int
		header, value string
	}{
		{"required, nothing said", dialog.ReliableRequired, nil, 421, "Require", "100rel"},
		{"required, another tag", dialog.ReliableRequired, []string{"Supported: timer"}, 421, "Require", "100rel"},
		{"required, supported", dialog.ReliableRequired, []string{"Supported: timer, 100Rel"}, 180, "", ""},
		{"required, compact form", dialog.ReliableRequired, []string{"k: 100rel"}, 180, "", ""},
		{"required, required", dialog.ReliableRequired, []string{"Require: 100rel"}, 180, "", ""},
		{"supported, required", dialog.ReliableSupported, []string{"Require: 100rel"}, 180, "", ""},
		{"off, required", dialog.ReliableOff, []string{"Require: 100rel"}, 420, "Unsupported", "100rel"},
		{"off, supported", dialog.ReliableOff, []string{"Supported: 100rel"}, 180, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack("10.0.0.2", reliability(c.set)), w.peer("10.0.0.9")
				b.OnIncomingDialog(func(dialog.IDialog) {})
				require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{
					Method: "INVITE", URI: "sip:b@10.0.0.2", Headers: append(c.headers, contactOfPeer), Body: offerSDP,
				})))
				p.next("100 INVITE")
				res := response(p.nextAny().Message)
				require.Equal(t, c.status, res.StatusCode)
				if c.header != "" {
					require.Equal(t, c.value, testkit.Value(res, c.header))
				}
			})
		})
	}
}

// In the off mode PRACK is a method we know but do not serve.
func TestPRACKIsRefusedWhereItIsOff(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2", reliability(dialog.ReliableOff)), w.peer("10.0.0.9")
		_, inside := w.called(b, p, answerSDP)
		res := p.ask(b, inside("PRACK", 11, "RAck: 1 10 INVITE"))
		require.Equal(t, 405, res.StatusCode)
		require.NotContains(t, testkit.Value(res, "Allow"), "PRACK")
		require.Equal(t, 405, p.ask(b, dialogtest.Request{Method: "PRACK", URI: "sip:b@10.0.0.2", CallID: "other"}).StatusCode)
		require.Equal(t, 200, p.ask(b, inside("BYE", 12)).StatusCode)
	})
}

func TestReliabilityOutOfRangeIsRefused(t *testing.T) {
	_, err := dialog.NewStack(&dialog.StackConfig{Reliable: 3})
	require.ErrorIs(t, err, dialog.ErrInvalidArgument)
}

// However a call ends that has reliable responses without PRACK, the INVITE gets
// one final answer, nothing repeats, a late PRACK its 200, and nothing stays.
func TestCallThatEndsWhileAPRACKIsAwaited(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name  string
		end   func(l *peerCall) error
		final string
	}{
		{"CANCEL", func(l *peerCall) error { l.cancels(); return nil }, "487 INVITE"},
		{"BYE", func(l *peerCall) error { l.ask("BYE"); return nil }, "487 INVITE"},
		{"Reject", func(l *peerCall) error { return l.d.Reject(ctx, 486, "") }, "486 INVITE"},
		{"Close", func(l *peerCall) error { return l.d.Close() }, "480 INVITE"},
		{"Hangup", func(l *peerCall) error { return l.d.Hangup(ctx) }, "480 INVITE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l, early := w.answeredEarly()
				l.progress(183, withSDP(answerSDP)) // one that waits
				accepted := began(func() error { return l.d.Accept(ctx) })
				time.Sleep(time.Second)
				synctest.Wait()
				repeated := len(w.sent(stackIP, "183 INVITE"))
				require.NoError(t, c.end(l))
				l.next(c.final)
				require.ErrorIs(t, <-accepted, dialog.ErrAnswered)
				require.Empty(t, l.pracked(early.Message).Body())
				l.quiet("183 INVITE", 40*time.Second)
				require.Len(t, w.sent(stackIP, "183 INVITE"), repeated)
				require.Empty(t, w.sent(stackIP, "200 INVITE"))
				l.prack(early.Message)
				l.next("481 PRACK")
				l.settled(w.stacks[0])
			})
		})
	}
}

func TestShutdownWhileAPRACKIsAwaited(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l, _ := w.answeredEarly()
		l.progress(183, withSDP(answerSDP))
		accepted := began(func() error { return l.d.Accept(context.Background()) })
		synctest.Wait()
		require.NoError(t, w.stacks[0].Shutdown(context.Background()))
		l.next("503 INVITE")
		require.ErrorIs(t, <-accepted, dialog.ErrAnswered)
		require.Zero(t, testkit.Held(w.stacks[0]))
	})
}

// The ringing limit runs on while Accept waits.
func TestRingingLimitWhileAPRACKIsAwaited(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP, func(c *dialog.StackConfig) { c.RingingLimit = 10 * time.Second }), w.peer(peerIP)
		l := w.rings(b, p, withHeaders(knows))
		l.progress(183, withSDP(answerSDP))
		require.ErrorIs(t, l.d.Accept(context.Background()), dialog.ErrAnswered)
		p.next("480 INVITE")
		l.settled(b)
	})
}

// PRACK, CANCEL and BYE that cross Accept: one final answer, whichever it is,
// and the PRACK always gets its 200.
func TestPRACKCrossesEverything(t *testing.T) {
	for _, with := range []string{"CANCEL", "BYE"} {
		for _, first := range []bool{true, false} {
			bubble(t, func(t *testing.T, w *world) {
				l, early := w.answeredEarly()
				accepted := began(func() error { return l.d.Accept(context.Background()) })
				synctest.Wait()
				end := func() {
					if with == "BYE" {
						l.ask("BYE")
					} else {
						l.cancels()
					}
				}
				if first {
					end()
				}
				l.prack(early.Message)
				if !first {
					end()
				}
				synctest.Wait()
				require.Len(t, w.sent(stackIP, "200 PRACK"), 1)
				require.Len(t, w.sent(stackIP, "200 "+with), 1)
				if err := <-accepted; err != nil {
					require.ErrorIs(t, err, dialog.ErrAnswered)
					require.Len(t, w.sent(stackIP, "487 INVITE"), 1)
					require.Empty(t, w.sent(stackIP, "200 INVITE"))
				} else {
					require.Empty(t, w.sent(stackIP, "487 INVITE"))
					l.acknowledge(1)
					synctest.Wait()
					if with == "CANCEL" {
						l.hangUp(l.peer)
					}
				}
				l.settled(w.stacks[0])
			})
		}
	}
}

// Provisional, Accept and PRACKs from everywhere at once: the numbers rise by
// one, and each response waits for the one before.
func TestProvisionalResponsesFromManyGoroutines(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, withHeaders(demands))
		var all sync.WaitGroup
		for range 8 {
			all.Add(1)
			go func() {
				defer all.Done()
				_ = l.d.Provisional(context.Background(), 183, "", withSDP(answerSDP))
			}()
		}
		all.Wait()
		accepted := began(func() error { return l.d.Accept(context.Background()) })
		last := w.sent(stackIP, "180 INVITE")[0].msg
		for range 8 {
			l.pracked(last)
			next := p.next("183 INVITE").Message
			require.Equal(t, testkit.RSeq(last)+1, testkit.RSeq(next))
			last = next
		}
		synctest.Wait()
		require.Empty(t, w.sent(stackIP, "200 INVITE"))
		l.pracked(last)
		require.NoError(t, <-accepted)
		p.next("200 INVITE")
		l.acknowledge(1)
		synctest.Wait()
		l.hangUp(p)
		l.settled(b)
	})
}

// An INVITE that is repeated while a reliable response waits gets it again.
func TestINVITEAgainWhileAPRACKIsAwaited(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l, early := w.answeredEarly()
		require.NoError(t, l.Send(l.stack, l.inviteText))
		require.Equal(t, string(early.Data), string(l.next("183 INVITE").Data))
		l.pracked(early.Message)
		require.NoError(t, l.d.Reject(context.Background(), 486, ""))
		l.ask("PRACK", withHeaders(rackFor(early.Message)), func(r *dialogtest.Request) { r.FromTag = "other" })
		l.next("481 PRACK")
	})
}

// An SDP that is sent reliably while Accept waits for the send slot must be agreed upon first
// (RFC 3262 3): Accept checks again.
func TestAcceptWaitsForAPRACKThatBecomesDueMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		// No host has that address: the connection is never made.
		l := w.rings(b, p, withHeaders(knows, "Contact: <sip:caller@10.0.0.44:5060;transport=tcp>"))
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		stuck := began(func() error { _, err := l.d.Update(ctx, nil); return err })
		synctest.Wait()
		accepted := began(func() error { return l.d.Accept(context.Background()) })
		synctest.Wait()
		l.progress(183, withSDP(answerSDP))
		early := p.next("183 INVITE").Message
		require.Error(t, <-stuck)
		synctest.Wait()
		require.Empty(t, accepted)
		require.Empty(t, w.sent(stackIP, "200 INVITE"))
		l.pracked(early)
		require.NoError(t, <-accepted)
		p.next("200 INVITE")
		l.acknowledge(1)
		l.ask("BYE")
		p.next("200 BYE")
		l.settled(b)
	})
}

// The final answer waits for a reliable response that is being written, so that
// none leaves after it (RFC 3262 3).
func TestAcceptWaitsForAReliableResponseThatIsBeingWritten(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, withHeaders(knows))
		let := make(chan struct{})
		w.net.SetPolicy(func(packet dialogtest.Packet) []time.Duration {
			if strings.HasPrefix(string(packet.Data), "SIP/2.0 182") {
				<-let
			}
			return []time.Duration{0}
		})
		provided := began(func() error {
			return l.d.Provisional(context.Background(), 182, "", dialog.WithReliable())
		})
		synctest.Wait()
		accepted := began(func() error { return l.d.Accept(context.Background(), withSDP(answerSDP)) })
		synctest.Wait()
		require.Empty(t, w.sent(stackIP, "200 INVITE"))
		close(let)
		require.NoError(t, <-provided)
		require.NoError(t, <-accepted)
		p.next("182 INVITE")
		p.next("200 INVITE")
		l.acknowledge(1)
		synctest.Wait()
		l.hangUp(p)
	})
}
