package nat

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/testcert"
)

// soon bounds the waits.
const soon = 10 * time.Second

// ports has the server's ports.
var ports = map[string]int{"udp": 5060, "tcp": 5060, "tls": 5061, "ws": 8080, "wss": 8443}

// station is a stack on a machine, and its incoming calls.
type station struct {
	*dialog.Stack
	t     *testing.T
	calls chan *dialog.Dialog
}

func start(t *testing.T, n *namespace, config *dialog.StackConfig) *station {
	t.Helper()
	config.Network = n
	if *traced {
		config.Trace = func(e dialog.TraceEvent) { trace(t.Name(), config.From != nil, e) }
	}
	stack, err := dialog.NewStack(config)
	require.NoError(t, err)
	s := &station{Stack: stack, t: t, calls: make(chan *dialog.Dialog, 10)}
	stack.OnIncomingDialog(func(d dialog.IDialog) { s.calls <- d.(*dialog.Dialog) })
	require.NoError(t, stack.Start(context.Background()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		_ = stack.Shutdown(ctx)
	})
	return s
}

// trace prints the first line of a message.
func trace(test string, phone bool, e dialog.TraceEvent) {
	who, way := "server", "<"
	if phone {
		who = "phone"
	}
	if e.Outbound {
		way = ">"
	}
	line, _, _ := strings.Cut(string(e.Data), "\r\n")
	fmt.Println(e.Time.Format("05.000"), test, who, e.Local, way, e.Remote, e.Transport, line)
}

// called waits for an incoming call.
func (s *station) called() *dialog.Dialog {
	s.t.Helper()
	select {
	case d := <-s.calls:
		return d
	case <-time.After(soon):
		require.FailNow(s.t, "nobody calls")
		return nil
	}
}

// server is a registrar that calls registered users.
type server struct {
	*station
	client *tls.Config // of a client that trusts it

	mu       sync.Mutex // guards the field below
	bindings map[string]binding
}

// binding is the Contact and the flow of a registered user.
type binding struct {
	contact sip.Uri
	flow    *dialog.Flow
}

func (w *world) serve(change ...func(*dialog.StackConfig)) *server {
	w.t.Helper()
	ca := testcert.New(w.t)
	config := &dialog.StackConfig{}
	for _, name := range transports {
		listener := dialog.TransportConfig{Protocol: name, Address: serverIP, Port: ports[name]}
		if name == "tls" || name == "wss" {
			listener.TLSConfig = ca.Server(serverIP)
		}
		config.Listeners = append(config.Listeners, listener)
	}
	config.Transport, config.Listeners = &config.Listeners[0], config.Listeners[1:]
	for _, f := range change {
		f(config)
	}
	s := &server{station: start(w.t, w.server, config), client: ca.Client(), bindings: make(map[string]binding)}
	require.NoError(w.t, s.OnRequest("REGISTER", s.register))
	return s
}

// register accepts a registration.
func (s *server) register(ctx context.Context, req *sip.Request) dialog.Answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bindings[req.To().Address.User] = binding{*req.Contact().Address.Clone(), dialog.FlowFrom(ctx)}
	return dialog.Answer{}
}

// calls lets the server call a phone on the flow of its registration. The phone answers
// after the time ringing.
func (s *server) calls(p *phone, ringing time.Duration) *call {
	s.t.Helper()
	s.mu.Lock()
	b := s.bindings[p.name]
	s.mu.Unlock()
	return ring(s.station, p.station, b.contact, dialog.InviteOpts{Flow: b.flow}, ringing).call(false)
}

// phone is a phone behind a router that has registered over a transport.
type phone struct {
	*station
	*router
	name, transport string
	server          *server
}

// phone starts a phone behind the router and registers it.
func (s *server) phone(r *router, name, transport string, change ...func(*dialog.StackConfig)) *phone {
	s.t.Helper()
	config := &dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: "0.0.0.0", Port: 5060},
		TLS:       s.client,
		From:      &dialog.Address{URI: sip.Uri{Scheme: "sip", User: name}},
	}
	if transport == "tcp" {
		config.Transport.Protocol = transport
	}
	for _, f := range change {
		f(config)
	}
	p := &phone{station: start(s.t, r.inside, config), router: r, name: name, transport: transport, server: s}
	p.register()
	return p
}

// to returns the URI of a user at the server.
func (p *phone) to(user string) sip.Uri {
	uri := sip.Uri{Scheme: "sip", User: user, Host: serverIP, Port: ports[p.transport]}
	if p.transport == "tls" || p.transport == "wss" {
		uri.Scheme = "sips"
	}
	uri.UriParams = sip.HeaderParams{{K: "transport", V: p.transport}}
	return uri
}

func (p *phone) register() {
	p.station.t.Helper()
	req := sip.NewRequest(sip.REGISTER, p.to(""))
	from := p.to(p.name)
	req.AppendHeader(&sip.FromHeader{Address: from, Params: sip.NewParams()})
	req.AppendHeader(&sip.ContactHeader{Address: sip.Uri{Scheme: "sip", User: p.name}})
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	res, err := p.Do(ctx, req)
	require.NoError(p.station.t, err)
	require.Equal(p.station.t, 200, res.StatusCode, res.String())
}
