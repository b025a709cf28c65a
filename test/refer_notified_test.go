package test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// The subscription of a REFER of ours: its NOTIFYs, and its end.

// FD10. SIP.js ends the subscription in each of its NOTIFYs, without a reason: the
// outcome is in the last of them.
func TestOutcomeMayFollowASubscriptionThatEndedWithoutAReason(t *testing.T) {
	for name, number := range map[string]string{"with an id": "Event: refer;id=2", "without": "Event: refer"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
				r := l.refers()
				heard := make(chan dialog.Progress, 10)
				r.OnProgress(func(p dialog.Progress) { heard <- p })
				result := waits(r)
				for _, line := range []string{"100 Trying", "180 Ringing", "183 Progress", "200 OK"} {
					require.Empty(t, result)
					require.False(t, ended(r))
					time.Sleep(30 * time.Second) // on the fake clock, less than 64*T1
					require.Equal(t, 200, l.notifiesWith("SIP/2.0 "+line, number, "Subscription-State: terminated", "Content-Type: message/sipfrag"))
				}
				require.Equal(t, outcome{Progress: dialog.Progress{Status: 200, Reason: "OK"}}, <-result)
				require.True(t, ended(r))
				require.Len(t, drained(heard), 4)
				require.Empty(t, w.sent(stackIP, "SUBSCRIBE"), "there is nothing to refresh")
				require.Equal(t, 481, l.notifies("2", "terminated", "SIP/2.0 200 OK"))
			})
		})
	}
}

// One that nothing follows ends 64*T1 later, as a NOTIFY has said.
func TestSubscriptionThatEndedWithoutAReasonIsNotKeptLong(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		r := l.refers()
		result := waits(r)
		require.Equal(t, 200, l.notifies("2", "terminated", "SIP/2.0 180 Ringing"))
		began := time.Now()
		got := <-result
		require.Equal(t, 32*time.Second, time.Since(began))
		var lost *dialog.TransferError
		require.ErrorAs(t, got.err, &lost)
		require.Equal(t, &dialog.TransferError{Last: dialog.Progress{Status: 180, Reason: "Ringing"}}, lost)
		synctest.Wait()
		require.True(t, ended(r))
		require.Empty(t, w.sent(stackIP, "SUBSCRIBE"))
	})
}

// With a reason, without a status, or after the outcome, the end is the end; and what
// is active again is no longer about to end.
func TestSubscriptionEndsAtOnceWhereNothingMoreCanCome(t *testing.T) {
	for name, say := range map[string]func(l *peerCall){
		"a reason":          func(l *peerCall) { l.notifies("2", "terminated;reason=noresource", "SIP/2.0 180 Ringing") },
		"an unknown reason": func(l *peerCall) { l.notifies("2", "terminated;reason=bored", "SIP/2.0 100 Trying") },
		"no status":         func(l *peerCall) { l.notifies("2", "terminated", "") },
		"after the outcome": func(l *peerCall) {
			l.notifies("2", "active;expires=60", "SIP/2.0 200 OK")
			l.notifies("2", "terminated", "SIP/2.0 180 Ringing")
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
				r := l.refers()
				say(l)
				require.True(t, ended(r))
			})
		})
	}
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		r := l.refers()
		require.Equal(t, 200, l.notifies("2", "terminated", "SIP/2.0 100 Trying"))
		require.Equal(t, 200, l.notifies("2", "active;expires=120", "SIP/2.0 180 Ringing"))
		time.Sleep(100 * time.Second)
		require.False(t, ended(r))
		require.Equal(t, 200, l.notifies("2", "terminated;reason=noresource", "SIP/2.0 486 Busy Here"))
		require.Equal(t, 486, r.Status().Status)
	})
}

// The NOTIFY may come before the 202, and the call may end meanwhile.
func TestSubscriptionThatEndedWithoutAReasonOutlivesTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.outgoing(w.stack(stackIP), p)
		r := l.refers()
		require.Equal(t, 200, l.notifies("2", "terminated", "SIP/2.0 100 Trying"))
		l.ask("BYE")
		<-l.d.Done()
		synctest.Wait()
		require.False(t, ended(r))
		require.Equal(t, 200, l.notifies("2", "terminated", "SIP/2.0 603 Decline"))
		require.Equal(t, 603, r.Status().Status)
		require.True(t, ended(r))
	})
}

// NOTIFYs as they should not be: what they get, and that the outcome is learnt
// all the same.

const (
	rightEvent = "Event: refer;id=2"
	rightState = "Subscription-State: active;expires=60"
	rightType  = "Content-Type: message/sipfrag;version=2.0"
)

func TestResponsesToUnusualNOTIFYs(t *testing.T) {
	cases := []struct {
		name    string
		body    string
		headers []string
		answer  int
		status  int // what is known then; 180 before
		alive   bool
	}{
		{"no body", "", []string{rightEvent, rightState}, 200, 180, true},
		{"no body, last", "", []string{rightEvent, "Subscription-State: terminated"}, 200, 180, false},
		{"no type", "SIP/2.0 183 Progress", []string{rightEvent, rightState}, 200, 183, true},
		{"another type", "hello", []string{rightEvent, rightState, "Content-Type: text/plain"}, 415, 180, true},
		{"another type, a status line", "SIP/2.0 183 Progress", []string{rightEvent, rightState, "Content-Type: text/plain"}, 200, 183, true},
		{"another type, last", "hello", []string{rightEvent, "Subscription-State: terminated", "Content-Type: text/plain"}, 200, 180, false},
		{"no status line", "nonsense", []string{rightEvent, rightState, rightType}, 200, 180, true},
		{"a status that is none", "SIP/2.0 99 Low", []string{rightEvent, rightState, rightType}, 200, 180, true},
		{"a status too high", "SIP/2.0 700 High", []string{rightEvent, rightState, rightType}, 200, 180, true},
		{"a status without a reason", "SIP/2.0 183", []string{rightEvent, rightState, rightType}, 200, 183, true},
		{"a request in the body", "INVITE sip:x SIP/2.0", []string{rightEvent, rightState, rightType}, 200, 180, true},
		{"headers in the body", "SIP/2.0 183 Progress\r\nTo: <sip:x@y>\r\n\r\n", []string{rightEvent, rightState, rightType}, 200, 183, true},
		{"type in capitals", "SIP/2.0 183 Progress", []string{rightEvent, rightState, "Content-Type: Message/SipFrag"}, 200, 183, true},
		{"no state", "SIP/2.0 200 OK", []string{rightEvent, rightType}, 400, 180, true},
		{"an empty state", "SIP/2.0 200 OK", []string{rightEvent, "Subscription-State: ;expires=9", rightType}, 400, 180, true},
		{"a state of its own", "SIP/2.0 183 Progress", []string{rightEvent, "Subscription-State: dreaming", rightType}, 200, 183, true},
		{"pending", "SIP/2.0 183 Progress", []string{rightEvent, "Subscription-State: pending", rightType}, 200, 183, true},
		{"an expiry that cannot be read", "SIP/2.0 183 Progress", []string{rightEvent, "Subscription-State: active;expires=soon", rightType}, 200, 183, true},
		{"a negative expiry", "SIP/2.0 183 Progress", []string{rightEvent, "Subscription-State: active;expires=-1", rightType}, 200, 183, true},
		{"no id, one REFER", "SIP/2.0 183 Progress", []string{"Event: refer", rightState, rightType}, 200, 183, true},
		{"an unknown id", "SIP/2.0 200 OK", []string{"Event: refer;id=9", rightState, rightType}, 481, 180, true},
		{"an unknown id and nothing else", "", []string{"Event: refer;id=9"}, 481, 180, true},
		{"no event", "SIP/2.0 200 OK", []string{rightState, rightType}, 489, 180, true},
		{"another event", "SIP/2.0 200 OK", []string{"Event: presence", rightState, rightType}, 489, 180, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
				r := l.refers()
				require.Equal(t, 200, l.notifies("2", "active;expires=60", "SIP/2.0 180 Ringing"))
				result := waits(r)
				require.Equal(t, c.answer, l.notifiesWith(c.body, c.headers...))
				require.Equal(t, c.status, r.Status().Status)
				require.Equal(t, c.alive, !ended(r))
				require.Equal(t, dialog.DialogStateEstablished, l.d.State())
				if c.alive { // the outcome still comes
					require.Equal(t, 200, l.notifies("2", "terminated;reason=noresource", "SIP/2.0 486 Busy Here"))
					require.Equal(t, 486, (<-result).Status)
				} else {
					require.ErrorIs(t, (<-result).err, dialog.ErrNoOutcome)
				}
				if c.answer == 415 {
					require.Equal(t, "message/sipfrag", w.one(stackIP, "415 NOTIFY").value(t, "Accept"))
				}
			})
		})
	}
}

// RFC 3261 12.2.2: a NOTIFY that was overtaken gets 500, and changes nothing: of
// the outcome and a progress that comes late, the outcome stands.
func TestNOTIFYOutOfOrderGets500(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		r := l.refers()
		l.seq = 10
		require.Equal(t, 200, l.notifies("2", "active", "SIP/2.0 200 OK"))
		for _, seq := range []uint32{5, 10} {
			l.seq = seq
			late := l.made("NOTIFY", withHeaders(rightEvent, rightState, rightType), withBody("SIP/2.0 180 Ringing"))
			late.CSeq = seq
			require.NoError(t, l.Send(l.stack, l.Request(late)))
			require.Equal(t, 500, l.peer.final("NOTIFY").StatusCode)
		}
		require.Equal(t, 200, r.Status().Status)
	})
}

// A refresh of the outcome that has been told is not told again.
func TestOneNOTIFYSentTwiceCountsOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		r := l.refers()
		told := make(chan int, 9)
		r.OnProgress(func(p dialog.Progress) { told <- p.Status })
		text := l.ask("NOTIFY", withHeaders(rightEvent, rightState, rightType), withBody("SIP/2.0 180 Ringing"))
		l.next("200 NOTIFY")
		require.NoError(t, l.Send(l.stack, text))
		l.next("200 NOTIFY")
		synctest.Wait()
		require.Equal(t, []int{180}, drained(told))
	})
}

// A progress callback that blocks holds up neither the NOTIFYs nor the outcome,
// and what waits for it is bounded.
func TestBlockingProgressCallbackHoldsUpNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack(stackIP)
		l := w.outgoing(a, w.peer(peerIP))
		r := l.refers()
		enter := make(chan struct{})
		told := make(chan int, 500)
		r.OnProgress(func(p dialog.Progress) { <-enter; told <- p.Status })
		for i := range 100 {
			require.Equal(t, 200, l.notifies("2", "active", "SIP/2.0 18"+string(rune('0'+i%10))+" X"))
		}
		result := waits(r)
		require.Equal(t, 200, l.notifies("2", "terminated", "SIP/2.0 200 OK"))
		require.Equal(t, 200, (<-result).Status)
		require.NotZero(t, a.Stats().Dropped["progress"])
		close(enter)
		synctest.Wait()
		list := drained(told)
		require.Equal(t, 200, list[len(list)-1])
		require.Less(t, len(list), 100)
	})
}

// A REFER that times out, although a NOTIFY has come.
func TestUnansweredReferEndsItsSubscription(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		require.NoError(t, l.d.Refer(context.Background(), uri("dora", otherIP), dialog.ReferOpts{}))
		l.next("REFER")
		require.Equal(t, 200, l.notifies("2", "active", "SIP/2.0 180 Ringing"))
		r, ok := l.d.GetReferSubscription("2 REFER")
		require.True(t, ok)
		start := time.Now()
		_, err := r.Wait(context.Background())
		require.ErrorIs(t, err, dialog.ErrTimeout)
		require.Equal(t, 32*time.Second, time.Since(start).Round(time.Second))
		l.reply(l.next("BYE"), dialogtest.Response{Code: 200})
	})
}
