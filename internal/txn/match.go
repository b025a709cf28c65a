package txn

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
)

// magicCookie begins the branches that are unique (RFC 3261 8.1.1.7).
const magicCookie = "z9hG4bK"

// The keys of the tables: parts with a NUL between, which RFC 3261 25 allows in
// none of them.

// clientKey is the key by which a response is matched (RFC 3261 17.1.3).
func clientKey(branch string, method sip.RequestMethod) string {
	return branch + "\x00" + string(method)
}

// branchIn is the branch in a clientKey.
func branchIn(key string) string {
	branch, _, _ := strings.Cut(key, "\x00")
	return branch
}

func appendClientKey(b []byte, branch string, method sip.RequestMethod) []byte {
	return append(append(append(b, branch...), 0), method...)
}

// appendServerKey appends the key by which a request from the network is matched (RFC 3261
// 17.2.3). Its first id bytes are the same without the method. old is true for a client of
// RFC 2543, whose ACK and CANCEL have the same key as the INVITE; the To tag is left out
// then, since an ACK has that of the response.
func appendServerKey(b []byte, m *sipmsg.Message) (key []byte, id int, old bool) {
	branch := m.Via.Branch()
	if old = len(branch) <= len(magicCookie) || !strings.HasPrefix(branch, magicCookie); old {
		b = appendParts(b, m.RequestURI, m.FromTag, m.CallID)
		b = append(strconv.AppendUint(b, uint64(m.CSeq), 10), 0)
		b = appendParts(b, m.TopVia())
		b = append(m.Source.Addr().AppendTo(b), 0)
	} else {
		b = appendParts(b, branch, strings.ToLower(m.Via.Host))
		b = append(strconv.AppendInt(b, int64(m.Via.Port), 10), 0)
	}
	id = len(b)
	return append(b, matched(m.Method)...), id, old
}

func appendParts(b []byte, parts ...string) []byte {
	for _, part := range parts {
		b = append(append(b, part...), 0)
	}
	return b
}

// serverKey completes an id.
func serverKey(id string, method sip.RequestMethod) string { return id + string(matched(method)) }

// matched is the method that a request is matched by: an ACK is matched as the INVITE
// it belongs to.
func matched(method sip.RequestMethod) sip.RequestMethod {
	if method == sip.ACK {
		return sip.INVITE
	}
	return method
}

// mergeKey is the same for copies of one request that came by different paths
// (RFC 3261 8.2.2.2); empty for a request inside a dialog.
func mergeKey(m *sipmsg.Message) string {
	if m.ToTag != "" {
		return ""
	}
	return strings.Join([]string{m.CallID, m.FromTag, strconv.FormatUint(uint64(m.CSeq), 10), string(m.CSeqMethod)}, "\x00")
}

// newBranch returns a branch that cannot be guessed, so that forged responses match no
// transaction.
func newBranch() string { return magicCookie + randomHex(12) }

// tagOf returns the To tag of a refusal that no transaction remembers: the same
// one each time (RFC 3261 8.2.7), and unpredictable for others. All other
// tags are new each time: an INVITE that is replayed must not find the dialog of
// the first one.
func (l *Layer) tagOf(k string) string {
	mac := hmac.New(sha256.New, l.secret)
	_, _ = mac.Write([]byte(k)) // never fails
	return hex.EncodeToString(mac.Sum(nil)[:8])
}

// newTag returns a tag as RFC 3261 19.3 asks for: at least 32 random bits.
func newTag() string { return randomHex(8) }

func randomHex(n int) string {
	b := make([]byte, n)
	// It does not fail on the platforms Go supports; since Go 1.24 it cannot.
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}
