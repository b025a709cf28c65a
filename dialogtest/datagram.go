package dialogtest

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// maxDatagram is the largest payload of a UDP datagram over IPv4.
const maxDatagram = 65507

// packetConn is a datagram socket.
type packetConn struct {
	network  *Network
	host     *Host
	wildcard bool // bound to every address that the host has
	queueLen int
	bound    netip.AddrPort // guarded by network.mu

	mu       sync.Mutex // guards the fields below
	queue    []Packet
	closed   bool
	deadline time.Time // of reads
	wake     wake
}

// ReadFrom blocks until a datagram arrives, the socket is closed or the read
// deadline comes. If the datagram is longer than p, the rest is lost.
func (s *packetConn) ReadFrom(p []byte) (int, net.Addr, error) {
	packet, err := s.receive(context.Background())
	if err != nil {
		return 0, nil, err
	}
	return copy(p, packet.Data), net.UDPAddrFromAddrPort(packet.From), nil
}

// WriteTo sends a datagram and does not block.
func (s *packetConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	to, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, opError("write", "udp", s.LocalAddr(), addr, syscall.EINVAL)
	}
	return s.sendTo(p, to.AddrPort())
}

// LocalAddr returns a *net.UDPAddr.
func (s *packetConn) LocalAddr() net.Addr {
	return net.UDPAddrFromAddrPort(s.network.shown(s.address(), s.wildcard))
}

// address returns the address that datagrams are sent from.
func (s *packetConn) address() netip.AddrPort {
	s.network.mu.Lock()
	defer s.network.mu.Unlock()
	return s.bound
}

// shown returns the address that a socket reports as its own.
func (n *Network) shown(bound netip.AddrPort, wildcard bool) netip.AddrPort {
	switch {
	case !n.Unspecified || !wildcard:
		return bound
	case bound.Addr().Is4():
		return netip.AddrPortFrom(netip.IPv4Unspecified(), bound.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Unspecified(), bound.Port())
}

// Close frees the port and ends reads with net.ErrClosed.
func (s *packetConn) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.queue = nil
	s.wake.all()
	s.mu.Unlock()
	if closed {
		return opError("close", "udp", s.LocalAddr(), nil, net.ErrClosed)
	}

	n := s.network
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sockets[s.bound] == s {
		delete(n.sockets, s.bound)
	}
	delete(n.ports, binding{"udp", s.host, s.bound.Port()})
	return nil
}

// SetDeadline sets the deadline of reads; writes do not block.
func (s *packetConn) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

// SetReadDeadline sets the deadline of present and later reads.
func (s *packetConn) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	s.wake.all()
	return nil
}

// SetWriteDeadline does nothing: writes do not block.
func (s *packetConn) SetWriteDeadline(time.Time) error { return nil }

// receive blocks as ReadFrom does, and until ctx ends.
func (s *packetConn) receive(ctx context.Context) (Packet, error) {
	for {
		p, changed, deadline, err := s.tryReceive()
		switch {
		case err != nil:
			return Packet{}, opError("read", "udp", s.LocalAddr(), nil, err)
		case changed == nil:
			return p, nil
		case ctx.Err() != nil:
			return Packet{}, ctx.Err()
		}
		pause(changed, ctx.Done(), deadline)
	}
}

// tryReceive takes the first datagram. If there is none, it returns the channel and
// the deadline to wait for.
func (s *packetConn) tryReceive() (p Packet, changed <-chan struct{}, deadline time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return p, nil, deadline, net.ErrClosed
	case expired(s.deadline):
		return p, nil, deadline, os.ErrDeadlineExceeded
	case len(s.queue) == 0:
		return p, s.wake.wait(), s.deadline, nil
	}
	p, s.queue = s.queue[0], s.queue[1:]
	return p, nil, deadline, nil
}

// push queues a datagram and reports whether the queue was not full.
func (s *packetConn) push(p Packet) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.queue) >= s.queueLen {
		return false
	}
	s.queue = append(s.queue, p)
	s.wake.all()
	return true
}

func (s *packetConn) sendTo(data []byte, to netip.AddrPort) (int, error) {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	if err := s.writable(len(data), to); err != nil {
		return 0, opError("write", "udp", s.LocalAddr(), net.UDPAddrFromAddrPort(to), err)
	}
	s.network.send(Packet{
		Time: time.Now(), Transport: "udp", From: s.address(), To: to, Data: slices.Clone(data),
	})
	return len(data), nil
}

// writable returns the error for a datagram that this socket cannot send.
func (s *packetConn) writable(size int, to netip.AddrPort) error {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	local := s.address()
	switch {
	case closed:
		return net.ErrClosed
	case size > maxDatagram:
		return os.NewSyscallError("sendto", syscall.EMSGSIZE)
	case to.Addr().Is4() != local.Addr().Is4(), s.host.isCutOff(), local.Addr() != s.host.Addr():
		return os.NewSyscallError("sendto", syscall.ENETUNREACH)
	}
	return nil
}

// connectedPacketConn is the connection that dialling "udp" returns: a socket with one
// peer.
type connectedPacketConn struct {
	*packetConn
	remote netip.AddrPort
}

// Read blocks as ReadFrom does. Datagrams from other addresses than the peer's are
// dropped.
func (c *connectedPacketConn) Read(p []byte) (int, error) {
	for {
		packet, err := c.receive(context.Background())
		if err != nil {
			return 0, err
		}
		if packet.From == c.remote {
			return copy(p, packet.Data), nil
		}
	}
}

// Write sends a datagram to the peer and does not block.
func (c *connectedPacketConn) Write(p []byte) (int, error) { return c.sendTo(p, c.remote) }

// RemoteAddr returns a *net.UDPAddr.
func (c *connectedPacketConn) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(c.remote) }
