package test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// RFC 5057 5.5: a BYE ends the session, and the subscriptions of REFERs go on.

// hangsUp has the peer send BYE.
func (l *peerCall) hangsUp() {
	l.t.Helper()
	l.ask("BYE")
	l.next("200 BYE")
	synctest.Wait()
	require.Equal(l.t, dialog.DialogStateTerminated, l.d.State())
}

// checkEmpty waits out what remembers calls that have ended, and checks that
// nothing is left.
func (w *world) checkEmpty(s *dialog.Stack) {
	w.t.Helper()
	time.Sleep(40 * time.Second)
	synctest.Wait()
	require.Zero(w.t, testkit.Held(s))
}

// hangUps are the ways for the call to end before its subscription.
func hangUps() map[string]func(l *peerCall) {
	return map[string]func(l *peerCall){
		"peer hangs up": (*peerCall).hangsUp,
		"we hang up":    func(l *peerCall) { l.hangUp(l.peer) },
	}
}

func TestTransferOfOursReportsAfterTheCall(t *testing.T) {
	for name, end := range hangUps() {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a := w.stack(stackIP)
				l := w.outgoing(a, w.peer(peerIP))
				r := l.refers()
				result := waits(r)
				require.Equal(t, 200, l.notifies("2", "active;expires=60", "SIP/2.0 100 Trying"))
				end(l)
				require.Empty(t, a.Dialogs())
				require.Equal(t, 1, a.Stats().Subscribed)
				require.Equal(t, 200, l.notifies("2", "active;expires=60", "SIP/2.0 180 Ringing"))
				require.Equal(t, 481, l.notifies("9", "active;expires=60", "SIP/2.0 200 OK"), "another REFER's")
				require.Equal(t, 200, l.notifies("2", "terminated;reason=noresource", "SIP/2.0 200 OK"))
				require.Equal(t, 200, (<-result).Status)
				require.Equal(t, 481, l.notifies("2", "active", "SIP/2.0 200 OK"))
				require.Zero(t, a.Stats().Subscribed)
				w.checkEmpty(a)
			})
		})
	}
}

// The session is over for everything else: 481.
func TestOnlySubscriptionsOutliveTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack(stackIP)
		l := w.outgoing(a, w.peer(peerIP))
		r := l.refers()
		l.hangsUp()
		for _, method := range []string{"INFO", "INVITE", "UPDATE", "REFER", "OPTIONS"} {
			l.ask(method, withHeaders("Refer-To: <sip:x@10.0.0.8>"))
			require.Equal(t, 481, l.peer.final(method).StatusCode, method)
		}
		l.ask("BYE")
		require.Equal(t, 200, l.peer.final("BYE").StatusCode, "as while it is remembered")
		require.ErrorIs(t, l.d.Refer(context.Background(), uri("x", otherIP), dialog.ReferOpts{}), dialog.ErrTerminated)
		require.False(t, ended(r))
		_, ok := a.DialogByKey(l.d.Key())
		require.False(t, ok)
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		require.True(t, ended(r), "it expires as it would have")
		w.checkEmpty(a)
	})
}

// A REFER that is not answered yet when the call ends may still be accepted, or
// refused, or not.
func TestReferMayBeAnsweredAfterTheCall(t *testing.T) {
	for _, code := range []int{202, 603, 0} {
		bubble(t, func(t *testing.T, w *world) {
			a := w.stack(stackIP)
			l := w.outgoing(a, w.peer(peerIP))
			require.NoError(t, l.d.Refer(context.Background(), uri("dora", otherIP), dialog.ReferOpts{}))
			refer := l.next("REFER")
			l.hangsUp()
			if code != 0 {
				l.reply(refer, dialogtest.Response{Code: code})
			}
			r, err := l.d.WaitRefer(context.Background())
			switch code {
			case 202:
				require.NoError(t, err)
				require.Equal(t, 200, l.notifies("2", "terminated", "SIP/2.0 486 Busy Here"))
				require.Equal(t, 486, r.Status().Status)
			case 603:
				var refused *dialog.ResponseError
				require.ErrorAs(t, err, &refused)
			default:
				require.ErrorIs(t, err, dialog.ErrTimeout)
			}
			w.checkEmpty(a)
		})
	}
}

// A challenge to a REFER is not answered once the call is over.
func TestReferIsNotRepeatedAfterTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack(stackIP, func(c *dialog.StackConfig) {
			c.Credentials = func(string) (string, string, bool) { return "a", "b", true }
		})
		l := w.outgoing(a, w.peer(peerIP))
		require.NoError(t, l.d.Refer(context.Background(), uri("dora", otherIP), dialog.ReferOpts{}))
		refer := l.next("REFER")
		l.hangsUp()
		l.reply(refer, dialogtest.Response{Code: 401, Headers: []string{`WWW-Authenticate: Digest realm="r", nonce="n"`}})
		_, err := l.d.WaitRefer(context.Background())
		var refused *dialog.ResponseError
		require.ErrorAs(t, err, &refused)
		require.Len(t, w.sent(stackIP, "REFER"), 1)
		w.checkEmpty(a)
	})
}

// received has the peer refer the stack, and returns the subscription after its
// first NOTIFY.
func (l *peerCall) received() *dialog.ReferSubscription {
	l.t.Helper()
	l.ask("REFER", withHeaders("Refer-To: <sip:dora@"+otherIP+">"))
	l.next("202 REFER")
	l.reply(l.next("NOTIFY"), dialogtest.Response{Code: 200})
	synctest.Wait()
	list := l.d.GetAllReferSubscriptions()
	require.NotEmpty(l.t, list)
	return list[len(list)-1]
}

// We go on to report after the call, inside its dialog.
func TestWeReportAfterTheCall(t *testing.T) {
	for name, end := range hangUps() {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.stack(stackIP)
				l := w.incoming(b, w.peer(peerIP))
				r := l.received()
				end(l)
				last := uint32(1)
				for _, status := range []int{180, 200} {
					sent := began(func() error { return r.SendNotify(context.Background(), status, "So") })
					notify := l.next("NOTIFY")
					require.Equal(t, l.callID, notify.Message.CallID().Value())
					require.Equal(t, l.stackTag, testkit.FromTag(notify.Message))
					require.Equal(t, farTag, testkit.ToTag(notify.Message))
					require.Greater(t, notify.Message.CSeq().SeqNo, last)
					last = notify.Message.CSeq().SeqNo
					l.reply(notify, dialogtest.Response{Code: 200})
					require.NoError(t, <-sent)
				}
				require.ErrorIs(t, r.SendNotify(context.Background(), 200, "OK"), dialog.ErrNoSubscription)
				w.checkEmpty(b)
			})
		})
	}
}

// What the peer knows nothing of any more, or does not answer, ends; so does what
// nobody reports on.
func TestReportAfterTheCallEndsWithAFailure(t *testing.T) {
	for name, c := range map[string]struct {
		code int
		want error
	}{"481": {481, nil}, "404": {404, nil}, "silence": {0, dialog.ErrTimeout}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.stack(stackIP)
				l := w.incoming(b, w.peer(peerIP))
				r := l.received()
				l.hangsUp()
				sent := began(func() error { return r.SendNotify(context.Background(), 180, "Ringing") })
				notify := l.next("NOTIFY")
				if c.code > 0 {
					l.reply(notify, dialogtest.Response{Code: c.code})
				}
				err := <-sent
				require.Error(t, err)
				if c.want != nil {
					require.ErrorIs(t, err, c.want)
				}
				synctest.Wait()
				require.True(t, ended(r))
				_, err = r.Wait(context.Background())
				require.ErrorIs(t, err, dialog.ErrNoOutcome)
				w.checkEmpty(b)
			})
		})
	}
	t.Run("expiry", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			b := w.stack(stackIP)
			l := w.incoming(b, w.peer(peerIP))
			r := l.received()
			l.hangsUp()
			time.Sleep(235 * time.Second)
			last := l.next("NOTIFY")
			require.Equal(t, "terminated;reason=timeout", value(last.Message, "Subscription-State"))
			l.reply(last, dialogtest.Response{Code: 200})
			synctest.Wait()
			require.True(t, ended(r))
			w.checkEmpty(b)
		})
	})
}

// Close of a subscription, or of its dialog, tells the peer and is over at once.
func TestCloseEndsWhatWasReceived(t *testing.T) {
	closes := map[string]func(l *peerCall, r *dialog.ReferSubscription) error{
		"subscription":             func(_ *peerCall, r *dialog.ReferSubscription) error { return r.Close() },
		"subscription, call over":  func(l *peerCall, r *dialog.ReferSubscription) error { l.hangsUp(); return r.Close() },
		"dialog":                   func(l *peerCall, _ *dialog.ReferSubscription) error { return l.d.Close() },
		"dialog, call over":        func(l *peerCall, _ *dialog.ReferSubscription) error { l.hangsUp(); return l.d.Close() },
		"subscription, then again": func(_ *peerCall, r *dialog.ReferSubscription) error { _ = r.Close(); return r.Close() },
	}
	for name, close := range closes {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.stack(stackIP)
				l := w.incoming(b, w.peer(peerIP))
				r := l.received()
				require.NoError(t, close(l, r))
				var last wire
				for range 2 {
					synctest.Wait()
					if got := w.sent(stackIP, "NOTIFY"); len(got) > 1 {
						last = got[1]
					}
					time.Sleep(time.Second)
				}
				require.Equal(t, "terminated;reason=noresource", last.value(t, "Subscription-State"))
				require.Equal(t, "SIP/2.0 100 Trying\r\n", last.body())
				require.True(t, ended(r))
				if l.d.State() == dialog.DialogStateEstablished {
					l.hangsUp()
				}
				time.Sleep(time.Minute) // nobody answers: the transactions end
				w.checkEmpty(b)
			})
		})
	}
}

// Shutdown tells the peers that no outcome will come, and those who wait here.
func TestShutdownEndsSubscriptionsWithAReason(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP)
		p := w.peer(peerIP)
		l := w.incoming(b, p)
		r, mine := l.received(), l.refers()
		l.hangsUp()
		result := waits(mine)
		down := began(func() error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			return b.Shutdown(ctx)
		})
		last := l.next("NOTIFY")
		require.Equal(t, "terminated;reason=noresource", value(last.Message, "Subscription-State"))
		require.ErrorIs(t, (<-result).err, dialog.ErrShutdown)
		synctest.Wait()
		require.Empty(t, down, "the answer is waited for")
		l.reply(last, dialogtest.Response{Code: 200})
		require.NoError(t, <-down)
		require.True(t, ended(r))
		require.Zero(t, testkit.Held(b))
	})
}

// Shutdown with no time left ends them all the same.
func TestHastyShutdownEndsSubscriptions(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP)
		l := w.incoming(b, w.peer(peerIP))
		r, mine := l.received(), l.refers()
		l.hangsUp()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		require.NoError(t, b.Shutdown(ctx), "no call is left open")
		require.True(t, ended(r))
		require.True(t, ended(mine))
		require.Zero(t, testkit.Held(b))
		require.Len(t, w.sent(stackIP, "NOTIFY"), 2)
	})
}

// The last NOTIFY waits for the answer to the one before; when there is no time
// left for that it leaves all the same.
func TestHastyShutdownWritesTheLastNotifyThatWaits(t *testing.T) {
	for name, patience := range map[string]time.Duration{"at once": 0, "in a second": time.Second} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				l := w.incoming(b, p)
				l.ask("REFER", withHeaders(referToDora))
				l.next("NOTIFY") // 100 Trying, not answered
				r := l.d.GetAllReferSubscriptions()[0]
				l.hangsUp()
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				require.NoError(t, b.Shutdown(ctx), "no call is left open")
				require.True(t, ended(r))
				last := w.last(stackIP, "NOTIFY")
				require.Equal(t, "terminated;reason=noresource", last.value(t, "Subscription-State"))
				require.Zero(t, testkit.Held(b))
			})
		})
	}
}

// RFC 5057 5.1: what destroys the dialog ends its subscriptions too, and what
// ends the session only does not.
func TestFailuresEndWhatTheyAreSaidTo(t *testing.T) {
	for code, lives := range map[int]bool{481: true, 404: false} {
		bubble(t, func(t *testing.T, w *world) {
			a := w.stack(stackIP)
			l := w.outgoing(a, w.peer(peerIP))
			r := l.refers()
			sent := began(func() error { return l.d.SendInfo(context.Background(), nil) })
			l.reply(l.next("INFO"), dialogtest.Response{Code: code})
			require.Error(t, <-sent)
			l.reply(l.next("BYE"), dialogtest.Response{Code: 200})
			synctest.Wait()
			require.Equal(t, lives, !ended(r), code)
			time.Sleep(4 * time.Minute)
			w.checkEmpty(a)
		})
	}
}
