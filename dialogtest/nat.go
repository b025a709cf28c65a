package dialogtest

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// Dependence is the part of a destination that a NAT takes into account (RFC 4787 4.1,
// 5).
type Dependence int

const (
	// EndpointIndependent: no part.
	EndpointIndependent Dependence = iota
	// AddressDependent: the address.
	AddressDependent
	// AddressAndPortDependent: the address and port. A NAT with such a mapping is
	// often called symmetric.
	AddressAndPortDependent
)

// of returns the part of a destination that is taken into account.
func (d Dependence) of(destination netip.AddrPort) netip.AddrPort {
	switch d {
	case AddressDependent:
		return netip.AddrPortFrom(destination.Addr(), 0)
	case AddressAndPortDependent:
		return destination
	}
	return netip.AddrPort{}
}

// DefaultBindingTime is the time for which a NAT keeps the binding of a silent UDP flow:
// as long as Linux keeps one without a reply.
const DefaultBindingTime = 30 * time.Second

// mtu is the largest payload of a UDP datagram that is not fragmented, over IPv4 and
// Ethernet.
const mtu = 1472

// NATConfig is the behaviour of a [NAT]. The zero value maps and filters only by the
// inner address, keeps the inner port if it is free, and forgets a UDP binding after
// [DefaultBindingTime] of silence.
type NATConfig struct {
	// Mapping sets for which destinations an inner socket keeps its public port.
	// Filtering sets which sources may send through that port: those that match a
	// destination that the socket has sent to.
	Mapping, Filtering Dependence
	// RandomPorts chooses public ports at random, by Seed, and does not keep the inner
	// port.
	RandomPorts bool
	Seed        uint64
	// BindingTime is the silence after which the binding of a UDP socket is forgotten,
	// StreamTime the silence after which a connection is. Zero means
	// DefaultBindingTime for the first and never for the second; negative means never.
	BindingTime, StreamTime time.Duration
	// DropFragments loses datagrams of more than 1472 bytes.
	DropFragments bool
}

// NAT is a router between hosts with private addresses and a [Network]. It silently
// drops datagrams from outside without a binding, and attempts to connect from outside.
// It is made by [Network.NAT].
type NAT struct {
	outer, inner *Network
	public       netip.Addr
	config       NATConfig

	mu       sync.Mutex // guards the fields below; no network's mutex is taken under it
	random   *rand.Rand
	bindings map[bindingKey]*natBinding
	byPort   map[uint16]*natBinding
	streams  map[*natStream]struct{}
	next     uint16
	dropped  int
}

// bindingKey identifies a binding from inside.
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

// NAT returns a new router. Its public address must not belong to a host. [NAT.Host]
// makes the hosts behind it. They form their own network, so that two routers may have
// hosts with the same address. NAT panics if public is not an IP address.
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

// Inside returns the network behind the router. Its policy and its taps see datagrams
// with private addresses.
func (r *NAT) Inside() *Network { return r.inner }

// Forget drops all bindings and silently cuts all connections, like the restart of a
// router: sockets get new ports, and neither end of a connection gets an error.
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

// Dropped returns the number of datagrams and connection attempts that the router has
// dropped.
func (r *NAT) Dropped() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dropped
}

// Binding returns the present public address of an inner socket for a destination; ok
// is false if it has none.
func (r *NAT) Binding(inner, destination netip.AddrPort) (public netip.AddrPort, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.bindings[bindingKey{inner, r.config.Mapping.of(destination)}]
	if b == nil || r.hasExpired(b) {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(r.public, b.port), true
}

// outbound passes a datagram from inside to the outer network.
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

// bindingLocked returns the binding of a key, and makes it if there is none.
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

// freeLocked chooses a public port. The port of an expired binding is free.
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

// inbound passes a datagram for the public address to the inner network, or drops it.
func (r *NAT) inbound(p Packet) {
	if inner, ok := r.admit(p); ok {
		p.To = inner
		r.inner.send(p)
	}
}

// admit returns the inner socket of a datagram from outside; ok is false if the datagram
// is dropped. Like Linux, it renews the binding.
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
