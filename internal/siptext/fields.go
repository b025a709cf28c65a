package siptext

import (
	"fmt"
	"strings"
)

// field returns a header field, with one of the forms of its name.
func (s source) field(name, value string) string {
	if short := s.shortName(name); short != "" && s.chance(30) {
		name = short
	}
	return s.cased(name) + s.pick("", "", "", " ", "\t") + ":" + s.pick("", " ", " ", s.lws()) + value + "\r\n"
}

func (s source) shortName(name string) string {
	for short, long := range longNames {
		if strings.EqualFold(long, name) {
			return short
		}
	}
	return ""
}

// via returns one value of Via. The top one has only the sender's address; others may
// have the parameters of an earlier hop.
func (s source) via(branch string, top bool) string {
	protocol := s.cased("SIP") + s.around("/") + "2.0" + s.around("/") + s.cased("UDP")
	if !top {
		protocol = s.pick(s.cased("SIP"), s.token()) + s.around("/") + s.pick("2.0", s.token()) + s.around("/") +
			s.pick("UDP", "TCP", "TLS", "SCTP", "ws", s.token())
	}
	sentBy := s.host()
	if s.chance(50) {
		sentBy += s.around(":") + s.port()
	}
	params := []string{s.param("branch", branch)}
	if s.chance(40) {
		params = append(params, s.cased("rport"))
	}
	if !top {
		params = append(params, s.pick(s.param("ttl", "1"), s.param("received", s.ipv4()), s.param("received", s.ipv6()), s.param("maddr", s.host())))
	}
	return protocol + s.lws() + sentBy + s.params(params...)
}

// vias returns the fields of one to five values. The first value is the top one.
func (s source) vias(branch string) []string {
	var fields []string
	value := s.via(branch, true)
	for range s.IntN(5) {
		if more := s.via(s.pick("z9hG4bK", "")+s.token(), false); s.chance(50) {
			value += s.around(",") + more
		} else {
			fields, value = append(fields, s.field("Via", value)), more
		}
	}
	return append(fields, s.field("Via", value))
}

// recordRoutes returns the fields of one value for each host, whose URI has that host.
func (s source) recordRoutes(hosts ...string) []string {
	var fields []string
	for i, host := range hosts {
		uri := s.sipURI(uri{host: host}) + ";" + s.cased("lr")
		value := s.nameAddr(uri) + s.params()
		if i > 0 && s.chance(50) {
			last := strings.TrimSuffix(fields[len(fields)-1], "\r\n")
			fields[len(fields)-1] = last + s.around(",") + value + "\r\n"
		} else {
			fields = append(fields, s.field("Record-Route", value))
		}
	}
	return fields
}

// contact returns the value of a Contact that requests can be sent to.
func (s source) contact(host string) string {
	text := s.sipURI(uri{host: host})
	known := []string{}
	if s.chance(30) {
		known = append(known, s.param("q", s.pick("0.5", "1", "0", "1.000")), s.param("expires", "3600"))
	}
	if s.chance(20) && !strings.ContainsAny(text, ",;?") {
		return text + s.params(known...)
	}
	return s.nameAddr(text) + s.params(known...)
}

// callID returns word [ "@" word ].
func (s source) callID(unique string) string {
	text := s.word() + unique
	if s.chance(50) {
		text += "@" + s.word()
	}
	return text
}

// others returns fields that a UA need not understand.
func (s source) others() []string {
	var fields []string
	for _, i := range s.Perm(len(single))[:s.IntN(5)] {
		fields = append(fields, s.field(single[i].name, single[i].value(s)))
	}
	for range s.IntN(4) {
		i := s.IntN(len(repeatable))
		fields = append(fields, s.field(repeatable[i].name, repeatable[i].value(s)))
	}
	for range s.IntN(3) {
		fields = append(fields, s.field("X"+s.chars(tokenChars, 4, 10), s.headerValue()))
	}
	return fields
}

type kind struct {
	name  string
	value func(s source) string
}

// single has the fields that occur once, repeatable those that are lists.
var (
	single = []kind{
		{"Authorization", func(s source) string {
			return s.cased("Digest") + s.lws() + s.list(4, func() string { return s.param(s.pick("username", "realm", "nonce", "opaque", "x"), s.quoted()) })
		}},
		{"Date", func(s source) string { return s.pick("Sat, 13 Nov 2010 23:29:00 GMT", "Mon, 01 Jan 2001 00:00:00 GMT") }},
		{"MIME-Version", func(s source) string { return "1.0" }},
		{"Organization", source.textUTF8},
		{"Priority", func(s source) string { return s.pick("normal", "Emergency", s.token()) }},
		{"Reply-To", func(s source) string { return s.address("") + s.params() }},
		{"Subject", source.textUTF8},
		{"Timestamp", func(s source) string { return s.chars(digits, 1, 9) + s.pick("", ".", ".5") + s.pick("", s.lws()+".7") }},
		{"User-Agent", func(s source) string { return s.token() + s.around("/") + s.token() + s.lws() + s.comment() }},
	}
	repeatable = []kind{
		{"Accept-Encoding", func(s source) string {
			return s.pick("", s.list(2, func() string { return s.token() + s.params(s.param("q", "0.5")) }))
		}},
		{"Accept-Language", func(s source) string {
			return s.pick("", s.list(3, func() string { return s.pick("en", "da-X", "*") + s.params() }))
		}},
		{"Alert-Info", source.infos},
		{"Call-Info", source.infos},
		{"Error-Info", source.infos},
		{"In-Reply-To", func(s source) string { return s.list(2, func() string { return s.callID("") }) }},
		{"Supported", func(s source) string { return s.pick("", s.list(3, func() string { return "x" + s.token() })) }},
		{"Warning", func(s source) string { return "399 " + s.hostname() + " " + s.quoted() }},
	}
)

// infos returns URIs with parameters.
func (s source) infos() string {
	return s.list(2, func() string { return "<" + s.absoluteURI(false) + ">" + s.params() })
}

// contentType returns a media type with parameters.
func (s source) contentType(kind, subtype string) string {
	text := s.cased(kind) + s.around("/") + s.cased(subtype)
	for range s.IntN(3) {
		text += s.around(";") + "x" + s.token() + s.around("=") + s.pick(s.token(), s.quoted())
	}
	return text
}

// shuffled returns fields in any order. Fields of one list keep their order.
func (s source) shuffled(lists ...[]string) string {
	var text strings.Builder
	left := 0
	for _, list := range lists {
		left += len(list)
	}
	for ; left > 0; left-- {
		n := s.IntN(left)
		for i, list := range lists {
			if n < len(list) {
				text.WriteString(list[0])
				lists[i] = list[1:]
				break
			}
			n -= len(list)
		}
	}
	return text.String()
}

func each(fields []string) [][]string {
	var lists [][]string
	for _, f := range fields {
		lists = append(lists, []string{f})
	}
	return lists
}

// seq returns the value of CSeq.
func (s source) seq(number int, method string) string {
	return s.pick("", "", "0", "000") + fmt.Sprint(number) + s.lws() + method
}
