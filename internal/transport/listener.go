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
	layer *Layer
	kind  kind
	ln    net.Listener
	local netip.AddrPort
}

func (l *Layer) listenStream(ctx context.Context, k kind, address string) (netip.AddrPort, error) {
	ln, err := l.network.Listen(ctx, k.network, address)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("transport: listen %s %s: %w", k.name, address, err)
	}
	s := &listener{layer: l, kind: k, ln: ln, local: addrPort(ln.Addr())}
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
	l.listeners = append(l.listeners, s)
	return true
}

// acceptLoop ends when the listener is closed. Other errors, such as too many
// open files, pass: it goes on after a pause.
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
			s.layer.log.Warn("transport: accept failed", "local", s.local, "error", err)
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
	if err := s.layer.addConn(); err != nil {
		if errors.Is(err, ErrTooManyConnections) {
			s.layer.counters.connRefused.Add(1)
			s.layer.log.Warn("transport: connection refused", "remote", conn.RemoteAddr(), "error", err)
		}
		_ = conn.Close()
		return
	}
	key := streamKey{transport: s.kind.name, addr: addrPort(conn.RemoteAddr())}
	// The error says that the layer closes; the connection is closed then.
	_, _ = s.layer.addStream(s.kind, conn, key, false)
}
