package test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// The values of a call, and the context that it may be given.

type valueKey string

// Each handler of the call has its values in its context: those that were set, and those of
// InviteOpts.Context behind them.
func TestHandlersHaveTheValuesOfTheirCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP)) // a call without values
		require.Nil(t, l.d.Value(valueKey("account")))
		base := context.WithValue(context.WithValue(context.Background(), valueKey("account"), 7), valueKey("user"), "bob")
		opts := offer(offerSDP)
		opts.Context = base
		other := w.calls(w.stack(otherIP), l.peer, opts)
		other.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		d := other.d
		require.NoError(t, d.SetValue(valueKey("user"), "carol"))
		has := func(ctx context.Context) {
			require.Equal(t, 7, ctx.Value(valueKey("account")))
			require.Equal(t, "carol", ctx.Value(valueKey("user")))
			require.NoError(t, ctx.Err())
		}
		called := make(chan string, 5)
		d.OnOfferRequest(func(ctx context.Context, _ *dialog.OfferRequest) (dialog.Body, error) {
			has(ctx)
			called <- "offer"
			return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
		})
		d.OnRefer(func(ctx context.Context, _ *dialog.ReferRequest) dialog.Answer {
			has(ctx)
			called <- "refer"
			return dialog.Answer{Status: 603}
		})
		require.NoError(t, d.OnRequest("MESSAGE", func(ctx context.Context, _ *sip.Request) dialog.Answer {
			has(ctx)
			called <- "message"
			return dialog.Answer{}
		}))
		has(d.Context())
		other.ask("UPDATE", withBody(versioned(offerSDP, 9)))
		require.Equal(t, 200, l.peer.final("UPDATE").StatusCode)
		other.ask("REFER", withHeaders("Refer-To: <sip:dora@"+otherIP+">"))
		require.Equal(t, 603, l.peer.final("REFER").StatusCode)
		other.ask("MESSAGE")
		require.Equal(t, 200, l.peer.final("MESSAGE").StatusCode)
		require.Equal(t, []string{"offer", "refer", "message"}, drained(called))

		// A callback of the end still has them, and who asks later.
		ended := make(chan any, 1)
		d.OnStateChange(func(dialog.DialogState) { ended <- d.Value(valueKey("user")) })
		require.NoError(t, d.Close())
		require.Equal(t, "carol", <-ended)
		require.Equal(t, 7, d.Value(valueKey("account")))
		require.NoError(t, d.SetValue(valueKey("user"), nil))
		require.Equal(t, "bob", d.Value(valueKey("user")))
		for _, bad := range []any{nil, []int{1}, func() {}} {
			require.ErrorIs(t, d.SetValue(bad, 1), dialog.ErrInvalidArgument)
			require.Nil(t, d.Value(bad))
		}
		l.peer.answers(always(200))
		require.NoError(t, l.d.Close())
		synctest.Wait()
	})
}

var elsewhere = &dialog.ReasonError{Reasons: []dialog.Reason{
	{Protocol: "SIP", Cause: 200, Text: "Call completed elsewhere"}, {Protocol: "no token"}, {Protocol: "Q.850", Cause: 26},
}}

var elsewhereHeaders = []string{`SIP;cause=200;text="Call completed elsewhere"`, "Q.850;cause=26"}

// RFC 3326 2: the CANCEL has the reasons of the cause with which the context has ended:
// given ones, wrapped ones, those of a call that has ended, or of a response. Of any other
// cause there are none.
func TestCancelHasTheReasonsOfTheContextsCause(t *testing.T) {
	reasons := elsewhere.Reasons
	for name, c := range map[string]struct {
		cause error
		want  []string
	}{
		"given":    {elsewhere, elsewhereHeaders},
		"wrapped":  {errors.Join(errors.New("x"), elsewhere), elsewhereHeaders},
		"ended":    {&dialog.EndError{Cause: dialog.Cause{Reasons: reasons}}, elsewhereHeaders},
		"response": {&dialog.ResponseError{StatusCode: 486, Reasons: reasons}, elsewhereHeaders},
		"other":    {errors.New("x"), nil},
		"nil":      {(*dialog.ReasonError)(nil), nil},
		"none":     {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l := w.alerting(w.stack(stackIP), w.peer(peerIP))
				ctx, cancel := context.WithCancelCause(context.Background())
				waited := began(func() error { return l.d.WaitAnswer(ctx) })
				synctest.Wait()
				cancel(c.cause)
				require.ErrorIs(t, <-waited, context.Canceled)
				l.reply(l.next("CANCEL"), dialogtest.Response{Code: 200})
				require.Equal(t, c.want, w.one(stackIP, "CANCEL").values("Reason"))
				l.answer(dialogtest.Response{Code: 487})
				synctest.Wait()
				require.ErrorIs(t, l.d.Cause().Err, context.Canceled)
				require.Len(t, l.d.Cause().Reasons, len(c.want))
			})
		})
	}
}

// InviteOpts.Context ends the call in whatever state it is, with the reasons of its cause.
func TestCallEndsWithItsContext(t *testing.T) {
	opts := func() (dialog.InviteOpts, context.CancelCauseFunc) {
		ctx, cancel := context.WithCancelCause(context.Background())
		o := offer(offerSDP)
		o.Context = ctx
		return o, cancel
	}
	t.Run("ringing", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			o, cancel := opts()
			l := w.calls(w.stack(stackIP), w.peer(peerIP), o)
			l.reply(l.invite, dialogtest.Response{Code: 180, ToTag: farTag})
			waited := began(func() error { return l.d.WaitAnswer(context.Background()) })
			synctest.Wait()
			cancel(elsewhere)
			l.reply(l.next("CANCEL"), dialogtest.Response{Code: 200})
			require.Equal(t, elsewhereHeaders, w.one(stackIP, "CANCEL").values("Reason"))
			l.answer(dialogtest.Response{Code: 487})
			err := <-waited
			require.ErrorIs(t, err, dialog.ErrCanceled)
			require.ErrorIs(t, err, error(elsewhere))
		})
	})
	t.Run("established", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			o, cancel := opts()
			l := w.calls(w.stack(stackIP), w.peer(peerIP), o)
			l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
			require.NoError(t, l.d.WaitAnswer(context.Background()))
			cancel(elsewhere)
			l.reply(l.next("BYE"), dialogtest.Response{Code: 200})
			<-l.d.Done()
			require.Equal(t, elsewhereHeaders, w.one(stackIP, "BYE").values("Reason"))
			require.Equal(t, dialog.PartyLocal, l.d.Cause().By)
			require.ErrorIs(t, l.d.Cause().Err, error(elsewhere))
		})
	})
	t.Run("before the INVITE", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			a := w.stack(stackIP)
			o, cancel := opts()
			o.Setup = func(*dialog.Dialog) { cancel(elsewhere); synctest.Wait() }
			_, err := a.NewInvite(context.Background(), uri("bob", peerIP), o)
			require.ErrorIs(t, err, dialog.ErrCanceled)
			require.ErrorIs(t, err, error(elsewhere))
			require.Empty(t, w.sent(stackIP, "INVITE"))
			require.Empty(t, a.Dialogs())
		})
	})
	t.Run("after the end", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			o, cancel := opts()
			l := w.calls(w.stack(stackIP), w.peer(peerIP), o)
			l.answer(dialogtest.Response{Code: 486})
			<-l.d.Done()
			cancel(elsewhere)
			synctest.Wait()
			require.Equal(t, 486, l.d.Cause().Status)
			require.Len(t, w.sent(stackIP, "INVITE"), 1)
		})
	})
}

// The context of one call of a bridge ends the other: what its caller says of the CANCEL is
// said to the callee.
func TestCallEndsWithAnother(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, caller, callee := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP)
		in := w.rings(b, caller, func(r *dialogtest.Request) { r.Branch, r.CallID = "z9hG4bKcancelled", "incoming" })
		opts := offer(offerSDP)
		opts.Context = in.d.Context()
		out := w.calls(b, callee, opts)
		callee.reply(out.invite, dialogtest.Response{Code: 180, ToTag: farTag})
		synctest.Wait()
		require.NoError(t, caller.Send(b.Addr(), caller.Request(dialogtest.Request{
			Method: "CANCEL", URI: in.stackURI, From: in.peerURI, FromTag: farTag, Branch: "z9hG4bKcancelled",
			CallID: "incoming", CSeq: 1, Headers: []string{`Reason: SIP;cause=200;text="Call completed elsewhere"`},
		})))
		callee.reply(callee.next("CANCEL"), dialogtest.Response{Code: 200})
		require.Equal(t, []string{`SIP;cause=200;text="Call completed elsewhere"`}, w.one(stackIP, "CANCEL").values("Reason"))
		out.answer(dialogtest.Response{Code: 487})
		<-out.d.Done()
	})
}

// To is whom the caller asks for, wherever the INVITE goes; the 2xx and later requests have
// it, too.
func TestInviteHasTheToOfItsOptions(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack(stackIP)
		opts := offer(offerSDP)
		opts.To = &dialog.Address{DisplayName: `Bob "B"`, URI: sip.Uri{Scheme: "sip", User: "bob", Host: "example.com", UriParams: sip.HeaderParams{{K: "transport", V: "tcp"}}}}
		l := w.calls(a, w.peer(peerIP), opts)
		m := w.one(stackIP, "INVITE")
		require.Equal(t, "INVITE sip:bob@"+peerIP+":5060 SIP/2.0", m.startLine())
		require.Equal(t, `"Bob \"B\"" <sip:bob@example.com>`, m.value(t, "To"))
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		require.Equal(t, `"Bob \"B\"" <sip:bob@example.com>;tag=`+farTag, w.one(stackIP, "ACK").value(t, "To"))
		hangUp(t, l.d, l.peer)

		for _, bad := range []*dialog.Address{{}, {DisplayName: "a\nb", URI: uri("bob", peerIP)}, {URI: sip.Uri{Scheme: "sip", User: "a b", Host: "x y"}}} {
			opts.To = bad
			_, err := a.NewInvite(context.Background(), uri("bob", peerIP), opts)
			require.ErrorIs(t, err, dialog.ErrInvalidArgument)
		}
	})
}

// InviteOpts.NoRetry, as WithoutRetry: the 491 is returned at once.
func TestReInviteWithoutRetry(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		opts := offer(offerSDP)
		opts.NoRetry = true
		start := time.Now()
		result := began(func() error { return l.d.ReInvite(context.Background(), opts) })
		l.reply(l.next("INVITE"), dialogtest.Response{Code: 491})
		var refused *dialog.ResponseError
		require.ErrorAs(t, <-result, &refused)
		require.Less(t, time.Since(start), time.Second)
		l.peer.answers(always(200))
		require.NoError(t, l.d.Close())
	})
}
