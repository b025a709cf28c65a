package dialog

import (
	"slices"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
)

// inspectAccept refuses an offer that could not be answered: Accept says which
// bodies the response may have, and an SDP answer is not among them (RFC 3261
// 20.1, 21.4.7). Without Accept it is.
func inspectAccept(tx serverTx, req *sipmsg.Message) *sip.Response {
	if !hasHeader(req, "Accept") || slices.ContainsFunc(listed(req, "Accept"), coversSDP) || sdpIn(req) == nil {
		return nil
	}
	res := tx.NewResponse(sip.StatusNotAcceptable, "")
	WithWarning(399, "an answer in SDP is not accepted")(res)
	return res
}

// coversSDP reports whether a media range of Accept has SDP in it.
func coversSDP(accepted string) bool {
	switch strings.Join(strings.Fields(strings.ToLower(mediaType(accepted))), "") {
	case typeSDP, "application/*", "*/*":
		return true
	}
	return false
}
