package test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// decided records what a function of OnOfferRequest learns, and answers with ours.
type decided struct {
	heard chan string
	last  *dialog.OfferRequest
	body  dialog.Body
	err   error
}

func newDecided(ours string) *decided {
	return &decided{heard: make(chan string, 10), body: dialog.NewBody("application/sdp", []byte(ours))}
}

func (x *decided) decide(ctx context.Context, r *dialog.OfferRequest) (dialog.Body, error) {
	deadline, bounded := ctx.Deadline()
	said := fmt.Sprintf("%s %d offer=%t early=%t reliable=%t", r.Method, r.Status, r.Offer != nil, r.Early, r.Reliable)
	if bounded {
		said += fmt.Sprintf(" %v", time.Until(deadline).Round(time.Second))
	}
	if (r.Request() == nil) == (r.Response() == nil) {
		said += " no message"
	}
	x.last = r
	x.heard <- said
	return x.body, x.err
}

// anotherCall gives a call of the peer's a Call-ID of its own.
func anotherCall(id string) func(*dialogtest.Request) {
	return func(r *dialogtest.Request) { r.CallID, r.FromTag = id, farTag }
}

// One function decides every offer of the peer, and every request for an offer of ours,
// and learns which message carries it.
func TestOfferRequestTellsWhichMessageCarriesTheOffer(t *testing.T) {
	answered := func(l *peerCall) { require.NoError(l.t, l.d.Accept(context.Background())) }
	for name, row := range map[string]struct {
		change []func(*dialogtest.Request)
		do     func(l *peerCall)
		final  string
		want   []string
	}{
		"INVITE": {nil, answered, "200 INVITE", []string{"INVITE 0 offer=true early=true reliable=false 3m0s"}},
		"INVITE without an offer": {[]func(*dialogtest.Request){withBody("")}, answered, "200 INVITE",
			[]string{"INVITE 0 offer=false early=true reliable=false 3m0s"}},
		"re-INVITE": {nil, func(l *peerCall) { l.accepted(); l.ask("INVITE", withBody(held(offerSDP))) }, "200 INVITE",
			[]string{"INVITE 0 offer=true early=false reliable=false 3m0s"}},
		"re-INVITE without an offer": {nil, func(l *peerCall) { l.accepted(); l.ask("INVITE") }, "200 INVITE",
			[]string{"INVITE 0 offer=false early=false reliable=false 3m0s"}},
		"UPDATE": {nil, func(l *peerCall) { l.accepted(); l.ask("UPDATE", withBody(held(offerSDP))) }, "200 UPDATE",
			[]string{"UPDATE 0 offer=true early=false reliable=false 2s"}},
		"early UPDATE and PRACK": {[]func(*dialogtest.Request){withHeaders("Supported: 100rel")}, func(l *peerCall) {
			l.progress(183, withSDP(answerSDP))
			l.prack(l.next("183 INVITE").Message, withBody(held(offerSDP)))
			l.next("200 PRACK")
			l.ask("UPDATE", withBody(offerSDP))
		}, "200 UPDATE", []string{
			"PRACK 0 offer=true early=true reliable=true 2s", "UPDATE 0 offer=true early=true reliable=false 2s"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				x := newDecided(answerSDP)
				b.OnOfferRequest(x.decide)
				l := w.rings(b, p, row.change...)
				row.do(l)
				require.NotEmpty(t, p.next(row.final).Message.Body(), "our session is in the response")
				synctest.Wait()
				require.Equal(t, row.want, drained(x.heard))
				require.Equal(t, l.d, x.last.Dialog)
				require.Equal(t, l.stackTag, x.last.Key.LocalTag)
				require.Equal(t, "service", x.last.Request().To().Address.User)
			})
		})
	}
}

// An offer in a response to an INVITE of ours: in a reliable 183, whose PRACK has the
// answer, and in the 200, whose ACK has it.
func TestOfferRequestTellsOfOffersInResponses(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		x := newDecided(offerSDP)
		a.OnOfferRequest(x.decide)
		l := w.calls(a, p, dialog.InviteOpts{})
		l.answer(dialogtest.Response{Code: 183, Headers: []string{"Require: 100rel", "RSeq: 1"}, Body: answerSDP})
		prack := p.next("PRACK")
		require.Equal(t, offerSDP, string(prack.Message.Body()))
		p.reply(prack, dialogtest.Response{Code: 200})
		require.Equal(t, []string{"INVITE 183 offer=true early=true reliable=true 24s"}, drained(x.heard))
		require.Equal(t, 183, x.last.Response().StatusCode)
		l.answer(dialogtest.Response{Code: 200})
		p.next("ACK")
		require.Empty(t, drained(x.heard), "the session stands")

		l = w.calls(a, p, dialog.InviteOpts{})
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		require.Equal(t, offerSDP, string(p.next("ACK").Message.Body()))
		require.Equal(t, []string{"INVITE 200 offer=true early=false reliable=false 24s"}, drained(x.heard))
		require.Nil(t, x.last.Request())
		_, err := x.last.PeerAnswer(context.Background())
		require.ErrorIs(t, err, dialog.ErrInvalidArgument)
	})
}

// RFC 3261 14.2, 13.3.1.3; RFC 3311 5.2: an error refuses, the INVITE that began the call
// like a later one.
func TestOfferRequestRefuses(t *testing.T) {
	refusal := &dialog.Refusal{Status: 415, Reason: "No Video", Headers: []dialog.Header{{Name: "Accept", Value: "text/plain"}}}
	for name, row := range map[string]struct {
		err             error
		status, warning string
	}{
		"with a Refusal":      {refusal, "415 ", ""},
		"with any error":      {errors.New("no"), "488 ", `399 dialog "offer refused"`},
		"of the other call":   {&dialog.ResponseError{StatusCode: 606, Warnings: []string{`301 x "y"`}}, "606 ", `301 x "y"`},
		"because it is busy":  {dialog.ErrPending, "491 ", ""},
		"because of the time": {context.DeadlineExceeded, "504 ", ""},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				x := newDecided(answerSDP)
				l := w.rings(b, p)
				l.d.OnOfferRequest(x.decide)
				l.accepted()
				x.err = row.err
				for _, method := range []string{"INVITE", "UPDATE"} {
					l.ask(method, withBody(held(offerSDP)))
					p.next(row.status + method)
				}
				l.hangUp(p)

				l = w.rings(b, p, anotherCall("2"))
				l.d.OnOfferRequest(x.decide)
				err := l.d.Accept(context.Background())
				require.ErrorContains(t, err, strings.TrimPrefix(row.err.Error(), "dialog: "))
				var how *dialog.Refusal
				require.ErrorAs(t, err, &how)
				res := p.next(row.status + "INVITE").Response()
				if row.warning != "" {
					require.Equal(t, row.warning, res.GetHeader("Warning").Value())
				}
				require.Equal(t, dialog.DialogStateTerminated, l.d.State())
				require.Equal(t, res.StatusCode, l.d.Cause().Status)
				l.acknowledgesRefusal(w)
			})
		})
	}
}

// A body that Accept is given, and a session that stands, need no decision; and a function
// of OnOffer decides no first INVITE.
func TestAcceptAsksOnlyForTheSessionThatIsMissing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		x := newDecided(offerSDP)
		l := w.rings(b, p)
		l.d.OnOfferRequest(x.decide)
		l.accepted()
		require.Equal(t, answerSDP, string(l.final.Message.Body()))
		hangUp(t, l.d, p)

		l = w.rings(b, p, anotherCall("2"), withHeaders("Supported: 100rel"))
		l.d.OnOfferRequest(x.decide)
		l.progress(183, withSDP(answerSDP))
		l.pracked(p.next("183 INVITE").Message)
		require.NoError(t, l.d.Accept(context.Background()))
		require.Empty(t, p.next("200 INVITE").Message.Body())
		l.acknowledge(1)
		synctest.Wait()
		hangUp(t, l.d, p)

		l = w.rings(b, p, anotherCall("3"))
		l.d.OnOfferRequest(x.decide)
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return nil, errors.New("not this") })
		require.NoError(t, l.d.Accept(context.Background()))
		require.Empty(t, p.next("200 INVITE").Message.Body())
		l.acknowledge(1)
		l.ask("UPDATE", withBody(held(offerSDP)))
		p.next("488 UPDATE")
		l.d.OnOffer(nil)
		b.OnOfferRequest(x.decide)
		l.ask("UPDATE", withBody(held(offerSDP)))
		p.next("200 UPDATE")
		require.Len(t, drained(x.heard), 1)
		hangUp(t, l.d, p)
	})
}

// RFC 3261 13.2.2.4, RFC 3262 5: our offer is in a 2xx, or in a reliable provisional
// response, and the peer's answer in its ACK or PRACK.
func TestThePeersAnswerToOurOfferIsAwaited(t *testing.T) {
	awaited := func(t *testing.T, wait func(context.Context) (dialog.Body, error), want string) <-chan error {
		return began(func() error {
			answer, err := wait(context.Background())
			if err == nil && answer != nil && string(answer.Data()) != want || answer == nil && want != "" {
				return fmt.Errorf("%v, %w", answer, err)
			}
			return err
		})
	}
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		x := newDecided(offerSDP)
		b.OnOfferRequest(x.decide)

		l := w.rings(b, p, withBody(""))
		_, err := l.d.PeerAnswer(context.Background())
		require.ErrorContains(t, err, "local offer")
		require.NoError(t, l.d.Accept(context.Background()))
		p.next("200 INVITE")
		first, second := awaited(t, l.d.PeerAnswer, answerSDP), awaited(t, x.last.PeerAnswer, answerSDP)
		l.acknowledge(1, withBody(answerSDP))
		require.NoError(t, <-first)
		require.NoError(t, <-second)

		l.ask("INVITE") // once more, without an offer
		p.next("200 INVITE")
		first = awaited(t, x.last.PeerAnswer, held(answerSDP))
		l.acknowledge(l.seq, withBody(held(answerSDP)))
		require.NoError(t, <-first)
		l.ask("INVITE")
		p.next("200 INVITE")
		l.acknowledge(l.seq) // without an answer
		require.NoError(t, <-awaited(t, x.last.PeerAnswer, ""))

		x.err = errors.New("none")
		l.ask("INVITE")
		p.next("488 INVITE")
		_, err = x.last.PeerAnswer(context.Background())
		require.ErrorIs(t, err, dialog.ErrCanceled)
		x.err = nil
		l.ask("INVITE")
		p.next("200 INVITE")
		first = awaited(t, x.last.PeerAnswer, "")
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err = x.last.PeerAnswer(ctx)
		require.ErrorIs(t, err, context.Canceled)
		l.ask("BYE")
		require.ErrorIs(t, <-first, dialog.ErrTerminated)

		l = w.rings(b, p, anotherCall("2"), withBody(""), withHeaders("Supported: 100rel"))
		l.progress(183, withSDP(offerSDP))
		early := p.next("183 INVITE").Message
		first = awaited(t, l.d.PeerAnswer, answerSDP)
		l.pracked(early, withBody(answerSDP))
		require.NoError(t, <-first)
		require.NoError(t, l.d.Reject(context.Background(), 486, ""))
		p.next("486 INVITE")
		l.acknowledgesRefusal(w)
	})
}

// While the application decides about the first offer the call may end in any way: Accept
// then returns, the function's context ends, and the caller gets one final response.
func TestFirstOfferIsDecidedWhileTheCallEnds(t *testing.T) {
	for name, row := range map[string]struct {
		end   func(l *peerCall, cancel context.CancelFunc)
		final string
		err   error
	}{
		"CANCEL":           {func(l *peerCall, _ context.CancelFunc) { l.cancels() }, "487 INVITE", dialog.ErrAnswered},
		"BYE":              {func(l *peerCall, _ context.CancelFunc) { l.ask("BYE") }, "487 INVITE", dialog.ErrAnswered},
		"Reject":           {func(l *peerCall, _ context.CancelFunc) { _ = l.d.Reject(context.Background(), 486, "") }, "486 INVITE", dialog.ErrAnswered},
		"Close":            {func(l *peerCall, _ context.CancelFunc) { _ = l.d.Close() }, "480 INVITE", dialog.ErrAnswered},
		"the time is over": {func(*peerCall, context.CancelFunc) { time.Sleep(3 * time.Minute) }, "480 INVITE", nil},
		"Shutdown": {func(l *peerCall, _ context.CancelFunc) {
			go func() { _ = l.w.stacks[0].Shutdown(context.Background()) }()
		}, "503 INVITE", nil},
		"another Accept": {func(l *peerCall, _ context.CancelFunc) { l.accepted(); go l.hangUp(l.peer) }, "BYE", dialog.ErrAnswered},
		"Accept's context": {func(l *peerCall, cancel context.CancelFunc) {
			cancel()
			synctest.Wait()
			require.NoError(l.t, l.d.Reject(context.Background(), 486, ""))
		}, "486 INVITE", context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				released := make(chan error, 1)
				l := w.rings(b, p)
				l.d.OnOfferRequest(func(ctx context.Context, _ *dialog.OfferRequest) (dialog.Body, error) {
					<-ctx.Done()
					released <- ctx.Err()
					return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
				})
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				accepted := began(func() error { return l.d.Accept(ctx) })
				synctest.Wait()
				row.end(l, cancel)
				err := <-accepted
				require.Error(t, err)
				if row.err != nil {
					require.ErrorIs(t, err, row.err)
				}
				require.Error(t, <-released)
				if row.final != "BYE" {
					p.next(row.final)
					l.acknowledgesRefusal(w)
				}
			})
		})
	}
}

// A function that panics costs one call: the caller gets 500.
func TestFirstOfferWithAPanicGets500(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		b.OnOfferRequest(func(context.Context, *dialog.OfferRequest) (dialog.Body, error) { panic("in the application") })
		l := w.rings(b, p)
		require.ErrorIs(t, l.d.Accept(context.Background()), dialog.ErrPanic)
		p.next("500 INVITE")
		l.acknowledgesRefusal(w)
	})
}

// Call waits for the outcome, and OnCall gets the dialog.
func TestCallIsPlacedAndTakenWithoutAssertions(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack(stackIP), w.stack(otherIP)
		b.OnCall(func(d *dialog.Dialog) { _ = d.Accept(context.Background(), withSDP(answerSDP)) })
		d, err := a.Call(context.Background(), uri("bob", otherIP), offer(offerSDP))
		require.NoError(t, err)
		require.Equal(t, dialog.DialogStateEstablished, d.State())
		require.NoError(t, d.Bye(context.Background(), ""))

		b.OnCall(func(d *dialog.Dialog) { _ = d.Reject(context.Background(), 486, "") })
		d, err = a.Call(context.Background(), uri("bob", otherIP), offer(offerSDP))
		var refused *dialog.ResponseError
		require.ErrorAs(t, err, &refused)
		require.Nil(t, d)
		b.OnCall(func(d *dialog.Dialog) { <-d.Done() })
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err = a.Call(ctx, uri("bob", otherIP), offer(offerSDP))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		b.OnCall(nil)
		_, err = a.Call(context.Background(), uri("bob", otherIP), offer(offerSDP))
		require.ErrorAs(t, err, &refused)
		require.Equal(t, 480, refused.StatusCode)
		var none context.Context
		_, err = a.Call(none, uri("bob", otherIP), offer(offerSDP))
		require.ErrorIs(t, err, dialog.ErrInvalidArgument)
	})
}

// RFC 3261 14.2, 21.5.1: a refusal with 500 has the Retry-After of the application's, for the
// first offer and for later ones, and ResponseError.Refusal passes it on.
func TestRefusalHasItsRetryAfter(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1", withoutRetry), w.stack("10.0.0.2")
		busy := (&dialog.ResponseError{StatusCode: 500, RetryAfter: 7 * time.Second}).Refusal()
		x := newDecided(answerSDP)
		b.OnCall(func(call *dialog.Dialog) { _ = call.Accept(context.Background()) })
		b.OnOfferRequest(x.decide)
		call, err := a.Call(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		x.err = busy
		_, first := a.Call(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		_, update := call.Update(context.Background(), offer(versioned(offerSDP, 9)).Body)
		for _, err := range []error{first, update, call.ReInvite(context.Background(), offer(offerSDP))} {
			var refused *dialog.ResponseError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, 500, refused.StatusCode)
			require.Equal(t, 7*time.Second, refused.RetryAfter)
		}
		require.NoError(t, call.Bye(context.Background(), ""))
	})
}
