package test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// Concurrent reads and writes.

// A1: of 2000 registrations at once none is lost.
func TestNoStateCallbackIsLostWhenManyRegisterAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		caller, _ := w.established(w.stack("10.0.0.1"), w.stack("10.0.0.2"))
		var called atomic.Int32
		atOnce(20, func(int) {
			for range 100 {
				caller.OnStateChange(func(dialog.DialogState) { called.Add(1) })
			}
		})
		require.NoError(t, caller.Bye(context.Background(), ""))
		require.EqualValues(t, 2000, called.Load())
	})
}

// A1: State may be read while the state changes, and never goes back.
func TestStateMayBeReadWhileItChanges(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		d, err := a.NewInvite(context.Background(), uri("peer", p.ip), offer(offerSDP))
		require.NoError(t, err)
		last, backwards := d.State(), 0
		stop := overAndOver(func() {
			now := d.State()
			if now < last {
				backwards++
			}
			last = now
		})
		defer stop()
		in := p.next("INVITE")
		p.reply(in, dialogtest.Response{Code: 180, ToTag: farTag})
		p.reply(in, dialogtest.Response{Code: 200, ToTag: farTag, Body: answerSDP})
		p.next("ACK")
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		require.NoError(t, d.Close())
		stop()
		require.Zero(t, backwards)
		require.Equal(t, dialog.DialogStateTerminated, d.State())
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
	})
}

// A2: callbacks register while bodies arrive; a body that comes afterwards
// reaches every one of them.
func TestBodiesArriveWhileCallbacksRegister(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		call := w.calls(a, p, offer(offerSDP))
		d, in := call.d, call.invite
		const callbacks = 100
		var last [callbacks]atomic.Value
		registered := make(chan struct{})
		go func() {
			defer close(registered)
			atOnce(callbacks, func(i int) {
				d.OnBody(func(b dialog.Body) { last[i].Store(string(b.Data())) })
			})
		}()
		for i := range 50 {
			p.reply(in, dialogtest.Response{Code: 183, ToTag: farTag, Body: fmt.Sprintf("v=%d", i)})
		}
		<-registered
		synctest.Wait()
		p.reply(in, dialogtest.Response{Code: 183, ToTag: farTag, Body: "v=last"})
		synctest.Wait()
		for i := range last {
			require.Equal(t, "v=last", last[i].Load(), "callback %d", i)
		}
		p.reply(in, dialogtest.Response{Code: 486, ToTag: farTag})
	})
}

// A3: the CSeq is read and raised in one step, and requests leave in its
// order.
func TestRequestsLeaveInTheOrderOfTheirCSeq(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		caller, _ := w.toPeer(a, p)
		defer p.answers(always(202))()
		atOnce(60, func(int) {
			if err := caller.SendRefer(context.Background(), uri("carol", "10.0.0.3"), nil); err != nil {
				t.Errorf("refer: %v", err)
			}
		})
		synctest.Wait()
		list := w.sent("10.0.0.1", "REFER")
		require.Len(t, list, 60)
		for i, m := range list {
			require.EqualValues(t, i+2, m.msg.CSeq().SeqNo, "the %dth on the wire", i)
		}
	})
}

// A3: target, routes and the peer's CSeq change while requests and ACKs are
// built from them.
func TestTargetMayMoveWhileRequestsAreBuilt(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p, q := w.stack("10.0.0.1"), w.peer("10.0.0.9"), w.peer("10.0.0.8")
		caller, in := w.toPeer(a, p)
		other, _ := w.toPeer(a, q)
		stops := []func(){
			p.answers(always(202)), q.answers(always(202)),
			overAndOver(func() { _ = caller.SendRefer(context.Background(), uri("carol", "10.0.0.3"), nil) }),
			overAndOver(func() { _ = other.ReferReplace(context.Background(), caller, dialog.ReferOpts{}) }),
			overAndOver(func() { _ = caller.Info() }),
		}
		for i := range 90 {
			moved := fmt.Sprintf("Contact: <sip:peer-%02d@10.0.0.9:5060>", i)
			w.say(p, a, p.inside(in, dialogtest.Request{Method: "INVITE", CSeq: uint32(2 * i), Headers: []string{moved}, Body: offerSDP}))
			w.say(p, a, p.inside(in, dialogtest.Request{Method: "INFO", CSeq: uint32(2*i + 1)}))
			for len(w.sent("10.0.0.9", "ACK")) <= i && !t.Failed() {
				runtime.Gosched()
			}
		}
		for _, stop := range slices.Backward(stops[2:]) {
			stop()
		}
		synctest.Wait()
		require.NoError(t, caller.SendRefer(context.Background(), uri("carol", "10.0.0.3"), nil))
		require.NoError(t, other.ReferReplace(context.Background(), caller, dialog.ReferOpts{}))
		synctest.Wait()
		refers := w.sent("10.0.0.1", "REFER")
		require.Equal(t, "peer-89", request(refers[len(refers)-2].msg).Recipient.User)
		require.Contains(t, refers[len(refers)-1].raw, "Refer-To: <sip:peer-89@10.0.0.9")
		require.NoError(t, caller.Close())
		require.NoError(t, other.Close())
		synctest.Wait()
		stops[0]()
		stops[1]()
	})
}

// A3: two 2xx at once (the same again, as its ACK may be lost) get the same
// ACK, built once.
func TestRepeatedAnswersGetTheSameAckWhileRequestsAreBuilt(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		call := w.calls(a, p, offer(offerSDP))
		d, in := call.d, call.invite
		stop := overAndOver(func() { _ = d.Refer(context.Background(), uri("carol", "10.0.0.3"), dialog.ReferOpts{}) })
		defer stop()
		for range 20 {
			p.reply(in, dialogtest.Response{Code: 200, ToTag: farTag, Body: answerSDP})
		}
		for range 20 {
			p.next("ACK")
		}
		stop()
		synctest.Wait()
		acks := w.sent("10.0.0.1", "ACK")
		require.Len(t, acks, 20)
		for _, ack := range acks {
			require.Equal(t, acks[0].raw, ack.raw)
			require.EqualValues(t, 1, ack.msg.CSeq().SeqNo)
		}
		defer p.answers(always(200))()
		require.NoError(t, d.Bye(context.Background(), ""))
	})
}

// A4: Key may be read while the peer's tag is learnt: it has no tag, or all of it.
func TestKeyMayBeReadWhileTheRemoteTagIsLearnt(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		for i := range 10 {
			d, err := a.NewInvite(context.Background(), uri("peer", p.ip), offer(offerSDP))
			require.NoError(t, err)
			half := d.Key()
			require.Empty(t, half.RemoteTag)
			in := p.next("INVITE")
			tag := fmt.Sprintf("callee-%d", i)
			torn := 0
			stop := overAndOver(func() {
				key := d.Key()
				if key.RemoteTag != "" && key.RemoteTag != tag {
					torn++
				}
			})
			p.reply(in, dialogtest.Response{Code: 180, ToTag: tag})
			for d.Key() == half && !t.Failed() {
				runtime.Gosched()
			}
			stop()
			require.Zero(t, torn)
			require.Equal(t, dialog.DialogKey{CallID: half.CallID, LocalTag: half.LocalTag, RemoteTag: tag}, d.Key())
			p.reply(in, dialogtest.Response{Code: 486, ToTag: tag})
			p.next("ACK")
		}
	})
}

// A5: DialogByKey gives the dialog itself, not a copy: its state is live, by
// either key, while calls come and go.
func TestDialogByKeyIsTheDialogItself(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		var key atomic.Value
		stop := overAndOver(func() {
			if k, ok := key.Load().(dialog.DialogKey); ok {
				if d, found := a.DialogByKey(k); found {
					_ = d.State()
				}
			}
		})
		defer stop()
		b.OnIncomingDialog(func(d dialog.IDialog) { _ = d.Accept(context.Background(), withSDP(answerSDP)) })
		for range 10 {
			d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
			require.NoError(t, err)
			half := dialog.DialogKey{CallID: d.Key().CallID, LocalTag: d.Key().LocalTag}
			key.Store(half)
			require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
			for _, k := range []dialog.DialogKey{half, d.Key()} {
				found, ok := a.DialogByKey(k)
				require.True(t, ok)
				require.Same(t, d, found)
			}
			found, _ := a.DialogByKey(d.Key())
			require.NoError(t, d.Bye(context.Background(), ""))
			require.Equal(t, dialog.DialogStateTerminated, found.State())
			require.NoError(t, found.Close())
			require.NoError(t, d.Close())
			_, ok := a.DialogByKey(half)
			require.False(t, ok)
		}
		_, ok := a.DialogByKey(dialog.DialogKey{})
		require.False(t, ok)
	})
}

// A6: 60 REFERs at once give 60 subscriptions on each side, and 60 WaitRefer
// one of them each.
func TestManyRefersAtOnceEachGetTheirSubscription(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const n = 60
		caller, callee := w.established(w.stack("10.0.0.1"), w.stack("10.0.0.2"))
		ids := make(chan string, n)
		atOnce(n, func(i int) {
			if err := caller.Refer(context.Background(), uri(fmt.Sprintf("carol%d", i), "10.0.0.3"), dialog.ReferOpts{}); err != nil {
				t.Errorf("refer: %v", err)
			}
		})
		atOnce(n, func(int) {
			sub, err := caller.WaitRefer(context.Background())
			if err != nil {
				t.Errorf("wait: %v", err)
				return
			}
			ids <- sub.ID
		})
		synctest.Wait()
		close(ids)
		distinct := make(map[string]bool)
		for id := range ids {
			distinct[id] = true
			sub, ok := caller.GetReferSubscription(id)
			require.True(t, ok)
			require.Equal(t, id, sub.ID)
			_, ok = callee.GetReferSubscription(id)
			require.True(t, ok)
		}
		require.Len(t, distinct, n)
		require.Len(t, caller.GetAllReferSubscriptions(), n)
		require.Len(t, callee.GetAllReferSubscriptions(), n)
		_, err := caller.WaitRefer(context.Background())
		require.ErrorIs(t, err, dialog.ErrNoRefer)
	})
}

// A7: a subscription's end is seen by whoever reads it meanwhile, and only one
// of several last NOTIFYs is sent.
func TestSubscriptionMayBeReadWhileItEnds(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		caller, callee := w.established(w.stack("10.0.0.1"), w.stack("10.0.0.2"))
		for range 10 {
			require.NoError(t, caller.Refer(context.Background(), uri("carol", "10.0.0.3"), dialog.ReferOpts{}))
			sent, err := caller.WaitRefer(context.Background())
			require.NoError(t, err)
			synctest.Wait()
			received, ok := callee.GetReferSubscription(sent.ID)
			require.True(t, ok)
			stop := overAndOver(func() {
				caller.GetAllReferSubscriptions()
				callee.GetAllReferSubscriptions()
				sent.Status()
				received.Status()
				received.Done()
			})
			var told atomic.Int32
			atOnce(4, func(int) {
				switch err := received.SendNotify(context.Background(), 200, "OK"); {
				case err == nil:
					told.Add(1)
				case !errors.Is(err, dialog.ErrNoSubscription):
					t.Errorf("notify: %v", err)
				}
			})
			<-sent.Done()
			<-received.Done()
			stop()
			require.EqualValues(t, 1, told.Load())
			require.Equal(t, dialog.Progress{Status: 200, Reason: "OK"}, sent.Status())
			require.Empty(t, caller.GetAllReferSubscriptions())
			require.Empty(t, callee.GetAllReferSubscriptions())
		}
	})
}

// A10: subscriptions are read and written at once, and an ended one is
// forgotten: by its last NOTIFY, by its expiry, or with the call.
func TestEndedSubscriptionsAreForgotten(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		caller, callee := w.established(a, b)
		refer := func() string {
			if err := caller.Refer(context.Background(), uri("carol", "10.0.0.3"), dialog.ReferOpts{}); err != nil {
				t.Errorf("refer: %v", err)
				return ""
			}
			sub, err := caller.WaitRefer(context.Background())
			if err != nil {
				t.Errorf("wait: %v", err)
				return ""
			}
			return sub.ID
		}
		var mu sync.Mutex
		var ids []string
		stop := overAndOver(func() {
			for _, sub := range callee.GetAllReferSubscriptions() {
				_, _ = callee.GetReferSubscription(sub.ID)
			}
		})
		atOnce(30, func(int) {
			id := refer()
			mu.Lock()
			defer mu.Unlock()
			ids = append(ids, id)
		})
		stop()
		synctest.Wait()
		gone := func(ids []string, why string) {
			t.Helper()
			for _, id := range ids {
				for _, d := range []*dialog.Dialog{caller, callee} {
					_, ok := d.GetReferSubscription(id)
					require.False(t, ok, "%s %s", id, why)
				}
			}
		}
		for _, id := range ids[:15] {
			sub, ok := callee.GetReferSubscription(id)
			require.True(t, ok)
			require.NoError(t, sub.SendNotify(context.Background(), 180, "Ringing"))
			require.NoError(t, sub.SendNotify(context.Background(), 603, "Decline"))
			require.ErrorIs(t, sub.SendNotify(context.Background(), 200, "OK"), dialog.ErrNoSubscription)
		}
		synctest.Wait()
		gone(ids[:15], "after its last NOTIFY")
		require.Len(t, callee.GetAllReferSubscriptions(), 15)
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		gone(ids[15:], "after its expiry")
		require.Equal(t, dialog.DialogStateEstablished, caller.State())

		id := refer()
		synctest.Wait()
		require.NoError(t, caller.Bye(context.Background(), ""))
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		gone([]string{id}, "after the call and its expiry")
	})
}

// A11: a response writes tags, key, target and routes while everything that
// can be read of the dialog is read.
func TestResponsesArriveWhileTheDialogIsRead(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p, q := w.stack("10.0.0.1"), w.peer("10.0.0.9"), w.peer("10.0.0.8")
		other, _ := w.toPeer(a, q)
		defer q.answers(always(202))()
		for i := range 20 {
			d, err := a.NewInvite(context.Background(), uri("peer", p.ip), offer(offerSDP))
			require.NoError(t, err)
			caller := d.(*dialog.Dialog)
			half := caller.Key()
			stop := overAndOver(func() {
				caller.Key()
				caller.State()
				caller.Cause()
				caller.IsUAC()
				a.DialogByKey(half)
				_ = other.ReferReplace(context.Background(), caller, dialog.ReferOpts{})
			})
			stopInfo := overAndOver(func() { caller.Info() })
			in := p.next("INVITE")
			tag := fmt.Sprintf("callee-%d", i)
			route := "Record-Route: <sip:10.0.0.9;lr>"
			p.reply(in, dialogtest.Response{Code: 180, ToTag: tag, Headers: []string{route, "Contact: <sip:early@10.0.0.9>"}})
			p.reply(in, dialogtest.Response{Code: 200, ToTag: tag, Body: answerSDP, Headers: []string{route, "Contact: <sip:final@10.0.0.9>"}})
			ack := p.next("ACK").Request()
			stop()
			stopInfo()
			require.Equal(t, "final", ack.Recipient.User)
			require.Equal(t, tag, caller.Key().RemoteTag)
			found, ok := a.DialogByKey(caller.Key())
			require.True(t, ok)
			require.Same(t, caller, found)
			require.NoError(t, caller.Close())
			bye := p.next("BYE")
			require.Len(t, bye.Request().GetHeaders("Route"), 1)
			p.reply(bye, dialogtest.Response{Code: 200})
		}
		synctest.Wait()
	})
}
