package dialog

import (
	"net/netip"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/transport"
	"sipdialog.example/dialog/internal/unconfirmed"
)

// Limits bounds the memory and work that peers can cause. Rates and the number of
// dialogs for each source are bounded only if set; every other field has a default. A
// request beyond a limit gets 503 with Retry-After. Messages that cannot be answered are
// dropped. Both are counted in [Stats]. MaxDialogs is in StackConfig.
type Limits struct {
	// DialogsPerSource bounds the calls in progress from one IP address; zero means no
	// bound.
	DialogsPerSource int
	// Unconfirmed bounds the calls of peers that got a 200 and have not sent their ACK
	// yet. UnconfirmedPerSource bounds those of one IPv4 address, or one IPv6 network of
	// 64 bits. Beyond a bound the call that has waited longest ends, as if its ACK had
	// not come in time (Cause.Method is ACK). Zero means half of MaxDialogs, and half of
	// that, but at least four; negative, or zero without a MaxDialogs, means no bound.
	Unconfirmed, UnconfirmedPerSource int
	// CallBytes bounds the bytes of peers' messages that all calls hold: INVITEs, or
	// responses to ours, bodies that wait for a callback, REFERs whose outcome is not
	// reported, and the session descriptions that stand. Beyond it an INVITE that begins a
	// call, and a REFER, get 503; bodies are not kept for later, and [Dialog.Response] and
	// [Dialog.Session] have none. Zero means 16 KiB for each of MaxDialogs, and at least
	// 16 MiB; negative, or zero without a MaxDialogs, means no bound.
	CallBytes int
	// InviteRate and InviteRatePerSource bound the INVITEs outside dialogs that are
	// accepted in a second, altogether and from one IP address. As many may come at once
	// as in a second. Zero means no bound.
	InviteRate, InviteRatePerSource float64
	// PendingPerCall bounds the messages that wait for one Call-ID; zero means 256. 256
	// more may be BYE, PRACK and ACK, and the first final response to a request of ours
	// is always accepted. Other responses beyond the bound are dropped, and so are
	// retransmissions of a 2xx while one of them waits.
	PendingPerCall int
	// Transactions bounds the requests of peers that are being answered, or were
	// answered within the last 64*T1. TransactionBytes bounds the bytes that they hold,
	// estimated a little too high. Beyond either bound new requests get 503. Requests of
	// calls in progress may be an eighth more, and 256; the last eighth of the bytes is
	// reserved for them. Zero means 200000, and 256 MiB.
	Transactions, TransactionBytes int
	// SubscriptionsPerDialog bounds the REFERs of one call whose outcome is not
	// reported; zero means 100.
	SubscriptionsPerDialog int
	// SubscribedCalls bounds the ended calls with REFERs whose outcome is not reported,
	// and the REFERs outside calls. Beyond it the subscriptions of a call end with the
	// call. Zero means 1000. A subscription ends after an hour, however often it is
	// refreshed.
	SubscribedCalls int
	// Tombstones bounds the calls that are remembered for 64*T1 after their end. Beyond
	// it the oldest are forgotten early. Zero means 10000.
	Tombstones int
	// TakesPerSecond bounds how many calls the StackConfig.Store is asked for in any second
	// because of requests for calls that are not here; no more than 256 requests wait for it
	// at once. What it says is remembered for 32 s. Zero means 1000, negative no bound.
	TakesPerSecond int
	// HeaderBytes, Headers and BodyBytes bound one message: its start line and
	// header block (zero means 32 KiB), the number of its header values (256), and
	// its body (1 MiB). No header field may be longer than 65535 bytes.
	HeaderBytes, Headers, BodyBytes int
	// Connections bounds the streams that peers have opened, Dials the streams that this
	// side has opened, and Handshakes the peers' streams that are being set up. Zero
	// means 10000, as many as Connections, and 1000.
	Connections, Dials, Handshakes int
	// ConnectionsPerSource and HandshakesPerSource bound those of one IPv4 address, or
	// one IPv6 network of 64 bits. Zero means 1000 and 100, negative no bound.
	ConnectionsPerSource, HandshakesPerSource int
	// UDPRequestBytes is the length above which a request goes by TCP instead of UDP, if
	// the next hop accepts connections (RFC 3261 18.1.1). Zero means 1300; the largest
	// value is 65507.
	UDPRequestBytes int
	// StreamBytes bounds the bytes of incomplete and unwritten messages that all streams
	// together hold. Beyond it the streams whose messages have waited longest are
	// closed. Zero means 16 MiB.
	StreamBytes int
	// StreamQueue bounds the messages that wait to be written to one stream. Beyond it
	// the peer is too slow and the stream is closed. Zero means 2048: as many as a busy
	// trunk gets in a second or two, while StreamBytes bounds their bytes.
	StreamQueue int
	// IdleTimeout closes a stream without messages; zero means 30 min, negative never.
	IdleTimeout time.Duration
	// SilenceTimeout closes a stream on which the peer that has opened it sends nothing
	// at all; zero means 30 s, negative never.
	SilenceTimeout time.Duration
	// DialTimeout bounds the set-up of a connection of ours, with its handshake; zero
	// means 10 s. Several requests for one destination wait for one dial.
	DialTimeout time.Duration
	// DialPause is the time for which a destination is not tried again after a failed
	// dial. It is extended to three times the duration of that dial, up to 30 s.
	// Meanwhile requests get the error at once, so that the next address is tried, or UDP
	// for a long request. A destination that refuses at once is tried once more. 1024
	// destinations are remembered. Zero means 1 s, negative no pause.
	DialPause time.Duration
	// HandshakeTimeout and WriteTimeout bound a handshake and one write; zero means 10 s.
	HandshakeTimeout, WriteTimeout time.Duration
}

// maxDatagram is the largest payload of one UDP datagram over IPv4.
const maxDatagram = 65507

// check returns an error for a limit of sending that is out of range.
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
	// bytesPerCall is the average number of bytes that a call may hold, leastCallBytes the
	// bound of a stack with few calls.
	bytesPerCall   = 16 << 10
	leastCallBytes = 16 << 20
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

// sourceOf returns the IP address that a message came from.
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
