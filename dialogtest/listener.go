package dialogtest

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// listener accepts streams.
type listener struct {
	network  *Network
	host     *Host
	wildcard bool // bound to every address that the host has
	backlog  int
	bound    netip.AddrPort // guarded by network.mu

	mu     sync.Mutex // guards the fields below
	queue  []*stream
	closed bool
	wake   wake
}

// Accept blocks until a connection arrives or the listener is closed.
func (l *listener) Accept() (net.Conn, error) {
	for {
		s, changed := l.tryAccept()
		switch {
		case s != nil:
			return s, nil
		case changed == nil:
			return nil, opError("accept", "tcp", nil, l.Addr(), net.ErrClosed)
		}
		pause(changed, nil, time.Time{})
	}
}

// tryAccept takes the first connection, or returns the channel to wait for. It returns
// neither after the listener is closed.
func (l *listener) tryAccept() (*stream, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nil, nil
	case len(l.queue) == 0:
		return nil, l.wake.wait()
	}
	s := l.queue[0]
	l.queue = l.queue[1:]
	return s, nil
}

// push queues a connection and reports whether the queue was not full.
func (l *listener) push(s *stream) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.queue) >= l.backlog {
		return false
	}
	l.queue = append(l.queue, s)
	l.wake.all()
	return true
}

// Close frees the port, ends Accept with net.ErrClosed and resets the
// connections that were not accepted.
func (l *listener) Close() error {
	l.mu.Lock()
	closed, waiting := l.closed, l.queue
	l.closed, l.queue = true, nil
	l.wake.all()
	l.mu.Unlock()
	if closed {
		return opError("close", "tcp", nil, l.Addr(), net.ErrClosed)
	}

	n := l.network
	n.mu.Lock()
	if n.listeners[l.bound] == l {
		delete(n.listeners, l.bound)
	}
	delete(n.ports, binding{"tcp", l.host, l.bound.Port()})
	n.mu.Unlock()
	for _, s := range waiting {
		s.reset()
		_ = s.Close()
	}
	return nil
}

// Addr returns a *net.TCPAddr.
func (l *listener) Addr() net.Addr {
	l.network.mu.Lock()
	bound := l.bound
	l.network.mu.Unlock()
	return net.TCPAddrFromAddrPort(l.network.shown(bound, l.wildcard))
}
