package test

import (
	"context"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testcert"
	"sipdialog.example/dialog/internal/testkit"
)

// portOf is the usual port of a transport.
func portOf(transport string) int {
	switch transport {
	case "tls":
		return 5061
	case "ws":
		return 80
	case "wss":
		return 443
	}
	return 5060
}

func hostPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// counted is a host whose connections are counted.
type counted struct {
	*dialogtest.Host

	mu                 sync.Mutex // guards the fields below
	dialled, accepting int
}

func (c *counted) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := c.Host.DialContext(ctx, network, address)
	if err == nil && network == "tcp" {
		c.mu.Lock()
		c.dialled++
		c.mu.Unlock()
	}
	return conn, err
}

func (c *counted) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	listener, err := c.Host.Listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &countedListener{listener, c}, nil
}

type countedListener struct {
	net.Listener
	host *counted
}

func (l *countedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.host.mu.Lock()
		l.host.accepting++
		l.host.mu.Unlock()
	}
	return conn, err
}

// connections returns how many were dialled and accepted so far.
func (c *counted) connections() (dialled, accepted int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dialled, c.accepting
}

// site is a stack on one transport, with all the SIP messages that it reads and
// writes, whatever they look like on the wire.
type site struct {
	*dialog.Stack
	host      *counted
	transport string

	mu  sync.Mutex // guards the field below
	log []traced
}

// traced is a message that a stack has read or written.
type traced struct {
	dialog.TraceEvent
	msg sip.Message
}

// site starts a stack on a host of its own, at the transport's usual port.
func (w *world) site(ip, transport string, ca *testcert.Authority, change ...func(*dialog.StackConfig)) *site {
	w.t.Helper()
	s := &site{host: &counted{Host: w.net.Host(ip)}, transport: transport}
	s.Stack = w.stack(ip, func(c *dialog.StackConfig) {
		c.Network, c.Trace = s.host, s.trace
		c.Transport.Protocol, c.Transport.Port = transport, portOf(transport)
		if testkit.IsSecure(transport) {
			c.Transport.TLSConfig, c.TLS = ca.Server(ip), ca.Client()
		}
		for _, f := range change {
			f(c)
		}
	})
	return s
}

func (s *site) trace(e dialog.TraceEvent) {
	e.Data = slices.Clone(e.Data)
	msg, err := sip.ParseMessage(e.Data)
	if err != nil {
		panic(err) // counted, and missed by whoever looks for the message
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, traced{e, msg})
}

func (s *site) uri(user string) sip.Uri { return testkit.URIOver(s.transport, user, s.Addr()) }

// messages returns what was written, or read, and matches; "" is all.
func (s *site) messages(outbound bool, what string) []traced {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []traced
	for _, m := range s.log {
		if m.Outbound == outbound && (what == "" || describe(m.msg) == what) {
			list = append(list, m)
		}
	}
	return list
}

// requests are those inside the dialog.
func (s *site) requests(outbound bool) []traced {
	return slices.DeleteFunc(s.messages(outbound, ""), func(m traced) bool {
		req, ok := m.msg.(*sip.Request)
		return !ok || testkit.ToTag(req) == ""
	})
}

// contact is what a message of the site's says, on the wire.
func (s *site) contact(t *testing.T, what string) string {
	t.Helper()
	list := s.messages(true, what)
	require.NotEmpty(t, list, what)
	return contactOf(list[0].msg)
}

// values are a header's values.
func values(msg sip.Message, name string) []string {
	var list []string
	for _, h := range msg.GetHeaders(name) {
		list = append(list, h.Value())
	}
	return list
}

// takes makes a stack answer calls; they come out of the channel.
func (s *site) takes(t *testing.T) <-chan *dialog.Dialog {
	calls := make(chan *dialog.Dialog, 10)
	s.OnIncomingDialog(func(d dialog.IDialog) {
		if err := d.Accept(context.Background(), withSDP(answerSDP)); err != nil {
			t.Errorf("accept: %v", err)
		}
		calls <- d.(*dialog.Dialog)
	})
	return calls
}

// follows makes a stack obey REFERs with nothing but the NOTIFY of success.
func (s *site) follows(t *testing.T) {
	s.OnIncomingRefer(func(d dialog.IDialog, _ sip.Uri, _ *dialog.ReplacesInfo) {
		for _, r := range d.(*dialog.Dialog).GetAllReferSubscriptions() {
			if err := r.SendNotify(context.Background(), 200, "OK"); err != nil {
				t.Errorf("notify: %v", err)
			}
		}
	})
}

// call makes an established call.
func (s *site) call(t *testing.T, target sip.Uri, incoming <-chan *dialog.Dialog, route ...sip.Uri) (caller, callee *dialog.Dialog) {
	t.Helper()
	opts := offer(offerSDP)
	opts.Route = route
	d, err := s.NewInvite(context.Background(), target, opts)
	require.NoError(t, err)
	require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
	return d.(*dialog.Dialog), <-incoming
}
