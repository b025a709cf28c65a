package nat

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/kamailio"
	"sipdialog.example/dialog/internal/testcert"
)

// proxy is a Kamailio that reaches phones where their messages come from, and the TLS
// configuration of a client that trusts it.
type proxy struct {
	w      *world
	client *tls.Config
}

// proxied starts a Kamailio in place of the server.
func (w *world) proxied() *proxy {
	w.t.Helper()
	ca, dir := testcert.New(w.t), w.t.TempDir()
	ca.Write(dir, serverIP)
	within(w.t, 4*soon, "starting Kamailio", func(ctx context.Context) error {
		server, err := kamailio.Start(ctx, kamailio.Config{
			Text: kamailio.Registrar(serverIP, dir, kamailio.NAT), Dir: dir, Command: w.server.command(),
			Answers: kamailio.Handshake(serverIP, ca.Client(), w.server.DialContext),
		})
		if err == nil {
			server.EndsWith(w.t)
		}
		return err
	})
	return &proxy{w: w, client: ca.Client()}
}

// customer is a phone behind a router, registered with the proxy.
type customer struct {
	*station
	*router
	t               *testing.T
	name, transport string
}

// customer starts a customer and registers it.
func (k *proxy) customer(t *testing.T, r *router, name, transport string, change ...func(*dialog.StackConfig)) *customer {
	t.Helper()
	proxy := sip.Uri{Scheme: "sip", Host: serverIP, Port: ports[transport], UriParams: sip.HeaderParams{{K: "transport", V: transport}, {K: "lr"}}}
	config := &dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: "0.0.0.0", Port: 5060},
		TLS:       k.client, OutboundProxy: &proxy,
		From: &dialog.Address{URI: sip.Uri{Scheme: "sip", User: name, Host: serverIP}},
	}
	if transport == "tcp" {
		config.Transport.Protocol = transport
	}
	for _, f := range change {
		f(config)
	}
	c := &customer{station: start(t, r.inside, config), router: r, t: t, name: name, transport: transport}
	c.register()
	return c
}

// record returns the address of record of a user.
func record(user string) sip.Uri { return sip.Uri{Scheme: "sip", User: user, Host: serverIP} }

func (c *customer) register() {
	c.t.Helper()
	req := sip.NewRequest(sip.REGISTER, sip.Uri{Scheme: "sip", Host: serverIP})
	req.AppendHeader(&sip.FromHeader{Address: record(c.name), Params: sip.NewParams()})
	req.AppendHeader(&sip.ContactHeader{Address: sip.Uri{Scheme: "sip", User: c.name, UriParams: sip.HeaderParams{{K: "transport", V: c.transport}}}})
	req.AppendHeader(sip.NewHeader("Expires", "600"))
	within(c.t, 2*soon, "registering", func(ctx context.Context) error {
		res, err := c.Do(ctx, req)
		if err == nil && res.StatusCode != 200 {
			err = fmt.Errorf("refused: %s", res.Short())
		}
		return err
	})
}

// calls lets one phone call another, which answers after the time ringing.
func (c *customer) calls(other *customer, ringing time.Duration) *call {
	c.t.Helper()
	return ring(c.station, other.station, record(other.name), dialog.InviteOpts{}, ringing).call(true)
}

// pair is two phones behind two routers.
type pair struct{ alice, bob *customer }

// Calls between phones behind routers through a proxy that shares no code with the
// library. Both phones have the same private address.
func TestKamailio(t *testing.T) {
	if !kamailio.Installed() {
		t.Skip("kamailio is not installed (Debian: " + kamailio.Packages + ")")
	}
	w := newWorld(t)
	k := w.proxied()
	for _, transport := range transports {
		for name, test := range map[string]func(*testing.T, *pair){
			"calls": callBothWays, "forgets": forgetBindings, "cuts": cutConnections, "rings": ringLong, "rings late": ringLate,
		} {
			if strings.HasPrefix(name, "rings") && transport != "udp" || name == "cuts" && transport == "udp" {
				continue
			}
			seconds := map[string][2]int{"rings": {25, 25}, "rings late": {linux, hasty}}[name]
			if seconds[0] == 0 {
				seconds = [2]int{linux, linux}
			}
			routers := []*router{w.router(seconds[0]), w.router(seconds[1])}
			t.Run(transport+" "+name, func(t *testing.T) {
				t.Parallel()
				user := strings.Map(func(r rune) rune {
					if r == '/' || r == '_' {
						return '-'
					}
					return r
				}, t.Name())
				test(t, &pair{
					alice: k.customer(t, routers[0], user+"-alice", transport, pinging),
					bob:   k.customer(t, routers[1], user+"-bob", transport, pinging),
				})
			})
		}
	}
}

// pinging sets keep-alives that detect the loss of a connection within some seconds.
func pinging(config *dialog.StackConfig) { config.KeepAlive = 3 * time.Second }

func callBothWays(_ *testing.T, p *pair) {
	for _, by := range []func(*call) *dialog.Dialog{(*call).phoneEnd, (*call).serverEnd} {
		for _, c := range []*call{p.alice.calls(p.bob, 0), p.bob.calls(p.alice, 0)} {
			c.talk()
			c.end(by(c))
		}
	}
}

// ringLong lets a call ring longer than the bindings last: the caller's INVITE is repeated
// in time, and the flow of the called phone's registration is kept open.
func ringLong(_ *testing.T, p *pair) {
	c := p.alice.calls(p.bob, 35*time.Second)
	c.talk()
	c.end(c.server)
}

// ringLate lets the called phone ring longer than its binding lasts: its 200 comes from a
// new binding, to which the proxy sends later requests.
func ringLate(_ *testing.T, p *pair) {
	c := p.alice.calls(p.bob, 8*time.Second)
	c.talk()
	c.end(c.phone)
}

// forgetBindings lets one router after the other forget its bindings during a call. The
// next request of its phone, with its Contact, gives the proxy and the other phone the new
// route.
func forgetBindings(t *testing.T, p *pair) {
	c := p.alice.calls(p.bob, 0)
	for _, one := range p.ends(c) {
		c.settle()
		one.phone.forget()
		within(t, soon, one.phone.name+" holds", one.end.Hold)
		c.talk()
	}
	c.end(c.phone)
	p.again()
}

// cutConnections lets the connection of one phone after the other die silently.
func cutConnections(t *testing.T, p *pair) {
	c := p.alice.calls(p.bob, 0)
	for _, one := range p.ends(c) {
		c.settle()
		one.phone.cut()
		require.Eventually(t, func() bool { return one.phone.Stats().Connections == 0 }, 2*soon, soon/100, "the connection looks alive")
		within(t, soon, one.phone.name+" holds", one.end.Hold)
		c.talk()
	}
	c.end(c.server)
	p.again()
}

// end is a phone and its end of a call.
type end struct {
	phone *customer
	end   *dialog.Dialog
}

func (p *pair) ends(c *call) []end { return []end{{p.alice, c.phone}, {p.bob, c.server}} }

// settle waits until both ends have the ACKs of earlier INVITEs: a lost ACK would be sent
// again, but to the old address of its phone.
func (c *call) settle() {
	c.t.Helper()
	for _, d := range []*dialog.Dialog{c.phone, c.server} {
		within(c.t, soon, "saying that all is well", func(ctx context.Context) error { return d.SendInfo(ctx, nil) })
	}
}

// again registers both phones, which then call each other.
func (p *pair) again() {
	p.alice.register()
	p.bob.register()
	for _, c := range []*call{p.alice.calls(p.bob, 0), p.bob.calls(p.alice, 0)} {
		c.talk()
		c.end(c.phone)
	}
}
