package siptext

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// Generator writes random valid messages: quoted strings with every permitted octet,
// escapes, folds, any order, doubled parameters, compact forms, IPv6 references. Two
// generators with the same seeds write the same messages.
type Generator struct {
	s      source
	unique string
	made   int
}

// New returns a generator. Values that must be unique in its messages contain unique.
func New(seed, number uint64, unique string) *Generator {
	return &Generator{s: source{rand.New(rand.NewPCG(seed, number))}, unique: unique}
}

func (g *Generator) next() string {
	g.made++
	return fmt.Sprintf("%s.%d", g.unique, g.made)
}

// Known has the required parts of a message; all others are random.
type Known struct {
	URI          string // of a request
	From, To     string // whole values
	FromURI      string // if From is empty; likewise the others
	FromTag      string
	ToURI, ToTag string
	CallID       string
	Seq          int
	ContactHost  string   // host or host:port of Contact's URI; "": no Contact
	RouteHosts   []string // likewise, of the URIs in Record-Route
	SDP          string   // the body; "": any body but SDP
}

// Method returns a method that an endpoint answers outside calls, or an unknown one.
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

// Status returns the status of a final response: mostly 200, and never one that leads
// to another request.
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

// Token returns a token.
func (g *Generator) Token() string { return g.s.token() }

// Hosts returns zero to four times the host, with a port or without.
func (g *Generator) Hosts(host string) []string {
	var list []string
	for range g.s.IntN(5) {
		list = append(list, g.Host(host))
	}
	return list
}

// Host returns the host with a port or without.
func (g *Generator) Host(host string) string {
	if g.s.chance(50) {
		return host
	}
	return host + ":" + g.s.port()
}

// Request returns a request to an endpoint.
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

// Response returns a response to a request of the endpoint, with parameters added to
// its Via.
func (g *Generator) Response(status int, method, via string, k Known) []byte {
	s := g.s
	if s.chance(30) {
		via += s.around(";") + s.param("received", "10.0.0.1")
	}
	start := fmt.Sprintf("%s/2.0 %d %s\r\n", s.cased("SIP"), status, s.reason())
	return g.message(start, method, []string{s.field("Via", via+s.params())}, k)
}

// reason returns a Reason-Phrase.
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

// address returns a value of From or To: whole, or one made from a URI and a tag.
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

// octets returns a body of random octets.
func (s source) octets() string {
	return s.repeat(1, 50, func() string { return string([]byte{byte(s.IntN(256))}) })
}
