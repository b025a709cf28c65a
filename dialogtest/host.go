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
	"time"
)

// The ports that are used for port 0 and for dialled connections.
const (
	firstEphemeral = 49152
	lastEphemeral  = 65535
)

// Host is one machine with one address on a [Network], or behind a [NAT]. It is
// made by [Network.Host] and [NAT.Host].
type Host struct {
	network *Network

	// network.mu guards the fields below.

	ip          netip.Addr
	ephemeral   uint16 // the next port to try
	unreachable bool
}

// binding is one port in use.
type binding struct {
	transport string
	host      *Host
	port      uint16
}

// Addr returns the host's present address.
func (h *Host) Addr() netip.Addr {
	h.network.mu.Lock()
	defer h.network.mu.Unlock()
	return h.ip
}

// ListenPacket binds a datagram socket; network is "udp", "udp4" or "udp6". An
// empty or unspecified IP in address means the host's own, which LocalAddr then
// returns; port 0 picks a free port. The addresses that the socket returns are
// *net.UDPAddr. It does not block. Errors are *net.OpError around
// syscall.EADDRINUSE, syscall.EADDRNOTAVAIL or net.ErrClosed.
func (h *Host) ListenPacket(_ context.Context, network, address string) (net.PacketConn, error) {
	s, err := h.bindPacket(network, address)
	if err != nil {
		return nil, opError("listen", network, nil, place{network, address}, err)
	}
	return s, nil
}

// Listen binds a listener for streams; network is "tcp", "tcp4" or "tcp6".
// Addresses and errors are as for ListenPacket, with *net.TCPAddr.
func (h *Host) Listen(_ context.Context, network, address string) (net.Listener, error) {
	l, err := h.bindListener(network, address)
	if err != nil {
		return nil, opError("listen", network, nil, place{network, address}, err)
	}
	return l, nil
}

// DialContext connects to an IP address and port. A name of the network stands for
// its first address of the host's family.
//
// "udp" binds a socket to a free port and does not block; its LocalAddr returns the
// host's address.
//
// "tcp" connects to a listener. If the host exists and has no listener, the error is
// syscall.ECONNREFUSED. If either host is unreachable, or the address belongs to the
// other family, it is syscall.EHOSTUNREACH. If no host has the address, the attempt
// gets no reply: the call blocks until ctx ends. All of these errors are wrapped in a
// *net.OpError.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := h.dial(ctx, network, address)
	if err != nil {
		return nil, opError("dial", network, nil, place{network, address}, err)
	}
	return conn, nil
}

// Unreachable cuts the host off, or connects it again.
//
// While it is cut off, datagrams to it are lost, also those in transit. WriteTo on
// its own sockets fails with syscall.ENETUNREACH. Dials from it and to it fail with
// syscall.EHOSTUNREACH, and so does Write on its connections, at both ends. Reads on
// those connections continue to wait, and the connections work again afterwards.
func (h *Host) Unreachable(cut bool) {
	h.network.mu.Lock()
	h.unreachable = cut
	h.network.mu.Unlock()
}

// BreakStreams resets the connections to and from this host, as
// [Network.BreakStreams] does for all hosts.
func (h *Host) BreakStreams() {
	h.breakStreams((*stream).reset)
}

// breakStreams ends the connections to and from this host, also those through a NAT.
func (h *Host) breakStreams(how func(*stream)) {
	match := func(s *stream) bool { return s.host == h || s.peer == h }
	h.network.eachStream(match, how)
	if router := h.network.gateway; router != nil {
		router.outer.eachStream(match, how)
	}
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
	s := &packetConn{network: n, host: h, bound: addr, wildcard: isWildcard(address), queueLen: n.Queue}
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
	l := &listener{network: n, host: h, bound: addr, wildcard: isWildcard(address), backlog: n.Backlog}
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
	if remote.Addr().Is4() != h.Addr().Is4() {
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
	s, err := h.bindPacket("udp", net.JoinHostPort(h.Addr().String(), "0"))
	if err != nil {
		return nil, err
	}
	return &connectedPacketConn{packetConn: s, remote: remote}, nil
}

func (h *Host) dialStream(ctx context.Context, remote netip.AddrPort) (net.Conn, error) {
	if delay := h.network.streamDelay(netip.AddrPortFrom(h.Addr(), 0), remote, nil); delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		if err := h.wait(ctx, timer.C); err != nil {
			return nil, err
		}
	}
	s, err := h.connect(remote)
	if !errors.Is(err, errNoHost) {
		return s, err
	}
	return nil, h.wait(ctx, nil)
}

// wait waits for the time, ctx, or the end of the network.
func (h *Host) wait(ctx context.Context, until <-chan time.Time) error {
	select {
	case <-until:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-h.network.done:
		return net.ErrClosed
	}
}

// errNoHost means that no host has the address.
var errNoHost = errors.New("no such host")

// connect makes the two ends of a connection and passes one to the listener.
func (h *Host) connect(remote netip.AddrPort) (net.Conn, error) {
	n := h.network
	if n.gateway != nil && !n.isHost(remote.Addr()) {
		return connected(n.gateway.connect(h, remote))
	}
	return connected(n.connectFrom(dialler{host: h}, remote))
}

// connected keeps a nil stream from becoming a net.Conn that is not nil.
func connected(s *stream, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (n *Network) isHost(ip netip.Addr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hosts[ip] != nil
}

// dialler is the host that connects: a host of the network, or one behind a NAT, which
// then has a public address.
type dialler struct {
	host   *Host
	public netip.AddrPort
	nat    *NAT
}

// connectFrom makes a connection to a listener of this network.
func (n *Network) connectFrom(from dialler, remote netip.AddrPort) (*stream, error) {
	cutOff := from.host.isCutOff()
	local, err := from.host.claim()
	if err != nil {
		return nil, err
	}
	here, err := n.join(from, local, remote, cutOff)
	if err != nil {
		from.host.unclaim(local)
	}
	return here, err
}

// join passes one end of a connection to a listener, and returns the other.
func (n *Network) join(from dialler, local, remote netip.AddrPort, cutOff bool) (*stream, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	there := n.hosts[remote.Addr()]
	switch {
	case n.closed:
		return nil, net.ErrClosed
	case cutOff || there != nil && there.unreachable:
		return nil, os.NewSyscallError("connect", syscall.EHOSTUNREACH)
	case there == nil:
		return nil, errNoHost
	}
	l := n.listeners[remote]
	if l == nil {
		return nil, os.NewSyscallError("connect", syscall.ECONNREFUSED)
	}
	here, far := newStreams(from.host, there, local, remote)
	here.network, far.network = n, n
	if from.nat != nil {
		here.seen, far.remote = from.public, from.public
		from.nat.carry(here, far)
	}
	if !l.push(far) {
		return nil, os.NewSyscallError("connect", syscall.ECONNREFUSED)
	}
	n.streams[here] = struct{}{}
	n.streams[far] = struct{}{}
	return here, nil
}

// claim takes a free port for a connection.
func (h *Host) claim() (netip.AddrPort, error) {
	h.network.mu.Lock()
	defer h.network.mu.Unlock()
	return h.claimLocked("tcp", netip.AddrPortFrom(h.ip, 0))
}

func (h *Host) unclaim(local netip.AddrPort) {
	h.network.mu.Lock()
	defer h.network.mu.Unlock()
	delete(h.network.ports, binding{"tcp", h, local.Port()})
}

// claimLocked takes a port. For port 0 it takes a free one.
func (h *Host) claimLocked(transport string, addr netip.AddrPort) (netip.AddrPort, error) {
	n := h.network
	if n.closed {
		return addr, net.ErrClosed
	}
	if addr.Port() == 0 {
		addr = h.freeLocked(transport)
	}
	key := binding{transport, h, addr.Port()}
	if _, taken := n.ports[key]; taken {
		return addr, os.NewSyscallError("bind", syscall.EADDRINUSE)
	}
	n.ports[key] = struct{}{}
	return addr, nil
}

// freeLocked returns the next free port, or any port if all are in use.
func (h *Host) freeLocked(transport string) netip.AddrPort {
	var addr netip.AddrPort
	for range lastEphemeral - firstEphemeral + 1 {
		addr = netip.AddrPortFrom(h.ip, h.ephemeral)
		if h.ephemeral++; h.ephemeral < firstEphemeral {
			h.ephemeral = firstEphemeral // 65535 has wrapped to 0
		}
		if _, taken := h.network.ports[binding{transport, h, addr.Port()}]; !taken {
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
	own := h.Addr()
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("port of %q: %w", address, err)
	}
	if host == "" {
		return netip.AddrPortFrom(own, uint16(port)), nil
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if !ip.IsUnspecified() && ip.Unmap() != own {
		return netip.AddrPort{}, os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)
	}
	return netip.AddrPortFrom(own, uint16(port)), nil
}

// isWildcard reports whether an address to bind to names no IP address. localAddress
// has checked it.
func isWildcard(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	ip, err := netip.ParseAddr(host)
	return err != nil || ip.IsUnspecified()
}

// checkFamily returns an error for a network that does not match the call or the host's
// address.
func (h *Host) checkFamily(transport, network string) error {
	family, ok := strings.CutPrefix(network, transport)
	is4 := h.Addr().Is4()
	switch {
	case !ok || family != "" && family != "4" && family != "6":
		return net.UnknownNetworkError(network)
	case family == "4" && !is4, family == "6" && is4:
		return os.NewSyscallError("bind", syscall.EAFNOSUPPORT)
	}
	return nil
}

// place is an address as the caller wrote it.
type place struct{ network, address string }

func (p place) Network() string { return p.network }
func (p place) String() string  { return p.address }

// opError wraps err as package net does.
func opError(op, network string, local, remote net.Addr, err error) error {
	return &net.OpError{Op: op, Net: network, Source: local, Addr: remote, Err: err}
}
