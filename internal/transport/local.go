package transport

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	routeEntries = 1024            // peers remembered
	routeTime    = time.Minute     // an interface may change its address
	routeWait    = 2 * time.Second // for a look-up; no packet is sent
)

// Local returns how the flow's peer reaches us on its transport, as a Via says: the
// public address when one is configured for the listener or the layer, else the
// concrete local IP by which that peer is reached, with our listening port of the
// transport (for a stream we dialled without having a listener: the connection's own
// port). A WebSocket that we dialled has a random host that does not exist, and no
// port: nobody can connect to it (RFC 7118 5). For a wildcard UDP socket it may ask
// the kernel for the route, which does not touch the network.
func (f *Flow) Local() Local {
	if f.stream != nil && f.stream.invalid != "" {
		return Local{Transport: f.Transport(), Host: f.stream.invalid}
	}
	addr, public := f.concrete()
	return f.layer.told(f.Transport(), addr, public)
}

// Contact returns how the flow's peer, and anybody else, reaches us later, as a
// Contact says: what Local returns, but for a connection that we dialled without
// listening on its transport. Its port is nobody's once it is lost: then it is
// another listener, or UDP socket, where there is one.
func (f *Flow) Contact() Local {
	if s := f.stream; s != nil && s.listener == nil && s.invalid == "" {
		all := f.layer.boundNow()
		if b, found := nearest(all, s.local.Addr()); found && len(ofKind(all, s.kind)) == 0 {
			return f.layer.told(b.kind.name, b.seenAt(s.local.Addr()), b.config)
		}
	}
	return f.Local()
}

// told is what a peer is told of an address of ours.
func (l *Layer) told(transport string, addr netip.AddrPort, public ListenConfig) Local {
	local := Local{Transport: transport, Host: addr.Addr().WithZone("").String(), Port: int(addr.Port())}
	for _, set := range []ListenConfig{public, {PublicHost: l.cfg.PublicHost, PublicPort: l.cfg.PublicPort}} {
		if set.PublicHost != "" || set.PublicPort > 0 {
			local.replace(set)
			break
		}
	}
	return local
}

func (l *Local) replace(public ListenConfig) {
	if public.PublicHost != "" {
		l.Host = public.PublicHost
	}
	if public.PublicPort > 0 {
		l.Port = public.PublicPort
	}
}

// concrete is our address without wildcards, and the listener's configuration.
func (f *Flow) concrete() (netip.AddrPort, ListenConfig) {
	if f.stream != nil {
		return f.layer.streamLocal(f.stream)
	}
	local := f.socket.local
	if local.Addr().IsUnspecified() {
		local = netip.AddrPortFrom(f.layer.source(f.remote), local.Port())
	}
	return local, f.socket.config
}

// streamLocal is where we listen for what comes by other connections of a stream's
// transport.
func (l *Layer) streamLocal(s *stream) (netip.AddrPort, ListenConfig) {
	if s.listener != nil {
		return s.local, s.listener.config
	}
	if b, found := nearest(ofKind(l.boundNow(), s.kind), s.local.Addr()); found {
		return b.seenAt(s.local.Addr()), b.config
	}
	return s.local, ListenConfig{}
}

// source is the address the kernel sends from towards peer, or the loopback
// address when it cannot be told.
func (l *Layer) source(peer netip.AddrPort) netip.Addr {
	now := time.Now()
	if own, ok := l.routes.get(peer.Addr(), now); ok {
		return own
	}
	own := l.askSource(peer)
	l.routes.put(peer.Addr(), own, now)
	return own
}

// askSource connects a UDP socket, which sends nothing, and reads its address.
func (l *Layer) askSource(peer netip.AddrPort) netip.Addr {
	fallback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if peer.Addr().Is6() {
		fallback = netip.IPv6Loopback()
	}
	ctx, cancel := context.WithTimeout(l.ctx, routeWait)
	defer cancel()
	conn, err := l.network.DialContext(ctx, "udp", net.JoinHostPort(peer.Addr().String(), "5060"))
	if err != nil {
		return fallback
	}
	own := addrPort(conn.LocalAddr()).Addr()
	_ = conn.Close()
	if !own.IsValid() || own.IsUnspecified() {
		return fallback
	}
	return own
}

// routeCache remembers source addresses by peer. The zero value is ready.
type routeCache struct {
	mu      sync.Mutex // guards the field below
	entries map[netip.Addr]route
}

type route struct {
	own   netip.Addr
	until time.Time
}

func (c *routeCache) get(peer netip.Addr, now time.Time) (netip.Addr, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.entries[peer]
	if !ok || now.After(r.until) {
		return netip.Addr{}, false
	}
	return r.own, true
}

// put makes room by forgetting some other peer, whichever: asking again is
// cheap.
func (c *routeCache) put(peer, own netip.Addr, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil {
		c.entries = make(map[netip.Addr]route)
	}
	for old := range c.entries {
		if len(c.entries) < routeEntries {
			break
		}
		delete(c.entries, old)
	}
	c.entries[peer] = route{own: own, until: now.Add(routeTime)}
}
