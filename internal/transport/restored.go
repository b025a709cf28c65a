package transport

import (
	"fmt"
	"net/netip"
)

// Restored describes a flow of a process that is gone.
type Restored struct {
	// Transport is "UDP", "TCP", "TLS", "WS" or "WSS".
	Transport string
	// Local and Remote are the addresses of its two ends.
	Local, Remote netip.AddrPort
	// ServerName is the name that its certificate was checked for; empty without one.
	ServerName string
	// Dialled is true for a connection that we had opened.
	Dialled bool
}

// Restore returns a flow that replaces one of another process. Over UDP that is the socket
// bound to the same address, or else to the same port, or else the best one for the peer. A
// connection is lost with its process: the flow then has an Err, and the data of the former
// connection.
//
// Errors: ErrUnsupportedTransport, ErrNoListener, ErrClosed.
func (l *Layer) Restore(r Restored) (*Flow, error) {
	k, err := kindOf(r.Transport)
	switch {
	case err != nil:
		return nil, err
	case !r.Remote.IsValid():
		return nil, fmt.Errorf("%w: address of the peer unknown", ErrNoListener)
	case k.stream:
		return l.lost(k, r), nil
	}
	return l.packetFlowFrom(r.Local, r.Remote)
}

// Restored describes a flow for [Layer.Restore].
func (f *Flow) Restored() Restored {
	r := Restored{Transport: f.Transport(), Local: f.LocalAddr(), Remote: f.remote, Dialled: f.Dialled()}
	if f.stream != nil {
		r.ServerName = f.stream.key.serverName
	}
	return r
}

// Encrypted reports whether the flow has TLS, or had it.
func (f *Flow) Encrypted() bool { return f.stream != nil && f.stream.kind.secure }

// lost returns the flow of a connection that is lost.
func (l *Layer) lost(k kind, r Restored) *Flow {
	s := &stream{
		layer: l, kind: k, key: streamKey{transport: k.name, addr: r.Remote, serverName: r.ServerName}, local: r.Local,
		done: make(chan struct{}), deaf: make(chan struct{}), err: ErrClosed, closing: true,
	}
	if !r.Dialled {
		s.listener = new(listener)
	}
	close(s.done)
	close(s.deaf)
	s.in.owner, s.out.owner = s, s
	s.flow = &Flow{layer: l, stream: s, remote: r.Remote}
	return s.flow
}

// packetFlowFrom is packetFlow, by the socket that is bound to local where there is one.
func (l *Layer) packetFlowFrom(local, peer netip.AddrPort) (*Flow, error) {
	flow, err := l.packetFlow(peer)
	if err != nil || flow.socket.local == local {
		return flow, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.packets {
		switch fits := s.fitness(peer.Addr()) > 0; {
		case fits && s.local == local:
			flow.socket = s
			return flow, nil
		case fits && s.local.Port() == local.Port() && flow.socket.local.Port() != local.Port():
			flow.socket = s
		}
	}
	return flow, nil
}
