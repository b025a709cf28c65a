package transport

import (
	"errors"
	"net/netip"
)

// A connection costs memory before its first message. So the connections of peers are
// bounded, for each source and altogether. Those that we dial have a bound of their own,
// which peers cannot use up.

// The reasons to refuse or close a connection at a limit, for watchers and the log.
var (
	errTooManyOfSource   = errors.New("too many connections from one source")
	errTooManyHandshakes = errors.New("too many handshakes")
	errCrowded           = errors.New("closed at the limit StreamBytes: its message had waited longest")
)

// Source is whom an address is taken for: itself, but of IPv6 its network of 64 bits,
// all of whose addresses one host can have.
func Source(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if addr.Is4() || !addr.IsValid() {
		return addr
	}
	network, _ := addr.Prefix(64) // there is one for each
	return network.Addr()
}

// capacity counts connections. Layer.mu guards it.
type capacity struct {
	dialled  int // by us, with dials under way
	accepted int // with those whose handshakes are under way
	sources  map[netip.Addr]int
	// shaking are the accepted ones whose handshakes are under way, shakers whose.
	shaking int
	shakers map[netip.Addr]int
}

func newCapacity() capacity {
	return capacity{sources: make(map[netip.Addr]int), shakers: make(map[netip.Addr]int)}
}

// admit reserves a place for a connection that a peer has opened.
func (l *Layer) admit(source netip.Addr) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return ErrClosed
	case l.capacity.accepted >= l.limits.Connections:
		return ErrTooManyConnections
	case l.limits.ConnectionsPerSource > 0 && l.capacity.sources[source] >= l.limits.ConnectionsPerSource:
		return errTooManyOfSource
	}
	l.capacity.accepted++
	l.capacity.sources[source]++
	return nil
}

// leaveLocked gives an accepted connection's place back.
func (r *capacity) leaveLocked(source netip.Addr) {
	r.accepted--
	decrease(r.sources, source)
}

func (l *Layer) leave(source netip.Addr) {
	l.mu.Lock()
	l.capacity.leaveLocked(source)
	l.mu.Unlock()
}

// dialLocked reserves a place for a connection of ours.
func (l *Layer) dialLocked() error {
	switch {
	case l.closed:
		return ErrClosed
	case l.capacity.dialled >= l.limits.Dials:
		return ErrTooManyConnections
	}
	l.capacity.dialled++
	return nil
}

func (l *Layer) leaveDialled() {
	l.mu.Lock()
	l.capacity.dialled--
	l.mu.Unlock()
}

// beginHandshake reserves a place for one more handshake of a client.
func (l *Layer) beginHandshake(source netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	most := l.limits.HandshakesPerSource
	if l.capacity.shaking >= l.limits.Handshakes || most > 0 && l.capacity.shakers[source] >= most {
		return false
	}
	l.capacity.shaking++
	l.capacity.shakers[source]++
	return true
}

func (l *Layer) endHandshake(source netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.capacity.shaking--
	decrease(l.capacity.shakers, source)
}

func decrease(counts map[netip.Addr]int, key netip.Addr) {
	if counts[key]--; counts[key] <= 0 {
		delete(counts, key)
	}
}

// logRefusal logs a refused connection.
func (l *Layer) logRefusal(remote netip.AddrPort, err error) {
	l.warn(l.warnings.refused, "connection refused", "remote", remote, "error", err)
}
