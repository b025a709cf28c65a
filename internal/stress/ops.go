package stress

import (
	"context"
	"errors"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/testkit"
	"sipdialog.example/dialog/register"
)

// application is what runs on one stack: goroutines and callbacks that call
// every method at random.
type application struct {
	// Set at construction.

	round *round
	node  *node
	dice  *dice
	// inside is true if the calls come from a callback; they are short then.
	inside bool
}

// context returns one that has ended, one that ends soon, or one that does not.
func (a *application) context() (context.Context, context.CancelFunc) {
	switch n := a.dice.intn(10); {
	case n == 0:
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		return ctx, cancel
	case n < 5 || a.inside:
		return context.WithTimeout(context.Background(), a.dice.upTo(2*time.Second))
	case n < 8:
		return context.WithTimeout(context.Background(), a.dice.upTo(time.Minute))
	default:
		return context.WithCancel(context.Background())
	}
}

// operation is one method, called with whatever chance gives.
type operation struct {
	name string
	call func(a *application, ctx context.Context, d *dialog.Dialog)
}

// operations calls every method: those without arguments as they are, the
// others as the lists below say.
func operations() []operation {
	list := slices.Concat(callOperations(), transferOperations(), callbackOperations(), stackOperations(), stackCallbackOperations(), referOperations())
	known := make(map[string]bool)
	for _, op := range list {
		known[op.name] = true
	}
	for _, op := range plainOperations() {
		if !known[op.name] {
			list = append(list, op)
		}
	}
	return list
}

func plainOperations() []operation {
	receivers := map[reflect.Type]func(a *application, d *dialog.Dialog) any{
		reflect.TypeFor[*dialog.Dialog]():            func(_ *application, d *dialog.Dialog) any { return d },
		reflect.TypeFor[*dialog.Stack]():             func(a *application, _ *dialog.Dialog) any { return a.node.stack },
		reflect.TypeFor[*dialog.ReferSubscription](): func(a *application, _ *dialog.Dialog) any { return a.node.refer(a.dice) },
	}
	var list []operation
	for typ, receiver := range receivers {
		for i := range typ.NumMethod() {
			if method := typ.Method(i); method.Type.NumIn() == 1 {
				list = append(list, operation{typ.Elem().Name() + "." + method.Name, func(a *application, _ context.Context, d *dialog.Dialog) {
					reflect.ValueOf(receiver(a, d)).Method(i).Call(nil)
				}})
			}
		}
	}
	slices.SortFunc(list, func(a, b operation) int { return strings.Compare(a.name, b.name) })
	return list
}

// callOperations are those of a call from its answer to its end, and of its session.
func callOperations() []operation {
	return []operation{
		{"Dialog.Accept", func(a *application, ctx context.Context, d *dialog.Dialog) {
			opts := []dialog.ResponseOpt{a.inFork(), pick(a.dice, []dialog.ResponseOpt{nil, answered(), answered()})}
			if a.dice.chance(15) {
				opts = append(opts, func(*sip.Response) { panic("option") })
			}
			a.check(d.Accept(ctx, opts...))
		}},
		{"Dialog.Reject", func(a *application, ctx context.Context, d *dialog.Dialog) {
			a.check(d.Reject(ctx, pick(a.dice, []int{200, 302, 404, 486, 603, 700}), "stress"))
		}},
		{"Dialog.RejectWith", func(a *application, ctx context.Context, d *dialog.Dialog) {
			a.check(d.RejectWith(ctx, pick(a.dice, []int{302, 480, 606}), "stress", nil, dialog.WithReason(dialog.Reason{Protocol: "SIP", Cause: 200})))
		}},
		{"Dialog.Provisional", func(a *application, ctx context.Context, d *dialog.Dialog) {
			a.check(d.Provisional(ctx, pick(a.dice, []int{100, 180, 183, 199}), "", a.inFork(),
				pick(a.dice, []dialog.ResponseOpt{nil, dialog.WithReliable(), answered(), answered()})))
		}},
		{"Dialog.ByeWith", func(a *application, ctx context.Context, d *dialog.Dialog) {
			a.check(d.ByeWith(ctx, dialog.ByeOpts{Reason: "stress", Reasons: []dialog.Reason{{Protocol: "Q.850", Cause: 16}}, Headers: []dialog.Header{{Name: "Subject", Value: "stress"}}}))
		}},
		{"Dialog.Bye", func(a *application, ctx context.Context, d *dialog.Dialog) { a.check(d.Bye(ctx, "stress")) }},
		{"Dialog.Hangup", func(a *application, ctx context.Context, d *dialog.Dialog) { a.check(d.Hangup(ctx)) }},
		{"Dialog.Close", func(a *application, _ context.Context, d *dialog.Dialog) { a.check(d.Close()) }},
		{"Dialog.WaitAnswer", func(a *application, ctx context.Context, d *dialog.Dialog) { a.check(d.WaitAnswer(ctx)) }},
		{"Dialog.ReInvite", func(a *application, ctx context.Context, d *dialog.Dialog) {
			a.check(d.ReInvite(ctx, a.offer()))
		}},
		{"Dialog.Renegotiate", func(a *application, ctx context.Context, d *dialog.Dialog) {
			_, err := d.Renegotiate(ctx, a.offer().Body)
			a.check(err)
		}},
		{"Dialog.Update", func(a *application, ctx context.Context, d *dialog.Dialog) {
			_, err := d.Update(ctx, pick(a.dice, []dialog.Body{nil, a.offer().Body}))
			a.check(err)
		}},
		{"Dialog.UpdateFork", func(a *application, ctx context.Context, d *dialog.Dialog) {
			_, err := d.UpdateFork(ctx, pick(a.dice, []string{"", "one", d.Key().RemoteTag}), pick(a.dice, []dialog.Body{nil, a.offer().Body}))
			a.check(err)
		}},
		{"Dialog.ByeFork", func(a *application, ctx context.Context, d *dialog.Dialog) {
			a.check(d.ByeFork(ctx, pick(a.dice, []string{"one", d.Key().RemoteTag}), dialog.ByeOpts{}))
		}},
		{"Dialog.Hold", func(a *application, ctx context.Context, d *dialog.Dialog) { a.check(d.Hold(ctx)) }},
		{"Dialog.Resume", func(a *application, ctx context.Context, d *dialog.Dialog) { a.check(d.Resume(ctx)) }},
	}
}

func transferOperations() []operation {
	return []operation{
		{"Dialog.Refer", func(a *application, ctx context.Context, d *dialog.Dialog) {
			a.check(d.Refer(ctx, a.target(), dialog.ReferOpts{NoReferSub: a.dice.chance(20)}))
		}},
		{"Dialog.SendRefer", func(a *application, ctx context.Context, d *dialog.Dialog) {
			a.check(d.SendRefer(ctx, a.target(), nil))
		}},
		{"Dialog.ReferReplace", func(a *application, ctx context.Context, d *dialog.Dialog) {
			opts := dialog.ReferOpts{Headers: map[string]string{"Subject": "stress"}}
			a.check(d.ReferReplace(ctx, a.node.dialog(a.dice), opts))
		}},
		{"Dialog.SendReferWithReplaces", func(a *application, ctx context.Context, d *dialog.Dialog) {
			a.check(d.SendReferWithReplaces(ctx, a.target(), a.node.dialog(a.dice), nil))
		}},
		{"Dialog.Transfer", func(a *application, ctx context.Context, d *dialog.Dialog) {
			opts := dialog.ReferOpts{NoReferSub: a.dice.chance(20)}
			if a.dice.chance(50) {
				opts.Replaces = a.node.dialog(a.dice)
			}
			r, err := d.Transfer(ctx, a.target(), opts)
			a.check(err)
			a.node.keepRefer(r)
		}},
		{"Dialog.WaitRefer", func(a *application, ctx context.Context, d *dialog.Dialog) {
			r, err := d.WaitRefer(ctx)
			a.check(err)
			a.node.keepRefer(r)
		}},
		{"Dialog.FollowRefer", func(a *application, ctx context.Context, d *dialog.Dialog) {
			call, err := d.FollowRefer(ctx, sip.Uri{Scheme: "sip", User: "carol", Host: udpTwo}, a.offer())
			a.check(err)
			a.follows(call)
		}},
		{"Dialog.HandleIncomingRefer", func(a *application, _ context.Context, d *dialog.Dialog) {
			req := sip.NewRequest(sip.REFER, a.target())
			req.AppendHeader(&sip.CSeqHeader{SeqNo: uint32(1000 + a.dice.intn(50)), MethodName: sip.REFER})
			a.check(d.HandleIncomingRefer(req, a.target(), nil))
		}},
		{"Dialog.GetReferSubscription", func(a *application, _ context.Context, d *dialog.Dialog) {
			if r, ok := d.GetReferSubscription(pick(a.dice, []string{"2 REFER", "3 REFER", "4 REFER", "9 REFER"})); ok {
				a.node.keepRefer(r)
			}
		}},
		{"Dialog.GetAllReferSubscriptions", func(a *application, _ context.Context, d *dialog.Dialog) {
			for _, r := range d.GetAllReferSubscriptions() {
				a.node.keepRefer(r)
			}
		}},
	}
}

// callbackOperations are the callbacks of a call, the requests inside it, and what can be
// read of it.
func callbackOperations() []operation {
	return []operation{
		{"Dialog.OnStateChange", func(a *application, _ context.Context, d *dialog.Dialog) {
			d.OnStateChange(func(dialog.DialogState) { a.misbehave(d) })
		}},
		{"Dialog.OnFork", func(a *application, _ context.Context, d *dialog.Dialog) {
			d.OnFork(func(dialog.ForkInfo) { a.misbehave(d) })
		}},
		{"Dialog.OnIdentity", func(a *application, _ context.Context, d *dialog.Dialog) {
			d.OnIdentity(func(dialog.Identity) { a.misbehave(d) })
		}},
		{"Dialog.OnSession", func(a *application, _ context.Context, d *dialog.Dialog) {
			d.OnSession(func(dialog.SessionChange) { a.misbehave(d) })
		}},
		{"Dialog.OnBody", func(a *application, _ context.Context, d *dialog.Dialog) {
			d.OnBody(func(dialog.Body) { a.misbehave(d) })
		}},
		{"Dialog.OnOffer", func(a *application, _ context.Context, d *dialog.Dialog) { d.OnOffer(a.offerHandler(d)) }},
		{"Dialog.OnOfferRequest", func(a *application, _ context.Context, d *dialog.Dialog) {
			d.OnOfferRequest(a.offerRequestHandler())
		}},
		{"Dialog.ForkAnswer", func(a *application, ctx context.Context, d *dialog.Dialog) {
			_, err := d.ForkAnswer(ctx, "one")
			a.check(err)
		}},
		{"Dialog.PeerAnswer", func(a *application, ctx context.Context, d *dialog.Dialog) {
			_, err := d.PeerAnswer(ctx)
			a.check(err)
		}},
		{"Dialog.Do", func(a *application, ctx context.Context, d *dialog.Dialog) {
			_, err := d.Do(ctx, sip.NewRequest(pick(a.dice, []sip.RequestMethod{"OPTIONS", "FOO", "SUBSCRIBE", "BYE"}), a.target()))
			a.check(err)
		}},
		{"Dialog.SendInfo", func(a *application, ctx context.Context, d *dialog.Dialog) {
			a.check(d.SendInfo(ctx, dialog.NewBody("text/plain", []byte("stress"))))
		}},
		{"Dialog.SendInfoPackage", func(a *application, ctx context.Context, d *dialog.Dialog) {
			a.check(d.SendInfoPackage(ctx, pick(a.dice, []string{"stress", "other"}), nil))
		}},
		{"Dialog.SendDTMF", func(a *application, ctx context.Context, d *dialog.Dialog) {
			a.check(d.SendDTMF(ctx, pick(a.dice, []rune{'1', '#', 'x'}), dialog.DTMFOpts{Plain: a.dice.chance(50)}))
		}},
		{"Dialog.OnDTMF", func(a *application, _ context.Context, d *dialog.Dialog) {
			d.OnDTMF(func(dialog.DTMF) { a.misbehave(d) })
		}},
		{"Stack.OnDTMF", func(a *application, _ context.Context, _ *dialog.Dialog) {
			a.node.stack.OnDTMF(pick(a.dice, []func(*dialog.Dialog, dialog.DTMF){nil, func(d *dialog.Dialog, _ dialog.DTMF) { a.misbehave(d) }}))
		}},
		{"Dialog.OnRefer", func(a *application, _ context.Context, d *dialog.Dialog) {
			d.OnRefer(pick(a.dice, []dialog.ReferHandler{nil, a.node.referRequest}))
		}},
		{"Stack.OnCallRequest", func(a *application, _ context.Context, d *dialog.Dialog) {
			handler := a.requestHandler(d)
			a.check(a.node.stack.OnCallRequest(pick(a.dice, []string{"INFO", "MESSAGE", "BYE"}),
				func(ctx context.Context, _ *dialog.Dialog, req *sip.Request) dialog.Answer { return handler(ctx, req) }))
		}},
		{"Dialog.SendMessage", func(a *application, ctx context.Context, d *dialog.Dialog) {
			a.check(d.SendMessage(ctx, dialog.NewBody("text/plain", []byte("stress"))))
		}},
		{"Dialog.OnRequest", func(a *application, _ context.Context, d *dialog.Dialog) {
			a.check(d.OnRequest(pick(a.dice, []string{"INFO", "MESSAGE", "OPTIONS", "FOO", "BYE"}), a.requestHandler(d)))
		}},
		{"Dialog.State", func(a *application, _ context.Context, d *dialog.Dialog) { _ = d.State().String() }},
		{"Dialog.Cause", func(a *application, _ context.Context, d *dialog.Dialog) { _ = d.Cause().String() }},
		{"Dialog.Info", func(a *application, _ context.Context, d *dialog.Dialog) {
			info := d.Info()
			if inconsistent(info) {
				a.round.errorf(info.Key.CallID, "Info contradicts itself: %+v", info)
			}
		}},
		{"Dialog.SetValue", func(a *application, _ context.Context, d *dialog.Dialog) {
			a.check(d.SetValue("stress", a.dice.intn(10)))
		}},
		{"Dialog.Value", func(a *application, _ context.Context, d *dialog.Dialog) {
			if value, ok := d.Value("stress").(int); ok && value > 9 {
				a.round.errorf(d.Key().CallID, "value %d that nobody has set", value)
			}
		}},
		{"Dialog.SetAppData", func(a *application, _ context.Context, d *dialog.Dialog) {
			a.check(d.SetAppData([]byte("stress")))
			_ = d.AppData()
		}},
		{"Stack.Restore", func(a *application, ctx context.Context, d *dialog.Dialog) {
			own, here := a.node.stack.DialogByKey(d.Key())
			snapshot, err := d.Snapshot()
			if !here || own != d || err != nil {
				a.check(err)
				return
			}
			// It is here, or has ended just now.
			if again, err := a.node.stack.Restore(ctx, snapshot); err != nil {
				a.check(err)
			} else {
				a.round.errorf(again.Key().CallID, "restored beside itself")
			}
		}},
		{"Dialog.Request", func(a *application, _ context.Context, d *dialog.Dialog) {
			if req := d.Request(); req != nil {
				_ = req.String()
			}
		}},
	}
}

func stackOperations() []operation {
	return []operation{
		{"Stack.NewInvite", func(a *application, ctx context.Context, other *dialog.Dialog) {
			target, opts := a.target(), a.offer()
			// A BYE cannot reach a peer whose flow is lost: Shutdown reports that, which is not
			// an error here.
			if other != nil && a.round.end != byShutdown && a.dice.chance(10) {
				opts.Flow = other.Flow()
			}
			if a.dice.chance(20) {
				target, opts = a.replaces(target, opts)
			}
			if a.dice.chance(20) {
				opts.Choose = a.choose
			}
			if other != nil && a.dice.chance(10) {
				opts.Context = other.Context()
			}
			d, err := a.node.stack.NewInvite(ctx, target, opts)
			a.check(err)
			if err == nil {
				if opts.Flow != nil {
					a.round.cover.hit("calls by a flow, over " + strings.ToLower(opts.Flow.Transport()))
				}
				a.node.watch(d.(*dialog.Dialog), a)
			}
		}},
		{"Stack.Call", func(a *application, ctx context.Context, _ *dialog.Dialog) {
			opts := a.offer()
			opts.Setup = func(d *dialog.Dialog) { a.node.watch(d, a) }
			_, err := a.node.stack.Call(ctx, a.target(), opts)
			a.check(err)
		}},
		{"Stack.Held", func(a *application, _ context.Context, _ *dialog.Dialog) { testkit.Held(a.node.stack) }},
		{"Stack.DialogByKey", func(a *application, _ context.Context, d *dialog.Dialog) {
			key := d.Key()
			if found, ok := a.node.stack.DialogByKey(key); ok && found != d {
				a.round.errorf(key.CallID, "DialogByKey(%v) finds another dialog", key)
			}
		}},
		{"Stack.Do", func(a *application, ctx context.Context, _ *dialog.Dialog) {
			_, err := a.node.stack.Do(ctx, sip.NewRequest(pick(a.dice, []sip.RequestMethod{"OPTIONS", "MESSAGE", "REGISTER"}), a.target()))
			a.check(err)
		}},
		{"Stack.DoWith", func(a *application, ctx context.Context, d *dialog.Dialog) {
			opts := dialog.DoOpts{Flow: pick(a.dice, []*dialog.Flow{nil, d.Flow()})}
			_, flow, err := a.node.stack.DoWith(ctx, sip.NewRequest(pick(a.dice, []sip.RequestMethod{"OPTIONS", "MESSAGE", "REGISTER"}), a.target()), opts)
			a.check(err)
			if err == nil && opts.Flow != nil && flow.Transport() != opts.Flow.Transport() {
				a.round.errorf("", "sent by %v, answered by %v", opts.Flow, flow)
			}
			flow.OnLost(func(error) { a.misbehave(d) })
			flow.Hold()()
		}},
		{"Stack.Refer", func(a *application, ctx context.Context, _ *dialog.Dialog) {
			r, err := a.node.stack.Refer(ctx, a.target(), a.target(), dialog.ReferOpts{NoReferSub: a.dice.chance(10)})
			a.check(err)
			a.node.keepRefer(r)
		}},
	}
}

// stackCallbackOperations are the callbacks of a stack, what can be read of it, its
// beginning and its end.
func stackCallbackOperations() []operation {
	return []operation{
		{"Stack.OnRequest", func(a *application, _ context.Context, d *dialog.Dialog) {
			a.check(a.node.stack.OnRequest(pick(a.dice, []string{"MESSAGE", "OPTIONS", "REGISTER"}), a.requestHandler(d)))
		}},
		{"Stack.TargetDialog", func(a *application, _ context.Context, d *dialog.Dialog) {
			req, key := sip.NewRequest(sip.REFER, a.target()), d.Key()
			req.AppendHeader(sip.NewHeader("Target-Dialog", key.CallID+";local-tag="+key.LocalTag+";remote-tag="+key.RemoteTag))
			if found, ok := a.node.stack.TargetDialog(req); ok && found != d {
				a.round.errorf(key.CallID, "TargetDialog(%v) finds another dialog", key)
			}
		}},
		{"Stack.Dialogs", func(a *application, _ context.Context, _ *dialog.Dialog) {
			for _, d := range a.node.stack.Dialogs() {
				_ = d.State()
			}
		}},
		{"Stack.PublicAddr", func(a *application, _ context.Context, _ *dialog.Dialog) {
			_, _ = a.node.stack.PublicAddr(a.node.stack.Addr())
		}},
		{"Stack.NetworkChanged", func(a *application, _ context.Context, _ *dialog.Dialog) {
			a.node.stack.NetworkChanged()
		}},
		{"Stack.Extend", func(a *application, ctx context.Context, d *dialog.Dialog) {
			r, err := register.Start(a.node.stack, register.Options{
				Record: dialog.Address{URI: a.target()}, Expires: time.Second, RetryBase: time.Second,
				OnState: func(register.Status) { a.misbehave(d) },
			})
			a.check(err)
			if err != nil {
				return
			}
			if a.dice.chance(50) {
				_, err = r.Wait(ctx)
				a.check(err)
			}
			r.Refresh()
			a.check(r.Close(ctx))
		}},
		{"Stack.OnFlowLost", func(a *application, _ context.Context, d *dialog.Dialog) {
			a.node.stack.OnFlowLost(func(f *dialog.Flow, reason error) {
				if reason == nil || f.Err() == nil {
					a.round.errorf("", "%v is told of as lost: %v", f, reason)
				}
				a.misbehave(d)
			})
		}},
		{"Stack.OnIncomingDialog", func(a *application, _ context.Context, _ *dialog.Dialog) {
			a.node.stack.OnIncomingDialog(a.node.incoming)
		}},
		{"Stack.OnCall", func(a *application, _ context.Context, _ *dialog.Dialog) {
			a.node.stack.OnCall(func(d *dialog.Dialog) { a.node.incoming(d) })
		}},
		{"Stack.OnOfferRequest", func(a *application, _ context.Context, _ *dialog.Dialog) {
			a.node.stack.OnOfferRequest(a.offerRequestHandler())
		}},
		{"Stack.OnIncomingRefer", func(a *application, _ context.Context, _ *dialog.Dialog) {
			a.node.stack.OnIncomingRefer(a.node.incomingRefer)
		}},
		{"Stack.OnRestored", func(a *application, _ context.Context, _ *dialog.Dialog) {
			a.node.stack.OnRestored(pick(a.dice, []func(*dialog.Dialog, dialog.Takeover){nil, func(*dialog.Dialog, dialog.Takeover) {}}))
		}},
		{"Stack.OnReferRequest", func(a *application, _ context.Context, _ *dialog.Dialog) {
			a.node.stack.OnReferRequest(pick(a.dice, []dialog.ReferHandler{nil, a.node.referRequest}))
		}},
		{"Stack.Start", func(a *application, _ context.Context, _ *dialog.Dialog) {
			err := a.node.stack.Start(context.Background())
			if !errors.Is(err, dialog.ErrAlreadyStarted) && !errors.Is(err, dialog.ErrShutdown) {
				a.round.errorf("", "Start of a running stack: %v", err)
			}
		}},
		{"Stack.Shutdown", func(a *application, ctx context.Context, _ *dialog.Dialog) {
			if a.round.ending.Load() && a.round.end == inHaste {
				a.node.shutdown(ctx)
			}
		}},
		{"Stack.HandOver", func(a *application, ctx context.Context, _ *dialog.Dialog) {
			if err := a.node.stack.HandOver(ctx); !errors.Is(err, dialog.ErrInvalidArgument) { // these have no Store
				a.round.errorf("", "%s: HandOver: %v", a.node.ip, err)
			}
		}},
		{"Stack.Drain", func(a *application, ctx context.Context, _ *dialog.Dialog) {
			if !a.round.ending.Load() { // no other call could come
				return
			}
			var left *dialog.DrainError
			if err := a.node.stack.Drain(ctx); err != nil && !errors.As(err, &left) && !errors.Is(err, dialog.ErrShutdown) {
				a.round.errorf("", "%s: Drain: %v", a.node.ip, err)
			}
		}},
	}
}

func referOperations() []operation {
	return []operation{
		{"ReferSubscription.SendNotify", func(a *application, ctx context.Context, _ *dialog.Dialog) {
			a.check(a.node.refer(a.dice).SendNotify(ctx, pick(a.dice, []int{99, 100, 180, 200, 486}), "stress"))
		}},
		{"ReferSubscription.Wait", func(a *application, ctx context.Context, _ *dialog.Dialog) {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Minute) // it is refreshed while we wait
			defer cancel()
			_, err := a.node.refer(a.dice).Wait(ctx)
			a.check(err)
		}},
		{"ReferSubscription.OnProgress", func(a *application, _ context.Context, d *dialog.Dialog) {
			a.node.refer(a.dice).OnProgress(func(dialog.Progress) { a.misbehave(d) })
		}},
		{"ReferSubscription.Follow", func(a *application, ctx context.Context, _ *dialog.Dialog) {
			call, err := a.node.refer(a.dice).Follow(ctx, a.offer())
			a.check(err)
			a.follows(call)
		}},
	}
}

// follows takes in a call that follows a REFER; nil: there is none.
func (a *application) follows(call *dialog.Dialog) {
	if call != nil {
		a.round.cover.hit("callback: REFER followed")
		a.node.watch(call, a)
	}
}

// longest is more than any call may take on the bubble's clock: all are bounded
// by the ringing limit and a few transaction timeouts.
const longest = 10 * time.Minute

// perform calls one operation on one of the node's dialogs.
func (a *application) perform(op operation, d *dialog.Dialog) {
	ctx, cancel := a.context()
	defer cancel()
	began := time.Now()
	op.call(a, ctx, d)
	if took := time.Since(began); took > longest {
		a.round.errorf("", "%s took %v", op.name, took)
	}
	if a.inside {
		a.round.cover.hit("inside a callback: " + op.name)
	} else {
		a.round.cover.hit("call: " + op.name)
	}
}

// check counts the errors that tell of timers and faults.
func (a *application) check(err error) {
	for _, known := range []struct {
		name string
		err  error
	}{
		{"timeout", dialog.ErrTimeout}, {"transport", dialog.ErrTransport}, {"wrong state", dialog.ErrState},
		{"answered", dialog.ErrAnswered}, {"replaced", dialog.ErrReplaced}, {"canceled", dialog.ErrCanceled}, {"pending", dialog.ErrPending},
		{"too many", dialog.ErrMaxDialogs}, {"no REFER", dialog.ErrNoRefer}, {"no subscription", dialog.ErrNoSubscription},
		{"no outcome", dialog.ErrNoOutcome}, {"exists", dialog.ErrExists}, {"ended", dialog.ErrEnded}, {"flow lost", dialog.ErrFlowLost},
		{"argument", dialog.ErrInvalidArgument}, {"panic", dialog.ErrPanic}, {"terminated", dialog.ErrTerminated},
		{"shutdown", dialog.ErrShutdown}, {"package", dialog.ErrInfoPackage}, {"context", context.DeadlineExceeded}, {"context canceled", context.Canceled},
	} {
		if errors.Is(err, known.err) {
			a.round.cover.hit("error: " + known.name)
		}
	}
	var refused *dialog.ResponseError
	if errors.As(err, &refused) {
		a.round.cover.hit("error: refused")
	}
}

// misbehave is the body of a callback: it calls methods, blocks for a while,
// panics or ends its goroutine.
func (a *application) misbehave(d *dialog.Dialog) {
	in := &application{round: a.round, node: a.node, dice: a.dice, inside: true}
	switch n := a.dice.intn(100); {
	case n < 25:
		in.perform(pick(a.dice, a.round.ops), d)
	case n < 30:
		a.round.cover.hit("callback: blocks")
		a.dice.pause(5 * time.Second)
	case n < 34:
		a.round.cover.hit("callback: panics")
		panic("callback")
	case n < 38:
		a.round.cover.hit("callback: Goexit")
		runtime.Goexit()
	}
}

// offerHandler decides offers in every way there is.
func (a *application) offerHandler(d *dialog.Dialog) dialog.OfferHandler {
	if a.dice.chance(20) {
		return nil
	}
	return func(ctx context.Context, _ dialog.Body) (dialog.Body, error) {
		a.misbehave(d)
		switch n := a.dice.intn(10); {
		case n == 0:
			a.round.cover.hit("callback: offer refused")
			return nil, errors.New("refused")
		case n < 3:
			<-ctx.Done()
			a.round.cover.hit("callback: offer never decided")
			return nil, ctx.Err()
		case n < 5:
			a.dice.pause(time.Second)
		}
		return session(testkit.AnswerSDP), nil
	}
}

// inFork names one of a few early dialogs of an incoming call, or does nothing.
func (a *application) inFork() dialog.ResponseOpt {
	if a.dice.chance(60) {
		return nil
	}
	return dialog.WithFork(pick(a.dice, []string{"one", "two", "three"}))
}

// offerRequestHandler is offerHandler for OnOfferRequest; where the peer asks for an offer,
// another goroutine waits for its answer.
func (a *application) offerRequestHandler() dialog.OfferRequestHandler {
	if a.dice.chance(20) {
		return nil
	}
	return func(ctx context.Context, r *dialog.OfferRequest) (dialog.Body, error) {
		if r.Offer == nil {
			a.round.goes(func() {
				_, err := r.PeerAnswer(r.Dialog.Context())
				a.check(err)
			})
		}
		decide := a.offerHandler(r.Dialog)
		if decide == nil {
			return session(testkit.AnswerSDP), nil
		}
		return decide(ctx, r.Offer)
	}
}

// requestHandler answers requests, late or never.
func (a *application) requestHandler(d *dialog.Dialog) dialog.RequestHandler {
	if a.dice.chance(30) {
		return nil
	}
	return func(ctx context.Context, _ *sip.Request) dialog.Answer {
		if d != nil {
			a.misbehave(d)
		}
		if a.dice.chance(10) {
			<-ctx.Done()
		}
		return dialog.Answer{Status: pick(a.dice, []int{200, 486, 0})}
	}
}

func (a *application) offer() dialog.InviteOpts {
	opts := a.offered()
	if a.dice.chance(30) {
		opts.PrackOffer = a.prackOffer
	}
	return opts
}

func (a *application) offered() dialog.InviteOpts {
	switch n := a.dice.intn(20); {
	case n < 5:
		return dialog.InviteOpts{}
	case n == 5: // too long for a datagram (RFC 3261 18.1.1)
		return dialog.InviteOpts{Body: session(testkit.OfferSDP + strings.Repeat("a=stress\r\n", 150))}
	case n < 9:
		opts := dialog.InviteOpts{Body: session(testkit.OfferSDP)}
		opts.FollowRedirects = n - 5
		return opts
	default:
		return dialog.InviteOpts{Body: session(testkit.OfferSDP)}
	}
}

// target is a stack, the scripted peer, or an unused address.
func (a *application) target() sip.Uri {
	n := a.dice.intn(100)
	switch {
	case n >= 95:
		return uri(nobodyIP)
	case a.node.protocol == "udp" && n >= 50:
		return uri(chaosIP)
	}
	host := a.round.endpoint(pick(a.dice, hostsOf(a.node.protocol)))
	return testkit.URIOver(a.node.protocol, "stress", host)
}

// inconsistent reports whether a view of a dialog contradicts itself.
func inconsistent(info dialog.Info) bool {
	ended := info.State == dialog.DialogStateTerminated
	told := info.Cause.By != dialog.PartyNone
	history := info.History
	last := len(history) == 0 || history[len(history)-1].State == info.State
	return ended != told || !last
}

func session(text string) dialog.Body { return dialog.NewBody("application/sdp", []byte(text)) }

// answered gives a response a session.
func answered() dialog.ResponseOpt { return dialog.WithBody(session(testkit.AnswerSDP)) }

func uri(host string) sip.Uri {
	return sip.Uri{Scheme: "sip", User: "stress", Host: host, Port: 5060}
}
