package test

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testcert"
)

// multihomed is a machine that listens on one address, and whose kernel connects
// from another.
type multihomed struct {
	*dialogtest.Host
	kernel *dialogtest.Host
}

func (m multihomed) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return m.kernel.DialContext(ctx, network, address)
}

// multihomedFrom can connect from each of the two.
type multihomedFrom struct{ multihomed }

func (m multihomedFrom) DialFrom(ctx context.Context, network, local, address string) (net.Conn, error) {
	for _, h := range []*dialogtest.Host{m.Host, m.kernel} {
		if h.Addr().String() == local {
			return h.DialContext(ctx, network, address)
		}
	}
	return nil, net.ErrClosed
}

// FD19: the connection came from an address that the peer did not know, and the
// Contact named a port where nobody listened.
func TestConnectionsComeFromWhereTheContactLeads(t *testing.T) {
	const kernelIP = "10.0.0.2"
	for name, c := range map[string]struct {
		listens []dialog.TransportConfig
		over    string
		body    string
		from    bool   // the network can be told
		source  string // of the connection
		contact string
	}{
		"TCP": {
			listens: []dialog.TransportConfig{{Protocol: "tcp", Address: stackIP, Port: 5070}}, over: "tcp",
			from: true, source: stackIP, contact: "<sip:SoftPhone@" + stackIP + ":5070;transport=tcp>",
		},
		"the network cannot be told": {
			listens: []dialog.TransportConfig{{Protocol: "tcp", Address: stackIP, Port: 5070}}, over: "tcp",
			source: kernelIP, contact: "<sip:SoftPhone@" + stackIP + ":5070;transport=tcp>",
		},
		"a second listener": {
			listens: []dialog.TransportConfig{{Protocol: "udp", Address: stackIP, Port: 5060}, {Protocol: "tcp", Address: stackIP, Port: 5070}}, over: "tcp",
			from: true, source: stackIP, contact: "<sip:SoftPhone@" + stackIP + ":5070;transport=tcp>",
		},
		"too long for UDP": {
			listens: []dialog.TransportConfig{{Protocol: "udp", Address: stackIP, Port: 5080}}, over: "", body: longSDP,
			source: kernelIP, contact: "<sip:SoftPhone@" + stackIP + ":5080>",
		},
		"too long for UDP, from there": {
			listens: []dialog.TransportConfig{{Protocol: "udp", Address: stackIP, Port: 5080}}, over: "", body: longSDP,
			from: true, source: stackIP, contact: "<sip:SoftPhone@" + stackIP + ":5080>",
		},
		"public address": {
			listens: []dialog.TransportConfig{{Protocol: "tcp", Address: stackIP, Port: 5070, PublicAddress: publicIP, PublicPort: 7000}}, over: "tcp",
			source: kernelIP, contact: "<sip:SoftPhone@" + publicIP + ":7000;transport=tcp>",
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				machine := multihomed{Host: w.net.Host(stackIP), kernel: w.net.Host(kernelIP)}
				a, p := w.stack(stackIP, func(cfg *dialog.StackConfig) {
					cfg.Network = machine
					if c.from {
						cfg.Network = multihomedFrom{machine}
					}
					cfg.Transport, cfg.Listeners = &c.listens[0], c.listens[1:]
				}), w.peer(peerIP)
				opened := w.accepts(p.Addr().String())
				target := uri("bob", peerIP)
				if c.over != "" {
					target.UriParams.Add("transport", c.over)
				}
				body := offerSDP
				if c.body != "" {
					body = c.body
				}
				d, err := a.NewInvite(context.Background(), target, offer(body))
				require.NoError(t, err)
				conn := <-opened
				invite := conn.next("INVITE")
				require.Equal(t, c.source, strings.Split(conn.RemoteAddr().String(), ":")[0])
				require.Equal(t, c.contact, invite.value(t, "Contact"))
				conn.write(p.Response(request(invite.msg), dialogtest.Response{Code: 486, ToTag: farTag}))
				require.Error(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
				conn.next("ACK")
			})
		})
	}
}

// FD19: so it is in what is said on the connection later, by either side.
func TestContactOnAConnectionOfOursNamesTheListener(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ca := testcert.New(t)
		near, far := w.site(stackIP, "tls", ca, func(c *dialog.StackConfig) {
			c.Network = multihomed{Host: w.net.Host(stackIP), kernel: w.net.Host("10.0.0.2")}
		}), w.site(peerIP, "tls", ca)
		caller, callee := near.call(t, far.uri("bob"), far.takes(t))
		require.NoError(t, callee.ReInvite(context.Background(), offer(offerSDP)))
		_, err := caller.Update(context.Background(), nil)
		require.NoError(t, err)
		for _, what := range []string{"INVITE", "200 INVITE", "UPDATE"} {
			require.Contains(t, near.contact(t, what), "@"+stackIP+":5061", what)
		}
		require.NoError(t, caller.Bye(context.Background(), ""))
	})
}
