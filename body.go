package dialog

import (
	"bytes"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/offeranswer"
)

// BodyImpl is a Body made by an application.
type BodyImpl struct {
	contentType string
	content     []byte
}

// NewBody returns a body. It keeps content without copying it: the caller
// must not change it afterwards, or hand in a copy.
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

// SimpleBody is a Body that came off the wire.
type SimpleBody struct {
	contentType string
	data        []byte
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

const (
	typeSDP     = offeranswer.TypeSDP
	typeSIPFrag = "message/sipfrag;version=2.0"
)

// bodyOf returns a copy of the body of a message, or nil when it has none.
func bodyOf(msg message) *SimpleBody {
	if len(msg.Body()) == 0 {
		return nil
	}
	return &SimpleBody{contentType: ownType(headerValue(msg, "Content-Type")), data: bytes.Clone(msg.Body())}
}

// ownType is a content type that does not keep the text of its message.
func ownType(value string) string {
	if value == typeSDP {
		return typeSDP
	}
	return strings.Clone(value)
}

// ownBody returns a copy of a body of the application's, whose methods are the
// application's code and must not run under a lock; nil for none.
func ownBody(body Body) Body {
	if isNilBody(body) {
		return nil
	}
	return &SimpleBody{contentType: body.ContentType(), data: bytes.Clone(body.Data())}
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
