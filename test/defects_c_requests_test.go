package test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// The rows C11 and C13: the other requests inside a call.

// C11, RFC 3261 12.2.2: a CSeq that is not higher than the last gets 500; a
// retransmission gets its answer again; an ACK may have any.
func TestCSeqOfThePeerIsChecked(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		numbered := func(seq uint32) func(*dialogtest.Request) {
			return func(r *dialogtest.Request) { r.CSeq = seq }
		}
		text := l.ask("INFO", numbered(10))
		first := p.next("200 INFO")
		require.NoError(t, p.Send(b.Addr(), text))
		require.Equal(t, string(first.Data), string(p.next("200 INFO").Data))
		for _, seq := range []uint32{10, 9, 1} {
			l.ask("INFO", numbered(seq))
			require.Equal(t, seq, p.next("500 INFO").Response().CSeq().SeqNo)
		}
		// None of these has moved the number.
		l.ask("INFO", numbered(11))
		p.next("200 INFO")
		// A gap is no fault.
		l.ask("INFO", numbered(4000))
		p.next("200 INFO")
		l.ask("BYE", numbered(3999))
		p.next("500 BYE")
		synctest.Wait()
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		l.ask("BYE", numbered(4001))
		p.next("200 BYE")
		synctest.Wait()
		require.Equal(t, dialog.DialogStateTerminated, l.d.State())
	})
}

// C11: what a user agent has to understand inside a call is not answered 405.
func TestMethodsInsideACall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		l.ask("INFO", withHeaders("Content-Type: application/dtmf-relay"), withBody("Signal=1\r\n"))
		p.next("200 INFO")
		l.ask("INFO", withHeaders("Info-Package: x"))
		p.next("469 INFO")
		synctest.Wait()
		require.Len(t, w.one(stackIP, "469 INFO").values("Recv-Info"), 1)

		l.ask("OPTIONS")
		p.next("200 OPTIONS")
		synctest.Wait()
		options := w.one(stackIP, "200 OPTIONS")
		require.Contains(t, options.value(t, "Allow"), "NOTIFY, INFO")
		require.Equal(t, "application/sdp", options.value(t, "Accept"))
		require.Equal(t, "norefersub, nosub, timer, replaces, 100rel", options.value(t, "Supported"))

		l.ask("NOTIFY", withHeaders("Event: refer", "Subscription-State: active"))
		p.next("481 NOTIFY")
		l.ask("NOTIFY", withHeaders("Event: presence", "Subscription-State: active"))
		p.next("489 NOTIFY")
		synctest.Wait()
		require.Equal(t, "refer", w.one(stackIP, "489 NOTIFY").value(t, "Allow-Events"))

		l.ask("MESSAGE")
		p.next("405 MESSAGE")
		synctest.Wait()
		require.Contains(t, w.one(stackIP, "405 MESSAGE").value(t, "Allow"), "INVITE")
		l.ask("NONSENSE")
		p.next("501 NONSENSE")
		synctest.Wait()
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
	})
}

// C13: NOTIFY has a legal Event id, an expiry, a sipfrag that ends its line,
// and one Content-Length (RFC 3515 2.4, RFC 6665 4.2.2).
func TestNOTIFYIsWellFormed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		l.ask("REFER", withHeaders("Refer-To: <sip:dora@"+otherIP+">"))
		p.next("202 REFER")
		check := func(seq int, state, body string) {
			t.Helper()
			p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
			synctest.Wait()
			m := w.last(stackIP, "NOTIFY")
			require.Equal(t, "NOTIFY sip:peer@"+peerIP+":5060 SIP/2.0", m.startLine())
			require.Equal(t, fmt.Sprintf("%d NOTIFY", seq), m.value(t, "CSeq"))
			require.Equal(t, "refer;id=2", m.value(t, "Event"))
			require.Equal(t, state, m.value(t, "Subscription-State"))
			require.Equal(t, "message/sipfrag;version=2.0", m.value(t, "Content-Type"))
			require.Equal(t, strconv.Itoa(len(body)), m.value(t, "Content-Length"))
			require.Equal(t, body, m.body())
			require.Equal(t, "<"+l.target+">", m.value(t, "Contact"))
			require.Equal(t, l.stackTag, testkit.FromTag(m.msg))
			require.Equal(t, farTag, testkit.ToTag(m.msg))
		}
		check(1, "active;expires=240", "SIP/2.0 100 Trying\r\n")
		r, ok := l.d.GetReferSubscription("2 REFER")
		require.True(t, ok)
		require.Equal(t, []*dialog.ReferSubscription{r}, l.d.GetAllReferSubscriptions())

		time.Sleep(30 * time.Second)
		sent := began(func() error { return r.SendNotify(context.Background(), 180, "Ringing") })
		check(2, "active;expires=210", "SIP/2.0 180 Ringing\r\n")
		require.NoError(t, <-sent)
		sent = began(func() error { return r.SendNotify(context.Background(), 200, "OK") })
		check(3, "terminated;reason=noresource", "SIP/2.0 200 OK\r\n")
		require.NoError(t, <-sent)
		require.ErrorIs(t, r.SendNotify(context.Background(), 200, "OK"), dialog.ErrNoSubscription)
		require.Empty(t, l.d.GetAllReferSubscriptions())
	})
}

// C13: a subscription that nobody ends says so when its time is over.
func TestSubscriptionEndsWithItsTime(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		l.ask("REFER", withHeaders("Refer-To: <sip:dora@"+otherIP+">"))
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		time.Sleep(230 * time.Second)
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		synctest.Wait()
		list := w.sent(stackIP, "NOTIFY")
		require.Equal(t, []time.Duration{0, 240 * time.Second}, times(list))
		require.Equal(t, "terminated;reason=timeout", list[1].value(t, "Subscription-State"))
		require.Empty(t, l.d.GetAllReferSubscriptions())
	})
}
