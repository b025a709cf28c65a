package transport

import "sync/atomic"

// Stats are the layer's counters since New, and the live Connections.
type Stats struct {
	MessagesIn  uint64 // well-formed messages given to the handler
	MessagesOut uint64 // messages written
	KeepAlives  uint64 // pings answered: CRLF (RFC 5626 4.4.1) and WebSocket

	Answered400 uint64 // malformed requests answered here
	Malformed   uint64 // malformed messages dropped: responses, ACKs, no Via, no SIP
	Panics      uint64 // panics of the parser, the handler, the trace hook or a watcher

	Connections         int    // open streams and dials under way
	Held                int    // bytes of messages that wait on streams for their rest, or to be written
	ConnectionsRefused  uint64 // accepted beyond Limits.Connections and closed at once
	ConnectionsOfSource uint64 // likewise, beyond Limits.ConnectionsPerSource
	ConnectionsCrowded  uint64 // closed: beyond Limits.StreamBytes, and waited longest
	ConnectionsSilent   uint64 // closed: SilenceTimeout
	ConnectionsSlow     uint64 // closed: queue full or write deadline passed
	ConnectionsIdle     uint64 // closed: IdleTimeout
	ConnectionsPartial  uint64 // closed: PartialTimeout
	ConnectionsNoPong   uint64 // closed: a keep-alive of ours was not answered
	ConnectionsUnframed uint64 // closed: no way to find the next message

	Handshakes        int    // handshakes of accepted connections in progress
	HandshakesFailed  uint64 // failed or not done in time, accepted and dialled
	HandshakesRefused uint64 // accepted beyond Limits.Handshakes or HandshakesPerSource and closed at once

	ReadErrors   uint64 // errors after which a UDP socket continues
	AcceptErrors uint64 // errors after which a listener continues
	WriteErrors  uint64 // failed writes
}

// counters are the atomic side of Stats.
type counters struct {
	messagesIn, messagesOut, keepAlives                        atomic.Uint64
	answered400, malformed, panics                             atomic.Uint64
	connRefused, connSlow, connIdle, connPartial, connUnframed atomic.Uint64
	handshakesFailed, handshakesRefused, connNoPong            atomic.Uint64
	connOfSource, connCrowded, connSilent                      atomic.Uint64
	readErrors, acceptErrors, writeErrors                      atomic.Uint64
}

// Stats returns the counters. It may be called at any time, on any goroutine.
func (l *Layer) Stats() Stats {
	l.mu.Lock()
	conns, handshakes := l.capacity.accepted+l.capacity.dialled, l.capacity.shaking
	l.mu.Unlock()
	c := &l.counters
	return Stats{
		MessagesIn: c.messagesIn.Load(), MessagesOut: c.messagesOut.Load(), KeepAlives: c.keepAlives.Load(),
		Answered400: c.answered400.Load(), Malformed: c.malformed.Load(), Panics: c.panics.Load(),
		ConnectionsOfSource: c.connOfSource.Load(), ConnectionsCrowded: c.connCrowded.Load(),
		ConnectionsSilent: c.connSilent.Load(), Held: l.holdings.held(),
		Connections: conns, ConnectionsRefused: c.connRefused.Load(), ConnectionsSlow: c.connSlow.Load(),
		ConnectionsIdle: c.connIdle.Load(), ConnectionsPartial: c.connPartial.Load(), ConnectionsNoPong: c.connNoPong.Load(),
		ConnectionsUnframed: c.connUnframed.Load(),
		Handshakes:          handshakes, HandshakesFailed: c.handshakesFailed.Load(), HandshakesRefused: c.handshakesRefused.Load(),
		ReadErrors: c.readErrors.Load(), AcceptErrors: c.acceptErrors.Load(), WriteErrors: c.writeErrors.Load(),
	}
}
