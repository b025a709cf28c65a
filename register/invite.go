package register

import (
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/sipuri"
)

// InviteOpts completes the options of a call for the address of record that is registered:
// From, and the route that the registrar has given (Service-Route, RFC 3608 6.1), behind
// the outbound proxy if there is one. By a registration of RFC 5626 the call uses its
// connection, and the Contact asks for calls inside it by the same (ob, RFC 5626 4.3). What
// opts has already is not changed. While nothing is registered only From is set, and the way
// through the outbound proxy.
func (r *Registration) InviteOpts(opts dialog.InviteOpts) dialog.InviteOpts {
	if opts.From == nil && !opts.Anonymous {
		from := dialog.Address{DisplayName: r.opts.Record.DisplayName, URI: *r.opts.Record.URI.Clone()}
		opts.From = &from
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.bestLocked()
	if opts.Flow != nil {
		return opts
	}
	if opts.Route == nil {
		opts.Route = f.routeLocked()
	}
	if f.status.State == Registered && f.status.Outbound {
		opts.Flow = f.by
		if opts.Contact == nil {
			contact := *f.status.Contacts[0].Clone()
			contact.UriParams = append(contact.UriParams, sip.HeaderKV{K: "ob"})
			opts.Contact = &contact
		}
	}
	return opts
}

// Route returns the route of requests for the address of record: the outbound proxy, if
// there is one, and what the registrar has given as Service-Route (RFC 3608 6.1). Put it
// into Route headers of a request of Stack.Do. It is nil if there is neither.
func (r *Registration) Route() []sip.Uri {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bestLocked().routeLocked()
}

// routeLocked appends the service route, while the registration lasts, to our own (RFC 3608
// 6.1). A proxy that both name stands once.
func (f *flow) routeLocked() (route []sip.Uri) {
	route = append(route, f.route...)
	service := f.status.ServiceRoute
	if time.Now().After(f.status.Until) {
		service = nil
	}
	if n := len(route); n > 0 && len(service) > 0 && sipuri.Same(route[n-1], service[0]) {
		service = service[1:]
	}
	return append(route, service...)
}
