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

// nonceLife is how long a challenge may be answered: a peer that knows its password
// needs a round trip, one that asks its user has a moment.
const nonceLife = time.Minute

// Verifier challenges requests of peers, and checks what answers that (RFC 3261 22.2,
// RFC 7616 3.3). It keeps nothing of a challenge: a nonce says when it was made, and has
// a signature, by a key of the Verifier's own, that is good for one call. All methods may
// be called from any goroutine.
type Verifier struct {
	key    [sha256.Size]byte
	began  time.Time
	serial atomic.Uint64 // of the latest nonce
}

// NewVerifier returns one whose nonces nobody else can make.
func NewVerifier() *Verifier {
	v := &Verifier{began: time.Now()}
	_, _ = rand.Read(v.key[:]) // never fails
	return v
}

// Verdict says what credentials prove.
type Verdict int

const (
	// Unproved: nothing.
	Unproved Verdict = iota
	// Stale: that their sender knows the password, but not that it is there now: the
	// nonce is old, or not ours, or has been used.
	Stale
	// Proved: that the sender has answered a challenge of ours.
	Proved
)

// Proof is which use of which nonce has proved something.
type Proof struct {
	serial uint64
	count  uint32
}

// Uses remembers by what a call's peer has proved itself, so that nothing proves twice.
// Whoever has it synchronises.
type Uses struct{ latest Proof }

// Take reports whether a proof is new: of a later nonce than those before, or a later
// use of the latest.
func (u *Uses) Take(p Proof) bool {
	if p.serial < u.latest.serial || p.serial == u.latest.serial && p.count <= u.latest.count {
		return false
	}
	u.latest = p
	return true
}

// Challenge returns the values of the WWW-Authenticate headers that ask a call's peer who
// it is, the better algorithm first (RFC 8760 2.4).
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

// maxCredentials bounds how many credentials of one request are looked at: computing a
// digest is work.
const maxCredentials = 4

// Check looks for credentials that answer a challenge for this call by this login, in
// the values of a request's Authorization headers. Their URI need not be that of the
// request, which a proxy may have rewritten (RFC 3261 22.4).
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

// isBy reports whether credentials are made with the password. Without qop and a count
// they could be used again: RFC 3261 22.4 has everybody send them who is sent a qop.
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

// A nonce is the time and the number of its challenge, and a signature of these and the
// call.
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

// opens returns the number of a nonce that is one of ours for this call, and not too old.
func (v *Verifier) opens(nonce, call string) (serial uint64, ok bool) {
	data, err := base64.RawURLEncoding.DecodeString(nonce)
	if err != nil || len(data) != nonceSize || !hmac.Equal(data[nonceData:], v.sign(data[:nonceData], call)) {
		return 0, false
	}
	age := time.Since(v.began) - time.Duration(binary.BigEndian.Uint64(data))
	return binary.BigEndian.Uint64(data[8:]), age <= nonceLife
}
