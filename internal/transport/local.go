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
	routeFresh   = time.Second     // and has not since
	routeWait    = 2 * time.Second // for a look-up; no packet is sent
)

// Local returns how the flow's peer reaches us on its transport, as a Via says: the
// address for Vias, or the public one, when it is configured for the listener or the
// layer, else the concrete local IP by which that peer is reached, with our listening port of the
// transport (for a stream we dialled without having a listener: the connection's own
// port). A WebSocket that we dialled has a random host that does not exist, and no
// port: it accepts no connections (RFC 7118 5). For a wildcard UDP socket it may ask
// the kernel for the route, which does not touch the network.
func (f *Flow) Local() Local { return f.reachedAt(ListenConfig.forVia) }

// reachedAt is where the peer reaches us, with the part of the configuration that counts.
func (f *Flow) reachedAt(public func(ListenConfig) ListenConfig) Local {
	if f.stream != nil && f.stream.invalid != "" {
		return Local{Transport: f.Transport(), Host: f.stream.invalid}
	}
	addr, config := f.concrete()
	config = public(config)
	return f.layer.told(f.Transport(), f.asSeen(addr, config), config)
}

// forVia is the configuration with the public address that a Via says.
func (c ListenConfig) forVia() ListenConfig {
	if c.ViaHost != "" || c.ViaPort > 0 {
		c.PublicHost, c.PublicPort = c.ViaHost, c.ViaPort
	}
	return c
}

func (c ListenConfig) forContact() ListenConfig { return c }

// Recheck has what Local and Contact return be right now: a socket that is bound to all
// addresses asks the kernel for the route once more, unless it has within a second. It
// is for messages that say for a long time how we are reached.
func (f *Flow) Recheck() {
	if f.socket != nil && f.socket.local.Addr().IsUnspecified() {
		f.layer.source(f.remote, routeFresh)
	}
}

// Contact returns how the flow's peer, and anybody else, reaches us later, as a
// Contact says: what Local returns, but for ViaHost and ViaPort, and for a connection
// that we dialled without listening on its transport. Its port is free once it is
// lost: then Contact names another listener, or UDP socket, where there is one.
func (f *Flow) Contact() Local {
	if s := f.stream; s != nil && s.listener == nil && s.invalid == "" && !(f.layer.cfg.LearnPublic && f.Translated()) {
		all := f.layer.boundNow()
		if b, found := nearest(all, s.local.Addr()); found && len(ofKind(all, s.kind)) == 0 {
			return f.layer.told(b.kind.name, b.seenAt(s.local.Addr()), b.config)
		}
	}
	return f.reachedAt(ListenConfig.forContact)
}

// Changed forgets what has been learnt of our addresses, and which destinations could
// not be reached from there, and makes all connections suspect: those that have died
// with the old address are replaced.
func (l *Layer) Changed() {
	l.routes.forget()
	l.publics.forget()
	l.forgetDials()
	for _, s := range l.streamsNow() {
		s.public.Store(nil)
		s.doubt(0, false)
	}
}

// told is an address of ours as it is sent to a peer.
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
		local = netip.AddrPortFrom(f.layer.source(f.remote, routeTime), local.Port())
	}
	return local, f.socket.config
}

// streamLocal is the address at which we accept other connections of a stream's
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

// source is the address the kernel sends from towards peer, asked for no longer ago than
// age. If it is unknown, since there is no network now, it is the latest known one, or the
// loopback address, and is asked for again soon.
func (l *Layer) source(peer netip.AddrPort, age time.Duration) netip.Addr {
	now := time.Now()
	known, found := l.routes.get(peer.Addr())
	if found && known.failed {
		age = min(age, routeFresh)
	}
	if found && now.Sub(known.asked) <= age {
		return known.own
	}
	own, ok := l.askSource(peer)
	switch {
	case ok:
	case found:
		own = known.own
	case peer.Addr().Is6():
		own = netip.IPv6Loopback()
	default:
		own = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	l.routes.put(peer.Addr(), route{own: own, asked: now, failed: !ok})
	return own
}

// askSource connects a UDP socket, which sends nothing, and reads its address.
func (l *Layer) askSource(peer netip.AddrPort) (own netip.Addr, ok bool) {
	ctx, cancel := context.WithTimeout(l.ctx, routeWait)
	defer cancel()
	conn, err := l.network.DialContext(ctx, "udp", net.JoinHostPort(peer.Addr().String(), "5060"))
	if err != nil {
		return own, false
	}
	own = addrPort(conn.LocalAddr()).Addr()
	_ = conn.Close()
	return own, own.IsValid() && !own.IsUnspecified()
}

// routeCache remembers source addresses by peer. The zero value is ready.
type routeCache struct {
	mu      sync.Mutex // guards the field below
	entries map[netip.Addr]route
}

type route struct {
	own    netip.Addr
	asked  time.Time
	failed bool // the address was unknown then
}

func (c *routeCache) get(peer netip.Addr) (route, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.entries[peer]
	return r, ok
}

func (c *routeCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries = nil
}

// put forgets an arbitrary peer if the cache is full: asking again is cheap.
func (c *routeCache) put(peer netip.Addr, r route) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil {
		c.entries = make(map[netip.Addr]route)
	}
	if _, known := c.entries[peer]; !known {
		for old := range c.entries {
			if len(c.entries) < routeEntries {
				break
			}
			delete(c.entries, old)
		}
	}
	c.entries[peer] = r
}
