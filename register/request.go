package register

import (
	"strconv"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
)

// The parameters of a Contact of RFC 5626.
const (
	paramRegID    = "reg-id"
	paramInstance = "+sip.instance"
)

// contacts are those of a REGISTER by this flow, for the stack to fill in its address.
func (f *flow) contacts() (list []*sip.ContactHeader) {
	for _, c := range f.r.opts.Contacts {
		h := &sip.ContactHeader{Address: *c.URI.Clone(), Params: append(sip.HeaderParams(nil), c.Params...)}
		if f.outbound() {
			h.Params = append(h.Params, sip.HeaderKV{K: paramInstance, V: `"<` + f.r.opts.Instance + `>"`},
				sip.HeaderKV{K: paramRegID, V: strconv.Itoa(f.index + 1)})
		}
		list = append(list, h)
	}
	return list
}

// outbound reports whether REGISTERs by this flow ask for what RFC 5626 is about.
func (f *flow) outbound() bool { return f.r.opts.Instance != "" && !f.plain }

// request makes a REGISTER (RFC 3261 10.2), but for its CSeq. An expiry of zero takes the
// contacts back.
func (f *flow) request(registrar sip.Uri, expires time.Duration, contacts []*sip.ContactHeader) *sip.Request {
	o := &f.r.opts
	req := sip.NewRequest(sip.REGISTER, *registrar.Clone())
	for _, hop := range f.route {
		req.AppendHeader(&sip.RouteHeader{Address: *hop.Clone()})
	}
	req.AppendHeader(&sip.FromHeader{DisplayName: o.Record.DisplayName, Address: *o.Record.URI.Clone(), Params: sip.HeaderParams{{K: "tag", V: f.tag}}})
	req.AppendHeader(&sip.ToHeader{DisplayName: o.Record.DisplayName, Address: *o.Record.URI.Clone()})
	id := sip.CallIDHeader(f.callID)
	req.AppendHeader(&id)
	for _, c := range contacts {
		req.AppendHeader(c)
	}
	req.AppendHeader(sip.NewHeader("Expires", strconv.FormatInt(int64(expires/time.Second), 10)))
	supported := "path" // RFC 3327 5.1
	if f.outbound() {
		supported += ", outbound, gruu" // RFC 5626 4.2.1, RFC 5627 4.1
	}
	req.AppendHeader(sip.NewHeader("Supported", supported))
	for _, h := range o.Headers {
		req.AppendHeader(sip.NewHeader(h.Name, h.Value))
	}
	return req
}

// result is the outcome of one REGISTER.
type result struct {
	res *sip.Response
	by  *dialog.Flow
	// sent is the REGISTER as it was written last; nil if it was not. at is when it began.
	sent *sip.Request
	at   time.Time
	err  error
}

// status is the final response's; zero without one.
func (r *result) status() int {
	if r.res == nil {
		return 0
	}
	return r.res.StatusCode
}

func (r *result) succeeded() bool { return r.status()/100 == 2 }
