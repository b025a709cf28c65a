package test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testcert"
	"sipdialog.example/dialog/internal/testkit"
	"sipdialog.example/dialog/store/memory"
)

// exchanges are what either side may do in a call that was taken over.
var exchanges = []struct {
	name string
	do   func(ctx context.Context, d *dialog.Dialog) error
}{
	{"BYE", func(ctx context.Context, d *dialog.Dialog) error { return d.Bye(ctx, "") }},
	{"re-INVITE", func(ctx context.Context, d *dialog.Dialog) error {
		return d.ReInvite(ctx, offer(versioned(offerSDP, 5)))
	}},
	{"hold", func(ctx context.Context, d *dialog.Dialog) error { return d.Hold(ctx) }},
	{"UPDATE", func(ctx context.Context, d *dialog.Dialog) error {
		_, err := d.Update(ctx, dialog.NewBody("application/sdp", []byte(versioned(offerSDP, 5))))
		return err
	}},
}

// A process dies, and another one at the same address goes on with its call, as caller and
// callee, on each transport and IP version, whoever speaks and whatever is said. The
// connections are lost with the process. The peer speaks first, since it is its request that
// leads to the call, over a WebSocket for another reason too (RFC 7118 5).
func TestTakeoverOnAllTransports(t *testing.T) {
	ca := testcert.New(t)
	for _, transport := range testkit.AllTransports() {
		for _, ips := range [][2]string{{stackIP, peerIP}, {"fd00::1", "fd00::9"}} {
			for _, role := range []string{"caller", "callee"} {
				if testkit.IsWS(transport) && role == "caller" {
					continue // the peer cannot connect to a client
				}
				for _, speaker := range []string{"the peer's", "our"} {
					for _, exchange := range exchanges {
						t.Run(transport+" "+ips[0]+", "+role+", "+speaker+" "+exchange.name, func(t *testing.T) {
							bubble(t, func(t *testing.T, w *world) {
								w.takesOver(transport, ips, ca, role, speaker, exchange.do)
							})
						})
					}
				}
			}
		}
	}
}

func (w *world) takesOver(transport string, ips [2]string, ca *testcert.Authority, role, speaker string, do func(context.Context, *dialog.Dialog) error) {
	w.t.Helper()
	ctx, store := context.Background(), memory.New()
	k := newLink(store)
	here := w.site(ips[0], transport, ca, func(c *dialog.StackConfig) { c.Store = k })
	far := w.site(ips[1], transport, ca)
	from, to := far, here
	if role == "caller" {
		from, to = here, far
	}
	theirs, _ := w.connectedOver(from, to)
	if role == "caller" {
		_, theirs = theirs, oneCall(w.t, far.Stack)
	}
	w.kill(here.Stack, k)
	again := w.site(ips[0], transport, ca, func(c *dialog.StackConfig) { c.Store = newLink(store) })
	taken := restoring(again.Stack)
	if speaker == "our" {
		require.NoError(w.t, theirs.SendInfo(ctx, nil))
		require.NoError(w.t, do(ctx, oneCall(w.t, again.Stack)))
	} else {
		require.NoError(w.t, do(ctx, theirs))
	}
	synctest.Wait()
	require.Len(w.t, taken.all(), 1)
	ours := taken.all()[0].Dialog
	if ours.State() == dialog.DialogStateEstablished { // whoever has not spoken hangs up
		last := ours
		if speaker == "our" {
			last = theirs
		}
		require.NoError(w.t, last.Bye(ctx, ""))
		synctest.Wait()
	}
	require.Equal(w.t, dialog.DialogStateTerminated, ours.State())
	require.Equal(w.t, dialog.DialogStateTerminated, theirs.State())
	require.Zero(w.t, store.Len())
}

// Behind a strict router, and behind a NAT, requests go where they went before.
func TestTakeoverKeepsTheRoute(t *testing.T) {
	t.Run("strict router", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			store := memory.New()
			s, k := w.process(stackIP, store)
			proxy := w.peer(proxyIP)
			l := w.incoming(s, w.peer(peerIP), withHeaders("Record-Route: <sip:10.0.0.7:5060>", "Record-Route: <sip:10.0.0.9:5060;lr>"))
			l.failsOver(k, store)
			l.theirs("INFO", 200)
			l.d = oneCall(t, l.w.stacks[0])
			bye := l.hangUp(proxy)
			require.Equal(t, "BYE sip:10.0.0.7:5060 SIP/2.0", bye.startLine())
			require.Equal(t, []string{"<sip:10.0.0.9:5060;lr>", "<sip:peer@10.0.0.9:5060>"}, bye.values("Route"))
		})
	})
	t.Run("NAT", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			always := func(c *dialog.StackConfig) { c.NAT = dialog.NATAlways }
			store := memory.New()
			s, k := w.process(stackIP, store, always)
			p := w.peer(peerIP)
			l := w.incoming(s, p, withHeaders("Contact: <sip:peer@192.168.1.7:5062>"))
			l.failsOver(k, store, always)
			l.theirs("INFO", 200)
			l.d = oneCall(t, l.w.stacks[0])
			bye := l.hangUp(p)
			require.Equal(t, "BYE sip:peer@192.168.1.7:5062 SIP/2.0", bye.startLine())
			require.Equal(t, p.Addr(), bye.to)
		})
	})
}

// Nothing that was learnt of challenges is in the store: the first request is challenged
// once more.
func TestTakeoverAnswersChallenges(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		login := func(c *dialog.StackConfig) {
			c.Credentials = func(string) (string, string, bool) { return "alice", "secret", true }
		}
		store := memory.New()
		s, k := w.process(stackIP, store, login)
		p := w.peer(peerIP)
		l := w.outgoing(s, p)
		l.next("ACK")
		l.failsOver(k, store, login)
		l.theirs("INFO", 200)
		l.d = oneCall(t, l.w.stacks[0])
		result := began(func() error { return l.d.Bye(context.Background(), "") })
		first := p.next("BYE")
		p.reply(first, dialogtest.Response{Code: 401, Headers: []string{`WWW-Authenticate: Digest realm="pbx", nonce="n", qop="auth", algorithm=MD5`}})
		second := p.next("BYE")
		require.NotEmpty(t, second.Request().GetHeaders("Authorization"))
		require.Greater(t, second.Request().CSeq().SeqNo, first.Request().CSeq().SeqNo)
		p.reply(second, dialogtest.Response{Code: 200})
		require.NoError(t, <-result)
		synctest.Wait()
		require.Zero(t, store.Len())
	})
}

// A browser that comes back to another process is reached by its new WebSocket (RFC 7118
// 5), although that process has never had its call, and even if it knows no flow of it.
func TestTakeoverByANewWebSocket(t *testing.T) {
	ca := testcert.New(t)
	for name, change := range map[string]func([]byte) []byte{
		"":        func(data []byte) []byte { return data },
		"no flow": func(data []byte) []byte { return withoutField(data, "ft") },
		"neither flow nor NAT": func(data []byte) []byte {
			return withoutField(withoutField(withoutField(data, "ft"), "fi"), "fn")
		},
		"not inbound": func(data []byte) []byte { return withoutField(withoutField(data, "ft"), "fi") },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				ctx, store := context.Background(), memory.New()
				k := newLink(store)
				here := w.site(stackIP, "wss", ca, func(c *dialog.StackConfig) { c.Store = k })
				browser := w.site(peerIP, "wss", ca)
				theirs, _ := w.connectedOver(browser, here)
				w.kill(here.Stack, k)
				key := theirs.Key()
				rewritten(t, store, dialog.NewStoreKey(key.CallID, key.RemoteTag), change)
				again := w.site(stackIP, "wss", ca, func(c *dialog.StackConfig) { c.Store = newLink(store) })
				require.NoError(t, theirs.SendInfo(ctx, nil))
				ours := oneCall(t, again.Stack)
				require.NoError(t, ours.Hold(ctx))
				require.NoError(t, ours.Bye(ctx, ""))
				synctest.Wait()
				require.Equal(t, dialog.DialogStateTerminated, theirs.State())
			})
		})
	}
}
