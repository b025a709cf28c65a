package bridge

import (
	"context"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
)

// place sends the second INVITE. The first call is refused if that fails.
func (c *Call) place(ctx context.Context, target sip.Uri, opts dialog.InviteOpts, placed func(*dialog.Dialog)) error {
	c.b.sends(opts.Body)
	setup := opts.Setup
	opts.Setup = func(d *dialog.Dialog) {
		c.attach(d)
		placed(d)
		c.listen(&c.b)
		d.OnFork(c.progress)
		d.OnStateChange(func(state dialog.DialogState) {
			if state == dialog.DialogStateEstablished || state == dialog.DialogStateTerminated {
				c.tell()
			}
		})
		if setup != nil {
			setup(d)
		}
	}
	if _, err := c.bridge.stack.NewInvite(ctx, target, opts); err != nil {
		_ = reject(ctx, c.In(), err)
		return err
	}
	if c.In().State() == dialog.DialogStateTerminated { // before there was a second call
		c.a.ended()
	}
	return nil
}

// answered waits for the final response of the second call, and gives it to the first. The
// caller gets one even if ctx has ended.
func (c *Call) answered(ctx context.Context) error {
	in, out := c.In(), c.Out()
	err := out.WaitAnswer(ctx)
	if err == nil {
		err = c.answer(ctx, out.Response())
	}
	if err != nil {
		c.awaitProvisionals(ctx)
		c.provisionals.shut()
		if reject(context.WithoutCancel(ctx), in, err) != nil {
			// Answered meanwhile, or by a text that cannot be sent.
			c.bridge.background(func() { _ = in.Hangup(context.Background()) })
		}
	}
	for _, l := range []*leg{&c.a, &c.b} {
		if err != nil || l.dialog().State() == dialog.DialogStateTerminated {
			l.ended()
		}
	}
	return err
}

// answer accepts the first call as the callee has accepted the second one. It is called by
// Join, and for an offer in the 2xx: the second of the two waits for the first.
func (c *Call) answer(ctx context.Context, res *sip.Response) error {
	if c.accepting.CompareAndSwap(false, true) {
		defer close(c.accepted)
		c.acceptErr = c.accept(ctx, res)
		return c.acceptErr
	}
	select {
	case <-c.accepted:
		return c.acceptErr
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Call) accept(ctx context.Context, res *sip.Response) error {
	c.awaitProvisionals(ctx)
	c.provisionals.shut()
	ctx, cancel := context.WithCancel(ctx) // Accept may wait for the caller's PRACK
	defer cancel()
	defer context.AfterFunc(c.Out().Context(), cancel)()
	f := c.forks.of(tagOf(res))
	body := bodyOf(res)
	if body == nil && !c.delayed && !c.reliable { // the callee has answered reliably, we have not
		body = c.forks.answerOf(f)
	}
	if c.a.sends(c.forks.answerOf(f)) == nil {
		c.a.sends(sessionOf(res))
	}
	opts := append(f.option(), dialog.WithBody(body), dialog.WithHeaders(c.bridge.passed(res)...))
	if err := c.In().Accept(ctx, opts...); err != nil {
		return err
	}
	if session := sessionOf(res); session != nil && !c.delayed {
		c.b.agreed(session, sessionOf(c.In().Request()))
	}
	return nil
}

// overtakes is how long the final response waits for provisional ones that have not passed. A
// callback does that, and one of the application's may block it.
const overtakes = time.Second

// awaitProvisionals waits until the provisional responses before the final one have passed.
func (c *Call) awaitProvisionals(ctx context.Context) {
	select {
	case <-c.told:
		return
	default:
	}
	late := time.NewTimer(overtakes)
	defer late.Stop()
	select {
	case <-c.told:
	case <-late.C:
	case <-ctx.Done():
	case <-c.In().Done():
	}
}

// progress passes on the provisional responses of the second call, but not those that have
// an offer.
func (c *Call) progress(f dialog.ForkInfo) {
	if f.Ended {
		c.forkEnded(f)
		return
	}
	if f.Status > 199 {
		c.tell()
	}
	res := f.Response()
	if res == nil || f.Status < 101 || f.Status > 199 {
		return
	}
	body := bodyOf(res)
	if c.delayed && body != nil {
		return // an offer: offered passes it on
	}
	_ = c.provisional(context.Background(), res, body, c.forks.of(f.RemoteTag), isReliable(res))
}

// forkEnded sends the caller a 199 when one of several early dialogs has ended, if the caller
// supports that (RFC 6228).
func (c *Call) forkEnded(f dialog.ForkInfo) {
	if c.Out().State() != dialog.DialogStateRinging {
		return // the callee has answered: the caller's early dialog becomes the call, or ends with it
	}
	one := c.forks.find(tagged(f.RemoteTag))
	if one == nil {
		return // the caller has ended it
	}
	c.forks.end(one)
	if !lists(c.In().Request(), "Supported", "199") {
		return
	}
	c.provisionals.pass(func() {
		_ = c.In().Provisional(context.Background(), statusEarlyDialogTerminated, "", append(one.option(), dialog.WithReason(f.Reasons...))...)
	})
}

// callerLeft passes on the caller's BYE in an early dialog, while others go on (RFC 3261 15):
// the callee's is the one that it belongs to. The goroutine waits for the callee.
func (c *Call) callerLeft(f dialog.ForkInfo) {
	one, out := c.forks.find(named(f.ID)), c.Out()
	if one == nil || out == nil {
		return
	}
	c.forks.end(one)
	c.bridge.background(func() { _ = out.ByeFork(context.Background(), one.tag, dialog.ByeOpts{Reasons: f.Reasons}) })
}

// provisional sends the caller a provisional response. Without the body that a reliable
// one would need, it is not sent.
func (c *Call) provisional(ctx context.Context, res *sip.Response, body dialog.Body, fork *fork, reliable bool) error {
	c.forks.answered(fork, res)
	opts := append(fork.option(), dialog.WithHeaders(c.bridge.passed(res)...))
	if body != nil {
		opts = append(opts, dialog.WithBody(body))
	}
	if reliable {
		opts = append(opts, dialog.WithReliable())
	}
	err := dialog.ErrAnswered
	c.provisionals.pass(func() { err = c.In().Provisional(ctx, res.StatusCode, res.Reason, opts...) })
	return err
}
