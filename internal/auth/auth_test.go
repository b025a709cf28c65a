package auth

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/icholy/digest"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sipdialog.example/dialog/internal/draft"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func invite() *draft.Request {
	req := draft.New(sip.INVITE, &sip.Uri{Scheme: "sip", User: "bob", Host: "example.com"})
	req.AddCSeq(1)
	req.Body = []byte("v=0")
	return req
}

func challenge(code int, headers ...string) *sip.Response {
	res := sip.NewResponse(code, "")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		res.AppendHeader(sip.NewHeader(name, value))
	}
	return res
}

func alice(Challenge) (Login, bool) { return Login{"alice", "secret"}, true }

func nobody(Challenge) (Login, bool) { return Login{}, false }

// at is the destination of a request that goes straight to a server.
func at(ip string) Destination {
	hop := netip.AddrPortFrom(netip.MustParseAddr(ip), 5060)
	return Destination{Hop: hop, Target: hop.String(), From: "alice@example.com", To: "bob@example.com"}
}

// by is the destination of a request to a target behind a hop.
func by(ip, target string) Destination {
	to := at(ip)
	to.Target, to.Path = target, []string{target}
	return to
}

var here = at("10.0.0.1")

// begin begins a new request of a new call.
func begin(c *Cache) *Attempt { return c.Begin(&Scope{}, false) }

// answered challenges a request, and sends it to the destination with the answer.
func answered(t *testing.T, c *Cache, to Destination, headers ...string) {
	t.Helper()
	a, code := begin(c), 401
	if strings.HasPrefix(headers[0], "Proxy") {
		code = 407
	}
	require.True(t, a.Challenged(challenge(code, headers...), alice))
	a.Authorize(t.Context(), invite(), to)(true)
}

// carried returns the credentials of a new request.
func carried(t *testing.T, c *Cache, to Destination) (server, proxy []*digest.Credentials) {
	t.Helper()
	req := invite()
	begin(c).Authorize(t.Context(), req, to)(true)
	return sent(t, req, "Authorization"), sent(t, req, "Proxy-Authorization")
}

func sent(t *testing.T, req *draft.Request, header string) []*digest.Credentials {
	t.Helper()
	var list []*digest.Credentials
	for _, h := range req.Message().Values(header) {
		c, err := digest.ParseCredentials(h)
		require.NoError(t, err)
		list = append(list, c)
	}
	return list
}

// verify computes the digest response again, as the server does.
func verify(t *testing.T, req *draft.Request, got *digest.Credentials, c *digest.Challenge, password string) bool {
	t.Helper()
	want, err := digest.Digest(c, digest.Options{
		Method: string(req.Method), URI: got.URI, Username: got.Username, Password: password,
		Cnonce: got.Cnonce, Count: got.Nc,
	})
	require.NoError(t, err)
	return want.Response == got.Response
}

func TestChallengeIsAnswered(t *testing.T) {
	var cache Cache
	a := begin(&cache)
	req := invite()
	a.Authorize(t.Context(), req, here)(true)
	require.Empty(t, req.Message().Values("Authorization"))
	require.True(t, a.Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n1", qop="auth", algorithm=MD5`), alice))
	a.Authorize(t.Context(), req, here)(true)
	got := sent(t, req, "Authorization")
	require.Len(t, got, 1)
	require.Equal(t, "sip:bob@example.com", got[0].URI)
	require.Equal(t, 1, got[0].Nc)
	require.True(t, verify(t, req, got[0], &digest.Challenge{Realm: "r", Nonce: "n1", QOP: []string{"auth"}, Algorithm: "MD5"}, "secret"))
}

func TestWrongPasswordEnds(t *testing.T) {
	var cache Cache
	a := begin(&cache)
	c := challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n1"`)
	require.True(t, a.Challenged(c, alice))
	require.False(t, a.Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n2"`), alice))
}

func TestStaleNonceIsTriedOnceMore(t *testing.T) {
	var cache Cache
	a := begin(&cache)
	require.True(t, a.Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n1"`), alice))
	stale := challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n2", stale=true`)
	require.True(t, a.Challenged(stale, alice))
	require.False(t, a.Challenged(stale, alice))
}

func TestLaterRequestsOfACallCarryCredentialsAtOnceAndCount(t *testing.T) {
	var cache Cache
	var call Scope
	first := cache.Begin(&call, false)
	require.True(t, first.Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n1", qop="auth"`), alice))
	first.Authorize(t.Context(), invite(), here)(true)
	second := cache.Begin(&call, false)
	req := invite()
	second.Authorize(t.Context(), req, here)(true)
	require.Equal(t, 2, sent(t, req, "Authorization")[0].Nc)
	// The nonce may be too old: a new challenge is answered once.
	require.True(t, second.Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n9", qop="auth"`), alice))
	second.Authorize(t.Context(), req, here)(true)
	got := sent(t, req, "Authorization")
	require.Len(t, got, 1)
	require.Equal(t, "n9", got[0].Nonce)
	require.Equal(t, 1, got[0].Nc)
	require.False(t, second.Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n10", qop="auth"`), alice))
}

func TestSeveralHopsAndRealms(t *testing.T) {
	var cache Cache
	a := begin(&cache)
	req := invite()
	require.True(t, a.Challenged(challenge(407, `Proxy-Authenticate: Digest realm="p1", nonce="a"`), alice))
	require.True(t, a.Challenged(challenge(407, `Proxy-Authenticate: Digest realm="p2", nonce="b"`), alice))
	require.True(t, a.Challenged(challenge(401, `WWW-Authenticate: Digest realm="p1", nonce="c"`), alice))
	a.Authorize(t.Context(), req, here)(true)
	require.Len(t, sent(t, req, "Proxy-Authorization"), 2)
	require.Len(t, sent(t, req, "Authorization"), 1)
}

func TestSHA256GoesBeforeMD5(t *testing.T) {
	for _, order := range [][]string{{"MD5", "SHA-256"}, {"SHA-256", "MD5"}} {
		var cache Cache
		a := begin(&cache)
		req := invite()
		require.True(t, a.Challenged(challenge(401,
			`WWW-Authenticate: Digest realm="r", nonce="1", algorithm=`+order[0],
			`WWW-Authenticate: Digest realm="r", nonce="2", algorithm=`+order[1]), alice))
		a.Authorize(t.Context(), req, here)(true)
		got := sent(t, req, "Authorization")
		require.Len(t, got, 1)
		require.Equal(t, "SHA-256", got[0].Algorithm)
	}
}

func TestUnknownRealmAlgorithmAndSchemeEnd(t *testing.T) {
	var cache Cache
	require.False(t, begin(&cache).Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n"`), nobody))
	a := begin(&cache)
	require.False(t, a.Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n", algorithm=ROT13`), alice))
	require.False(t, a.Challenged(challenge(401, `WWW-Authenticate: Basic realm="r"`), alice))
	require.False(t, a.Challenged(challenge(401), alice))
	require.False(t, a.Challenged(challenge(401, `WWW-Authenticate: Digest realm="`+strings.Repeat("r", 5000)+`", nonce="n"`), alice))
}

// RFC 8760 2.4: a request fails only if none of its challenges can be answered.
func TestOneOfSeveralRealmsIsEnough(t *testing.T) {
	var cache Cache
	a := begin(&cache)
	req := invite()
	require.True(t, a.Challenged(challenge(401,
		`WWW-Authenticate: Digest realm="ours", nonce="1"`, `WWW-Authenticate: Digest realm="theirs", nonce="2"`,
	), func(c Challenge) (Login, bool) { return Login{"alice", "secret"}, c.Realm == "ours" }))
	a.Authorize(t.Context(), req, here)(true)
	require.Len(t, sent(t, req, "Authorization"), 1)
}

func TestAUserNameThatEndsItsLineIsNotSent(t *testing.T) {
	var cache Cache
	a := begin(&cache)
	require.False(t, a.Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n"`),
		func(Challenge) (Login, bool) { return Login{"alice\r\nX: y", "secret"}, true }))
}

func TestLegacyDigestIsRefusedWhenAskedTo(t *testing.T) {
	var cache Cache
	legacy := challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n"`)
	require.True(t, cache.Begin(&Scope{}, false).Challenged(legacy, alice))
	for value, answered := range map[string]bool{
		`realm="r", nonce="n"`:                                false,
		`realm="r", nonce="n", algorithm=MD5`:                 false,
		`realm="r", nonce="n", algorithm=MD5, qop="auth"`:     true,
		`realm="r", nonce="n", qop="auth-int"`:                true,
		`realm="r", nonce="n", algorithm=SHA-256`:             true,
		`realm="r", nonce="n", algorithm=SHA-256, qop="auth"`: true,
	} {
		a := cache.Begin(&Scope{}, true)
		require.Equal(t, answered, a.Challenged(challenge(401, "WWW-Authenticate: Digest "+value), alice), value)
	}
	a := cache.Begin(&Scope{}, true)
	req := invite()
	require.True(t, a.Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="weak"`,
		`WWW-Authenticate: Digest realm="r", nonce="strong", algorithm=MD5, qop="auth"`), alice))
	a.Authorize(t.Context(), req, here)(true)
	require.Equal(t, "strong", sent(t, req, "Authorization")[0].Nonce)
}

func TestDecideSeesTheChallenge(t *testing.T) {
	var cache Cache
	var seen []Challenge
	begin(&cache).Challenged(challenge(407,
		`Proxy-Authenticate: Digest realm="r", nonce="n", algorithm=SHA-256, qop="auth, auth-int", stale=true`,
	), func(c Challenge) (Login, bool) { seen = append(seen, c); return Login{}, false })
	require.Equal(t, []Challenge{{Realm: "r", Proxy: true, Algorithm: "SHA-256", QOP: []string{"auth", "auth-int"}, Stale: true}}, seen)
	begin(&cache).Challenged(challenge(401, `WWW-Authenticate: Digest realm="s", nonce="n"`),
		func(c Challenge) (Login, bool) { seen = append(seen, c); return Login{}, false })
	require.Equal(t, Challenge{Realm: "s", Algorithm: "MD5"}, seen[1])
}

// RFC 3261 22.2: credentials are kept per destination and realm; another destination must
// challenge first.
func TestCredentialsOfAServerAreForItsDestination(t *testing.T) {
	var cache Cache
	answered(t, &cache, here, `WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"`)
	again, _ := carried(t, &cache, here)
	require.Len(t, again, 1)
	require.Equal(t, 2, again[0].Nc)
	someoneElse, forAnother := here, here
	someoneElse.From = "carol@example.com"
	forAnother.To = "carol@example.com"
	otherPort := here
	otherPort.Hop = netip.AddrPortFrom(here.Hop.Addr(), 5070)
	for name, to := range map[string]Destination{
		"another host": at("10.0.0.2"), "another port": otherPort, "another user of ours": someoneElse, "another To": forAnother,
		"another target by the same hop": by("10.0.0.1", "b.example:5060"), "the same target by another hop": by("10.0.0.2", here.Target),
	} {
		server, proxy := carried(t, &cache, to)
		require.Empty(t, server, name)
		require.Empty(t, proxy, name)
	}
}

// RFC 3261 22.3: credentials of a proxy are for the Call-ID only, unless it is the
// outbound proxy.
func TestCredentialsOfAProxyAreForTheCall(t *testing.T) {
	const asks = `Proxy-Authenticate: Digest realm="r", nonce="n", qop="auth"`
	var cache Cache
	answered(t, &cache, here, asks)
	_, proxy := carried(t, &cache, here)
	require.Empty(t, proxy)

	outbound := by("10.0.0.7", "a.example:5060")
	outbound.Proxy = true
	answered(t, &cache, outbound, asks)
	elsewhere := by("10.0.0.7", "b.example:5060")
	elsewhere.Proxy = true
	_, proxy = carried(t, &cache, elsewhere)
	require.Len(t, proxy, 1)
	_, proxy = carried(t, &cache, by("10.0.0.8", "b.example:5060"))
	require.Empty(t, proxy)
}

func TestCredentialsInACallStayOnTheirWay(t *testing.T) {
	var cache Cache
	var call Scope
	a := cache.Begin(&call, false)
	require.True(t, a.Challenged(challenge(407, `Proxy-Authenticate: Digest realm="p", nonce="1"`), alice))
	a.Authorize(t.Context(), invite(), here)(true)
	require.True(t, a.Challenged(challenge(401, `WWW-Authenticate: Digest realm="s", nonce="2"`), alice))
	a.Authorize(t.Context(), invite(), here)(true)
	for ip, n := range map[string]int{"10.0.0.1": 1, "10.0.0.2": 0} {
		bye := invite()
		to := at(ip)
		to.InDialog = true
		cache.Begin(&call, false).Authorize(t.Context(), bye, to)(true)
		require.Len(t, sent(t, bye, "Authorization"), n, ip)
		require.Len(t, sent(t, bye, "Proxy-Authorization"), n, ip)
	}
}

// A challenged request carries its credentials to any address of its next hop.
func TestARetryMayGoToAnotherAddress(t *testing.T) {
	var cache Cache
	a := begin(&cache)
	req := invite()
	a.Authorize(t.Context(), req, here)(true)
	require.True(t, a.Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n"`), alice))
	a.Authorize(t.Context(), req, at("10.0.0.2"))(true)
	require.Len(t, sent(t, req, "Authorization"), 1)
}

// RFC 7616 3.4: all requests with one nonce share its count.
func TestCountsRiseAcrossRequestsWithOneNonce(t *testing.T) {
	var cache Cache
	var attempts []*Attempt
	for range 3 {
		a := begin(&cache)
		require.True(t, a.Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"`), alice))
		attempts = append(attempts, a)
	}
	for i, a := range attempts {
		req := invite()
		a.Authorize(t.Context(), req, here)(true)
		require.Equal(t, i+1, sent(t, req, "Authorization")[0].Nc)
	}
}

// A request that is prepared again, for TCP, is the same use of the nonce. A request to
// another address is a new use.
func TestOneSendingIsOneUseOfTheNonce(t *testing.T) {
	var cache Cache
	a := begin(&cache)
	require.True(t, a.Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"`), alice))
	req := invite()
	nc := func() int {
		got := sent(t, req, "Authorization")
		require.Len(t, got, 1)
		return got[0].Nc
	}
	a.Authorize(t.Context(), req, here)(false)
	a.Authorize(t.Context(), req, here)(true)
	require.Equal(t, 1, nc())
	a.Authorize(t.Context(), req, here)(false) // sent before, and again to the same address
	require.Equal(t, 2, nc())
	a.Authorize(t.Context(), req, at("10.0.0.2"))(false)
	require.Equal(t, 3, nc())
	answered(t, &cache, here, `WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"`)
	a.Authorize(t.Context(), req, at("10.0.0.2"))(true)
	require.Equal(t, 5, nc(), "another one was counted meanwhile")
}

// Requests with one nonce, to any destination, are numbered after the request before has
// been written. Other requests do not wait, and no wait is longer than half a second.
func TestRequestsWithOneNonceLeaveOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cache Cache
		request := func(nonce, qop string) *Attempt {
			a := begin(&cache)
			require.True(t, a.Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="`+nonce+`"`+qop), alice))
			return a
		}
		const counts = `, qop="auth"`
		started := time.Now()
		first := request("n", counts).Authorize(t.Context(), invite(), here)
		request("other", counts).Authorize(t.Context(), invite(), here)(true)
		request("n", "").Authorize(t.Context(), invite(), here)(true)
		over, cancel := context.WithCancel(t.Context())
		cancel()
		request("n", counts).Authorize(over, invite(), here)(true)
		require.Zero(t, time.Since(started))

		second := make(chan int)
		go func() {
			req := invite()
			request("n", counts).Authorize(t.Context(), req, at("10.0.0.2"))(true)
			second <- sent(t, req, "Authorization")[0].Nc
		}()
		synctest.Wait()
		first(true)
		require.Equal(t, 4, <-second)
		require.Zero(t, time.Since(started))

		request("n", counts).Authorize(t.Context(), invite(), here) // hangs in its write
		request("n", counts).Authorize(t.Context(), invite(), here)(true)
		require.Equal(t, orderWait, time.Since(started))
	})
}

// Requests with several nonces never wait for each other.
func TestRequestsWithSeveralNoncesDoNotBlockEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cache Cache
		started := time.Now()
		var all sync.WaitGroup
		for i := range 50 {
			a := begin(&cache)
			for _, realm := range []string{"a", "b", "c"} {
				require.True(t, a.Challenged(challenge(407, `Proxy-Authenticate: Digest realm="`+realm+`", nonce="n", qop="auth"`), alice))
			}
			all.Go(func() { a.Authorize(t.Context(), invite(), at([]string{"10.0.0.2", "10.0.0.3"}[i%2]))(true) })
		}
		all.Wait()
		require.Zero(t, time.Since(started))
	})
}

func TestHeadersOfTheApplicationsStay(t *testing.T) {
	var cache Cache
	a := begin(&cache)
	req := invite()
	req.Add("Authorization", "Bearer token")
	require.True(t, a.Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n"`), alice))
	a.Authorize(t.Context(), req, here)(true)
	a.Authorize(t.Context(), req, here)(true)
	list := req.Message().Values("Authorization")
	require.Len(t, list, 2)
	require.Equal(t, "Bearer token", list[0])
}

func TestKnownDestinationsHaveBeenSentCredentials(t *testing.T) {
	var cache Cache
	server, proxy := Challenge{Realm: "r"}, Challenge{Realm: "r", Proxy: true}
	require.False(t, cache.Known(server, here, ""))
	answered(t, &cache, here, `WWW-Authenticate: Digest realm="r", nonce="n"`)
	require.True(t, cache.Known(server, here, ""))
	require.True(t, cache.Known(proxy, here, "alice"))
	require.False(t, cache.Known(server, here, "bob"))
	require.False(t, cache.Known(Challenge{Realm: "s"}, here, ""))
	require.False(t, cache.Known(server, at("10.0.0.2"), ""))

	// The challenger may be behind the hop.
	require.True(t, cache.Known(proxy, by("10.0.0.1", "stranger.example:5060"), ""))
	require.False(t, cache.Known(server, by("10.0.0.1", "stranger.example:5060"), ""))
	require.False(t, cache.Known(server, by("10.0.0.2", here.Target), ""), "a stranger before a server that is known")
	require.True(t, cache.Known(server, by("10.0.0.1", here.Target), ""))

	outbound := by("10.0.0.7", "stranger.example:5060")
	outbound.Proxy, outbound.ProxyName = true, "proxy.example:5060"
	require.True(t, cache.Known(proxy, outbound, ""))
	require.False(t, cache.Known(server, outbound, ""))
	outbound.Path = []string{"proxy.example:5060"}
	require.True(t, cache.Known(server, outbound, ""))
}

// A hop that only passed credentials on is not known. Neither is a place that the Contact
// of a peer has named.
func TestAProxyThatPassedCredentialsOnIsNotKnown(t *testing.T) {
	var cache Cache
	answered(t, &cache, by("10.0.0.1", "a.example:5060"), `WWW-Authenticate: Digest realm="r", nonce="n"`)
	require.False(t, cache.Known(Challenge{Realm: "r"}, here, ""))
	inside := by("10.0.0.1", "b.example:5060")
	inside.InDialog = true
	answered(t, &cache, inside, `WWW-Authenticate: Digest realm="r", nonce="n"`)
	answered(t, &cache, here, `WWW-Authenticate: Digest realm="r", nonce="n"`)
	require.True(t, cache.Known(Challenge{Realm: "r"}, by("10.0.0.1", "a.example:5060"), ""))
	require.False(t, cache.Known(Challenge{Realm: "r"}, by("10.0.0.1", "b.example:5060"), ""))
}

func TestPlaceReadsTheSame(t *testing.T) {
	for _, host := range []string{"2001:db8::1", "[2001:DB8::1]", "[2001:db8:0::0:1]"} {
		require.Equal(t, "[2001:db8::1]:5060", Place(host, 5060))
	}
	require.Equal(t, "10.0.0.1:5060", Place("::ffff:10.0.0.1", 5060))
	require.Equal(t, "a.example:5061", Place("A.example.", 5061))
}

func TestOutboundProxyIsRememberedByItsAddresses(t *testing.T) {
	var cache Cache
	require.False(t, cache.IsProxy(here.Hop, false))
	require.True(t, cache.IsProxy(here.Hop, true))
	require.True(t, cache.IsProxy(here.Hop, false))
	for i := range 2 * maxProxies {
		require.True(t, cache.IsProxy(at(fmt.Sprintf("10.1.0.%d", i)).Hop, true))
	}
	require.Len(t, cache.proxies, maxProxies)
	require.False(t, cache.IsProxy(here.Hop, false))
}

func TestCachesAreBounded(t *testing.T) {
	var cache Cache
	var call Scope
	a := cache.Begin(&call, false)
	for i := range 2 * maxSpaces {
		a.Anew()
		require.True(t, a.Challenged(challenge(407, fmt.Sprintf(`Proxy-Authenticate: Digest realm="r%d", nonce="n%d"`, i, i)), alice))
		a.Authorize(t.Context(), invite(), here)(true)
	}
	require.LessOrEqual(t, len(call.known), maxSpaces)
	for i := range maxHopRecords + 10 {
		answered(t, &cache, here, fmt.Sprintf(`WWW-Authenticate: Digest realm="s%d", nonce="n"`, i))
	}
	require.Len(t, cache.hops[here.Hop].records, maxHopRecords)
	for i := range maxRecords + maxHopRecords {
		to := here
		to.Hop = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 5060)
		answered(t, &cache, to, fmt.Sprintf(`WWW-Authenticate: Digest realm="r", nonce="m%d"`, i))
		cache.hopLocked(at("10.1.0.0").Hop) // in use all the time
	}
	records := 0
	for _, h := range cache.hops {
		records += len(h.records)
	}
	require.Equal(t, records, cache.records)
	require.LessOrEqual(t, records, maxRecords)
	require.LessOrEqual(t, len(cache.nonces), maxNonces)
	require.Contains(t, cache.hops, at("10.1.0.0").Hop)
	require.NotContains(t, cache.hops, here.Hop)
}

func TestEndlessChallengesEnd(t *testing.T) {
	var cache Cache
	a := begin(&cache)
	n := 0
	for a.Challenged(challenge(407, `Proxy-Authenticate: Digest realm="r`+strings.Repeat("x", n)+`", nonce="n"`), alice) {
		n++
	}
	require.Equal(t, maxTries, n)
}

// A Decide that returns after the request has gone to another server has no effect: no
// server gets the credentials that another asked for.
func TestADecideThatAnswersAfterTheRequestWentElsewhere(t *testing.T) {
	var cache Cache
	asked, free := make(chan struct{}, 2), make(chan struct{})
	a := begin(&cache)
	waits := func(c Challenge) (Login, bool) {
		asked <- struct{}{}
		<-free
		return alice(c)
	}
	late, known := make(chan bool, 1), make(chan bool, 1)
	go func() {
		late <- a.Challenged(challenge(401, `WWW-Authenticate: Digest realm="one", nonce="n1", algorithm=MD5`), waits)
	}()
	<-asked
	a.Anew()
	go func() {
		known <- a.Challenged(challenge(401, `WWW-Authenticate: Digest realm="two", nonce="n2", algorithm=MD5`), waits)
	}()
	<-asked
	close(free)
	require.False(t, <-late)
	require.True(t, <-known)
	req := invite()
	a.Authorize(t.Context(), req, here)(true)
	list := sent(t, req, "Authorization")
	require.Len(t, list, 1)
	require.Equal(t, "two", list[0].Realm)
}
