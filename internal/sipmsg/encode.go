package sipmsg

import (
	"slices"
	"sync"

	"github.com/emiago/sipgo/sip"
)

// NewReply returns a response to the request m as sipgo has it, with what it
// repeats: for one who changes it. It is the caller's own. [Message.AppendResponse]
// writes it.
func (m *Message) NewReply(code int, reason, tag string) *sip.Response {
	var few [12]sip.Header
	a, list := m.arena(&structs{}), few[:0]
	for i := range m.lines {
		if l := &m.lines[i]; m.repeats(l, code) {
			list = a.add(list, l)
		}
	}
	res := sip.NewResponse(code, reason)
	for _, h := range list {
		if to, ok := h.(*sip.ToHeader); ok && code != sip.StatusTrying && m.ToTag == "" && tag != "" {
			to.Params.Add("tag", tag)
		}
		res.AppendHeader(h)
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

// CheckChanged calls check for the headers of a response to m that will not be as they
// came, for all of them when m is nil, until one is refused.
func (m *Message) CheckChanged(res *sip.Response, check func(sip.Header) error) error {
	var original *scratch
	if m != nil {
		original = m.scratch()
		defer original.release()
	}
	for _, h := range res.Headers() {
		known := idOf(h.Name())
		if m != nil && m.repeatsKnown(known, res.StatusCode) && original.unchanged(known, res) {
			continue
		}
		if err := check(h); err != nil {
			return err
		}
	}
	return nil
}

// Encode returns a response that [Message.NewReply] has made: see
// [Message.AppendResponse].
func (m *Message) Encode(res *sip.Response) []byte {
	w := buffers.Get().(*buffer)
	m.write(w, res)
	return w.exact()
}

// AppendResponse appends a response to the request m that [Message.NewReply] has
// made: a field whose structs still say what the request's say is repeated as it
// came, and one that was changed is as the structs have it.
func (m *Message) AppendResponse(dst []byte, res *sip.Response) []byte {
	w := &buffer{dst}
	m.write(w, res)
	return w.b
}

func (m *Message) write(w *buffer, res *sip.Response) {
	w.b = appendStatus(w.b, res.StatusCode, res.Reason)
	original, done := m.scratch(), uint32(0)
	defer original.release()
	for _, h := range res.Headers() {
		known := idOf(h.Name())
		switch bit := uint32(1) << known; {
		case done&bit != 0:
			continue
		case m.repeatsKnown(known, res.StatusCode) && original.unchanged(known, res):
			done |= bit
			w.b = m.appendAll(w.b, known, res)
		default:
			w.header(nameIn(res, h, known), h)
		}
	}
	w.b = append(w.b, crlf...)
	w.b = append(w.b, res.Body()...)
}

// header appends a header under a name.
func (w *buffer) header(name string, h sip.Header) {
	if name == h.Name() {
		h.StringWrite(w)
	} else {
		w.b = append(append(append(w.b, name...), ": "...), h.Value()...)
	}
	w.b = append(w.b, crlf...)
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

// scratch holds the headers of a request, to compare those of a response with.
type scratch struct {
	m       *Message
	structs structs
	few     [4]sip.Header
}

// scratches hold scratch space only.
var scratches = sync.Pool{New: func() any { return new(scratch) }}

func (m *Message) scratch() *scratch {
	s := scratches.Get().(*scratch)
	s.m = m
	return s
}

func (s *scratch) release() {
	*s = scratch{}
	scratches.Put(s)
}

// headers are those of a kind as the request has them, until they are asked for once
// more.
func (s *scratch) headers(known id) []sip.Header {
	s.structs = structs{}
	a, list := s.m.arena(&s.structs), s.few[:0]
	for i := range s.m.lines {
		if l := &s.m.lines[i]; l.id == known {
			list = a.add(list, l)
		}
	}
	return list
}

// unchanged reports whether the headers of a kind are those of the request; To
// may have got a tag.
func (s *scratch) unchanged(known id, res *sip.Response) bool {
	left := s.headers(known)
	for _, h := range res.Headers() {
		if idOf(h.Name()) != known {
			continue
		}
		if len(left) == 0 || !s.m.same(left[0], h) {
			return false
		}
		left = left[1:]
	}
	return len(left) == 0
}

func (m *Message) same(a, b sip.Header) bool {
	switch a := a.(type) {
	case *sip.ViaHeader:
		b, ok := b.(*sip.ViaHeader)
		return ok && a.ProtocolName == b.ProtocolName && a.ProtocolVersion == b.ProtocolVersion &&
			a.Transport == b.Transport && a.Host == b.Host && a.Port == b.Port && slices.Equal(a.Params, b.Params)
	case *sip.FromHeader:
		b, ok := b.(*sip.FromHeader)
		return ok && a.DisplayName == b.DisplayName && SameURI(&a.Address, &b.Address) && slices.Equal(a.Params, b.Params)
	case *sip.ToHeader:
		b, ok := b.(*sip.ToHeader)
		return ok && a.DisplayName == b.DisplayName && SameURI(&a.Address, &b.Address) && m.sameTo(a.Params, b.Params)
	case *sip.RecordRouteHeader:
		b, ok := b.(*sip.RecordRouteHeader)
		return ok && SameURI(&a.Address, &b.Address)
	case *sip.CallIDHeader:
		b, ok := b.(*sip.CallIDHeader)
		return ok && *a == *b
	case *sip.CSeqHeader:
		b, ok := b.(*sip.CSeqHeader)
		return ok && *a == *b
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

// SameURI reports whether two URIs have the same parts, in the same order and case.
func SameURI(a, b *sip.Uri) bool {
	return a.Scheme == b.Scheme && a.Raw() == b.Raw() && a.Wildcard == b.Wildcard &&
		a.HierarhicalSlashes == b.HierarhicalSlashes && a.User == b.User && a.Password == b.Password &&
		a.Host == b.Host && a.Port == b.Port &&
		slices.Equal(a.UriParams, b.UriParams) && slices.Equal(a.Headers, b.Headers)
}
