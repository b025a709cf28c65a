package test

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// losses returns what a stack's OnFlowLost is told, in order.
func losses(s *dialog.Stack) <-chan *dialog.Flow {
	told := make(chan *dialog.Flow, 100)
	s.OnFlowLost(func(f *dialog.Flow, reason error) {
		if reason == nil || f.Err() == nil {
			panic("lost without a reason")
		}
		told <- f
	})
	return told
}

// The loss of a connection that a call or a registration depends on is told, once; that of
// any other is not.
func TestTheLossOfANeededConnectionIsTold(t *testing.T) {
	for _, transport := range testkit.AllTransports()[1:] {
		for what, needs := range map[string]func(r *homePhone) *dialog.Flow{
			"nothing":      func(*homePhone) *dialog.Flow { return nil },
			"hold":         func(r *homePhone) *dialog.Flow { r.own.Hold(); return r.own },
			"released":     func(r *homePhone) *dialog.Flow { r.own.Hold()(); return nil },
			"registration": func(r *homePhone) *dialog.Flow { r.lasts(time.Hour); return r.own },
			"expired": func(r *homePhone) *dialog.Flow {
				r.lasts(time.Minute)
				time.Sleep(2 * time.Minute)
				return nil
			},
			"call": func(r *homePhone) *dialog.Flow {
				caller, callee := r.call(r.private(), r.flow)
				r.own.OnLost(func(error) { require.NoError(r.w.t, errors.Join(caller.Close(), callee.Close())) })
				return r.own
			},
		} {
			t.Run(transport+" "+what, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					r := w.registers(transport)
					told := losses(r.phone.Stack)
					want := needs(r)
					r.cut()
					synctest.Wait()
					if want == nil {
						require.Empty(t, told)
						return
					}
					require.Len(t, told, 1)
					require.True(t, want.Equal(<-told))
					time.Sleep(time.Minute)
					synctest.Wait()
					require.Empty(t, told)
				})
			})
		}
	}
}

// lasts has the phone register for so long.
func (r *homePhone) lasts(span time.Duration) {
	r.w.t.Helper()
	require.NoError(r.w.t, r.server.OnRequest("REGISTER", func(_ context.Context, req *sip.Request) dialog.Answer {
		return dialog.Answer{Headers: []dialog.Header{{Name: "Contact", Value: req.Contact().Value()}, {Name: "Expires", Value: testkit.Value(req, "Expires")}}}
	}))
	req := sip.NewRequest(sip.REGISTER, r.server.uri(""))
	req.AppendHeader(&sip.ContactHeader{Address: sip.Uri{Scheme: "sip", User: "phone"}})
	req.AppendHeader(sip.NewHeader("Expires", strconv.Itoa(int(span.Seconds()))))
	res, _, err := r.phone.DoWith(context.Background(), req, dialog.DoOpts{})
	require.NoError(r.w.t, err)
	require.Equal(r.w.t, 200, res.StatusCode)
}

// RFC 5626 4.4.1: a connection by which no answer to a keep-alive comes is lost, also if
// the peer has never answered one but has promised to; RFC 5626 4.4: as soon as the
// Flow-Timer asks for.
func TestAConnectionThatDiesSilentlyIsTold(t *testing.T) {
	for _, timer := range []time.Duration{0, 30 * time.Second, time.Hour} {
		bubble(t, func(t *testing.T, w *world) {
			tcp := func(c *dialog.StackConfig) { c.Transport.Protocol = "tcp" }
			router := w.net.NAT(routerIP, dialogtest.NATConfig{})
			phone, server := w.behind(router, phoneIP, tcp), w.stack(serverIP, tcp)
			told := losses(phone)
			_, flow, err := phone.DoWith(context.Background(), sip.NewRequest(sip.OPTIONS, testkit.URIOver("tcp", "", server.Addr())), dialog.DoOpts{})
			require.NoError(t, err)
			flow.HoldAnswered(timer)
			router.Forget()
			begun := time.Now()
			require.True(t, flow.Equal(<-told))
			longest := 2 * time.Minute
			if timer > 0 {
				longest = min(longest, timer)
			}
			require.LessOrEqual(t, time.Since(begun), longest+10*time.Second)
			require.GreaterOrEqual(t, time.Since(begun), longest*4/5+10*time.Second)
		})
	}
}

// One is told after the other, whatever the function does.
func TestLossesAreToldOneAfterTheOther(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		phone := w.stack("10.0.0.1", func(c *dialog.StackConfig) { c.Transport.Protocol = "tcp" })
		var flows []*dialog.Flow
		for _, ip := range []string{"10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"} {
			server := w.stack(ip, func(c *dialog.StackConfig) { c.Transport.Protocol = "tcp" })
			_, flow, err := phone.DoWith(context.Background(), sip.NewRequest(sip.OPTIONS, testkit.URIOver("tcp", "", server.Addr())), dialog.DoOpts{})
			require.NoError(t, err)
			flow.Hold()
			flows = append(flows, flow)
		}
		running, order := 0, []*dialog.Flow(nil)
		phone.OnFlowLost(func(f *dialog.Flow, _ error) {
			running++
			defer func() { running-- }()
			if running != 1 {
				t.Error("two at once")
			}
			time.Sleep(time.Second)
			order = append(order, f)
			switch len(order) {
			case 1:
				panic("as a test")
			case 2:
				runtime.Goexit()
			}
		})
		for i := range flows {
			w.net.Host(flows[i].Remote().Addr().String()).BreakStreams()
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Len(t, order, len(flows))
		for i, f := range order {
			require.True(t, f.Equal(flows[i]))
		}
		require.EqualValues(t, 2, phone.Stats().Panics)
	})
}

func TestShutdownIsNoLoss(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := w.registers("tcp")
		told := losses(r.phone.Stack)
		r.own.Hold()
		require.NoError(t, r.phone.Shutdown(context.Background()))
		time.Sleep(time.Minute)
		require.Empty(t, told)
	})
}
