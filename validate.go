package dialog

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/capability"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/sipuri"
	"sipdialog.example/dialog/internal/wellformed"
)

// The functions of this file check the values from an application before anything is
// sent: a value must not end the field that contains it. They return ErrInvalidArgument,
// wrapped once, or nil.

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalidArgument, fmt.Sprintf(format, args...))
}

// firstError returns the first error there is.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// malformed is an error of internal/wellformed as this package has it.
func malformed(err error) error {
	if err == nil {
		return nil
	}
	return invalid("%v", err)
}

func checkText(what, text string) error { return malformed(wellformed.Text(what, text)) }

func checkToken(what, text string) error { return malformed(wellformed.Token(what, text)) }

func checkURI(what string, uri sip.Uri) error { return malformed(wellformed.URI(what, uri)) }

func checkTarget(what string, uri sip.Uri) error { return malformed(wellformed.Target(what, uri)) }

// checkAddress takes one without a host too, which is filled in later; nil is none.
func checkAddress(what string, address *Address) error {
	if address == nil {
		return nil
	}
	return malformed(wellformed.Address(what, address.DisplayName, address.URI))
}

// checkCallee refuses a To without a host: the stack has none to add, as it has for From.
func checkCallee(to *Address) error {
	if to != nil && sipuri.LacksHost(to.URI) {
		return invalid("To without a host")
	}
	return checkAddress("To", to)
}

// checkBody refuses a content type that would end its line. The body is this
// package's own copy.
func checkBody(body Body) error {
	if isNilBody(body) {
		return nil
	}
	return checkText("content type", body.ContentType())
}

// checkHeaders refuses headers that would break a message, headers that this package
// sets itself, and a second Content-Type.
func checkHeaders(headers []Header, body Body, check func(Header) error) error {
	for _, h := range headers {
		err := check(h)
		if err == nil && isContentType(h.Name) && !isNilBody(body) && body.ContentType() != "" {
			err = invalid("header %q: the body has its content type", h.Name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func checkHeader(h Header) error { return checkHeaderSetBy(h, wellformed.SetBy(h.Name)) }

// checkHeaderSetBy refuses a header that would break a message, or one that by sets; empty
// is none.
func checkHeaderSetBy(h Header, by string) error {
	err := firstError(checkToken("header name", h.Name), checkText("value of header "+h.Name, h.Value))
	if err == nil && by != "" {
		return invalid("header %q is set by %s", h.Name, by)
	}
	return err
}

// checkResponseHeader is checkHeader for a response, whose Contact may be the
// application's.
func checkResponseHeader(h Header) error {
	if isContactName(h.Name) {
		return checkText("Contact", h.Value)
	}
	return checkHeader(h)
}

func isContentType(name string) bool {
	return strings.EqualFold(name, "Content-Type") || strings.EqualFold(name, "c")
}

// check refuses options that make no valid INVITE. The body is this package's own copy.
func (o InviteOpts) check() error {
	if o.Replaces != nil && o.Join != nil {
		return invalid("Replaces together with Join") // RFC 3911 4
	}
	err := firstError(o.checkOffer(), checkAddress("From", o.From), checkCallee(o.To), checkCall(o.Replaces), checkCall(o.Join))
	for _, tag := range o.Require {
		err = firstError(err, checkToken("option tag", tag))
	}
	for _, route := range o.Route {
		err = firstError(err, checkTarget("Route", route))
	}
	return err
}

// checkOffer is check for the options of a re-INVITE.
func (o InviteOpts) checkOffer() error {
	if o.MaxForwards < 0 || o.MaxForwards > wellformed.MaxHops {
		return invalid("MaxForwards %d", o.MaxForwards)
	}
	return firstError(checkBody(o.Body), checkHeaders(o.Headers, o.Body, checkHeader), checkContact(o.Contact))
}

// checkContact refuses a Contact to which no request can be sent; nil is none.
func checkContact(contact *sip.Uri) error {
	if contact == nil {
		return nil
	}
	return checkTarget("Contact", *contact)
}

// check refuses options that make no valid REFER.
func (o *ReferOpts) check(referTo sip.Uri) error {
	if sipuri.LacksHost(referTo) {
		return invalid("no Refer-To")
	}
	err := checkURI("Refer-To", referTo)
	if o == nil {
		return err
	}
	if o.ReferSub != nil {
		err = firstError(err, checkText("Refer-Sub", *o.ReferSub))
	}
	for name, value := range o.Headers {
		err = firstError(err, checkHeaderSetBy(Header{name, value}, wellformed.SetByRefer(name)))
	}
	return firstError(err, checkAddress("ReferredBy", o.ReferredBy), checkKey(o.TargetDialog))
}

// checkKey refuses the key of a dialog that a header cannot name (RFC 4538 7); nil is
// none.
func checkKey(key *DialogKey) error {
	if key == nil {
		return nil
	}
	return checkCall(&ReplacesInfo{CallID: key.CallID, FromTag: key.LocalTag, ToTag: key.RemoteTag})
}

// checkReasons refuses reasons that make no valid Reason header (RFC 3326 2).
func checkReasons(text string, reasons []Reason) error {
	if err := checkText("reason", text); err != nil {
		return err
	}
	for _, r := range reasons {
		if err := firstError(checkToken("protocol of a Reason", r.Protocol), checkText("text of a Reason", r.Text)); err != nil {
			return err
		}
	}
	return nil
}

// checkCall refuses a Call-ID or tag that would not be read back unchanged (RFC 3891
// 6.1); nil is none.
func checkCall(info *ReplacesInfo) error {
	if info == nil {
		return nil
	}
	value := info.BuildReplacesHeader()
	read, err := ParseReplacesHeader(value)
	// Neither a Call-ID nor a tag has a space or a comma (RFC 3261 25.1).
	if err != nil || *read != *info || !wellformed.IsOneLine(value) || strings.ContainsAny(value, " \t,") {
		return invalid("malformed dialog identifier %q", value)
	}
	return nil
}

// checkTexts refuses texts of the configuration that must not be in messages.
func (c *StackConfig) checkTexts() error {
	err := firstError(checkText("UserAgent", c.UserAgent), checkAddress("From", c.From))
	for _, name := range c.InfoPackages {
		err = firstError(err, checkToken("Info Package", name))
	}
	for _, accepted := range c.AcceptBodies {
		err = firstError(err, checkText("AcceptBodies", accepted))
	}
	for _, tc := range c.listeners() {
		err = firstError(err, checkHost("PublicAddress", tc.PublicAddress), checkHost("ViaAddress", tc.ViaAddress))
	}
	if proxy, _ := c.outboundProxy(); proxy != nil { // else it is no URL, and refused as that
		err = firstError(err, checkTarget("OutboundProxy", *proxy))
	}
	return err
}

// checkHost refuses an invalid host; empty is none.
func checkHost(what, host string) error {
	if host == "" {
		return nil
	}
	return checkURI(what, sip.Uri{Host: host})
}

func checkWritten(h sip.Header) error {
	if r, ok := h.(refusedHeader); ok {
		return r.err
	}
	return malformed(wellformed.Header(h))
}

// checkResponse refuses a response to asked that the application has changed, when it
// could not be read as that. Those of ours that cannot be changed have not become wrong.
func checkResponse(asked *sipmsg.Message, res *sip.Response, ours []sip.Header) error {
	if err := checkText("start line", res.SipVersion+res.Reason); err != nil {
		return err
	}
	err := asked.CheckChanged(res, func(h sip.Header) error {
		if reflect.TypeOf(h) == plainHeader && slices.Contains(ours, h) {
			return nil
		}
		return checkWritten(h)
	})
	return firstError(err, malformed(wellformed.Single(res.Headers())))
}

// plainHeader is the unexported type of the headers for which sipgo has no type: they
// cannot be changed.
var plainHeader = reflect.TypeOf(sip.NewHeader("", ""))

// checkRequest refuses a request that would not be read back unchanged.
func checkRequest(req *sip.Request) error { return malformed(wellformed.Request(req)) }

// checkRequestOutside refuses a request that Stack.Do cannot send.
func checkRequestOutside(req *sip.Request) error {
	switch {
	case req == nil:
		return invalid("no request")
	case capability.BelongsToCalls(req.Method):
		return invalid("%s is not sent outside a call", req.Method)
	}
	return firstError(checkTarget("Request-URI", req.Recipient), checkRequest(req))
}

// checkRequestInside refuses a request that Dialog.Do cannot send: its Request-URI is
// not used.
func checkRequestInside(req *sip.Request) error {
	switch {
	case req == nil:
		return invalid("no request")
	case capability.BelongsToCalls(req.Method), req.Method == sip.REFER, req.Method == sip.NOTIFY:
		return invalid("%s is not sent by Do", req.Method)
	}
	return checkRequest(req)
}

// refusedHeader stands in a response for a header that an option could not add: the
// method that was given the option returns err, and sends nothing.
type refusedHeader struct {
	sip.Header
	err error
}

// refuseOption makes the method fail that was given an option.
func refuseOption(resp *sip.Response, err error) {
	resp.AppendHeader(refusedHeader{sip.NewHeader("Warning", "refused"), err})
}
