package nat

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/testcert"
)

// kamailioConfig is a registrar and proxy on the internet, as in Kamailio's handbook for
// phones behind routers: it remembers such a phone by the source of its messages
// (nathelper), in registrations and in the Contacts of calls.
const kamailioConfig = `
debug=2
log_stderror=yes
children=2
tcp_children=4
enable_tls=yes
auto_aliases=no
dns=no
rev_dns=no
tcp_connection_lifetime=3600
tcp_accept_no_cl=yes
listen=udp:%[1]s:5060
listen=tcp:%[1]s:5060
listen=tls:%[1]s:5061
listen=tcp:%[1]s:8080
listen=tls:%[1]s:8443

loadmodule "tls.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "nathelper.so"
loadmodule "xhttp.so"
loadmodule "websocket.so"

modparam("tls", "tls_method", "TLSv1.2+")
modparam("tls", "private_key", "%[2]s/key.pem")
modparam("tls", "certificate", "%[2]s/cert.pem")
modparam("tm", "fr_timer", 30000)
modparam("tm", "fr_inv_timer", 180000)
modparam("rr", "enable_full_lr", 1)
modparam("nathelper|registrar", "received_avp", "$avp(received)")
modparam("websocket", "keepalive_mechanism", 0)

request_route {
	force_rport();
	if (!mf_process_maxfwd_header("10")) {
		sl_send_reply("483", "Too Many Hops");
		exit;
	}
	if (is_method("CANCEL")) {
		if (t_check_trans()) t_relay();
		exit;
	}
	if (is_first_hop()) {
		if (is_method("REGISTER")) {
			fix_nated_register();
		} else {
			set_contact_alias();
		}
	}
	if (has_totag()) {
		if (loose_route()) {
			if ($du == "") handle_ruri_alias();
			route(RELAY);
		} else if (!is_method("ACK")) {
			sl_send_reply("404", "Not Here");
		} else if (t_check_trans()) {
			t_relay();
		}
		exit;
	}
	t_check_trans();
	if (is_method("REGISTER")) {
		if (!save("location")) sl_reply_error();
		exit;
	}
	record_route();
	if (!lookup("location")) {
		sl_send_reply("404", "Not Found");
		exit;
	}
	route(RELAY);
}

route[RELAY] {
	t_on_reply("ANSWER");
	if (!t_relay()) sl_reply_error();
	exit;
}

onreply_route[ANSWER] {
	if (is_first_hop()) set_contact_alias();
}

event_route[xhttp:request] {
	set_reply_close();
	set_reply_no_connect();
	if ($hdr(Upgrade) =~ "websocket" && $hdr(Connection) =~ "Upgrade" && $rm =~ "GET") {
		if (ws_handle_handshake()) exit;
	}
	xhttp_reply("404", "Not Found", "", "");
}
`

// kamailio is the proxy, and the TLS configuration of a client that trusts it.
type kamailio struct {
	w      *world
	client *tls.Config
}

// proxied starts a Kamailio in place of the server.
func (w *world) proxied(path string) *kamailio {
	w.t.Helper()
	ca, dir := testcert.New(w.t), w.t.TempDir()
	writeKeys(w.t, dir, ca.Issue(serverIP))
	file := filepath.Join(dir, "kamailio.cfg")
	require.NoError(w.t, os.WriteFile(file, fmt.Appendf(nil, kamailioConfig, serverIP, dir), 0o600))
	w.server.start(w.t, path, "-f", file, "-Y", dir, "-P", filepath.Join(dir, "pid"), "-DD", "-E", "-m", "32", "-M", "4")
	require.Eventually(w.t, func() bool {
		conn, err := w.server.DialContext(context.Background(), "tcp", net.JoinHostPort(serverIP, "8443"))
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, 2*soon, soon/100, "Kamailio takes no connections")
	return &kamailio{w: w, client: ca.Client()}
}

// writeKeys writes a certificate and its key as files.
func writeKeys(t *testing.T, dir string, cert tls.Certificate) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(t, err)
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: cert.Certificate[0]},
		"key.pem":  {Type: "PRIVATE KEY", Bytes: key},
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600))
	}
}

// customer is a phone behind a router, registered with the proxy.
type customer struct {
	*station
	*router
	t               *testing.T
	name, transport string
}

// customer starts a customer and registers it.
func (k *kamailio) customer(t *testing.T, r *router, name, transport string, change ...func(*dialog.StackConfig)) *customer {
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
	path, err := exec.LookPath("kamailio")
	if err != nil {
		t.Skip("kamailio is not installed (Debian: kamailio, kamailio-tls-modules, kamailio-websocket-modules)")
	}
	w := newWorld(t)
	k := w.proxied(path)
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
