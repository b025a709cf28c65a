package dialog

import (
	"context"
	"fmt"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/dialogname"
	"sipdialog.example/dialog/internal/replaces"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/sipuri"
)

// An INVITE may name a call of ours: to take its place (Replaces, RFC 3891), or to be
// joined to it (Join, RFC 3911). The named call is found here, the application asked
// whether the caller may, and the replaced call ended once the new one has been accepted.
// internal/replaces decides.

// Replaces returns the call of ours that an incoming call replaces (RFC 3891): it ends
// when this call is accepted. It is nil if the INVITE named none, and after this call has
// been accepted or has ended, so call it before Accept. It never blocks.
func (d *Dialog) Replaces() *Dialog { return d.named(false) }

// Joins returns the call of ours that an incoming call asks to join (RFC 3911). The
// application mixes the media, or refuses with 488. It is nil if the INVITE named none,
// and after this call has ended. It never blocks.
func (d *Dialog) Joins() *Dialog { return d.named(true) }

func (d *Dialog) named(join bool) *Dialog {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	if d.incoming.replacement == nil || d.incoming.replacement.Join != join {
		return nil
	}
	return d.incoming.replacement.call
}

// replacement is the call that an INVITE names by Replaces or Join. It does not change.
type replacement struct {
	replaces.Claim
	call *Dialog
}

// replacementOf returns the call that an INVITE names, nil for none, or the status with
// which to refuse the INVITE.
func (s *Stack) replacementOf(req *sipmsg.Message) (t *replacement, refusal int) {
	name, join, found, _ := dialogname.InInvite(req)
	if !found {
		return nil, 0
	}
	call, refusal := s.findNamed(name)
	if refusal != 0 {
		return nil, refusal
	}
	t = &replacement{replaces.ClaimOf(name, join), call}
	if refusal = t.Refusal(t.state()); refusal == 0 && join && s.config.AuthorizeJoin == nil {
		refusal = sip.StatusNotAcceptableHere // RFC 3911 4: we are not capable of it
	}
	if refusal != 0 {
		return nil, refusal
	}
	return t, 0
}

// findNamed finds the call that a Replaces or Join header names.
func (s *Stack) findNamed(name dialogname.Replaces) (call *Dialog, refusal int) {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	var search replaces.Search[*Dialog]
	for _, tags := range replaces.Named(name) {
		s.searchLocked(&search, DialogKey{CallID: name.CallID, LocalTag: tags.Local, RemoteTag: tags.Remote})
	}
	return search.Result()
}

// searchLocked finds the call with a key, or with an early dialog of that key.
func (s *Stack) searchLocked(search *replaces.Search[*Dialog], key DialogKey) {
	for _, d := range s.registry.Named(key) {
		if d == nil {
			continue
		}
		lives, ended := d.hasPeer(key.RemoteTag)
		if lives {
			search.Found(d)
			return
		}
		if ended {
			search.Ended()
		}
	}
	if s.registry.HasEnded(key) {
		search.Ended()
	}
}

// hasPeer reports whether there is a dialog with a peer of that tag, or whether there
// was one. A call of ours that is not answered has early dialogs, perhaps only one of a
// peer without a tag. Before any response it has none (RFC 3261 12.1).
func (d *Dialog) hasPeer(tag string) (lives, ended bool) {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	if d.phase != phaseInviting || d.invite == nil {
		return d.currentLocked().RemoteTag() == tag, false
	}
	if e := d.invite.forks.Find(tag); e != nil {
		return e.Lives(), e.Ended()
	}
	return tag == "" && d.currentLocked().RemoteTag() == "" && d.state > DialogStateTrying, false
}

// state describes the call to the INVITE that names it.
func (t *replacement) state() replaces.Call {
	t.call.mutex.RLock()
	defer t.call.mutex.RUnlock()
	return t.call.asNamedLocked()
}

func (d *Dialog) asNamedLocked() replaces.Call {
	return replaces.Call{
		Outgoing: d.isUAC, Confirmed: d.isConfirmedLocked(),
		Ending: d.ending != nil || d.state == DialogStateTerminated, Replaced: d.replaced,
	}
}

// isConfirmedLocked reports whether a 2xx has made the dialog (RFC 3261 12).
func (d *Dialog) isConfirmedLocked() bool {
	return d.state == DialogStateEstablished || d.phase == phaseAwaitingACK
}

// reserveReplaced claims the call that d replaces, while d is accepted; nil for none. When
// it is too late the result is the status with which to refuse d.
func (d *Dialog) reserveReplaced() (t *replacement, refusal int) {
	d.mutex.RLock()
	t = d.incoming.replacement
	d.mutex.RUnlock()
	if t == nil {
		return nil, 0
	}
	t.call.mutex.Lock()
	defer t.call.mutex.Unlock()
	reserve, refusal := t.Accept(t.call.asNamedLocked())
	if !reserve {
		return nil, refusal
	}
	t.call.replaced = true
	return t, 0
}

// release undoes reserveReplaced when d was not accepted.
func (t *replacement) release() {
	if t == nil {
		return
	}
	t.call.mutex.Lock()
	defer t.call.mutex.Unlock()
	t.call.replaced = false
}

// endReplaced ends the replaced call once the 2xx to d has left: by BYE, or by CANCEL
// (RFC 3891 3). The reference to it is dropped; its memory would stay as long as d
// otherwise.
func (d *Dialog) endReplaced(t *replacement) {
	d.mutex.Lock()
	if d.incoming.replacement != nil && !d.incoming.replacement.Join {
		d.incoming.replacement = nil
	}
	d.mutex.Unlock()
	if t == nil {
		return
	}
	t.call.hangup(&ending{cause: Cause{By: PartyLocal, Method: "BYE", Reason: "replaced"}, reasons: reasonHeaders("replaced", nil)})
}

// TakeoverRequest is an INVITE that names a call of ours by Replaces or Join.
type TakeoverRequest struct {
	// Invite is a copy of the INVITE, with the sender's address as its Source.
	Invite *sip.Request
	// Call is the call it names.
	Call *Dialog
	// Join is false when the INVITE replaces the call, true when it joins it.
	Join bool
}

// TakeoverHandler decides whether the sender of an INVITE may replace or join a call.
// The zero Answer, and every 2xx, permits it; 300 to 699 refuses it: 403, or 401 with a
// WWW-Authenticate header. The function runs on its own goroutine with no lock held,
// before OnIncomingDialog and the 180. ctx ends when the caller cancels, and after
// TxTimeout; the INVITE then gets 504. After a panic it gets 500.
type TakeoverHandler func(ctx context.Context, r TakeoverRequest) Answer

// FromPeer reports whether the INVITE claims to be sent by, or on behalf of, the peer
// of the call that it names: its From, or its Referred-By, has the user and host of
// that peer (RFC 3891 3, 8; RFC 3892). The claim is not verified.
func (r TakeoverRequest) FromPeer() bool {
	if r.Invite == nil || r.Call == nil {
		return false
	}
	peer := r.Call.Info().Remote.URI
	return sipuri.SameUser(sipheader.AddressOf(r.Invite, "From").URI, peer) || sipuri.SameUser(sipheader.AddressOf(r.Invite, "Referred-By").URI, peer)
}

// authorizer returns the function that decides on a replacement; nil when it is
// permitted.
func (c *StackConfig) authorizer(t *replacement) TakeoverHandler {
	switch {
	case t == nil:
		return nil
	case t.Join:
		return c.AuthorizeJoin
	default:
		return c.AuthorizeReplaces
	}
}

// authorized asks the application whether the INVITE may replace or join the call that
// it names, and refuses the INVITE if not. It reports whether OnIncomingDialog is
// called.
func (d *Dialog) authorized(tx serverTx, t *replacement, ask TakeoverHandler) bool {
	wait := d.config().txTimeout()
	ctx, cancel := context.WithTimeout(d.Context(), wait)
	defer cancel()
	expiry := d.after(wait, func() {
		d.hangupUnanswered(&ending{cause: Cause{By: PartyTimeout, Method: "INVITE", Err: ErrTimeout}, status: sip.StatusGatewayTimeout})
	})
	defer expiry.Stop()
	a := d.askAuthorization(ctx, tx, t, ask)
	if status := t.Authorized(a.Status, ctx.Err() != nil, t.state()); status != a.Status {
		a = Answer{Status: status}
	}
	if a.Status != 0 {
		d.decline(tx, a)
		return false
	}
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.incoming.tx == tx // its caller has not given up
}

// askAuthorization calls the application. If that does not return, the INVITE is
// refused.
func (d *Dialog) askAuthorization(ctx context.Context, tx serverTx, t *replacement, ask TakeoverHandler) (a Answer) {
	returned := false
	d.stack.guard(d.log, "authorisation of Replaces or Join", func() {
		a = ask(ctx, TakeoverRequest{Invite: ownRequest(tx.Message()), Call: t.call, Join: t.Join})
		a.Body = ownBody(a.Body) // its methods are the application's too
		returned = true
	}, func() {
		if !returned {
			a = Answer{Status: sip.StatusInternalServerError}
			d.decline(tx, a)
		}
	})
	return a
}

// decline refuses an INVITE with an Answer of the application, unless it was answered
// before.
func (d *Dialog) decline(tx serverTx, a Answer) {
	a = a.checked(d.log(), 300)
	if d.claim() {
		_, _ = d.reject(tx, a.response(tx, d.contactTo), Cause{By: PartyLocal, Method: "INVITE", Status: a.Status, Reason: a.Reason})
	}
}

// ParseTargetDialog reads the value of a Target-Dialog header (RFC 4538 3): the call to
// which a request outside it belongs, as its receiver knows it.
//
// Errors: ErrMalformed (no Call-ID, or not one tag of each kind).
func ParseTargetDialog(header string) (DialogKey, error) {
	name, err := dialogname.ParseTargetDialog(header)
	if err != nil {
		return DialogKey{}, fmt.Errorf("%w: Target-Dialog: %w", ErrMalformed, err)
	}
	return DialogKey(name), nil
}

// TargetDialog returns the call in progress that a request names by its Target-Dialog
// header. Only the elements on the path of that call's messages know its tags, so the
// sender may be trusted as much as they are (RFC 4538 4). It returns false for a header
// that names no call. It is meant for handlers of requests outside calls
// (Stack.OnRequest), and for incoming calls (Dialog.Request). It never blocks.
func (s *Stack) TargetDialog(req *sip.Request) (*Dialog, bool) {
	if req == nil {
		return nil, false
	}
	headers := sipheader.AllNamed(req, "Target-Dialog")
	if len(headers) != 1 {
		return nil, false // RFC 4538 7: one value
	}
	key, err := ParseTargetDialog(headers[0].Value())
	if err != nil {
		return nil, false
	}
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	d, ok := s.dialogs[key]
	return d, ok
}

// ReplacesInfo names a dialog as a Replaces header does (RFC 3891 6.1): ToTag
// is the tag of the side that receives the header, FromTag its peer's.
type ReplacesInfo struct {
	CallID, FromTag, ToTag string
	// EarlyOnly asks to replace the dialog only while it is early.
	EarlyOnly bool
}

// BuildReplacesHeader returns the header's value; empty for nil.
func (r *ReplacesInfo) BuildReplacesHeader() string {
	if r == nil {
		return ""
	}
	return dialogname.Replaces(*r).String()
}

// ReplacesOf returns the name of a call for its peer, for an INVITE that replaces the
// call there (InviteOpts.Replaces), or joins it. It is nil while the peer's tag is not
// known, and for a nil call.
func ReplacesOf(d IDialog) *ReplacesInfo {
	if own, ok := d.(*Dialog); d == nil || (ok && own == nil) {
		return nil
	}
	key := d.Key()
	if key.CallID == "" || key.LocalTag == "" || key.RemoteTag == "" {
		return nil
	}
	// RFC 3891 3: the tags as the side has them that is asked; our tag is its
	// remote one.
	return &ReplacesInfo{CallID: key.CallID, FromTag: key.LocalTag, ToTag: key.RemoteTag}
}

// ParseReplacesHeader reads the value of a Replaces header, plain or, from a Refer-To
// URI, escaped. Call-ID and exactly one of each tag are needed; unknown parameters are
// skipped.
//
// Errors: ErrMalformed.
func ParseReplacesHeader(header string) (*ReplacesInfo, error) {
	read, err := dialogname.ParseReplaces(header)
	if err != nil {
		return nil, fmt.Errorf("%w: Replaces: %w", ErrMalformed, err)
	}
	info := ReplacesInfo(read)
	return &info, nil
}

// replacesIn reads the Replaces header in a Refer-To URI; nil when there is none.
func replacesIn(uri sip.Uri) (*ReplacesInfo, error) {
	value, found, err := dialogname.ReplacesIn(uri)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: Replaces: %w", ErrMalformed, err)
	case !found:
		return nil, nil
	}
	return ParseReplacesHeader(value)
}
