package siptext

import (
	"fmt"
	"strings"
)

func (s source) port() string { return fmt.Sprint(s.between(1, 65535)) }

func (s source) ipv4() string {
	return fmt.Sprintf("%d.%d.%d.%d", s.IntN(256), s.IntN(256), s.IntN(256), s.IntN(256))
}

// ipv6 returns an IPv6address of at most eight groups; the grammar does not limit them.
func (s source) ipv6() string {
	group := func() string { return s.chars(hexDigits, 1, 4) }
	groups := func(low, high int) string {
		list := make([]string, s.between(low, high))
		for i := range list {
			list[i] = group()
		}
		return strings.Join(list, ":")
	}
	switch s.IntN(5) {
	case 0:
		return groups(8, 8)
	case 1:
		return "::ffff:" + s.ipv4()
	case 2:
		return groups(1, 3) + "::" + s.ipv4()
	case 3:
		return "::" + groups(0, 6)
	}
	return groups(1, 4) + "::" + groups(0, 3)
}

// hostname returns a hostname: labels, the last of which begins with a letter.
func (s source) hostname() string {
	label := func(first string) string {
		text := s.chars(first, 1, 1)
		if s.chance(60) {
			text += s.chars(alphanum+"-", 0, 6) + s.chars(alphanum, 1, 1)
		}
		return text
	}
	text := s.repeat(0, 3, func() string { return label(alphanum) + "." }) + label(letters)
	if s.chance(10) {
		text += "."
	}
	return text
}

func (s source) host() string {
	switch s.IntN(4) {
	case 0:
		return s.ipv4()
	case 1:
		return "[" + s.ipv6() + "]"
	}
	return s.hostname()
}

// hostport returns the hostport of a URI, which has no white space.
func (s source) hostport() string {
	if s.chance(50) {
		return s.host()
	}
	return s.host() + ":" + s.port()
}

// uri limits the parts of a SIP URI.
type uri struct {
	host     string // "": any, with a port or without
	bare     bool   // without "?", "," and ";", as required without angle brackets (20.10)
	headers  bool
	steering bool // may have maddr and transport, which set the destination
	sips     bool
}

func (s source) sipURI(u uri) string {
	scheme := s.cased("sip")
	if u.sips && s.chance(10) {
		scheme = s.cased("sips")
	}
	text := scheme + ":" + s.userinfo(u.bare) + u.host
	if u.host == "" {
		text += s.hostport()
	}
	if u.bare {
		return text
	}
	if s.chance(40) {
		text += s.uriParams(u.steering)
	}
	if u.headers && s.chance(10) {
		text += "?" + s.uriHeader() + s.repeat(0, 2, func() string { return "&" + s.uriHeader() })
	}
	return text
}

// userinfo returns a userinfo or nothing.
func (s source) userinfo(bare bool) string {
	if s.chance(25) {
		return ""
	}
	set := unreserved + "&=+$/"
	if !bare {
		set += ",;?"
	}
	part := func(set string) func() string {
		return func() string {
			if s.chance(20) {
				return s.escaped()
			}
			return s.chars(set, 1, 3)
		}
	}
	text := s.repeat(1, 4, part(set))
	if s.chance(10) {
		set = unreserved + "&=+$"
		if !bare {
			set += ","
		}
		text += ":" + s.repeat(0, 3, part(set))
	}
	return text + "@"
}

// uriParams returns known parameters, each at most once, and unknown ones.
func (s source) uriParams(steering bool) string {
	known := []string{s.cased("user") + "=" + s.pick("phone", "ip", "x"), s.cased("ttl") + "=1"}
	if steering {
		known = append(known, s.cased("lr"), s.cased("transport")+"="+s.pick("udp", "TCP", "sctp", "tls", "ws"), s.cased("maddr")+"="+s.host())
	}
	text := ""
	for _, i := range s.Perm(len(known))[:s.IntN(3)] {
		text += ";" + known[i]
	}
	other := func() string { return ";x" + s.uriText(unreserved+"[]/:&+$", 0, 4) }
	return text + s.repeat(0, 2, func() string { return s.pick(other(), other()+"="+s.uriText(unreserved+"[]/:&+$", 1, 4)) })
}

// uriText returns characters of a set, and escaped ones.
func (s source) uriText(set string, low, high int) string {
	return s.repeat(low, high, func() string {
		if s.chance(15) {
			return s.escaped()
		}
		return s.chars(set, 1, 2)
	})
}

func (s source) uriHeader() string {
	return s.uriText(unreserved+"[]/?:+$", 1, 3) + "=" + s.uriText(unreserved+"[]/?:+$", 0, 3)
}

// absoluteURI returns a URI of another scheme.
func (s source) absoluteURI(bare bool) string {
	if bare {
		return s.pick("tel:+358-555-1234567", "urn:service:sos", "mailto:a@b.example", "isbn:2983792873", "http://example.com/a/b", "data:%00")
	}
	return s.pick("tel:+1-201-555-0123;phone-context=example.com", "http://a@example.com:80/;p/?q=,", "soap.beep://192.0.2.103:3002", "urn:x:y,z;w?v")
}

// address returns the ( name-addr / addr-spec ) of From and To, without parameters. Its
// URI is known, or any if known is empty.
func (s source) address(known string) string {
	if known != "" {
		if s.chance(20) && !strings.ContainsAny(known, ",;?") {
			return known
		}
		return s.nameAddr(known)
	}
	bare := s.chance(25)
	text := s.sipURI(uri{bare: bare, sips: true, steering: true})
	if s.chance(10) {
		text = s.absoluteURI(bare)
	}
	if bare {
		return text
	}
	return s.nameAddr(text)
}

// nameAddr returns a name-addr.
func (s source) nameAddr(uri string) string {
	name := ""
	switch s.IntN(5) {
	case 0:
		name = s.repeat(1, 3, func() string { return s.token() + s.lws() })
	case 1, 2:
		name = s.quoted() + s.sws()
	}
	return name + s.sws() + "<" + uri + ">" + s.sws()
}

// genericParam returns a generic-param with an unknown name.
func (s source) genericParam() string {
	name := "x" + s.chars(tokenChars, 0, 5)
	switch s.IntN(5) {
	case 0:
		return name
	case 1:
		return name + s.around("=") + s.token()
	case 2:
		return name + s.around("=") + s.host()
	}
	return name + s.around("=") + s.quoted()
}

// params returns parameters in any order, each after a SEMI. An unknown one may occur
// twice.
func (s source) params(known ...string) string {
	list := known
	for range s.IntN(4) {
		list = append(list, s.genericParam())
	}
	if len(list) > len(known) && s.chance(20) {
		list = append(list, list[len(list)-1])
	}
	s.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	text := ""
	for _, p := range list {
		text += s.around(";") + p
	}
	return text
}

// param returns a known parameter.
func (s source) param(name, value string) string { return s.cased(name) + s.around("=") + value }
