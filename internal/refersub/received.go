package refersub

import (
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// Received is what a NOTIFY of the peer's says. Without a readable body it reports no
// progress, but the state of the subscription counts.
type Received struct {
	Progress Progress
	// HasProgress is true when the body has a status line, whatever its type is said
	// to be.
	HasProgress bool

	state  string // in lower case
	params sipmsg.Params
	isFrag bool
}

// Read reads a NOTIFY.
func Read(msg sipheader.Message) Received {
	state, params := sipmsg.CutParams(sipheader.Value(msg, "Subscription-State"))
	n := Received{state: strings.ToLower(state), params: params, isFrag: IsFrag(sipheader.Value(msg, "Content-Type"), msg.Body())}
	n.Progress, n.HasProgress = ParseFrag(msg.Body())
	return n
}

// refusal is the response that refuses the NOTIFY.
func (n Received) refusal() (reply Reply, refused bool) {
	switch {
	case n.state == "":
		return Reply{Status: sip.StatusBadRequest}, true // RFC 6665 4.1.3: it must be there
	case !n.HasProgress && !n.isFrag && n.state != "terminated":
		// RFC 3261 8.2.3
		return Reply{Status: sip.StatusUnsupportedMediaType, Header: sip.NewHeader("Accept", sipmsg.Bare(TypeFrag))}, true
	}
	return Reply{}, false
}

// Change is what a NOTIFY makes of the subscription.
type Change int

// Goes on; lingers; ends. A subscription lingers that the peer has ended without a
// reason while the new call was in progress: some peers send "terminated" in every
// NOTIFY, and the outcome in a later one.
const (
	Continues Change = iota
	Lingers
	Ends
)

// Change returns what the NOTIFY makes of the subscription, when its progress has been
// taken; decided is true when there is an outcome by now.
func (n Received) Change(decided bool) Change {
	switch {
	case n.state != "terminated":
		return Continues
	case n.HasProgress && !decided && n.params.Text("reason") == "":
		return Lingers
	}
	return Ends
}

// Life is the time until the subscription expires; otherwise if the NOTIFY has none.
func (n Received) Life(otherwise time.Duration) time.Duration {
	return Granted(n.params.Text("expires"), otherwise)
}

// lost is why it ends without an outcome, and when another try may be made (RFC 6665
// 4.1.3).
func (n Received) lost() Lost {
	l := Lost{Reason: n.params.Text("reason")}
	l.RetryAfter, _ = sipmsg.Seconds(n.params.Text("retry-after"))
	if l.Reason == "timeout" {
		l.Err = ErrTimeout
	}
	return l
}
