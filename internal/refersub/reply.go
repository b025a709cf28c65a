package refersub

import "github.com/emiago/sipgo/sip"

// statusUnknown: there is no such subscription (RFC 6665 4.1.3).
const statusUnknown = sip.StatusCallTransactionDoesNotExists

// Reply is the response to a NOTIFY or SUBSCRIBE of the peer's: its status, a header
// unless nil, and our Contact if it makes or refreshes the dialog.
type Reply struct {
	Status     int
	HasContact bool
	Header     sip.Header
}

// Stray is the response to a NOTIFY or SUBSCRIBE that belongs to no subscription (RFC 6665
// 4.1.3). A SUBSCRIBE cannot make one, only a REFER can (RFC 3515 2.4.4); over is true
// when the dialog has ended.
func Stray(method sip.RequestMethod, over bool) Reply {
	if method == sip.SUBSCRIBE && !over {
		return Reply{Status: sip.StatusForbidden}
	}
	return Reply{Status: statusUnknown}
}
