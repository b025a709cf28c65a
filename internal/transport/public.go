package transport

import (
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"sipdialog.example/dialog/internal/sipmsg"
)

// publicEntries bounds the peers over UDP of which is remembered how they see us.
const publicEntries = 1024

// publicKey is a flow over UDP.
type publicKey struct {
	socket *packetSocket
	peer   netip.AddrPort
}

// public is where a peer sees us, while our own address is that one.
type public struct{ seen, own netip.AddrPort }

// publics is how the peers of UDP sockets see us. The zero value is ready.
type publics struct {
	mu      sync.RWMutex // guards the field below
	entries map[publicKey]public
}

func (p *publics) get(key publicKey) (public, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	seen, ok := p.entries[key]
	return seen, ok
}

// put forgets an arbitrary flow if the cache is full: its next response teaches the same
// again.
func (p *publics) put(key publicKey, seen public) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.entries == nil {
		p.entries = make(map[publicKey]public)
	}
	if _, known := p.entries[key]; !known {
		for old := range p.entries {
			if len(p.entries) < publicEntries {
				break
			}
			delete(p.entries, old)
		}
	}
	p.entries[key] = seen
}

func (p *publics) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.entries = nil
}

// Learn notes from where the flow's peer sees us, by the top Via of a response to a
// request of ours that went by the flow, which is sure to be one: its branch says so. A
// Via that does not say it teaches nothing.
func (f *Flow) Learn(via *sipmsg.SentBy) {
	seen, ok := f.seenAt(via)
	if !ok {
		return
	}
	if known, ok := f.Public(); ok && known == seen {
		return
	}
	if f.stream != nil {
		f.stream.public.Store(&seen)
		return
	}
	if own, ok := f.own(); ok {
		f.layer.publics.put(publicKey{f.socket, f.remote}, public{seen, own})
	}
}

// seenAt is the source of a request of ours as its Via has come back: received, or the
// sent-by where that was right (RFC 3261 18.2.1), with rport (RFC 3581 4). Who does not
// know rport does not tell the port, without which an address is of no use.
func (f *Flow) seenAt(via *sipmsg.SentBy) (seen netip.AddrPort, ok bool) {
	rport, _ := via.Params.Get("rport")
	port, err := strconv.ParseUint(rport, 10, 16)
	if err != nil || port == 0 {
		return seen, false
	}
	host := via.Host
	if received, ok := via.Params.Get("received"); ok {
		host = strings.Trim(received, "[]")
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return seen, false
	}
	addr = addr.Unmap().WithZone("")
	switch {
	case addr.IsUnspecified(), addr.IsMulticast(), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return seen, false // no host's
	case addr.IsLoopback() && !f.remote.Addr().IsLoopback():
		return seen, false // its own
	}
	return netip.AddrPortFrom(addr, uint16(port)), true
}

// Public returns from where the flow's peer sees us, once it has said so, and unless our
// own address has become another one since.
func (f *Flow) Public() (seen netip.AddrPort, ok bool) {
	if f.stream == nil {
		known, ok := f.layer.publics.get(publicKey{f.socket, f.remote})
		if !ok {
			return seen, false
		}
		own, found := f.own()
		return known.seen, !found || known.own == own
	}
	if at := f.stream.public.Load(); at != nil {
		return *at, true
	}
	return seen, false
}

// Translated reports whether the flow's peer is known to see us at another address: a NAT is
// on the path. It sends nothing.
func (f *Flow) Translated() bool {
	seen, ok := f.Public()
	if !ok {
		return false
	}
	if f.stream != nil {
		return seen.Addr() != f.stream.local.Addr()
	}
	own, found := f.own()
	if !found {
		return seen.Port() != f.socket.local.Port()
	}
	return seen != own
}

// own is concrete for a flow over UDP, by what the kernel has last said, if it has: it is
// for read loops, and for callers with a lock, who may not ask.
func (f *Flow) own() (own netip.AddrPort, ok bool) {
	own = f.socket.local
	if !own.Addr().IsUnspecified() {
		return own, true
	}
	known, ok := f.layer.routes.get(f.remote.Addr())
	return netip.AddrPortFrom(known.own, own.Port()), ok
}

// Public returns from where a peer at that address sees us, once it has said so: over
// UDP, else by a connection.
func (l *Layer) Public(peer netip.AddrPort) (seen netip.AddrPort, ok bool) {
	for _, f := range l.flowsTo(unmap(peer)) {
		if seen, ok = f.Public(); ok {
			return seen, true
		}
	}
	return seen, false
}

// flowsTo are the flows to a peer, UDP first.
func (l *Layer) flowsTo(peer netip.AddrPort) (flows []*Flow) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.packets {
		flows = append(flows, &Flow{layer: l, socket: s, remote: peer})
	}
	for key, streams := range l.streams {
		for i := len(streams) - 1; key.addr == peer && i >= 0; i-- {
			flows = append(flows, streams[i].flow)
		}
	}
	return flows
}

// asSeen is our address for the flow's peer: as the peer sees us, if the configuration asks
// for that and names no other.
func (f *Flow) asSeen(own netip.AddrPort, public ListenConfig) netip.AddrPort {
	cfg := &f.layer.cfg
	if !cfg.LearnPublic || public.PublicHost != "" || public.PublicPort > 0 || cfg.PublicHost != "" || cfg.PublicPort > 0 {
		return own
	}
	if seen, ok := f.Public(); ok && f.Translated() {
		return seen
	}
	return own
}
