package auth

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/icholy/digest"
)

// Cache has the answers that a stack has sent, per destination and realm (RFC 3261
// 22.2). The zero value is ready to use. All methods may be called from any goroutine.
type Cache struct {
	mu sync.Mutex // guards the fields below
	// hops maps an address to the answers sent there; records counts all of them;
	// clock numbers the uses.
	hops    map[netip.AddrPort]*hop
	records int
	clock   uint64
	// nonces maps a nonce to its use count in all requests; counts numbers the
	// counts.
	nonces map[nonce]*count
	counts uint64
	// proxies has the addresses of the outbound proxy, the latest last.
	proxies []netip.AddrPort
}

// hop has the answers sent to one address, the oldest first.
type hop struct {
	used    uint64
	records []record
}

// record is an answer that was sent.
type record struct {
	space
	*answer
	from, to string
	// target is the Request-URI's place if the application has chosen it. direct is
	// true if the place was the hop itself. reusable is true if other requests to the
	// same destination may carry the answer.
	target           string
	direct, reusable bool
}

const (
	// maxRecords bounds the answers kept, maxHopRecords those of one address. The
	// least recently used address is forgotten first.
	maxRecords    = 2000
	maxHopRecords = 100
	// maxNonces bounds the nonces with a count.
	maxNonces = 1000
	// maxProxies bounds the addresses that the outbound proxy may have.
	maxProxies = 16
)

// get returns the answers for a request to the destination: those to servers that were
// sent for the same To to the same place, and those to the outbound proxy (RFC 3261
// 22.3).
func (c *Cache) get(to Destination) map[space]*answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := make(map[space]*answer)
	h := c.hops[to.Hop]
	if h == nil {
		return found
	}
	for _, r := range h.records {
		if r.reusable && r.from == to.From && (r.proxy && to.Proxy || !r.proxy && r.to == to.To && r.target == to.Target) {
			found[r.space] = r.answer
		}
	}
	return found
}

// put records an answer that is sent.
func (c *Cache) put(sp space, a *answer, to Destination) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := record{space: sp, answer: a, from: to.From, to: to.To, target: to.Target, direct: len(to.Path) == 0}
	r.reusable = sp.proxy && to.Proxy || !sp.proxy && !to.InDialog
	if to.InDialog && !r.direct {
		r.target = "" // the peer's Contact names the target: that proves nothing
	}
	h := c.hopLocked(to.Hop)
	before := len(h.records)
	h.records = slices.DeleteFunc(h.records, func(old record) bool {
		return old.space == sp && old.from == r.from && (sp.proxy || old.to == r.to && old.target == r.target)
	})
	if len(h.records) >= maxHopRecords {
		h.records = slices.Delete(h.records, 0, 1)
	}
	h.records = append(h.records, r)
	c.records += len(h.records) - before
	c.makeRoomLocked()
}

func (c *Cache) hopLocked(address netip.AddrPort) *hop {
	if c.hops == nil {
		c.hops = make(map[netip.AddrPort]*hop)
	}
	h := c.hops[address]
	if h == nil {
		h = &hop{}
		c.hops[address] = h
	}
	c.clock++
	h.used = c.clock
	return h
}

// makeRoomLocked forgets the answers to the least recently used address.
func (c *Cache) makeRoomLocked() {
	for c.records > maxRecords {
		var oldest netip.AddrPort
		least := c.clock + 1
		for address, h := range c.hops {
			if h.used < least {
				oldest, least = address, h.used
			}
		}
		c.records -= len(c.hops[oldest].records)
		delete(c.hops, oldest)
	}
}

// IsProxy reports whether an address belongs to the outbound proxy. If isProxy is true,
// it does, and IsProxy remembers the address.
func (c *Cache) IsProxy(address netip.AddrPort, isProxy bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := slices.Contains(c.proxies, address)
	if known || !isProxy {
		return known
	}
	if len(c.proxies) >= maxProxies {
		c.proxies = c.proxies[1:]
	}
	c.proxies = append(c.proxies[:len(c.proxies):len(c.proxies)], address)
	return true
}

// Known reports whether a destination has been sent credentials of the challenge's realm
// before, or is the outbound proxy. A proxy is known if the hop is known, a server if
// every place on the path of the request is known. An empty user means any user.
func (c *Cache) Known(challenge Challenge, to Destination, user string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !to.Proxy && !c.sentLocked(challenge.Realm, to.Hop.String(), user) {
		return false
	}
	if challenge.Proxy {
		return true
	}
	for _, place := range to.Path {
		if place != to.ProxyName && !c.sentLocked(challenge.Realm, place, user) {
			return false
		}
	}
	return true
}

// sentLocked reports whether a place has been sent credentials of a realm.
func (c *Cache) sentLocked(realm, place, user string) bool {
	for address, h := range c.hops {
		here := address.String() == place
		for _, r := range h.records {
			if r.realm == realm && (user == "" || r.login.Username == user) &&
				(here && (r.proxy || r.direct) || !r.proxy && r.target == place) {
				return true
			}
		}
	}
	return false
}

// nonce identifies the nonce of a count.
type nonce struct{ realm, nonce string }

// answer returns an answer to a challenge. All answers to one nonce share its count.
func (c *Cache) answer(challenge *digest.Challenge, login Login) *answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := nonce{challenge.Realm, challenge.Nonce}
	n := c.nonces[key]
	if n == nil {
		c.counts++
		n = newCount(c.counts)
		c.keepNonceLocked(key, n)
	}
	return &answer{challenge: challenge, login: login, count: n}
}

// keepNonceLocked forgets an arbitrary nonce if the cache is full: answers in use keep
// their count.
func (c *Cache) keepNonceLocked(key nonce, n *count) {
	if c.nonces == nil {
		c.nonces = make(map[nonce]*count)
	}
	for old := range c.nonces {
		if len(c.nonces) < maxNonces {
			break
		}
		delete(c.nonces, old)
	}
	c.nonces[key] = n
}

// Place formats a host and a port, so that equal places have equal texts.
func Place(host string, port uint16) string {
	host = strings.ToLower(strings.Trim(host, "[]"))
	if address, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(address.Unmap(), port).String()
	}
	return net.JoinHostPort(strings.TrimSuffix(host, "."), strconv.Itoa(int(port)))
}
