package dialogtest

import (
	"fmt"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// Request has the parts of a request. An empty field gets the default named here.
type Request struct {
	Method  string // OPTIONS
	URI     string // sip:service@invalid
	From    string // the URI; sip:peer@ and the endpoint's address
	FromTag string // peer
	To      string // the URI; that of the request
	ToTag   string // none
	CallID  string // one for each endpoint, the same in all its requests
	CSeq    uint32 // 1
	Branch  string // a new one; an ACK to a non-2xx and a CANCEL repeat the INVITE's
	Headers []string
	Body    string // application/sdp, unless Headers has a Content-Type
}

// Request returns the text of a request from this endpoint, with Via,
// Max-Forwards, Content-Length and, unless Headers has one, Contact.
func (e *Endpoint) Request(r Request) string {
	addr := e.Addr().String()
	number := e.made.Add(1)
	uri := either(r.URI, "sip:service@invalid")
	method := either(r.Method, "OPTIONS")
	lines := []string{
		method + " " + uri + " SIP/2.0",
		"Via: SIP/2.0/UDP " + addr + ";branch=" + either(r.Branch, fmt.Sprintf("z9hG4bK-%s-%d", token(addr), number)),
		"Max-Forwards: 70",
		"From: <" + either(r.From, "sip:peer@"+addr) + ">;tag=" + either(r.FromTag, "peer"),
		"To: <" + either(r.To, uri) + ">" + tag(r.ToTag),
		"Call-ID: " + either(r.CallID, token(addr)),
		fmt.Sprintf("CSeq: %d %s", max(r.CSeq, 1), method),
	}
	return e.message(lines, r.Headers, r.Body)
}

// Response has the parts of a response. An empty field gets the default named here.
type Response struct {
	Code    int
	Reason  string // the usual one for common codes, else "Scripted"
	ToTag   string // none; ignored if the request's To has a tag
	Headers []string
	Body    string // application/sdp, unless Headers has a Content-Type
}

// Response returns the text of a response to req: its Via, Record-Route, From,
// To, Call-ID and CSeq are copied (RFC 3261 8.2.6.2, 12.1.1); Contact, unless
// Headers has one, and Content-Length are added.
func (e *Endpoint) Response(req *sip.Request, r Response) string {
	lines := []string{fmt.Sprintf("SIP/2.0 %d %s", r.Code, either(r.Reason, reason(r.Code)))}
	for _, name := range []string{"Via", "Record-Route", "From", "To", "Call-ID", "CSeq"} {
		for _, h := range req.GetHeaders(name) {
			lines = append(lines, name+": "+h.Value())
			if name == "To" && !strings.Contains(h.Value(), ";tag=") {
				lines[len(lines)-1] += tag(r.ToTag)
			}
		}
	}
	return e.message(lines, r.Headers, r.Body)
}

// message joins the header lines and the body.
func (e *Endpoint) message(lines, headers []string, body string) string {
	body = crlf(body)
	lines = append(lines, headers...)
	if !named(headers, "Contact") {
		lines = append(lines, "Contact: <sip:peer@"+e.Addr().String()+">")
	}
	if body != "" && !named(headers, "Content-Type") {
		lines = append(lines, "Content-Type: application/sdp")
	}
	lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)))
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + body
}

func crlf(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n")
}

// named reports whether one of the header lines has this name.
func named(headers []string, name string) bool {
	for _, h := range headers {
		got, _, _ := strings.Cut(h, ":")
		if strings.EqualFold(strings.TrimSpace(got), name) {
			return true
		}
	}
	return false
}

func tag(value string) string {
	if value == "" {
		return ""
	}
	return ";tag=" + value
}

// token makes a token from an address.
func token(addr string) string {
	return "at-" + strings.NewReplacer(":", "-", ".", "-", "[", "", "]", "").Replace(addr)
}

func either(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}

// reason returns the phrase of RFC 3261 21 for the codes that tests use most.
func reason(code int) string {
	switch code {
	case 100:
		return "Trying"
	case 180:
		return "Ringing"
	case 183:
		return "Session Progress"
	case 200:
		return "OK"
	case 202:
		return "Accepted"
	case 302:
		return "Moved Temporarily"
	case 401:
		return "Unauthorized"
	case 407:
		return "Proxy Authentication Required"
	case 481:
		return "Call/Transaction Does Not Exist"
	case 486:
		return "Busy Here"
	case 487:
		return "Request Terminated"
	case 488:
		return "Not Acceptable Here"
	case 491:
		return "Request Pending"
	case 500:
		return "Server Internal Error"
	case 503:
		return "Service Unavailable"
	case 603:
		return "Decline"
	}
	return "Scripted"
}
