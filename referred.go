package dialog

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"mime"
	"net/textproto"
	"strings"
	"sync/atomic"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/multipart"
	"sipdialog.example/dialog/internal/sipmsg"
)

// ReferRequest is a REFER of the peer inside a call.
type ReferRequest struct {
	// Dialog is the call of the REFER.
	Dialog *Dialog
	// ReferTo is the target of the new call. Replaces is the Replaces header in it; nil
	// if there is none.
	ReferTo  sip.Uri
	Replaces *ReplacesInfo
	// ReferredBy is the value of Referred-By (RFC 3892); empty if there is none. It is
	// not verified.
	ReferredBy string
	// Subscription reports the outcome. It becomes active when the REFER is accepted,
	// unless the peer wants no subscription.
	Subscription *ReferSubscription
	// Request is a copy of the request, for [Stack.TargetDialog] among others.
	Request *sip.Request
}

// ReferHandler decides a REFER before its response. The zero Answer, or one with a
// status of 200 to 299, accepts it with 202, and OnIncomingRefer runs. A status of 300
// to 699 refuses it; 603 is the safest (RFC 5057 5.6), since some others end the peer's
// call too. The handler runs on its own goroutine and has two seconds, after which
// ctx ends and the REFER is answered 504; a panic is 500. To ask the user first, accept
// the REFER and report 603 later with SendNotify.
type ReferHandler func(ctx context.Context, refer *ReferRequest) Answer

// handleRefer handles a REFER inside the call (RFC 3515 2.4.2).
func (d *Dialog) handleRefer(tx serverTx, req *sipmsg.Message) {
	if d.State() != DialogStateEstablished {
		d.stack.answerWith(tx, sip.StatusRequestPending)
		return
	}
	referTo, replaces, err := referTarget(req)
	if err != nil || len(headersNamed(req, "Referred-By")) > 1 { // RFC 3892 2.1
		d.stack.answerWith(tx, sip.StatusBadRequest)
		return
	}
	refer := d.newReferRequest(req, referTo, replaces)
	if over := d.reserveRefer(refer.Subscription, req); over != nil {
		d.stack.busy(tx, over)
		return
	}
	handler := d.stack.callbacksNow().OnReferRequest
	if handler == nil {
		d.answerRefer(tx, refer, Answer{Status: sip.StatusOK})
		return
	}
	refer.Request = ownRequest(req)
	q := d.stack.newDecision(tx, func(ctx context.Context, _ *sip.Request) Answer { return handler(ctx, refer) },
		func(a Answer) { d.answerRefer(tx, refer, a) })
	if !d.stack.calls.Go(q.run) {
		q.answer(Answer{Status: sip.StatusServiceUnavailable})
	}
}

// reserveRefer counts a REFER against the limit, until answerRefer, and reports whether
// it is within.
func (d *Dialog) reserveRefer(r *ReferSubscription, req *sipmsg.Message) (over *atomic.Uint64) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	t := d.transfersLocked()
	if len(d.referSubscriptions)+t.deciding >= d.referLimit() {
		return &d.stack.counters.subscribed
	}
	bytes := len(req.Text()) + len(r.token)
	if !d.holds.Take(bytes) {
		return &d.stack.counters.bytes
	}
	r.bytes = bytes
	t.deciding++
	return nil
}

func (d *Dialog) referLimit() int {
	return orDefault(d.config().Limits.SubscriptionsPerDialog, defaultSubscriptions)
}

func (d *Dialog) newReferRequest(req message, referTo sip.Uri, replaces *ReplacesInfo) *ReferRequest {
	r := d.newSubscription(cseqValue(req), referTo)
	r.referredBy, r.token = headerValue(req, "Referred-By"), tokenOf(req)
	r.silent = !wantsSubscription(req)
	r.status = Progress{100, "Trying"}
	return &ReferRequest{
		Dialog: d, ReferTo: referTo, Replaces: replaces, ReferredBy: r.referredBy,
		Subscription: r,
	}
}

// answerRefer answers a REFER. When it is accepted the subscription exists before the
// 202 leaves; the NOTIFY follows.
func (d *Dialog) answerRefer(tx serverTx, refer *ReferRequest, a Answer) {
	r := refer.Subscription
	d.mutex.Lock()
	d.transfersLocked().deciding--
	d.mutex.Unlock()
	if a.Status >= 300 {
		r.drop(ErrNoSubscription)
		d.stack.replyTo(tx, d.contactTo)(a)
		return
	}
	isNew, err := d.takeRefer(r)
	if err != nil { // the call ended meanwhile
		r.drop(err)
		d.stack.answerWith(tx, sip.StatusCallTransactionDoesNotExists)
		return
	}
	if err := tx.Respond(d.newAccepted(tx, a, r.silent)); err != nil {
		d.log().Debug("REFER could not be answered", "error", err)
		r.follow() // nothing was begun, so nothing is left behind
		r.drop(err)
		return
	}
	switch {
	case !isNew:
		r.drop(ErrNoSubscription)
	case d.stack.takesRefers():
		d.startRefer(refer)
	default:
		r.declineRefer()
	}
}

// takesRefers reports whether the application has registered a callback for REFERs.
func (s *Stack) takesRefers() bool {
	callbacks := s.callbacksNow()
	return callbacks.OnIncomingRefer != nil || callbacks.OnReferRequest != nil
}

// declineRefer reports 603 at once for a REFER that no callback takes: the 202 has
// left, and the peer would wait for an outcome until the subscription expires.
func (r *ReferSubscription) declineRefer() {
	r.dialog.mutex.Lock()
	r.unfollowedLocked()
	r.dialog.mutex.Unlock()
	r.queueNotify(pendingNotify{progress: Progress{sip.StatusGlobalDecline, "Decline"}})
}

func (d *Dialog) newAccepted(tx serverTx, a Answer, silent bool) *sip.Response {
	res := tx.NewResponse(sip.StatusAccepted, "")
	if silent && !requiresNoSub(tx.Message()) {
		res.AppendHeader(sip.NewHeader("Refer-Sub", "false"))
	}
	a.decorate(res, tx, d.contactTo)
	return res
}

// referTarget reads the one Refer-To of a REFER (RFC 3515 2.1), and the Replaces header
// in it.
func referTarget(req message) (sip.Uri, *ReplacesInfo, error) {
	headers := headersNamed(req, "Refer-To")
	if len(headers) != 1 {
		return sip.Uri{}, nil, fmt.Errorf("%w: %d Refer-To headers", ErrMalformed, len(headers))
	}
	list := appendAddresses(nil, headers[0])
	if len(list) != 1 {
		return sip.Uri{}, nil, fmt.Errorf("%w: Refer-To %q", ErrMalformed, headers[0].Value())
	}
	uri := list[0].uri
	replaces, err := replacesIn(uri)
	return uri, replaces, err
}

// wantsSubscription reports whether the peer wants a subscription: not with Refer-Sub:
// false (RFC 4488 4), nor with Require: nosub (RFC 7614 5.3).
func wantsSubscription(req message) bool {
	return !isFalse(headerValue(req, "Refer-Sub")) && !requiresNoSub(req)
}

func isFalse(referSub string) bool {
	return strings.EqualFold(sipmsg.Bare(referSub), "false")
}

func requiresNoSub(req message) bool { return lists(req, "Require", tagNoSub) }

// HandleIncomingRefer handles a REFER that got 202: it creates the subscription, sends
// the first NOTIFY (RFC 3515 2.4.4), and runs OnIncomingRefer on its own goroutine. The
// stack calls it. A second call for the same CSeq does nothing while the subscription of
// the first one lasts. It does not wait for the network.
//
// Errors: ErrInvalidArgument, ErrMalformed (no CSeq), *StateError.
func (d *Dialog) HandleIncomingRefer(req *sip.Request, referTo sip.Uri, replaces *ReplacesInfo) (err error) {
	defer naming("HandleIncomingRefer", &err)
	if req == nil {
		return fmt.Errorf("%w: no request", ErrInvalidArgument)
	}
	if cseqValue(req) == "" {
		return fmt.Errorf("%w: REFER without CSeq", ErrMalformed)
	}
	refer := d.newReferRequest(req, referTo, replaces)
	isNew, err := d.takeRefer(refer.Subscription)
	if err != nil || !isNew {
		return err
	}
	d.startRefer(refer)
	return nil
}

// takeRefer adds a REFER, once, with its subscription if the peer wants one.
func (d *Dialog) takeRefer(r *ReferSubscription) (isNew bool, err error) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	switch {
	case d.state == DialogStateTerminated || d.ending != nil:
		return false, &StateError{Op: "HandleIncomingRefer", State: d.state, Need: "a call in progress"}
	case d.referSubscriptions[r.ID] != nil:
		return false, nil
	}
	d.followableLocked(r)
	if r.silent {
		r.endLocked(ErrNoSubscription)
		return true, nil
	}
	r.active = true
	if d.referSubscriptions == nil {
		d.referSubscriptions = make(map[string]*ReferSubscription)
	}
	d.referSubscriptions[r.ID] = r
	return true, nil
}

// startRefer sends the first NOTIFY and calls the application.
func (d *Dialog) startRefer(refer *ReferRequest) {
	if _, err := d.transactionLayer(); err != nil {
		return // no network: there is no peer to tell
	}
	d.background(func() {
		refer.Subscription.begin()
		d.runReferCallback(refer)
	})
}

// begin starts the subscription's time and sends the first NOTIFY, which goes
// before anything the application sends.
func (r *ReferSubscription) begin() {
	d := r.dialog
	d.mutex.Lock()
	active := r.active
	if active && r.until.IsZero() { // a SUBSCRIBE may have come
		r.activateLocked(d.config().referLife())
	}
	d.mutex.Unlock()
	if !active {
		return
	}
	ctx, cancel := context.WithTimeout(d.baseContext(), d.config().timers().T2)
	defer cancel()
	if err := r.notify(ctx, pendingNotify{}, func(error) {}); err != nil {
		d.log().Debug("NOTIFY could not be sent yet", "error", err)
		r.queueNotify(pendingNotify{}) // as soon as may be; the application need not wait for it
	}
}

func (d *Dialog) runReferCallback(refer *ReferRequest) {
	callback := d.stack.callbacksNow().OnIncomingRefer
	if callback == nil {
		return
	}
	d.stack.calls.Go(func() {
		d.stack.guard(d.log, "OnIncomingRefer", func() { callback(d, refer.ReferTo, refer.Replaces) }, nil)
	})
}

// The Referred-By token (RFC 3892 4): a part of a REFER's body by which the referrer
// proves its identity to the refer target. The UA that follows the REFER passes it on
// unchanged.

// maxToken bounds a token: a signature, with certificates.
const maxToken = 32 << 10

// tokenOf returns the part of a REFER's body that its Referred-By names by cid,
// with its headers, or nil when there is none.
func tokenOf(refer message) []byte {
	id := contentIDIn(headerValue(refer, "Referred-By"))
	mediaType, params, err := mime.ParseMediaType(headerValue(refer, "Content-Type"))
	if id == "" || err != nil || !strings.HasPrefix(mediaType, "multipart/") || params["boundary"] == "" {
		return nil
	}
	for _, part := range multipart.Split(refer.Body(), params["boundary"]) {
		// A reader for each part would be 4 KiB for each.
		if len(part) <= maxToken && bytes.Contains(part, []byte(id)) && isTokenPart(part, id) {
			return bytes.Clone(part)
		}
	}
	return nil
}

// contentIDIn returns the Content-ID that a Referred-By names (RFC 3892 3).
func contentIDIn(referredBy string) string {
	if id, _ := HeaderParam(referredBy, "cid"); id != "" {
		return "<" + id + ">"
	}
	return ""
}

// isTokenPart reports whether a part has that Content-ID and is an authenticated
// identity body in S/MIME (RFC 3892 4). Other parts, such as a session, are not taken:
// a referrer must not describe a session in our name.
func isTokenPart(part []byte, id string) bool {
	header, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(part))).ReadMIMEHeader()
	if err != nil || header.Get("Content-Id") != id {
		return false
	}
	switch strings.ToLower(mediaType(header.Get("Content-Type"))) {
	case "multipart/signed", "application/pkcs7-mime":
		return true
	}
	return false
}

// withToken returns a multipart body with the token beside body (RFC 3892 2.2, RFC 5621
// 4), or body itself without a token.
func withToken(body Body, token []byte) Body {
	if len(token) == 0 {
		return body
	}
	boundary := "part-" + randomHex(12)
	var b bytes.Buffer
	if !isNilBody(body) && len(body.Data()) > 0 {
		b.WriteString("--" + boundary + "\r\nContent-Type: " + oneLine(body.ContentType()) + "\r\n\r\n")
		b.Write(body.Data())
		b.WriteString("\r\n")
	}
	b.WriteString("--" + boundary + "\r\n")
	b.Write(token)
	b.WriteString("\r\n--" + boundary + "--\r\n")
	return NewBody("multipart/mixed;boundary="+boundary, b.Bytes())
}
