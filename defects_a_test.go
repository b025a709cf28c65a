//go:build go1.25

package dialog_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

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
		p.reply(in, dialogtest.Response{Code: 180, ToTag: "callee"})
		p.reply(in, dialogtest.Response{Code: 200, ToTag: "callee", Body: answerSDP})
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
		d, err := a.NewInvite(context.Background(), uri("peer", p.ip), offer(offerSDP))
		require.NoError(t, err)
		in := p.next("INVITE")
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
			p.reply(in, dialogtest.Response{Code: 183, ToTag: "callee", Body: fmt.Sprintf("v=%d", i)})
		}
		<-registered
		synctest.Wait()
		p.reply(in, dialogtest.Response{Code: 183, ToTag: "callee", Body: "v=last"})
		synctest.Wait()
		for i := range last {
			require.Equal(t, "v=last", last[i].Load(), "callback %d", i)
		}
		p.reply(in, dialogtest.Response{Code: 486, ToTag: "callee"})
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
		}
		for i := range 20 {
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
		require.Equal(t, "peer-19", request(refers[len(refers)-2].msg).Recipient.User)
		require.Contains(t, refers[len(refers)-1].raw, "Refer-To: <sip:peer-19@10.0.0.9")
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
		d, err := a.NewInvite(context.Background(), uri("peer", p.ip), offer(offerSDP))
		require.NoError(t, err)
		in := p.next("INVITE")
		stop := overAndOver(func() { _ = d.Refer(context.Background(), uri("carol", "10.0.0.3"), dialog.ReferOpts{}) })
		defer stop()
		for range 20 {
			p.reply(in, dialogtest.Response{Code: 200, ToTag: "callee", Body: answerSDP})
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

// A8: Start, Shutdown and everything else of a stack at once: whoever is
// first, nothing is left of it, and it does not start again.
func TestStartAndShutdownMayCross(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		host := w.net.Host("10.0.0.1")
		for i := range 100 {
			s, err := dialog.NewStack(&dialog.StackConfig{
				Transport: &dialog.TransportConfig{Protocol: "udp", Address: "10.0.0.1", Port: 5060}, Network: host,
			})
			require.NoError(t, err)
			ctx := context.Background()
			calls := []func(){
				func() { _ = s.Start(ctx) },
				func() { _ = s.Shutdown(ctx) },
				func() { _, _ = s.NewInvite(ctx, uri("bob", "10.0.0.2"), dialog.InviteOpts{}) },
				func() { s.OnIncomingDialog(func(dialog.IDialog) {}) },
				func() { s.Addr(); s.DialogByKey(dialog.DialogKey{}) },
			}
			atOnce(len(calls), func(j int) { calls[(i+j)%len(calls)]() })
			require.ErrorIs(t, s.Start(ctx), dialog.ErrShutdown)
			require.NoError(t, s.Shutdown(ctx))
			socket, err := host.ListenPacket(ctx, "udp", "10.0.0.1:5060")
			require.NoError(t, err, "the port is free again")
			require.NoError(t, socket.Close())
		}
	})
}

// slowNetwork binds when it is told to.
type slowNetwork struct {
	*dialogtest.Host
	asked, bind chan struct{}
}

func (n slowNetwork) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	close(n.asked)
	<-n.bind
	return n.Host.ListenPacket(ctx, network, address)
}

// A8: Shutdown comes while Start binds: it waits for it, or for its context;
// either way Start is told, and nothing stays bound.
func TestShutdownWhileStartBinds(t *testing.T) {
	for _, patient := range []bool{true, false} {
		t.Run(fmt.Sprintf("patient %v", patient), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				host := w.net.Host("10.0.0.1")
				slow := slowNetwork{host, make(chan struct{}), make(chan struct{})}
				s, err := dialog.NewStack(&dialog.StackConfig{
					Transport: &dialog.TransportConfig{Protocol: "udp", Address: "10.0.0.1", Port: 5060}, Network: slow,
				})
				require.NoError(t, err)
				started, stopped := make(chan error, 1), make(chan error, 1)
				go func() { started <- s.Start(context.Background()) }()
				<-slow.asked
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				if !patient {
					cancel()
				}
				go func() { stopped <- s.Shutdown(ctx) }()
				synctest.Wait()
				if patient {
					require.Empty(t, stopped, "a socket may be bound yet")
				} else {
					require.Len(t, stopped, 1)
				}
				close(slow.bind)
				require.ErrorIs(t, <-started, dialog.ErrShutdown)
				<-stopped
				socket, err := host.ListenPacket(context.Background(), "udp", "10.0.0.1:5060")
				require.NoError(t, err, "the port is free")
				require.NoError(t, socket.Close())
			})
		})
	}
}

// A8: the end of Start's context ends the stack.
func TestEndOfTheContextOfStartShutsDown(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, err := dialog.NewStack(&dialog.StackConfig{
			Transport: &dialog.TransportConfig{Protocol: "udp", Address: "10.0.0.1", Port: 5060}, Network: w.net.Host("10.0.0.1"),
		})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		require.NoError(t, s.Start(ctx))
		caller, callee := w.established(s, w.stack("10.0.0.2"))
		cancel()
		<-callee.Done()
		<-caller.Done()
		require.Equal(t, dialog.PartyShutdown, caller.Cause().By)
		_, err = s.NewInvite(context.Background(), uri("bob", "10.0.0.2"), dialog.InviteOpts{})
		require.ErrorIs(t, err, dialog.ErrShutdown)
		require.NoError(t, s.Shutdown(context.Background()))
	})
}

// A9: Close any number of times, at once, from callbacks and by another
// reference: one end, one BYE.
func TestCloseMayBeCalledAnyNumberOfTimes(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		caller, callee := w.established(a, b)
		found, ok := a.DialogByKey(caller.Key())
		require.True(t, ok)
		ends := watch(caller)
		caller.OnStateChange(func(dialog.DialogState) { _ = caller.Close() })
		callee.OnStateChange(func(dialog.DialogState) { _ = callee.Close() })
		atOnce(50, func(i int) {
			d := []*dialog.Dialog{caller, found}[i%2]
			if err := d.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			if d.State() != dialog.DialogStateTerminated {
				t.Errorf("closed, but %v", d.State())
			}
		})
		synctest.Wait()
		require.Equal(t, []dialog.DialogState{dialog.DialogStateTerminated}, ends.seen())
		require.Len(t, w.sent("10.0.0.1", "BYE"), 1)
		require.Empty(t, w.sent("10.0.0.2", "BYE"))
		require.NoError(t, callee.Close())
		select {
		case <-caller.Done():
		default:
			require.Fail(t, "not done")
		}
	})
}

// A9: Close crosses every other way a call can end.
func TestCloseCrossesTheOtherWaysToEndACall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		for range 20 {
			caller, callee := w.established(a, b)
			atA, atB := watch(caller), watch(callee)
			ctx := context.Background()
			ways := []func(){
				func() { _ = caller.Close() }, func() { _ = caller.Bye(ctx, "") }, func() { _ = callee.Close() },
				func() { _ = callee.Bye(ctx, "") }, func() { _ = callee.Hangup(ctx) },
			}
			atOnce(len(ways), func(i int) { ways[i]() })
			synctest.Wait()
			once := []dialog.DialogState{dialog.DialogStateTerminated}
			require.Equal(t, once, atA.seen())
			require.Equal(t, once, atB.seen())
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
		synctest.Wait()
		gone([]string{id}, "after the call")
	})
}

// A11: a response writes tags, key, target and routes while everything that
// can be read of the dialog is read.
func TestResponsesArriveWhileTheDialogIsRead(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p, q := w.stack("10.0.0.1"), w.peer("10.0.0.9"), w.peer("10.0.0.8")
		other, _ := w.toPeer(a, q)
		defer q.answers(always(202))()
		for i := range 5 {
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
			in := p.next("INVITE")
			tag := fmt.Sprintf("callee-%d", i)
			route := "Record-Route: <sip:10.0.0.9;lr>"
			p.reply(in, dialogtest.Response{Code: 180, ToTag: tag, Headers: []string{route, "Contact: <sip:early@10.0.0.9>"}})
			p.reply(in, dialogtest.Response{Code: 200, ToTag: tag, Body: answerSDP, Headers: []string{route, "Contact: <sip:final@10.0.0.9>"}})
			ack := p.next("ACK").Request()
			stop()
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

// misbehaviour is what a callback of the application's does wrong.
var misbehaviour = []struct {
	name string
	do   func()
}{
	{"panic", func() { panic("in the application") }},
	{"panic nil", func() { panic(nil) }},
	{"Goexit", runtime.Goexit},
}

// badly runs a test for each misbehaviour: a call between two stacks in a
// bubble of its own, which must then still make calls.
func badly(t *testing.T, test func(t *testing.T, w *world, a, b *dialog.Stack, misbehave func())) {
	for _, m := range misbehaviour {
		t.Run(m.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
				test(t, w, a, b, m.do)
				synctest.Wait()
				w.works(a, b)
			})
		})
	}
}

// A12: OnStateChange.
func TestMisbehavingStateCallbackCostsItselfOnly(t *testing.T) {
	badly(t, func(t *testing.T, w *world, a, b *dialog.Stack, misbehave func()) {
		b.OnIncomingDialog(func(d dialog.IDialog) {
			d.OnStateChange(func(dialog.DialogState) { misbehave() })
			_ = d.Accept(context.Background(), withSDP(answerSDP))
		})
		good, opts := &states{}, offer(offerSDP)
		opts.Setup = func(d *dialog.Dialog) {
			d.OnStateChange(func(dialog.DialogState) { misbehave() })
			d.OnStateChange(good.add)
		}
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), opts)
		require.NoError(t, err)
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		require.NoError(t, d.Bye(context.Background(), ""))
		synctest.Wait()
		require.Equal(t, []dialog.DialogState{
			dialog.DialogStateTrying, dialog.DialogStateRinging, dialog.DialogStateEstablished, dialog.DialogStateTerminated,
		}, good.seen())
	})
}

// A12: OnBody.
func TestMisbehavingBodyCallbackCostsItselfOnly(t *testing.T) {
	badly(t, func(t *testing.T, w *world, a, b *dialog.Stack, misbehave func()) {
		b.OnIncomingDialog(func(d dialog.IDialog) {
			d.OnBody(func(dialog.Body) { misbehave() }) // the INVITE's, kept
			_ = d.Accept(context.Background(), withSDP(answerSDP))
		})
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		good := make(chan string, 4)
		d.OnBody(func(dialog.Body) { misbehave() })
		d.OnBody(func(b dialog.Body) { good <- string(b.Data()) })
		caller := d.(*dialog.Dialog)
		require.NoError(t, caller.WaitAnswer(context.Background()))
		require.NoError(t, caller.ReInvite(context.Background(), offer(offerSDP)))
		require.NotEmpty(t, <-good)
		require.NoError(t, d.Bye(context.Background(), ""))
	})
}

// A12: OnIncomingDialog; the caller gets 500.
func TestMisbehavingIncomingDialogCallbackRefusesTheCall(t *testing.T) {
	badly(t, func(t *testing.T, w *world, a, b *dialog.Stack, misbehave func()) {
		b.OnIncomingDialog(func(dialog.IDialog) { misbehave() })
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		var refused *dialog.ResponseError
		require.ErrorAs(t, d.(*dialog.Dialog).WaitAnswer(context.Background()), &refused)
		require.Equal(t, 500, refused.StatusCode)
	})
}

// A12: OnIncomingDialog after it has accepted; the call stands.
func TestMisbehaviourAfterAcceptLeavesTheCallAlone(t *testing.T) {
	badly(t, func(t *testing.T, w *world, a, b *dialog.Stack, misbehave func()) {
		b.OnIncomingDialog(func(d dialog.IDialog) {
			_ = d.Accept(context.Background(), withSDP(answerSDP))
			misbehave()
		})
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		synctest.Wait()
		require.Equal(t, dialog.DialogStateEstablished, d.State())
		require.NoError(t, d.Bye(context.Background(), ""))
	})
}

// A12: OnIncomingRefer; the subscription stands and can be reported on.
func TestMisbehavingReferCallbackCostsItselfOnly(t *testing.T) {
	badly(t, func(t *testing.T, w *world, a, b *dialog.Stack, misbehave func()) {
		caller, callee := w.established(a, b)
		b.OnIncomingRefer(func(dialog.IDialog, sip.Uri, *dialog.ReplacesInfo) { misbehave() })
		require.NoError(t, caller.Refer(context.Background(), uri("carol", "10.0.0.3"), dialog.ReferOpts{}))
		sent, err := caller.WaitRefer(context.Background())
		require.NoError(t, err)
		synctest.Wait()
		received, ok := callee.GetReferSubscription(sent.ID)
		require.True(t, ok)
		require.NoError(t, received.SendNotify(context.Background(), 200, "OK"))
		require.NoError(t, caller.Bye(context.Background(), ""))
	})
}

// A12: OnOffer on a re-INVITE; the peer gets 500, and may try again.
func TestMisbehavingOfferHandlerRefusesTheReInvite(t *testing.T) {
	badly(t, func(t *testing.T, w *world, a, b *dialog.Stack, misbehave func()) {
		caller, callee := w.established(a, b)
		callee.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { misbehave(); return nil, nil })
		began := time.Now()
		var refused *dialog.ResponseError
		require.ErrorAs(t, caller.ReInvite(context.Background(), offer(offerSDP)), &refused)
		require.Equal(t, 500, refused.StatusCode)
		require.Zero(t, time.Since(began))
		callee.OnOffer(nil)
		require.NoError(t, caller.ReInvite(context.Background(), offer(offerSDP)))
		require.NoError(t, caller.Bye(context.Background(), ""))
	})
}

// A12: OnOffer on the offer in a 2xx; the ACK refuses it, and BYE follows.
func TestMisbehavingOfferHandlerEndsTheCallItMustAnswer(t *testing.T) {
	badly(t, func(t *testing.T, w *world, a, b *dialog.Stack, misbehave func()) {
		b.OnIncomingDialog(func(d dialog.IDialog) { _ = d.Accept(context.Background(), withSDP(answerSDP)) })
		opts := dialog.InviteOpts{Setup: func(d *dialog.Dialog) {
			d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { misbehave(); return nil, nil })
		}}
		began := time.Now()
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), opts)
		require.NoError(t, err)
		caller := d.(*dialog.Dialog)
		require.Error(t, caller.WaitAnswer(context.Background()))
		<-caller.Done()
		require.Zero(t, time.Since(began))
		require.Contains(t, w.sent("10.0.0.1", "ACK")[0].raw, "m=audio 0 ")
		require.Len(t, w.sent("10.0.0.1", "BYE"), 1)
	})
}

// A12: options of Accept; the call can still be accepted.
func TestMisbehavingResponseOptionLeavesTheCallRinging(t *testing.T) {
	badly(t, func(t *testing.T, w *world, a, b *dialog.Stack, misbehave func()) {
		incoming := make(chan dialog.IDialog, 1)
		b.OnIncomingDialog(func(d dialog.IDialog) { incoming <- d })
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		callee := <-incoming
		result := make(chan error, 1)
		go func() {
			defer close(result) // also after a Goexit
			result <- callee.Accept(context.Background(), func(*sip.Response) { misbehave() })
		}()
		if err, returned := <-result; returned {
			require.ErrorIs(t, err, dialog.ErrPanic)
		}
		require.Equal(t, dialog.DialogStateRinging, callee.State())
		require.NoError(t, callee.Accept(context.Background(), withSDP(answerSDP)))
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		require.NoError(t, d.Bye(context.Background(), ""))
	})
}

// badBody is a Body of the application's that misbehaves.
type badBody struct{ misbehave func() }

func (b badBody) ContentType() string { b.misbehave(); return "application/sdp" }
func (b badBody) Data() []byte        { b.misbehave(); return []byte(offerSDP) }

// A12: a Body's own methods; nothing is locked or half made afterwards.
func TestMisbehavingBodyFailsItsCallOnly(t *testing.T) {
	badly(t, func(t *testing.T, w *world, a, b *dialog.Stack, misbehave func()) {
		caller, callee := w.established(a, b)
		survive := func(call func()) {
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				defer func() { _ = recover() }()
				call()
			}()
			<-ended
		}
		opts := dialog.InviteOpts{Body: badBody{misbehave}}
		survive(func() { _, _ = a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), opts) })
		survive(func() { _ = caller.ReInvite(context.Background(), opts) })
		callee.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return opts.Body, nil })
		require.Error(t, caller.ReInvite(context.Background(), offer(offerSDP)))
		callee.OnOffer(nil)
		require.NoError(t, caller.ReInvite(context.Background(), offer(offerSDP)))
		require.NoError(t, caller.Bye(context.Background(), ""))
	})
}

// badWriter is a log destination that panics.
type badWriter struct{}

func (badWriter) Write([]byte) (int, error) { panic("in the log") }

// A12: Setup; the call it was for has ended, and nothing was sent.
func TestMisbehavingSetupFailsItsCallOnly(t *testing.T) {
	badly(t, func(t *testing.T, w *world, a, b *dialog.Stack, misbehave func()) {
		made := make(chan *dialog.Dialog, 1)
		opts := offer(offerSDP)
		opts.Setup = func(d *dialog.Dialog) { made <- d; misbehave() }
		result := make(chan error, 1)
		go func() {
			defer close(result) // also after a Goexit
			_, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), opts)
			result <- err
		}()
		if err, returned := <-result; returned {
			require.ErrorIs(t, err, dialog.ErrPanic)
		}
		d := <-made
		<-d.Done()
		_, ok := a.DialogByKey(d.Key())
		require.False(t, ok)
		require.Empty(t, w.sent("10.0.0.1", "INVITE"))
	})
}

// A12: what watches (trace, log) is the application's code as well.
func TestPanicInTraceOrLogIsSurvived(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		bad := func(c *dialog.StackConfig) {
			c.Logger = log.New(badWriter{}, "", 0)
			c.Trace = func(dialog.TraceEvent) { panic("in the trace") }
		}
		a, b := w.stack("10.0.0.1", bad), w.stack("10.0.0.2", bad)
		w.works(a, b)
		b.OnIncomingDialog(func(dialog.IDialog) { panic("logged by a logger that panics") })
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		require.Error(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		w.works(a, b)
	})
}

// A13: a REFER whose 202 cannot be sent leaves nothing behind: no
// subscription, no callback, no NOTIFY; and the call goes on.
func TestReferThatCannotBeAnsweredLeavesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		host := w.net.Host("10.0.0.1")
		a := w.stack("10.0.0.1", func(c *dialog.StackConfig) {
			c.Trace = func(e dialog.TraceEvent) {
				if !e.Outbound && strings.HasPrefix(string(e.Data), "REFER ") {
					host.Unreachable(true)
				}
			}
		})
		p := w.peer("10.0.0.9")
		d, in := w.toPeer(a, p)
		a.OnIncomingRefer(func(dialog.IDialog, sip.Uri, *dialog.ReplacesInfo) { t.Error("told of a REFER that failed") })
		w.say(p, a, p.inside(in, dialogtest.Request{Method: "REFER", CSeq: 5, Headers: []string{"Refer-To: <sip:carol@10.0.0.3>"}}))
		synctest.Wait()
		require.Empty(t, w.sent("10.0.0.1", "202 REFER"))
		require.Empty(t, d.GetAllReferSubscriptions())
		_, ok := d.GetReferSubscription("5 REFER")
		require.False(t, ok)
		host.Unreachable(false)
		time.Sleep(time.Minute)
		require.Empty(t, w.sent("10.0.0.1", "NOTIFY"))
		require.Equal(t, dialog.DialogStateEstablished, d.State())
		w.say(p, a, p.inside(in, dialogtest.Request{Method: "OPTIONS", CSeq: 6}))
		p.next("200 OPTIONS")
	})
}

// A13: responses are not refused for their size: a REFER with so long a From
// and Via that its 202 passes 1300 bytes is answered, with no logger at all.
func TestReferWithALongAnswerIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		d, in := w.toPeer(a, p)
		var headers []string
		for i := range 30 {
			headers = append(headers, fmt.Sprintf("Via: SIP/2.0/UDP proxy-%d.example.org;branch=z9hG4bK-long-branch-%032d", i, i))
		}
		text := p.inside(in, dialogtest.Request{Method: "REFER", CSeq: 5, Headers: append(headers, "Refer-To: <sip:carol@10.0.0.3>")})
		w.say(p, a, text)
		got := p.next("202 REFER")
		require.Greater(t, len(got.Data), 1300)
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		synctest.Wait()
		require.Len(t, d.GetAllReferSubscriptions(), 1)
	})
}

// publicCalls are all methods of a dialog with the least that can be handed in:
// each with a nil context too.
func publicCalls(d *dialog.Dialog, ctx context.Context) map[string]func() {
	return map[string]func(){
		"Key":           func() { d.Key() },
		"State":         func() { _ = d.State().String() },
		"Cause":         func() { _ = d.Cause().String() },
		"IsUAC":         func() { d.IsUAC() },
		"IsUAS":         func() { d.IsUAS() },
		"Done":          func() { d.Done() },
		"OnStateChange": func() { d.OnStateChange(nil) },
		"OnBody":        func() { d.OnBody(nil) },
		"OnOffer":       func() { d.OnOffer(nil) },
		"Accept":        func() { _ = d.Accept(ctx) },
		"Accept nil":    func() { _ = d.Accept(ctx, nil) },
		"Reject":        func() { _ = d.Reject(ctx, 0, "") },
		"Reject 486":    func() { _ = d.Reject(ctx, 486, "") },
		"Refer":         func() { _ = d.Refer(ctx, sip.Uri{}, dialog.ReferOpts{}) },
		"Refer to":      func() { _ = d.Refer(ctx, uri("carol", "10.0.0.3"), dialog.ReferOpts{}) },
		"ReferReplace":  func() { _ = d.ReferReplace(ctx, nil, dialog.ReferOpts{}) },
		"ReferReplace (*Dialog)(nil)": func() {
			_ = d.ReferReplace(ctx, (*dialog.Dialog)(nil), dialog.ReferOpts{})
		},
		"ReferReplace zero": func() { _ = d.ReferReplace(ctx, new(dialog.Dialog), dialog.ReferOpts{}) },
		"WaitRefer":         func() { _, _ = d.WaitRefer(ctx) },
		"SendRefer":         func() { _ = d.SendRefer(ctx, sip.Uri{}, nil) },
		"SendRefer to":      func() { _ = d.SendRefer(ctx, uri("carol", "10.0.0.3"), nil) },
		"SendReferWithReplaces": func() {
			_ = d.SendReferWithReplaces(ctx, sip.Uri{}, nil, nil)
		},
		"SendReferWithReplaces zero": func() {
			_ = d.SendReferWithReplaces(ctx, uri("carol", "10.0.0.3"), new(dialog.Dialog), nil)
		},
		"SendReferWithReplaces itself": func() {
			_ = d.SendReferWithReplaces(ctx, uri("carol", "10.0.0.3"), d, nil)
		},
		"HandleIncomingRefer":     func() { _ = d.HandleIncomingRefer(nil, sip.Uri{}, nil) },
		"HandleIncomingRefer new": func() { _ = d.HandleIncomingRefer(sip.NewRequest(sip.REFER, sip.Uri{}), sip.Uri{}, nil) },
		"GetReferSubscription":    func() { d.GetReferSubscription("") },
		"GetAll":                  func() { d.GetAllReferSubscriptions() },
		"WaitAnswer":              func() { _ = d.WaitAnswer(ctx) },
		"ReInvite":                func() { _ = d.ReInvite(ctx, dialog.InviteOpts{}) },
		"ReInvite nil body":       func() { _ = d.ReInvite(ctx, dialog.InviteOpts{Body: (*dialog.BodyImpl)(nil)}) },
		"Bye":                     func() { _ = d.Bye(ctx, "") },
		"Hangup":                  func() { _ = d.Hangup(ctx) },
		"Close":                   func() { _ = d.Close() },
	}
}

// A14: no public method panics, whatever is handed in and whatever the dialog:
// zero, ringing, established, ended.
func TestNoMethodOfADialogPanics(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		ringing := func() *dialog.Dialog {
			incoming := make(chan dialog.IDialog, 1)
			b.OnIncomingDialog(func(d dialog.IDialog) { incoming <- d })
			_, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
			require.NoError(t, err)
			return (<-incoming).(*dialog.Dialog)
		}
		dialogs := map[string]func() *dialog.Dialog{
			"zero":        func() *dialog.Dialog { return new(dialog.Dialog) },
			"ringing":     ringing,
			"established": func() *dialog.Dialog { d, _ := w.established(a, b); return d },
			"callee":      func() *dialog.Dialog { _, d := w.established(a, b); return d },
			"terminated": func() *dialog.Dialog {
				d, _ := w.established(a, b)
				require.NoError(t, d.Bye(context.Background(), ""))
				return d
			},
		}
		//nolint:staticcheck // a nil context is the point
		for _, ctx := range []context.Context{nil, context.Background()} {
			for kind, make := range dialogs {
				for name := range publicCalls(nil, nil) {
					d := make()
					bounded, cancel := ctx, func() {}
					if ctx != nil {
						bounded, cancel = context.WithTimeout(ctx, time.Second)
					}
					require.NotPanics(t, publicCalls(d, bounded)[name], "%s of a %s dialog", name, kind)
					cancel()
					_ = d.Close()
					synctest.Wait()
				}
			}
		}
		w.works(a, b)
	})
}

// A14: no public method of a stack panics: zero, not started, running, ended.
func TestNoMethodOfAStackPanics(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var none context.Context // not a context at all is the point
		made, err := dialog.NewStack(nil)
		require.NoError(t, err)
		ended := w.stack("10.0.0.1")
		require.NoError(t, ended.Shutdown(context.Background()))
		stacks := map[string]*dialog.Stack{
			"zero": new(dialog.Stack), "not started": made, "running": w.stack("10.0.0.2"), "ended": ended,
		}
		for kind, s := range stacks {
			for _, ctx := range []context.Context{none, context.Background()} {
				calls := map[string]func(){
					"NewInvite":    func() { _, _ = s.NewInvite(ctx, sip.Uri{}, dialog.InviteOpts{}) },
					"NewInvite to": func() { _, _ = s.NewInvite(ctx, uri("bob", "10.0.0.9"), dialog.InviteOpts{}) },
					"NewInvite nil": func() {
						_, _ = s.NewInvite(ctx, uri("bob", "10.0.0.9"), dialog.InviteOpts{Body: (*dialog.SimpleBody)(nil)})
					},
					"DialogByKey":    func() { s.DialogByKey(dialog.DialogKey{}) },
					"OnIncoming":     func() { s.OnIncomingDialog(nil) },
					"OnRefer":        func() { s.OnIncomingRefer(nil) },
					"Addr":           func() { s.Addr() },
					"Start nil":      func() { _ = s.Start(none) },
					"Shutdown nil":   func() { _ = s.Shutdown(none) },
					"NewStack empty": func() { _, _ = dialog.NewStack(&dialog.StackConfig{Transport: &dialog.TransportConfig{}}) },
				}
				if kind == "zero" {
					calls["Start"] = func() { _ = s.Start(ctx) }
					calls["Shutdown"] = func() { _ = s.Shutdown(ctx) }
				}
				for name, call := range calls {
					require.NotPanics(t, call, "%s of a %s stack", name, kind)
				}
			}
		}
		var sub *dialog.ReferSubscription
		for _, sub := range []*dialog.ReferSubscription{sub, {}, {ID: "2 REFER"}} {
			require.NotPanics(t, func() {
				require.Error(t, sub.SendNotify(none, 200, "OK"))
				require.Error(t, sub.SendNotify(context.Background(), 200, "OK"))
				require.Error(t, sub.SendNotify(context.Background(), 0, ""))
				sub.Status()
				<-sub.Done()
			})
		}
	})
}

// everything calls whatever a callback might call.
func everything(s *dialog.Stack, d dialog.IDialog) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	own := d.(*dialog.Dialog)
	key := d.Key()
	_ = d.State()
	s.DialogByKey(key)
	s.Addr()
	d.OnStateChange(func(dialog.DialogState) {})
	d.OnBody(func(dialog.Body) {})
	own.GetAllReferSubscriptions()
	own.Cause()
	own.Done()
	if other, err := s.NewInvite(ctx, uri("nobody", "10.0.0.77"), dialog.InviteOpts{}); err == nil {
		_ = other.Close()
	}
	_, _ = d.WaitRefer(ctx)
}

// A15: every callback may call every method: none runs under a lock.
func TestCallbacksRunUnderNoLock(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		var ran sync.Map
		use := func(where string, s *dialog.Stack, d dialog.IDialog) {
			everything(s, d)
			ran.Store(where, true)
		}
		b.OnIncomingDialog(func(d dialog.IDialog) {
			use("OnIncomingDialog", b, d)
			d.OnStateChange(func(dialog.DialogState) { use("callee's OnStateChange", b, d) })
			d.(*dialog.Dialog).OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
				use("OnOffer", b, d)
				return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
			})
			_ = d.Accept(context.Background(), withSDP(answerSDP), func(*sip.Response) { use("ResponseOpt", b, d) })
		})
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		caller := d.(*dialog.Dialog)
		d.OnStateChange(func(dialog.DialogState) { use("caller's OnStateChange", a, d) })
		d.OnBody(func(dialog.Body) { use("OnBody", a, d) })
		require.NoError(t, caller.WaitAnswer(context.Background()))
		synctest.Wait()
		b.OnIncomingRefer(func(d dialog.IDialog, _ sip.Uri, _ *dialog.ReplacesInfo) { use("OnIncomingRefer", b, d) })
		require.NoError(t, d.Refer(context.Background(), uri("carol", "10.0.0.3"), dialog.ReferOpts{}))
		require.NoError(t, caller.ReInvite(context.Background(), dialog.InviteOpts{Body: usingBody{func() { use("Body", a, d) }}}))
		require.NoError(t, d.Bye(context.Background(), ""))
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, where := range []string{
			"OnIncomingDialog", "callee's OnStateChange", "caller's OnStateChange", "OnBody", "OnOffer",
			"ResponseOpt", "OnIncomingRefer", "Body",
		} {
			_, ok := ran.Load(where)
			require.True(t, ok, where)
		}
	})
}

// usingBody is a Body that calls the package when it is read.
type usingBody struct{ use func() }

func (b usingBody) ContentType() string { b.use(); return "application/sdp" }
func (b usingBody) Data() []byte        { b.use(); return []byte(offerSDP) }

// A15: a state callback that uses the stack, and shuts it down again, while
// Shutdown runs: Shutdown holds no lock over it.
func TestStateCallbackMayUseTheStackDuringShutdown(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		caller, callee := w.established(a, b)
		used := make(chan error, 1)
		caller.OnStateChange(func(dialog.DialogState) {
			everything(a, caller)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			used <- a.Shutdown(ctx)
		})
		require.NoError(t, a.Shutdown(context.Background()))
		require.ErrorIs(t, <-used, context.DeadlineExceeded, "it would have waited for itself")
		require.Equal(t, dialog.DialogStateTerminated, callee.State())
	})
}

// A16: calls are looked up, made, answered and ended all at once, on both
// sides, with callbacks that do the same.
func TestStackAndDialogAreLockedInOneOrder(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		b.OnIncomingDialog(func(d dialog.IDialog) {
			d.OnStateChange(func(dialog.DialogState) { b.DialogByKey(d.Key()) })
			_ = d.Accept(context.Background(), withSDP(answerSDP))
		})
		var left atomic.Int32
		atOnce(100, func(i int) {
			d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
			if err != nil {
				t.Errorf("invite: %v", err)
				return
			}
			d.OnStateChange(func(dialog.DialogState) {
				if found, ok := a.DialogByKey(d.Key()); ok {
					_ = found.State()
				}
			})
			switch i % 3 {
			case 0:
				_ = d.(*dialog.Dialog).WaitAnswer(context.Background())
			case 1:
				runtime.Gosched()
			}
			_ = d.Close()
			if d.State() != dialog.DialogStateTerminated {
				left.Add(1)
			}
		})
		require.Zero(t, left.Load())
		require.NoError(t, a.Shutdown(context.Background()))
		require.NoError(t, b.Shutdown(context.Background()))
	})
}

// A17: NOTIFYs that nobody answers hold no goroutine, and none is left after
// Shutdown (a bubble does not end before its goroutines have).
func TestUnansweredNotifiesHoldNoGoroutine(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		var told atomic.Int32
		a.OnIncomingRefer(func(dialog.IDialog, sip.Uri, *dialog.ReplacesInfo) { told.Add(1) })
		d, in := w.toPeer(a, p)
		before := len(goroutines())
		for i := range 50 {
			w.say(p, a, p.inside(in, dialogtest.Request{
				Method: "REFER", CSeq: uint32(i + 2), Headers: []string{"Refer-To: <sip:carol@10.0.0.3>"},
			}))
			synctest.Wait()
		}
		require.EqualValues(t, 50, told.Load())
		require.Len(t, d.GetAllReferSubscriptions(), 50)
		require.GreaterOrEqual(t, len(w.sent("10.0.0.1", "NOTIFY")), 50)
		goroutinesAtMost(t, before)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Empty(t, d.GetAllReferSubscriptions(), "RFC 6665 4.2.2: an unanswered NOTIFY ends its subscription")
		goroutinesAtMost(t, before)
	})
}

// A17: the same when Shutdown comes while they are unanswered.
func TestShutdownEndsUnansweredNotifies(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer("10.0.0.9")
		before := len(goroutines())
		a := w.stack("10.0.0.1")
		_, in := w.toPeer(a, p)
		for i := range 50 {
			w.say(p, a, p.inside(in, dialogtest.Request{
				Method: "REFER", CSeq: uint32(i + 2), Headers: []string{"Refer-To: <sip:carol@10.0.0.3>"},
			}))
		}
		synctest.Wait()
		defer p.answers(func(req *sip.Request) int {
			if req.Method == sip.BYE {
				return 200
			}
			return 0
		})()
		require.NoError(t, a.Shutdown(context.Background()))
		synctest.Wait()
		goroutinesAtMost(t, before+1) // the peer's own is left
	})
}

// A18: 40 calls: Shutdown hangs all of them up, and returns with no goroutine
// left.
func TestShutdownEndsEveryCallAndEveryGoroutine(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack("10.0.0.2")
		var atB sync.Map
		b.OnIncomingDialog(func(d dialog.IDialog) {
			atB.Store(d, true)
			_ = d.Accept(context.Background(), withSDP(answerSDP))
		})
		synctest.Wait()
		before := len(goroutines())
		a := w.stack("10.0.0.1")
		calls := make([]*dialog.Dialog, 40)
		for i := range calls {
			d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
			require.NoError(t, err)
			calls[i] = d.(*dialog.Dialog)
			require.NoError(t, calls[i].WaitAnswer(context.Background()))
		}
		began := time.Now()
		require.NoError(t, a.Shutdown(context.Background()))
		require.Zero(t, time.Since(began), "nothing had to be waited for")
		synctest.Wait()
		goroutinesAtMost(t, before)
		for _, d := range calls {
			require.Equal(t, dialog.DialogStateTerminated, d.State())
			require.Equal(t, dialog.PartyShutdown, d.Cause().By)
		}
		require.Len(t, w.sent("10.0.0.1", "BYE"), 40)
		left := 0
		atB.Range(func(d, _ any) bool {
			if d.(dialog.IDialog).State() != dialog.DialogStateTerminated {
				left++
			}
			return true
		})
		require.Zero(t, left)
		require.NoError(t, a.Shutdown(context.Background()), "again")
	})
}

// A18: 20 pending WaitAnswer all return, and the far ends are cancelled.
func TestShutdownEndsEveryWait(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		b.OnIncomingDialog(func(dialog.IDialog) {})
		results := make(chan error, 20)
		for range 20 {
			d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
			require.NoError(t, err)
			go func() { results <- d.(*dialog.Dialog).WaitAnswer(context.Background()) }()
		}
		synctest.Wait()
		require.NoError(t, a.Shutdown(context.Background()))
		for range 20 {
			require.ErrorIs(t, <-results, dialog.ErrShutdown)
		}
		require.Len(t, w.sent("10.0.0.1", "CANCEL"), 20)
		require.Len(t, w.sent("10.0.0.2", "487 INVITE"), 20)
	})
}

// A18: Shutdown gives up with its context, says what is left, and closes all
// the same.
func TestShutdownHonoursItsContext(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		d, _ := w.toPeer(a, p)
		w.stacks = nil // shut down here
		leave := make(chan struct{})
		defer close(leave)
		d.OnStateChange(func(dialog.DialogState) { <-leave })
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		began := time.Now()
		var incomplete *dialog.ShutdownError
		err := a.Shutdown(ctx)
		require.ErrorAs(t, err, &incomplete)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.InDelta(t, 3, time.Since(began).Seconds(), 0.2)
		require.Equal(t, 1, incomplete.Unanswered)
		require.Equal(t, 1, incomplete.Callbacks)
		require.NotEmpty(t, w.sent("10.0.0.1", "BYE"))
	})
}
