// Package auth answers digest challenges (RFC 3261 22, RFC 7616, RFC 8760) for
// a user agent client: any number of realms, of servers and proxies, in one
// request. It knows to which destination each digest was sent, and repeats it
// there only.
package auth

import (
	"context"
	"maps"
	"net/netip"
	"sync"

	"github.com/emiago/sipgo/sip"
)

// Login is a user name and a password.
type Login struct{ Username, Password string }

// Decide returns the user name and password for a challenge, or false. It is
// called with no lock held.
type Decide func(Challenge) (Login, bool)

// Destination is where a request goes.
type Destination struct {
	// Hop is the address that it is sent to.
	Hop netip.AddrPort
	// Target is the host and port of the Request-URI, and Path every place behind
	// Hop that the request names: further routes, and Target. Path is empty when
	// Hop is the target itself. Places are written as Place does.
	Target string
	Path   []string
	// From and To are who sends it, and whom it is for: user and host.
	From, To string
	// InDialog is true for a request whose way the peer has named.
	InDialog bool
	// Proxy is true when Hop is the outbound proxy, and ProxyName its place as
	// configured; empty: there is none.
	Proxy     bool
	ProxyName string
}

// Scope keeps the challenges of one Call-ID, so that later requests of it carry
// credentials at once (RFC 3261 22.3). The zero value is ready; all methods may be
// called from any goroutine.
type Scope struct {
	mu sync.Mutex // guards the field below
	// known maps a space to what was last sent for it, and where to.
	known map[space]lastSent
}

// lastSent is an answer, and the hop it was sent to.
type lastSent struct {
	*answer
	hop netip.AddrPort
}

// maxSpaces bounds the realms of a scope: a path has few, a hostile peer many.
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

// forgetServers drops what is not a proxy's.
func (s *Scope) forgetServers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sp := range s.known {
		if !sp.proxy {
			delete(s.known, sp)
		}
	}
}

// maxTries bounds how often one request is sent anew.
const maxTries = 8

// Attempt is one request and its retries. All methods may be called from any
// goroutine: a Decide may answer after the request has gone elsewhere.
type Attempt struct {
	// Set at construction.

	cache *Cache
	scope *Scope
	// strict leaves challenges with MD5 and without qop unanswered.
	strict bool

	mu sync.Mutex // guards the fields below
	// round counts the servers that the request has been sent to.
	round int
	// asked are the spaces that challenged this request, and whether a stale
	// nonce of theirs was forgiven already; own is what answers them.
	asked map[space]bool
	own   map[space]*answer
	tries int
	// written is what Authorize has put into the request, seq and hop say for which
	// sending of it, and sent whether it has left like that.
	written map[space]written
	seq     uint32
	hop     netip.AddrPort
	sent    bool
}

// written is a header value that an answer has made, the nth of its nonce.
type written struct {
	*answer
	value string
	n     int
}

// Begin returns the attempt of a new request. strict leaves challenges with MD5
// and without qop unanswered.
func (c *Cache) Begin(scope *Scope, strict bool) *Attempt {
	return &Attempt{
		cache: c, scope: scope, strict: strict,
		asked: make(map[space]bool), own: make(map[space]*answer),
	}
}

// Anew begins again with another server (RFC 3261 8.1.3.4): what the one before
// has refused does not count, and it does not get that one's credentials. Those
// of a proxy stay for requests by the same way.
func (a *Attempt) Anew() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.asked)
	clear(a.own)
	a.tries = 0
	a.round++
	a.scope.forgetServers()
}

// Authorize puts credentials into a request that is about to be sent to that
// destination: for each realm that has challenged the request itself, another one
// of its Call-ID on the same way, or one outside it to the same destination. It
// replaces what it has put there before, and asks nobody. What it returns is called
// when the request has been written, or is not to be as it stands: requests that use
// one nonce are numbered and written one after the other, so that a server sees the
// counts rise (RFC 7616 3.4). It waits for the one before until ctx ends, for a moment
// at most.
func (a *Attempt) Authorize(ctx context.Context, req *sip.Request, to Destination) (written func(sent bool)) {
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

func (a *Attempt) writeLocked(req *sip.Request, to Destination, answers map[space]*answer) {
	a.removeLocked(req)
	before := a.written
	if seq := req.CSeq().SeqNo; a.sent || seq != a.seq || to.Hop != a.hop {
		a.sent, a.seq, a.hop, before = false, seq, to.Hop, nil
	}
	a.written = make(map[space]written)
	for sp, known := range answers {
		w := before[sp] // it may be made ready again, for another transport
		if w.answer != known || !known.count.isLatest(w.n) {
			n := known.count.next()
			value, err := known.credentials(req, n)
			if err != nil {
				continue
			}
			w = written{known, value, n}
		}
		a.written[sp] = w
		req.AppendHeader(sip.NewHeader(sp.header(), w.value))
		a.scope.put(sp, known, to.Hop)
		a.cache.put(sp, known, to)
	}
}

// answers returns what the request carries. What it was challenged for itself goes
// before what others were.
func (a *Attempt) answers(to Destination) map[space]*answer {
	answers := a.cache.get(to)
	maps.Copy(answers, a.scope.get(to.Hop))
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.Copy(answers, a.own)
	return answers
}

// removeLocked takes out what Authorize has written. Headers of the application's
// own stay.
func (a *Attempt) removeLocked(req *sip.Request) {
	for sp, w := range a.written {
		kept := req.GetHeaders(sp.header())
		for req.RemoveHeader(sp.header()) {
		}
		for _, h := range kept {
			if h.Value() != w.value {
				req.AppendHeader(h)
			}
		}
	}
}

// Challenged takes a 401 or 407 and reports whether the request is to be sent once
// more: there are credentials for a challenge in it, and none that was answered has
// been refused. A nonce that the server calls stale is tried once more. It asks
// decide, which may take its time: what that knows after Anew is of no use.
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
		_, again := a.asked[sp]
		a.asked[sp] = again
		a.own[sp] = known
	}
	return len(learnt) > 0
}

// begin counts a try, unless there were enough.
func (a *Attempt) begin() (round int, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tries++
	return a.round, a.tries <= maxTries
}

// mayAnswer: a space that challenges again after its own challenge was answered has
// refused the password (RFC 3261 22.1), unless it says that the nonce is stale, once.
func (a *Attempt) mayAnswer(sp space, stale bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	forgiven, asked := a.asked[sp]
	return !asked || stale && !forgiven
}
