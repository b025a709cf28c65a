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

// SUBSCRIBE for the subscription of a REFER, both ways (RFC 3515 2.4.4, RFC 6665
// 4.1.2.2, 4.1.2.3).

// subscribes sends a SUBSCRIBE of the peer's and returns the answer's status.
func (l *peerCall) subscribes(headers ...string) int {
	l.t.Helper()
	l.ask("SUBSCRIBE", withHeaders(headers...))
	return l.peer.final("SUBSCRIBE").StatusCode
}

func TestSubscriberProlongsItsSubscription(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP)
		l := w.incoming(b, w.peer(peerIP))
		r := l.received()
		time.Sleep(150 * time.Second)
		require.Equal(t, 200, l.subscribes("Event: refer;id=2", "Expires: 600"))
		ok := w.one(stackIP, "200 SUBSCRIBE")
		require.Equal(t, "240", ok.value(t, "Expires"), "never longer than asked, and than we like")
		require.NotEmpty(t, ok.values("Contact"))
		now := l.next("NOTIFY")
		require.Equal(t, "active;expires=240", testkit.Value(now.Message, "Subscription-State"))
		require.Equal(t, "SIP/2.0 100 Trying\r\n", string(now.Message.Body()))
		l.reply(now, dialogtest.Response{Code: 200})
		time.Sleep(210 * time.Second)
		require.False(t, ended(r))

		require.Equal(t, 200, l.subscribes("Event: refer", "Expires: 10"))
		l.reply(l.next("NOTIFY"), dialogtest.Response{Code: 200})
		time.Sleep(9 * time.Second)
		require.False(t, ended(r))
		due := time.Now().Add(time.Second)
		last := l.next("NOTIFY")
		require.Equal(t, due, time.Now())
		require.Equal(t, "terminated;reason=timeout", testkit.Value(last.Message, "Subscription-State"))
		l.reply(last, dialogtest.Response{Code: 200})
	})
}

func TestSubscriberEndsItsSubscription(t *testing.T) {
	for _, over := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			b := w.stack(stackIP)
			l := w.incoming(b, w.peer(peerIP))
			r := l.received()
			if over {
				l.hangsUp()
			}
			require.Equal(t, 200, l.subscribes("Event: refer;id=2", "Expires: 0"))
			require.Equal(t, "0", w.one(stackIP, "200 SUBSCRIBE").value(t, "Expires"))
			last := l.next("NOTIFY")
			require.Equal(t, "terminated;reason=timeout", testkit.Value(last.Message, "Subscription-State"))
			l.reply(last, dialogtest.Response{Code: 200})
			synctest.Wait()
			require.True(t, ended(r))
			if over {
				require.Equal(t, 481, l.subscribes("Event: refer;id=2"))
				w.checkEmpty(b)
				return
			}
			require.Equal(t, 403, l.subscribes("Event: refer;id=2"))
			require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		})
	}
}

// RFC 3515 2.4.4: nothing but a REFER makes a subscription to refer.
func TestSUBSCRIBEToNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP)
		l := w.incoming(b, w.peer(peerIP))
		require.Equal(t, 403, l.subscribes("Event: refer", "Expires: 60"))
		l.received()
		l.ask("REFER", withHeaders("Refer-To: <sip:dora@"+otherIP+">"))
		l.next("202 REFER")
		l.reply(l.next("NOTIFY"), dialogtest.Response{Code: 200})
		require.Equal(t, 403, l.subscribes("Event: refer", "Expires: 60"), "which of the two?")
		require.Equal(t, 403, l.subscribes("Event: refer;id=77", "Expires: 60"))
		require.Equal(t, 400, l.subscribes("Event: refer;id=3", "Expires: soon"))
		require.Equal(t, 489, l.subscribes("Event: presence", "Expires: 60"))
		require.Len(t, w.sent(stackIP, "NOTIFY"), 2)
	})
}

// A subscription is refreshed in time while the application waits for its outcome, and not
// otherwise.
func TestSubscriptionIsRefreshedOnlyWhileItsOutcomeIsAwaited(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack(stackIP)
		l := w.outgoing(a, w.peer(peerIP))
		r := l.refers()
		require.Equal(t, 200, l.notifies("2", "active;expires=60", "SIP/2.0 180 Ringing"))
		result := waits(r)
		start := time.Now()
		for range 4 {
			refresh := l.next("SUBSCRIBE")
			require.Equal(t, "refer;id=2", testkit.Value(refresh.Message, "Event"))
			require.NotEmpty(t, testkit.Value(refresh.Message, "Contact"))
			require.Equal(t, "240", testkit.Value(refresh.Message, "Expires"))
			l.reply(refresh, dialogtest.Response{Code: 200, Headers: []string{"Expires: 100"}})
			require.Equal(t, 200, l.notifies("2", "active;expires=100", "SIP/2.0 180 Ringing"))
		}
		require.Equal(t, (30+3*68)*time.Second, time.Since(start))
		l.hangsUp()
		l.reply(l.next("SUBSCRIBE"), dialogtest.Response{Code: 200, Headers: []string{"Expires: 100"}})
		require.Equal(t, 200, l.notifies("2", "terminated", "SIP/2.0 200 OK"))
		require.Equal(t, 200, (<-result).Status)
		w.checkEmpty(a)
	})
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		r := l.refers()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, err := r.Wait(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		<-r.Done()
		require.Empty(t, w.sent(stackIP, "SUBSCRIBE"))
	})
}

// A Wait that begins shortly before the expiry still has the subscription refreshed.
func TestSubscriptionIsRefreshedForALateWait(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		r := l.refers()
		time.Sleep(170 * time.Second)
		result := waits(r)
		l.reply(l.next("SUBSCRIBE"), dialogtest.Response{Code: 200})
		time.Sleep(time.Minute)
		require.Equal(t, 200, l.notifies("2", "terminated", "SIP/2.0 200 OK"))
		require.Equal(t, 200, (<-result).Status)
	})
}

// RFC 6665 4.1.2.2: some refusals of a refresh end the subscription, others let
// it run out; the call goes on but for those that destroy the dialog.
func TestRefreshThatFails(t *testing.T) {
	for _, c := range []struct {
		code           int
		at             time.Duration // when the subscription ends
		call           bool
		isTimeout, had bool
	}{
		{481, 30, true, false, true}, {405, 30, true, false, true}, {489, 30, true, false, true},
		{404, 30, false, false, true}, {500, 60, true, true, false}, {403, 60, true, true, false}, {0, 60, true, true, false},
	} {
		bubble(t, func(t *testing.T, w *world) {
			l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
			r := l.refers()
			require.Equal(t, 200, l.notifies("2", "active;expires=60", "SIP/2.0 180 Ringing"))
			result := waits(r)
			start := time.Now()
			refresh := l.next("SUBSCRIBE")
			if c.code > 0 {
				l.reply(refresh, dialogtest.Response{Code: c.code})
			}
			err := (<-result).err
			require.Equal(t, c.at*time.Second, time.Since(start), c.code)
			require.ErrorIs(t, err, dialog.ErrNoOutcome)
			var refused *dialog.ResponseError
			if c.had {
				require.ErrorAs(t, err, &refused)
			}
			if c.isTimeout {
				require.ErrorIs(t, err, dialog.ErrTimeout)
			}
			if !c.call {
				l.reply(l.next("BYE"), dialogtest.Response{Code: 200})
			}
			synctest.Wait()
			require.Equal(t, c.call, l.d.State() == dialog.DialogStateEstablished, c.code)
		})
	}
}

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

// A subscription that the peer no longer knows, or whose NOTIFY times out, ends; so does one
// without reports.
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
			require.Equal(t, "terminated;reason=timeout", testkit.Value(last.Message, "Subscription-State"))
			l.reply(last, dialogtest.Response{Code: 200})
			synctest.Wait()
			require.True(t, ended(r))
			w.checkEmpty(b)
		})
	})
}

// Close of a subscription, or of its dialog, tells the peer and is over at once.
func TestCloseEndsAReceivedSubscription(t *testing.T) {
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
				time.Sleep(time.Minute) // no response: the transactions end
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
		require.Equal(t, "terminated;reason=noresource", testkit.Value(last.Message, "Subscription-State"))
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
func TestFailuresEndSubscriptionsByRFC5057(t *testing.T) {
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

// The bounds on subscriptions, and what crosses them.

// Calls that are over but for a transfer are bounded in number.
func TestCallsThatSubscriptionsOutliveAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP, func(c *dialog.StackConfig) { c.Limits.SubscribedCalls = 2 })
		p := w.peer(peerIP)
		var list []*dialog.ReferSubscription
		for _, id := range []string{"one", "two", "three"} {
			l := w.incoming(b, p, func(r *dialogtest.Request) { r.CallID = id })
			list = append(list, l.received())
			l.hangsUp()
		}
		require.Equal(t, 2, b.Stats().Subscribed)
		require.False(t, ended(list[0]))
		require.True(t, ended(list[2]))
		_, err := list[2].Wait(context.Background())
		require.ErrorIs(t, err, dialog.ErrMaxDialogs)
		require.NoError(t, list[0].Close())
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		synctest.Wait()
		require.Equal(t, 1, b.Stats().Subscribed)
	})
}

// However often it is refreshed, a subscription ends after an hour: one that we
// hold, and one that holds us.
func TestSubscriptionEndsAfterAnHour(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP)
		l := w.incoming(b, w.peer(peerIP))
		r := l.received()
		start := time.Now()
		for !ended(r) {
			require.Equal(t, 200, l.subscribes("Event: refer;id=2", "Expires: 180"))
			l.reply(l.next("NOTIFY"), dialogtest.Response{Code: 200})
			time.Sleep(140 * time.Second) // an hour is not a multiple of it
		}
		require.InDelta(t, time.Hour, time.Since(start), float64(3*time.Minute))
	})
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		r := l.refers()
		result, start := waits(r), time.Now()
		for !ended(r) {
			code := l.notifies("2", "active;expires=10000", "SIP/2.0 180 Ringing")
			require.Contains(t, []int{200, 481}, code)
			time.Sleep(10 * time.Minute)
		}
		require.ErrorIs(t, (<-result).err, dialog.ErrTimeout)
		require.InDelta(t, time.Hour, time.Since(start), float64(11*time.Minute))
	})
}

// Requests of a transfer may cross the end of the call, and any other request: both sides
// agree in the end, and no state is left.
func TestTransfersThatCrossOtherRequests(t *testing.T) {
	reports := action{"NOTIFY", func(ctx context.Context, d *dialog.Dialog) error {
		return d.GetAllReferSubscriptions()[0].SendNotify(ctx, 200, "OK")
	}}
	forgets := action{"Close of the subscription", func(_ context.Context, d *dialog.Dialog) error {
		return d.GetAllReferSubscriptions()[0].Close()
	}}
	closes := action{"Close", func(_ context.Context, d *dialog.Dialog) error { return d.Close() }}
	for _, one := range []action{hangsUp, reInvites, updates, refers, forgets, closes} {
		for _, other := range []action{reports, forgets, hangsUp, closes, reInvites} {
			t.Run(one.name+" and "+other.name, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
					caller, callee := w.established(a, b)
					require.NoError(t, caller.Refer(context.Background(), uri("carol", "10.0.0.3"), dialog.ReferOpts{}))
					r, err := caller.WaitRefer(context.Background())
					require.NoError(t, err)
					synctest.Wait()
					result := waits(r)
					w.delayed(50 * time.Millisecond)
					_, reported := together(caller, callee, one, other)
					if other.name == reports.name && reported == nil {
						require.Equal(t, 200, (<-result).Status, "what was answered 200 was learnt")
					}
					time.Sleep(time.Second)
					_, _ = caller.Close(), callee.Close()
					w.nothingLeft()
					require.True(t, ended(r))
				})
			})
		}
	}
}

// A peer could fill a call with subscriptions: none was refused.
func TestSubscriptionsOfACallAreBoundedByDefault(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		for range 120 {
			l.ask("REFER", withHeaders("Refer-To: <sip:c@10.0.0.5>"))
			synctest.Wait()
		}
		require.Len(t, l.d.GetAllReferSubscriptions(), 100)
		require.Len(t, w.sent(stackIP, "503 REFER"), 20)
	})
}

// A subscription whose last NOTIFY could not be sent, since an ACK waited for
// the application, lived for ever.
func TestSubscriptionExpiresWhileAnACKWaits(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(a, p)
		l.ask("REFER", withHeaders("Refer-To: <sip:c@10.0.0.5>"))
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		synctest.Wait()
		require.Len(t, l.d.GetAllReferSubscriptions(), 1)
		time.Sleep(3*time.Minute - 5*time.Second)
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
			time.Sleep(10 * time.Second) // the subscription ends meanwhile
			return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
		})
		result := began(func() error { return l.d.ReInvite(context.Background(), dialog.InviteOpts{}) })
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 200, Body: offerSDP})
		require.NoError(t, <-result)
		time.Sleep(10 * time.Minute)
		require.Empty(t, l.d.GetAllReferSubscriptions())
	})
}
