//go:build interop && linux

package peers

import (
	"context"
	"crypto/tls"
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
)

// kamailioConfig is a registrar with digest, and a proxy that stays in calls and forks.
// The password of each user is the user's name.
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
loadmodule "tmx.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "nathelper.so"
loadmodule "auth.so"
loadmodule "xhttp.so"
loadmodule "websocket.so"

modparam("tls", "tls_method", "TLSv1.2+")
modparam("tls", "private_key", "%[2]s/key.pem")
modparam("tls", "certificate", "%[2]s/cert.pem")
modparam("rr", "enable_full_lr", 1)
modparam("registrar", "received_avp", "$avp(received)")
modparam("nathelper", "received_avp", "$avp(received)")
modparam("auth", "nonce_expire", 300)
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
	if (is_first_hop() && (proto == WS || proto == WSS)) {
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
	if (is_method("ACK")) {
		if (t_check_trans()) t_relay();
		exit;
	}
	t_check_trans();
	if (is_method("REGISTER|INVITE")) {
		if (!pv_auth_check("$fd", "$fU", "0", "0")) {
			auth_challenge("$fd", "1");
			exit;
		}
		consume_credentials();
	}
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
	if (proto == WS || proto == WSS) set_contact_alias();
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

// kamailio is a registrar and proxy of Kamailio's.
type kamailio struct {
	*process
	s       *scene
	ip, dir string
}

// proxy starts a Kamailio.
func (s *scene) proxy() *kamailio {
	s.t.Helper()
	k := &kamailio{s: s, ip: s.address(proxyHost, "kamailio"), dir: s.t.TempDir()}
	writePEM(s.t, k.dir, s.authority(), k.ip)
	config := fmt.Appendf(nil, kamailioConfig, k.ip, k.dir)
	require.NoError(s.t, os.WriteFile(filepath.Join(k.dir, "kamailio.cfg"), config, 0o600))
	k.start()
	return k
}

// start starts the proxy, and waits until it serves TLS. Now and then one hangs in its first
// handshake, with OpenSSL 3, and never serves another: that one is started anew.
func (k *kamailio) start() {
	k.s.t.Helper()
	for range 3 {
		k.process = launch(k.s.t, k.dir, nil, "kamailio", "-f", filepath.Join(k.dir, "kamailio.cfg"), "-Y", k.dir,
			"-P", filepath.Join(k.dir, "pid"), "-DD", "-E", "-m", "64", "-M", "4")
		if k.serves() {
			return
		}
		k.kill()
	}
	require.FailNow(k.s.t, "Kamailio takes no connections")
}

// serves waits for a handshake.
func (k *kamailio) serves() bool {
	ctx, cancel := context.WithTimeout(context.Background(), soon/3)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: k.s.authority().Pool()}}
	for ctx.Err() == nil {
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(k.ip, "8443"))
		if err == nil {
			_ = conn.Close()
			return true
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	return false
}

// restart kills the proxy and starts it anew.
func (k *kamailio) restart() {
	k.s.t.Helper()
	k.kill()
	k.s.note("kamailio", "killed")
	k.start()
	k.s.note("kamailio", "started")
}

var proxyPorts = map[string]int{"udp": 5060, "tcp": 5060, "tls": 5061, "ws": 8080, "wss": 8443}

// uri is the proxy, or a user's address of record, over a transport.
func (k *kamailio) uri(user, transport string) sip.Uri {
	return sip.Uri{Scheme: "sip", User: user, Host: k.ip, Port: proxyPorts[transport], UriParams: over(transport)}
}

// record is the address of record of a user.
func (k *kamailio) record(user string) sip.Uri { return sip.Uri{Scheme: "sip", User: user, Host: k.ip} }

// customer returns what makes a station a customer of the proxy, over a transport.
func (k *kamailio) customer(user, transport string) func(*dialog.StackConfig) {
	return func(config *dialog.StackConfig) {
		if config.Transport.Protocol != transport {
			listener := *config.Transport
			listener.Protocol = listening(transport)
			listener.Port = portOf(listener.Protocol)
			config.Transport = &listener
		}
		proxy := k.uri("", transport)
		config.OutboundProxy = &proxy
		config.From = &dialog.Address{URI: k.record(user)}
		config.Credentials = func(realm string) (string, string, bool) { return user, user, realm == k.ip }
	}
}

// listening is the transport that a stack listens on so as to use another as a client.
func listening(transport string) string {
	if transport == "ws" || transport == "wss" {
		return "udp"
	}
	return transport
}

func TestKamailio(t *testing.T) {
	if _, err := exec.LookPath("kamailio"); err != nil {
		results.misses("Kamailio", "it is not installed (Debian: kamailio, kamailio-tls-modules, kamailio-websocket-modules)")
		t.Skip("kamailio is not installed")
	}
	results.meets("Kamailio", packaged("kamailio"))
	for order, f := range proxied {
		for _, over := range f.over {
			t.Run(over+"/"+strings.ReplaceAll(f.name, " ", "-"), func(t *testing.T) {
				t.Parallel()
				c := &passage{scene: newScene(t), over: over, result: works}
				c.proxy = c.scene.proxy()
				f.run(c)
				results.add(row{peer: "Kamailio", feature: f.name, over: over, result: c.result, order: order})
			})
		}
	}
}
