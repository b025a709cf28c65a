//go:build interop && linux

package peers

import (
	"fmt"
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

// linphone is a telephone of linphonec's, without a sound card, that obeys on its standard
// input.
type linphone struct {
	*process
	s             *scene
	transport, ip string
	binding       binding // if it has registered with us
	// read is the number of bytes of its output that have been looked at.
	read int
}

// The configuration of a linphone that sends keys by INFO, and asks for session timers.
const linphoneConfig = `
[sip]
%[2]s
bind_address=%[1]s
contact="peer" <sip:peer@%[1]s>
guess_hostname=0
use_ipv6=0
use_info=1
use_rfc2833=0
verify_server_certs=0
verify_server_cn=0
default_proxy=0
session_expires_enabled=1
session_expires_value=90
session_expires_min_value=90
session_expires_refresher_value=2

[net]
firewall_policy=no_firewall

[rtp]
nortp_timeout=3600

[video]
enabled=0
`

func linphones(s *scene, host int, transport, account string) *linphone {
	s.t.Helper()
	l := &linphone{s: s, transport: transport, ip: s.address(host, "linphone")}
	dir := s.t.TempDir()
	port := map[string]string{"udp": "sip_port=5060", "tcp": "sip_tcp_port=5060", "tls": "sip_tls_port=-1"}[transport]
	require.NoError(s.t, os.WriteFile(filepath.Join(dir, "rc"), fmt.Appendf(nil, linphoneConfig+account, l.ip, port), 0o600))
	require.NoError(s.t, os.MkdirAll(filepath.Join(dir, ".local/share/linphone"), 0o700))
	l.process = launch(s.t, dir, []string{"HOME=" + dir}, "linphonec", "-c", filepath.Join(dir, "rc"))
	l.hears("linphonec>")
	l.orders("soundcard use files")
	return l
}

// An account that registers by a proxy; it may have a route for its calls.
const linphoneAccount = `
[proxy_0]
reg_proxy=<%[1]s>
%[4]s
reg_identity=sip:%[2]s@%[3]s
reg_expires=600
reg_sendregister=1

[auth_info_0]
username=%[2]s
userid=%[2]s
passwd=%[2]s
realm=%[3]s
`

// linphoneCustomer starts a linphone with an account, and waits until it is registered.
func linphoneCustomer(s *scene, transport, user, domain string, proxy sip.Uri, route string) *linphone {
	s.t.Helper()
	l := linphones(s, peerHost, transport, fmt.Sprintf(linphoneAccount, proxy.String(), user, domain, route))
	for limit := time.Now().Add(soon); !strings.Contains(l.Said(), "registered, identity"); time.Sleep(200 * time.Millisecond) {
		require.True(s.t, time.Now().Before(limit), "not registered")
		l.orders("status register")
	}
	return l
}

// registering starts a linphone that registers with us: over TLS it takes no connections, and
// is called by its own.
func registering(s *scene) *linphone {
	s.t.Helper()
	us := s.stations[0]
	proxy := us.at("tls")
	proxy.User = ""
	bound, l := us.registers(), linphoneCustomer(s, "tls", "peer", us.ip, proxy, "")
	l.binding = <-bound
	_, data := s.got("REGISTER")
	results.shows(fault{"linphone", "Over TLS it takes no connections, whatever its Contact says: it is reached by the one of its REGISTER " +
		"(`InviteOpts.Flow`, and `NATAlways` inside a call).", excerpt(data, "Contact")})
	return l
}

// hears waits until the phone says something that it has not said before.
func (l *linphone) hears(text string) {
	l.s.t.Helper()
	l.read = l.says(l.read, text)
}

func (l *linphone) orders(command string) {
	l.s.t.Helper()
	l.s.note("linphone", command)
	l.types(command)
}

func (l *linphone) target() (sip.Uri, *dialog.Flow) {
	if l.binding.flow != nil {
		return l.binding.contact, l.binding.flow
	}
	return sip.Uri{Scheme: "sip", User: "peer", Host: l.ip, Port: portOf(l.transport), UriParams: over(l.transport)}, nil
}

func (l *linphone) address(to *station) string {
	uri := to.at(l.transport)
	return uri.String()
}

func (l *linphone) dial(to *station) { l.s.t.Helper(); l.call(l.address(to)) }
func (l *linphone) call(to string)   { l.s.t.Helper(); l.orders("call " + to) }
func (l *linphone) rings()           { l.s.t.Helper(); l.hears("Receiving new incoming call") }
func (l *linphone) refuse()          { l.s.t.Helper(); l.orders("terminate") }
func (l *linphone) hangup()          { l.s.t.Helper(); l.orders("terminate") }
func (l *linphone) hold()            { l.s.t.Helper(); l.orders("pause") }
func (l *linphone) press(key rune)   { l.s.t.Helper(); l.orders(string(key)) }
func (l *linphone) complete()        { l.s.t.Helper(); l.orders("transfer 1 --to-call 2") }

func (l *linphone) text(to *station, words string) {
	l.s.t.Helper()
	l.orders("chat " + l.address(to) + " " + words)
}

func (l *linphone) answer() {
	l.s.t.Helper()
	l.orders("answer")
	l.hears("connected")
}

func (l *linphone) resume() {
	l.s.t.Helper()
	l.hears("is now paused")
	l.orders("resume")
}

func (l *linphone) transfer(to *station) {
	l.s.t.Helper()
	l.hears("connected")
	l.orders("transfer " + l.address(to))
}

func (l *linphone) consult(to *station) {
	l.s.t.Helper()
	l.hold()
	l.hears("is now paused")
	l.dial(to)
}

func TestLinphone(t *testing.T) {
	if _, err := exec.LookPath("linphonec"); err != nil {
		results.misses("linphone", "it is not installed (Debian: linphone-cli)")
		t.Skip("linphonec is not installed")
	}
	results.meets("linphone", packaged("linphone-cli"))
	p := peer{name: "linphone", make: func(s *scene, host int, transport string) phone { return linphones(s, host, transport, "") }}
	p.tries(t, []string{"udp"}, features)
	p.tries(t, []string{"tcp"}, everywhere())
	p.make = func(s *scene, _ int, _ string) phone { return registering(s) }
	p.stack = func(config *dialog.StackConfig) { config.NAT = dialog.NATAlways }
	p.tries(t, []string{"tls"}, everywhere())
}
