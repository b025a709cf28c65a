package test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// FD3. RFC 6665 4.1, 4.2: the application's own subscriptions are dialogs of which
// the stack knows nothing.
func TestRequestsInDialogsOfTheApplicationsReachItsHandler(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		notified := make(chan string, 1)
		require.NoError(t, a.OnRequest("NOTIFY", func(_ context.Context, req *sip.Request) dialog.Answer {
			notified <- value(req, "Event") + " " + testkit.ToTag(req)
			return dialog.Answer{}
		}))
		req := sip.NewRequest(sip.SUBSCRIBE, uri("mwi", peerIP))
		req.AppendHeader(sip.NewHeader("Event", "message-summary"))
		done := began(func() error { _, err := a.Do(context.Background(), req); return err })
		subscribe := p.next("SUBSCRIBE")
		p.reply(subscribe, dialogtest.Response{Code: 200, ToTag: farTag})
		require.NoError(t, <-done)
		ours := testkit.FromTag(subscribe.Message)
		res := p.ask(a, dialogtest.Request{
			Method: "NOTIFY", URI: "sip:mwi@" + stackIP, FromTag: farTag, ToTag: ours, CallID: subscribe.Request().CallID().Value(),
			Headers: []string{"Event: message-summary", "Subscription-State: active;expires=60"},
		})
		require.Equal(t, 200, res.StatusCode)
		require.Equal(t, ours, testkit.ToTag(res))
		require.Equal(t, "message-summary "+ours, <-notified)
	})
}

func TestSubscribeThatRefreshesReachesTheHandler(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		tags := make(chan string, 2)
		require.NoError(t, b.OnRequest("SUBSCRIBE", func(_ context.Context, req *sip.Request) dialog.Answer {
			tags <- testkit.ToTag(req)
			return dialog.Answer{Status: 202}
		}))
		r := dialogtest.Request{Method: "SUBSCRIBE", URI: "sip:b@10.0.0.2", Headers: []string{"Event: presence"}}
		first := p.ask(b, r)
		require.Equal(t, 202, first.StatusCode)
		require.Empty(t, <-tags)
		r.ToTag, r.CSeq = testkit.ToTag(first), 2
		again := p.ask(b, r)
		require.Equal(t, 202, again.StatusCode)
		require.Equal(t, testkit.ToTag(first), testkit.ToTag(again))
		require.Equal(t, testkit.ToTag(first), <-tags)
	})
}

// Only the methods that have a handler, and never what belongs to a call of ours.
func TestRequestsInUnknownDialogsGet481WithoutAHandler(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		for _, method := range []string{"NOTIFY", "MESSAGE", "OPTIONS"} {
			require.NoError(t, b.OnRequest(method, func(_ context.Context, req *sip.Request) dialog.Answer {
				return dialog.Answer{Status: 299}
			}))
		}
		unknown := func(method string, headers ...string) int {
			return p.ask(b, dialogtest.Request{Method: method, URI: "sip:b@10.0.0.2", CallID: "unknown", ToTag: "nosuch", Headers: headers}).StatusCode
		}
		for _, method := range []string{"NOTIFY", "MESSAGE", "OPTIONS"} {
			require.Equal(t, 299, unknown(method, "Event: presence"), method)
		}
		for _, method := range []string{"SUBSCRIBE", "REFER", "INFO", "UPDATE", "PRACK", "BYE", "DANCE", "INVITE"} {
			require.Equal(t, 481, unknown(method), method)
		}

		// In a call of ours, while it lasts and for a while after.
		d, inside := w.called(b, p, answerSDP)
		require.Equal(t, 489, p.ask(b, inside("NOTIFY", 11, "Event: presence")).StatusCode)
		require.Equal(t, 481, p.ask(b, inside("NOTIFY", 12, "Event: refer")).StatusCode)
		require.Equal(t, 200, p.ask(b, inside("BYE", 13)).StatusCode)
		<-d.Done()
		synctest.Wait()
		require.Equal(t, 481, p.ask(b, inside("MESSAGE", 14)).StatusCode)
		require.Equal(t, 481, p.ask(b, inside("NOTIFY", 15, "Event: refer")).StatusCode)
		time.Sleep(33 * time.Second) // on the fake clock: 64*T1
		require.Equal(t, 299, p.ask(b, inside("MESSAGE", 16)).StatusCode, "nobody remembers the call")
	})
}

// A REFER of ours outside calls that a proxy has forked: the first peer that is
// heard of is the one, whatever the application serves.
func TestNotifyOfASecondForkOfAReferIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		require.NoError(t, a.OnRequest("NOTIFY", func(context.Context, *sip.Request) dialog.Answer {
			t.Error("must not reach the application")
			return dialog.Answer{}
		}))
		done := began(func() error {
			r, err := a.Refer(context.Background(), uri("phone", peerIP), uri("carol", otherIP), dialog.ReferOpts{})
			if err == nil {
				_, err = r.Wait(context.Background())
			}
			return err
		})
		refer := p.next("REFER")
		p.reply(refer, dialogtest.Response{Code: 202, ToTag: farTag})
		notify := func(tag, status string) int {
			return p.ask(a, dialogtest.Request{
				Method: "NOTIFY", URI: "sip:a@" + stackIP, FromTag: tag, ToTag: testkit.FromTag(refer.Message), CallID: refer.Request().CallID().Value(),
				Headers: []string{"Event: refer", "Subscription-State: terminated;reason=noresource", "Content-Type: message/sipfrag"}, Body: status,
			}).StatusCode
		}
		require.Equal(t, 481, notify("second", "SIP/2.0 200 OK"))
		require.Equal(t, 200, notify(farTag, "SIP/2.0 603 Decline"))
		require.NoError(t, <-done)
	})
}
