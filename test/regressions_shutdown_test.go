package test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// shutWithin shuts a stack down with a second's time, and returns what is left.
func (w *world) shutWithin(s *dialog.Stack) dialog.ShutdownError {
	w.t.Helper()
	w.stacks = nil // shut down here
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	began := time.Now()
	var left *dialog.ShutdownError
	require.ErrorAs(w.t, s.Shutdown(ctx), &left)
	require.LessOrEqual(w.t, time.Since(began), 2*time.Second)
	return *left
}

// FX3: an ACK that dials a host that is not there delays neither the peer's BYE, which
// ends the call on both sides, nor Shutdown.
func TestShutdownDoesNotWaitForAnACKThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		contact := "Contact: <sip:peer@10.9.9.9:5099;transport=tcp>"
		l.answer(dialogtest.Response{Code: 200, Headers: []string{contact}, Body: answerSDP})
		synctest.Wait()
		l.ask("BYE")
		require.Equal(t, 200, p.final("BYE").StatusCode)
		w.stacks = nil // shut down here
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.NoError(t, a.Shutdown(ctx))
		require.Zero(t, testkit.Held(a))
	})
}

// A further fork that was released while Shutdown waited for a callback left
// the note of its end behind, with a timer.
func TestForkThatEndsDuringShutdownLeavesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		hold := make(chan struct{})
		defer close(hold)
		l.d.OnStateChange(func(s dialog.DialogState) {
			if s == dialog.DialogStateTerminated {
				<-hold
			}
		})
		l.answer(dialogtest.Response{Code: 200, ToTag: "A", Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		p.next("ACK")
		down := began(func() error { return a.Shutdown(context.Background()) })
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
		synctest.Wait()
		l.answer(dialogtest.Response{Code: 200, ToTag: "B", Body: answerSDP})
		w.stacks = nil // shut down, with the callback counted
		var left *dialog.ShutdownError
		require.ErrorAs(t, <-down, &left)
		require.Equal(t, 1, left.Callbacks)
		synctest.Wait()
		now := testkit.Held(a)
		now.Calls = 0 // the callback that is held
		require.Zero(t, now)
	})
}

// Credentials ran where Shutdown waited for it, without end.
func TestShutdownDoesNotWaitForBlockedCredentials(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		block := make(chan struct{})
		defer close(block)
		a := w.stack(stackIP, func(c *dialog.StackConfig) {
			c.Credentials = func(string) (string, string, bool) { <-block; return "a", "b", true }
		})
		l := w.calls(a, w.peer(peerIP), offer(offerSDP))
		l.answer(dialogtest.Response{Code: 401, Headers: []string{credentialsWanted}})
		synctest.Wait()
		require.Equal(t, 1, w.shutWithin(a).Callbacks)
	})
}

// credentialsWanted is a header of a 401.
const credentialsWanted = `WWW-Authenticate: Digest realm="r", nonce="n", algorithm=MD5`

// A call ended inside Credentials waited for itself.
func TestByeInsideCredentialsReturns(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		call, result := make(chan *dialog.Dialog, 1), make(chan error, 1)
		a := w.stack(stackIP, func(c *dialog.StackConfig) {
			c.Credentials = func(string) (string, string, bool) {
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
				defer cancel()
				result <- (<-call).Bye(ctx, "")
				return "", "", false
			}
		})
		l := w.calls(a, w.peer(peerIP), offer(offerSDP))
		call <- l.d
		l.answer(dialogtest.Response{Code: 401, Headers: []string{credentialsWanted}})
		require.NoError(t, <-result)
		require.Equal(t, dialog.DialogStateTerminated, l.d.State())
	})
}

// A timer that was repeating a 200 ran on, in the application's trace, when
// Shutdown had returned: nobody counted it.
func TestShutdownCountsTheTraceOfATimer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		until := make(chan struct{})
		defer close(until)
		var count atomic.Int32
		b := w.stack(stackIP, func(c *dialog.StackConfig) {
			c.Trace = func(e dialog.TraceEvent) {
				if e.Outbound && strings.HasPrefix(string(e.Data), "SIP/2.0 200") && count.Add(1) == 2 {
					<-until
				}
			}
		})
		l := w.rings(b, w.peer(peerIP))
		require.NoError(t, l.d.Accept(context.Background()))
		time.Sleep(time.Second)
		left := w.downIn(b, time.Second)
		require.Equal(t, 1, left.Unreleased, "the 200 has no ACK")
		require.Equal(t, 1, left.Callbacks)
	})
}

// The 503 of a stack that shuts down said when to try again only if somebody
// took calls.
func TestStackThatShutsDownSaysWhenToTryAgainThoughNobodyTakesCalls(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		w.toPeer(b, p)
		down := began(func() error { return b.Shutdown(context.Background()) })
		bye := p.next("BYE")
		w.say(p, b, p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:x@" + stackIP, CallID: "other"}))
		res := p.next("503 INVITE").Response()
		p.reply(bye, dialogtest.Response{Code: 200})
		require.NoError(t, <-down)
		require.NotEmpty(t, res.GetHeaders("Retry-After"))
	})
}

// The last call ends when its BYE goes unanswered; the re-INVITE that is still
// open is cancelled then. Shutdown closed the room below at the same moment.
func TestShutdownCancelsTheReInviteOfTheLastCall(t *testing.T) {
	for range 100 {
		bubble(t, func(t *testing.T, w *world) {
			a, p := w.stack(stackIP), w.peer(peerIP)
			l := w.outgoing(a, p)
			result := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
			p.reply(l.next("INVITE"), dialogtest.Response{Code: 100})
			w.stacks = nil // shut down here
			require.NoError(t, a.Shutdown(context.Background()))
			require.Error(t, <-result)
			require.NotEmpty(t, w.sent(stackIP, "CANCEL"))
		})
	}
}
