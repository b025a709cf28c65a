package sipmsg

import (
	"slices"
	"strconv"

	"github.com/emiago/sipgo/sip"
)

// Request returns the request as sipgo has it, the same one each time: it is
// read only. It shares its strings and its body with the message. The top Via
// says where it came from. What cannot be read as what it should be is a header
// with a name and a value.
func (m *Message) Request() *sip.Request {
	req, _ := m.SIP().(*sip.Request)
	return req
}

// Response is Request for a response.
func (m *Message) Response() *sip.Response {
	res, _ := m.SIP().(*sip.Response)
	return res
}

// SIP returns the Request or the Response.
func (m *Message) SIP() sip.Message {
	m.once.Do(func() { m.made = m.NewSIP() })
	return m.made
}

// NewSIP is SIP that is the caller's own, but for the body.
func (m *Message) NewSIP() sip.Message {
	if m.IsRequest() {
		return m.newRequest()
	}
	return m.newResponse()
}

func (m *Message) newRequest() *sip.Request {
	made := &struct {
		sip.Request
		structs
	}{}
	req := &made.Request
	req.Method, req.SipVersion = m.Method, m.Version
	if uri, err := ToURI(m.RequestURI); err == nil {
		req.Recipient = uri
	}
	m.fill(&req.MessageData, &made.structs)
	return req
}

func (m *Message) newResponse() *sip.Response {
	made := &struct {
		sip.Response
		structs
	}{}
	res := &made.Response
	res.StatusCode, res.Reason, res.SipVersion = m.Status, m.Reason, m.Version
	m.fill(&res.MessageData, &made.structs)
	return res
}

// arena makes the structs of one message.
type arena struct {
	*structs
	m        *Message
	used     uint32 // bits of the ids whose one struct is taken
	lengthAt int    // where Content-Length is in order; -1: nowhere
	left     int    // how many parameters more there may be
}

// structs are most of the structs of a message, in one piece of memory.
type structs struct {
	via         sip.ViaHeader
	from        sip.FromHeader
	to          sip.ToHeader
	callID      sip.CallIDHeader
	cseq        sip.CSeqHeader
	maxForwards sip.MaxForwardsHeader
	contentType sip.ContentTypeHeader
	length      sip.ContentLengthHeader
	params      sip.HeaderParams // all of them
	pairs       [6]sip.HeaderKV
}

func (m *Message) arena(storage *structs) arena {
	a := arena{structs: storage, m: m, lengthAt: -1, left: maxHeld}
	a.length = sip.ContentLengthHeader(len(m.body))
	a.params = a.pairs[:0]
	return a
}

// fill puts all headers into a message. The first of a kind is what sipgo's getters
// return.
func (m *Message) fill(data *sip.MessageData, storage *structs) {
	var few [20]sip.Header
	a, list := m.arena(storage), few[:0]
	for i := range m.lines {
		list = a.add(list, &m.lines[i])
	}
	if a.lengthAt < 0 {
		a.lengthAt = len(list)
		list = append(list, &a.length)
	}
	data.PrependHeader(list...)
	var via, route, recordRoute, contact bool
	for i, h := range list {
		var first *bool
		switch h.(type) {
		case *sip.ViaHeader:
			first = &via
		case *sip.RouteHeader:
			first = &route
		case *sip.RecordRouteHeader:
			first = &recordRoute
		case *sip.ContactHeader:
			first = &contact
		default:
			continue
		}
		if !*first {
			*first = true
			if several(list[i:]) {
				data.ReplaceHeader(h)
			}
		}
	}
	// The list has a header that leads back to the message.
	data.Headers()[a.lengthAt] = origin{Header: &a.length, m: m}
	data.SetTransport(m.Transport)
	if m.Source.IsValid() {
		data.SetSource(m.Source.String())
	}
	if len(m.body) > 0 {
		data.SetBody(m.body)
	}
}

// several reports whether there is another header of the first one's kind.
func several(list []sip.Header) bool {
	name := list[0].Name()
	return slices.ContainsFunc(list[1:], func(h sip.Header) bool { return h.Name() == name })
}

// origin is a Content-Length of a message that was received.
type origin struct {
	sip.Header
	m *Message
}

// Of returns the message that a struct was made of, or nil: of one that was not
// received, and of a clone.
func Of(msg sip.Message) *Message {
	var list []sip.Header
	switch msg := msg.(type) {
	case *sip.Request:
		if msg == nil {
			return nil
		}
		list = msg.Headers()
	case *sip.Response:
		if msg == nil {
			return nil
		}
		list = msg.Headers()
	}
	for i := len(list) - 1; i >= 0; i-- {
		if o, ok := list[i].(origin); ok {
			return o.m
		}
	}
	return nil
}

// take reports whether the arena's one struct for an id is free, and takes it.
func (a *arena) take(known id) bool {
	free := a.used&(1<<known) == 0
	a.used |= 1 << known
	return free
}

// add makes the headers of one line.
func (a *arena) add(list []sip.Header, l *line) []sip.Header {
	value := a.m.value(l)
	switch l.id {
	case idVia, idContact, idRoute, idRecordRoute:
		for more := true; more; {
			var one string
			one, value, more = Cut(value, ',')
			list = append(list, a.orPlain(a.listed(l.id, one), l, one))
		}
		return list
	case idOther:
		return append(list, a.orPlain(nil, l, value))
	case idContentLength:
		if a.lengthAt < 0 {
			a.lengthAt = len(list)
		}
	}
	return append(list, a.orPlain(a.single(l.id, value), l, value))
}

// orPlain returns a header, or a plain header of a value that cannot be read.
func (a *arena) orPlain(h sip.Header, l *line, value string) sip.Header {
	if h == nil {
		return sip.NewHeader(a.m.name(l), value)
	}
	return h
}

// listed makes a header that may have several values; nil when it cannot be.
func (a *arena) listed(known id, value string) sip.Header {
	if known == idVia {
		return a.viaOf(value)
	}
	display, uri, params, ok := a.address(value, ParseURI)
	switch {
	case !ok:
		return nil
	case known == idRoute:
		return &sip.RouteHeader{Address: uri}
	case known == idRecordRoute:
		return &sip.RecordRouteHeader{Address: uri}
	}
	return &sip.ContactHeader{DisplayName: display, Address: uri, Params: params}
}

func (a *arena) viaOf(value string) sip.Header {
	h, top := &a.via, a.take(idVia)
	if !top {
		h = &sip.ViaHeader{}
	}
	v, err := ParseVia(value)
	if err != nil {
		return nil
	}
	v.fill(h)
	params, ok := a.read(v.Params, true)
	if !ok {
		return nil
	}
	if top && a.m.Source.IsValid() && a.m.IsRequest() {
		params = a.marked(params)
	}
	h.Params = a.hold(params)
	return h
}

// marked is the parameters of the top Via with where the request came from.
func (a *arena) marked(params sip.HeaderParams) sip.HeaderParams {
	params.Remove("received")
	if params.Has("rport") {
		params.Add("rport", strconv.Itoa(int(a.m.Source.Port())))
	}
	if a.m.received {
		params.Add("received", a.m.Source.Addr().String())
	}
	return params
}

// single makes a header that has one value; nil when it cannot be, or is the
// second one.
func (a *arena) single(known id, value string) sip.Header {
	if known != idReferTo && known != idReferredBy && !a.take(known) {
		return nil
	}
	switch known {
	case idFrom, idTo:
		return a.party(known, value)
	case idCallID:
		a.callID = sip.CallIDHeader(value)
		return &a.callID
	case idCSeq:
		if a.m.CSeqMethod == "" {
			return nil
		}
		a.cseq = sip.CSeqHeader{SeqNo: a.m.CSeq, MethodName: a.m.CSeqMethod}
		return &a.cseq
	case idMaxForwards:
		n, err := strconv.ParseUint(value, 10, 32)
		a.maxForwards = sip.MaxForwardsHeader(n)
		if err != nil {
			return nil
		}
		return &a.maxForwards
	case idContentLength:
		return &a.length
	case idContentType:
		a.contentType = sip.ContentTypeHeader(value)
		return &a.contentType
	case idReferTo, idReferredBy:
		return a.refer(known, value)
	}
	return nil
}

func (a *arena) party(known id, value string) sip.Header {
	display, uri, params, ok := a.address(value, parseParty)
	if !ok && !a.m.IsRequest() { // all that is needed of it is there
		display, uri, params, ok = "", sip.Uri{}, a.tagOnly(known), true
	}
	switch {
	case !ok:
		return nil
	case known == idFrom:
		a.from = sip.FromHeader{DisplayName: display, Address: uri, Params: params}
		return &a.from
	}
	a.to = sip.ToHeader{DisplayName: display, Address: uri, Params: params}
	return &a.to
}

// tagOnly is the tag of a malformed From or To.
func (a *arena) tagOnly(known id) sip.HeaderParams {
	tag := a.m.FromTag
	if known == idTo {
		tag = a.m.ToTag
	}
	if tag == "" {
		return nil
	}
	return sip.HeaderParams{{K: "tag", V: tag}}
}

func (a *arena) refer(known id, value string) sip.Header {
	display, uri, params, ok := a.address(value, ParseURI)
	switch {
	case !ok || uri.Wildcard:
		return nil
	case known == idReferTo:
		return &sip.ReferToHeader{Address: uri}
	}
	return &sip.ReferredByHeader{DisplayName: display, Address: uri, Params: params}
}

// address reads an address.
func (a *arena) address(value string, parse func(string) (URI, error)) (display string, uri sip.Uri, params sip.HeaderParams, ok bool) {
	view, err := ParseAddress(value)
	if err != nil {
		return "", uri, nil, false
	}
	if params, ok = a.read(view.Params, true); !ok {
		return "", uri, nil, false
	}
	params = a.hold(params)
	if view.URI == "*" {
		return view.held(), sip.Uri{Host: "*", Wildcard: true}, params, true
	}
	u, err := parse(view.URI)
	if err != nil {
		return "", uri, nil, false
	}
	uri = u.bare()
	if !u.IsSIP() {
		return view.held(), uri, params, true
	}
	own, ok := a.read(u.Params, false)
	uri.UriParams = a.hold(own)
	return view.held(), uri, params, ok
}

// maxHeld bounds the parameters of one message's structs. A header with more is
// text.
const maxHeld = 1024

// read reads parameters into the rest of the arena's slice.
func (a *arena) read(p Params, fold bool) (sip.HeaderParams, bool) {
	if p == "" {
		return nil, true
	}
	own := p.appendTo(a.params[len(a.params):], fold)
	a.left -= len(own)
	return own, a.left >= 0
}

// hold keeps parameters in the arena's slice: it is a copy to where they are, if
// there was enough of it.
func (a *arena) hold(own sip.HeaderParams) sip.HeaderParams {
	if len(own) == 0 {
		return nil
	}
	begin := len(a.params)
	a.params = append(a.params, own...)
	return a.params[begin:len(a.params):len(a.params)]
}

// Typed returns the headers that the value of a field has, of the types that
// sipgo has for that name: several for a list. What cannot be read as what it
// should be is a header with a name and a value.
func Typed(name, value string) []sip.Header {
	m := &Message{text: name + ":" + value, Length: -1}
	m.Method = "a request's" // in which nothing is made up for
	m.readLine(0, len(m.text))
	a := m.arena(&structs{})
	var list []sip.Header
	for i := range m.lines {
		list = a.add(list, &m.lines[i])
	}
	if len(list) == 0 {
		return []sip.Header{sip.NewHeader(name, value)}
	}
	return list
}
