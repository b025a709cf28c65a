package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// B5: Start returns the bind error, and may be called again; a second Start
// returns a typed error and leaves the first alone; nothing stays bound.
func TestStartReturnsTheBindError(t *testing.T) {
	for _, protocol := range []string{"udp", "tcp"} {
		t.Run(protocol, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				host := w.net.Host("10.0.0.1")
				first := w.stack("10.0.0.1", func(c *dialog.StackConfig) { c.Transport.Protocol = protocol })
				second, err := dialog.NewStack(&dialog.StackConfig{
					Transport: &dialog.TransportConfig{Protocol: protocol, Address: "10.0.0.1", Port: 5060}, Network: host,
				})
				require.NoError(t, err)
				err = second.Start(context.Background())
				require.ErrorIs(t, err, dialog.ErrTransport)
				require.ErrorIs(t, err, syscall.EADDRINUSE)
				require.ErrorIs(t, first.Start(context.Background()), dialog.ErrAlreadyStarted)
				_, err = second.NewInvite(context.Background(), uri("bob", "10.0.0.2"), dialog.InviteOpts{})
				require.ErrorIs(t, err, dialog.ErrNotStarted)

				require.NoError(t, first.Shutdown(context.Background()))
				require.NoError(t, second.Start(context.Background()), "the port is free")
				require.Equal(t, "10.0.0.1:5060", second.Addr().String())
				require.NoError(t, second.Shutdown(context.Background()))
				third := w.stack("10.0.0.1", func(c *dialog.StackConfig) { c.Transport.Protocol = protocol })
				require.NoError(t, third.Shutdown(context.Background()))
			})
		})
	}
}

// B5: two Starts at once: one serves, the other is told.
func TestOnlyOneOfManyStartsBinds(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, err := dialog.NewStack(&dialog.StackConfig{
			Transport: &dialog.TransportConfig{Protocol: "udp", Address: "10.0.0.1", Port: 0}, Network: w.net.Host("10.0.0.1"),
		})
		require.NoError(t, err)
		var started, told atomic.Int32
		atOnce(20, func(int) {
			switch err := s.Start(context.Background()); {
			case err == nil:
				started.Add(1)
			case errors.Is(err, dialog.ErrAlreadyStarted):
				told.Add(1)
			}
		})
		require.EqualValues(t, 1, started.Load())
		require.EqualValues(t, 19, told.Load())
		require.NoError(t, s.Shutdown(context.Background()))
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

// B2: and neither waits longer than its caller wants.
func TestWaitsEndWithTheirContext(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		d, in := w.toPeer(a, p)
		w.say(p, a, p.inside(in, dialogtest.Request{
			Method: "REFER", CSeq: 2, Headers: []string{"Refer-To: <sip:carol@10.0.0.3>"},
		}))
		p.next("NOTIFY")
		sub, ok := d.GetReferSubscription("2 REFER")
		require.True(t, ok)
		require.NoError(t, d.Refer(context.Background(), uri("carol", "10.0.0.3"), dialog.ReferOpts{}))
		for name, call := range map[string]func(ctx context.Context) error{
			"ReInvite":   func(ctx context.Context) error { return d.ReInvite(ctx, offer(offerSDP)) },
			"SendNotify": func(ctx context.Context) error { return sub.SendNotify(ctx, 180, "Ringing") },
			"WaitRefer":  func(ctx context.Context) error { _, err := d.WaitRefer(ctx); return err },
		} {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			began := time.Now()
			require.ErrorIs(t, call(ctx), context.DeadlineExceeded, name)
			require.Equal(t, time.Second, time.Since(began), name)
			cancel()
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.ErrorIs(t, d.Bye(ctx, ""), context.DeadlineExceeded)
	})
}

// shutWithin shuts a stack down with a second's time, and returns what is left.
func (w *world) shutWithin(s *dialog.Stack) dialog.ShutdownError {
	w.t.Helper()
	w.stacks = nil // shut down here
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	began := time.Now()
	var left *dialog.ShutdownError
	require.ErrorAs(w.t, s.Shutdown(ctx), &left)
	require.LessOrEqual(w.t, time.Since(began), 2*time.Second)
	return *left
}

// FX3: an ACK that dials a host that is not there delays neither the peer's BYE, which
// ends the call on both sides, nor Shutdown.
func TestShutdownDoesNotWaitForAnACKThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		contact := "Contact: <sip:peer@10.9.9.9:5099;transport=tcp>"
		l.answer(dialogtest.Response{Code: 200, Headers: []string{contact}, Body: answerSDP})
		synctest.Wait()
		l.ask("BYE")
		require.Equal(t, 200, p.final("BYE").StatusCode)
		w.stacks = nil // shut down here
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.NoError(t, a.Shutdown(ctx))
		require.Zero(t, testkit.Held(a))
	})
}

// A further fork that was released while Shutdown waited for a callback left
// the note of its end behind, with a timer.
func TestForkThatEndsDuringShutdownLeavesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		hold := make(chan struct{})
		defer close(hold)
		l.d.OnStateChange(func(s dialog.DialogState) {
			if s == dialog.DialogStateTerminated {
				<-hold
			}
		})
		l.answer(dialogtest.Response{Code: 200, ToTag: "A", Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		p.next("ACK")
		down := began(func() error { return a.Shutdown(context.Background()) })
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
		synctest.Wait()
		l.answer(dialogtest.Response{Code: 200, ToTag: "B", Body: answerSDP})
		w.stacks = nil // shut down, with the callback counted
		var left *dialog.ShutdownError
		require.ErrorAs(t, <-down, &left)
		require.Equal(t, 1, left.Callbacks)
		synctest.Wait()
		now := testkit.Held(a)
		now.Calls = 0 // the callback that is held
		require.Zero(t, now)
	})
}

// A timer that repeated a 200 still ran, in the application's trace, after Shutdown had
// returned: it was not counted.
func TestShutdownCountsTheTraceOfATimer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		until := make(chan struct{})
		defer close(until)
		var count atomic.Int32
		b := w.stack(stackIP, func(c *dialog.StackConfig) {
			c.Trace = func(e dialog.TraceEvent) {
				if e.Outbound && strings.HasPrefix(string(e.Data), "SIP/2.0 200") && count.Add(1) == 2 {
					<-until
				}
			}
		})
		l := w.rings(b, w.peer(peerIP))
		require.NoError(t, l.d.Accept(context.Background()))
		time.Sleep(time.Second)
		left := w.downIn(b, time.Second)
		require.Equal(t, 1, left.Unreleased, "the 200 has no ACK")
		require.Equal(t, 1, left.Callbacks)
	})
}

// The 503 of a stack that shuts down had a Retry-After only if a handler was registered.
func TestShutdownSendsRetryAfterWithoutAHandlerToo(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		w.toPeer(b, p)
		down := began(func() error { return b.Shutdown(context.Background()) })
		bye := p.next("BYE")
		w.say(p, b, p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:x@" + stackIP, CallID: "other"}))
		res := p.next("503 INVITE").Response()
		p.reply(bye, dialogtest.Response{Code: 200})
		require.NoError(t, <-down)
		require.NotEmpty(t, res.GetHeaders("Retry-After"))
	})
}

// The last call ends when its BYE times out; its open re-INVITE is cancelled then. Shutdown
// closed the transaction layer at the same moment.
func TestShutdownCancelsTheReInviteOfTheLastCall(t *testing.T) {
	for range 100 {
		bubble(t, func(t *testing.T, w *world) {
			a, p := w.stack(stackIP), w.peer(peerIP)
			l := w.outgoing(a, p)
			result := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
			p.reply(l.next("INVITE"), dialogtest.Response{Code: 100})
			w.stacks = nil // shut down here
			require.NoError(t, a.Shutdown(context.Background()))
			require.Error(t, <-result)
			require.NotEmpty(t, w.sent(stackIP, "CANCEL"))
		})
	}
}
