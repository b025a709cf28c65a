package transport

import (
	"crypto/tls"
	"net"
	"net/netip"
)

// Flow is where a message came from and where an answer can go: one of our UDP
// sockets and a peer, or one connection. It stays valid, and compares with
// Same, after the loss of its socket. Its methods may be called on any
// goroutine.
type Flow struct {
	// Set at construction. Exactly one of socket and stream is set.
	layer  *Layer
	socket *packetSocket
	stream *stream
	remote netip.AddrPort
	peer   net.Addr // remote, for a socket that is not the operating system's
}

// Transport returns "UDP", "TCP", "TLS", "WS" or "WSS".
func (f *Flow) Transport() string {
	if f.stream != nil {
		return f.stream.kind.name
	}
	return f.socket.kind.name
}

// Reliable reports whether the flow is a stream.
func (f *Flow) Reliable() bool { return f.stream != nil }

// TLS returns the result of the TLS handshake, with the peer's
// certificates, and whether the flow has TLS.
func (f *Flow) TLS() (tls.ConnectionState, bool) {
	if f.stream == nil || f.stream.tls == nil {
		return tls.ConnectionState{}, false
	}
	return f.stream.tls.ConnectionState(), true
}

// LocalAddr returns the address the socket is bound to, which for a UDP socket
// may be the wildcard address.
func (f *Flow) LocalAddr() netip.AddrPort {
	if f.stream != nil {
		return f.stream.local
	}
	return f.socket.local
}

// RemoteAddr returns the peer's address.
func (f *Flow) RemoteAddr() netip.AddrPort { return f.remote }

// Send sends one message. On UDP it is written at once. On a stream it is
// queued, and never blocks: data must not be changed afterwards. Errors:
// ErrClosed when the connection is lost, ErrSlow when its queue was full (the
// connection is closed then), and those of the UDP socket.
func (f *Flow) Send(data []byte) error {
	if f.stream != nil {
		return f.stream.send(data)
	}
	return f.socket.write(f, data)
}

// Watch has lost called, once, when the flow's connection is lost, with the
// reason; if it is lost already, then too. Calls come on a counted goroutine,
// those of one connection one after the other, and must not block. A UDP flow
// is never lost. cancel, idempotent, removes the watcher; a call that has
// begun continues.
func (f *Flow) Watch(lost func(error)) (cancel func()) {
	if f.stream == nil {
		return func() {}
	}
	return f.stream.watch(lost)
}

// Err returns nil while the flow can be sent on, else why not.
func (f *Flow) Err() error {
	if f.stream != nil {
		return f.stream.failure()
	}
	return f.socket.failure()
}

// Done returns a channel that is closed once the flow's connection is lost; Err has the reason. That of
// a UDP flow is closed with the layer.
func (f *Flow) Done() <-chan struct{} {
	if f.stream != nil {
		return f.stream.done
	}
	return f.layer.ctx.Done()
}

// Hold says that a call, or a registration, needs the flow, until each has called
// Release, once: a connection is not closed as idle, and keep-alives are sent as
// Config.FlowKeepAlive says, over UDP too, where they are of use if a NAT is on the way.
func (f *Flow) Hold() {
	if f.stream != nil {
		f.stream.holders.Add(1)
	}
	f.layer.keeper.hold(f)
}

// Release takes back a Hold.
func (f *Flow) Release() {
	if f.stream != nil {
		f.stream.holders.Add(-1)
	}
	f.layer.keeper.release(f)
}

// Held reports whether the flow's connection is held.
func (f *Flow) Held() bool { return f.stream != nil && f.stream.holders.Load() > 0 }

// Same reports whether both are the same socket and peer, or connection.
func (f *Flow) Same(o *Flow) bool {
	if f == nil || o == nil {
		return f == o
	}
	return f.socket == o.socket && f.stream == o.stream && f.remote == o.remote
}
