package sipmsg

import (
	"slices"

	"github.com/emiago/sipgo/sip"
)

// NewReply returns a response to the request m as sipgo has it, with what it
// repeats: for one who changes it. It is the caller's own. [Message.AppendResponse]
// writes it.
func (m *Message) NewReply(code int, reason, tag string) *sip.Response {
	own := m.NewSIP()
	res := sip.NewResponse(code, reason)
	for _, h := range own.(*sip.Request).Headers() {
		if to, ok := h.(*sip.ToHeader); ok && code != sip.StatusTrying && m.ToTag == "" && tag != "" {
			to.Params.Add("tag", tag)
		}
		again := code == sip.StatusTrying && EqualFold(h.Name(), timestamp)
		if again || m.repeatsKnown(idOf(h.Name()), code) {
			res.AppendHeader(h)
		}
	}
	res.SetBody(nil)
	res.SetTransport(m.Transport)
	last := len(res.Headers()) - 1
	res.Headers()[last] = reply{Header: res.Headers()[last], m: m}
	return res
}

// reply is the Content-Length of a response that NewReply has made.
type reply struct {
	sip.Header
	m *Message
}

// Asked returns the request that a response was made for by [Message.NewReply], as
// long as the response has had no other body; nil for any other response.
func Asked(res *sip.Response) *Message {
	for _, h := range res.Headers() {
		if r, ok := h.(reply); ok {
			return r.m
		}
	}
	return nil
}

// Changed returns the headers of a response to m that will not be as they came; all
// of them when m is nil.
func (m *Message) Changed(res *sip.Response) []sip.Header {
	if m == nil {
		return res.Headers()
	}
	var list []sip.Header
	for _, h := range res.Headers() {
		if known := idOf(h.Name()); !m.repeatsKnown(known, res.StatusCode) || !m.unchanged(known, m.Request(), res) {
			list = append(list, h)
		}
	}
	return list
}

// Encode returns a response that [Message.NewReply] has made: see
// [Message.AppendResponse].
func (m *Message) Encode(res *sip.Response) []byte {
	return exact(func(dst []byte) []byte { return m.AppendResponse(dst, res) })
}

// AppendResponse appends a response to the request m that [Message.NewReply] has
// made: a field whose structs still say what the request's say is repeated as it
// came, and one that was changed is as the structs have it.
func (m *Message) AppendResponse(dst []byte, res *sip.Response) []byte {
	dst = appendStatus(dst, res.StatusCode, res.Reason)
	req, done := m.Request(), uint32(0)
	for _, h := range res.Headers() {
		known := idOf(h.Name())
		switch bit := uint32(1) << known; {
		case done&bit != 0:
			continue
		case m.repeatsKnown(known, res.StatusCode) && m.unchanged(known, req, res):
			done |= bit
			dst = m.appendAll(dst, known, res)
		default:
			dst = appendField(dst, nameIn(res, h, known), h.Value())
		}
	}
	dst = append(dst, crlf...)
	return append(dst, res.Body()...)
}

// nameIn is how a response calls a header that it does not repeat.
func nameIn(res *sip.Response, h sip.Header, known id) string {
	if short := shortNames[known]; short != 0 && res.CompactHeaders {
		return string(short)
	}
	return h.Name()
}

// appendAll appends all lines of a field as they came.
func (m *Message) appendAll(dst []byte, known id, res *sip.Response) []byte {
	r := Reply{Code: res.StatusCode}
	if to := res.To(); known == idTo && to != nil {
		r.Tag, _ = to.Params.Get("tag")
	}
	for i := range m.lines {
		if l := &m.lines[i]; l.id == known {
			dst = m.appendRepeated(dst, l, &r)
		}
	}
	return dst
}

// unchanged reports whether the headers of a kind are those of the request; To
// may have got a tag.
func (m *Message) unchanged(known id, req *sip.Request, res *sip.Response) bool {
	left := req.Headers()
	for _, h := range res.Headers() {
		if idOf(h.Name()) != known {
			continue
		}
		at := slices.IndexFunc(left, func(o sip.Header) bool { return idOf(o.Name()) == known })
		if at < 0 || !m.same(left[at], h) {
			return false
		}
		left = left[at+1:]
	}
	return !slices.ContainsFunc(left, func(o sip.Header) bool { return idOf(o.Name()) == known })
}

func (m *Message) same(a, b sip.Header) bool {
	switch a := a.(type) {
	case *sip.ViaHeader:
		b, ok := b.(*sip.ViaHeader)
		return ok && a.ProtocolName == b.ProtocolName && a.ProtocolVersion == b.ProtocolVersion &&
			a.Transport == b.Transport && a.Host == b.Host && a.Port == b.Port && slices.Equal(a.Params, b.Params)
	case *sip.FromHeader:
		b, ok := b.(*sip.FromHeader)
		return ok && a.DisplayName == b.DisplayName && sameURI(&a.Address, &b.Address) && slices.Equal(a.Params, b.Params)
	case *sip.ToHeader:
		b, ok := b.(*sip.ToHeader)
		return ok && a.DisplayName == b.DisplayName && sameURI(&a.Address, &b.Address) && m.sameTo(a.Params, b.Params)
	case *sip.RecordRouteHeader:
		b, ok := b.(*sip.RecordRouteHeader)
		return ok && sameURI(&a.Address, &b.Address)
	}
	return a.Name() == b.Name() && a.Value() == b.Value()
}

// sameTo allows a tag at the end that the request did not have.
func (m *Message) sameTo(a, b sip.HeaderParams) bool {
	if n := len(b) - 1; m.ToTag == "" && len(a) == n && b[n].K == "tag" {
		b = b[:n]
	}
	return slices.Equal(a, b)
}

func sameURI(a, b *sip.Uri) bool {
	return a.Scheme == b.Scheme && a.Raw() == b.Raw() && a.Wildcard == b.Wildcard &&
		a.HierarhicalSlashes == b.HierarhicalSlashes && a.User == b.User && a.Password == b.Password &&
		a.Host == b.Host && a.Port == b.Port &&
		slices.Equal(a.UriParams, b.UriParams) && slices.Equal(a.Headers, b.Headers)
}
