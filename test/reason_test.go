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
	"sipdialog.example/dialog/internal/testkit"
)

var clearing = dialog.Reason{Protocol: "Q.850", Cause: 16, Text: `normal "call" clearing`}

// RFC 3326 2: several values, each with a protocol, in one header or several.
func TestReasonsAreRead(t *testing.T) {
	for header, want := range map[string][]dialog.Reason{
		`Q.850;cause=16;text="a, \"b\"; c" , SIP ;cause=486`: {{Protocol: "Q.850", Cause: 16, Text: `a, "b"; c`}, {Protocol: "SIP", Cause: 486}},
		`SIP;text=Plain;x=y`:                  {{Protocol: "SIP", Text: "Plain"}},
		`Preemption ;Cause=1 ;text="UA"`:      {{Protocol: "Preemption", Cause: 1, Text: "UA"}},
		`SIP;cause=many;text="unterminated`:   {{Protocol: "SIP", Text: "unterminated"}},
		`SIP;cause=-1`:                        {{Protocol: "SIP"}},
		`;cause=16`:                           nil,
		`"SIP";cause=16, , Q.850;cause=17`:    {{Protocol: "Q.850", Cause: 17}},
		`SIP;text="back\\slash, and a comma"`: {{Protocol: "SIP", Text: `back\slash, and a comma`}},
	} {
		req := sip.NewRequest(sip.BYE, uri("bob", "10.0.0.2"))
		req.AppendHeader(sip.NewHeader("Reason", header))
		got := dialog.ReasonsOf(req)
		if header[0] == ';' { // the protocol is what is missing
			require.NotContains(t, got, dialog.Reason{Cause: 16})
			continue
		}
		require.Equal(t, want, got, header)
		for _, r := range got {
			again := sip.NewRequest(sip.BYE, uri("bob", "10.0.0.2"))
			again.AppendHeader(sip.NewHeader("Reason", r.String()))
			require.Equal(t, []dialog.Reason{r}, dialog.ReasonsOf(again))
		}
	}
}

func TestByeSaysWhyInEveryWay(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		caller, callee := w.established(a, b)
		require.NoError(t, caller.ByeWith(context.Background(), dialog.ByeOpts{
			Reason: "done", Reasons: []dialog.Reason{clearing},
		}))
		synctest.Wait()
		require.Equal(t, []string{`SIP;text="done"`, `Q.850;cause=16;text="normal \"call\" clearing"`}, w.one("10.0.0.1", "BYE").values("Reason"))
		want := []dialog.Reason{{Protocol: "SIP", Text: "done"}, clearing}
		require.Equal(t, want, callee.Cause().Reasons)
		require.Equal(t, "done", callee.Cause().Reason)
		require.Equal(t, want, caller.Cause().Reasons)
	})
}

func TestCancelSaysWhy(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		calls := waiting(b)
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		callee := <-calls
		synctest.Wait()
		elsewhere := dialog.Reason{Protocol: "SIP", Cause: 200, Text: "Call completed elsewhere"}
		require.NoError(t, d.(*dialog.Dialog).ByeWith(context.Background(), dialog.ByeOpts{Reasons: []dialog.Reason{elsewhere}}))
		<-callee.Done()
		require.Equal(t, "CANCEL", callee.Cause().Method)
		require.Equal(t, []dialog.Reason{elsewhere}, callee.Cause().Reasons)
	})
}

// RFC 6432: a refusal says why too.
func TestRefusalSaysWhy(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		busy := dialog.Reason{Protocol: "Q.850", Cause: 17}
		b.OnIncomingDialog(func(d dialog.IDialog) {
			if err := d.(*dialog.Dialog).RejectWith(context.Background(), 486, "", dialog.WithReason(busy)); err != nil {
				t.Error(err)
			}
		})
		placed, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		d := placed.(*dialog.Dialog)
		var refused *dialog.ResponseError
		require.ErrorAs(t, d.WaitAnswer(context.Background()), &refused)
		require.Equal(t, []dialog.Reason{busy}, refused.Reasons)
		require.Equal(t, []dialog.Reason{busy}, d.Cause().Reasons)
		require.Equal(t, []dialog.Reason{busy}, dialog.ReasonsOf(d.Response()))
		require.Equal(t, "10.0.0.2:5060", d.Response().Source())
	})
}

// Response is the latest of the peer's, until one accepts the call.
func TestResponseIsTheOneThatCounts(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		l := w.calls(a, p, offer(offerSDP))
		l.answer(dialogtest.Response{Code: 100})
		synctest.Wait()
		require.Nil(t, l.d.Response())
		l.answer(dialogtest.Response{Code: 180, Headers: []string{contactOfPeer, "P-Asserted-Identity: <sip:bob@home>"}})
		synctest.Wait()
		require.Equal(t, 180, l.d.Response().StatusCode)
		l.answer(dialogtest.Response{Code: 200, Headers: []string{contactOfPeer, "P-Asserted-Identity: <sip:desk@home>"}, Body: answerSDP})
		l.answer(dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		synctest.Wait()
		require.Equal(t, "desk", dialog.AssertedIdentities(l.d.Response())[0].URI.User)
		require.Nil(t, l.d.Request())
		l.hangUp(p)
	})
}

// RFC 3326: the CANCEL of a re-INVITE has the reasons of the cause with which its context
// ends, also if it waits for the first provisional response.
func TestCancelOfAReInviteHasReasons(t *testing.T) {
	const completed = `SIP;cause=200;text="Call completed elsewhere"`
	because := &dialog.ReasonError{Reasons: []dialog.Reason{{Protocol: "SIP", Cause: 200, Text: "Call completed elsewhere"}}}
	for name, row := range map[string]struct {
		cause  error
		early  bool
		reason []string
	}{
		"reasons":                              {because, true, []string{completed}},
		"reasons, before it has a provisional": {because, false, []string{completed}},
		"of another call":                      {&dialog.EndError{Cause: dialog.Cause{Reasons: because.Reasons}}, true, []string{completed}},
		"none":                                 {nil, true, nil},
		"an error that has none, or a bad one": {errors.Join(errors.New("x"), &dialog.ReasonError{Reasons: []dialog.Reason{{Protocol: "a b"}}}), true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p := w.stack(stackIP), w.peer(peerIP)
				l := w.outgoing(a, p)
				ctx, cancel := context.WithCancelCause(context.Background())
				result := began(func() error {
					_, err := l.d.Renegotiate(ctx, dialog.NewBody("application/sdp", []byte(second(offerSDP))))
					return err
				})
				invite := p.next("INVITE")
				if row.early {
					p.reply(invite, dialogtest.Response{Code: 180, ToTag: farTag})
					synctest.Wait()
				}
				cancel(row.cause)
				require.ErrorIs(t, <-result, context.Canceled)
				if !row.early {
					p.reply(invite, dialogtest.Response{Code: 180, ToTag: farTag})
				}
				got := p.next("CANCEL")
				require.Equal(t, row.reason, w.one(stackIP, "CANCEL").values("Reason"))
				p.reply(got, dialogtest.Response{Code: 200, ToTag: farTag})
				p.reply(invite, dialogtest.Response{Code: 487, ToTag: farTag})
				synctest.Wait()
				hangUp(t, l.d, p)
			})
		})
	}
}

// RFC 3326: a BYE or CANCEL that the stack sends by itself says why, where a SIP
// status does.
func TestTheStackSaysWhyItEndsACall(t *testing.T) {
	says := func(t *testing.T, req dialogtest.Received, reason string) {
		t.Helper()
		require.Equal(t, reason, testkit.Value(req.Message, "Reason"))
	}
	for name, c := range map[string]struct {
		reason string
		play   func(w *world) (*peer, dialogtest.Received)
	}{
		"an offer in a 2xx that is refused": {`SIP;cause=488;text="offer refused"`, func(w *world) (*peer, dialogtest.Received) {
			a, p := w.stack(stackIP), w.peer(peerIP)
			l := w.calls(a, p, dialog.InviteOpts{})
			l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return nil, errors.New("no") })
			l.answer(dialogtest.Response{Code: 200, Body: offerSDP})
			p.next("ACK")
			return p, p.next("BYE")
		}},
		"a session that expires": {`SIP;cause=408;text="session expired"`, func(w *world) (*peer, dialogtest.Received) {
			b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
			w.timed(b, p, "90;refresher=uac")
			time.Sleep(60 * time.Second)
			return p, p.next("BYE")
		}},
		"no ACK": {`SIP;cause=408;text="no ACK"`, func(w *world) (*peer, dialogtest.Received) {
			b, p := w.stack(stackIP), w.peer(peerIP)
			l := w.rings(b, p)
			require.NoError(w.t, l.d.Accept(context.Background(), withSDP(answerSDP)))
			time.Sleep(33 * time.Second)
			return p, p.next("BYE")
		}},
		"no answer": {`SIP;cause=408;text="no answer"`, func(w *world) (*peer, dialogtest.Received) {
			a, p := w.stack(stackIP, func(c *dialog.StackConfig) { c.RingingLimit = 20 * time.Second }), w.peer(peerIP)
			l := w.calls(a, p, offer(offerSDP))
			l.answer(dialogtest.Response{Code: 180})
			time.Sleep(20 * time.Second)
			cancel := p.next("CANCEL")
			l.answer(dialogtest.Response{Code: 487})
			return p, cancel
		}},
		"another fork that answers": {`SIP;cause=200;text="Call completed elsewhere"`, func(w *world) (*peer, dialogtest.Received) {
			f := w.forks(offer(offerSDP))
			f.says("A", 200, answerSDP)
			f.says("B", 200, answerSDP)
			return f.at["B"], f.at["B"].next("BYE")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p, end := c.play(w)
				says(t, end, c.reason)
				p.reply(end, dialogtest.Response{Code: 200, ToTag: farTag})
				synctest.Wait()
			})
		})
	}
}
