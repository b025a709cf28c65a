package transport

import "time"

// Limits bounds the memory and sockets that peers can make this layer hold. Zero means the default
// named at each field; a negative duration means no bound in time.
type Limits struct {
	HeaderBytes     int // start line and header block of one message; default 32 KiB
	BodyBytes       int // body of one message; default 1 MiB
	Headers         int // header field values in one message; default 256
	UDPRequestBytes int // requests above it belong on a stream (RFC 3261 18.1.1); default 1300
	StreamQueue     int // messages waiting on one stream; over it the connection is closed. Default 2048

	Connections int // streams that are accepted; default 10000
	Dials       int // streams that we set up; default as Connections
	Handshakes  int // TLS and WebSocket handshakes of accepted connections at a time; default 1000
	// ConnectionsPerSource and HandshakesPerSource bound those of one [Source];
	// default 1000 and 100. Negative: not bounded.
	ConnectionsPerSource, HandshakesPerSource int
	// StreamBytes is about what all streams hold of messages that wait for their rest,
	// or to be written; beyond it the streams are closed whose messages wait longest.
	// Default 16 MiB.
	StreamBytes int

	WriteTimeout   time.Duration // one write on a stream; default 10 s
	DialTimeout    time.Duration // setting up a connection, with its handshake; default 10 s
	DialPause      time.Duration // how long a dial that failed is not tried again, or three times as long as it took, up to 30 s; default 1 s
	IdleTimeout    time.Duration // silence in both directions; default 30 min, twice RFC 5626's keep-alive bound
	PartialTimeout time.Duration // from a message's first byte to its last; default 30 s
	SilenceTimeout time.Duration // until an accepted stream has said anything; default 30 s
	// HandshakeTimeout bounds the handshakes of one connection, accepted or
	// dialled; default 10 s.
	HandshakeTimeout time.Duration
}

func (l Limits) withDefaults() Limits {
	defaultInt(&l.HeaderBytes, 32<<10)
	defaultInt(&l.BodyBytes, 1<<20)
	defaultInt(&l.Headers, 256)
	defaultInt(&l.UDPRequestBytes, 1300)
	defaultInt(&l.Connections, 10000)
	defaultInt(&l.Dials, l.Connections)
	defaultInt(&l.Handshakes, 1000)
	defaultInt(&l.StreamBytes, 16<<20)
	if l.ConnectionsPerSource == 0 {
		l.ConnectionsPerSource = 1000
	}
	if l.HandshakesPerSource == 0 {
		l.HandshakesPerSource = 100
	}
	defaultInt(&l.StreamQueue, 2048)
	defaultDuration(&l.WriteTimeout, 10*time.Second)
	defaultDuration(&l.DialTimeout, 10*time.Second)
	defaultDuration(&l.DialPause, time.Second)
	defaultDuration(&l.IdleTimeout, 30*time.Minute)
	defaultDuration(&l.PartialTimeout, 30*time.Second)
	defaultDuration(&l.SilenceTimeout, 30*time.Second)
	defaultDuration(&l.HandshakeTimeout, 10*time.Second)
	return l
}

// defaultInt also replaces a negative value: these bounds cannot be taken off.
func defaultInt(v *int, def int) {
	if *v <= 0 {
		*v = def
	}
}

func defaultDuration(v *time.Duration, def time.Duration) {
	if *v == 0 {
		*v = def
	}
}

// deadline is now+d, or the zero time (none) for a negative d.
func deadline(now time.Time, d time.Duration) time.Time {
	if d < 0 {
		return time.Time{}
	}
	return now.Add(d)
}
