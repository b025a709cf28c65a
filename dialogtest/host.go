package dialogtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// The ports that are given out for port 0 and to connections that are dialled.
const (
	firstEphemeral = 49152
	lastEphemeral  = 65535
)

// Host is one machine with one address on a [Network]. It is made by
// [Network.Host].
type Host struct {
	network *Network
	ip      netip.Addr

	// network.mu guards the fields below.

	ephemeral   uint16 // the next port to try
	unreachable bool
}

// binding is one port that is taken.
type binding struct {
	transport string
	addr      netip.AddrPort
}

// Addr returns the host's address.
func (h *Host) Addr() netip.Addr { return h.ip }

// ListenPacket binds a datagram socket; network is "udp", "udp4" or "udp6". An
// empty or unspecified IP in address means the host's own, which LocalAddr then
// says; port 0 picks a free port. The addresses that the socket returns are
// *net.UDPAddr. It does not block. Errors are *net.OpError around
// syscall.EADDRINUSE, syscall.EADDRNOTAVAIL or net.ErrClosed.
func (h *Host) ListenPacket(_ context.Context, network, address string) (net.PacketConn, error) {
	s, err := h.bindPacket(network, address)
	if err != nil {
		return nil, opError("listen", network, nil, nil, err)
	}
	return s, nil
}

// Listen binds a listener for streams; network is "tcp", "tcp4" or "tcp6".
// Addresses and errors are as for ListenPacket, with *net.TCPAddr.
func (h *Host) Listen(_ context.Context, network, address string) (net.Listener, error) {
	l, err := h.bindListener(network, address)
	if err != nil {
		return nil, opError("listen", network, nil, nil, err)
	}
	return l, nil
}

// DialContext connects to an IP address and port, or to the first address of a
// name of the network's that is of the host's family.
//
// "udp" binds a socket to a free port and does not block; its LocalAddr says
// the host's address.
//
// "tcp" connects to a listener. Without one on an existing host the error is
// syscall.ECONNREFUSED; a host that is unreachable, here or there, and one of the
// other address family give syscall.EHOSTUNREACH. An address that is no host's
// swallows the attempt: the call blocks until ctx ends. All of these come in a
// *net.OpError.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := h.dial(ctx, network, address)
	if err != nil {
		return nil, opError("dial", network, nil, nil, err)
	}
	return conn, nil
}

// Unreachable cuts the host off, or connects it again.
//
// While it is cut off: datagrams to it vanish, also those already under way;
// WriteTo on its own sockets fails with syscall.ENETUNREACH; dials from it and to
// it fail with syscall.EHOSTUNREACH, and so does Write on its connections, at both
// ends. Reads on those connections go on waiting, and the connections live on
// afterwards.
func (h *Host) Unreachable(cut bool) {
	h.network.mu.Lock()
	h.unreachable = cut
	h.network.mu.Unlock()
}

// BreakStreams resets the connections to and from this host, as
// [Network.BreakStreams] does for all.
func (h *Host) BreakStreams() {
	h.network.breakStreams(func(s *stream) bool {
		return s.local.Addr() == h.ip || s.remote.Addr() == h.ip
	})
}

func (h *Host) bindPacket(network, address string) (*packetConn, error) {
	addr, err := h.localAddress("udp", network, address)
	if err != nil {
		return nil, err
	}
	n := h.network
	n.mu.Lock()
	defer n.mu.Unlock()
	if addr, err = h.claimLocked("udp", addr); err != nil {
		return nil, err
	}
	s := &packetConn{network: n, local: addr, queueLen: n.Queue}
	n.sockets[addr] = s
	return s, nil
}

func (h *Host) bindListener(network, address string) (*listener, error) {
	addr, err := h.localAddress("tcp", network, address)
	if err != nil {
		return nil, err
	}
	n := h.network
	n.mu.Lock()
	defer n.mu.Unlock()
	if addr, err = h.claimLocked("tcp", addr); err != nil {
		return nil, err
	}
	l := &listener{network: n, local: addr, backlog: n.Backlog}
	n.listeners[addr] = l
	return l, nil
}

func (h *Host) dial(ctx context.Context, network, address string) (net.Conn, error) {
	transport := strings.TrimRight(network, "46")
	remote, err := h.remoteAddress(ctx, address)
	if err != nil {
		return nil, err
	}
	if err := h.checkFamily(transport, network); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if remote.Addr().Is4() != h.ip.Is4() {
		return nil, os.NewSyscallError("connect", syscall.EHOSTUNREACH)
	}
	switch transport {
	case "udp":
		return h.dialPacket(remote)
	case "tcp":
		return h.dialStream(ctx, remote)
	}
	return nil, net.UnknownNetworkError(network)
}

// remoteAddress reads the address of a DialContext call.
func (h *Host) remoteAddress(ctx context.Context, address string) (netip.AddrPort, error) {
	if remote, err := netip.ParseAddrPort(address); err == nil {
		return netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port()), nil
	}
	name, service, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("port of %q: %w", address, err)
	}
	family := "ip6"
	if h.ip.Is4() {
		family = "ip4"
	}
	ips, err := h.LookupNetIP(ctx, family, name)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(ips[0], uint16(port)), nil
}

func (h *Host) dialPacket(remote netip.AddrPort) (net.Conn, error) {
	s, err := h.bindPacket("udp", ":0")
	if err != nil {
		return nil, err
	}
	return &connectedPacketConn{packetConn: s, remote: remote}, nil
}

func (h *Host) dialStream(ctx context.Context, remote netip.AddrPort) (net.Conn, error) {
	s, err := h.connect(remote)
	if !errors.Is(err, errNobody) {
		return s, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-h.network.done:
		return nil, net.ErrClosed
	}
}

// errNobody says that no host has the address.
var errNobody = errors.New("no such host")

// connect makes the two ends of a connection and hands one to the listener.
func (h *Host) connect(remote netip.AddrPort) (net.Conn, error) {
	n := h.network
	n.mu.Lock()
	defer n.mu.Unlock()
	there := n.hosts[remote.Addr()]
	switch {
	case n.closed:
		return nil, net.ErrClosed
	case h.unreachable || there != nil && there.unreachable:
		return nil, os.NewSyscallError("connect", syscall.EHOSTUNREACH)
	case there == nil:
		return nil, errNobody
	}
	l := n.listeners[remote]
	if l == nil {
		return nil, os.NewSyscallError("connect", syscall.ECONNREFUSED)
	}
	local, err := h.claimLocked("tcp", netip.AddrPortFrom(h.ip, 0))
	if err != nil {
		return nil, err
	}
	here, far := newStreams(n, local, remote)
	if !l.push(far) {
		delete(n.ports, binding{"tcp", local})
		return nil, os.NewSyscallError("connect", syscall.ECONNREFUSED)
	}
	n.streams[here] = struct{}{}
	n.streams[far] = struct{}{}
	return here, nil
}

// claimLocked takes a port; port 0 becomes a free one.
func (h *Host) claimLocked(transport string, addr netip.AddrPort) (netip.AddrPort, error) {
	n := h.network
	if n.closed {
		return addr, net.ErrClosed
	}
	if addr.Port() == 0 {
		addr = h.freeLocked(transport)
	}
	key := binding{transport, addr}
	if _, taken := n.ports[key]; taken {
		return addr, os.NewSyscallError("bind", syscall.EADDRINUSE)
	}
	n.ports[key] = struct{}{}
	return addr, nil
}

// freeLocked returns the next free port, or any when all are taken.
func (h *Host) freeLocked(transport string) netip.AddrPort {
	var addr netip.AddrPort
	for range lastEphemeral - firstEphemeral + 1 {
		addr = netip.AddrPortFrom(h.ip, h.ephemeral)
		if h.ephemeral++; h.ephemeral < firstEphemeral {
			h.ephemeral = firstEphemeral // after 65535 came 0
		}
		if _, taken := h.network.ports[binding{transport, addr}]; !taken {
			break
		}
	}
	return addr
}

// localAddress reads the address of a Listen or ListenPacket call.
func (h *Host) localAddress(transport, network, address string) (netip.AddrPort, error) {
	if err := h.checkFamily(transport, network); err != nil {
		return netip.AddrPort{}, err
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("port of %q: %w", address, err)
	}
	if host == "" {
		return netip.AddrPortFrom(h.ip, uint16(port)), nil
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if !ip.IsUnspecified() && ip.Unmap() != h.ip {
		return netip.AddrPort{}, os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)
	}
	return netip.AddrPortFrom(h.ip, uint16(port)), nil
}

// checkFamily refuses networks that do not fit the call or the host's address.
func (h *Host) checkFamily(transport, network string) error {
	family, ok := strings.CutPrefix(network, transport)
	switch {
	case !ok || family != "" && family != "4" && family != "6":
		return net.UnknownNetworkError(network)
	case family == "4" && !h.ip.Is4(), family == "6" && h.ip.Is4():
		return os.NewSyscallError("bind", syscall.EAFNOSUPPORT)
	}
	return nil
}

// opError dresses err as package net does.
func opError(op, network string, local, remote net.Addr, err error) error {
	return &net.OpError{Op: op, Net: network, Source: local, Addr: remote, Err: err}
}
