package test

import (
	"context"
	"log"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

// Callbacks of the application that misbehave, or that call the package.

// misbehaviour is what a callback of the application's does wrong.
var misbehaviour = []struct {
	name string
	do   func()
}{
	{"panic", func() { panic("in the application") }},
	{"panic nil", func() { panic(nil) }},
	{"Goexit", runtime.Goexit},
}

// badly runs a test for each misbehaviour: a call between two stacks in a
// bubble of its own, which must then still make calls.
func badly(t *testing.T, test func(t *testing.T, w *world, a, b *dialog.Stack, misbehave func())) {
	for _, m := range misbehaviour {
		t.Run(m.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
				test(t, w, a, b, m.do)
				synctest.Wait()
				w.works(a, b)
			})
		})
	}
}

// A12: OnStateChange.
func TestMisbehavingStateCallbackCostsItselfOnly(t *testing.T) {
	badly(t, func(t *testing.T, w *world, a, b *dialog.Stack, misbehave func()) {
		b.OnIncomingDialog(func(d dialog.IDialog) {
			d.OnStateChange(func(dialog.DialogState) { misbehave() })
			_ = d.Accept(context.Background(), withSDP(answerSDP))
		})
		good, opts := &states{}, offer(offerSDP)
		opts.Setup = func(d *dialog.Dialog) {
			d.OnStateChange(func(dialog.DialogState) { misbehave() })
			d.OnStateChange(good.add)
		}
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), opts)
		require.NoError(t, err)
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		require.NoError(t, d.Bye(context.Background(), ""))
		synctest.Wait()
		require.Equal(t, []dialog.DialogState{
			dialog.DialogStateTrying, dialog.DialogStateRinging, dialog.DialogStateEstablished, dialog.DialogStateTerminated,
		}, good.seen())
	})
}

// A12: OnBody.
func TestMisbehavingBodyCallbackCostsItselfOnly(t *testing.T) {
	badly(t, func(t *testing.T, w *world, a, b *dialog.Stack, misbehave func()) {
		b.OnIncomingDialog(func(d dialog.IDialog) {
			d.OnBody(func(dialog.Body) { misbehave() }) // the INVITE's, kept
			_ = d.Accept(context.Background(), withSDP(answerSDP))
		})
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		good := make(chan string, 4)
		d.OnBody(func(dialog.Body) { misbehave() })
		d.OnBody(func(b dialog.Body) { good <- string(b.Data()) })
		caller := d.(*dialog.Dialog)
		require.NoError(t, caller.WaitAnswer(context.Background()))
		require.NoError(t, caller.ReInvite(context.Background(), offer(offerSDP)))
		require.NotEmpty(t, <-good)
		require.NoError(t, d.Bye(context.Background(), ""))
	})
}

// A12: OnIncomingDialog; the caller gets 500.
func TestMisbehavingIncomingDialogCallbackRefusesTheCall(t *testing.T) {
	badly(t, func(t *testing.T, w *world, a, b *dialog.Stack, misbehave func()) {
		b.OnIncomingDialog(func(dialog.IDialog) { misbehave() })
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		var refused *dialog.ResponseError
		require.ErrorAs(t, d.(*dialog.Dialog).WaitAnswer(context.Background()), &refused)
		require.Equal(t, 500, refused.StatusCode)
	})
}

// A12: OnIncomingDialog after it has accepted; the call stands.
func TestMisbehaviourAfterAcceptLeavesTheCallAlone(t *testing.T) {
	badly(t, func(t *testing.T, w *world, a, b *dialog.Stack, misbehave func()) {
		b.OnIncomingDialog(func(d dialog.IDialog) {
			_ = d.Accept(context.Background(), withSDP(answerSDP))
			misbehave()
		})
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		synctest.Wait()
		require.Equal(t, dialog.DialogStateEstablished, d.State())
		require.NoError(t, d.Bye(context.Background(), ""))
	})
}

// A12: OnIncomingRefer; the subscription stands and can be reported on.
func TestMisbehavingReferCallbackCostsItselfOnly(t *testing.T) {
	badly(t, func(t *testing.T, w *world, a, b *dialog.Stack, misbehave func()) {
		caller, callee := w.established(a, b)
		b.OnIncomingRefer(func(dialog.IDialog, sip.Uri, *dialog.ReplacesInfo) { misbehave() })
		require.NoError(t, caller.Refer(context.Background(), uri("carol", "10.0.0.3"), dialog.ReferOpts{}))
		sent, err := caller.WaitRefer(context.Background())
		require.NoError(t, err)
		synctest.Wait()
		received, ok := callee.GetReferSubscription(sent.ID)
		require.True(t, ok)
		require.NoError(t, received.SendNotify(context.Background(), 200, "OK"))
		require.NoError(t, caller.Bye(context.Background(), ""))
	})
}

// A12: OnOffer on a re-INVITE; the peer gets 500, and may try again.
func TestMisbehavingOfferHandlerRefusesTheReInvite(t *testing.T) {
	badly(t, func(t *testing.T, w *world, a, b *dialog.Stack, misbehave func()) {
		caller, callee := w.established(a, b)
		callee.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { misbehave(); return nil, nil })
		began := time.Now()
		var refused *dialog.ResponseError
		require.ErrorAs(t, caller.ReInvite(context.Background(), offer(offerSDP)), &refused)
		require.Equal(t, 500, refused.StatusCode)
		require.Zero(t, time.Since(began))
		callee.OnOffer(nil)
		require.NoError(t, caller.ReInvite(context.Background(), offer(offerSDP)))
		require.NoError(t, caller.Bye(context.Background(), ""))
	})
}

// A12: OnOffer on the offer in a 2xx; the ACK refuses it, and BYE follows.
func TestMisbehavingOfferHandlerEndsTheCallItMustAnswer(t *testing.T) {
	badly(t, func(t *testing.T, w *world, a, b *dialog.Stack, misbehave func()) {
		b.OnIncomingDialog(func(d dialog.IDialog) { _ = d.Accept(context.Background(), withSDP(answerSDP)) })
		opts := dialog.InviteOpts{Setup: func(d *dialog.Dialog) {
			d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { misbehave(); return nil, nil })
		}}
		began := time.Now()
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), opts)
		require.NoError(t, err)
		caller := d.(*dialog.Dialog)
		require.Error(t, caller.WaitAnswer(context.Background()))
		<-caller.Done()
		require.Zero(t, time.Since(began))
		require.Contains(t, w.sent("10.0.0.1", "ACK")[0].raw, "m=audio 0 ")
		require.Len(t, w.sent("10.0.0.1", "BYE"), 1)
	})
}

// A12: options of Accept; the call can still be accepted.
func TestMisbehavingResponseOptionLeavesTheCallRinging(t *testing.T) {
	badly(t, func(t *testing.T, w *world, a, b *dialog.Stack, misbehave func()) {
		incoming := make(chan dialog.IDialog, 1)
		b.OnIncomingDialog(func(d dialog.IDialog) { incoming <- d })
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		callee := <-incoming
		result := make(chan error, 1)
		go func() {
			defer close(result) // also after a Goexit
			result <- callee.Accept(context.Background(), func(*sip.Response) { misbehave() })
		}()
		if err, returned := <-result; returned {
			require.ErrorIs(t, err, dialog.ErrPanic)
		}
		require.Equal(t, dialog.DialogStateRinging, callee.State())
		require.NoError(t, callee.Accept(context.Background(), withSDP(answerSDP)))
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		require.NoError(t, d.Bye(context.Background(), ""))
	})
}

// badBody is a Body of the application's that misbehaves.
type badBody struct{ misbehave func() }

func (b badBody) ContentType() string { b.misbehave(); return "application/sdp" }

func (b badBody) Data() []byte { b.misbehave(); return []byte(offerSDP) }

// A12: a Body's own methods; nothing is locked or half made afterwards.
func TestMisbehavingBodyFailsItsCallOnly(t *testing.T) {
	badly(t, func(t *testing.T, w *world, a, b *dialog.Stack, misbehave func()) {
		caller, callee := w.established(a, b)
		survive := func(call func()) {
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				defer func() { _ = recover() }()
				call()
			}()
			<-ended
		}
		opts := dialog.InviteOpts{Body: badBody{misbehave}}
		survive(func() { _, _ = a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), opts) })
		survive(func() { _ = caller.ReInvite(context.Background(), opts) })
		callee.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return opts.Body, nil })
		require.Error(t, caller.ReInvite(context.Background(), offer(offerSDP)))
		callee.OnOffer(nil)
		require.NoError(t, caller.ReInvite(context.Background(), offer(offerSDP)))
		require.NoError(t, caller.Bye(context.Background(), ""))
	})
}

// badWriter is a log destination that misbehaves.
type badWriter func()

func (w badWriter) Write(line []byte) (int, error) {
	w()
	return len(line), nil
}

// A12: Setup; the call it was for has ended, and nothing was sent.
func TestMisbehavingSetupFailsItsCallOnly(t *testing.T) {
	badly(t, func(t *testing.T, w *world, a, b *dialog.Stack, misbehave func()) {
		made := make(chan *dialog.Dialog, 1)
		opts := offer(offerSDP)
		opts.Setup = func(d *dialog.Dialog) { made <- d; misbehave() }
		result := make(chan error, 1)
		go func() {
			defer close(result) // also after a Goexit
			_, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), opts)
			result <- err
		}()
		if err, returned := <-result; returned {
			require.ErrorIs(t, err, dialog.ErrPanic)
		}
		d := <-made
		<-d.Done()
		_, ok := a.DialogByKey(d.Key())
		require.False(t, ok)
		require.Empty(t, w.sent("10.0.0.1", "INVITE"))
	})
}

// A12: what watches (trace, log) is the application's code as well.
func TestMisbehavingTraceAndLogCostThemselvesOnly(t *testing.T) {
	for _, m := range misbehaviour {
		for _, transport := range []string{"udp", "tcp"} {
			t.Run(m.name+" over "+transport, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					bad := func(c *dialog.StackConfig) {
						c.Transport.Protocol = transport
						c.Logger = log.New(badWriter(m.do), "", 0)
						c.Trace = func(dialog.TraceEvent) { m.do() }
					}
					a, b := w.stack("10.0.0.1", bad), w.stack("10.0.0.2", bad)
					w.works(a, b)
					b.OnIncomingDialog(func(dialog.IDialog) { panic("logged by a logger that misbehaves") })
					d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
					require.NoError(t, err)
					require.Error(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
					w.works(a, b)
				})
			})
		}
	}
}

// everything calls whatever a callback might call.
func everything(s *dialog.Stack, d dialog.IDialog) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	own := d.(*dialog.Dialog)
	key := d.Key()
	_ = d.State()
	s.DialogByKey(key)
	s.Addr()
	d.OnStateChange(func(dialog.DialogState) {})
	d.OnBody(func(dialog.Body) {})
	own.GetAllReferSubscriptions()
	own.Cause()
	own.Done()
	if other, err := s.NewInvite(ctx, uri("nobody", "10.0.0.77"), dialog.InviteOpts{}); err == nil {
		_ = other.Close()
	}
	_, _ = d.WaitRefer(ctx)
}

// A15: every callback may call every method: none runs under a lock.
func TestCallbacksRunUnderNoLock(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		var ran sync.Map
		use := func(where string, s *dialog.Stack, d dialog.IDialog) {
			everything(s, d)
			ran.Store(where, true)
		}
		b.OnIncomingDialog(func(d dialog.IDialog) {
			use("OnIncomingDialog", b, d)
			d.OnStateChange(func(dialog.DialogState) { use("callee's OnStateChange", b, d) })
			d.(*dialog.Dialog).OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
				use("OnOffer", b, d)
				return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
			})
			_ = d.Accept(context.Background(), withSDP(answerSDP), func(*sip.Response) { use("ResponseOpt", b, d) })
		})
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		caller := d.(*dialog.Dialog)
		d.OnStateChange(func(dialog.DialogState) { use("caller's OnStateChange", a, d) })
		d.OnBody(func(dialog.Body) { use("OnBody", a, d) })
		require.NoError(t, caller.WaitAnswer(context.Background()))
		synctest.Wait()
		b.OnIncomingRefer(func(d dialog.IDialog, _ sip.Uri, _ *dialog.ReplacesInfo) { use("OnIncomingRefer", b, d) })
		require.NoError(t, d.Refer(context.Background(), uri("carol", "10.0.0.3"), dialog.ReferOpts{}))
		require.NoError(t, caller.ReInvite(context.Background(), dialog.InviteOpts{Body: usingBody{func() { use("Body", a, d) }}}))
		require.NoError(t, d.Bye(context.Background(), ""))
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, where := range []string{
			"OnIncomingDialog", "callee's OnStateChange", "caller's OnStateChange", "OnBody", "OnOffer",
			"ResponseOpt", "OnIncomingRefer", "Body",
		} {
			_, ok := ran.Load(where)
			require.True(t, ok, where)
		}
	})
}

// usingBody is a Body that calls the package when it is read.
type usingBody struct{ use func() }

func (b usingBody) ContentType() string { b.use(); return "application/sdp" }

func (b usingBody) Data() []byte { b.use(); return []byte(offerSDP) }

// A15: a state callback that uses the stack, and shuts it down again, while
// Shutdown runs: Shutdown holds no lock over it.
func TestStateCallbackMayUseTheStackDuringShutdown(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		caller, callee := w.established(a, b)
		used := make(chan error, 1)
		caller.OnStateChange(func(dialog.DialogState) {
			everything(a, caller)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			used <- a.Shutdown(ctx)
		})
		require.NoError(t, a.Shutdown(context.Background()))
		require.ErrorIs(t, <-used, context.DeadlineExceeded, "it would have waited for itself")
		require.Equal(t, dialog.DialogStateTerminated, callee.State())
	})
}

// A16: calls are looked up, made, answered and ended all at once, on both
// sides, with callbacks that do the same.
func TestStackAndDialogAreLockedInOneOrder(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		b.OnIncomingDialog(func(d dialog.IDialog) {
			d.OnStateChange(func(dialog.DialogState) { b.DialogByKey(d.Key()) })
			_ = d.Accept(context.Background(), withSDP(answerSDP))
		})
		var left atomic.Int32
		atOnce(100, func(i int) {
			d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
			if err != nil {
				t.Errorf("invite: %v", err)
				return
			}
			d.OnStateChange(func(dialog.DialogState) {
				if found, ok := a.DialogByKey(d.Key()); ok {
					_ = found.State()
				}
			})
			switch i % 3 {
			case 0:
				_ = d.(*dialog.Dialog).WaitAnswer(context.Background())
			case 1:
				runtime.Gosched()
			}
			_ = d.Close()
			if d.State() != dialog.DialogStateTerminated {
				left.Add(1)
			}
		})
		require.Zero(t, left.Load())
		require.NoError(t, a.Shutdown(context.Background()))
		require.NoError(t, b.Shutdown(context.Background()))
	})
}

// blockingCalls are what may be called inside a callback and takes its time.
var blockingCalls = map[string]func(s *dialog.Stack, d *dialog.Dialog){
	"Accept":   func(_ *dialog.Stack, d *dialog.Dialog) { _ = d.Accept(context.Background()) },
	"Reject":   func(_ *dialog.Stack, d *dialog.Dialog) { _ = d.Reject(context.Background(), 486, "") },
	"Bye":      func(_ *dialog.Stack, d *dialog.Dialog) { _ = d.Bye(context.Background(), "") },
	"Hangup":   func(_ *dialog.Stack, d *dialog.Dialog) { _ = d.Hangup(context.Background()) },
	"Close":    func(_ *dialog.Stack, d *dialog.Dialog) { _ = d.Close() },
	"ReInvite": func(_ *dialog.Stack, d *dialog.Dialog) { _ = d.ReInvite(context.Background(), offer(offerSDP)) },
	"Refer": func(_ *dialog.Stack, d *dialog.Dialog) {
		_ = d.Refer(context.Background(), uri("c", "10.0.0.5"), dialog.ReferOpts{})
		_, _ = d.WaitRefer(context.Background())
	},
	"WaitAnswer": func(_ *dialog.Stack, d *dialog.Dialog) { _ = d.WaitAnswer(context.Background()) },
	"OnBody":     func(_ *dialog.Stack, d *dialog.Dialog) { d.OnBody(func(dialog.Body) {}) },
	"NewInvite": func(s *dialog.Stack, _ *dialog.Dialog) {
		if c, err := s.NewInvite(context.Background(), uri("z", "10.0.0.77"), offer(offerSDP)); err == nil {
			_ = c.Close()
		}
	},
}

// hooked takes a call at b, with hook called where it says.
func hooked(b *dialog.Stack, where string, hook func(d *dialog.Dialog)) {
	at := func(place string, d dialog.IDialog) {
		if place == where {
			hook(d.(*dialog.Dialog))
		}
	}
	b.OnIncomingRefer(func(d dialog.IDialog, _ sip.Uri, _ *dialog.ReplacesInfo) { at("OnIncomingRefer", d) })
	b.OnIncomingDialog(func(d dialog.IDialog) {
		d.OnStateChange(func(s dialog.DialogState) { at(s.String(), d) })
		d.OnBody(func(dialog.Body) { at("OnBody", d) })
		if where == "OnOffer" {
			d.(*dialog.Dialog).OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
				at("OnOffer", d)
				return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
			})
		}
		at("OnIncomingDialog", d)
		_ = d.Accept(context.Background(), withSDP(answerSDP), func(*sip.Response) { at("ResponseOpt", d) })
	})
}

// Some methods did not return when they were called inside some callbacks: they
// waited for what the callback itself held up.
func TestEveryMethodReturnsInsideEveryCallback(t *testing.T) {
	places := strings.Fields("OnIncomingDialog ResponseOpt OnBody Established OnOffer OnIncomingRefer Terminated")
	for _, where := range places {
		for name, call := range blockingCalls {
			t.Run(name+" in "+where, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
					var entered, left atomic.Int32
					hooked(b, where, func(d *dialog.Dialog) {
						if entered.Add(1) == 1 {
							call(b, d)
							left.Add(1)
						}
					})
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					defer cancel()
					c, err := a.NewInvite(ctx, uri("bob", "10.0.0.2"), offer(offerSDP))
					require.NoError(t, err)
					d := c.(*dialog.Dialog)
					_ = d.WaitAnswer(ctx)
					_ = d.ReInvite(ctx, offer(offerSDP))
					if d.Refer(ctx, uri("c", "10.0.0.5"), dialog.ReferOpts{}) == nil {
						_, _ = d.WaitRefer(ctx)
					}
					_ = d.Bye(ctx, "")
					time.Sleep(time.Hour)
					require.NotZero(t, entered.Load())
					require.EqualValues(t, 1, left.Load())
				})
			})
		}
	}
}
