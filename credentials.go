package dialog

import (
	"context"
	"log/slog"
	"net/netip"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/auth"
	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/retry"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
	"sipdialog.example/dialog/internal/txn"
)

// Credentials are a user name and a password. Printed or logged, they hide the
// password.
type Credentials struct{ Username, Password string }

// String returns the user name.
func (c Credentials) String() string { return c.Username + ":***" }

// LogValue returns the value for a structured log.
func (c Credentials) LogValue() slog.Value { return slog.StringValue(c.String()) }

// Challenge is a digest challenge to a request of ours (RFC 3261 22, RFC 7616 3.3),
// without its nonce. Of several for one realm it is the one with the strongest
// algorithm.
type Challenge struct {
	// Realm is the name of the challenger's realm. It is not verified: any challenger
	// can use any name.
	Realm string
	// Proxy is true for a Proxy-Authenticate (407), false for a WWW-Authenticate.
	Proxy bool
	// Algorithm is "MD5" if the challenge has none. QOP is nil if it has none.
	Algorithm string
	QOP       []string
	// Stale is true if the nonce was too old, and the password not wrong.
	Stale bool
	// Method, From and RequestURI are the request's.
	Method     string
	From       Address
	RequestURI sip.Uri
	// Peer is the address of the first hop of the request; the challenger may be behind
	// it. Transport is "UDP", "TCP", "TLS", "WS" or "WSS".
	Peer      netip.AddrPort
	Transport string
	// Dialog is the call of the request; nil outside calls.
	Dialog *Dialog
	// Inbound is true in a call that the peer has placed, Referred in one that
	// follows a REFER: in both the peer has chosen where our requests go.
	Inbound, Referred bool
	// Known is true if the destination has been sent credentials of this realm before,
	// or is the OutboundProxy. Behind a proxy every place on the path of the request must
	// have been sent them, unless the proxy itself challenges.
	Known bool
}

// attempt answers the challenges of a request; nil without Credentials and
// Authenticate.
func (s *Stack) attempt(scope *auth.Scope) *auth.Attempt {
	if s.config.Credentials == nil && s.config.Authenticate == nil {
		return nil
	}
	return s.credentials.Begin(scope, s.config.RefuseLegacyDigest)
}

// Login asks the application for the answer to a challenge.
func (o *stackOwner) Login(ctx context.Context, sent retry.Sent, asked auth.Challenge) (auth.Login, bool) {
	return o.stack.login(ctx, sent, asked, nil)
}

func (o *callOwner) Login(ctx context.Context, sent retry.Sent, asked auth.Challenge) (auth.Login, bool) {
	return o.stack.login(ctx, sent, asked, o.dialog)
}

// login asks the application for the answer to a challenge, in a call unless d is nil.
func (s *Stack) login(ctx context.Context, sent retry.Sent, asked auth.Challenge, d *Dialog) (auth.Login, bool) {
	read, err := sipmsg.Parse(sent.Text)
	if err != nil {
		return auth.Login{}, false
	}
	req := read.Request()
	c := Challenge{
		Realm: asked.Realm, Proxy: asked.Proxy, Algorithm: asked.Algorithm, QOP: asked.QOP, Stale: asked.Stale,
		Method: string(req.Method), RequestURI: *req.Recipient.Clone(),
		From: Address{DisplayName: sipmsg.Unescape(req.From().DisplayName), URI: *req.From().Address.Clone()},
		Peer: sent.To.Hop, Transport: sent.Transport, Dialog: d, Known: s.credentials.Known(asked, sent.To, ""),
	}
	if d != nil {
		c.Inbound, c.Referred = d.IsUAS(), d.referral
	}
	found, ok := s.askCredentials(ctx, c)
	if ok && s.config.Authenticate == nil && c.ledByPeer() {
		ok = s.credentials.Known(asked, sent.To, found.Username)
	}
	if s.journal.Debugs() {
		log := s.log.With("call_id", sipheader.CallID(req))
		if d != nil {
			log = d.log()
		}
		log.Debug("credentials requested", "method", c.Method, "realm", c.Realm, "proxy", c.Proxy, "peer", c.Peer, "answered", ok)
	}
	return auth.Login(found), ok
}

// ledByPeer reports whether the peer has chosen the target of the request.
func (c Challenge) ledByPeer() bool { return c.Inbound || c.Referred }

// askCredentials calls the application's function. It does not in a call that the peer
// has placed, when the realm's credentials were never sent to that destination: the
// challenge may be an attempt to get a password.
func (s *Stack) askCredentials(ctx context.Context, c Challenge) (found Credentials, ok bool) {
	if s.config.Authenticate == nil && c.ledByPeer() && !c.Known {
		return Credentials{}, false
	}
	s.guard(s.logger, "credentials", func() {
		if s.config.Authenticate != nil {
			found, ok = s.config.Authenticate(ctx, c)
			return
		}
		found.Username, found.Password, ok = s.config.Credentials(c.Realm)
	}, nil)
	return found, ok
}

// Destination returns the destination of a request that will leave.
func (o *stackOwner) Destination(leaving *draft.Request, flow *transport.Flow, opt txn.RequestOptions) auth.Destination {
	s := o.stack
	to := retry.DestinationOf(leaving.Message().Request(), flow, opt.NextHop)
	if proxy, _ := s.config.outboundProxy(); proxy != nil {
		to.ProxyName = retry.PlaceOf(*proxy)
		byName := retry.PlaceOf(opt.NextHop) == to.ProxyName && !flow.Same(opt.Flow)
		to.Proxy = s.credentials.IsProxy(to.Hop, byName || to.Hop.String() == to.ProxyName)
	}
	return to
}
