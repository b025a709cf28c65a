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
		require.Equal(t, "active;expires=240", value(now.Message, "Subscription-State"))
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
		require.Equal(t, "terminated;reason=timeout", value(last.Message, "Subscription-State"))
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
			require.Equal(t, "terminated;reason=timeout", value(last.Message, "Subscription-State"))
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

// While somebody waits for the outcome the subscription is refreshed in time;
// when nobody does it is not.
func TestSubscriptionIsRefreshedWhileSomebodyWaits(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack(stackIP)
		l := w.outgoing(a, w.peer(peerIP))
		r := l.refers()
		require.Equal(t, 200, l.notifies("2", "active;expires=60", "SIP/2.0 180 Ringing"))
		result := waits(r)
		start := time.Now()
		for range 4 {
			refresh := l.next("SUBSCRIBE")
			require.Equal(t, "refer;id=2", value(refresh.Message, "Event"))
			require.NotEmpty(t, value(refresh.Message, "Contact"))
			require.Equal(t, "240", value(refresh.Message, "Expires"))
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

// Who begins to wait shortly before the end has it refreshed all the same.
func TestSubscriptionIsRefreshedForWhoWaitsLate(t *testing.T) {
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
