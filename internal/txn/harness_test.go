package txn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
)

const (
	ourIP  = "10.0.0.1"
	peerIP = "10.0.0.2"
)

// recorder is a User and a ClientUser that writes down what it is told.
type recorder struct {
	// onRequest, unless nil, runs in Request.
	onRequest func(*Server)
	// onResponse, unless nil, runs in Response.
	onResponse func(*Client, *sipmsg.Message)

	mu      sync.Mutex // guards the fields below
	events  []string
	servers []*Server
}

func (r *recorder) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, fmt.Sprintf(format, args...))
}

// take returns what has been noted since the last call.
func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.events
	r.events = nil
	return out
}

func (r *recorder) lastServer() *Server {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.servers) == 0 {
		return nil
	}
	return r.servers[len(r.servers)-1]
}

func (r *recorder) Request(tx *Server) {
	r.mu.Lock()
	r.servers = append(r.servers, tx)
	r.mu.Unlock()
	r.note("request %s", tx.Request().Method)
	if r.onRequest != nil {
		r.onRequest(tx)
	}
}

func (r *recorder) Ack(*sipmsg.Message, *transport.Flow) { r.note("ack") }
func (r *recorder) Cancel(_ *Server, _ *sipmsg.Message)  { r.note("cancel") }
func (r *recorder) ServerFailed(_ *Server, err error)    { r.note("failed: %s", errName(err)) }
func (r *recorder) Done(_ *Client, err error)            { r.note("done: %s", errName(err)) }

func (r *recorder) Response(c *Client, res *sipmsg.Message) {
	r.note("response %d", res.Status)
	if r.onResponse != nil {
		r.onResponse(c, res)
	}
}

func errName(err error) string {
	for name, known := range map[string]error{
		"timeout": ErrTimeout, "transport": ErrTransport, "cancelled": ErrCancelled, "closed": ErrClosed,
	} {
		if errors.Is(err, known) {
			return name
		}
	}
	return fmt.Sprint(err)
}

// wire is the peer: scripted, on UDP or on one TCP connection.
type wire interface {
	send(text string)
	// drain returns what has come since the last call.
	drain() []sip.Message
	via() string // transport and sent-by for a Via
}

type udpWire struct {
	t  testing.TB
	ep *dialogtest.Endpoint
	to netip.AddrPort
}

func (w *udpWire) send(text string) { require.NoError(w.t, w.ep.Send(w.to, text)) }
func (w *udpWire) via() string      { return "UDP " + w.ep.Addr().String() }

func (w *udpWire) drain() []sip.Message {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	var out []sip.Message
	for {
		r, err := w.ep.Recv(now)
		if err != nil {
			require.ErrorIs(w.t, err, context.Canceled)
			return out
		}
		out = append(out, r.Message)
	}
}

// tcpWire reads messages without bodies from whichever connection is there.
type tcpWire struct {
	t  testing.TB
	mu sync.Mutex // guards the fields below

	conn net.Conn
	got  string
}

func (w *tcpWire) use(conn net.Conn) {
	w.mu.Lock()
	w.conn = conn
	w.mu.Unlock()
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			w.mu.Lock()
			w.got += string(buf[:n])
			w.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
}

func (w *tcpWire) current() net.Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.conn
}

func (w *tcpWire) send(text string) {
	_, err := io.WriteString(w.current(), text)
	require.NoError(w.t, err)
}

func (w *tcpWire) via() string { return "TCP " + peerIP + ":5060" }

func (w *tcpWire) drain() []sip.Message {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []sip.Message
	for {
		head, rest, ok := strings.Cut(w.got, "\r\n\r\n")
		if !ok {
			return out
		}
		if w.got = rest; head == "" { // a keep-alive
			continue
		}
		msg, err := sip.NewParser().ParseSIP([]byte(head + "\r\n\r\n"))
		require.NoError(w.t, err)
		out = append(out, msg)
	}
}

// names resolves every name to the same addresses.
type names []netip.Addr

func (n names) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) { return n, nil }

func (n names) LookupSRV(context.Context, string, string, string) (string, []*net.SRV, error) {
	return "", nil, nil
}

// peers are the addresses that a name leads to.
var peers = names{netip.MustParseAddr(peerIP), netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("10.0.0.4")}

// dials is our host, whose connections are counted, and wait at a gate if there is
// one.
type dials struct {
	*dialogtest.Host
	begun atomic.Int32
	gate  chan struct{}
}

func (d *dials) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network != "tcp" {
		return d.Host.DialContext(ctx, network, address)
	}
	d.begun.Add(1)
	if d.gate != nil {
		<-d.gate
	}
	return d.Host.DialContext(ctx, network, address)
}

// rig is one layer and a scripted peer on a network in memory.
type rig struct {
	t         testing.TB
	net       *dialogtest.Network
	dials     *dials
	transport *transport.Layer
	layer     *Layer
	user      *recorder
	udp       *udpWire
	tcp       *tcpWire
	wire      wire // one of the two
	client    *Client
	calls     int
	// writing, unless nil, is called with what is about to be written.
	writing func(data string)
}

// newRig must be called inside a bubble. network is "udp" or "tcp": what the
// peer speaks.
func newRig(t testing.TB, network string, configure ...func(*Config)) *rig {
	r := &rig{t: t, net: dialogtest.NewNetwork(), user: &recorder{}}
	r.dials = &dials{Host: r.net.Host(ourIP)}
	r.transport = transport.New(transport.Config{Network: r.dials, Resolver: peers, Trace: func(e transport.Event) {
		if r.writing != nil && e.Outbound {
			r.writing(string(e.Data))
		}
	}})
	cfg := Config{Transport: r.transport, User: r.user}
	for _, f := range configure {
		f(&cfg)
	}
	r.layer = New(cfg)
	for _, n := range []string{"udp", "tcp"} {
		_, err := r.transport.Listen(context.Background(), transport.ListenConfig{Transport: n, Address: ":5060"})
		require.NoError(t, err)
	}
	r.udp = r.listenUDP(peerIP)
	r.tcp = &tcpWire{t: t}
	r.wire = r.udp
	if network == "tcp" {
		r.wire = r.tcp
		r.listenTCP()
		r.dialTCP()
	}
	t.Cleanup(r.close)
	return r
}

func (r *rig) listenUDP(ip string) *udpWire {
	ep, err := dialogtest.NewEndpoint(r.net.Host(ip), ":5060")
	require.NoError(r.t, err)
	return &udpWire{t: r.t, ep: ep, to: netip.MustParseAddrPort(ourIP + ":5060")}
}

// listenTCP has the peer take connections; the latest is the one in use.
func (r *rig) listenTCP() { r.listenOn(peerIP, r.tcp) }

func (r *rig) listenOn(ip string, w *tcpWire) {
	l, err := r.net.Host(ip).Listen(context.Background(), "tcp", ":5060")
	require.NoError(r.t, err)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			w.use(conn)
		}
	}()
}

func (r *rig) dialTCP() {
	conn, err := r.net.Host(peerIP).DialContext(context.Background(), "tcp", ourIP+":5060")
	require.NoError(r.t, err)
	r.tcp.use(conn)
}

// close also checks that nothing is left.
func (r *rig) close() {
	r.layer.Close()
	require.Equal(r.t, Counts{}, r.layer.Running())
	require.Zero(r.t, r.layer.merging.len())
	require.Zero(r.t, r.layer.Held())
	require.NoError(r.t, r.transport.Close())
	r.net.Close()
}

// settle waits until all is done that needs no clock.
func (r *rig) settle() { synctest.Wait() }

// lines are the start lines of what has come to the peer, shortened: a method
// or a status.
func (r *rig) lines() []string {
	r.settle()
	var out []string
	for _, msg := range r.wire.drain() {
		out = append(out, short(msg))
	}
	return out
}

func short(msg sip.Message) string {
	if req, ok := msg.(*sip.Request); ok {
		return string(req.Method)
	}
	return strconv.Itoa(msg.(*sip.Response).StatusCode)
}

// messages are what has come to the peer.
func (r *rig) messages() []sip.Message {
	r.settle()
	return r.wire.drain()
}

// text is a request of the peer's.
func (r *rig) text(method, branch string, headers ...string) string {
	return r.textOf("call-1", method, branch, headers...)
}

func (r *rig) textOf(callID, method, branch string, headers ...string) string {
	return requestText(r.wire.via(), callID, method, branch, headers...)
}

func requestText(via, callID, method, branch string, headers ...string) string {
	lines := append([]string{
		method + " sip:us@" + ourIP + " SIP/2.0",
		"Via: SIP/2.0/" + via + ";branch=" + branch,
		"From: <sip:peer@" + peerIP + ">;tag=peer",
		"To: <sip:us@" + ourIP + ">",
		"Call-ID: " + callID,
		"CSeq: 1 " + method,
		"Content-Length: 0",
	}, headers...)
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// outgoingRequest is a request to the peer, as the layer above builds it.
func outgoingRequest(method sip.RequestMethod, callID string, seq uint32) *draft.Request {
	req := sip.NewRequest(method, sip.Uri{Scheme: "sip", User: "peer", Host: peerIP})
	from := &sip.FromHeader{Address: sip.Uri{Scheme: "sip", User: "us", Host: ourIP}}
	from.Params.Add("tag", "us")
	id := sip.CallIDHeader(callID)
	req.AppendHeader(from)
	req.AppendHeader(&sip.ToHeader{Address: req.Recipient})
	req.AppendHeader(&id)
	req.AppendHeader(&sip.CSeqHeader{SeqNo: seq, MethodName: method})
	return draft.Of(req)
}

// sent is the latest request of the client, or nil.
func sent(t testing.TB, c *Client) *sip.Request {
	t.Helper()
	text := c.Sent()
	if text == nil {
		return nil
	}
	m, err := sipmsg.Parse(text)
	require.NoError(t, err)
	return m.Request()
}

func (r *rig) nextHop() sip.Uri {
	uri := sip.Uri{Scheme: "sip", Host: peerIP, Port: 5060}
	if r.wire == wire(r.tcp) {
		uri.UriParams = sip.HeaderParams{{K: "transport", V: "tcp"}}
	}
	return uri
}

// request sends a request of ours and drains it at the peer.
func (r *rig) request(method sip.RequestMethod) *sip.Request {
	r.calls++
	c, err := r.layer.Request(context.Background(), outgoingRequest(method, "call-"+strconv.Itoa(r.calls), 1),
		RequestOptions{NextHop: r.nextHop()}, r.user)
	require.NoError(r.t, err)
	r.client = c
	got := r.messages()
	require.Len(r.t, got, 1)
	return got[0].(*sip.Request)
}

// answer has the peer respond to a request of ours.
func (r *rig) answer(req *sip.Request, code int, toTag string) { answerOn(r.wire, req, code, toTag) }

func answerOn(w wire, req *sip.Request, code int, toTag string) {
	to := req.To().Value()
	if toTag != "" && code > 100 {
		to += ";tag=" + toTag
	}
	w.send(strings.Join([]string{
		fmt.Sprintf("SIP/2.0 %d Scripted", code),
		"Via: " + req.Via().Value(),
		"From: " + req.From().Value(),
		"To: " + to,
		"Call-ID: " + req.CallID().Value(),
		"CSeq: " + req.CSeq().Value(),
		"Content-Length: 0",
	}, "\r\n") + "\r\n\r\n")
}

// bubble runs a test in a synctest bubble with a rig for each transport.
func bubble(t *testing.T, networks []string, f func(t *testing.T, r *rig)) {
	t.Helper()
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, newRig(t, network)) })
		})
	}
}

// bubbleWith is bubble on UDP with a configuration of its own.
func bubbleWith(t *testing.T, configure func(*Config), f func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newRig(t, "udp", configure)) })
}

var both = []string{"udp", "tcp"}

// t1 is the default T1.
const t1 = 500 * time.Millisecond
