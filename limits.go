package dialog

import (
	"net/netip"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/rate"
	"sipdialog.example/dialog/internal/transport"
	"sipdialog.example/dialog/internal/unconfirmed"
)

// Limits bounds what peers can make a stack hold or do. Rates and the number
// of dialogs a source are not limited unless set; everything else has the
// default named. What is over a limit is answered 503 with Retry-After where it
// can be answered, dropped where not, and counted in [Stats]. MaxDialogs is in
// StackConfig.
type Limits struct {
	// DialogsPerSource bounds the calls in progress that came from one IP
	// address; zero: not bounded.
	DialogsPerSource int
	// Unconfirmed bounds the calls of peers that were answered 200 and not acknowledged
	// yet, and UnconfirmedPerSource those of one IPv4 address, or one IPv6 network of
	// 64 bits: beyond it the call ends that has waited longest, as if its ACK had not
	// come in time (Cause.Method is ACK). Zero is half of MaxDialogs, and half of
	// that, but four at least; negative, or zero without a MaxDialogs: not bounded.
	Unconfirmed, UnconfirmedPerSource int
	// CallBytes bounds what all calls hold of the messages of their peers: their INVITEs
	// or responses to ours, bodies that wait for a callback, and REFERs whose outcome is
	// not reported. Beyond it an INVITE that begins a call, and a REFER, get 503; bodies
	// are not kept for later, nor is that of [Dialog.Response]. Zero is 16 KiB for each
	// of MaxDialogs, and 16 MiB at least; negative, or zero without a MaxDialogs: not
	// bounded.
	CallBytes int
	// InviteRate and InviteRatePerSource bound the INVITEs outside dialogs that
	// are taken in a second, altogether and from one IP address; as many may
	// come at once as in a second. Zero: not bounded.
	InviteRate, InviteRatePerSource float64
	// PendingPerCall bounds what waits to be handled for one Call-ID; zero is 256.
	// BYE, PRACK and ACK may be 256 more, and the first final response to a request
	// of ours is always taken. Other responses beyond it are dropped, and repetitions
	// of a 2xx while one of them waits.
	PendingPerCall int
	// Transactions bounds the requests of peers that are being answered, or were
	// within the last 64*T1, and TransactionBytes what they hold altogether, which is
	// estimated a little too high; beyond either new ones get 503. Those of calls in
	// progress may be an eighth more, and 256; the last eighth of the bytes is theirs.
	// Zero is 200000, and 256 MiB.
	Transactions, TransactionBytes int
	// SubscriptionsPerDialog bounds the REFERs of one call whose outcome is not
	// reported; zero is 100.
	SubscriptionsPerDialog int
	// SubscribedCalls bounds the calls that are over but for REFERs whose outcome
	// is not reported, and the REFERs outside calls; beyond it those of a call end
	// with it. Zero is 1000. A subscription ends after an hour, however often it is
	// refreshed.
	SubscribedCalls int
	// Tombstones bounds the calls that are remembered for 64*T1 after their
	// end; beyond it the oldest go early. Zero is 10000.
	Tombstones int
	// HeaderBytes, Headers and BodyBytes bound one message: its start line and
	// header block (zero is 32 KiB), the number of its header values (256), and
	// its body (1 MiB). No header field may be longer than 65535 bytes.
	HeaderBytes, Headers, BodyBytes int
	// Connections bounds the streams that peers have opened, Dials those that this
	// side has, and Handshakes those of peers that are being set up; zero is 10000,
	// as many as Connections, and 1000.
	Connections, Dials, Handshakes int
	// ConnectionsPerSource and HandshakesPerSource bound those of one IPv4 address, or
	// one IPv6 network of 64 bits; zero is 1000 and 100, negative not bounded.
	ConnectionsPerSource, HandshakesPerSource int
	// UDPRequestBytes is the length above which a request goes by TCP where it would go
	// by UDP, if the next hop takes connections (RFC 3261 18.1.1); zero is 1300, the most
	// 65507.
	UDPRequestBytes int
	// StreamBytes bounds what all streams together hold of messages that wait for
	// their rest, or to be written; beyond it those streams are closed whose messages
	// wait longest. Zero is 16 MiB.
	StreamBytes int
	// StreamQueue bounds the messages that wait to be written to one stream; beyond it
	// the peer is too slow and the stream is closed. Zero is 2048: as many as a busy
	// trunk gets in a second or two, while StreamBytes bounds what they hold.
	StreamQueue int
	// IdleTimeout closes a stream on which nothing happens; zero is 30 min,
	// negative never.
	IdleTimeout time.Duration
	// SilenceTimeout closes a stream on which a peer that has opened it says nothing
	// at all; zero is 30 s, negative never.
	SilenceTimeout time.Duration
	// DialTimeout bounds the setting up of a connection of ours, with its handshake; zero
	// is 10 s. Several requests for one destination wait for one dial.
	DialTimeout time.Duration
	// DialPause is how long a destination that could not be connected to is not tried
	// again, or three times as long as that took, up to 30 s: its error is known at once
	// meanwhile, so that the next address is tried, or UDP for a long request. One that
	// refuses at once is tried once more. 1024 are remembered. Zero is 1 s, negative: none
	// is.
	DialPause time.Duration
	// HandshakeTimeout and WriteTimeout bound a handshake and one write; zero
	// is 10 s.
	HandshakeTimeout, WriteTimeout time.Duration
}

// maxDatagram is what one UDP datagram over IPv4 can carry.
const maxDatagram = 65507

// check refuses what can be no limit of sending.
func (l Limits) check() error {
	if l.UDPRequestBytes < 0 || l.UDPRequestBytes > maxDatagram {
		return invalid("Limits.UDPRequestBytes %d", l.UDPRequestBytes)
	}
	if l.DialTimeout < 0 {
		return invalid("Limits.DialTimeout %v", l.DialTimeout)
	}
	return nil
}

const (
	defaultPendingPerCall = 256
	defaultSubscriptions  = 100
	defaultTombstones     = 10000
	defaultSubscribed     = 1000
	leastUnconfirmed      = 4
	// bytesPerCall is what a call may hold on average, leastCallBytes the bound of a
	// stack with few calls.
	bytesPerCall   = 16 << 10
	leastCallBytes = 16 << 20
	// maxSources bounds the IP addresses whose rate is kept.
	maxSources = 10000
)

// newUnconfirmed counts the calls that were answered and not acknowledged.
func newUnconfirmed(c *StackConfig) *unconfirmed.Calls[*Dialog] {
	most, perSource := c.unconfirmed(), c.Limits.UnconfirmedPerSource
	if perSource == 0 {
		perSource = min(most, max(leastUnconfirmed, (most+1)/2))
	}
	return unconfirmed.New(most, perSource, c.maxDialogs(), func(d *Dialog) netip.Addr { return transport.Source(d.source()) })
}

func (c *StackConfig) unconfirmed() int {
	if most := c.Limits.Unconfirmed; most != 0 {
		return max(0, most)
	}
	if c.maxDialogs() < 0 {
		return 0
	}
	return max(leastUnconfirmed, (c.maxDialogs()+1)/2)
}

func (c *StackConfig) callBytes() int {
	switch most := c.Limits.CallBytes; {
	case most > 0:
		return most
	case most < 0 || c.maxDialogs() < 0:
		return 0
	}
	return max(leastCallBytes, c.maxDialogs()*bytesPerCall)
}

func (c *StackConfig) transportLimits() transport.Limits {
	l := c.Limits
	return transport.Limits{
		HeaderBytes: l.HeaderBytes, Headers: l.Headers, BodyBytes: l.BodyBytes,
		Connections: l.Connections, Dials: l.Dials, Handshakes: l.Handshakes, StreamQueue: l.StreamQueue,
		ConnectionsPerSource: l.ConnectionsPerSource, HandshakesPerSource: l.HandshakesPerSource,
		StreamBytes: l.StreamBytes, SilenceTimeout: l.SilenceTimeout,
		UDPRequestBytes: l.UDPRequestBytes, DialTimeout: l.DialTimeout, DialPause: l.DialPause,
		IdleTimeout: l.IdleTimeout, HandshakeTimeout: l.HandshakeTimeout, WriteTimeout: l.WriteTimeout,
	}
}

// admission decides which INVITEs are taken. It is set at construction.
type admission struct {
	all     *rate.Bucket
	sources *rate.Sources[netip.Addr]
}

func newAdmission(l Limits) admission {
	return admission{
		all:     rate.NewBucket(l.InviteRate),
		sources: rate.NewSources[netip.Addr](l.InviteRatePerSource, maxSources),
	}
}

// admits reports whether an INVITE from that address may be taken now. A
// source over its own rate does not use up that of all.
func (a admission) admits(source netip.Addr) bool {
	now := time.Now()
	return a.sources.Take(source, now) && a.all.Take(now)
}

// sourceOf is the IP address that a message came from.
func sourceOf(source string) netip.Addr {
	address, err := netip.ParseAddrPort(source)
	if err != nil {
		return netip.Addr{}
	}
	return address.Addr().Unmap()
}

// unconfirmedNow counts a call that is answered. The result is called without locks.
func (d *Dialog) unconfirmedNow() (makeRoom func()) {
	if d.stack == nil {
		return func() {}
	}
	end, drop := d.stack.unconfirmed.Enter(d)
	return func() {
		cause := Cause{By: PartyTimeout, Method: "ACK", Err: ErrTimeout}
		if end != nil && end.endUnconfirmed(because(sip.StatusRequestTimeout, "no ACK", cause)) {
			d.stack.counters.unconfirmed.Add(1)
		}
		if drop != nil {
			drop.clear(cause)
		}
	}
}

// endUnconfirmed ends a call unless its ACK has come.
func (d *Dialog) endUnconfirmed(e *ending) bool {
	both := d.lockBoth()
	if d.phase != phaseAwaitingACK {
		both.unlock()
		return false
	}
	_, release := d.terminateWithLocked(e)
	both.unlock()
	release()
	return true
}

// confirmed counts it out.
func (d *Dialog) confirmed() {
	if d.stack != nil {
		d.stack.unconfirmed.Leave(d)
	}
}
