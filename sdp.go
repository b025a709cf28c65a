package dialog

import (
	"bytes"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/multipart"
	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/sipmsg"
)

// The session descriptions in messages; what becomes of them is internal/offeranswer's.

// sessionIn returns a copy of the session description in a message: its body, or the
// part of it that is one; nil when it has none.
func sessionIn(msg message) *SimpleBody {
	if len(msg.Body()) == 0 {
		return nil
	}
	part, ok := offeranswer.SessionPart(wholeBody(msg))
	if !ok {
		return nil
	}
	return &SimpleBody{contentType: ownType(part.Type), data: bytes.Clone(part.Data)}
}

// wholeBody is a message's body, not yet taken apart.
func wholeBody(msg message) multipart.Part {
	return multipart.Part{
		Type: headerValue(msg, "Content-Type"), Disposition: headerValue(msg, "Content-Disposition"), Data: msg.Body(),
	}
}

// sdpIn is sessionIn for a message where nothing but SDP counts.
func sdpIn(msg message) *SimpleBody {
	if body := sessionIn(msg); body != nil && offeranswer.IsSDP(body) {
		return body
	}
	return nil
}

// defaultAnswer is the answer to a request, or the offer in the answer to one without
// an offer, where nobody decides it.
func defaultAnswer(n *offeranswer.Negotiation, req *sipmsg.Message, offer *SimpleBody) (Body, error) {
	if sessionExpires(req).Interval > 0 {
		return n.RefreshAnswer(offer)
	}
	return n.DefaultAnswer(offer)
}

// numbered gives a body its version: see [offeranswer.Negotiation.Numbered]. It locks
// the mutex.
func (d *Dialog) numbered(ours Body) Body {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.currentLocked().negotiation.Numbered(ours)
}

// refusal refuses each stream of an offer; nil for nil. It locks the mutex.
func (d *Dialog) refusal(offer *SimpleBody) Body {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.currentLocked().negotiation.Refusal(offer)
}

// numberLocked is numbered for a response of ours.
func (d *Dialog) numberLocked(res *sip.Response) {
	s := d.currentLocked()
	if !s.negotiation.HasSent() {
		return
	}
	if body := bodyOf(res); body != nil {
		res.SetBody(s.negotiation.Numbered(body).Data())
	}
}
