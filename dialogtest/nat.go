package dialogtest

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// Dependence says how much of a destination a NAT looks at (RFC 4787 4.1, 5).
type Dependence int

const (
	// EndpointIndependent: nothing of it.
	EndpointIndependent Dependence = iota
	// AddressDependent: its address.
	AddressDependent
	// AddressAndPortDependent: its address and port. A NAT that maps so is often
	// called symmetric.
	AddressAndPortDependent
)

// of returns the part of a destination that counts.
func (d Dependence) of(destination netip.AddrPort) netip.AddrPort {
	switch d {
	case AddressDependent:
		return netip.AddrPortFrom(destination.Addr(), 0)
	case AddressAndPortDependent:
		return destination
	}
	return netip.AddrPort{}
}

// DefaultBindingTime is how long a NAT keeps the binding of a silent UDP flow: as
// long as Linux keeps one without an answer.
const DefaultBindingTime = 30 * time.Second

// mtu is the largest payload of a UDP datagram that is not cut into fragments, over
// IPv4 and Ethernet.
const mtu = 1472

// NATConfig says what a [NAT] does. The zero value maps and filters by nothing but
// the inner address, keeps ports where they are free, and forgets a UDP binding
// after [DefaultBindingTime] of silence.
type NATConfig struct {
	// Mapping says for which destinations an inner socket keeps its public port,
	// Filtering whose datagrams come back through that port: those of destinations
	// that it has sent to.
	Mapping, Filtering Dependence
	// RandomPorts takes public ports at random, by Seed, and does not keep them.
	RandomPorts bool
	Seed        uint64
	// BindingTime is the silence after which the binding of a UDP socket is forgotten,
	// StreamTime that after which a connection is. Zero is DefaultBindingTime for
	// the first and never for the second; negative never.
	BindingTime, StreamTime time.Duration
	// DropFragments loses datagrams of more than 1472 bytes.
	DropFragments bool
}

// NAT is a router between hosts with private addresses and a [Network]. What is not
// asked for from inside is dropped silently: datagrams without a binding, and
// attempts to connect. It is made by [Network.NAT].
type NAT struct {
	outer, inner *Network
	public       netip.Addr
	config       NATConfig

	mu       sync.Mutex // guards the fields below; no network's is taken while it is held
	random   *rand.Rand
	bindings map[bindingKey]*natBinding
	byPort   map[uint16]*natBinding
	streams  map[*natStream]struct{}
	next     uint16
	dropped  int
}

// bindingKey is what a binding is found by from inside.
type bindingKey struct {
	inner       netip.AddrPort
	destination netip.AddrPort
}

// natBinding is the public port of an inner socket.
type natBinding struct {
	key       bindingKey
	port      uint16
	used      time.Time
	permitted map[netip.AddrPort]struct{}
}

// NAT returns a new router, whose public address must not be a host's. Hosts behind
// it are made by [NAT.Host]; they form a network of their own, so that two routers may have hosts with the
// same address. It panics when public is not an IP address.
func (n *Network) NAT(public string, config NATConfig) *NAT {
	r := &NAT{
		outer: n, inner: NewNetwork(), public: netip.MustParseAddr(public).Unmap(), config: config,
		random:   rand.New(rand.NewPCG(config.Seed, config.Seed)),
		bindings: make(map[bindingKey]*natBinding),
		byPort:   make(map[uint16]*natBinding),
		streams:  make(map[*natStream]struct{}),
		next:     firstEphemeral,
	}
	r.inner.Window, r.inner.Queue, r.inner.Backlog = n.Window, n.Queue, n.Backlog
	r.inner.gateway, r.inner.directory = r, n.directory
	n.mu.Lock()
	n.routers[r.public] = r
	n.mu.Unlock()
	return r
}

// Addr returns the public address.
func (r *NAT) Addr() netip.Addr { return r.public }

// Host returns the host behind the router with this address, as [Network.Host]
// does.
func (r *NAT) Host(ip string) *Host { return r.inner.Host(ip) }

// Inside returns the network behind the router: its policy and its taps are about
// datagrams with private addresses.
func (r *NAT) Inside() *Network { return r.inner }

// Forget drops all bindings and silently cuts all connections, as a router does that
// is restarted: sockets get new ports, and neither end of a connection hears of
// it.
func (r *NAT) Forget() {
	r.mu.Lock()
	clear(r.bindings)
	clear(r.byPort)
	streams := r.streams
	r.streams = make(map[*natStream]struct{})
	r.mu.Unlock()
	for s := range streams {
		s.sever()
	}
}

// Dropped returns how many datagrams and connection attempts the router has dropped.
func (r *NAT) Dropped() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dropped
}

// Binding returns the public address that an inner socket has for a destination, if
// it has one now.
func (r *NAT) Binding(inner, destination netip.AddrPort) (public netip.AddrPort, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.bindings[bindingKey{inner, r.config.Mapping.of(destination)}]
	if b == nil || r.hasExpired(b) {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(r.public, b.port), true
}

// outbound takes a datagram from inside to the outer network.
func (r *NAT) outbound(p Packet) {
	if public, ok := r.translate(p); ok {
		p.From = public
		r.outer.send(p)
	}
}

// translate returns the public address that a datagram leaves from.
func (r *NAT) translate(p Packet) (netip.AddrPort, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.config.DropFragments && len(p.Data) > mtu {
		r.dropped++
		return netip.AddrPort{}, false
	}
	b := r.bindingLocked(bindingKey{p.From, r.config.Mapping.of(p.To)})
	b.used = time.Now()
	b.permitted[r.config.Filtering.of(p.To)] = struct{}{}
	return netip.AddrPortFrom(r.public, b.port), true
}

// bindingLocked returns the binding of a key, and makes it where there is none.
func (r *NAT) bindingLocked(key bindingKey) *natBinding {
	if b := r.bindings[key]; b != nil {
		if !r.hasExpired(b) {
			return b
		}
		delete(r.byPort, b.port)
	}
	b := &natBinding{key: key, port: r.freeLocked(key.inner.Port()), permitted: make(map[netip.AddrPort]struct{})}
	r.bindings[key] = b
	r.byPort[b.port] = b
	return b
}

// freeLocked chooses a public port; an expired binding does not hold one.
func (r *NAT) freeLocked(wanted uint16) uint16 {
	isFree := func(port uint16) bool {
		b := r.byPort[port]
		return b == nil || r.hasExpired(b)
	}
	if !r.config.RandomPorts && isFree(wanted) {
		return wanted
	}
	for {
		port := r.next
		if r.config.RandomPorts {
			port = uint16(firstEphemeral + r.random.IntN(lastEphemeral-firstEphemeral+1))
		} else if r.next++; r.next < firstEphemeral {
			r.next = firstEphemeral
		}
		if isFree(port) {
			return port
		}
	}
}

func (r *NAT) hasExpired(b *natBinding) bool {
	silence := r.config.BindingTime
	if silence == 0 {
		silence = DefaultBindingTime
	}
	return silence > 0 && time.Since(b.used) >= silence
}

// inbound takes a datagram that has come to the public address inside, or drops
// it.
func (r *NAT) inbound(p Packet) {
	if inner, ok := r.admit(p); ok {
		p.To = inner
		r.inner.send(p)
	}
}

// admit returns the inner socket that a datagram is for. It keeps the binding, as
// Linux does.
func (r *NAT) admit(p Packet) (netip.AddrPort, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.byPort[p.To.Port()]
	if b == nil || r.hasExpired(b) {
		r.dropped++
		return netip.AddrPort{}, false
	}
	if _, permitted := b.permitted[r.config.Filtering.of(p.From)]; !permitted {
		r.dropped++
		return netip.AddrPort{}, false
	}
	b.used = time.Now()
	return b.key.inner, true
}
