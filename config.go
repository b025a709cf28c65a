package dialog

import (
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/transport"
)

// StackConfig configures a [Stack]. The zero value works: every field has a
// default, applied where it is used; the stack keeps an unmodified copy.
type StackConfig struct {
	// Transport says where to listen; nil is DefaultTransportConfig.
	Transport *TransportConfig
	// UserAgent is sent as User-Agent; empty is "SoftPhone/1.0".
	UserAgent string
	// TxTimeout replaces Timers B and F of RFC 3261 17.1: how long a request
	// waits for an answer. Zero is 64*T1: 32 s.
	TxTimeout time.Duration
	// MaxDialogs bounds the calls in progress. An INVITE beyond it gets 503, unless it
	// replaces a call that is here (RFC 3891). Zero is 1000, negative means no bound.
	MaxDialogs int
	// Logger gets what the stack logs when Slog is nil.
	Logger *log.Logger

	// Listeners are further addresses to listen on, with the same or other
	// transports.
	Listeners []TransportConfig
	// TLS has the root and client certificates for connections that we open. Nil is the
	// TLSConfig of the first listener that has one, else the system's roots. The
	// server's name is always checked.
	TLS *tls.Config
	// Resolver finds the addresses of host names. Nil is Network's, if it has names,
	// else Go's own.
	Resolver *net.Resolver
	// NAT says when a request inside a call goes to the source of the peer's messages
	// rather than to its Contact.
	NAT NATPolicy
	// MoveFlow says when the flow to a peer behind a NAT follows its messages.
	MoveFlow MovePolicy
	// MoveCredentials, unless nil, has a peer prove who it is before it moves a call
	// beyond what MoveFlow permits, which must not be MoveInOrder. It returns what the
	// peer of a call has to know, for the realm that its telephone has the password of, or
	// false for a peer that has no credentials: then MoveFlow alone decides.
	//
	// A request of the peer's that comes by another flow, and would change where requests
	// go, or a re-INVITE or UPDATE with another Contact, is answered 401 with a digest
	// challenge (RFC 3261 22.2, RFC 8760), until it carries the right credentials. Not so a BYE, which moves
	// nothing, an ACK or a CANCEL, which cannot be answered so (RFC 3261 22.1), and
	// responses: they do what they say, and move the call as far as MoveFlow permits.
	//
	// It is called as a RequestHandler is, once a call, when such a request comes first:
	// that waits for two seconds at most, and gets 500 after a panic.
	MoveCredentials func(ctx context.Context, d *Dialog) (realm string, c Credentials, ok bool)
	// LearnPublicAddress has Via and Contact of later messages to a peer say the address
	// and port that it sees, as its latest response to a request of ours has said
	// (RFC 3261 18.2.1, RFC 3581), where that is not our own: a NAT is on the way. The
	// first request to a peer has our own address, of course, and so has a call until its
	// Contact is next told. Where a PublicAddress or PublicPort is configured those are
	// told. See also [Stack.PublicAddr].
	LearnPublicAddress bool
	// KeepAlive, when positive, is the longest silence on a connection that we
	// opened before a keep-alive is sent: a double CRLF (RFC 5626 3.5.1), a ping
	// on a WebSocket. A peer that does not answer it within ten seconds has lost
	// the connection, so it must know keep-alives. Those of peers are always
	// answered. Zero: none are sent. On a connection that we opened it wins over
	// FlowKeepAlive, also where that is shorter.
	KeepAlive time.Duration
	// FlowKeepAlive is the longest silence on the way of a call in progress, and of a
	// registration of ours (REGISTER by [Stack.Do]) while it lasts, after 80 to
	// 100 % of which something is sent to keep it open; zero is 25 s, negative means that
	// nothing is. Over UDP that is a double CRLF, which nobody answers, and only where a
	// NAT is on the way: the peer's (see NAT) or ours (its responses say so, see
	// [Stack.PublicAddr]). On a WebSocket, which proxies close that is silent for a
	// minute, it is a ping. On TCP and TLS it is a double CRLF after two minutes at least,
	// which must be answered by who has answered one before. A connection that is not
	// answered for ten seconds is lost, as with KeepAlive. A connection that we opened has
	// the keep-alives of KeepAlive instead, where that is positive.
	FlowKeepAlive time.Duration
	// FollowMaddr sends responses over UDP to the maddr parameter of the request's Via
	// (RFC 3261 18.2.2). A sender can name any address there, a broadcast or multicast
	// address too: set it only where every sender is trusted. Otherwise responses go
	// back to the sender.
	FollowMaddr bool
	// Slog gets what the stack logs, of a call with its "call_id": at LevelDebug a
	// line for each call made or taken, state, message, offer decided, credentials
	// asked and end, with the method and the peer's address; above that only what
	// somebody has to see to. Its handler is called on a goroutine of its own, one
	// record at a time, with no lock held, and may do what it likes; 1000 records
	// wait for it, more are dropped (Stats.Dropped, "records"). Whether it takes
	// LevelDebug is asked once a second while there are messages. With neither
	// there is silence.
	Slog *slog.Logger
	// Timers are T1, T2 and T4 of RFC 3261 17.
	Timers Timers
	// RingingLimit bounds the time before the final response to an INVITE. An outgoing
	// call, or a re-INVITE that gets provisional responses only, is cancelled; an
	// incoming call gets 480. Zero is 180 s, negative means no bound.
	RingingLimit time.Duration
	// SessionExpires is the session interval (RFC 4028) that our INVITEs ask for and
	// our 2xx demand. Zero asks for none, and obeys a peer that asks.
	SessionExpires time.Duration
	// MinSE is the smallest session interval that is accepted; a smaller one gets 422.
	// It is at least 90 s.
	MinSE time.Duration
	// Reliable says how provisional responses are made reliable (RFC 3262).
	Reliable Reliability
	// KeepUnanswered keeps a call in which an INFO, UPDATE or REFER of ours gets no
	// response for TxTimeout, or a 408. Without it such a call ends, as RFC 3261
	// 12.2.1.2 demands. A re-INVITE without a response, and a session that is not
	// refreshed, end the call all the same.
	KeepUnanswered bool
	// NoRetry switches off the second try of a re-INVITE or UPDATE after a 491, and
	// after a 500 or 503 with Retry-After.
	NoRetry bool
	// InfoPackages are the Info Packages that we accept in every call (RFC 6086 5):
	// INVITEs and their responses list them, and an INFO of another package gets 469.
	// Nil lists packages only when the peer does. An empty list says that we know
	// packages and accept none.
	InfoPackages []string
	// NoAutoRinging switches off the 180 that answers an INVITE before
	// OnIncomingDialog runs.
	NoAutoRinging bool
	// GraceTime bounds how long a method waits for the callbacks that it caused, and
	// Shutdown for callbacks that do not return. Zero is 5 s.
	GraceTime time.Duration
	// AcceptBodies lists the content types that an INVITE or UPDATE may carry, alone or
	// in the parts that are not optional (RFC 5621). Another type gets 415. Empty means
	// all.
	AcceptBodies []string
	// Network opens the sockets; nil is the operating system's.
	Network Network
	// From is the caller (NewInvite), unless InviteOpts.From names another. Nil is a
	// user of the UserAgent's name. An empty host becomes the address by which the peer
	// reaches us.
	From *Address
	// OutboundProxy is the first hop of calls (RFC 3261 8.1.2). An lr parameter is
	// added if it has none. It may be the URL of a WebSocket server, as sip.ParseUri
	// reads it: "wss://pbx.example:8089/ws".
	OutboundProxy *sip.Uri
	// Credentials returns the user name and password for a realm, or false. It
	// is asked when a request is challenged (401, 407; RFC 3261 22), with no lock
	// held, on a goroutine of the stack's. In a call that the peer has placed, or
	// that follows a REFER, it is asked only by who has been sent credentials of
	// that realm before, and by the OutboundProxy: realms are names that anybody
	// can use. Later requests of the call carry what was sent, as long as they go
	// the same way, and so do requests outside it, to the same destination. See
	// docs/security.md. With neither this nor Authenticate none are answered.
	Credentials func(realm string) (username, password string, ok bool)
	// Authenticate, unless nil, is called instead of Credentials for every challenge,
	// and decides by the whole challenge. It is called as Credentials is. ctx ends with
	// TxTimeout; the challenge is then the outcome of the request.
	Authenticate func(ctx context.Context, challenge Challenge) (Credentials, bool)
	// RefuseLegacyDigest leaves challenges with MD5 and without qop unanswered: the
	// password is the only input of such a digest that the challenger does not choose,
	// so that it can look the password up in a table made beforehand (RFC 7616 5.9,
	// 5.10).
	RefuseLegacyDigest bool
	// IdentityFrom lists the hops whose P-Asserted-Identity is heeded (RFC 3325 6): those
	// of the trust domain, a proxy or a PBX. Nil heeds everybody's, for who is there
	// (Info, OnIdentity) but for nothing else: it is then no better than a From, which
	// anybody can write as well. An empty list heeds nobody's.
	IdentityFrom []netip.Prefix
	// AuthorizeReplaces decides whether an INVITE with Replaces may replace a call (RFC
	// 3891 3, 8). Nil permits it to every sender that can name the call by its Call-ID
	// and two tags. Our tag is 64 random bits, so that only the elements on the call's
	// path, and those that were told, can. Where these are too many, ask for more:
	// TakeoverRequest.FromPeer, the Source, credentials.
	AuthorizeReplaces TakeoverHandler
	// AuthorizeJoin decides whether an INVITE with Join may join a call (RFC 3911 4).
	// Nil says that the application cannot join calls: such an INVITE gets 488, and
	// join is not in Supported.
	AuthorizeJoin TakeoverHandler
	// TargetDialog announces tdialog in Supported (RFC 4538). Set it if the application
	// takes REFERs outside calls: its handler for them (Stack.OnRequest) finds the call
	// to which a REFER belongs by Stack.TargetDialog. Peers then send REFERs outside
	// the call (RFC 5589 6.1).
	TargetDialog bool
	// Limits bounds what peers can make the stack hold or do.
	Limits Limits
	// Trace is called for every SIP message that was read or will be written, for a
	// request before any response to it. No lock is held, but reading and writing wait
	// for it: it must return quickly. A panic or runtime.Goexit in it is counted, and
	// ends nothing else.
	Trace func(TraceEvent)
}

// Timers are the times that all others derive from (RFC 3261 17, Table 4).
type Timers struct {
	T1 time.Duration // estimate of the round trip; zero is 500 ms
	T2 time.Duration // longest interval between repetitions; zero is 4 s
	T4 time.Duration // how long a message stays in the network; zero is 5 s
}

// TraceEvent is a message on the wire.
type TraceEvent struct {
	Time          time.Time
	Outbound      bool
	Transport     string
	Local, Remote netip.AddrPort
	// Data is the message's bytes, valid during the call only.
	Data []byte
}

// StackCallbacks are the callbacks of a stack.
type StackCallbacks struct {
	OnIncomingDialog func(IDialog)
	OnIncomingRefer  func(dialog IDialog, referTo sip.Uri, replaces *ReplacesInfo)
	OnReferRequest   ReferHandler
}

const (
	defaultUserAgent    = "SoftPhone/1.0"
	defaultMaxDialogs   = 1000
	defaultRingingLimit = 180 * time.Second
	defaultGraceTime    = 5 * time.Second
	defaultKeepAlive    = 25 * time.Second
	busyRetrySeconds    = 10
)

// validate reports why the configuration cannot be used.
func (c *StackConfig) validate() error {
	for _, tc := range c.listeners() {
		if err := tc.Validate(); err != nil {
			return err
		}
	}
	if _, err := c.outboundProxy(); err != nil {
		return err
	}
	if err := firstError(c.checkTexts(), c.Limits.check()); err != nil {
		return err
	}
	if min(c.TxTimeout, c.GraceTime, c.KeepAlive, c.Timers.T1, c.Timers.T2, c.Timers.T4) < 0 {
		return fmt.Errorf("%w: negative time", ErrInvalidArgument)
	}
	if c.MoveFlow < MoveInOrder || c.MoveFlow > MoveNever {
		return fmt.Errorf("%w: MoveFlow %d", ErrInvalidArgument, c.MoveFlow)
	}
	if c.MoveCredentials != nil && c.MoveFlow == MoveInOrder {
		return fmt.Errorf("%w: MoveCredentials, and a MoveFlow that never asks for them", ErrInvalidArgument)
	}
	if c.Reliable < ReliableSupported || c.Reliable > ReliableRequired {
		return fmt.Errorf("%w: Reliable %d", ErrInvalidArgument, c.Reliable)
	}
	return nil
}

func (c *StackConfig) transport() *TransportConfig {
	if c.Transport == nil {
		return DefaultTransportConfig()
	}
	return c.Transport
}

// listeners are all addresses to listen on.
func (c *StackConfig) listeners() []*TransportConfig {
	list := []*TransportConfig{c.transport()}
	for i := range c.Listeners {
		list = append(list, &c.Listeners[i])
	}
	return list
}

func (c *StackConfig) clientTLS() *tls.Config {
	if c.TLS != nil {
		return c.TLS
	}
	for _, tc := range c.listeners() {
		if tc.TLSConfig != nil {
			return tc.TLSConfig
		}
	}
	return nil
}

// resolver keeps a nil pointer from becoming a Resolver that is not nil.
func (c *StackConfig) resolver() transport.Resolver {
	if c.Resolver == nil {
		return nil
	}
	return c.Resolver
}

func (c *StackConfig) userAgent() string {
	if c.UserAgent == "" {
		return defaultUserAgent
	}
	return c.UserAgent
}

func (c *StackConfig) maxDialogs() int { return orDefault(c.MaxDialogs, defaultMaxDialogs) }

func (c *StackConfig) ringingLimit() time.Duration {
	return orDefault(c.RingingLimit, defaultRingingLimit)
}

func (c *StackConfig) graceTime() time.Duration { return orDefault(c.GraceTime, defaultGraceTime) }

func (c *StackConfig) timers() Timers {
	return Timers{
		T1: orDefault(c.Timers.T1, 500*time.Millisecond),
		T2: orDefault(c.Timers.T2, 4*time.Second),
		T4: orDefault(c.Timers.T4, 5*time.Second),
	}
}

func (c *StackConfig) txTimeout() time.Duration {
	return orDefault(c.TxTimeout, 64*c.timers().T1)
}

func orDefault[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}
