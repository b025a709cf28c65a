// Package auth answers digest challenges (RFC 3261 22, RFC 7616, RFC 8760) for
// a user agent client: any number of realms, of servers and proxies, in one
// request.
package auth

import (
	"bytes"
	"io"
	"strings"
	"sync"

	"github.com/emiago/sipgo/sip"
	"github.com/icholy/digest"
)

// Lookup returns the user name and password for a realm, or false. It is
// called with no lock held.
type Lookup func(realm string) (username, password string, ok bool)

// space is what a challenge is for: a realm of a server, or of a proxy.
type space struct {
	proxy bool
	realm string
}

// Cache keeps the latest challenge of each realm, so that later requests carry
// credentials at once. The zero value is ready; all methods may be called from
// any goroutine.
type Cache struct {
	mu sync.Mutex // guards the field below
	// known maps a space to its challenge and how often that was answered.
	known map[space]*answered
}

type answered struct {
	challenge          *digest.Challenge
	username, password string
	count              int
}

// maxSpaces bounds a cache: a path has few realms, a hostile peer many.
const maxSpaces = 16

// maxTries bounds how often one request is sent anew.
const maxTries = 8

// Attempt is one request and its retries. All methods may be called from any
// goroutine: a Lookup may answer after the request has gone elsewhere.
type Attempt struct {
	cache  *Cache
	lookup Lookup

	mu sync.Mutex // guards the fields below
	// round counts the servers that the request has been sent to.
	round int
	// asked are the spaces that challenged this request, and whether a stale
	// nonce of theirs was forgiven already.
	asked map[space]bool
	tries int
}

// Answers reports whether the attempt may answer a challenge at all.
func (a *Attempt) Answers() bool { return a.lookup != nil }

// Begin returns the attempt of a new request. A nil lookup answers nothing.
func (c *Cache) Begin(lookup Lookup) *Attempt {
	return &Attempt{cache: c, lookup: lookup, asked: make(map[space]bool)}
}

// Anew begins again with another server (RFC 3261 8.1.3.4): what the one before
// has refused does not count, and it does not get that one's credentials. Those
// of proxies stay.
func (a *Attempt) Anew() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.asked)
	a.tries = 0
	a.round++
	a.cache.mu.Lock()
	defer a.cache.mu.Unlock()
	for s := range a.cache.known {
		if !s.proxy {
			delete(a.cache.known, s)
		}
	}
}

// Authorize puts the credentials into a request that is about to be sent: for
// every realm that is known. It replaces those the request has, and asks nobody.
func (a *Attempt) Authorize(req *sip.Request) {
	for _, name := range []string{"Authorization", "Proxy-Authorization"} {
		for req.RemoveHeader(name) {
		}
	}
	for _, s := range a.cache.spaces() {
		if value, ok := a.cache.answer(s, req); ok {
			req.AppendHeader(sip.NewHeader(s.header(), value))
		}
	}
}

// Challenged takes a 401 or 407 and reports whether the request is to be sent
// once more: there are credentials for every challenge, and they have not been
// refused. A nonce that the server calls stale is tried once more. It asks
// Lookup, which may take its time: what it knows after Anew is of no use.
func (a *Attempt) Challenged(res *sip.Response) bool {
	round, ok := a.begin()
	if !ok {
		return false
	}
	challenges, learnt := challengesIn(res), make(map[space]*answered)
	for s, challenge := range challenges {
		username, password, ok := a.lookup(s.realm)
		if !ok {
			return false
		}
		learnt[s] = &answered{challenge: challenge, username: username, password: password}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.round != round {
		return false
	}
	for s, challenge := range challenges {
		if !a.mayAnswerLocked(s, challenge.Stale) {
			return false
		}
	}
	for s, known := range learnt {
		a.cache.learn(s, known)
	}
	return len(learnt) > 0
}

// begin counts a try, unless there were enough.
func (a *Attempt) begin() (round int, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tries++
	return a.round, a.lookup != nil && a.tries <= maxTries
}

// mayAnswerLocked: a space that challenges again after its own challenge was
// answered has refused the password, unless it says that the nonce is stale.
func (a *Attempt) mayAnswerLocked(s space, stale bool) bool {
	forgiven, asked := a.asked[s]
	switch {
	case !asked:
		a.asked[s] = false
		return true
	case stale && !forgiven:
		a.asked[s] = true
		return true
	default:
		return false
	}
}

func (s space) header() string {
	if s.proxy {
		return "Proxy-Authorization"
	}
	return "Authorization"
}

// challengesIn reads the challenges of a response: of several for one realm
// the strongest algorithm that can be answered (RFC 8760 2.4 lets policy
// decide).
func challengesIn(res *sip.Response) map[space]*digest.Challenge {
	best := make(map[space]*digest.Challenge)
	collect := func(name string, proxy bool) {
		for _, h := range res.GetHeaders(name) {
			challenge, err := digest.ParseChallenge(h.Value())
			if err != nil || !digest.CanDigest(challenge) {
				continue
			}
			s := space{proxy: proxy, realm: challenge.Realm}
			if known := best[s]; known == nil || strength(challenge) > strength(known) {
				best[s] = challenge
			}
		}
	}
	collect("WWW-Authenticate", false)
	collect("Proxy-Authenticate", true)
	return best
}

func strength(c *digest.Challenge) int {
	switch algorithm := strings.ToUpper(c.Algorithm); {
	case strings.HasPrefix(algorithm, "SHA-512"):
		return 3
	case strings.HasPrefix(algorithm, "SHA-256"):
		return 2
	default:
		return 1
	}
}

func (c *Cache) learn(s space, known *answered) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = make(map[space]*answered)
	}
	if len(c.known) >= maxSpaces && c.known[s] == nil {
		clear(c.known)
	}
	c.known[s] = known
}

func (c *Cache) spaces() []space {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]space, 0, len(c.known))
	for s := range c.known {
		list = append(list, s)
	}
	return list
}

// answer computes the credentials; each use of a nonce has its own count (RFC
// 7616 3.4).
func (c *Cache) answer(s space, req *sip.Request) (string, bool) {
	c.mu.Lock()
	known := c.known[s]
	if known == nil {
		c.mu.Unlock()
		return "", false
	}
	known.count++
	now := *known
	c.mu.Unlock()

	credentials, err := digest.Digest(now.challenge, digest.Options{
		Method: string(req.Method), URI: req.Recipient.String(), Count: now.count,
		Username: now.username, Password: now.password,
		GetBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(req.Body())), nil },
	})
	if err != nil {
		return "", false
	}
	return credentials.String(), true
}
