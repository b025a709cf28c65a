package transport

import (
	"context"
	"net"
	"net/netip"
	"slices"
)

// DialFromer is a [Network] that can connect from one of our addresses: local is an
// IP address, and the port any that is free.
type DialFromer interface {
	DialFrom(ctx context.Context, network, local, address string) (net.Conn, error)
}

// bound is one of our sockets: where it is bound, and how it is configured.
type bound struct {
	kind   kind
	local  netip.AddrPort
	config ListenConfig
}

// boundNow returns our sockets in the order of Listen.
func (l *Layer) boundNow() []bound {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bound
}

// ofKind leaves out the sockets of other transports.
func ofKind(all []bound, k kind) []bound {
	return slices.DeleteFunc(slices.Clone(all), func(b bound) bool { return b.kind.name != k.name })
}

// nearest is the socket that who sees us as own reaches best, the first of equals;
// false when there is none.
func nearest(all []bound, own netip.Addr) (best bound, found bool) {
	most := 0
	for _, b := range all {
		if n := b.nearness(own); n > most {
			best, most = b, n
		}
	}
	return best, most > 0
}

func (b bound) nearness(own netip.Addr) int {
	switch here := b.local.Addr(); {
	case here == own, b.covers(own):
		return 4
	case here.IsUnspecified():
		return 0 // of the other family: its address is unknown
	case here.Is4() != own.Is4():
		return 1
	case here.IsLoopback() != own.IsLoopback():
		return 2
	}
	return 3
}

// covers reports whether the socket is bound to all addresses, that one included.
func (b bound) covers(own netip.Addr) bool {
	here := b.local.Addr()
	return here == netip.IPv6Unspecified() || here.IsUnspecified() && own.Is4()
}

// seenAt is the socket's address for who sees us as own.
func (b bound) seenAt(own netip.Addr) netip.AddrPort {
	if b.local.Addr().IsUnspecified() {
		return netip.AddrPortFrom(own, b.local.Port())
	}
	return b.local
}

// leaveFrom is the local address for a connection to peer: that of a listener of its kind,
// else of another socket of ours, so that the peer recognises us. It is not valid if the
// operating system must choose: with a socket that is bound to all addresses, and where no
// socket has a route to the peer.
func (l *Layer) leaveFrom(k kind, peer netip.AddrPort) netip.Addr {
	all := l.boundNow()
	for _, list := range [][]bound{ofKind(all, k), all} {
		var leading []netip.Addr
		for _, b := range list {
			here := b.local.Addr()
			switch {
			case b.covers(peer.Addr()):
				return netip.Addr{}
			case here.Is4() == peer.Addr().Is4() && here.IsLoopback() == peer.Addr().IsLoopback() && !slices.Contains(leading, here):
				leading = append(leading, here)
			}
		}
		if len(leading) > 0 {
			return l.routed(leading, peer)
		}
	}
	return netip.Addr{}
}

// routed is the one of several addresses from which the operating system reaches
// peer, else the first.
func (l *Layer) routed(several []netip.Addr, peer netip.AddrPort) netip.Addr {
	if len(several) > 1 {
		if own := l.source(peer, routeTime); slices.Contains(several, own) {
			return own
		}
	}
	return several[0]
}
