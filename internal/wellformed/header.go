package wellformed

import (
	"fmt"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
)

// MaxHops is the largest Max-Forwards (RFC 3261 20.22).
const MaxHops = 255

// Header refuses a header, as it will be written, that could not be read as that.
func Header(h sip.Header) error {
	if err := Token("header name", h.Name()); err != nil {
		return err
	}
	if isPlainContact(h) {
		return nil
	}
	if value := h.Value(); !IsOneLine(value) {
		return Text("value of header "+h.Name(), value)
	}
	if display, uri, ok := writtenAddress(h); ok && (!isEscaped(display) || !uri.Wildcard && !IsVisible(uri.String())) {
		return fmt.Errorf("header %s: %q is not an address", h.Name(), h.Value())
	}
	return nil
}

// isPlainContact reports whether a header is a Contact of nothing but a URI, each part
// of which can be written: ours, mostly. It does not write it to find out.
func isPlainContact(h sip.Header) bool {
	c, ok := h.(*sip.ContactHeader)
	if !ok || c.DisplayName != "" || len(c.Params) > 0 || c.Address.Wildcard || c.Address.Raw() != "" {
		return false
	}
	uri := &c.Address
	visible := IsVisible(uri.Scheme) && IsVisible(uri.User) && IsVisible(uri.Password) && IsVisible(uri.Host)
	for _, param := range uri.UriParams {
		visible = visible && IsVisible(param.K) && IsVisible(param.V)
	}
	return visible && len(uri.Headers) == 0
}

// writtenAddress returns the address in a header of sipgo's, which writes quotes and
// brackets around it.
func writtenAddress(h sip.Header) (display string, uri sip.Uri, ok bool) {
	switch a := h.(type) {
	case *sip.FromHeader:
		return a.DisplayName, a.Address, true
	case *sip.ToHeader:
		return a.DisplayName, a.Address, true
	case *sip.ContactHeader:
		return a.DisplayName, a.Address, true
	case *sip.RouteHeader:
		return "", a.Address, true
	case *sip.RecordRouteHeader:
		return "", a.Address, true
	case *sip.ReferToHeader:
		return "", a.Address, true
	case *sip.ReferredByHeader:
		return a.DisplayName, a.Address, true
	}
	return "", sip.Uri{}, false
}

// isEscaped reports whether a text can stand between quotes: it has no quote, and
// no backslash at its end, that is not escaped.
func isEscaped(text string) bool {
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '"', text[i] == '\\' && i+1 == len(text):
			return false
		case text[i] == '\\':
			i++
		}
	}
	return true
}

// Single refuses a second one of the headers of which there is one (RFC 3261 7.3.1).
func Single(headers []sip.Header) error {
	for _, name := range []string{"From", "To", "Call-ID", "CSeq", "Max-Forwards", "Content-Type"} {
		n := 0
		for _, h := range headers {
			if sipmsg.SameName(h.Name(), name) {
				n++
			}
		}
		if n > 1 {
			return fmt.Errorf("header %s %d times", name, n)
		}
	}
	return nil
}
