package refersub

import (
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

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
func Read(subscriptionState, contentType string, body []byte) Received {
	state, params := sipmsg.CutParams(subscriptionState)
	n := Received{state: strings.ToLower(state), params: params, isFrag: IsFrag(contentType, body)}
	n.Progress, n.HasProgress = ParseFrag(body)
	return n
}

// Refusal is the status with which the NOTIFY is refused; zero when it is taken.
func (n Received) Refusal() int {
	switch {
	case n.state == "":
		return sip.StatusBadRequest // RFC 6665 4.1.3: it must be there
	case !n.HasProgress && !n.isFrag && n.state != "terminated":
		return sip.StatusUnsupportedMediaType // RFC 3261 8.2.3
	}
	return 0
}

// Effect is what a NOTIFY makes of the subscription.
type Effect int

// Goes on; lingers; ends. A subscription lingers that the peer has ended without a
// reason while the new call was in progress: some peers send "terminated" in every
// NOTIFY, and the outcome in a later one.
const (
	Continues Effect = iota
	Lingers
	Ends
)

// Effect returns what the NOTIFY makes of the subscription, when its progress has been
// taken; decided is true when there is an outcome by now.
func (n Received) Effect(decided bool) Effect {
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

// Reason is why it ends, and when another try may be made (RFC 6665 4.1.3).
func (n Received) Reason() (reason string, retryAfter time.Duration) {
	retryAfter, _ = sipmsg.Seconds(n.params.Text("retry-after"))
	return n.params.Text("reason"), retryAfter
}
