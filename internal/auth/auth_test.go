package auth

import (
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/icholy/digest"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func invite() *sip.Request {
	req := sip.NewRequest(sip.INVITE, sip.Uri{Scheme: "sip", User: "bob", Host: "example.com"})
	req.SetBody([]byte("v=0"))
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

func alice(string) (string, string, bool) { return "alice", "secret", true }

func sent(t *testing.T, req *sip.Request, header string) []*digest.Credentials {
	t.Helper()
	var list []*digest.Credentials
	for _, h := range req.GetHeaders(header) {
		c, err := digest.ParseCredentials(h.Value())
		require.NoError(t, err)
		list = append(list, c)
	}
	return list
}

// verify computes the response once more, as the server does.
func verify(t *testing.T, req *sip.Request, got *digest.Credentials, c *digest.Challenge, password string) bool {
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
	a := cache.Begin(alice)
	req := invite()
	a.Authorize(req)
	require.Empty(t, req.GetHeaders("Authorization"))
	require.True(t, a.Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n1", qop="auth", algorithm=MD5`)))
	a.Authorize(req)
	got := sent(t, req, "Authorization")
	require.Len(t, got, 1)
	require.Equal(t, "sip:bob@example.com", got[0].URI)
	require.Equal(t, 1, got[0].Nc)
	require.True(t, verify(t, req, got[0], &digest.Challenge{Realm: "r", Nonce: "n1", QOP: []string{"auth"}, Algorithm: "MD5"}, "secret"))
}

func TestWrongPasswordEnds(t *testing.T) {
	var cache Cache
	a := cache.Begin(alice)
	c := challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n1"`)
	require.True(t, a.Challenged(c))
	require.False(t, a.Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n2"`)))
}

func TestStaleNonceIsTriedOnceMore(t *testing.T) {
	var cache Cache
	a := cache.Begin(alice)
	require.True(t, a.Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n1"`)))
	stale := challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n2", stale=true`)
	require.True(t, a.Challenged(stale))
	require.False(t, a.Challenged(stale))
}

func TestLaterRequestsCarryCredentialsAtOnceAndCount(t *testing.T) {
	var cache Cache
	first := cache.Begin(alice)
	require.True(t, first.Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n1", qop="auth"`)))
	first.Authorize(invite())
	second := cache.Begin(alice)
	req := invite()
	second.Authorize(req)
	require.Equal(t, 2, sent(t, req, "Authorization")[0].Nc)
	// The nonce may have aged: a new challenge is answered once.
	require.True(t, second.Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n9", qop="auth"`)))
	second.Authorize(req)
	got := sent(t, req, "Authorization")
	require.Len(t, got, 1)
	require.Equal(t, "n9", got[0].Nonce)
	require.Equal(t, 1, got[0].Nc)
	require.False(t, second.Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n10", qop="auth"`)))
}

func TestSeveralHopsAndRealms(t *testing.T) {
	var cache Cache
	a := cache.Begin(alice)
	req := invite()
	require.True(t, a.Challenged(challenge(407, `Proxy-Authenticate: Digest realm="p1", nonce="a"`)))
	require.True(t, a.Challenged(challenge(407, `Proxy-Authenticate: Digest realm="p2", nonce="b"`)))
	require.True(t, a.Challenged(challenge(401, `WWW-Authenticate: Digest realm="p1", nonce="c"`)))
	a.Authorize(req)
	require.Len(t, sent(t, req, "Proxy-Authorization"), 2)
	require.Len(t, sent(t, req, "Authorization"), 1)
}

func TestSHA256GoesBeforeMD5(t *testing.T) {
	for _, order := range [][]string{{"MD5", "SHA-256"}, {"SHA-256", "MD5"}} {
		var cache Cache
		a := cache.Begin(alice)
		req := invite()
		require.True(t, a.Challenged(challenge(401,
			`WWW-Authenticate: Digest realm="r", nonce="1", algorithm=`+order[0],
			`WWW-Authenticate: Digest realm="r", nonce="2", algorithm=`+order[1])))
		a.Authorize(req)
		got := sent(t, req, "Authorization")
		require.Len(t, got, 1)
		require.Equal(t, "SHA-256", got[0].Algorithm)
	}
}

func TestUnknownRealmAlgorithmAndSchemeEnd(t *testing.T) {
	var cache Cache
	nobody := func(string) (string, string, bool) { return "", "", false }
	require.False(t, cache.Begin(nobody).Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n"`)))
	require.False(t, cache.Begin(nil).Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n"`)))
	a := cache.Begin(alice)
	require.False(t, a.Challenged(challenge(401, `WWW-Authenticate: Digest realm="r", nonce="n", algorithm=ROT13`)))
	require.False(t, a.Challenged(challenge(401, `WWW-Authenticate: Basic realm="r"`)))
	require.False(t, a.Challenged(challenge(401)))
}

func TestCacheIsBounded(t *testing.T) {
	var cache Cache
	for i := range 100 {
		cache.Begin(alice).Challenged(challenge(401, `WWW-Authenticate: Digest realm="r`+strings.Repeat("x", i)+`", nonce="n"`))
	}
	require.LessOrEqual(t, len(cache.spaces()), maxSpaces)
}

func TestEndlessChallengesEnd(t *testing.T) {
	var cache Cache
	a := cache.Begin(alice)
	n := 0
	for a.Challenged(challenge(407, `Proxy-Authenticate: Digest realm="r`+strings.Repeat("x", n)+`", nonce="n"`)) {
		n++
	}
	require.Equal(t, maxTries, n)
}

// A request that has gone elsewhere is none of a Lookup's that answers then: no
// server gets what another has asked for.
func TestALookupThatAnswersAfterTheRequestWentElsewhere(t *testing.T) {
	var cache Cache
	asked, free := make(chan struct{}, 2), make(chan struct{})
	a := cache.Begin(func(realm string) (string, string, bool) {
		asked <- struct{}{}
		<-free
		return alice(realm)
	})
	late, known := make(chan bool, 1), make(chan bool, 1)
	go func() {
		late <- a.Challenged(challenge(401, `WWW-Authenticate: Digest realm="one", nonce="n1", algorithm=MD5`))
	}()
	<-asked
	a.Anew()
	go func() {
		known <- a.Challenged(challenge(401, `WWW-Authenticate: Digest realm="two", nonce="n2", algorithm=MD5`))
	}()
	<-asked
	close(free)
	require.False(t, <-late)
	require.True(t, <-known)
	req := invite()
	a.Authorize(req)
	list := sent(t, req, "Authorization")
	require.Len(t, list, 1)
	require.Equal(t, "two", list[0].Realm)
}
