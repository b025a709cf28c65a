package register_test

import (
	"context"
	"runtime"
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
	"sipdialog.example/dialog/internal/testkit"
	"sipdialog.example/dialog/register"
)

// slow is a registrar that takes its time, and counts the REGISTERs that it has at once.
type slow struct {
	mu        sync.Mutex // guards the fields below
	now, most int
	got       []*sip.Request
}

// slowRegistrar starts one.
func (w *world) slowRegistrar(takes time.Duration) *slow {
	w.t.Helper()
	r := &slow{}
	require.NoError(w.t, w.stack(serverIP).OnRequest("REGISTER", func(_ context.Context, req *sip.Request) dialog.Answer {
		r.count(1, req)
		defer r.count(-1, nil)
		time.Sleep(takes)
		return bound(req, 600)
	}))
	return r
}

func (r *slow) count(more int, req *sip.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now += more
	r.most = max(r.most, r.now)
	if req != nil {
		r.got = append(r.got, req)
	}
}

// onlyOneAtATime checks what RFC 3261 10.2 demands, and returns the REGISTERs.
func (r *slow) onlyOneAtATime(t *testing.T) []*sip.Request {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Equal(t, 1, r.most, "REGISTERs at once")
	return r.got
}

func TestCloseWaitsForTheREGISTERUnderWay(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := w.slowRegistrar(time.Second)
		p := w.telephone(w.stack(phoneIP), register.Options{Registrar: overTCP})
		p.waits()
		time.Sleep(time.Minute)
		p.Refresh()
		time.Sleep(time.Second / 2)
		p.closes()
		got := r.onlyOneAtATime(t)
		require.Len(t, got, 3)
		require.Equal(t, "0", testkit.Value(got[2], "Expires"))
	})
}

func TestCloseWaitsForTheFirstREGISTER(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := w.slowRegistrar(time.Second)
		p := w.telephone(w.stack(phoneIP), register.Options{Registrar: overTCP})
		time.Sleep(time.Second / 2)
		p.closes()
		got := r.onlyOneAtATime(t)
		require.Len(t, got, 2, "what the registrar binds late is taken back")
		require.Equal(t, "0", testkit.Value(got[1], "Expires"))
	})
}

// What asks for a REGISTER while one is under way gets one after it, however often it asks.
func TestOneREGISTERAtATime(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := w.slowRegistrar(time.Second)
		phone := w.stack(phoneIP)
		p := w.telephone(phone, register.Options{Registrar: overTCP})
		p.waits()
		time.Sleep(time.Minute)
		p.Refresh()
		time.Sleep(time.Second / 2)
		for range 5 {
			p.Refresh()
			p.NetworkChanged()
		}
		time.Sleep(time.Minute)
		require.Len(t, r.onlyOneAtATime(t), 3)
		p.closes()
	})
}

// The timer may have fired already when a refresh sets it again.
func TestARefreshCrossesTheFirstREGISTER(t *testing.T) {
	for range 100 {
		bubble(t, func(t *testing.T, w *world) {
			r := w.slowRegistrar(time.Second)
			p := w.telephone(w.stack(phoneIP), register.Options{Registrar: overTCP})
			for range 3 {
				p.Refresh()
			}
			p.waits()
			time.Sleep(time.Minute)
			require.LessOrEqual(t, len(r.onlyOneAtATime(t)), 2)
			p.closes()
		})
	}
}

// A connection that breaks under a REGISTER is no failure yet: it is sent again by another.
func TestALossUnderARefreshIsFoundByTheRefresh(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := w.slowRegistrar(time.Second)
		p := w.telephone(w.stack(phoneIP), register.Options{Registrar: overTCP})
		p.waits()
		time.Sleep(time.Minute)
		p.Refresh()
		time.Sleep(time.Second / 2)
		w.net.Host(serverIP).BreakStreams()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, "Registering Registered Registered", p.states())
		r.mu.Lock()
		defer r.mu.Unlock()
		require.Len(t, r.got, 3)
	})
}

// The registration ends with its stack, at whatever moment.
func TestShutdownEndsARegistration(t *testing.T) {
	for _, wait := range []time.Duration{0, time.Millisecond, time.Minute, 10 * time.Minute} {
		for _, silent := range []bool{false, true} {
			bubble(t, func(t *testing.T, w *world) {
				r := w.registrar(serverIP, binds(600))
				r.host.Unreachable(silent)
				phone := w.stack(phoneIP)
				p := w.telephone(phone, register.Options{})
				time.Sleep(wait)
				began := time.Now()
				require.NoError(t, phone.Shutdown(context.Background()))
				require.Less(t, time.Since(began), time.Second)
				<-p.Done()
				_, err := p.Wait(context.Background())
				require.ErrorIs(t, err, dialog.ErrShutdown)
				require.Equal(t, register.Unregistered, p.last().State)
				require.ErrorIs(t, p.Close(context.Background()), dialog.ErrShutdown)
				p.Refresh()
				synctest.Wait() // a datagram may be on its way
				got := len(r.registers())
				time.Sleep(time.Hour)
				require.Len(t, r.registers(), got)
				r.host.Unreachable(false)
			})
		}
	}
}

// Close waits for a REGISTER that is under way (RFC 3261 10.2); a refresh, a loss, a change
// of the network, another Close and the end of the stack may cross it.
func TestCloseCrossesEverything(t *testing.T) {
	for _, shutdown := range []bool{false, true} {
		for _, delay := range []time.Duration{0, time.Millisecond, 4 * time.Second, 5 * time.Second} {
			bubble(t, func(t *testing.T, w *world) {
				w.net.SetStreamPolicy(func(dialogtest.Packet) time.Duration { return time.Millisecond })
				r := w.registrar(serverIP, binds(60))
				phone := w.stack(phoneIP)
				p := w.telephone(phone, register.Options{Registrar: overTCP})
				time.Sleep(delay)
				var all sync.WaitGroup
				for range 10 {
					all.Go(p.Refresh)
					all.Go(phone.NetworkChanged)
					all.Go(r.host.BreakStreams)
					all.Go(func() { _ = p.Close(context.Background()) })
					all.Go(func() { _ = p.Status(); _ = p.InviteOpts(dialog.InviteOpts{}); _ = p.Statuses() })
				}
				if shutdown {
					all.Go(func() { _ = phone.Shutdown(context.Background()) })
				}
				all.Wait()
				<-p.Done()
				synctest.Wait()
				inOrder(t, r.registers())
				require.Equal(t, 1, strings.Count(p.states(), "Unregistered"))
				require.True(t, strings.HasSuffix(p.states(), "Unregistered"))
				if got := r.registers(); !shutdown && p.last().Err == nil && len(got) > 0 {
					require.Equal(t, "0", testkit.Value(got[len(got)-1].Request, "Expires"))
				}
				got := len(r.registers())
				time.Sleep(time.Hour)
				require.Len(t, r.registers(), got)
			})
		}
	}
}

// The functions of the application may do what they like.
func TestCallbacksMayMisbehave(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.registrar(serverIP, binds(600))
		phone := w.stack(phoneIP)
		p := w.telephone(phone, register.Options{OnState: func(s register.Status) {
			time.Sleep(time.Second)
			if s.State == register.Registering {
				panic("as a test")
			}
			runtime.Goexit()
		}})
		p.waits()
		time.Sleep(time.Minute)
		require.Equal(t, "Registering Registered", p.states())
		require.EqualValues(t, 2, phone.Stats().Panics)
		p.closesBy(func() error { return p.Close(context.Background()) })

		closed := make(chan error, 1)
		var inside atomic.Pointer[register.Registration]
		q := w.telephone(phone, register.Options{OnState: func(s register.Status) {
			if s.State == register.Registered {
				closed <- inside.Load().Close(context.Background())
			}
		}})
		inside.Store(q.Registration)
		require.NoError(t, <-closed)
		<-q.Done()
	})
}

func (p *telephone) closesBy(end func() error) {
	p.t.Helper()
	require.NoError(p.t, end())
	time.Sleep(time.Minute)
	require.Equal(p.t, register.Unregistered, p.last().State)
}
