package dialog

import (
	"bytes"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/multipart"
	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/sessiontimer"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// BodyImpl is a Body made by an application.
type BodyImpl struct {
	contentType string
	content     []byte
}

// NewBody returns a body. It keeps content without copying it: the caller must not
// change content afterwards.
func NewBody(contentType string, content []byte) *BodyImpl {
	return &BodyImpl{contentType: contentType, content: content}
}

// ContentType returns the content type; empty for a nil body.
func (b *BodyImpl) ContentType() string {
	if b == nil {
		return ""
	}
	return b.contentType
}

// Data returns the content, not a copy of it; nil for a nil body.
func (b *BodyImpl) Data() []byte {
	if b == nil {
		return nil
	}
	return b.content
}

// Copy returns a body that shares nothing with b; nil for a nil body.
func (b *BodyImpl) Copy() *BodyImpl {
	if b == nil {
		return nil
	}
	return &BodyImpl{contentType: b.contentType, content: bytes.Clone(b.content)}
}

// SimpleBody is a received Body.
type SimpleBody struct {
	contentType string
	data        []byte
	// whole is the body that this is a part of; nil for none.
	whole *SimpleBody
}

// Whole returns the multipart body that b is a part of, for the session description that
// Renegotiate, Update and UpdateFork return; b itself if it is no part of another.
func (b *SimpleBody) Whole() *SimpleBody {
	if b == nil || b.whole == nil {
		return b
	}
	return b.whole
}

// ContentType returns the content type; empty for a nil body.
func (b *SimpleBody) ContentType() string {
	if b == nil {
		return ""
	}
	return b.contentType
}

// Data returns the content, not a copy of it; nil for a nil body.
func (b *SimpleBody) Data() []byte {
	if b == nil {
		return nil
	}
	return b.data
}

const typeSDP = offeranswer.TypeSDP

// bodyOf returns a copy of the body of a message, or nil when it has none.
func bodyOf(msg sipheader.Message) *SimpleBody {
	if len(msg.Body()) == 0 {
		return nil
	}
	return &SimpleBody{contentType: ownType(sipheader.Value(msg, "Content-Type")), data: bytes.Clone(msg.Body())}
}

// ownType is a content type that does not keep the text of its message.
func ownType(value string) string {
	if value == typeSDP {
		return typeSDP
	}
	return strings.Clone(value)
}

// ownBody returns a copy of a body of the application, whose methods are the
// application's code and must not run under a lock; nil for none.
func ownBody(body Body) Body {
	if isNilBody(body) {
		return nil
	}
	return &SimpleBody{contentType: body.ContentType(), data: bytes.Clone(body.Data())}
}

// orEmpty is a body, or an empty one for nil.
func orEmpty(body Body) Body {
	if isNilBody(body) {
		return &SimpleBody{}
	}
	return body
}

// setBody gives a message a body, or none when body is nil or empty.
func setBody(msg sip.Message, body Body) {
	if isNilBody(body) || len(body.Data()) == 0 {
		return
	}
	if t := body.ContentType(); t != "" {
		msg.AppendHeader(sip.NewHeader("Content-Type", t))
	}
	msg.SetBody(bytes.Clone(body.Data()))
}

// putBody is setBody for a request of ours.
func putBody(req *draft.Request, body Body) {
	if isNilBody(body) || len(body.Data()) == 0 {
		return
	}
	if t := body.ContentType(); t != "" {
		req.Add("Content-Type", t)
	}
	req.Body = body.Data()
}

// isNilBody also sees the nil pointers of this package's own types behind the
// interface.
func isNilBody(body Body) bool {
	switch b := body.(type) {
	case nil:
		return true
	case *BodyImpl:
		return b == nil
	case *SimpleBody:
		return b == nil
	default:
		return false
	}
}

// The session descriptions in messages. Package offeranswer handles them.

// sessionIn returns a copy of the session description in a message: its body, or the
// part of it that is one; nil when it has none.
func sessionIn(msg sipheader.Message) *SimpleBody {
	return ownPart(offeranswer.SessionIn(msg))
}

// bodiesIn returns a copy of the body of a message, and the session description in it: the
// same, or one of its parts. Each is nil for none.
func bodiesIn(msg sipheader.Message) (body, session *SimpleBody) { return bodiesBy(msg, bytes.Clone) }

// bodiesKept is bodiesIn for a message that the call keeps: the bodies are parts of it, and
// take no room of their own.
func bodiesKept(msg sipheader.Message) (body, session *SimpleBody) {
	return bodiesBy(msg, func(data []byte) []byte { return data })
}

func bodiesBy(msg sipheader.Message, own func([]byte) []byte) (body, session *SimpleBody) {
	if len(msg.Body()) == 0 {
		return nil, nil
	}
	body = &SimpleBody{contentType: ownType(sipheader.Value(msg, "Content-Type")), data: own(msg.Body())}
	if !multipart.IsMultipart(body.contentType) {
		if offeranswer.DescribesSession(offeranswer.Whole(msg)) {
			session = body
		}
		return body, session
	}
	if part, ok := offeranswer.SessionIn(msg); ok {
		session = &SimpleBody{contentType: ownType(part.Type), data: own(part.Data)}
	}
	return body, session
}

// receivedSession is the session description in a response, as the application gets it; nil
// for none.
func receivedSession(res *sipmsg.Message) Body {
	body, session := bodiesIn(res)
	return keptOrNil(session.within(body))
}

// within is a session description that knows the body that it is a part of.
func (b *SimpleBody) within(whole *SimpleBody) *SimpleBody {
	if b == nil || b == whole {
		return b
	}
	return &SimpleBody{b.contentType, b.data, whole}
}

// ownPart is a copy of a part of a message, nil for none.
func ownPart(part multipart.Part, ok bool) *SimpleBody {
	if !ok {
		return nil
	}
	return &SimpleBody{contentType: ownType(part.Type), data: bytes.Clone(part.Data)}
}

// hasSession reports whether sessionIn finds one.
func hasSession(msg sipheader.Message) bool {
	_, ok := offeranswer.SessionIn(msg)
	return ok
}

// sdpIn is sessionIn for a message where nothing but SDP counts.
func sdpIn(msg sipheader.Message) *SimpleBody { return ownPart(offeranswer.SDPIn(msg)) }

// defaultAnswer returns the answer to a request, or the offer in the response to a request
// without one, if no callback decides it.
func defaultAnswer(n *offeranswer.Negotiation, req *sipmsg.Message, offer *SimpleBody) (Body, error) {
	if sessiontimer.ExpiresOf(req).Interval > 0 {
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
func (d *Dialog) refusal(offer Body) Body {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.currentLocked().negotiation.Refusal(offer)
}

// numberLocked is numbered for a response of ours.
func (s *dialogState) numberLocked(res *sip.Response) {
	if !s.negotiation.HasSent() {
		return
	}
	if body := bodyOf(res); body != nil {
		res.SetBody(s.negotiation.Numbered(body).Data())
	}
}

// The bytes of peers' messages that calls hold. Limits.CallBytes bounds them.

// bytesPerRoute is the size of a route that was read, above its text.
const bytesPerRoute = 300

func sizeOfBody(body Body) int {
	if isNilBody(body) {
		return 0
	}
	return len(body.Data())
}

// bytesOf is how many bytes a body takes besides the INVITE that brought the call, which is
// kept.
func (d *Dialog) bytesOf(body Body) int {
	if isNilBody(body) || d.arrived.Holds(body.Data()) {
		return 0
	}
	return len(body.Data())
}

// aside is the latest body that came while no callback was registered. isOffer is true if
// it is an offer that came before Accept, which answers it.
type aside struct {
	body    Body
	isOffer bool
}

// holdInvite counts the bytes that a new call of the peer holds, and reports whether they
// are within the bound. No other goroutine has the call yet.
func (d *Dialog) holdInvite() bool {
	return d.holds.Take(d.arrived.Size() + len(d.currentLocked().RouteSet())*bytesPerRoute)
}

// putAsideLocked keeps a body for the first callback, instead of the one before. It drops
// the body if there is no room.
func (d *Dialog) putAsideLocked(body *SimpleBody) {
	fits := d.holds.Replace(d.bytesOf(d.aside.body), d.bytesOf(keptOrNil(body)), 0)
	d.aside = aside{body: body}
	if !fits {
		d.aside.body = nil
		d.stack.counters.bodies.Add(1)
	}
}

// takeAsideLocked returns the body that was kept. The caller gives its bytes back with
// release.
func (d *Dialog) takeAsideLocked() (kept Body, release func()) {
	kept, d.aside.body = d.aside.body, nil
	bytes := d.bytesOf(kept)
	return kept, func() { d.holds.Give(bytes) }
}

// dropAsideLocked forgets the body that was kept.
func (d *Dialog) dropAsideLocked() {
	_, release := d.takeAsideLocked()
	release()
}

// keepResponseLocked records the latest response to the INVITE; where there is no room
// for its body, without that.
func (d *Dialog) keepResponseLocked(kept *sipmsg.Kept) {
	if !d.holds.Replace(d.answeredBy.Size(), kept.Size(), kept.HeadSize()) {
		kept = kept.WithoutBody()
		d.stack.counters.bodies.Add(1)
	}
	d.answeredBy = kept
}

// keepBodyLocked records the latest body of an early dialog, if there is room.
func (e *earlyDialog) keepBodyLocked(body *SimpleBody) {
	before := sizeOfBody(e.body)
	if e.d.holds.Replace(before, sizeOfBody(body), before) {
		e.body = body
		return
	}
	e.d.stack.counters.bodies.Add(1)
}
