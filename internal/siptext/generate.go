package siptext

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// Generator writes valid messages at random: quoted strings of every octet that
// may stand in one, escapes, folds, any order, doubled parameters, compact forms, IPv6
// references. Two with the same seeds write the same.
type Generator struct {
	s      source
	unique string
	made   int
}

// New returns a generator. What has to be unique in its messages has unique in
// it.
func New(seed, number uint64, unique string) *Generator {
	return &Generator{s: source{rand.New(rand.NewPCG(seed, number))}, unique: unique}
}

func (g *Generator) next() string {
	g.made++
	return fmt.Sprintf("%s.%d", g.unique, g.made)
}

// Known is what a message has to say; all else is made up.
type Known struct {
	URI          string // of a request
	From, To     string // whole values
	FromURI      string // if From is made up; likewise the others
	FromTag      string
	ToURI, ToTag string
	CallID       string
	Seq          int
	ContactHost  string   // host or host:port of Contact's URI; "": no Contact
	RouteHosts   []string // likewise, of the URIs in Record-Route
	SDP          string   // the body; "": any but a session
}

// Method is a method that an endpoint answers outside calls, or does not know.
func (g *Generator) Method() string {
	switch g.s.IntN(10) {
	case 0:
		return g.s.pick("REGISTER", "MESSAGE", "PUBLISH")
	case 1:
		return "x" + g.s.token()
	case 2, 3, 4:
		return "OPTIONS"
	}
	return "INVITE"
}

// Status is one of a final response: mostly 200, never one that asks for
// another request.
func (g *Generator) Status() int {
	if g.s.chance(60) {
		return 200
	}
	for {
		status := g.s.between(200, 699)
		if !slices.Contains([]int{401, 407, 422}, status) {
			return status
		}
	}
}

// Token is a token.
func (g *Generator) Token() string { return g.s.token() }

// Hosts are none to four times the host, with a port or without.
func (g *Generator) Hosts(host string) []string {
	var list []string
	for range g.s.IntN(5) {
		list = append(list, g.Host(host))
	}
	return list
}

// Host is the host with a port or without.
func (g *Generator) Host(host string) string {
	if g.s.chance(50) {
		return host
	}
	return host + ":" + g.s.port()
}

// Request is a request to an endpoint.
func (g *Generator) Request(method string, k Known) []byte {
	s := g.s
	if k.URI == "" {
		k.URI = s.sipURI(uri{steering: true})
	}
	if k.FromTag == "" {
		k.FromTag = s.token()
	}
	if k.CallID == "" {
		k.CallID = s.callID(g.next())
	}
	start := method + " " + k.URI + " " + s.cased("SIP") + "/2.0\r\n"
	return g.message(start, method, s.vias("z9hG4bK"+s.token()+g.next()), k)
}

// Response is a response to a request of the endpoint's, to whose Via something
// was added.
func (g *Generator) Response(status int, method, via string, k Known) []byte {
	s := g.s
	if s.chance(30) {
		via += s.around(";") + s.param("received", "10.0.0.1")
	}
	start := fmt.Sprintf("%s/2.0 %d %s\r\n", s.cased("SIP"), status, s.reason())
	return g.message(start, method, []string{s.field("Via", via+s.params())}, k)
}

// reason is Reason-Phrase.
func (s source) reason() string {
	return s.repeat(0, 8, func() string {
		switch s.IntN(6) {
		case 0:
			return s.escaped()
		case 1:
			return s.utf8NonASCII()
		case 2:
			return s.utf8Cont()
		case 3:
			return s.pick(" ", "\t")
		}
		return s.chars(reserved+unreserved, 1, 3)
	})
}

func (g *Generator) message(start, method string, vias []string, k Known) []byte {
	s := g.s
	fields := []string{
		s.field("From", g.address(k.From, k.FromURI, k.FromTag)), s.field("To", g.address(k.To, k.ToURI, k.ToTag)),
		s.field("Call-ID", k.CallID), s.field("CSeq", s.seq(k.Seq, method)), s.field("Max-Forwards", fmt.Sprint(s.IntN(256))),
	}
	if k.ContactHost != "" {
		fields = append(fields, s.field("Contact", s.contact(k.ContactHost)))
	}
	body, kind, subtype := k.SDP, "application", "sdp"
	if body == "" && s.chance(30) {
		body, kind, subtype = s.octets(), "text", "plain"
	}
	if body != "" {
		fields = append(fields, s.field("Content-Type", s.contentType(kind, subtype)))
	}
	if s.chance(90) {
		fields = append(fields, s.field("Content-Length", fmt.Sprint(len(body))))
	}
	lists := append(each(slices.Concat(fields, s.others())), vias, s.recordRoutes(k.RouteHosts...))
	return []byte(start + s.shuffled(lists...) + "\r\n" + body)
}

// address is a value of From or To: whole, or made up around a URI and a tag.
func (g *Generator) address(whole, uri, tag string) string {
	if whole != "" {
		return whole
	}
	text := g.s.address(uri)
	if tag == "" {
		return text + g.s.params()
	}
	return text + g.s.params(g.s.param("tag", tag))
}

// octets is a body of any of them.
func (s source) octets() string {
	return s.repeat(1, 50, func() string { return string([]byte{byte(s.IntN(256))}) })
}
