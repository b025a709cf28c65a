package dialogtest

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Defaults of the bounds of a [Network].
const (
	// DefaultWindow is the number of bytes that one direction of a stream buffers.
	DefaultWindow = 64 << 10
	// DefaultQueue is the number of datagrams that one socket queues.
	DefaultQueue = 4096
	// DefaultBacklog is the number of connections that one listener queues for Accept.
	DefaultBacklog = 1024
)

// Packet is one datagram, or one Write on a stream.
type Packet struct {
	// Time is the time of sending.
	Time time.Time
	// Transport is "udp" or "tcp".
	Transport string
	From, To  netip.AddrPort
	// Data is shared with the network: it may be kept, but not changed.
	Data []byte
}

// Stats counts the datagrams of a network. A repeated datagram arrives several times,
// so the other numbers need not add up to Sent.
type Stats struct {
	Sent      int // written by a socket, or injected
	Lost      int // lost by the policy
	Delivered int // put on a socket's queue
	Unclaimed int // no socket was bound to the address, or its host was unreachable
	Overflow  int // the socket's queue was full
}

// Network connects hosts in memory. It is made by [NewNetwork].
type Network struct {
	// Window, Queue and Backlog replace the defaults above. Set them before the
	// first socket is opened.
	Window, Queue, Backlog int
	// Unspecified affects sockets that are bound to no address, or to an unspecified
	// one. If true, they report the unspecified address, as an operating system does;
	// else they report the host's own.
	Unspecified bool

	done chan struct{} // closed by Close
	// gateway is the NAT in front of this network; nil without one. It is set before
	// the first host is made.
	gateway   *NAT
	directory *directory // shared with the networks behind routers

	mu        sync.Mutex // guards the fields below
	closed    bool
	hosts     map[netip.Addr]*Host
	ports     map[binding]struct{}
	sockets   map[netip.AddrPort]*packetConn
	listeners map[netip.AddrPort]*listener
	streams   map[*stream]struct{}
	routers   map[netip.Addr]*NAT // by public address
	arrivals  arrivals
	policy    func(Packet) []time.Duration
	delay     func(Packet) time.Duration // of streams
	taps      []func(Packet)
	stats     Stats
}

// NewNetwork returns a network without hosts. Inside a testing/synctest bubble
// it belongs to the bubble.
func NewNetwork() *Network {
	return &Network{
		Window:    DefaultWindow,
		Queue:     DefaultQueue,
		Backlog:   DefaultBacklog,
		done:      make(chan struct{}),
		hosts:     make(map[netip.Addr]*Host),
		ports:     make(map[binding]struct{}),
		sockets:   make(map[netip.AddrPort]*packetConn),
		listeners: make(map[netip.AddrPort]*listener),
		streams:   make(map[*stream]struct{}),
		directory: newDirectory(),
		routers:   make(map[netip.Addr]*NAT),
	}
}

// Host returns the host with this IPv4 or IPv6 address, and makes it at the
// first call. It panics when ip is not an IP address.
func (n *Network) Host(ip string) *Host {
	addr := netip.MustParseAddr(ip).Unmap()
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[addr]
	if h == nil {
		h = &Host{network: n, ip: addr, ephemeral: firstEphemeral}
		n.hosts[addr] = h
	}
	return h
}

// SetPolicy sets the policy for datagrams sent from now on. The policy returns the
// delays after which copies of a datagram arrive; without a delay the datagram is lost.
// A nil policy, the default, delivers each datagram once, at once and in order. Equal
// delays keep the order of sending. The policy runs on the sender's goroutine with no
// lock held, possibly for several senders at once.
func (n *Network) SetPolicy(policy func(Packet) []time.Duration) {
	n.mu.Lock()
	n.policy = policy
	n.mu.Unlock()
}

// SetStreamPolicy sets the policy for writes on streams from now on. The policy returns
// the delay of a write; a write never overtakes earlier ones on its connection. The
// policy also returns the delay of an attempt to connect, which is a Packet without data.
// A nil policy, the default, delivers at once. The policy runs like that of
// [Network.SetPolicy].
func (n *Network) SetStreamPolicy(policy func(Packet) time.Duration) {
	n.mu.Lock()
	n.delay = policy
	n.mu.Unlock()
}

// streamDelay asks the policy of streams.
func (n *Network) streamDelay(from, to netip.AddrPort, data []byte) time.Duration {
	n.mu.Lock()
	policy := n.delay
	n.mu.Unlock()
	if policy == nil {
		return 0
	}
	return policy(Packet{Time: time.Now(), Transport: "tcp", From: from, To: to, Data: data})
}

// Tap adds a function that sees each datagram when it is sent, lost ones included,
// and each Write on a stream. It runs on the sender's goroutine before the data is
// delivered, with no lock held, possibly for several senders at once. It does not see a
// write that fails because a host is unreachable.
func (n *Network) Tap(tap func(Packet)) {
	n.mu.Lock()
	n.taps = append(slices.Clip(n.taps), tap)
	n.mu.Unlock()
}

// Inject delivers a datagram with any source address, which need not exist. Taps see
// the datagram. The policy does not apply: the datagram arrives once and at once.
func (n *Network) Inject(from, to netip.AddrPort, data []byte) {
	p := Packet{Time: time.Now(), Transport: "udp", From: from, To: to, Data: slices.Clone(data)}
	n.tap(p)
	n.mu.Lock()
	n.stats.Sent++
	forward := n.arriveLocked(p)
	n.mu.Unlock()
	forward.run()
}

// BreakStreams resets every connection: data that was not yet read is lost, and reads
// and writes at both ends fail with syscall.ECONNRESET.
func (n *Network) BreakStreams() {
	n.eachStream(func(*stream) bool { return true }, (*stream).reset)
	n.mu.Lock()
	routers := values(n.routers)
	n.mu.Unlock()
	for _, r := range routers {
		r.inner.BreakStreams()
	}
}

// Stats returns the counters.
func (n *Network) Stats() Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stats
}

// Close closes all sockets and listeners, resets all connections and drops the
// datagrams in transit. Later calls on hosts fail with net.ErrClosed. It does not block
// and may be called again.
func (n *Network) Close() {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return
	}
	n.closed = true
	close(n.done)
	n.arrivals.stop()
	sockets, listeners, routers := values(n.sockets), values(n.listeners), values(n.routers)
	n.mu.Unlock()

	for _, s := range sockets {
		_ = s.Close()
	}
	for _, l := range listeners {
		_ = l.Close()
	}
	n.BreakStreams()
	for _, r := range routers {
		r.inner.Close()
	}
}

// send passes a datagram to the taps and the policy, and delivers it.
func (n *Network) send(p Packet) {
	n.tap(p)
	n.mu.Lock()
	policy := n.policy
	n.mu.Unlock()
	delays := []time.Duration{0}
	if policy != nil {
		delays = policy(p)
	}

	n.mu.Lock()
	n.stats.Sent++
	if len(delays) == 0 {
		n.stats.Lost++
	}
	var forward forwards
	for _, delay := range delays {
		if delay <= 0 {
			forward = append(forward, n.arriveLocked(p)...)
		} else if !n.closed {
			n.arrivals.add(delay, p, n.arriveDue)
		}
	}
	n.mu.Unlock()
	forward.run()
}

// forwards has the routers' work on datagrams for them. It runs without the network's
// mutex, since routers lock another network.
type forwards []func()

func (f forwards) run() {
	for _, forward := range f {
		forward()
	}
}

// tap shows p to the taps, with no lock held.
func (n *Network) tap(p Packet) {
	for _, tap := range n.tapped() {
		tap(p)
	}
}

func (n *Network) tapped() []func(Packet) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.taps
}

// arriveDue is the timer's function of arrivals.
func (n *Network) arriveDue() {
	var forward forwards
	n.mu.Lock()
	if !n.closed {
		for _, p := range n.arrivals.due(n.arriveDue) {
			forward = append(forward, n.arriveLocked(p)...)
		}
	}
	n.mu.Unlock()
	forward.run()
}

// arriveLocked puts a datagram on the queue of its destination socket, or returns the
// work of a router.
func (n *Network) arriveLocked(p Packet) forwards {
	s := n.sockets[p.To]
	router := n.routers[p.To.Addr()]
	switch {
	case router != nil:
		return forwards{func() { router.inbound(p) }}
	case n.gateway != nil && n.hosts[p.To.Addr()] == nil:
		return forwards{func() { n.gateway.outbound(p) }}
	case s == nil || n.cutOffLocked(p.To.Addr()):
		n.stats.Unclaimed++
	case s.push(p):
		n.stats.Delivered++
	default:
		n.stats.Overflow++
	}
	return nil
}

// cutOffLocked reports whether ip belongs to an unreachable host.
func (n *Network) cutOffLocked(ip netip.Addr) bool {
	h := n.hosts[ip]
	return h != nil && h.unreachable
}

// isCutOff reports whether the host is unreachable.
func (h *Host) isCutOff() bool {
	h.network.mu.Lock()
	defer h.network.mu.Unlock()
	return h.unreachable
}

// eachStream calls do for each matching connection, with no lock held.
func (n *Network) eachStream(match func(*stream) bool, do func(*stream)) {
	n.mu.Lock()
	var matching []*stream
	for s := range n.streams {
		if match(s) {
			matching = append(matching, s)
		}
	}
	n.mu.Unlock()
	for _, s := range matching {
		do(s)
	}
}

func values[K comparable, V any](m map[K]V) []V {
	out := make([]V, 0, len(m))
	for _, v := range m {
		out = append(out, v)
	}
	return out
}
