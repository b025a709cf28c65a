// Package auth answers digest challenges (RFC 3261 22, RFC 7616, RFC 8760) for
// a user agent client: any number of realms, of servers and proxies, in one
// request. It records the destination of each digest, and sends the digest again
// only there.
package auth

import (
	"context"
	"maps"
	"net/netip"
	"sync"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/draft"
)

// Login is a user name and a password.
type Login struct{ Username, Password string }

// Decide returns the user name and password for a challenge, or false. It runs
// with no lock held.
type Decide func(Challenge) (Login, bool)

// Destination describes where a request goes.
type Destination struct {
	// Hop is the address that the request is sent to.
	Hop netip.AddrPort
	// Target is the host and port of the Request-URI. Path has every place behind
	// Hop that the request names: further routes, and Target. It is empty if Hop is
	// the target itself. Both have the format of Place.
	Target string
	Path   []string
	// From and To are the sender and the recipient of the request: user and host.
	From, To string
	// InDialog is true for a request whose route the peer has set.
	InDialog bool
	// Proxy is true if Hop is the outbound proxy. ProxyName is the proxy's place as
	// configured, empty without a proxy.
	Proxy     bool
	ProxyName string
}

// Scope keeps the challenges of one Call-ID, so that its later requests carry
// credentials at once (RFC 3261 22.3). The zero value is ready to use. All methods
// may be called from any goroutine.
type Scope struct {
	mu sync.Mutex // guards the field below
	// known maps a space to the last answer for it, and the answer's destination.
	known map[space]lastSent
}

// lastSent is an answer, and the hop that it was sent to.
type lastSent struct {
	*answer
	hop netip.AddrPort
}

// maxSpaces bounds the realms of a scope: a path has few, but a hostile peer can send
// many.
const maxSpaces = 16

func (s *Scope) get(nextHop netip.AddrPort) map[space]*answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := make(map[space]*answer)
	for sp, was := range s.known {
		if was.hop == nextHop {
			found[sp] = was.answer
		}
	}
	return found
}

func (s *Scope) put(sp space, a *answer, nextHop netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = make(map[space]lastSent)
	}
	if _, found := s.known[sp]; !found && len(s.known) >= maxSpaces {
		clear(s.known)
	}
	s.known[sp] = lastSent{a, nextHop}
}

// forgetServers drops the answers to servers, and keeps those to proxies.
func (s *Scope) forgetServers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sp := range s.known {
		if !sp.proxy {
			delete(s.known, sp)
		}
	}
}

// maxTries bounds how often one request is sent again.
const maxTries = 8

// Attempt is one request and its retries. All methods may be called from any
// goroutine: a Decide may return after the request has gone to another server.
type Attempt struct {
	// Set at construction.

	cache *Cache
	scope *Scope
	// strict leaves challenges with MD5 and without qop unanswered.
	strict bool

	mu sync.Mutex // guards the fields below
	// round counts the servers that the request has been sent to.
	round int
	// asked has the spaces that challenged this request, with true if a stale nonce
	// of the space was accepted already; own has the answers to them.
	asked map[space]bool
	own   map[space]*answer
	tries int
	// written has the values that Authorize has put into the request. seq and hop
	// identify the copy of the request, and sent is true once it has been sent.
	written map[space]written
	seq     uint32
	hop     netip.AddrPort
	sent    bool
}

// written is a header value made from an answer, with the nth use of its nonce.
type written struct {
	*answer
	value string
	n     int
}

// Begin returns the attempt for a new request. If strict is true, challenges with MD5
// and without qop are not answered.
func (c *Cache) Begin(scope *Scope, strict bool) *Attempt {
	return &Attempt{
		cache: c, scope: scope, strict: strict,
		asked: make(map[space]bool), own: make(map[space]*answer),
	}
}

// Anew begins again with another server (RFC 3261 8.1.3.4). Refusals of the previous
// server do not count, and the new server does not get its credentials. Those for a
// proxy stay for requests to the same hop.
func (a *Attempt) Anew() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.asked)
	clear(a.own)
	a.tries = 0
	a.round++
	a.scope.forgetServers()
}

// Authorize puts credentials into a request that is about to be sent to the
// destination: for each realm that has challenged the request itself, another request
// of its Call-ID to the same hop, or a request outside it to the same destination. It
// replaces the credentials of earlier calls, and calls no Decide. The caller calls the
// result when the request has been written, or will not be sent unchanged. Requests with
// the same nonce are numbered and written one after the other, so that a server sees
// rising counts (RFC 7616 3.4). Authorize waits for the request before it until ctx ends,
// for half a second at most.
func (a *Attempt) Authorize(ctx context.Context, req *draft.Request, to Destination) (written func(sent bool)) {
	answers := a.answers(to)
	leave := enter(ctx, answers)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.writeLocked(req, to, answers)
	return func(sent bool) {
		leave()
		a.mu.Lock()
		defer a.mu.Unlock()
		a.sent = a.sent || sent
	}
}

func (a *Attempt) writeLocked(req *draft.Request, to Destination, answers map[space]*answer) {
	a.removeLocked(req)
	before := a.written
	if seq := req.CSeq(); a.sent || seq != a.seq || to.Hop != a.hop {
		a.sent, a.seq, a.hop, before = false, seq, to.Hop, nil
	}
	a.written = make(map[space]written)
	for sp, known := range answers {
		w := before[sp] // the same copy may be prepared again, for another transport
		if w.answer != known || !known.count.isLatest(w.n) {
			n := known.count.next()
			value, err := known.credentials(req, n)
			if err != nil {
				continue
			}
			w = written{known, value, n}
		}
		a.written[sp] = w
		req.Add(sp.header(), w.value)
		a.scope.put(sp, known, to.Hop)
		a.cache.put(sp, known, to)
	}
}

// answers returns the answers for the request. Answers to its own challenges take
// precedence over those to other requests.
func (a *Attempt) answers(to Destination) map[space]*answer {
	answers := a.cache.get(to)
	maps.Copy(answers, a.scope.get(to.Hop))
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.Copy(answers, a.own)
	return answers
}

// removeLocked removes the headers that Authorize has written. Headers of the
// application stay.
func (a *Attempt) removeLocked(req *draft.Request) {
	for sp, w := range a.written {
		req.RemoveIf(sp.header(), func(value string) bool { return value == w.value })
	}
}

// Challenged handles a 401 or 407 and reports whether the request should be sent again:
// there are credentials for a challenge in the response, and no credentials that were
// sent have been refused. A stale nonce is renewed once. Challenged calls decide, which
// may block; its result is ignored after Anew.
func (a *Attempt) Challenged(res *sip.Response, decide Decide) bool {
	round, ok := a.begin()
	if !ok {
		return false
	}
	learnt := make(map[space]*answer)
	for sp, challenge := range challengesIn(res, a.strict) {
		if !a.mayAnswer(sp, challenge.Stale) {
			return false
		}
		login, ok := decide(viewOf(sp, challenge))
		if ok && login.valid() {
			learnt[sp] = a.cache.answer(challenge, login)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.round != round {
		return false
	}
	for sp, known := range learnt {
		_, stale := a.asked[sp]
		a.asked[sp] = stale
		a.own[sp] = known
	}
	return len(learnt) > 0
}

// begin counts a try; ok is false beyond maxTries.
func (a *Attempt) begin() (round int, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tries++
	return a.round, a.tries <= maxTries
}

// mayAnswer reports whether a challenge may be answered. A space that challenges again
// after an answer has refused the password (RFC 3261 22.1), unless it calls the nonce
// stale for the first time.
func (a *Attempt) mayAnswer(sp space, stale bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	forgiven, asked := a.asked[sp]
	return !asked || stale && !forgiven
}
