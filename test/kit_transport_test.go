package test

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/testcert"
	"sipdialog.example/dialog/internal/testkit"
	"sipdialog.example/dialog/internal/transport"
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
		if m.Outbound == outbound && (what == "" || testkit.Describe(m.msg) == what) {
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

// element is a SIP element without any transactions, on every transport: what
// arrives waits to be read, in order.
type element struct {
	// Set at construction.

	t         *testing.T
	host      *dialogtest.Host
	layer     *transport.Layer
	transport string
	addr      netip.AddrPort
	arrivals  chan passing
}

// passing is a message that has come, and by which way.
type passing struct {
	msg  sip.Message
	flow *transport.Flow
}

// element listens on a host of its own, with the transport's usual port.
func (w *world) element(ip, name string, server, client *tls.Config) *element {
	w.t.Helper()
	e := &element{
		t: w.t, host: w.net.Host(ip), transport: name, arrivals: make(chan passing, 1000),
	}
	e.layer = transport.New(transport.Config{Network: e.host, TLS: client})
	e.layer.Handle(func(m *sipmsg.Message, flow *transport.Flow) { e.arrivals <- passing{m.SIP(), flow} })
	addr, err := e.layer.Listen(context.Background(), transport.ListenConfig{
		Transport: name, Address: hostPort(ip, portOf(name)), TLS: server,
	})
	require.NoError(w.t, err)
	e.addr = addr
	w.t.Cleanup(func() { _ = e.layer.Close() })
	return e
}

// next returns the next message that is what the test expects, skipping others.
func (e *element) next(what string) passing {
	e.t.Helper()
	for {
		select {
		case got := <-e.arrivals:
			if testkit.Describe(got.msg) == what {
				return got
			}
		case <-time.After(2 * time.Minute):
			require.FailNow(e.t, "nothing came", what)
		}
	}
}

// reply answers a request by the way it came.
func (e *element) reply(in passing, code int, body string, headers ...sip.Header) {
	e.t.Helper()
	req := in.msg.(*sip.Request)
	res := sip.NewResponseFromRequest(req, code, "Scripted", []byte(body))
	if res.To().Params == nil {
		res.To().Params = sip.NewParams()
	}
	if !res.To().Params.Has("tag") && code > 100 {
		res.To().Params.Add("tag", farTag)
	}
	if body != "" {
		res.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	}
	res.AppendHeader(&sip.ContactHeader{Address: e.uri("far"), Params: sip.NewParams()})
	for _, h := range headers {
		res.AppendHeader(h)
	}
	require.NoError(e.t, e.layer.Reply(in.flow, sipmsg.Of(req)).Send(encode(res)))
}

// uri leads to the element.
func (e *element) uri(user string) sip.Uri { return testkit.URIOver(e.transport, user, e.addr) }

// hop is a stateless proxy (RFC 3261 16.11) that stays in the way of every call
// that begins through it (16.6, 16.12).
type hop struct {
	*element
	stop func()

	mu sync.Mutex // guards the fields below
	// ways are the flows that requests came by: by their branch, for the
	// responses, and by the user part of our Record-Route, for the requests of the
	// other side to a peer that accepts no connections (RFC 5626 5.3).
	ways map[string]*transport.Flow
}

// hop starts a proxy that speaks one transport.
func (w *world) hop(ip, name string, server, client *tls.Config) *hop {
	w.t.Helper()
	h := &hop{element: w.element(ip, name, server, client), ways: make(map[string]*transport.Flow)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case got := <-h.arrivals:
				h.forward(ctx, got)
			case <-ctx.Done():
				return
			}
		}
	}()
	h.stop = sync.OnceFunc(func() { cancel(); <-ended; _ = h.layer.Close() })
	w.t.Cleanup(h.stop)
	return h
}

func (h *hop) forward(ctx context.Context, got passing) {
	var err error
	switch msg := got.msg.(type) {
	case *sip.Request:
		err = h.request(ctx, msg, got.flow)
	case *sip.Response:
		err = h.response(msg)
	}
	if err != nil && ctx.Err() == nil {
		h.t.Logf("hop: %s: %v", testkit.Describe(got.msg), err)
	}
}

// route is the proxy's own place in a route set. The token, if any, names the
// way to whoever sent the INVITE.
func (h *hop) route(token string) sip.Uri {
	uri := h.uri(token)
	uri.UriParams.Add("lr", "")
	return uri
}

// request forwards by the routes behind our own, else by the Request-URI.
func (h *hop) request(ctx context.Context, req *sip.Request, from *transport.Flow) error {
	branch := testkit.BranchOf(req)
	branch = "z9hG4bK-hop-" + strings.TrimPrefix(branch, "z9hG4bK") // the same for a repetition (16.11)
	token := ""
	if strings.HasPrefix(h.transport, "ws") {
		token = tokenOf(from.RemoteAddr())
	}
	to := h.keep(branch, token, ownToken(req, h.addr), from)
	if limit := req.MaxForwards(); limit != nil {
		limit.Dec()
	}
	if req.Method == sip.INVITE {
		req.PrependHeader(&sip.RecordRouteHeader{Address: h.route(token)})
	}
	if to == nil {
		next := req.Recipient
		if routes := req.GetHeaders("Route"); len(routes) > 0 {
			next = routes[0].(*sip.RouteHeader).Address
		}
		targets, err := h.layer.Resolve(ctx, next)
		if err != nil {
			return err
		}
		if to, err = h.layer.Connect(ctx, targets[0]); err != nil {
			return err
		}
	}
	local := to.Local()
	via := &sip.ViaHeader{
		ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: local.Transport, Host: testkit.Bracketed(local.Host), Port: local.Port,
		Params: sip.HeaderParams{{K: "branch", V: branch}},
	}
	req.PrependHeader(via)
	return to.Send(encode(req))
}

// keep remembers where a request came from, and returns the way that the token
// of its Route stands for, unless it came by that.
func (h *hop) keep(branch, token, asked string, from *transport.Flow) *transport.Flow {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ways[branch] = from
	if token == "" {
		return nil
	}
	h.ways[token] = from
	if to := h.ways[asked]; !to.Same(from) {
		return to
	}
	return nil
}

// tokenOf makes the user part of a URI of an address.
func tokenOf(addr netip.AddrPort) string {
	return strings.NewReplacer(":", "-", "[", "", "]", "").Replace(addr.String())
}

// ownToken takes the topmost Route off when it is ours.
func ownToken(req *sip.Request, own netip.AddrPort) string {
	routes := req.GetHeaders("Route")
	if len(routes) == 0 {
		return ""
	}
	first := routes[0].(*sip.RouteHeader).Address
	if strings.Trim(first.Host, "[]") != own.Addr().String() {
		return ""
	}
	req.RemoveHeader("Route")
	return first.User
}

// response goes back by the Via below ours.
func (h *hop) response(res *sip.Response) error {
	branch := testkit.BranchOf(res)
	res.RemoveHeader("Via")
	h.mu.Lock()
	to := h.ways[branch]
	h.mu.Unlock()
	if to == nil || res.Via() == nil {
		return nil // not ours
	}
	via, err := sipmsg.ParseVia(res.Via().Value())
	if err != nil {
		return err
	}
	return h.layer.Reply(to, &sipmsg.Message{Via: via.SentBy}).Send(encode(res))
}

func encode(msg sip.Message) []byte { return transport.Encode(msg) }
