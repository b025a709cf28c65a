package outgoing

import (
	"fmt"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// Typed returns a copy of a request whose headers that are changed before they leave have
// the types to do so. It returns an error if one that every request has cannot be read.
func Typed(req *sip.Request) (*sip.Request, error) {
	own := sip.NewRequest(req.Method, *req.Recipient.Clone())
	for _, h := range req.Headers() {
		if sipheader.IsNamed(h, "Via") || sipheader.IsNamed(h, "Content-Length") {
			continue // what sends it knows better
		}
		for _, header := range typedHeaders(h) {
			own.AppendHeader(header)
		}
	}
	own.SetBody(req.Body())
	for name, readable := range map[string]bool{
		"From": own.From() != nil, "To": own.To() != nil, "Call-ID": own.CallID() != nil,
		"CSeq": own.CSeq() != nil && own.CSeq().MethodName == own.Method,
	} {
		if !readable && sipheader.First(own, name) != nil {
			return nil, fmt.Errorf("%s %q", name, sipheader.Value(own, name))
		}
	}
	return own, nil
}

// typedHeaders returns a header in the type of its name, a list as several headers. An
// unreadable value is not changed.
func typedHeaders(h sip.Header) []sip.Header {
	switch h.(type) {
	case *sip.FromHeader, *sip.ToHeader, *sip.CallIDHeader, *sip.CSeqHeader, *sip.ContactHeader, *sip.RouteHeader:
		return []sip.Header{sip.HeaderClone(h)}
	}
	for _, name := range []string{"From", "To", "Call-ID", "CSeq", "Contact", "Route"} {
		if sipheader.IsNamed(h, name) {
			return sipmsg.Typed(name, h.Value())
		}
	}
	return []sip.Header{sip.HeaderClone(h)}
}
