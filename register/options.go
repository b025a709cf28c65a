package register

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/sipuri"
	"sipdialog.example/dialog/internal/wellformed"
)

const (
	defaultExpires   = time.Hour
	defaultRedirects = 5
	// The times of RFC 5626 4.5.
	defaultRetryBase = 30 * time.Second
	defaultRetryMax  = 30 * time.Minute
)

// longestExpires is the largest value of an expires parameter (RFC 3261 10.2).
const longestExpires = math.MaxUint32 * time.Second

// own copies the options, with their defaults.
func (o Options) own() Options {
	o.Record.URI = *o.Record.URI.Clone()
	o.Registrar = *o.Registrar.Clone()
	if o.Registrar.Host == "" {
		o.Registrar = domainOf(o.Record.URI)
	}
	if o.Contacts == nil {
		o.Contacts = []Contact{{URI: sip.Uri{Scheme: o.Record.URI.Scheme, User: o.Record.URI.User}}}
	}
	o.Contacts, o.Proxies, o.Headers = slices.Clone(o.Contacts), slices.Clone(o.Proxies), slices.Clone(o.Headers)
	for i, c := range o.Contacts {
		o.Contacts[i] = Contact{URI: *c.URI.Clone(), Params: slices.Clone(c.Params)}
	}
	for i, p := range o.Proxies {
		o.Proxies[i] = *p.Clone()
	}
	orDefault(&o.Expires, defaultExpires)
	orDefault(&o.Redirects, defaultRedirects)
	orDefault(&o.RetryBase, defaultRetryBase)
	orDefault(&o.RetryMax, defaultRetryMax)
	return o
}

func orDefault[T comparable](value *T, otherwise T) {
	var zero T
	if *value == zero {
		*value = otherwise
	}
}

// domainOf is the Request-URI for an address of record: its domain (RFC 3261 10.2.6), by
// the transport that it names.
func domainOf(record sip.Uri) sip.Uri {
	domain := sip.Uri{Scheme: record.Scheme, Host: record.Host, Port: record.Port}
	if transport, named := sipuri.Param(record.UriParams, "transport"); named {
		domain.UriParams = sip.HeaderParams{{K: "transport", V: transport}}
	}
	return domain
}

// withoutUser is a Request-URI of a REGISTER (RFC 3261 10.2).
func withoutUser(uri sip.Uri) sip.Uri {
	own := *uri.Clone()
	own.User, own.Password, own.Headers = "", "", nil
	return own
}

// loose is the route through a proxy.
func loose(proxy sip.Uri) sip.Uri {
	own := *proxy.Clone()
	if !sipuri.IsLoose(own) {
		own.UriParams = append(own.UriParams, sip.HeaderKV{K: "lr"})
	}
	return own
}

// check reports what no registrar could make right.
func (o Options) check() error {
	switch {
	case !sipuri.IsTarget(o.Record.URI):
		return invalid("Record %q is not an address of record", o.Record.URI.String())
	case !sipuri.IsTarget(o.Registrar) || o.Registrar.User != "":
		return invalid("Registrar %q is not a SIP URI", o.Registrar.String())
	case len(o.Contacts) == 0:
		return invalid("no Contact")
	case o.Expires < time.Second || o.Expires > longestExpires:
		return invalid("Expires %v", o.Expires)
	case o.RetryBase < time.Second || o.RetryMax < o.RetryBase:
		return invalid("RetryBase %v, RetryMax %v", o.RetryBase, o.RetryMax)
	case len(o.Proxies) > 1 && o.Instance == "":
		return invalid("several Proxies without an Instance")
	case o.Instance != "" && !isURN(o.Instance):
		return invalid("Instance %q", o.Instance)
	}
	for _, p := range o.Proxies {
		if !sipuri.IsTarget(p) {
			return invalid("proxy %q is not a SIP URI", p.String())
		}
	}
	for _, c := range o.Contacts {
		if err := c.check(); err != nil {
			return err
		}
	}
	for _, h := range o.Headers {
		if by := wellformed.SetBy(h.Name); by != "" || sipmsg.SameName(h.Name, "Expires") {
			return invalid("header %q is set by this package", h.Name)
		}
	}
	return nil
}

// check reports what no registrar could bind.
func (c Contact) check() error {
	if c.URI.Wildcard || c.URI.Scheme == "" {
		return invalid("Contact URI %q", c.URI.String())
	}
	for _, name := range []string{"expires", paramRegID, paramInstance} {
		if _, has := sipuri.Param(c.Params, name); has {
			return invalid("Contact parameter %s is set by this package", name)
		}
	}
	return nil
}

// isURN reports whether an instance can stand between angle brackets (RFC 5626 4.1).
func isURN(s string) bool {
	return len(s) > 4 && strings.EqualFold(s[:4], "urn:") && strings.IndexFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`<>"\\`, r)
	}) < 0
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{dialog.ErrInvalidArgument}, args...)...)
}
