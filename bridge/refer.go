package bridge

import (
	"context"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
)

// ReferPolicy is what becomes of a REFER in one of two joined calls.
type ReferPolicy int

const (
	// ReferRefused refuses it with 603.
	ReferRefused ReferPolicy = iota
	// ReferRelayed asks the other peer to call the target: its response, and what its NOTIFYs
	// report, pass to the referrer. A Replaces that names a call of the bridge's becomes one
	// that names the call joined to that, at its peer.
	ReferRelayed
	// ReferFollowed has the bridge call the target, without an offer, and offer the other peer
	// what the target offers (RFC 3725 4.4). Once the target has answered, its call and the
	// other peer's are joined, and the referrer's ends with BYE. A Replaces that names a call
	// of the bridge's is followed without a new call: the other peer is connected with the
	// call joined to that one. If it fails, the two calls continue as before. Either way the
	// referrer gets the outcome in a NOTIFY.
	ReferFollowed
)

const statusDecline = 603

// refer decides a REFER of the peer's.
func (l *leg) refer(ctx context.Context, r *dialog.ReferRequest) dialog.Answer {
	if l.other.dialog() == nil {
		return dialog.Answer{Status: sip.StatusTemporarilyUnavailable}
	}
	switch l.call.bridge.opts.Refer(r) {
	case ReferRelayed:
		return l.relayRefer(ctx, r)
	case ReferFollowed:
		r.OnAccepted(func() { l.followRefer(r) })
		return dialog.Answer{}
	default:
		return dialog.Answer{Status: statusDecline}
	}
}

// relayRefer sends the other peer a REFER. ctx ends before the one here must be answered.
func (l *leg) relayRefer(ctx context.Context, r *dialog.ReferRequest) dialog.Answer {
	target, opts := r.ReferTo, dialog.ReferOpts{NoReferSub: !wantsOutcome(r.Request)}
	if r.ReferredBy != "" && !strings.ContainsFunc(r.ReferredBy, isControl) {
		opts.Headers = map[string]string{"Referred-By": r.ReferredBy}
	}
	if replaced := l.call.bridge.behind(r.Replaces); replaced != nil {
		target, opts.Replaces = replaced.dialog().Info().RemoteTarget, replaced.dialog()
	}
	sent, err := l.other.dialog().Transfer(ctx, target, opts)
	if err != nil {
		how := refusalOf(err)
		return dialog.Answer{Status: how.Status, Reason: how.Reason, Headers: how.Headers}
	}
	r.OnAccepted(func() { relayOutcome(sent, r.Subscription) })
	return dialog.Answer{}
}

// wantsOutcome reports whether a referrer wants NOTIFYs (RFC 4488 4, RFC 7614 5.3).
func wantsOutcome(refer *sip.Request) bool {
	return !lists(refer, "Refer-Sub", "false") && !lists(refer, "Require", "nosub")
}

// relayOutcome reports to a referrer what the other peer reports, until the outcome. A peer
// that reports none leaves the referrer without one.
func relayOutcome(sent, to *dialog.ReferSubscription) {
	ctx := context.Background()
	news := make(chan dialog.Progress, 16)
	sent.OnProgress(func(p dialog.Progress) {
		select {
		case news <- p:
		default: // the referrer reads too slowly; the outcome is never left out
		}
	})
	for {
		select {
		case p := <-news:
			if p.Status > 100 && p.Status < 200 {
				_ = to.SendNotify(ctx, p.Status, p.Reason)
			}
		case <-to.Done():
			_ = sent.Close()
			return
		case <-sent.Done():
			if outcome, err := sent.Wait(ctx); err != nil || to.SendNotify(ctx, outcome.Status, outcome.Reason) != nil {
				_ = to.Close()
			}
			return
		}
	}
}

// followRefer connects the other peer with the target of a REFER, and leaves the referrer.
func (l *leg) followRefer(r *dialog.ReferRequest) {
	b, kept := l.call.bridge, l.other.dialog()
	next := b.newCall(kept)
	next.a.sent = l.other.firstSent()
	next.tell() // both are established, or will be without provisional responses
	next.connecting.Store(true)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer context.AfterFunc(kept.Context(), cancel)()
	target, left := b.behind(r.Replaces), []*leg{l}
	var err error
	if target != nil {
		left = append(left, target.other)
		err = next.takes(ctx, target)
		report(ctx, r.Subscription, err)
	} else {
		err = next.follows(ctx, r.Subscription)
	}
	if err != nil {
		return
	}
	next.replaces(left)
	if b.opts.Followed != nil {
		b.opts.Followed(l.call, next)
	}
}

// follows calls the target of a REFER, and connects it.
func (c *Call) follows(ctx context.Context, r *dialog.ReferSubscription) error {
	from := c.In().Info().Remote
	_, err := r.Follow(ctx, dialog.InviteOpts{From: &from, Setup: func(d *dialog.Dialog) {
		c.attach(d)
		c.listen(&c.b)
	}})
	if err == nil && !c.connected.Load() {
		_ = c.Out().Bye(ctx, "")
		err = errNoAnswer
	}
	return err
}

// takes connects a call that is joined to another one.
func (c *Call) takes(ctx context.Context, l *leg) error {
	c.attach(l.dialog())
	c.b.sent = l.firstSent() // not shared yet
	c.b.register()
	_, err := l.dialog().Renegotiate(ctx, nil) // its offer goes to the other peer: offered
	if err == nil && !c.connected.Load() {
		err = errNoAnswer
	}
	if err != nil {
		l.register()
		return err
	}
	c.listen(&c.b)
	return nil
}

// report is the outcome of a REFER for which there was no new call.
func report(ctx context.Context, to *dialog.ReferSubscription, err error) {
	status, reason := sip.StatusOK, "OK"
	if err != nil {
		how := refusalOf(err)
		status, reason = how.Status, how.Reason
	}
	_ = to.SendNotify(context.WithoutCancel(ctx), status, reason)
}

// replaces makes a call that is connected the one that stands, and ends the calls of the
// referrer.
func (c *Call) replaces(left []*leg) {
	for _, l := range left {
		l.call.parted.Store(true)
	}
	c.listen(&c.a)
	c.connecting.Store(false)
	for _, l := range []*leg{&c.a, &c.b} {
		if l.dialog().State() == dialog.DialogStateTerminated {
			l.ended()
		}
	}
	for _, l := range left {
		c.bridge.background(func() { _ = l.dialog().ByeWith(context.Background(), dialog.ByeOpts{}) })
	}
}

// behind returns the call that is joined to the one that a Replaces of a referrer names; nil
// if it names none of the bridge's (RFC 3891 3: its tags are those of the other side).
func (b *Bridge) behind(replaces *dialog.ReplacesInfo) *leg {
	if replaces == nil {
		return nil
	}
	d, ok := b.stack.DialogByKey(dialog.DialogKey{CallID: replaces.CallID, LocalTag: replaces.ToTag, RemoteTag: replaces.FromTag})
	if !ok {
		return nil
	}
	b.mu.Lock()
	named := b.legs[d]
	b.mu.Unlock()
	if named == nil || named.other.dialog() == nil || named.other.dialog().State() != dialog.DialogStateEstablished {
		return nil
	}
	return named.other
}

// connectOffer offers the other peer what the target of a REFER offers.
func (l *leg) connectOffer(ctx context.Context, r *dialog.OfferRequest) (dialog.Body, error) {
	answer, err := answered(l.other.dialog().Renegotiate(ctx, l.other.sends(r.Offer)))
	if err != nil {
		return nil, err
	}
	l.agreed(r.Offer, answer)
	l.call.connected.Store(true)
	return l.sends(answer), nil
}
