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
// default. The stack keeps an unmodified copy.
type StackConfig struct {
	// Transport is the address to listen on; nil means DefaultTransportConfig.
	Transport *TransportConfig
	// UserAgent is sent as User-Agent; empty means "SoftPhone/1.0".
	UserAgent string
	// TxTimeout replaces Timers B and F of RFC 3261 17.1: the time that a request waits
	// for its final response. Zero means 64*T1: 32 s.
	TxTimeout time.Duration
	// MaxDialogs bounds the calls in progress. An INVITE beyond it gets 503, unless it
	// replaces a call of this stack (RFC 3891). Zero means 1000, negative no bound.
	MaxDialogs int
	// Logger gets the stack's log records if Slog is nil.
	Logger *log.Logger

	// Listeners are further addresses to listen on, with the same or another
	// transport.
	Listeners []TransportConfig
	// TLS has the root and client certificates for connections that we open. Nil means
	// the TLSConfig of the first listener that has one, else the system's roots. The
	// server's name is always checked.
	TLS *tls.Config
	// Resolver finds the addresses of host names. Nil means the names of Network, if it
	// has any, else Go's resolver.
	Resolver *net.Resolver
	// NAT sets when a request inside a call goes to the source of the peer's messages
	// instead of to its Contact.
	NAT NATPolicy
	// MoveFlow sets when the flow to a peer behind a NAT follows its messages.
	MoveFlow MovePolicy
	// MoveCredentials, unless nil, makes a peer prove its identity before it moves a call
	// further than MoveFlow permits. MoveFlow must then not be MoveInOrder. The function
	// returns the credentials of the peer of a call, for the realm whose password its
	// telephone has, or false for a peer without credentials: then MoveFlow alone decides.
	//
	// A request of the peer on another flow that would change the destination of requests,
	// and a re-INVITE or UPDATE with another Contact, get 401 with a digest challenge (RFC
	// 3261 22.2, RFC 8760) until they carry the right credentials. A BYE is not challenged,
	// since it moves nothing. An ACK or a CANCEL cannot be challenged (RFC 3261 22.1), and
	// neither can responses. All of these have their usual effect, and move the call as far
	// as MoveFlow permits.
	//
	// The function is called like a RequestHandler, once for each call, with its first such
	// request. The request waits for two seconds at most, and gets 500 after a panic.
	MoveCredentials func(ctx context.Context, d *Dialog) (realm string, c Credentials, ok bool)
	// LearnPublicAddress puts the public address into Via and Contact of later messages
	// to a peer: the address and port that the peer's latest response to a request of
	// ours has reported (RFC 3261 18.2.1, RFC 3581), if they are not our own because of
	// a NAT. The first request to a peer has our own address, and so has a call until
	// the next message with a Contact. A configured PublicAddress or PublicPort takes
	// precedence. See also [Stack.PublicAddr].
	LearnPublicAddress bool
	// KeepAlive, if positive, is the longest silence on a connection that we opened
	// before a keep-alive is sent: a double CRLF (RFC 5626 3.5.1), or a ping on a
	// WebSocket. If the peer does not answer within ten seconds, the connection is lost;
	// so the peer must support keep-alives. Keep-alives of peers are always answered.
	// Zero sends none. On a connection that we opened KeepAlive takes precedence over
	// FlowKeepAlive, even if that is shorter.
	KeepAlive time.Duration
	// FlowKeepAlive is the longest silence on the path of a call in progress, and of a
	// registration of ours (REGISTER by [Stack.Do]) while it lasts. A keep-alive is sent
	// after 80 to 100 % of it. Zero means 25 s, negative sends none.
	//
	// Over UDP the keep-alive is a double CRLF, which needs no answer. It is sent only
	// through a NAT: the peer's (see NAT) or ours, which the peer's responses reveal (see
	// [Stack.PublicAddr]). On a WebSocket it is a ping, since proxies close a WebSocket
	// after a minute of silence. On TCP and TLS it is a double CRLF after at least two
	// minutes. A peer that has answered one before must answer. A connection without an
	// answer for ten seconds is lost, as with KeepAlive. If KeepAlive is positive, it
	// replaces FlowKeepAlive on connections that we opened.
	FlowKeepAlive time.Duration
	// FollowMaddr sends responses over UDP to the maddr parameter of the request's Via
	// (RFC 3261 18.2.2). A sender can name any address there, even a broadcast or
	// multicast address: set FollowMaddr only if every sender is trusted. Otherwise
	// responses go back to the sender.
	FollowMaddr bool
	// Slog gets the stack's log records; those of a call have its "call_id". LevelDebug
	// has a line for each call placed or received, state, message, decided offer,
	// request for credentials and end, with the method and the peer's address. Higher
	// levels have only records that need attention. Slog's handler runs on its own
	// goroutine, one record at a time, with no lock held, and may block; 1000 records
	// wait for it, more are dropped (Stats.Dropped, "records"). The stack checks once a
	// second, while there are messages, whether LevelDebug is enabled. If Slog and Logger
	// are nil, nothing is logged.
	Slog *slog.Logger
	// Timers are T1, T2 and T4 of RFC 3261 17.
	Timers Timers
	// RingingLimit bounds the time before the final response to an INVITE. An outgoing
	// call, or a re-INVITE that gets provisional responses only, is cancelled; an
	// incoming call gets 480. Zero is 180 s, negative means no bound.
	RingingLimit time.Duration
	// SessionExpires is the session interval (RFC 4028) that our INVITEs request and
	// our 2xx set. Zero requests none, and accepts the interval of a peer.
	SessionExpires time.Duration
	// MinSE is the smallest session interval that is accepted; a smaller one gets 422.
	// It is at least 90 s.
	MinSE time.Duration
	// Reliable sets the use of reliable provisional responses (RFC 3262).
	Reliable Reliability
	// KeepUnanswered keeps a call in which an INFO, UPDATE or REFER of ours gets no
	// response for TxTimeout, or a 408. Otherwise such a call ends, as RFC 3261 12.2.1.2
	// requires. A re-INVITE without a response, and a session that is not refreshed,
	// always end the call.
	KeepUnanswered bool
	// NoRetry switches off the second try of a re-INVITE or UPDATE after a 491, and
	// after a 500 or 503 with Retry-After.
	NoRetry bool
	// InfoPackages are the Info Packages that we accept in every call (RFC 6086 5):
	// INVITEs and their responses list them, and an INFO of another package gets 469.
	// Nil sends a list only if the peer does. An empty list means that we support Info
	// Packages and accept none.
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
	// Network opens the sockets; nil means the operating system's network.
	Network Network
	// From is the caller (NewInvite), unless InviteOpts.From names another. Nil means a
	// user with the UserAgent's name. An empty host becomes the address at which the
	// peer reaches us.
	From *Address
	// OutboundProxy is the first hop of calls (RFC 3261 8.1.2). An lr parameter is
	// added if it has none. It may be the URL of a WebSocket server, as sip.ParseUri
	// reads it: "wss://pbx.example:8089/ws".
	OutboundProxy *sip.Uri
	// Credentials returns the user name and password for a realm, or false. It is
	// called when a request is challenged (401, 407; RFC 3261 22), with no lock held,
	// on a goroutine of the stack. In a call that the peer has placed, or that follows a
	// REFER, it is called only for a destination that has been sent credentials of that
	// realm before, or for the OutboundProxy, since anybody can use the name of a realm.
	// Later requests of the call carry the same credentials, as long as they go to the
	// same address. So do requests outside the call to the same destination. See
	// docs/security.md. Without Credentials and Authenticate no challenge is answered.
	Credentials func(realm string) (username, password string, ok bool)
	// Authenticate, unless nil, is called instead of Credentials for every challenge,
	// and gets the whole challenge. It runs like Credentials. ctx ends with TxTimeout;
	// the challenge is then the outcome of the request.
	Authenticate func(ctx context.Context, challenge Challenge) (Credentials, bool)
	// RefuseLegacyDigest leaves challenges with MD5 and without qop unanswered: the
	// password is the only input of such a digest that the challenger does not choose,
	// so that it can look the password up in a table made beforehand (RFC 7616 5.9,
	// 5.10).
	RefuseLegacyDigest bool
	// IdentityFrom lists the hops whose P-Asserted-Identity is used (RFC 3325 6): those
	// of the trust domain, a proxy or a PBX. Nil uses that of every sender, only for the
	// peer's identity (Info, OnIdentity): it is then no better than a From, which anybody
	// can write too. An empty list uses none.
	IdentityFrom []netip.Prefix
	// AuthorizeReplaces decides whether an INVITE with Replaces may replace a call (RFC
	// 3891 3, 8). Nil permits it to every sender that can name the call by its Call-ID
	// and two tags. Our tag has 64 random bits, so only the elements on the call's path,
	// and those that learnt the tags from them, can name it. If these are too many, the
	// function can check more: TakeoverRequest.FromPeer, the Source, credentials.
	AuthorizeReplaces TakeoverHandler
	// AuthorizeJoin decides whether an INVITE with Join may join a call (RFC 3911 4).
	// Nil means that the application cannot join calls: such an INVITE gets 488, and
	// join is not in Supported.
	AuthorizeJoin TakeoverHandler
	// TargetDialog announces tdialog in Supported (RFC 4538). Set it if the application
	// accepts REFERs outside calls: its handler for them (Stack.OnRequest) finds the call
	// of a REFER with Stack.TargetDialog. Peers then send REFERs outside the call (RFC
	// 5589 6.1).
	TargetDialog bool
	// Limits bounds the memory and work that peers can cause.
	Limits Limits
	// Store, unless nil, keeps the calls of this process, so that they outlive it: another
	// process with the same Store goes on with them. Its methods are called with no lock
	// held, at any time from several goroutines. See docs/cluster.md.
	Store Store
	// Node begins the name under which this process owns its calls in the Store
	// (Record.Owner); random digits follow, so that a process that was started anew is
	// another owner. It is visible ASCII; empty means "node".
	Node string
	// Durability says whether an answer waits until the call is saved; the zero value,
	// BeforeAnswer, does.
	Durability Durability
	// StoreTimeout bounds how long a message of a call waits for the Store. After it the
	// call goes on, and Stats.Unsaved counts that; it is saved as soon as the Store answers.
	// While the Store is known not to answer, a message waits a tenth of that.
	// Zero means 250 ms.
	StoreTimeout time.Duration
	// Seal and Open, unless nil, encrypt the records of the Store, and decrypt them: package
	// store/seal has both. They are called with no lock held, from any goroutine, and do not
	// keep their argument. A record that Seal refuses is not saved, as if the Store did not
	// answer; a request for a call whose record Open refuses gets 503, and the record stays.
	Seal, Open func(data []byte) ([]byte, error)
	// TakeoverFilter, unless nil, says which calls of the Store this process goes on with; it
	// is called before a call is restored, from any goroutine, and returns soon. A request for
	// another call gets 503, so that the peer, or a proxy, tries another process. The snapshot
	// is the function's own.
	TakeoverFilter func(*Snapshot) bool
	// Trace is called for every SIP message that was read or will be written, and for a
	// request before any response to it. No lock is held, but reading and writing wait
	// for it, so it must return quickly. A panic or runtime.Goexit in it is counted, and
	// ends only the call of Trace.
	Trace func(TraceEvent)
}

// Timers are the times from which all others derive (RFC 3261 17, Table 4).
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
	OnRestored       func(*Dialog, Takeover)
	OnFlowLost       func(*Flow, error)
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
	if err := firstError(c.checkTexts(), c.Limits.check(), c.checkStore()); err != nil {
		return err
	}
	if min(c.TxTimeout, c.GraceTime, c.KeepAlive, c.Timers.T1, c.Timers.T2, c.Timers.T4) < 0 {
		return fmt.Errorf("%w: negative time", ErrInvalidArgument)
	}
	if c.MoveFlow < MoveInOrder || c.MoveFlow > MoveNever {
		return fmt.Errorf("%w: MoveFlow %d", ErrInvalidArgument, c.MoveFlow)
	}
	if c.MoveCredentials != nil && c.MoveFlow == MoveInOrder {
		return fmt.Errorf("%w: MoveCredentials without effect with this MoveFlow", ErrInvalidArgument)
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
