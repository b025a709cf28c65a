package dialogtest

import (
	"net/netip"
)

// Move gives the host another address of the same family, as a new network or a new
// lease does. Sockets that are bound to no address move too. Sockets bound to the old
// address can neither receive nor send any more. Connections die silently: data written
// at either end is lost, without an error. Move panics if ip is not such an address, or
// belongs to another host.
func (h *Host) Move(ip string) {
	addr := netip.MustParseAddr(ip).Unmap()
	h.move(addr)
	h.breakStreams((*stream).sever)
}

func (h *Host) move(addr netip.Addr) {
	n := h.network
	n.mu.Lock()
	defer n.mu.Unlock()
	if addr.Is4() != h.ip.Is4() || n.hosts[addr] != nil {
		panic("dialogtest: Move to " + addr.String() + ": of another family, or taken")
	}
	delete(n.hosts, h.ip)
	n.hosts[addr] = h
	h.ip = addr
	for at, s := range n.sockets {
		if s.host == h && at.Addr() != addr {
			delete(n.sockets, at)
			if s.wildcard {
				s.bound = netip.AddrPortFrom(addr, at.Port())
				n.sockets[s.bound] = s
			}
		}
	}
	for at, l := range n.listeners {
		if l.host == h && at.Addr() != addr {
			delete(n.listeners, at)
			if l.wildcard {
				l.bound = netip.AddrPortFrom(addr, at.Port())
				n.listeners[l.bound] = l
			}
		}
	}
}
