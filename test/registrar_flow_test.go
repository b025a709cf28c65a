package test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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
	"sipdialog.example/dialog/internal/testcert"
	"sipdialog.example/dialog/internal/testkit"
)

// homePhone is a telephone behind a router that has registered with a server outside,
// by one transport.
type homePhone struct {
	w             *world
	router        *dialogtest.NAT
	server, phone *site
	calls         <-chan *dialog.Dialog // that the phone takes
	// flow is the server's way to the phone, own the phone's way to the server.
	flow, own *dialog.Flow
}

// registers makes the two, and registers the phone.
func (w *world) registers(transport string, change ...func(*dialog.StackConfig)) *homePhone {
	w.t.Helper()
	ca := testcert.New(w.t)
	router := w.net.NAT(routerIP, dialogtest.NATConfig{RandomPorts: true, Filtering: dialogtest.AddressAndPortDependent})
	r := &homePhone{w: w, router: router, server: w.site(serverIP, transport, ca, change...)}
	host := &counted{Host: router.Host(phoneIP)}
	r.phone = w.site(phoneIP, transport, ca, func(c *dialog.StackConfig) {
		c.Network, c.Transport.Address, c.FlowKeepAlive, c.Limits.IdleTimeout = host, "0.0.0.0", -1, -1
	})
	r.phone.host = host
	r.server.follows(w.t)
	r.phone.follows(w.t)
	r.calls = r.phone.takes(w.t)
	r.flow, r.own = r.register()
	return r
}

// register returns the flow that the server is told of, and that of the answer.
func (r *homePhone) register() (server, phone *dialog.Flow) {
	r.w.t.Helper()
	flows := make(chan *dialog.Flow, 1)
	require.NoError(r.w.t, r.server.OnRequest("REGISTER", func(ctx context.Context, _ *sip.Request) dialog.Answer {
		flows <- dialog.FlowFrom(ctx)
		return dialog.Answer{}
	}))
	res, phone, err := r.phone.DoWith(context.Background(), sip.NewRequest(sip.REGISTER, r.server.uri("")), dialog.DoOpts{})
	require.NoError(r.w.t, err)
	require.Equal(r.w.t, 200, res.StatusCode)
	return <-flows, phone
}

// private is the Contact of the phone, which leads nowhere from the server.
func (r *homePhone) private() sip.Uri {
	return uri("phone", phoneIP)
}

// call has the server call the phone.
func (r *homePhone) call(target sip.Uri, flow *dialog.Flow) (caller, callee *dialog.Dialog) {
	r.w.t.Helper()
	opts := offer(offerSDP)
	opts.Flow = flow
	d, err := r.server.NewInvite(context.Background(), target, opts)
	require.NoError(r.w.t, err)
	require.NoError(r.w.t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
	callee = <-r.calls
	synctest.Wait() // the ACK
	return d.(*dialog.Dialog), callee
}

// onOneConnection fails when anybody but the phone has connected, or it twice.
func (r *homePhone) onOneConnection() {
	r.w.t.Helper()
	dialled, accepted := r.server.host.connections()
	again, _ := r.phone.host.connections()
	want := [3]int{0, 1, 1}
	if r.server.transport == "udp" {
		want = [3]int{}
	}
	require.Equal(r.w.t, want, [3]int{dialled, accepted, again})
}

// cut breaks all connections, which both ends hear of.
func (r *homePhone) cut() {
	r.phone.host.BreakStreams()
	r.server.host.BreakStreams()
	synctest.Wait()
}

// FN3: a phone that has registered from behind a router is called by its flow, or by the
// address that it was seen at.
func TestAPhoneBehindANATIsCalledByItsFlow(t *testing.T) {
	for _, transport := range testkit.AllTransports() {
		for _, by := range []string{"token", "address"} {
			t.Run(transport+" by "+by, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					r := w.registers(transport)
					require.Equal(t, strings.ToUpper(transport), r.flow.Transport())
					require.Equal(t, routerIP, r.flow.Remote().Addr().String())
					require.Equal(t, r.server.Addr(), r.flow.Local())
					require.Equal(t, r.server.Addr(), r.own.Remote())
					require.NoError(t, r.flow.Err())
					target, flow := r.private(), r.flow
					if by == "address" {
						target, flow = testkit.URIOver(transport, "phone", r.flow.Remote()), nil
					}
					for _, callerHangsUp := range []bool{true, false} {
						caller, callee := r.call(target, flow)
						require.True(t, r.flow.Equal(caller.Flow()))
						require.True(t, r.own.Equal(callee.Flow()))
						converse(t, caller, callee, callerHangsUp)
					}
					r.onOneConnection()
					for _, m := range r.server.messages(true, "") {
						require.Equal(t, r.flow.Remote(), m.Remote)
					}
				})
			})
		}
	}
}

// Requests outside calls go by a flow, too, as long as they may be.
func TestRequestsOutsideCallsGoByAFlow(t *testing.T) {
	for _, transport := range testkit.AllTransports() {
		bubble(t, func(t *testing.T, w *world) {
			r := w.registers(transport)
			r.phone.OnIncomingRefer(nil)
			for _, method := range []string{"MESSAGE", "NOTIFY", "SUBSCRIBE", "REFER"} {
				require.NoError(t, r.phone.OnRequest(method, func(context.Context, *sip.Request) dialog.Answer { return dialog.Answer{Status: 202} }))
			}
			start := time.Now()
			for _, method := range []sip.RequestMethod{"OPTIONS", "MESSAGE", "NOTIFY", "SUBSCRIBE"} {
				req := sip.NewRequest(method, r.private())
				req.SetBody(make([]byte, 3000)) // a router's UDP port takes no connections
				res, flow, err := r.server.DoWith(context.Background(), req, dialog.DoOpts{Flow: r.flow})
				require.NoError(t, err)
				require.Less(t, res.StatusCode, 500)
				require.True(t, r.flow.Equal(flow))
			}
			require.Zero(t, time.Since(start))
			_, err := r.server.Refer(context.Background(), r.private(), uri("carol", otherIP), dialog.ReferOpts{Flow: r.flow, NoReferSub: true})
			require.NoError(t, err)
			r.onOneConnection()
		})
	}
}

// lost checks what a lost flow says.
func lost(t *testing.T, err error) {
	t.Helper()
	require.ErrorIs(t, err, dialog.ErrFlowLost)
	require.ErrorIs(t, err, dialog.ErrTransport)
}

// RFC 5626 5.3: a request for a lost flow is not sent, and fails at once.
func TestALostFlowIsToldOfAtOnce(t *testing.T) {
	for _, transport := range testkit.AllTransports()[1:] {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				r := w.registers(transport)
				var told atomic.Int32
				reasons := make(chan error, 2)
				r.flow.OnLost(func(err error) { told.Add(1); reasons <- err })
				r.flow.OnLost(func(error) { panic("as a test") })
				r.flow.OnLost(func(error) { t.Error("taken back") })()
				caller, callee := r.call(r.private(), r.flow)
				select {
				case <-r.flow.Done():
					t.Error("done before")
				default:
				}
				r.cut()
				began := time.Now()
				<-r.flow.Done()
				<-r.own.Done()
				lost(t, <-reasons)
				lost(t, r.flow.Err())
				r.flow.OnLost(func(err error) { reasons <- err })
				lost(t, <-reasons)
				require.EqualValues(t, 1, told.Load())

				ctx := context.Background()
				lost(t, caller.SendMessage(ctx, nil))
				lost(t, caller.ReInvite(ctx, offer(offerSDP)))
				_, err := r.server.NewInvite(ctx, r.private(), dialog.InviteOpts{Flow: r.flow})
				lost(t, err)
				_, _, err = r.server.DoWith(ctx, sip.NewRequest(sip.OPTIONS, r.private()), dialog.DoOpts{Flow: r.flow})
				lost(t, err)
				_, err = r.server.Refer(ctx, r.private(), uri("c", otherIP), dialog.ReferOpts{Flow: r.flow})
				lost(t, err)
				lost(t, caller.Bye(ctx, ""))
				require.Zero(t, time.Since(began))
				dialled, _ := r.server.host.connections()
				require.Zero(t, dialled)
				require.EqualValues(t, 1, r.server.Stats().Panics)
				require.NoError(t, callee.Close())
				time.Sleep(time.Minute)
			})
		})
	}
}

// So it is at the phone's end, whose connection could be made again: which proxy knows of
// that is what the phone registers for.
func TestALostFlowOfOursIsNotMadeAgain(t *testing.T) {
	for _, transport := range testkit.AllTransports()[1:] {
		bubble(t, func(t *testing.T, w *world) {
			r := w.registers(transport)
			calls := r.server.takes(t)
			opts := offer(offerSDP)
			opts.Flow = r.own
			d, err := r.phone.NewInvite(context.Background(), r.server.uri("bob"), opts)
			require.NoError(t, err)
			call := d.(*dialog.Dialog)
			require.NoError(t, call.WaitAnswer(context.Background()))
			synctest.Wait()
			r.cut()
			lost(t, call.SendMessage(context.Background(), nil))
			lost(t, call.ReInvite(context.Background(), offer(offerSDP)))
			_, _, err = r.phone.DoWith(context.Background(), sip.NewRequest(sip.OPTIONS, r.server.uri("")), dialog.DoOpts{Flow: r.own})
			lost(t, err)
			dialled, _ := r.phone.host.connections()
			require.Equal(t, 1, dialled)
			require.NoError(t, (<-calls).Close())
			require.NoError(t, call.Close())
			time.Sleep(time.Minute)
		})
	}
}

// Requests that wait for a response fail when the flow is lost.
func TestTheLossOfAFlowEndsPendingRequests(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := w.registers("tls")
		calls := waiting(r.phone.Stack)
		require.NoError(t, r.phone.OnRequest("MESSAGE", func(ctx context.Context, _ *sip.Request) dialog.Answer {
			<-ctx.Done()
			return dialog.Answer{}
		}))
		d, err := r.server.NewInvite(context.Background(), r.private(), dialog.InviteOpts{Flow: r.flow, FollowRedirects: 3})
		require.NoError(t, err)
		answered := began(func() error { return d.(*dialog.Dialog).WaitAnswer(context.Background()) })
		result := began(func() error {
			_, _, err := r.server.DoWith(context.Background(), sip.NewRequest(sip.MESSAGE, r.private()), dialog.DoOpts{Flow: r.flow})
			return err
		})
		callee := <-calls
		r.cut()
		lost(t, <-answered)
		lost(t, <-result)
		require.Equal(t, dialog.PartyTransport, d.(*dialog.Dialog).Cause().By)
		require.NoError(t, callee.Close())
		time.Sleep(time.Minute)
		dialled, _ := r.server.host.connections()
		require.Zero(t, dialled)
	})
}

func TestFlowsThatCannotBeUsed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r, other := w.registers("tcp"), w.stack(otherIP)
		secure := testkit.URIOver("tls", "phone", netip.MustParseAddrPort(phoneIP+":5061"))
		for name, c := range map[string]struct {
			stack  *dialog.Stack
			flow   *dialog.Flow
			target sip.Uri
		}{
			"of another stack": {other, r.flow, r.private()},
			"the peer's end":   {r.server.Stack, r.own, r.private()},
			"zero":             {r.server.Stack, &dialog.Flow{}, r.private()},
			"sips in clear":    {r.server.Stack, r.flow, secure},
		} {
			_, err := c.stack.NewInvite(context.Background(), c.target, dialog.InviteOpts{Flow: c.flow})
			require.ErrorIs(t, err, dialog.ErrInvalidArgument, name)
			_, _, err = c.stack.DoWith(context.Background(), sip.NewRequest(sip.OPTIONS, c.target), dialog.DoOpts{Flow: c.flow})
			require.ErrorIs(t, err, dialog.ErrInvalidArgument, name)
			_, err = c.stack.Refer(context.Background(), c.target, r.private(), dialog.ReferOpts{Flow: c.flow})
			require.ErrorIs(t, err, dialog.ErrInvalidArgument, name)
		}
		caller, callee := r.call(r.private(), r.flow)
		require.ErrorIs(t, caller.ReInvite(context.Background(), dialog.InviteOpts{Flow: r.own}), dialog.ErrInvalidArgument)
		require.ErrorIs(t, caller.Refer(context.Background(), r.private(), dialog.ReferOpts{Flow: r.flow}), dialog.ErrInvalidArgument)
		require.NoError(t, callee.Bye(context.Background(), ""))

		require.NoError(t, r.server.Shutdown(context.Background()))
		_, err := r.server.NewInvite(context.Background(), r.private(), dialog.InviteOpts{Flow: r.flow})
		require.ErrorIs(t, err, dialog.ErrShutdown)
		<-r.flow.Done()
		require.Error(t, r.flow.Err())
	})
}

func TestAnInvalidFlowIsRefused(t *testing.T) {
	require.Nil(t, dialog.FlowFrom(context.Background()))
	require.Nil(t, new(dialog.Dialog).Flow())
	for _, f := range []*dialog.Flow{nil, {}} {
		require.Empty(t, f.Transport())
		require.False(t, f.Local().IsValid() || f.Remote().IsValid())
		require.Equal(t, "no flow", f.String())
		lost(t, f.Err())
		<-f.Done()
		f.OnLost(func(error) { t.Error("told") })()
		f.Hold()()
		require.True(t, f.Equal(nil))
	}
}

func TestAFlowDescribesItself(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := w.registers("ws")
		require.Equal(t, fmt.Sprintf("WS %s-%s", r.server.Addr(), r.flow.Remote()), r.flow.String())
		require.False(t, r.flow.Equal(nil))
		require.False(t, r.flow.Equal(r.own))
		again, _ := r.register()
		require.True(t, r.flow.Equal(again))
		r.cut()
		again, _ = r.register()
		require.False(t, r.flow.Equal(again))
	})
}

// FN5: the call goes where the phone is, when that changes: by a new connection that it
// makes, or another port of its router.
func TestACallByAFlowFollowsThePhone(t *testing.T) {
	for _, transport := range testkit.AllTransports() {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				r := w.registers(transport, func(c *dialog.StackConfig) { c.NAT = dialog.NATNever })
				caller, callee := r.call(r.private(), r.flow)
				r.cut()
				if transport == "udp" {
					r.router.Forget()
				}
				if transport == "wss" { // which a Contact with transport=ws does not say (RFC 7118 5.2)
					opts := offer(offerSDP)
					_, opts.Flow = r.register()
					require.NoError(t, callee.ReInvite(context.Background(), opts))
				} else {
					require.NoError(t, callee.SendInfo(context.Background(), nil))
				}
				require.False(t, r.flow.Equal(caller.Flow()))
				require.NoError(t, caller.Flow().Err())
				require.NoError(t, caller.SendInfo(context.Background(), nil))
				require.NoError(t, caller.Bye(context.Background(), ""))
				<-callee.Done()
				dialled, _ := r.server.host.connections()
				require.Zero(t, dialled)
			})
		})
	}
}

// A phone that has registered anew takes its calls along.
func TestAReInviteTakesTheCallToAnotherFlow(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := w.registers("tls")
		calls := r.server.takes(t)
		opts := offer(offerSDP)
		opts.Flow = r.own
		d, err := r.phone.NewInvite(context.Background(), r.server.uri("bob"), opts)
		require.NoError(t, err)
		call := d.(*dialog.Dialog)
		require.NoError(t, call.WaitAnswer(context.Background()))
		callee := <-calls
		r.cut()
		_, own := r.register()
		opts.Flow = own
		require.NoError(t, call.ReInvite(context.Background(), opts))
		synctest.Wait()
		require.True(t, own.Equal(call.Flow()))
		require.NoError(t, callee.SendInfo(context.Background(), nil))
		require.NoError(t, call.Bye(context.Background(), ""))
		<-callee.Done()
		dialled, _ := r.phone.host.connections()
		require.Equal(t, 2, dialled)
	})
}

// A flow leads to its peer, not by our proxy; a route that is asked for stands all the
// same. What the peer's answer records is where requests say that they go, and the flow
// is how.
func TestAFlowLeadsPastTheOutboundProxy(t *testing.T) {
	proxy := sip.Uri{Scheme: "sip", Host: proxyIP}
	for name, route := range map[string][]sip.Uri{"none": nil, "asked for": {{Scheme: "sip", Host: otherIP, UriParams: sip.HeaderParams{{K: "lr"}}}}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				r := w.registers("tcp", func(c *dialog.StackConfig) { c.OutboundProxy = &proxy })
				opts := offer(offerSDP)
				opts.Flow, opts.Route = r.flow, route
				d, err := r.server.NewInvite(context.Background(), r.private(), opts)
				require.NoError(t, err)
				require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
				require.Len(t, values(r.server.messages(true, "INVITE")[0].msg, "Route"), len(route))
				_, _, err = r.server.DoWith(context.Background(), sip.NewRequest(sip.OPTIONS, r.private()), dialog.DoOpts{Flow: r.flow})
				require.NoError(t, err)
				require.Empty(t, values(r.server.messages(true, "OPTIONS")[0].msg, "Route"))
				require.NoError(t, d.Bye(context.Background(), ""))
				<-(<-r.calls).Done()
				r.onOneConnection()
			})
		})
	}
}

// The target of a redirection is resolved as any other target.
func TestARedirectionLeavesTheFlow(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := w.registers("tcp", alsoUDP)
		r.phone.OnIncomingDialog(func(d dialog.IDialog) {
			require.NoError(t, d.(*dialog.Dialog).RejectWith(context.Background(), 302, "", dialog.WithContacts(uri("carol", otherIP))))
		})
		carol := w.stack(otherIP)
		calls := waiting(carol)
		opts := offer(offerSDP)
		opts.Flow, opts.FollowRedirects = r.flow, 1
		d, err := r.server.NewInvite(context.Background(), r.private(), opts)
		require.NoError(t, err)
		callee := <-calls
		require.NoError(t, callee.Accept(context.Background(), withSDP(answerSDP)))
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		require.Equal(t, otherIP, d.(*dialog.Dialog).Flow().Remote().Addr().String())
		require.NoError(t, d.Bye(context.Background(), ""))
		<-callee.Done()
	})
}

func alsoUDP(c *dialog.StackConfig) {
	c.Listeners = []dialog.TransportConfig{{Protocol: "udp", Address: c.Transport.Address, Port: 5060}}
}

// A connection is needed while a call, or who holds a flow, needs it, however quiet that
// is.
func TestAConnectionThatIsNeededIsNotClosedAsIdle(t *testing.T) {
	for _, transport := range testkit.AllTransports()[1:] {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				r := w.registers(transport, func(c *dialog.StackConfig) { c.FlowKeepAlive = -1 })
				caller, callee := r.call(r.private(), r.flow)
				time.Sleep(3 * time.Hour)
				require.NoError(t, r.flow.Err())
				require.NoError(t, callee.Bye(context.Background(), ""))
				<-caller.Done()
				first, second := r.flow.Hold(), r.flow.Hold()
				first()
				first()
				time.Sleep(3 * time.Hour)
				require.NoError(t, r.flow.Err())
				second()
				time.Sleep(time.Hour)
				lost(t, r.flow.Err())
			})
		})
	}
}

// A request outside calls does not hold its connection after its final response.
func TestAReferOutsideCallsReleasesItsFlow(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := w.registers("tcp")
		require.NoError(t, r.phone.OnRequest("REFER", func(context.Context, *sip.Request) dialog.Answer { return dialog.Answer{Status: 202} }))
		_, err := r.server.Refer(context.Background(), r.private(), uri("carol", otherIP), dialog.ReferOpts{Flow: r.flow, NoReferSub: true})
		require.NoError(t, err)
		time.Sleep(time.Hour)
		lost(t, r.flow.Err())
	})
}

// A flow may be used by many while its connection closes.
func TestAFlowIsUsedByManyWhileItCloses(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := w.registers("tls")
		r.phone.OnIncomingDialog(func(d dialog.IDialog) { _ = d.Accept(context.Background(), withSDP(answerSDP)) })
		var group sync.WaitGroup
		var cut sync.Once
		for i := range 60 {
			group.Go(func() {
				for range 10 {
					if i == 7 {
						cut.Do(func() { r.server.host.BreakStreams() })
					}
					stop, release := r.flow.OnLost(func(error) { _ = r.flow.Err() }), r.flow.Hold()
					_, _, err := r.server.DoWith(context.Background(), sip.NewRequest(sip.OPTIONS, r.private()), dialog.DoOpts{Flow: r.flow})
					require.True(t, err == nil || errors.Is(err, dialog.ErrFlowLost), err)
					opts := offer(offerSDP)
					opts.Flow = r.flow
					d, err := r.server.NewInvite(context.Background(), r.private(), opts)
					if err == nil {
						err = d.(*dialog.Dialog).WaitAnswer(context.Background())
						_ = d.Bye(context.Background(), "")
					}
					require.True(t, err == nil || errors.Is(err, dialog.ErrFlowLost), err)
					stop()
					release()
				}
			})
		}
		group.Wait()
		<-r.flow.Done()
		dialled, _ := r.server.host.connections()
		require.Zero(t, dialled)
		for _, d := range r.phone.Dialogs() {
			_ = d.Close()
		}
		time.Sleep(time.Minute)
	})
}

// A call whose way is encrypted does not go on in the clear, whoever says so (RFC 3261
// 26.2.2).
func TestAnEncryptedCallIsNotMovedToAnOpenFlow(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := w.registers("tls", func(c *dialog.StackConfig) {
			c.Listeners = []dialog.TransportConfig{{Protocol: "udp", Address: serverIP, Port: 5060}}
		})
		caller, callee := r.call(r.private(), r.flow)
		stranger, key := w.peer(peerIP), caller.Key()
		require.NoError(t, stranger.Send(netip.MustParseAddrPort(serverIP+":5060"), stranger.Request(dialogtest.Request{
			Method: "INFO", URI: "sip:" + serverIP, CallID: key.CallID, FromTag: key.RemoteTag, ToTag: key.LocalTag, CSeq: 100,
		})))
		synctest.Wait()
		require.NotEmpty(t, w.sent(serverIP, "200 INFO"), "it is answered")
		require.True(t, r.flow.Equal(caller.Flow()))
		require.NoError(t, caller.Bye(context.Background(), ""))
		<-callee.Done()
		require.Empty(t, w.sent(serverIP, "BYE"))
	})
}
