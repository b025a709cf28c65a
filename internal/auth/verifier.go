package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"sync/atomic"
	"time"

	"github.com/icholy/digest"

	"sipdialog.example/dialog/internal/sipmsg"
)

// nonceLife is the time within which a challenge may be answered. A peer that has its
// password needs one round trip; a peer that asks its user needs longer.
const nonceLife = time.Minute

// Verifier challenges requests of peers, and checks their credentials (RFC 3261 22.2, RFC
// 7616 3.3). It stores no challenge: a nonce contains the time at which it was made, and a
// signature with the Verifier's key that is valid for one call. All methods may be called
// from any goroutine.
type Verifier struct {
	key    [sha256.Size]byte
	began  time.Time
	serial atomic.Uint64 // of the latest nonce
}

// NewVerifier returns a Verifier with a random key, so that its nonces cannot be forged.
func NewVerifier() *Verifier {
	v := &Verifier{began: time.Now()}
	_, _ = rand.Read(v.key[:]) // never fails
	return v
}

// Verdict is the result of a check of credentials.
type Verdict int

const (
	// Unproved: the credentials prove nothing.
	Unproved Verdict = iota
	// Stale: the sender knows the password, but the credentials may be a copy: the nonce
	// is old, or not ours, or was used before.
	Stale
	// Proved: the sender has answered a challenge of ours.
	Proved
)

// Proof names the nonce and its use by which credentials were proved.
type Proof struct {
	serial uint64
	count  uint32
}

// Uses keeps the latest Proof of a call's peer, so that no Proof is accepted twice. It is
// not safe for concurrent use.
type Uses struct{ latest Proof }

// Take reports whether a Proof is new, and keeps it: it has a later nonce than those
// before, or a later use of the latest nonce.
func (u *Uses) Take(p Proof) bool {
	if p.serial < u.latest.serial || p.serial == u.latest.serial && p.count <= u.latest.count {
		return false
	}
	u.latest = p
	return true
}

// Challenge returns the values of the WWW-Authenticate headers that challenge a call's
// peer, the better algorithm first (RFC 8760 2.4).
func (v *Verifier) Challenge(realm, call string, stale bool) []string {
	nonce := v.nonce(call)
	var values []string
	for _, algorithm := range []string{"SHA-256", "MD5"} {
		value := "Digest realm=" + sipmsg.Quote(realm) + `, nonce="` + nonce + `", algorithm=` + algorithm + `, qop="auth"`
		if stale {
			value += ", stale=true"
		}
		values = append(values, value)
	}
	return values
}

// maxCredentials bounds the credentials of one request that are checked, since a digest
// costs CPU.
const maxCredentials = 4

// Check checks the values of a request's Authorization headers for credentials of this
// login that answer a challenge for this call. Their URI may differ from the Request-URI,
// which a proxy may have rewritten (RFC 3261 22.4).
func (v *Verifier) Check(method string, values []string, realm string, login Login, call string) (proof Proof, verdict Verdict) {
	tried := 0
	for _, value := range values {
		c, err := sipmsg.ParseCredentials(value)
		if err != nil || c.Realm != realm || c.Username != login.Username {
			continue
		}
		if tried++; tried > maxCredentials {
			break
		}
		if !isBy(login, method, c) {
			continue
		}
		if serial, ok := v.opens(c.Nonce, call); ok {
			return Proof{serial, c.Count}, Proved
		}
		verdict = Stale
	}
	return Proof{}, verdict
}

// isBy reports whether credentials are made with the password. They must have qop and a
// count, as without these they could be used again. RFC 3261 22.4 requires both from a
// client that was sent a qop.
func isBy(login Login, method string, c sipmsg.Credentials) bool {
	switch strings.ToUpper(c.Algorithm) {
	case "", "MD5", "SHA-256":
	default:
		return false
	}
	if c.QOP != "auth" || c.Count == 0 || c.Cnonce == "" {
		return false
	}
	want, err := digest.Digest(
		&digest.Challenge{Realm: c.Realm, Nonce: c.Nonce, Algorithm: c.Algorithm, QOP: []string{c.QOP}},
		digest.Options{Method: method, URI: c.URI, Count: int(c.Count), Username: c.Username, Password: login.Password, Cnonce: c.Cnonce})
	return err == nil && subtle.ConstantTimeCompare([]byte(want.Response), []byte(strings.ToLower(c.Response))) == 1
}

// A nonce consists of the time and the number of its challenge, and a signature over these
// and the call.
const (
	nonceData = 16
	nonceSize = nonceData + 16
)

func (v *Verifier) nonce(call string) string {
	nonce := binary.BigEndian.AppendUint64(nil, uint64(time.Since(v.began)))
	nonce = binary.BigEndian.AppendUint64(nonce, v.serial.Add(1))
	return base64.RawURLEncoding.EncodeToString(append(nonce, v.sign(nonce, call)...))
}

func (v *Verifier) sign(data []byte, call string) []byte {
	signature := hmac.New(sha256.New, v.key[:])
	signature.Write(data)
	signature.Write([]byte(call))
	return signature.Sum(nil)[:nonceSize-nonceData]
}

// opens returns the number of a nonce; ok is false if the nonce is not one of ours for this
// call, or is too old.
func (v *Verifier) opens(nonce, call string) (serial uint64, ok bool) {
	data, err := base64.RawURLEncoding.Strict().DecodeString(nonce) // one text for each nonce
	if err != nil || len(data) != nonceSize || !hmac.Equal(data[nonceData:], v.sign(data[:nonceData], call)) {
		return 0, false
	}
	age := time.Since(v.began) - time.Duration(binary.BigEndian.Uint64(data))
	return binary.BigEndian.Uint64(data[8:]), age <= nonceLife
}
