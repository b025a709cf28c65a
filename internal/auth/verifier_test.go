package auth

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/icholy/digest"
	"github.com/stretchr/testify/require"
)

var secret = Login{"alice", "secret"}

// answering returns an Authorization for the nth of a Verifier's challenges.
func answering(t *testing.T, challenges []string, n int, o digest.Options) string {
	t.Helper()
	c, err := digest.ParseChallenge(challenges[n])
	require.NoError(t, err)
	if o.Method == "" {
		o.Method = "INFO"
	}
	o.URI = "sip:bob@example.com"
	if o.Username == "" {
		o.Username, o.Password = secret.Username, secret.Password
	}
	cred, err := digest.Digest(c, o)
	require.NoError(t, err)
	return cred.String()
}

func TestVerifierAcceptsAnswersToItsChallenge(t *testing.T) {
	v := NewVerifier()
	challenges := v.Challenge(`a "realm"`, "call", false)
	require.Len(t, challenges, 2)
	for n := range challenges {
		values := []string{"Basic abc", "Digest realm=", answering(t, challenges, n, digest.Options{})}
		proof, verdict := v.Check("INFO", values, `a "realm"`, secret, "call")
		require.Equal(t, Proved, verdict)
		require.Equal(t, Proof{1, 1}, proof)
	}
}

func TestVerifierRefusesTheRest(t *testing.T) {
	v, other := NewVerifier(), NewVerifier()
	challenges := v.Challenge("r", "call", false)
	right := answering(t, challenges, 0, digest.Options{})
	for name, c := range map[string]struct {
		values  []string
		verdict Verdict
	}{
		"nothing":        {nil, Unproved},
		"password":       {[]string{answering(t, challenges, 0, digest.Options{Username: "alice", Password: "x"})}, Unproved},
		"user":           {[]string{answering(t, challenges, 0, digest.Options{Username: "bob", Password: "secret"})}, Unproved},
		"method":         {[]string{answering(t, challenges, 0, digest.Options{Method: "BYE"})}, Unproved},
		"realm":          {[]string{answering(t, v.Challenge("s", "call", false), 0, digest.Options{})}, Unproved},
		"another's":      {[]string{answering(t, other.Challenge("r", "call", false), 0, digest.Options{})}, Stale},
		"another call's": {[]string{answering(t, v.Challenge("r", "c", false), 0, digest.Options{})}, Stale},
		"no response":    {[]string{strings.ReplaceAll(right, "response", "x")}, Unproved},
		"no count":       {[]string{strings.ReplaceAll(right, "nc=00000001", "nc=00000000")}, Unproved},
		"count":          {[]string{strings.ReplaceAll(right, "nc=00000001", "nc=00000002")}, Unproved},
		"no qop":         {[]string{strings.ReplaceAll(right, "qop=", "x=")}, Unproved},
		"auth-int":       {[]string{answering(t, []string{strings.ReplaceAll(challenges[0], `"auth"`, `"auth-int"`)}, 0, digest.Options{})}, Unproved},
		"algorithm":      {[]string{strings.ReplaceAll(right, "SHA-256", "ROT13")}, Unproved},
		"too many": {append(strings.Split(strings.Repeat("\n"+answering(t, challenges, 0, digest.Options{Username: "alice", Password: "x"}), 4), "\n")[1:],
			right), Unproved},
	} {
		_, verdict := v.Check("INFO", c.values, "r", secret, "call")
		require.Equal(t, c.verdict, verdict, name)
	}
}

func TestNoncesExpireAndDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := NewVerifier()
		time.Sleep(time.Hour)
		seen := make(map[string]bool)
		for range 100 {
			nonce := v.nonce("call")
			require.False(t, seen[nonce])
			seen[nonce] = true
		}
		value := answering(t, v.Challenge("r", "call", true), 0, digest.Options{})
		time.Sleep(nonceLife)
		_, verdict := v.Check("INFO", []string{value}, "r", secret, "call")
		require.Equal(t, Proved, verdict)
		time.Sleep(time.Nanosecond)
		_, verdict = v.Check("INFO", []string{value}, "r", secret, "call")
		require.Equal(t, Stale, verdict)
	})
}

// A nonce with any changed bit, or of another length, is refused.
func TestANonceCannotBeForged(t *testing.T) {
	v := NewVerifier()
	nonce := v.nonce("call")
	_, ok := v.opens(nonce, "call")
	require.True(t, ok)
	for i := range nonce {
		forged := []byte(nonce)
		forged[i] ^= 1
		_, ok := v.opens(string(forged), "call")
		require.False(t, ok, i)
		_, ok = v.opens(nonce[:i], "call")
		require.False(t, ok, i)
	}
	_, ok = v.opens("", "call")
	require.False(t, ok)
}

func TestNothingProvesTwice(t *testing.T) {
	var u Uses
	for _, c := range []struct {
		Proof
		taken bool
	}{
		{Proof{5, 1}, true}, {Proof{5, 1}, false}, {Proof{5, 3}, true}, {Proof{5, 2}, false},
		{Proof{4, 9}, false}, {Proof{6, 1}, true}, {Proof{5, 4}, false}, {Proof{6, 2}, true},
	} {
		require.Equal(t, c.taken, u.Take(c.Proof), fmt.Sprint(c))
	}
}

// A Verifier accepts the credentials of an Attempt.
func TestAttemptAndVerifierAgree(t *testing.T) {
	v := NewVerifier()
	var cache Cache
	a := begin(&cache)
	var headers []string
	for _, value := range v.Challenge("r", "call", false) {
		headers = append(headers, "WWW-Authenticate: "+value)
	}
	require.True(t, a.Challenged(challenge(401, headers...), alice))
	var uses Uses
	for range 3 {
		req := invite()
		a = cache.Begin(&Scope{}, false)
		require.True(t, a.Challenged(challenge(401, headers...), alice))
		a.Authorize(t.Context(), req, here)(true)
		proof, verdict := v.Check("INVITE", []string{req.Value("Authorization")}, "r", secret, "call")
		require.Equal(t, Proved, verdict)
		require.True(t, uses.Take(proof))
	}
}
