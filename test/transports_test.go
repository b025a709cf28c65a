package test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testcert"
	"sipdialog.example/dialog/internal/testkit"
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
func TestE4EveryTransportCarriesCallsBothWays(t *testing.T) {
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
func TestE4IPv6CarriesCalls(t *testing.T) {
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
func TestE4IPv6LoopbackCarriesCalls(t *testing.T) {
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
func TestE4EveryTransportGoesThroughARecordRoutingHop(t *testing.T) {
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
	require.Equal(t, "69", value(first.msg, "Max-Forwards"))
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
		got[describe(m.msg)]++
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

func recipient(m traced) string  { return m.msg.(*sip.Request).Recipient.String() }
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
