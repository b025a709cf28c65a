package test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// follows is an offer whose redirections are followed.
func follows(targets int) dialog.InviteOpts {
	opts := offer(offerSDP)
	opts.FollowRedirects = targets
	return opts
}

// moved is a 302 to Contacts.
func moved(contacts string) dialogtest.Response {
	return dialogtest.Response{Code: 302, ToTag: "moved", Headers: []string{"Contact: " + contacts}}
}

// RFC 3261 8.1.3.4: the next INVITE differs from the redirected one in the
// target, the CSeq and the branch only.
func TestRedirectionIsFollowedInTheOrderOfQ(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p, low, high := w.stack("10.0.0.1"), w.peer("10.0.0.9"), w.peer("10.0.0.3"), w.peer("10.0.0.4")
		call := w.calls(a, p, follows(5))
		d, first := call.d, call.invite
		p.reply(first, dialogtest.Response{Code: 180, ToTag: "moved", Headers: []string{contactOfPeer, "Record-Route: <sip:10.0.0.9;lr>"}})
		synctest.Wait()
		early := d.Key()
		require.Equal(t, "moved", early.RemoteTag)
		p.reply(first, moved("<sip:carol@10.0.0.3>;q=0.2, <sip:dora@10.0.0.4;method=BYE?Subject=x>;q=0.7, <tel:+43>, <sip:bob@10.0.0.9:5060>"))

		second := high.next("INVITE")
		require.Equal(t, "sip:dora@10.0.0.4", second.Request().Recipient.String())
		require.Equal(t, "2 INVITE", testkit.Value(second.Message, "CSeq"))
		require.Equal(t, dialog.DialogKey{CallID: early.CallID, LocalTag: early.LocalTag}, d.Key(), "nobody has answered this one")
		found, ok := a.DialogByKey(d.Key())
		require.True(t, ok)
		require.Same(t, d, found)
		for _, name := range []string{"From", "To", "Call-ID", "Contact", "Allow", "Supported", "Content-Type"} {
			require.Equal(t, testkit.Value(first.Message, name), testkit.Value(second.Message, name))
			require.Len(t, second.Message.GetHeaders(name), 1)
		}
		require.Equal(t, first.Message.Body(), second.Message.Body())
		require.Empty(t, second.Message.GetHeaders("Route"))
		require.NotEqual(t, testkit.BranchOf(first.Message), testkit.BranchOf(second.Message))
		high.reply(second, dialogtest.Response{Code: 486, ToTag: "busy"})
		high.next("ACK")

		third := low.next("INVITE")
		require.Equal(t, "3 INVITE", testkit.Value(third.Message, "CSeq"))
		low.reply(third, dialogtest.Response{Code: 200, ToTag: "carol", Body: answerSDP})
		require.NoError(t, d.WaitAnswer(context.Background()))
		ack := low.next("ACK")
		require.Equal(t, "3 ACK", testkit.Value(ack.Message, "CSeq"))
		require.Equal(t, "carol", d.Key().RemoteTag)
		ended := began(func() error { return d.Bye(context.Background(), "") })
		bye := low.next("BYE")
		require.Equal(t, "4 BYE", testkit.Value(bye.Message, "CSeq"))
		low.reply(bye, dialogtest.Response{Code: 200})
		require.NoError(t, <-ended)
		require.Zero(t, testkit.Held(a).Aliases)
	})
}

func TestRedirectionsEnd(t *testing.T) {
	for name, c := range map[string]struct {
		follow  int
		answers []dialogtest.Response
		outcome int
	}{
		"not followed":        {0, []dialogtest.Response{moved("<sip:b@10.0.0.9>")}, 302},
		"no target":           {9, []dialogtest.Response{moved("<tel:+43>")}, 302},
		"a loop":              {9, []dialogtest.Response{moved("<sip:b@10.0.0.9>"), moved("<sip:c@10.0.0.9>"), moved("<sip:%62@10.0.0.9;x=y>, <sip:c@10.0.0.9>, <sip:bob@10.0.0.9:5060>")}, 302},
		"too many":            {2, []dialogtest.Response{moved("<sip:b@10.0.0.9>"), moved("<sip:c@10.0.0.9>"), moved("<sip:d@10.0.0.9>")}, 302},
		"too many at once":    {2, []dialogtest.Response{moved("<sip:b@10.0.0.9>, <sip:c@10.0.0.9>, <sip:d@10.0.0.9>"), {Code: 404, ToTag: "x"}, {Code: 486, ToTag: "x"}}, 486},
		"all refuse":          {9, []dialogtest.Response{moved("<sip:b@10.0.0.9>, <sip:c@10.0.0.9>"), {Code: 404, ToTag: "x"}, {Code: 480, ToTag: "x"}}, 480},
		"refused everywhere":  {9, []dialogtest.Response{moved("<sip:b@10.0.0.9>, <sip:c@10.0.0.9>"), {Code: 603, ToTag: "x"}}, 603},
		"an alternative":      {9, []dialogtest.Response{{Code: 380, ToTag: "x", Headers: []string{"Contact: <sip:b@10.0.0.9>"}}}, 380},
		"refused challenge":   {9, []dialogtest.Response{moved("<sip:b@10.0.0.9>"), {Code: 401, ToTag: "x", Headers: []string{challenge}}}, 401},
		"endless 422":         {9, []dialogtest.Response{moved("<sip:b@10.0.0.9>"), tooSmall, tooSmall, tooSmall, tooSmall}, 422},
		"nothing but refusal": {9, []dialogtest.Response{{Code: 404, ToTag: "x"}}, 404},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
				d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.9"), follows(c.follow))
				require.NoError(t, err)
				for i, answer := range c.answers {
					in := p.next("INVITE")
					require.EqualValues(t, i+1, in.Request().CSeq().SeqNo)
					p.reply(in, answer)
				}
				var refused *dialog.ResponseError
				require.ErrorAs(t, d.(*dialog.Dialog).WaitAnswer(context.Background()), &refused)
				require.Equal(t, c.outcome, refused.StatusCode)
				synctest.Wait()
				require.Len(t, w.sent("10.0.0.1", "INVITE"), len(c.answers))
				require.Empty(t, a.Dialogs())
			})
		})
	}
}

var tooSmall = dialogtest.Response{Code: 422, ToTag: "x", Headers: []string{"Min-SE: 300"}}

// A target that does not answer, or is not there, makes way for the next one.
func TestSilentTargetsAreLeftBehind(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		w.peer("10.0.0.3") // says nothing
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.9"), follows(5))
		require.NoError(t, err)
		p.reply(p.next("INVITE"), moved("<sip:mute@10.0.0.3>, <sip:nobody@10.0.0.4;transport=tcp>, <sip:carol@10.0.0.9>"))
		third := p.next("INVITE")
		require.Equal(t, "carol", third.Request().Recipient.User)
		p.reply(third, dialogtest.Response{Code: 200, ToTag: "carol"})
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		p.next("ACK")
		hangUp(t, d, p)
	})
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		w.peer("10.0.0.3")
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.9"), follows(5))
		require.NoError(t, err)
		p.reply(p.next("INVITE"), moved("<sip:mute@10.0.0.3>"))
		require.ErrorIs(t, d.(*dialog.Dialog).WaitAnswer(context.Background()), dialog.ErrTimeout)
	})
}

// RFC 3261 8.1.3.4 allows the way from sips to sip; this package does not take
// it. The outbound proxy stays the way to every target (RFC 3261 8.1.2).
func TestRedirectionIsNotFollowedToWhereItIsNotSecure(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack("10.0.0.1", func(c *dialog.StackConfig) { c.OutboundProxy = &sip.Uri{Scheme: "sip", Host: "10.0.0.9", Port: 5060} })
		proxy := w.peer("10.0.0.9")
		target := sip.Uri{Scheme: "sips", User: "bob", Host: "example.com"}
		d, err := a.NewInvite(context.Background(), target, follows(5))
		require.NoError(t, err)
		proxy.reply(proxy.next("INVITE"), moved("<sip:bob@example.org>, <sips:bob@example.org>;q=0.1"))
		second := proxy.next("INVITE")
		require.Equal(t, "sips:bob@example.org", second.Request().Recipient.String())
		require.Equal(t, "<sip:10.0.0.9:5060;lr>", testkit.Value(second.Message, "Route"))
		require.Len(t, second.Message.GetHeaders("Route"), 1)
		proxy.reply(second, moved("<sip:bob@example.net>"))
		var refused *dialog.ResponseError
		require.ErrorAs(t, d.(*dialog.Dialog).WaitAnswer(context.Background()), &refused)
		require.Len(t, refused.Contacts, 1)
	})
}

// A call that was given up goes nowhere else; one that is given up on its way is
// cancelled there.
func TestRedirectionEndsWithTheCall(t *testing.T) {
	give := map[string]func(d *dialog.Dialog){
		"by the context": func(d *dialog.Dialog) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_ = d.WaitAnswer(ctx)
		},
		"by Hangup": func(d *dialog.Dialog) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_ = d.Hangup(ctx)
		},
		"by Close": func(d *dialog.Dialog) { _ = d.Close() },
	}
	for name, up := range give {
		t.Run(name+", before", func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
				call := w.calls(a, p, follows(5))
				d, in := call.d, call.invite
				up(d)
				p.reply(in, moved("<sip:carol@10.0.0.9>"))
				p.next("ACK")
				p.quiet("INVITE", time.Minute)
				require.Empty(t, a.Dialogs())
				require.Equal(t, dialog.PartyLocal, d.Cause().By)
			})
		})
		t.Run(name+", on its way", func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
				d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.9"), follows(5))
				require.NoError(t, err)
				p.reply(p.next("INVITE"), moved("<sip:carol@10.0.0.9>, <sip:dora@10.0.0.9>"))
				p.next("ACK")
				in := p.next("INVITE")
				up(d.(*dialog.Dialog))
				p.reply(in, dialogtest.Response{Code: 180, ToTag: "carol"})
				cancel := p.next("CANCEL")
				require.Equal(t, in.Request().Recipient.String(), cancel.Request().Recipient.String())
				p.reply(cancel, dialogtest.Response{Code: 200, ToTag: "carol"})
				p.reply(in, dialogtest.Response{Code: 487, ToTag: "carol"})
				p.next("ACK")
				p.quiet("INVITE", time.Minute)
				require.Empty(t, a.Dialogs())
				require.Zero(t, testkit.Held(a).Releasing)
			})
		})
	}
}

// Another server does not get what was for the first, asks for itself, and is
// given in to once more when it finds the session interval too small.
func TestRedirectionBeginsAnewWithCredentials(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p, q := w.peerless("10.0.0.1", "sip.example"), w.peer("10.0.0.9"), w.peer("10.0.0.3")
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.9"), follows(5))
		require.NoError(t, err)
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 401, ToTag: "x", Headers: []string{challenge}})
		second := p.next("INVITE")
		require.NotEmpty(t, testkit.Value(second.Message, "Authorization"))
		p.reply(second, moved("<sip:bob@10.0.0.3>"))
		third := q.next("INVITE")
		require.Empty(t, third.Message.GetHeaders("Authorization"))
		q.reply(third, dialogtest.Response{Code: 401, ToTag: "y", Headers: []string{`WWW-Authenticate: Digest realm="sip.example", nonce="n2", qop="auth", algorithm=SHA-256`}})
		fourth := q.next("INVITE")
		checkCredentials(t, fourth.Message, "n2", 1)
		q.reply(fourth, tooSmall)
		fifth := q.next("INVITE")
		require.Equal(t, "300", testkit.Value(fifth.Message, "Min-SE"))
		q.reply(fifth, dialogtest.Response{Code: 200, ToTag: "y"})
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		require.Equal(t, "5 ACK", testkit.Value(q.next("ACK").Message, "CSeq"))
		hangUp(t, d, q)
	})
}

// Two stacks: one that sends its calls on, and one that takes them.
func TestRedirectionBetweenStacks(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, c := w.stack("10.0.0.1"), w.stack("10.0.0.2"), w.stack("10.0.0.3")
		b.OnIncomingDialog(func(d dialog.IDialog) {
			if err := d.(*dialog.Dialog).RejectWith(context.Background(), 302, "", dialog.WithContacts(uri("carol", "10.0.0.3"))); err != nil {
				t.Error(err)
			}
		})
		c.OnIncomingDialog(func(d dialog.IDialog) { _ = d.Accept(context.Background(), withSDP(answerSDP)) })
		opts, seen := watchedOffer(offerSDP)
		opts.FollowRedirects = 1
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), opts)
		require.NoError(t, err)
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		require.NoError(t, d.Bye(context.Background(), ""))
		synctest.Wait()
		require.Equal(t, "[Trying Ringing Established Terminated]", fmt.Sprint(seen.seen()))
		require.Empty(t, c.Dialogs())
	})
}

// The early dialogs of a target that redirects are over, and the next target's are
// the call's.
func TestRedirectionEndsTheEarlyDialogsBefore(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p, q := w.stack("10.0.0.1"), w.peer("10.0.0.9"), w.peer("10.0.0.3")
		var mu sync.Mutex
		var forks []string
		opts := follows(3)
		opts.Setup = func(d *dialog.Dialog) {
			d.OnFork(func(f dialog.ForkInfo) {
				mu.Lock()
				defer mu.Unlock()
				forks = append(forks, fmt.Sprint(f.RemoteTag, f.Ended))
			})
		}
		l := w.calls(a, p, opts)
		l.answer(dialogtest.Response{Code: 180, ToTag: "one", Headers: []string{contactOfPeer}})
		l.answer(dialogtest.Response{Code: 183, ToTag: "two", Headers: []string{contactOfPeer, "Require: 100rel", "RSeq: 5"}, Body: answerSDP})
		prack := p.next("PRACK")
		p.reply(prack, dialogtest.Response{Code: 200})
		synctest.Wait()
		require.Len(t, l.d.Forks(), 2)
		p.reply(l.invite, moved("<sip:carol@10.0.0.3>"))
		second := q.next("INVITE")
		require.Empty(t, l.d.Forks())
		for i, tag := range []string{"one", "two"} {
			for _, method := range []string{"UPDATE", "INFO", "BYE"} {
				l.ask(method, func(r *dialogtest.Request) { r.FromTag, r.CSeq = tag, uint32(10+i) })
				require.Equal(t, 481, p.final(method).StatusCode)
			}
		}
		require.Empty(t, l.d.Forks())

		q.reply(second, dialogtest.Response{Code: 180, ToTag: "carol"})
		synctest.Wait()
		require.Equal(t, "carol", l.d.Key().RemoteTag)
		updated := began(func() error { _, err := l.d.Update(context.Background(), nil); return err })
		update := q.next("UPDATE")
		require.Equal(t, "carol", testkit.ToTag(update.Message))
		q.reply(update, dialogtest.Response{Code: 200})
		require.NoError(t, <-updated)
		q.reply(second, dialogtest.Response{Code: 200, ToTag: "carol", Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		q.next("ACK")
		synctest.Wait()
		require.Equal(t, []string{"onefalse", "twofalse", "onetrue", "twotrue", "carolfalse", "carolfalse"}, forks)
		ended := began(func() error { return l.d.Bye(context.Background(), "") })
		q.reply(q.next("BYE"), dialogtest.Response{Code: 200})
		require.NoError(t, <-ended)
		w.nothingLeft()
	})
}

// RFC 3264 4: the offer goes with the INVITE to its next target, so that the answer from
// there makes the session.
func TestOfferOfARedirectedINVITEIsAnsweredThere(t *testing.T) {
	for name, ringing := range map[string]bool{"nobody rang before": false, "an early dialog before": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p, next := w.stack("10.0.0.1"), w.peer("10.0.0.9"), w.peer("10.0.0.3")
				placed, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.9"), follows(1))
				require.NoError(t, err)
				d := placed.(*dialog.Dialog)
				first := p.next("INVITE")
				if ringing {
					p.reply(first, dialogtest.Response{Code: 180, ToTag: "moved", Headers: []string{contactOfPeer}})
				}
				p.reply(first, moved("<sip:carol@10.0.0.3>"))
				next.reply(next.next("INVITE"), dialogtest.Response{Code: 200, ToTag: "carol", Headers: []string{"Contact: <sip:carol@10.0.0.3>"}, Body: answerSDP})
				require.NoError(t, d.WaitAnswer(context.Background()))
				next.next("ACK")
				held := began(func() error { return d.Hold(context.Background()) })
				again := next.next("INVITE")
				require.Contains(t, string(again.Message.Body()), "a=sendonly", "our session is known")
				next.reply(again, dialogtest.Response{Code: 200, ToTag: "carol", Headers: []string{"Contact: <sip:carol@10.0.0.3>"}, Body: answerSDP})
				require.NoError(t, <-held)
			})
		})
	}
}
