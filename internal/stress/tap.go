package stress

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"sipdialog.example/dialog/dialogtest"
)

// socketTap is the network of one stack: a host whose sockets note every
// message that passes, and fail when the test says so. It knows nothing of the
// package under test.
type socketTap struct {
	// Set at construction.

	host  *dialogtest.Host
	cover *coverage
	// opaque is true when the messages are in frames or encrypted, and not to
	// be read here: the stack's own Trace notes them.
	opaque bool

	mu     sync.Mutex // guards the fields below
	log    []passed
	broken int // how many writes will fail
	opened []net.PacketConn
	losses []time.Time // when a stream was lost
	// closing is when the owner began to close its sockets.
	closing time.Time
}

// passed is one message that a socket read or wrote.
type passed struct {
	line
	at     time.Time
	out    bool
	failed bool // the write gave an error
	peer   string
	conn   string // of a stream
}

var errInjected = errors.New("injected socket failure")

func (s *socketTap) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	conn, err := s.host.ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened = append(s.opened, conn)
	return &packetTap{conn, s}, nil
}

func (s *socketTap) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	l, err := s.host.Listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &listenerTap{l, s}, nil
}

func (s *socketTap) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := s.host.DialContext(ctx, network, address)
	if err != nil || network == "udp" {
		return conn, err
	}
	return &streamTap{Conn: conn, tap: s}, nil
}

// breakWrites makes the next n writes fail.
func (s *socketTap) breakWrites(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken += n
}

// loseSockets closes the datagram sockets behind their owner's back.
func (s *socketTap) loseSockets() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.opened {
		_ = conn.Close()
	}
}

func (s *socketTap) note(data []byte, out, failed bool, peer net.Addr, conn string) {
	l, ok := readLine(data)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, passed{line: l, at: time.Now(), out: out, failed: failed, peer: hostOf(peer), conn: conn})
}

// fails reports whether this write shall fail.
func (s *socketTap) fails() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == 0 {
		return false
	}
	s.broken--
	return true
}

func (s *socketTap) lost() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.losses = append(s.losses, time.Now())
}

// lostBetween reports whether a stream was lost in that time. It ends the
// requests that wait on it (RFC 3261 17.1.4, 18.4).
func (s *socketTap) lostBetween(from, to time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.losses, func(at time.Time) bool { return !at.Before(from) && !at.After(to) })
}

func (s *socketTap) closes() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.IsZero() {
		s.closing = time.Now()
	}
}

func (s *socketTap) closedBy(at time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.closing.IsZero() && !at.Before(s.closing)
}

func (s *socketTap) messages() []passed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]passed(nil), s.log...)
}

func hostOf(addr net.Addr) string {
	at, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return ""
	}
	return at.Addr().String()
}

type packetTap struct {
	net.PacketConn
	tap *socketTap
}

func (p *packetTap) ReadFrom(buf []byte) (int, net.Addr, error) {
	n, from, err := p.PacketConn.ReadFrom(buf)
	if err == nil {
		p.tap.note(buf[:n], false, false, from, "")
	}
	return n, from, err
}

// WriteTo notes first: the answer may be here before the write returns.
func (p *packetTap) WriteTo(data []byte, to net.Addr) (int, error) {
	if p.tap.fails() {
		p.tap.cover.hit("fault: write error")
		p.tap.note(data, true, true, to, "")
		return 0, errInjected
	}
	p.tap.note(data, true, false, to, "")
	n, err := p.PacketConn.WriteTo(data, to)
	if err != nil {
		p.tap.note(data, true, true, to, "")
	}
	return n, err
}

func (p *packetTap) Close() error {
	p.tap.closes()
	return p.PacketConn.Close()
}

type listenerTap struct {
	net.Listener
	tap *socketTap
}

func (l *listenerTap) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &streamTap{Conn: conn, tap: l.tap}, nil
}

func (l *listenerTap) Close() error {
	l.tap.closes()
	return l.Listener.Close()
}

// streamTap cuts what one reader and one writer pass into messages.
type streamTap struct {
	net.Conn
	tap     *socketTap
	in, out []byte
}

func (s *streamTap) Read(buf []byte) (int, error) {
	n, err := s.Conn.Read(buf)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		s.tap.lost()
	}
	s.in = append(s.in, buf[:n]...)
	s.cut(&s.in, false, false)
	return n, err
}

// Close also notes the connections that the peer has ended in good order.
func (s *streamTap) Close() error {
	s.tap.lost()
	return s.Conn.Close()
}

func (s *streamTap) Write(data []byte) (int, error) {
	s.out = append(s.out, data...)
	s.cut(&s.out, true, false)
	n, err := s.write(data)
	if err != nil {
		s.tap.lost()
		s.out = append(s.out, data...)
		s.cut(&s.out, true, true)
	}
	return n, err
}

func (s *streamTap) write(data []byte) (int, error) {
	if s.tap.fails() {
		s.tap.cover.hit("fault: write error on a stream")
		return 0, errInjected
	}
	return s.Conn.Write(data)
}

func (s *streamTap) cut(buf *[]byte, out, failed bool) {
	if s.tap.opaque {
		*buf = nil
		return
	}
	for {
		*buf = bytes.TrimLeft(*buf, "\r\n")
		head := bytes.Index(*buf, []byte("\r\n\r\n"))
		if head < 0 {
			return
		}
		size := head + 4
		for _, l := range strings.Split(string((*buf)[:head]), "\r\n") {
			if name, value, _ := strings.Cut(l, ":"); strings.EqualFold(name, "Content-Length") {
				n, _ := strconv.Atoi(strings.TrimSpace(value))
				size += n
			}
		}
		if len(*buf) < size {
			return
		}
		s.tap.note((*buf)[:size], out, failed, s.RemoteAddr(), s.LocalAddr().String()+s.RemoteAddr().String())
		*buf = (*buf)[size:]
	}
}

// line is what the checks need of a message.
type line struct {
	request               bool
	method                string // of the request, or the one in CSeq
	code                  int
	callID, fromTag, toTg string
	branch                string // with the Via's sent-by
	seq                   uint32
	subscription          string
	rseq, rack            uint32
	hasBody               bool
}

// readLine reads the parts of a message that a line holds. It is not a full parser: the
// checks ignore the rest.
func readLine(data []byte) (line, bool) {
	head, body, ok := strings.Cut(string(data), "\r\n\r\n")
	if !ok {
		return line{}, false
	}
	lines := strings.Split(head, "\r\n")
	l := line{hasBody: body != ""}
	first := strings.SplitN(lines[0], " ", 3)
	if len(first) < 3 {
		return line{}, false
	}
	if l.request = first[0] != "SIP/2.0"; !l.request {
		l.code, _ = strconv.Atoi(first[1])
	}
	vias, cseqMethod := 0, ""
	for _, text := range lines[1:] {
		name, value, _ := strings.Cut(text, ":")
		value = strings.TrimSpace(value)
		switch name {
		case "Via":
			vias++
			l.branch = sentBy(value)
		case "From":
			l.fromTag = paramOf(value, "tag")
		case "To":
			l.toTg = paramOf(value, "tag")
		case "Call-ID":
			l.callID = value
		case "CSeq":
			number, method, _ := strings.Cut(value, " ")
			n, _ := strconv.ParseUint(number, 10, 32)
			l.seq, cseqMethod = uint32(n), method
		case "RSeq":
			l.rseq = rackNumber(value)
		case "RAck":
			l.rack = rackNumber(value)
		case "Subscription-State":
			l.subscription = value
		}
	}
	l.method = cseqMethod
	return l, vias == 1 && l.callID != "" && cseqMethod != "" && l.branch != "" && (!l.request || first[0] == cseqMethod)
}

// sentBy is what identifies a transaction: sent-by and branch.
func sentBy(via string) string {
	_, host, _ := strings.Cut(via, " ")
	host, _, _ = strings.Cut(host, ";")
	branch := paramOf(via, "branch")
	if branch == "" {
		return ""
	}
	return host + " " + branch
}

func paramOf(value, name string) string {
	_, rest, found := strings.Cut(value, ";"+name+"=")
	if !found {
		return ""
	}
	rest, _, _ = strings.Cut(rest, ";")
	return rest
}

func (l line) String() string {
	if l.request {
		return l.method + " " + strconv.Itoa(int(l.seq))
	}
	return strconv.Itoa(l.code) + " " + l.method + " " + strconv.Itoa(int(l.seq))
}
