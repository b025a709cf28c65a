package txn

import (
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// magicCookie begins the branches that are unique (RFC 3261 8.1.1.7).
const magicCookie = "z9hG4bK"

// requestKey is what a request from the network is matched by (RFC 3261
// 17.2.3). An ACK is matched as the INVITE it belongs to.
func requestKey(req *sip.Request) key {
	via := req.Via()
	k := key{scope: strings.ToLower(via.Host), number: via.Port, method: req.Method}
	if req.Method == sip.ACK {
		k.method = sip.INVITE
	}
	branch, _ := via.Params.Get("branch")
	if len(branch) > len(magicCookie) && strings.HasPrefix(branch, magicCookie) {
		k.id = branch
		return k
	}
	k.id = oldIdentity(req)
	return k
}

// oldIdentity identifies a request of an RFC 2543 client, whose ACK and CANCEL
// share it with the INVITE. The To tag is left out: an ACK has the response's.
// The NULs keep it apart from any branch.
func oldIdentity(req *sip.Request) string {
	return strings.Join([]string{
		req.Recipient.String(), fromTag(req), req.CallID().Value(),
		strconv.FormatUint(uint64(req.CSeq().SeqNo), 10), req.Via().Value(),
	}, "\x00")
}

// mergeKey is the same for copies of one request that came by different paths
// (RFC 3261 8.2.2.2); zero for a request inside a dialog.
func mergeKey(req *sip.Request) key {
	if tag, _ := req.To().Params.Get("tag"); tag != "" {
		return key{}
	}
	return key{
		id: req.CallID().Value(), scope: fromTag(req),
		number: int(req.CSeq().SeqNo), method: req.Method,
	}
}

func fromTag(req *sip.Request) string {
	tag, _ := req.From().Params.Get("tag")
	return tag
}

// newBranch returns a branch nobody can guess: it also tells our transactions
// from forged responses.
func newBranch() string { return magicCookie + randomHex(12) }

// newTag returns a tag as RFC 3261 19.3 asks for: at least 32 random bits.
func newTag() string { return randomHex(8) }

func randomHex(n int) string {
	b := make([]byte, n)
	// It does not fail on the platforms Go supports; since Go 1.24 it cannot.
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

// hasCookie reports whether a key is made of a branch alone.
func hasCookie(k key) bool { return strings.HasPrefix(k.id, magicCookie) }
