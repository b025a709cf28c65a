package test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// RFC 6141 4: which messages move the target of a dialog. Reliable provisional
// responses are tested with RFC 3262.

func movedTo(user string) string { return "Contact: <sip:" + user + "@10.0.0.9:5060>" }

// targetUser is the user of the URI that the stack's next request goes to.
func (l *peerCall) targetUser() string { return l.d.Info().RemoteTarget.User }

// RFC 6141 4.6: a request moves it when it is accepted, not before, and not when
// it is refused.
func TestRequestMovesTheTargetOnceItIsAccepted(t *testing.T) {
	for _, method := range []string{"INVITE", "UPDATE"} {
		for _, refuse := range []bool{true, false} {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				l := w.incoming(b, p, withHeaders(movedTo("here")))
				decide := make(chan error)
				l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
					return dialog.NewBody("application/sdp", []byte(answerSDP)), <-decide
				})
				l.ask(method, withBody(offerSDP), withHeaders(movedTo("there")))
				synctest.Wait()
				require.Equal(t, "here", l.targetUser(), "undecided")
				if refuse {
					decide <- context.Canceled
					require.Equal(t, 488, p.final(method).StatusCode)
					require.Equal(t, "here", l.targetUser())
				} else {
					decide <- nil
					require.Equal(t, 200, p.final(method).StatusCode)
					require.Equal(t, "there", l.targetUser())
				}
				if method == "INVITE" && !refuse {
					l.acknowledge(l.seq)
				}
				bye := l.hangUp(p)
				require.Contains(t, bye.startLine(), map[bool]string{true: "sip:here@", false: "sip:there@"}[refuse])
			})
		}
	}
}

// RFC 6141 4.3: what moved while a re-INVITE was open stays moved when that is
// refused.
func TestTargetThatMovedInsideARefusedReINVITEStays(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p, withHeaders(movedTo("here")))
		decide := make(chan error)
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return nil, <-decide })
		l.ask("INVITE", withBody(offerSDP), withHeaders(movedTo("refused")))
		l.ask("UPDATE", withHeaders(movedTo("there")))
		require.Equal(t, 200, p.final("UPDATE").StatusCode)
		require.Equal(t, "there", l.targetUser())
		decide <- context.Canceled
		require.Equal(t, 488, p.final("INVITE").StatusCode)
		require.Equal(t, "there", l.targetUser())
		l.hangUp(p)
	})
	// The same with a re-INVITE of ours.
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p, withHeaders(movedTo("here")))
		result := began(func() error { return l.d.ReInvite(context.Background(), offer(answerSDP)) })
		re := p.next("INVITE")
		l.ask("UPDATE", withHeaders(movedTo("there")))
		require.Equal(t, 200, p.final("UPDATE").StatusCode)
		p.reply(re, dialogtest.Response{Code: 488, Headers: []string{movedTo("refused")}})
		require.Error(t, <-result)
		require.Equal(t, "there", l.targetUser())
		l.hangUp(p)
	})
}

// RFC 6141 4.7: a 2xx moves it, an unreliable provisional response and a failure
// do not.
func TestResponseMovesTheTarget(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p, withHeaders(movedTo("here")))
		for code, want := range map[int]string{200: "there", 488: "here"} {
			for method, ask := range map[string]func() error{
				"INVITE": func() error { return l.d.ReInvite(context.Background(), offer(answerSDP)) },
				"UPDATE": func() error { _, err := l.d.Update(context.Background(), nil); return err },
			} {
				l.ask("UPDATE", withHeaders(movedTo("here")))
				require.Equal(t, 200, p.final("UPDATE").StatusCode)
				result := began(ask)
				in := p.next(method)
				if method == "INVITE" {
					p.reply(in, dialogtest.Response{Code: 183, Headers: []string{movedTo("early")}})
					synctest.Wait()
					require.Equal(t, "here", l.targetUser())
				}
				p.reply(in, dialogtest.Response{Code: code, Headers: []string{movedTo("there")}, Body: map[bool]string{true: offerSDP}[code == 200]})
				require.Equal(t, code == 200, <-result == nil)
				require.Equal(t, want, l.targetUser(), "%d to %s", code, method)
			}
		}
		l.hangUp(p)
	})
}

// RFC 6141 4.4, 4.5: our own Contact is the same in every message that could move
// it at the peer.
func TestOurOwnTargetStays(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack(stackIP), w.stack("10.0.0.2")
		caller, callee := w.established(a, b)
		for _, d := range []*dialog.Dialog{caller, callee} {
			require.NoError(t, d.ReInvite(context.Background(), dialog.InviteOpts{}))
			_, err := d.Update(context.Background(), nil)
			require.NoError(t, err)
		}
		for ip, user := range map[string]string{stackIP: "SoftPhone", "10.0.0.2": "bob"} {
			for _, what := range []string{"INVITE", "UPDATE", "200 INVITE", "200 UPDATE"} {
				for _, m := range w.sent(ip, what) {
					require.Equal(t, "<sip:"+user+"@"+ip+":5060>", m.value(t, "Contact"))
				}
			}
		}
		require.NoError(t, caller.Bye(context.Background(), ""))
	})
}

// RFC 6141 4.9: an unreliable provisional response makes an early dialog, and does
// not move its target; the 2xx does.
func TestEarlyTargetIsNotMovedByASecondProvisionalResponse(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		for _, contact := range []string{"first", "second"} {
			l.answer(dialogtest.Response{Code: 180, Headers: []string{movedTo(contact)}})
			synctest.Wait()
			require.Equal(t, "first", l.targetUser())
		}
		l.answer(dialogtest.Response{Code: 200, Headers: []string{movedTo("third")}, Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		require.Equal(t, "sip:third@10.0.0.9:5060", p.next("ACK").Request().Recipient.String())
		l.hangUp(p)
	})
}

// RFC 6141 4.8: a response and a request of the peer's may overtake each other. It
// moves by the request, whichever comes first, as responses do not move who can
// send a request.
func TestRequestThatCrossesAResponseMovesTheTarget(t *testing.T) {
	for _, ours := range []action{reInvites, touches} {
		for _, requestFirst := range []bool{true, false} {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				l := w.incoming(b, p, withHeaders(movedTo("here")))
				result := began(func() error { return ours.do(context.Background(), l.d) })
				method := map[string]string{"re-INVITE": "INVITE", "UPDATE": "UPDATE"}[ours.name]
				in := p.next(method)
				answers := func() {
					p.reply(in, dialogtest.Response{Code: 200, Headers: []string{movedTo("here")}, Body: offerSDP})
					require.NoError(t, <-result)
				}
				moves := func() {
					l.ask("UPDATE", withHeaders(movedTo("there")))
					require.Equal(t, 200, p.final("UPDATE").StatusCode)
				}
				if requestFirst {
					moves()
					answers()
				} else {
					answers()
					moves()
				}
				require.Equal(t, "there", l.targetUser())
				require.Contains(t, l.hangUp(p).startLine(), "sip:there@")
			})
		}
	}
}
