package test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/testcert"
	"sipdialog.example/dialog/internal/testkit"
)

var streams = []string{"tcp", "tls", "ws", "wss"}

// far is a scripted peer for a site, on the same transport.
func (w *world) far(transport string, ca *testcert.Authority) *element {
	w.t.Helper()
	return w.element(peerIP, transport, ca.Server(peerIP), ca.Client())
}

// toFar makes an established call from a site to a scripted peer.
func (s *site) toFar(t *testing.T, far *element) *dialog.Dialog {
	t.Helper()
	d, err := s.NewInvite(context.Background(), far.uri("far"), offer(offerSDP))
	require.NoError(t, err)
	far.reply(far.next("INVITE"), 200, answerSDP)
	require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
	far.next("ACK")
	return d.(*dialog.Dialog)
}

// A call of ours that is not answered yet ends with its connection: at once,
// and typed.
func TestLostConnectionEndsAnUnansweredCall(t *testing.T) {
	ca := testcert.New(t)
	for _, transport := range streams {
		for code, state := range map[int]dialog.DialogState{
			0: dialog.DialogStateTrying, 100: dialog.DialogStateTrying, 180: dialog.DialogStateRinging,
		} {
			t.Run(transport+" "+state.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					a, far := w.site("10.0.0.1", transport, ca), w.far(transport, ca)
					seen := &states{}
					opts := offer(offerSDP)
					opts.Setup = func(d *dialog.Dialog) { seen = watch(d) }
					d, err := a.NewInvite(context.Background(), far.uri("far"), opts)
					require.NoError(t, err)
					in := far.next("INVITE")
					if code > 0 {
						far.reply(in, code, "")
					}
					synctest.Wait()
					require.Equal(t, state, d.State())
					w.net.BreakStreams()
					began := time.Now()
					call := d.(*dialog.Dialog)
					require.ErrorIs(t, call.WaitAnswer(context.Background()), dialog.ErrTransport)
					require.Zero(t, time.Since(began))
					synctest.Wait()
					list := seen.seen()
					require.Equal(t, []dialog.DialogState{state, dialog.DialogStateTerminated}, list[len(list)-2:])
					require.Equal(t, dialog.PartyTransport, call.Cause().By)
					require.Empty(t, a.Dialogs())
					require.NotNil(t, a.toFar(t, far), "the next call connects anew")
				})
			})
		}
	}
}

// An established call survives the loss, and its next request connects anew:
// over TCP and TLS from each side (RFC 3261 18), over a WebSocket from the
// client only. The server has its way back when the client has come back, with
// whatever request.
func TestLostConnectionLeavesAnEstablishedCall(t *testing.T) {
	ca := testcert.New(t)
	ctx := context.Background()
	for _, transport := range streams {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b := w.site("10.0.0.1", transport, ca), w.site("10.0.0.2", transport, ca)
				caller, callee := a.call(t, b.uri("bob"), b.takes(t))
				synctest.Wait()

				w.net.BreakStreams()
				synctest.Wait()
				require.Equal(t, dialog.DialogStateEstablished, caller.State())
				require.Equal(t, dialog.DialogStateEstablished, callee.State())
				began := time.Now()
				err := callee.ReInvite(ctx, offer(offerSDP))
				if testkit.IsWS(transport) {
					require.ErrorIs(t, err, dialog.ErrTransport)
				} else {
					require.NoError(t, err)
				}
				require.Zero(t, time.Since(began))
				require.Equal(t, dialog.DialogStateEstablished, callee.State())
				synctest.Wait()

				w.net.BreakStreams()
				synctest.Wait()
				require.NoError(t, caller.SendInfo(ctx, dialog.NewBody("text/plain", []byte("back"))))
				require.NoError(t, callee.ReInvite(ctx, offer(offerSDP)), "by the way the peer came back")
				synctest.Wait()

				w.net.BreakStreams()
				synctest.Wait()
				require.NoError(t, caller.ReInvite(ctx, offer(offerSDP)))
				synctest.Wait()
				require.NoError(t, callee.ReInvite(ctx, offer(offerSDP)))
				synctest.Wait()
				if !testkit.IsWS(transport) {
					w.net.BreakStreams()
					synctest.Wait()
				}
				require.NoError(t, callee.Bye(ctx, ""))
				<-caller.Done()
				require.Equal(t, dialog.Cause{By: dialog.PartyRemote, Method: "BYE"}, caller.Cause())
			})
		})
	}
}

// A re-INVITE that the peer has begun to answer ends with the connection, at
// once and typed; one of which the peer has said nothing goes out once more. The
// call goes on in both cases.
func TestLostConnectionEndsAReInviteInProgress(t *testing.T) {
	ca := testcert.New(t)
	ctx := context.Background()
	for _, transport := range streams {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, far := w.site("10.0.0.1", transport, ca), w.far(transport, ca)
				call := a.toFar(t, far)

				result := began(func() error { return call.ReInvite(ctx, offer(offerSDP)) })
				first := far.next("INVITE")
				w.net.BreakStreams()
				second := far.next("INVITE")
				require.Equal(t, cseqOf(first.msg), cseqOf(second.msg))
				require.NotEqual(t, testkit.BranchOf(first.msg), testkit.BranchOf(second.msg))
				require.False(t, first.flow.Same(second.flow))
				far.reply(second, 200, answerSDP)
				require.NoError(t, <-result)
				require.Equal(t, cseqOf(second.msg), cseqOf(far.next("ACK").msg))

				result = began(func() error { return call.ReInvite(ctx, offer(offerSDP)) })
				far.reply(far.next("INVITE"), 100, "")
				synctest.Wait()
				w.net.BreakStreams()
				start := time.Now()
				require.ErrorIs(t, <-result, dialog.ErrTransport)
				require.Zero(t, time.Since(start))
				require.Equal(t, dialog.DialogStateEstablished, call.State())
			})
		})
	}
}

func cseqOf(msg sip.Message) uint32 { return msg.CSeq().SeqNo }

// invites sends an INVITE to a site by a connection of its own.
func (e *element) invites(t *testing.T, s *site) {
	t.Helper()
	targets, err := e.layer.Resolve(context.Background(), s.uri("us"))
	require.NoError(t, err)
	flow, err := e.layer.Connect(context.Background(), targets[0])
	require.NoError(t, err)
	local := flow.Local()
	req := sip.NewRequest(sip.INVITE, s.uri("us"))
	req.AppendHeader(&sip.ViaHeader{
		ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: local.Transport, Host: local.Host, Port: local.Port,
		Params: sip.HeaderParams{{K: "branch", V: "z9hG4bK-far-1"}},
	})
	req.AppendHeader(nameAndTag(&sip.FromHeader{Address: e.uri("far")}, farTag))
	req.AppendHeader(&sip.ToHeader{Address: s.uri("us"), Params: sip.NewParams()})
	id := sip.CallIDHeader("far-call")
	req.AppendHeader(&id)
	req.AppendHeader(&sip.CSeqHeader{SeqNo: 1, MethodName: sip.INVITE})
	contact := e.uri("far")
	if testkit.IsWS(e.transport) {
		contact.Host, contact.Port = local.Host, 0
	}
	req.AppendHeader(&sip.ContactHeader{Address: contact, Params: sip.NewParams()})
	req.SetBody(nil)
	require.NoError(t, flow.Send(encode(req)))
}

func nameAndTag(from *sip.FromHeader, tag string) *sip.FromHeader {
	from.Params = sip.HeaderParams{{K: "tag", V: tag}}
	return from
}

// An incoming call that rings when its connection is lost: over TCP and TLS the
// answer goes by a new connection to where the request came from (RFC 3261
// 18.2.2); a WebSocket's client cannot be connected to, so that the call is over
// at once.
func TestLostConnectionOfAnIncomingCall(t *testing.T) {
	ca := testcert.New(t)
	for _, transport := range streams {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, far := w.site("10.0.0.2", transport, ca), w.far(transport, ca)
				calls := waiting(b.Stack)
				far.invites(t, b)
				ringing := far.next("180 INVITE")
				d := <-calls
				synctest.Wait()
				w.net.BreakStreams()
				synctest.Wait()
				if testkit.IsWS(transport) {
					require.Equal(t, dialog.DialogStateTerminated, d.State())
					require.Equal(t, dialog.PartyTransport, d.Cause().By)
					require.ErrorIs(t, d.Cause().Err, dialog.ErrTransport)
					require.Empty(t, b.Dialogs())
					require.Error(t, d.Accept(context.Background()))
					return
				}
				require.Equal(t, dialog.DialogStateRinging, d.State())
				require.NoError(t, d.Accept(context.Background(), withSDP(answerSDP)))
				answer := far.next("200 INVITE")
				require.False(t, answer.flow.Same(ringing.flow))
				require.Equal(t, testkit.ToTag(ringing.msg), testkit.ToTag(answer.msg))
				require.NoError(t, d.Close())
			})
		})
	}
}

// RFC 5626 3.5.1: who connected keeps the connection alive, when configured, and
// finds out in silence that it leads nowhere any more: the call survives that.
func TestKeepAlivesFindADeadConnection(t *testing.T) {
	ca := testcert.New(t)
	for transport, ping := range map[string]string{"tcp": "\r\n\r\n", "ws": "\x89\x80"} {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				air := w.eavesdrop()
				keep := func(c *dialog.StackConfig) { c.KeepAlive, c.FlowKeepAlive = 30*time.Second, -1 }
				alone := func(c *dialog.StackConfig) { c.FlowKeepAlive = -1 }
				a, b := w.site("10.0.0.1", transport, ca, keep), w.site("10.0.0.2", transport, ca, alone)
				caller, _ := a.call(t, b.uri("bob"), b.takes(t))
				air.forget()
				time.Sleep(5 * time.Minute)
				require.GreaterOrEqual(t, air.times(ping), 10)
				dialled, _ := a.host.connections()
				require.Equal(t, 1, dialled)

				b.host.Unreachable(true)
				time.Sleep(time.Minute)
				b.host.Unreachable(false)
				require.Equal(t, dialog.DialogStateEstablished, caller.State())
				require.NoError(t, caller.ReInvite(context.Background(), offer(offerSDP)))
				dialled, _ = a.host.connections()
				require.Equal(t, 2, dialled)
			})
		})
	}
	_, err := dialog.NewStack(&dialog.StackConfig{KeepAlive: -1})
	require.ErrorIs(t, err, dialog.ErrInvalidArgument)
}
