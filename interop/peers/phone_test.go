//go:build interop && linux

package peers

import (
	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
)

// phone is a program of others that makes and takes calls.
type phone interface {
	// target is where the phone is called; the flow is nil if it needs none.
	target() (sip.Uri, *dialog.Flow)
	dial(to *station)
	// rings waits for a call, which answer accepts and refuse refuses.
	rings()
	answer()
	refuse()
	hangup()
	hold()
	resume()
	// transfer asks the peer of the present call to call a station.
	transfer(to *station)
}

// consultant is a phone that can ask the target of a transfer first.
type consultant interface {
	phone
	// consult calls the target while the first call is on hold.
	consult(to *station)
	// complete joins the two calls.
	complete()
}

// keyed is a phone that sends keys by INFO.
type keyed interface {
	phone
	press(key rune)
}

// writing is a phone that can send a message outside of a call.
type writing interface {
	phone
	text(to *station, words string)
}

// browsing is a phone with sessions of its own kind.
type browsing interface {
	offer(*station) dialog.Body
	answers(*station, *dialog.Dialog) dialog.Body
}

// sessionFor returns the offer of a station to a phone.
func sessionFor(p phone, st *station) dialog.Body {
	if b, is := p.(browsing); is {
		return b.offer(st)
	}
	return st.session()
}

// answerFor returns the answer of a station to the offer of a phone.
func answerFor(p phone, st *station, d *dialog.Dialog) dialog.Body {
	if b, is := p.(browsing); is {
		return b.answers(st, d)
	}
	return st.session()
}
