package test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testcert"
	"sipdialog.example/dialog/internal/testkit"
	"sipdialog.example/dialog/internal/transport"
)

// converse does what a call can do, each from both sides, and ends it from one.
func converse(t *testing.T, caller, callee *dialog.Dialog, callerHangsUp bool) {
	t.Helper()
	ctx := context.Background()
	for _, d := range []*dialog.Dialog{caller, callee} {
		require.NoError(t, d.ReInvite(ctx, offer(offerSDP)))
		synctest.Wait() // its ACK
	}
	for _, d := range []*dialog.Dialog{caller, callee} {
		require.NoError(t, d.Refer(ctx, uri("carol", "10.0.0.3"), dialog.ReferOpts{}))
		sub, err := d.WaitRefer(ctx)
		require.NoError(t, err)
		<-sub.Done()
		require.Equal(t, 200, sub.Status().Status)
	}
	first, second := caller, callee
	if !callerHangsUp {
		first, second = callee, caller
	}
	require.NoError(t, first.Bye(ctx, ""))
	<-second.Done()
	require.Equal(t, dialog.Cause{By: dialog.PartyRemote, Method: "BYE"}, second.Cause())
	synctest.Wait()
}

// sides are what each side says in converse once the call is set up.
var sides = []string{"ACK", "INVITE", "ACK", "REFER", "NOTIFY", "BYE"}

// E4: each transport carries calls in each direction: udp, tcp, tls, ws and wss
// all listen and connect.
func TestEveryTransportCarriesCallsBothWays(t *testing.T) {
	ca := testcert.New(t)
	for _, transport := range testkit.AllTransports() {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				air := w.eavesdrop()
				a, b := w.site("10.0.0.1", transport, ca), w.site("10.0.0.2", transport, ca)
				a.follows(t)
				b.follows(t)
				directly(t, a, b)
				require.Equal(t, !testkit.IsSecure(transport), air.heard("INVITE sip"))
				require.Equal(t, !testkit.IsSecure(transport), air.heard("SIP/2.0 200 OK"))
				require.Equal(t, transport == "ws", air.heard("Sec-WebSocket-Protocol: sip"))
			})
			bubble(t, func(t *testing.T, w *world) { // the other direction
				a, b := w.site("10.0.0.1", transport, ca), w.site("10.0.0.2", transport, ca)
				a.follows(t)
				b.follows(t)
				directly(t, b, a)
			})
		})
	}
}

// E4: IPv6 addresses, which stand in brackets wherever a port may follow.
func TestIPv6CarriesCalls(t *testing.T) {
	ca := testcert.New(t)
	for _, transport := range testkit.AllTransports() {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b := w.site("fd00::1", transport, ca), w.site("fd00::2", transport, ca)
				a.follows(t)
				b.follows(t)
				directly(t, a, b)
				require.Contains(t, b.contact(t, "200 INVITE"), "@[fd00::2]:")
				for _, m := range a.messages(true, "INVITE") {
					if !testkit.IsWS(transport) {
						require.Contains(t, string(m.Data), "SIP/2.0/"+strings.ToUpper(transport)+" [fd00::1]:")
					}
				}
			})
		})
	}
}

// E4: two stacks on the IPv6 loopback address.
func TestIPv6LoopbackCarriesCalls(t *testing.T) {
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a := w.site("::1", transport, nil)
				b := w.site("::1", transport, nil, func(c *dialog.StackConfig) { c.Transport.Port = 5070 })
				a.follows(t)
				b.follows(t)
				caller, callee := a.call(t, b.uri("bob"), b.takes(t))
				require.Equal(t, "[::1]", callee.Info().RemoteTarget.Host)
				converse(t, caller, callee, true)
			})
		})
	}
}

// directly makes two calls, one after the other, and checks where everything
// went.
func directly(t *testing.T, a, b *site) {
	t.Helper()
	calls := b.takes(t)
	for _, callerHangsUp := range []bool{true, false} {
		caller, callee := a.call(t, b.uri("bob"), calls)
		converse(t, caller, callee, callerHangsUp)
	}
	require.Equal(t, uriText(b.uri("bob")), recipient(a.messages(true, "INVITE")[0]))
	checkContact(t, a, a.contact(t, "INVITE"), true)
	checkContact(t, b, b.contact(t, "200 INVITE"), false)
	said(t, a, sides)
	said(t, b, []string{"INVITE", "ACK", "REFER", "NOTIFY", "BYE"})
	for _, s := range []*site{a, b} {
		for _, m := range slices.Concat(s.messages(true, ""), s.messages(false, "")) {
			require.Equal(t, strings.ToUpper(s.transport), m.Transport)
			require.Empty(t, values(m.msg, "Route"))
			require.Empty(t, values(m.msg, "Record-Route"))
			require.Len(t, values(m.msg, "Via"), 1)
		}
	}
	checkTargets(t, a, b)
	// One connection for both calls and both directions.
	oneConnection(t, a, a.transport != "udp", false)
	oneConnection(t, b, false, b.transport != "udp")
	if a.transport != "udp" {
		require.Len(t, ways(a), 1)
		require.Len(t, ways(b), 1)
	}
}

// E4: the same through a proxy that stays in the way: requests inside the call
// have its Route, and its alone, and the far side's Contact as Request-URI.
//
// A WebSocket client is reached by its connection to the proxy only: the proxy
// marks that in its Record-Route.
func TestEveryTransportGoesThroughARecordRoutingHop(t *testing.T) {
	ca := testcert.New(t)
	for _, transport := range testkit.AllTransports() {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b := w.site("10.0.0.1", transport, ca), w.site("10.0.0.2", transport, ca)
				a.follows(t)
				b.follows(t)
				through(t, w.hop(proxyIP, transport, ca.Server(proxyIP), ca.Client()), a, b)
			})
		})
	}
}

// through makes calls by a hop and checks where everything went.
func through(t *testing.T, h *hop, a, b *site) {
	t.Helper()
	calls := b.takes(t)
	for _, callerHangsUp := range []bool{true, false} {
		caller, callee := a.call(t, b.uri("bob"), calls, h.route(""))
		converse(t, caller, callee, callerHangsUp)
	}
	first := b.messages(false, "INVITE")[0]
	recorded := values(first.msg, "Record-Route")
	require.Len(t, recorded, 1)
	require.Equal(t, recorded, values(a.messages(false, "200 INVITE")[0].msg, "Record-Route"))
	require.Equal(t, "69", testkit.Value(first.msg, "Max-Forwards"))
	preloaded := h.route("")
	for _, m := range a.messages(true, "INVITE") {
		if testkit.ToTag(m.msg) == "" {
			require.Equal(t, []string{"<" + preloaded.String() + ">"}, values(m.msg, "Route"))
			require.Equal(t, uriText(b.uri("bob")), recipient(m))
		}
	}

	said(t, a, sides)
	said(t, b, []string{"INVITE", "ACK", "REFER", "NOTIFY", "BYE"})
	for _, s := range []*site{a, b} {
		for _, m := range s.requests(true) {
			require.Equal(t, recorded, values(m.msg, "Route"), "%s", m.Data)
			require.Equal(t, h.addr.Addr(), m.Remote.Addr())
		}
		for _, m := range s.requests(false) {
			require.Empty(t, values(m.msg, "Route"), "ours was the last")
			require.Len(t, values(m.msg, "Via"), 2)
		}
	}
	checkTargets(t, a, b)
	stream := h.transport != "udp"
	// The proxy knows how to connect to a, but for a WebSocket client.
	oneConnection(t, a, stream, stream && !testkit.IsWS(h.transport))
	oneConnection(t, b, false, stream)
	if stream {
		require.Len(t, ways(b), 1)
	}
	if testkit.IsWS(h.transport) {
		require.Len(t, ways(a), 1)
	}
}

// checkTargets compares the Request-URIs inside the dialogs with the Contacts.
func checkTargets(t *testing.T, a, b *site) {
	t.Helper()
	for _, m := range a.requests(true) {
		require.Equal(t, b.contact(t, "200 INVITE"), recipient(m), "%s", m.Data)
	}
	for _, m := range b.requests(true) {
		require.Equal(t, a.contact(t, "INVITE"), recipient(m), "%s", m.Data)
	}
}

// checkContact checks how a stack says that it is reached. A WebSocket client
// is not, but by its connection (RFC 7118 5).
func checkContact(t *testing.T, s *site, contact string, client bool) {
	t.Helper()
	var got sip.Uri
	require.NoError(t, sip.ParseUri(contact, &got))
	want := s.uri(got.User)
	if client && testkit.IsWS(s.transport) {
		require.Regexp(t, `^[0-9a-f]+\.invalid$`, got.Host)
		want.Host, want.Port = got.Host, 0
	}
	if s.transport == "wss" { // FD7. RFC 7118 5.2 knows ws only
		want.UriParams = sip.HeaderParams{{K: "transport", V: "ws"}}
	}
	require.Equal(t, want.String(), contact)
}

// said checks which requests a site has written, repetitions left out.
func said(t *testing.T, s *site, methods []string) {
	t.Helper()
	got := map[string]int{}
	for _, m := range s.requests(true) {
		got[testkit.Describe(m.msg)]++
	}
	for _, method := range methods {
		require.NotZero(t, got[method], "%s in %v", method, got)
	}
	require.Equal(t, 1, got["BYE"])
	require.Equal(t, 2, got["REFER"])
}

// oneConnection checks how many connections a site has made and taken.
func oneConnection(t *testing.T, s *site, dialled, accepted bool) {
	t.Helper()
	gotDialled, gotAccepted := s.host.connections()
	require.Equal(t, dialled, gotDialled == 1, "%d dialled", gotDialled)
	require.Equal(t, accepted, gotAccepted == 1, "%d accepted", gotAccepted)
	require.LessOrEqual(t, max(gotDialled, gotAccepted), 1)
}

// ways are the pairs of addresses between which a site's messages went.
func ways(s *site) map[string]bool {
	pairs := map[string]bool{}
	for _, m := range slices.Concat(s.messages(true, ""), s.messages(false, "")) {
		pairs[m.Local.String()+" "+m.Remote.String()] = true
	}
	return pairs
}

func recipient(m traced) string { return m.msg.(*sip.Request).Recipient.String() }

func uriText(uri sip.Uri) string { return uri.String() }

// eavesdropper hears all that is on the wire.
type eavesdropper struct {
	mu   sync.Mutex // guards the field below
	text strings.Builder
}

func (w *world) eavesdrop() *eavesdropper {
	e := &eavesdropper{}
	w.net.Tap(func(p dialogtest.Packet) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.text.Write(p.Data)
	})
	return e
}

// heard reports whether a text was on the wire.
func (e *eavesdropper) heard(text string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Contains(e.text.String(), text)
}

// forget begins anew.
func (e *eavesdropper) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.text.Reset()
}

// times counts a text.
func (e *eavesdropper) times(text string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Count(e.text.String(), text)
}

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

// refused calls, and returns why the call failed, which must be known at once.
func (s *site) refused(t *testing.T, target sip.Uri) error {
	t.Helper()
	began := time.Now()
	d, err := s.NewInvite(context.Background(), target, offer(offerSDP))
	if err == nil {
		call := d.(*dialog.Dialog)
		err = call.WaitAnswer(context.Background())
		require.Equal(t, dialog.PartyTransport, call.Cause().By)
		require.ErrorIs(t, call.Cause().Err, dialog.ErrTransport)
	}
	require.ErrorIs(t, err, dialog.ErrTransport)
	require.Zero(t, time.Since(began))
	synctest.Wait()
	require.Empty(t, s.Dialogs())
	left := testkit.Held(s.Stack)
	left.Tombstones, left.TombstoneTimer = 0, false // for 64*T1
	require.Zero(t, left)
	return err
}

// E4: TLS verifies whom it talks to.
func TestTLSRefusesUnverifiedCertificates(t *testing.T) {
	ca, other := testcert.New(t), testcert.New(t)
	wrongName := ca.Server("10.0.0.77")
	expired := &tls.Config{Certificates: []tls.Certificate{ca.IssueUntil(time.Unix(1, 0), "10.0.0.2")}}
	for _, transport := range []string{"tls", "wss"} {
		for _, c := range []struct {
			name   string
			server *tls.Config
			client *tls.Config
		}{
			{"a certificate for another name", wrongName, ca.Client()},
			{"an unknown authority", ca.Server("10.0.0.2"), other.Client()},
			{"a certificate that is not valid any more", expired, ca.Client()},
			{"no TLS version in common", ca.Server("10.0.0.2"), &tls.Config{RootCAs: ca.Client().RootCAs, MaxVersion: tls.VersionTLS11}},
		} {
			t.Run(transport+": "+c.name, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					b := w.site("10.0.0.2", transport, ca, func(s *dialog.StackConfig) { s.Transport.TLSConfig = c.server })
					a := w.site("10.0.0.1", transport, ca, func(s *dialog.StackConfig) { s.TLS = c.client.Clone() })
					require.ErrorIs(t, a.refused(t, b.uri("bob")), errTLS)
					_, err := a.Do(context.Background(), sip.NewRequest(sip.OPTIONS, b.uri("bob")))
					require.ErrorIs(t, err, dialog.ErrTransport)
					require.Empty(t, b.messages(false, ""))
					if c.server == wrongName || c.server == expired { // it cannot be called
						return
					}
					good := w.site("10.0.0.3", transport, ca) // the listener goes on
					_, _ = good.call(t, b.uri("bob"), b.takes(t))
				})
			})
		}
	}
}

// errTLS is what a handshake's failure wraps.
var errTLS = transport.ErrTLS

// E4: a listener that asks for a client's certificate turns away who has none;
// with TLS 1.3 the client learns of that only after its own handshake.
func TestTLSAsksForClientCertificates(t *testing.T) {
	ca, other := testcert.New(t), testcert.New(t)
	mutual := ca.Server("10.0.0.2")
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, ca.Client().RootCAs
	for _, transport := range []string{"tls", "wss"} {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.site("10.0.0.2", transport, ca, func(c *dialog.StackConfig) { c.Transport.TLSConfig = mutual })
				calls := b.takes(t)
				none := w.site("10.0.0.1", transport, ca)
				_ = none.refused(t, b.uri("bob"))
				wrong := w.site("10.0.0.3", transport, ca, func(c *dialog.StackConfig) {
					c.TLS.Certificates = []tls.Certificate{other.Issue("10.0.0.3")}
				})
				_ = wrong.refused(t, b.uri("bob"))
				require.Empty(t, b.messages(false, ""))
				right := w.site("10.0.0.4", transport, ca, func(c *dialog.StackConfig) {
					c.TLS.Certificates = []tls.Certificate{ca.Issue("10.0.0.4")}
				})
				right.follows(t)
				b.follows(t)
				caller, callee := right.call(t, b.uri("bob"), calls)
				converse(t, caller, callee, true)
			})
		})
	}
}

// E4: plain bytes on a TLS port get nowhere, and hold nothing up.
func TestPlaintextOnATLSPortGetsNowhere(t *testing.T) {
	ca := testcert.New(t)
	for _, transport := range []string{"tls", "wss"} {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.site("10.0.0.2", transport, ca)
				calls := b.takes(t)

				conn, err := w.net.Host("10.0.0.9").DialContext(context.Background(), "tcp", b.Addr().String())
				require.NoError(t, err)
				_, err = io.WriteString(conn, "OPTIONS sip:b@10.0.0.2 SIP/2.0\r\nVia: SIP/2.0/TCP 10.0.0.9;branch=z9hG4bK1\r\n"+
					"From: <sip:a@a>;tag=1\r\nTo: <sip:b@b>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n")
				require.NoError(t, err)
				began := time.Now()
				answer, _ := io.ReadAll(conn) // until it is closed
				require.NotContains(t, string(answer), "SIP/2.0")
				require.Zero(t, time.Since(began))
				require.NoError(t, conn.Close())

				plain := map[string]string{"tls": "tcp", "wss": "ws"}[transport]
				a := w.site("10.0.0.1", plain, ca)
				_ = a.refused(t, testkit.URIOver(plain, "bob", b.Addr()))

				silent, err := w.net.Host("10.0.0.8").DialContext(context.Background(), "tcp", b.Addr().String())
				require.NoError(t, err)
				good := w.site("10.0.0.3", transport, ca)
				_, _ = good.call(t, b.uri("bob"), calls)
				require.NoError(t, silent.Close())
				require.Len(t, b.messages(false, "INVITE"), 1)
			})
		})
	}
}

// One stack listens on every transport at once, on ports that were free, and
// each carries a call.
func TestOneStackServesEveryTransport(t *testing.T) {
	ca := testcert.New(t)
	bubble(t, func(t *testing.T, w *world) {
		b := w.site("10.0.0.2", "udp", ca, func(c *dialog.StackConfig) {
			c.Transport.Port = 0
			for _, transport := range testkit.AllTransports()[1:] {
				more := dialog.TransportConfig{Protocol: transport, Address: "10.0.0.2"}
				if testkit.IsSecure(transport) {
					more.TLSConfig = ca.Server("10.0.0.2")
				}
				c.Listeners = append(c.Listeners, more)
			}
			c.TLS = ca.Client()
		})
		b.follows(t)
		calls := b.takes(t)
		addresses := b.Addrs()
		require.Len(t, addresses, len(testkit.AllTransports()))
		for i, transport := range testkit.AllTransports() {
			require.NotZero(t, addresses[i].Port())
			a := w.site([]string{"10.0.1.1", "10.0.1.2", "10.0.1.3", "10.0.1.4", "10.0.1.5"}[i], transport, ca)
			a.follows(t)
			caller, callee := a.call(t, testkit.URIOver(transport, "bob", addresses[i]), calls)
			converse(t, caller, callee, i%2 == 0)
			for _, m := range a.messages(true, "") {
				require.Equal(t, addresses[i], m.Remote, transport)
			}
		}
	})
}

// D9: a "tcp" stack sends by TCP, and its Contact and Via say so.
func TestTCPStackSpeaksTCP(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack(stackIP, func(c *dialog.StackConfig) { c.Transport.Protocol = "tcp" })
		p := w.peer(peerIP) // for its texts; it has a UDP socket that nothing may come to
		listener, err := w.net.Host(peerIP).Listen(context.Background(), "tcp", peerIP+":5060")
		require.NoError(t, err)
		d, err := a.NewInvite(context.Background(), uri("bob", peerIP), offer(offerSDP))
		require.NoError(t, err)
		conn, err := listener.Accept()
		require.NoError(t, err)
		s := &stream{Conn: conn, t: t, r: bufio.NewReader(conn)}
		defer func() { _ = s.Close() }()

		invite := s.read()
		require.True(t, strings.HasPrefix(invite.value(t, "Via"), "SIP/2.0/TCP "+stackIP+":5060;branch=z9hG4bK"), invite.value(t, "Via"))
		require.Equal(t, "<sip:SoftPhone@"+stackIP+":5060;transport=tcp>", invite.value(t, "Contact"))
		s.write(p.Response(request(invite.msg), dialogtest.Response{
			Code: 200, ToTag: farTag, Body: answerSDP, Headers: []string{"Contact: <sip:bob@" + peerIP + ":5060;transport=tcp>"},
		}))
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		require.Equal(t, "ACK sip:bob@"+peerIP+":5060;transport=tcp SIP/2.0", s.read().startLine())

		// The callee's side says so as well.
		a.OnIncomingDialog(func(d dialog.IDialog) {
			if err := d.Accept(context.Background()); err != nil {
				t.Error(err)
			}
		})
		text := p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:a@" + stackIP, CallID: "back"})
		s.write(strings.Replace(text, "SIP/2.0/UDP", "SIP/2.0/TCP", 1))
		for _, line := range []string{"SIP/2.0 100 Trying", "SIP/2.0 180 Ringing", "SIP/2.0 200 OK"} {
			m := s.read()
			require.Equal(t, line, m.startLine())
			if response(m.msg).StatusCode > 100 {
				require.Equal(t, "<sip:"+stackIP+":5060;transport=tcp>", strings.Replace(m.value(t, "Contact"), "a@", "", 1))
			}
		}
		ended := began(func() error { return d.Bye(context.Background(), "") })
		for {
			m := s.read()
			if testkit.Describe(m.msg) == "BYE" {
				s.write(p.Response(request(m.msg), dialogtest.Response{Code: 200}))
				break
			}
		}
		require.NoError(t, <-ended)
		require.Zero(t, w.net.Stats().Sent, "datagrams")
	})
}

// D9: requests over UDP leave by the listening socket, which is what Via says.
func TestRequestsLeaveByTheListeningSocket(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(a, p)
		l.hangUp(p)
		for _, what := range []string{"INVITE", "ACK", "BYE"} {
			m := w.one(stackIP, what)
			require.Equal(t, a.Addr(), m.from, what)
			require.True(t, strings.HasPrefix(m.value(t, "Via"), "SIP/2.0/UDP "+stackIP+":5060;branch=z9hG4bK"), m.value(t, "Via"))
			require.Equal(t, "70", m.value(t, "Max-Forwards"))
		}
		require.Equal(t, "<sip:SoftPhone@"+stackIP+":5060>", w.one(stackIP, "INVITE").value(t, "Contact"))
	})
}
