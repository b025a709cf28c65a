package test

import (
	"context"
	"fmt"
	"net"
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

// The rows A8, A9, A17 and A18: how stacks and calls begin and end.

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
		ends, done := watch(caller), caller.Done()
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
		case <-done:
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

// A18: 20 pending WaitAnswer all return, and the peers are cancelled.
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
