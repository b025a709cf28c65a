// Package wellformed checks what an application hands over, and a message is made of:
// nothing of it ends the place that it stands in, and each part is read back as what it
// is. Its functions return what is wrong, or nil.
package wellformed

import (
	"fmt"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/sipuri"
)

// Text refuses a text that would end its line, or has a character that no header may
// have: control characters other than tab (RFC 3261 25.1, TEXT-UTF8).
func Text(what, text string) error {
	if IsOneLine(text) {
		return nil
	}
	return fmt.Errorf("%s %q has a control character", what, text)
}

// IsOneLine reports whether a text does not end its line.
func IsOneLine(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) < 0
}

// Token refuses a text that is not a token (RFC 3261 25.1).
func Token(what, text string) error {
	if sipmsg.IsToken(text) {
		return nil
	}
	return fmt.Errorf("%s %q is not a token", what, text)
}

// URI refuses a URI that would not be read as what it is.
func URI(what string, uri sip.Uri) error {
	uri.Host = sipuri.Bracketed(uri.Host)
	text := uri.String()
	if uri.Wildcard || !IsVisible(text) {
		return fmt.Errorf("%s %q is not a URI", what, text)
	}
	read, err := sipmsg.ParseURI(text)
	if err != nil || read.IsSIP() && !readsAs(read, uri) {
		return fmt.Errorf("%s %q is ambiguous: parsed again, it is another URI", what, text)
	}
	return nil
}

// IsVisible reports whether a text has no character that ends a URI: no space, no
// control character, no angle bracket.
func IsVisible(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '<' || r == '>' }) < 0
}

// readsAs reports whether a URI that was written is read back part by part.
func readsAs(read sipmsg.URI, uri sip.Uri) bool {
	host := func(s string) string { return strings.Trim(s, "[]") }
	return read.User == uri.User && read.Password == uri.Password && host(read.Host) == host(uri.Host) && read.Port == uri.Port &&
		paramsReadAs(read.Params, uri.UriParams) && areHeaders(uri.Headers)
}

func paramsReadAs(read sipmsg.Params, params sip.HeaderParams) bool {
	for _, param := range params {
		first, rest, ok := read.Next()
		if !ok || first.Name == "" || first.Name != param.K || first.Value != param.V {
			return false
		}
		read = rest
	}
	return read == ""
}

// areHeaders reports whether each header in a URI stays one.
func areHeaders(headers sip.HeaderParams) bool {
	for _, h := range headers {
		if h.K == "" || strings.ContainsAny(h.K, "&=") || strings.ContainsAny(h.V, "&") {
			return false
		}
	}
	return true
}

// Target refuses a URI to which no request can be sent.
func Target(what string, uri sip.Uri) error {
	switch {
	case strings.EqualFold(uri.Scheme, "tel"):
		return fmt.Errorf("%s %s is a number without a host: use sip:NUMBER@HOST;user=phone with the host of a gateway (RFC 3261 19.1.6)",
			what, uri.String())
	case uri.Raw() != "":
		return fmt.Errorf("%s %q is not a SIP URI", what, uri.String())
	case uri.Host == "", uri.Wildcard:
		return fmt.Errorf("%s without a host", what)
	}
	return URI(what, uri)
}

// Address takes a URI without a host too, which is filled in later.
func Address(what, name string, uri sip.Uri) error {
	if sipuri.LacksHost(uri) {
		uri.Host = "invalid"
	}
	if err := Text(what+" name", name); err != nil {
		return err
	}
	return URI(what, uri)
}
