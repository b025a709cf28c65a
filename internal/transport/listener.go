package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// listener is one listening socket for streams.
type listener struct {
	// Set at construction.
	layer  *Layer
	kind   kind
	ln     net.Listener
	local  netip.AddrPort
	config ListenConfig
}

func (l *Layer) listenStream(ctx context.Context, k kind, lc ListenConfig) (netip.AddrPort, error) {
	ln, err := l.network.Listen(ctx, k.network, lc.Address)
	if err != nil {
		return netip.AddrPort{}, doing(fmt.Sprint("listen ", k.name, " ", lc.Address), err)
	}
	s := &listener{layer: l, kind: k, ln: ln, local: addrPort(ln.Addr()), config: lc}
	if !l.addListener(s) || !l.tasks.Go(s.acceptLoop) {
		_ = ln.Close()
		return netip.AddrPort{}, ErrClosed
	}
	return s.local, nil
}

func (l *Layer) addListener(s *listener) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.listeners, l.kinds = append(l.listeners, s), nil
	l.bound = append(l.bound, bound{s.kind, s.local, s.config})
	return true
}

// acceptLoop ends when the listener is closed. Other errors, such as too many
// open files, pass: it continues after a pause.
func (s *listener) acceptLoop() {
	var wait time.Duration
	for {
		conn, err := s.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			wait = nextPause(wait)
			s.layer.counters.acceptErrors.Add(1)
			s.layer.warn(s.layer.warnings.accept, "accept failed", "local", s.local, "error", err)
			if !s.layer.pause(wait) {
				return
			}
			continue
		}
		wait = 0
		s.accepted(conn)
	}
}

func (s *listener) accepted(conn net.Conn) {
	remote := addrPort(conn.RemoteAddr())
	source := Source(remote.Addr())
	if err := s.layer.admit(source); err != nil {
		s.refused(remote, err) // before its peer sees it
		_ = conn.Close()
		return
	}
	if !s.kind.shakes() {
		s.ready(link{raw: conn, conn: conn})
		return
	}
	if !s.layer.beginHandshake(source) {
		s.refused(remote, errTooManyHandshakes)
		s.drop(conn, source)
		return
	}
	// A goroutine of its own: a silent client does not delay others.
	if !s.layer.tasks.GoLean(func() { s.shake(conn, source) }) {
		s.layer.endHandshake(source)
		s.drop(conn, source)
	}
}

// refused counts a connection beyond a bound.
func (s *listener) refused(remote netip.AddrPort, err error) {
	switch {
	case errors.Is(err, ErrClosed):
		return
	case errors.Is(err, errTooManyHandshakes):
		s.layer.counters.handshakesRefused.Add(1)
	case errors.Is(err, errTooManyOfSource):
		s.layer.counters.connOfSource.Add(1)
	default:
		s.layer.counters.connRefused.Add(1)
	}
	s.layer.logRefusal(remote, err)
}

// shake does the handshakes of one connection.
func (s *listener) shake(conn net.Conn, source netip.Addr) {
	ready, err := s.layer.serverSide(s.kind, conn, s.config)
	s.layer.endHandshake(source)
	if err != nil {
		s.layer.counters.handshakesFailed.Add(1)
		s.layer.log.Debug("transport: handshake failed", "transport", s.kind.name, "remote", conn.RemoteAddr(), "error", err)
		s.drop(conn, source)
		return
	}
	s.ready(ready)
}

// drop closes a connection that has its place, but became no stream.
func (s *listener) drop(conn net.Conn, source netip.Addr) {
	_ = conn.Close()
	s.layer.leave(source)
}

func (s *listener) ready(ready link) {
	// Without a server name: Connect does not find a peer under a name that it
	// has not proved.
	key := streamKey{transport: s.kind.name, addr: addrPort(ready.raw.RemoteAddr())}
	// The error says that the layer closes; the connection is closed then.
	_, _ = s.layer.addStream(s.kind, ready, key, s)
}
