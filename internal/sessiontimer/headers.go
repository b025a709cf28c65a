package sessiontimer

import (
	"time"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// StatusTooSmall refuses a session interval: Session Interval Too Small (RFC 4028 6).
const StatusTooSmall = 422

// ExpiresOf reads the Session-Expires of a message.
func ExpiresOf(msg sipheader.Message) Expires {
	return ParseExpires(sipheader.Value(msg, "Session-Expires"))
}

// MinSEOf reads the Min-SE of a message; zero without one.
func MinSEOf(msg sipheader.Message) time.Duration { return ParseMinSE(sipheader.Value(msg, "Min-SE")) }

// RequestOf reads the timer headers of a session refresh request.
func RequestOf(req *sipmsg.Message) Request {
	return Request{
		Expires: ExpiresOf(req), MinSE: MinSEOf(req), SupportsTimer: sipheader.Lists(req, "Supported", "timer"),
	}
}

// Set sets the timer headers of a request; a Min-SE of zero is none.
func Set(req *draft.Request, expires Expires, minSE time.Duration) {
	req.Remove("Session-Expires")
	req.Remove("Min-SE")
	req.Add("Session-Expires", expires.String())
	if minSE > 0 {
		req.Add("Min-SE", sipmsg.FormatSeconds(minSE))
	}
}

// Raise returns the change of a request that a 422 to it demands (RFC 4028 7.4); nil when
// the response demands none.
func Raise(res *sipmsg.Message) func(req *draft.Request) {
	demanded := MinSEOf(res)
	if res.Status != StatusTooSmall || demanded <= 0 {
		return nil
	}
	return func(req *draft.Request) {
		Set(req, ParseExpires(req.Value("Session-Expires")).Raised(demanded), demanded)
	}
}

// Refuses reports whether the interval that a request asks for is too small (RFC 4028 9).
func (p Policy) Refuses(req *sipmsg.Message) bool {
	return sipheader.Has(req, "Session-Expires") && p.IsTooSmall(RequestOf(req))
}
