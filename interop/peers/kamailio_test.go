//go:build interop && linux

package peers

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/kamailio"
)

// proxy is a Kamailio that is a registrar with digest, and a proxy that stays in calls and
// forks. The password of each user is the user's name.
type proxy struct {
	*kamailio.Server
	s  *scene
	ip string
}

// proxy starts a Kamailio.
func (s *scene) proxy() *proxy {
	s.t.Helper()
	k, dir := &proxy{s: s, ip: s.address(proxyHost, "kamailio")}, s.t.TempDir()
	s.authority().Write(dir, k.ip)
	s.try("starting Kamailio", func(ctx context.Context) (err error) {
		k.Server, err = kamailio.Start(ctx, kamailio.Config{
			Text: kamailio.Registrar(k.ip, dir, kamailio.Digest), Dir: dir,
			Answers: kamailio.Handshake(k.ip, s.authority().Client(), new(net.Dialer).DialContext),
		})
		return err
	})
	k.EndsWith(s.t)
	return k
}

// restart kills the proxy and starts it anew.
func (k *proxy) restart() {
	k.s.t.Helper()
	k.s.note("kamailio", "killed")
	k.s.try("starting Kamailio", k.Restart)
	k.s.note("kamailio", "started")
}

// uri is the proxy, or a user's address of record, over a transport.
func (k *proxy) uri(user, transport string) sip.Uri {
	return sip.Uri{Scheme: "sip", User: user, Host: k.ip, Port: kamailio.Port(transport), UriParams: over(transport)}
}

// record is the address of record of a user.
func (k *proxy) record(user string) sip.Uri { return sip.Uri{Scheme: "sip", User: user, Host: k.ip} }

// customer returns what makes a station a customer of the proxy, over a transport.
func (k *proxy) customer(user, transport string) func(*dialog.StackConfig) {
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
	if !kamailio.Installed() {
		results.misses("Kamailio", "it is not installed (Debian: "+kamailio.Packages+")")
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
