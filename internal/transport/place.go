package transport

import "net/netip"

// Place names a UDP flow without a pointer.
type Place struct {
	addr   [16]byte
	socket uint32
	port   uint16
	is4    bool
}

// Place returns the flow's; false when it has none: of a stream, and of a peer whose
// address has a zone.
func (f *Flow) Place() (Place, bool) {
	addr := f.remote.Addr()
	if f.stream != nil || addr.Zone() != "" || !addr.IsValid() {
		return Place{}, false
	}
	return Place{addr: addr.As16(), socket: f.socket.number, port: f.remote.Port(), is4: addr.Is4()}, true
}

// At returns the flow with that place; nil after Close.
func (l *Layer) At(p Place) *Flow {
	l.mu.Lock()
	defer l.mu.Unlock()
	if int(p.socket) >= len(l.packets) {
		return nil
	}
	addr := netip.AddrFrom16(p.addr)
	if p.is4 {
		addr = addr.Unmap()
	}
	return &Flow{layer: l, socket: l.packets[p.socket], remote: netip.AddrPortFrom(addr, p.port)}
}
