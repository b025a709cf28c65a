package test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

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
