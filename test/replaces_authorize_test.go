package test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// authorizing has a stack ask before a call is replaced.
func authorizing(handler dialog.TakeoverHandler) func(*dialog.StackConfig) {
	return func(c *dialog.StackConfig) { c.AuthorizeReplaces, c.AuthorizeJoin = handler, handler }
}

// RFC 3891 8: who is asked decides, whatever becomes of the asking.
func TestReplacesIsAuthorized(t *testing.T) {
	answers := func(a dialog.Answer) dialog.TakeoverHandler {
		return func(context.Context, dialog.TakeoverRequest) dialog.Answer { return a }
	}
	for _, c := range []struct {
		name   string
		decide dialog.TakeoverHandler
		status int
	}{
		{"granted", answers(dialog.Answer{}), 200},
		{"granted by a 2xx", answers(dialog.Answer{Status: 202}), 200},
		{"forbidden", answers(dialog.Answer{Status: 403}), 403},
		{"challenged", answers(dialog.Answer{Status: 401, Headers: []dialog.Header{{Name: "WWW-Authenticate", Value: `Digest realm="a"`}}}), 401},
		{"nonsense", answers(dialog.Answer{Status: 100}), 500},
		{"a panic", func(context.Context, dialog.TakeoverRequest) dialog.Answer { panic("asked") }, 500},
		{"the end of the goroutine", func(context.Context, dialog.TakeoverRequest) dialog.Answer {
			runtime.Goexit()
			return dialog.Answer{}
		}, 500},
		{"no decision", func(ctx context.Context, _ dialog.TakeoverRequest) dialog.Answer {
			<-ctx.Done()
			return dialog.Answer{}
		}, 504},
	} {
		for _, header := range []string{"Replaces", "Join"} {
			t.Run(c.name+" "+header, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					s, p, other := w.stack(stackIP, authorizing(c.decide)), w.peer(peerIP), w.peer(otherIP)
					old := w.incoming(s, p)
					calls := accepting(t, s)
					res := other.invited(s, header+": "+old.naming())
					require.Equal(t, c.status, res.StatusCode)
					if c.status == 401 {
						require.Equal(t, `Digest realm="a"`, testkit.Value(res, "WWW-Authenticate"))
					}
					synctest.Wait()
					if c.status == 200 {
						d := <-calls
						if header == "Replaces" {
							p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
						} else {
							old.over()
						}
						hangUp(t, d, other)
						return
					}
					require.Empty(t, calls, "not offered")
					require.Equal(t, dialog.DialogStateEstablished, old.d.State())
					require.Empty(t, w.sent(stackIP, "180 INVITE")[1:], "nobody has heard it ring")
					require.Len(t, s.Dialogs(), 1)
					old.over()
				})
			})
		}
	}
}

// The facts on which the decision is based.
func TestTakeoverRequestDescribesTheRequestAndItsSender(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		asked := make(chan dialog.TakeoverRequest, 10)
		s := w.stack(stackIP, authorizing(func(_ context.Context, r dialog.TakeoverRequest) dialog.Answer {
			asked <- r
			return dialog.Answer{Status: 403}
		}))
		p, other := w.peer(peerIP), w.peer(otherIP)
		old := w.incoming(s, p) // from sip:caller@10.0.0.9:5060
		for i, c := range []struct {
			from, referredBy string
			fromPeer         bool
		}{
			{"sip:somebody@10.0.0.8", "", false},
			{"sip:caller@10.0.0.9", "", true},
			{"sip:Caller@10.0.0.9", "", false},
			{"sip:somebody@10.0.0.8", "<sip:caller@10.0.0.9>;cid=x", true},
			{"sip:somebody@10.0.0.8", "\"C\" <sip:caller@10.0.0.7>", false},
			{"sip:somebody@10.0.0.8", "<<", false},
		} {
			r := dialogtest.Request{
				Method: "INVITE", URI: "sip:service@" + s.Addr().String(), CallID: fmt.Sprint("c", i), From: c.from,
				Headers: []string{"Replaces: " + old.naming(), "Referred-By: " + c.referredBy},
			}
			require.NoError(t, other.Send(s.Addr(), other.Request(r)))
			got := <-asked
			require.Equal(t, c.fromPeer, got.FromPeer(), "%+v", c)
			require.Equal(t, old.d, got.Call)
			require.False(t, got.Join)
			require.Equal(t, other.Addr().String(), got.Invite.Source())
			require.Equal(t, r.CallID, got.Invite.CallID().Value())
		}
		require.False(t, dialog.TakeoverRequest{}.FromPeer())
		require.False(t, dialog.TakeoverRequest{Invite: sip.NewRequest(sip.INVITE, sip.Uri{}), Call: old.d}.FromPeer())
		old.over()
	})
}

// While the application decides, the caller may cancel, the stack shut down, and the call to
// be replaced end.
func TestEventsWhileAReplacesIsAuthorized(t *testing.T) {
	type scene struct {
		w     *world
		s     *dialog.Stack
		old   *peerCall
		other *peer
	}
	for name, c := range map[string]struct {
		meanwhile func(t *testing.T, sc scene)
		status    int
	}{
		"the caller gives up": {func(t *testing.T, sc scene) {
			require.NoError(t, sc.other.Send(sc.s.Addr(), sc.other.Request(dialogtest.Request{
				Method: "CANCEL", URI: "sip:service@" + sc.s.Addr().String(), FromTag: "new", Branch: "z9hG4bK-asking",
			})))
		}, 487},
		"the call ends": {func(t *testing.T, sc scene) {
			sc.old.ask("BYE")
			sc.old.next("200 BYE")
		}, 603},
		"the stack shuts down": {func(t *testing.T, sc scene) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			var left *dialog.ShutdownError
			require.True(t, errors.As(sc.s.Shutdown(ctx), &left))
			sc.w.stacks = nil // its Shutdown has said what it had to say
		}, 503},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				decide := make(chan struct{})
				s := w.stack(stackIP, authorizing(func(context.Context, dialog.TakeoverRequest) dialog.Answer {
					<-decide
					return dialog.Answer{}
				}))
				p, other := w.peer(peerIP), w.peer(otherIP)
				old := w.incoming(s, p)
				s.OnIncomingDialog(func(dialog.IDialog) { t.Error("offered") })
				require.NoError(t, other.Send(s.Addr(), other.Request(dialogtest.Request{
					Method: "INVITE", URI: "sip:service@" + s.Addr().String(), FromTag: "new", Branch: "z9hG4bK-asking",
					Headers: []string{"Replaces: " + old.naming()},
				})))
				synctest.Wait()
				c.meanwhile(t, scene{w, s, old, other})
				synctest.Wait()
				close(decide)
				require.Equal(t, c.status, other.final("INVITE").StatusCode)
				synctest.Wait()
				if old.d.State() != dialog.DialogStateTerminated {
					old.over()
				}
			})
		})
	}
}

// RFC 3891 3: a call that is not accepted leaves the other as it is.
func TestReplacedCallStaysWhenTheNewOneIsRefused(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, d *dialog.Dialog, s *dialog.Stack, other *peer){
		"rejected": func(t *testing.T, d *dialog.Dialog, _ *dialog.Stack, _ *peer) {
			require.NoError(t, d.Reject(context.Background(), 488, ""))
		},
		"closed":        func(t *testing.T, d *dialog.Dialog, _ *dialog.Stack, _ *peer) { require.NoError(t, d.Close()) },
		"never decided": func(*testing.T, *dialog.Dialog, *dialog.Stack, *peer) { time.Sleep(181 * time.Second) },
		"not accepted, by an option": func(t *testing.T, d *dialog.Dialog, _ *dialog.Stack, _ *peer) {
			require.ErrorIs(t, d.Accept(context.Background(), func(*sip.Response) { panic("option") }), dialog.ErrPanic)
			require.NoError(t, d.Close())
		},
		"not accepted in time": func(t *testing.T, d *dialog.Dialog, _ *dialog.Stack, _ *peer) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			require.ErrorIs(t, d.Accept(ctx), context.Canceled)
			require.NoError(t, d.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s, p, other := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP)
				old := w.incoming(s, p)
				calls := waiting(s)
				other.invites(s, "Replaces: "+old.naming())
				d := <-calls
				end(t, d, s, other)
				require.GreaterOrEqual(t, other.final("INVITE").StatusCode, 300)
				synctest.Wait()
				require.Nil(t, d.Replaces(), "what has ended keeps nothing")
				require.Equal(t, dialog.DialogStateEstablished, old.d.State())
				// Nor has it been given away: another may have it.
				third := w.peer("10.0.0.3")
				accepted := accepting(t, s)
				require.Equal(t, 200, third.invited(s, "Replaces: "+old.naming()).StatusCode)
				p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
				hangUp(t, <-accepted, third)
			})
		})
	}
}

// Nor does a 200 that cannot be written take the place (RFC 3891 3): the old call
// stays, and may be replaced by another.
func TestReplacedCallStaysWhenTheAnswerCannotBeWritten(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p, other, third := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP), w.peer("10.0.0.3")
		old := w.incoming(s, p)
		calls := waiting(s)
		other.invites(s, "Replaces: "+old.naming())
		d := <-calls
		w.net.Host(stackIP).Unreachable(true)
		require.ErrorIs(t, d.Accept(context.Background(), withSDP(answerSDP)), dialog.ErrTransport)
		w.net.Host(stackIP).Unreachable(false)
		require.Equal(t, dialog.DialogStateEstablished, old.d.State())
		other.acknowledges(s, other.final("INVITE")) // it is repeated
		other.reply(other.next("BYE"), dialogtest.Response{Code: 200})
		accepted := accepting(t, s)
		require.Equal(t, 200, third.invited(s, "Replaces: "+old.naming()).StatusCode)
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
		hangUp(t, <-accepted, third)
	})
}

// A call that its own sides end meanwhile keeps the new one from nothing.
func TestNewCallGoesOnWhenTheReplacedOneEndsFirst(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p, other := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP)
		old := w.incoming(s, p)
		calls := waiting(s)
		other.invites(s, "Replaces: "+old.naming())
		d := <-calls
		old.ask("BYE")
		p.next("200 BYE")
		synctest.Wait()
		require.Equal(t, old.d, d.Replaces())
		require.Equal(t, dialog.DialogStateTerminated, d.Replaces().State())
		require.NoError(t, d.Accept(context.Background(), withSDP(answerSDP)))
		other.acknowledges(s, other.final("INVITE"))
		synctest.Wait()
		require.Empty(t, w.sent(stackIP, "BYE"))
		hangUp(t, d, other)
	})
}

// Of two INVITEs that name one call the first to be accepted has it.
func TestTwoInvitesReplaceOneCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p, first, second := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP), w.peer("10.0.0.3")
		old := w.incoming(s, p)
		calls := waiting(s)
		first.invites(s, "Replaces: "+old.naming())
		one := <-calls
		second.invites(s, "Replaces: "+old.naming())
		two := <-calls
		results := make(chan error, 2)
		for _, d := range []*dialog.Dialog{one, two} {
			go func() { results <- d.Accept(context.Background(), withSDP(answerSDP)) }()
		}
		errs := []error{<-results, <-results}
		require.Contains(t, errs, nil)
		require.ErrorIs(t, errors.Join(errs...), dialog.ErrReplaced)
		winner, loser, winners, losers := one, two, first, second
		if one.State() == dialog.DialogStateTerminated {
			winner, loser, winners, losers = two, one, second, first
		}
		require.Equal(t, 603, losers.final("INVITE").StatusCode)
		require.Equal(t, dialog.Cause{By: dialog.PartyLocal, Method: "INVITE", Status: 603}, loser.Cause())
		winners.acknowledges(s, winners.final("INVITE"))
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
		require.Equal(t, 603, w.peer("10.0.0.4").invited(s, "Replaces: "+old.naming()).StatusCode)
		hangUp(t, winner, winners)
	})
}

// RFC 3891 7.1: early-only is there for the race with the 200 that answers the
// call. It may come while the user is being asked.
func TestEarlyOnlyLosesAgainstTheAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, desk, lab := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP)
		old := w.alerting(s, desk)
		calls := waiting(s)
		lab.invites(s, "Replaces: "+old.naming()+";early-only")
		d := <-calls
		old.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, old.d.WaitAnswer(context.Background()))
		require.ErrorIs(t, d.Accept(context.Background()), dialog.ErrReplaced)
		require.Equal(t, 486, lab.final("INVITE").StatusCode)
		require.Equal(t, dialog.DialogStateEstablished, old.d.State())
		old.over()
	})
}

// The 200 that crosses our CANCEL makes a call that is then ended by BYE.
func TestReplacedCallThatIsAnsweredDespiteTheCancel(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, desk, lab := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP)
		old := w.alerting(s, desk)
		calls := accepting(t, s)
		require.Equal(t, 200, lab.invited(s, "Replaces: "+old.naming()).StatusCode)
		cancel := desk.next("CANCEL")
		old.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		desk.reply(cancel, dialogtest.Response{Code: 200})
		desk.next("ACK")
		desk.reply(desk.next("BYE"), dialogtest.Response{Code: 200})
		synctest.Wait()
		require.Equal(t, dialog.DialogStateTerminated, old.d.State())
		hangUp(t, <-calls, lab)
	})
}

// RFC 4538 4.
func TestTargetDialogIsFound(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.stack(stackIP, func(c *dialog.StackConfig) { c.TargetDialog = true })
		p, other := w.peer(peerIP), w.peer(otherIP)
		l := w.incoming(s, p)
		found := make(chan *dialog.Dialog, 1)
		require.NoError(t, s.OnRequest("REFER", func(_ context.Context, req *sip.Request) dialog.Answer {
			d, _ := s.TargetDialog(req)
			found <- d
			return dialog.Answer{Status: 202}
		}))
		good := "Target-Dialog: " + l.callID + ";local-tag=" + l.stackTag + ";remote-tag=" + l.tag
		for i, c := range []struct {
			headers []string
			want    *dialog.Dialog
		}{
			{[]string{good, "Require: tdialog"}, l.d},
			{[]string{good, good}, nil},
			{[]string{"Target-Dialog: " + l.callID + ";local-tag=" + l.tag + ";remote-tag=" + l.stackTag}, nil},
			{[]string{"Target-Dialog: " + l.callID + ";local-tag=" + l.stackTag}, nil},
			{[]string{good + ";local-tag=x"}, nil},
			{nil, nil},
		} {
			res := other.ask(s, dialogtest.Request{Method: "REFER", CallID: fmt.Sprint("r", i), Headers: append(c.headers, "Refer-To: <sip:a@b>")})
			require.Equal(t, 202, res.StatusCode)
			require.Equal(t, c.want, <-found, "%v", c.headers)
		}
		_, ok := s.TargetDialog(nil)
		require.False(t, ok)
		l.over()
	})
	key, err := dialog.ParseTargetDialog("fa77as7dad8-sd98ajzz@host.example.com ;local-tag=kkaz- ;remote-tag=6544")
	require.NoError(t, err)
	require.Equal(t, dialog.DialogKey{CallID: "fa77as7dad8-sd98ajzz@host.example.com", LocalTag: "kkaz-", RemoteTag: "6544"}, key)
	_, err = dialog.ParseTargetDialog("a;local-tag=b")
	require.ErrorIs(t, err, dialog.ErrMalformed)
}

// FT1: the time for the decision is over once it is made: the call may ring for
// longer.
func TestAnAuthorizedCallMayRingLongerThanTheDecisionMayTake(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		granted := func(context.Context, dialog.TakeoverRequest) dialog.Answer { return dialog.Answer{} }
		s, p, other := w.stack(stackIP, authorizing(granted)), w.peer(peerIP), w.peer(otherIP)
		old := w.incoming(s, p)
		calls := waiting(s)
		other.invites(s, "Replaces: "+old.naming())
		d := <-calls
		time.Sleep(100 * time.Second) // TxTimeout is 32
		require.Equal(t, dialog.DialogStateRinging, d.State())
		require.NoError(t, d.Accept(context.Background(), withSDP(answerSDP)))
		other.acknowledges(s, other.final("INVITE"))
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
		synctest.Wait()
		require.Equal(t, dialog.DialogStateEstablished, d.State())
		hangUp(t, d, other)
	})
}

func mostCalls(n int) func(*dialog.StackConfig) {
	return func(c *dialog.StackConfig) { c.MaxDialogs = n }
}

// At MaxDialogs an INVITE that replaces a call is accepted; other calls get 503 until the
// replaced call has ended.
func TestInviteWithReplacesIsAcceptedAtMaxDialogs(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p, other := w.stack(stackIP, mostCalls(1)), w.peer(peerIP), w.peer(otherIP)
		old := w.incoming(s, p)
		calls := accepting(t, s)
		require.Equal(t, 503, w.peer("10.0.0.3").invited(s).StatusCode)
		require.Equal(t, 200, other.invited(s, "Replaces: "+old.naming()).StatusCode)
		bye := p.next("BYE")
		require.Equal(t, 503, w.peer("10.0.0.4").invited(s).StatusCode, "the replaced call is here still")
		p.reply(bye, dialogtest.Response{Code: 200})
		synctest.Wait()
		require.Len(t, s.Dialogs(), 1)
		require.Zero(t, testkit.Held(s).Replacing)
		require.Equal(t, 503, w.peer("10.0.0.5").invited(s).StatusCode, "the new one has its place")
		hangUp(t, <-calls, other)
		third := w.peer("10.0.0.6")
		require.Equal(t, 200, third.invited(s).StatusCode)
		hangUp(t, <-calls, third)
	})
}

// An INVITE that names no replaceable call is bounded as any other.
func TestInviteThatReplacesNoCallGets503AtMaxDialogs(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.stack(stackIP, mostCalls(1), authorizing(func(context.Context, dialog.TakeoverRequest) dialog.Answer {
			return dialog.Answer{Status: 403}
		}))
		old := w.incoming(s, w.peer(peerIP))
		s.OnIncomingDialog(func(dialog.IDialog) { t.Error("offered") })
		require.Equal(t, 503, w.peer("10.0.0.3").invited(s, "Join: "+old.naming()).StatusCode)
		require.Equal(t, 481, w.peer("10.0.0.4").invited(s, "Replaces: x"+old.naming()).StatusCode)
		require.Equal(t, 403, w.peer("10.0.0.5").invited(s, "Replaces: "+old.naming()).StatusCode)
		synctest.Wait()
		require.Zero(t, testkit.Held(s).Replacing)
		require.Equal(t, 503, w.peer("10.0.0.6").invited(s).StatusCode)
		old.over()
	})
}

// One at a time may wait for the place of a call; when that one is refused, or the
// call ends by itself, the bound holds again.
func TestOneInviteAtATimeWaitsForThePlaceOfACall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p, other := w.stack(stackIP, mostCalls(2)), w.peer(peerIP), w.peer(otherIP)
		bystander := w.incoming(s, w.peer("10.0.0.7"))
		old := w.incoming(s, p)
		calls := waiting(s)
		other.invites(s, "Replaces: "+old.naming())
		first := <-calls
		require.Equal(t, 503, w.peer("10.0.0.3").invited(s, "Replaces: "+old.naming()).StatusCode)
		require.NoError(t, first.Reject(context.Background(), 486, ""))
		require.Equal(t, 486, other.final("INVITE").StatusCode)
		require.Equal(t, 503, w.peer("10.0.0.4").invited(s).StatusCode)

		second := w.peer("10.0.0.5")
		second.invites(s, "Replaces: "+old.naming())
		d := <-calls
		old.over()
		require.Equal(t, 503, w.peer("10.0.0.6").invited(s).StatusCode, "it has the room of the call that ended")
		require.NoError(t, d.Accept(context.Background(), withSDP(answerSDP)))
		second.acknowledges(s, second.final("INVITE"))
		hangUp(t, d, second)
		bystander.over()
	})
}

// Calls that replace each other while no BYE is answered are no more than twice as
// many.
func TestCallsThatReplaceEachOtherAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP, mostCalls(2)), w.peer(peerIP)
		calls := accepting(t, s)
		// No UA there responds to a BYE.
		require.Equal(t, 200, p.invited(s).StatusCode)
		require.Equal(t, 200, w.peer(otherIP).invited(s).StatusCode)
		latest, replaced := <-calls, 0
		<-calls
		for _, ip := range []string{"10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"} {
			key := latest.Key()
			name := key.CallID + ";from-tag=" + key.RemoteTag + ";to-tag=" + key.LocalTag
			if w.peer(ip).invited(s, "Replaces: "+name).StatusCode == 200 {
				latest, replaced = <-calls, replaced+1
			}
			require.LessOrEqual(t, len(s.Dialogs()), 4)
		}
		require.Equal(t, 2, replaced)
	})
}

// race is a call that is about to be replaced, on three stacks: ours has the old
// call with peer, and next asks for its place.
type race struct {
	*world
	ours, peer, next, rivals *dialog.Stack
	// old and peerOld are the ends of the old call, new and nextNew of the other.
	old, peerOld, new, nextNew *dialog.Dialog
	rival                      *dialog.Dialog // waits here, too
}

const oneWay = 5 * time.Millisecond

// aboutToReplace leads up to the moment before the new call is accepted.
func (w *world) aboutToReplace(kind string) *race {
	w.net.SetPolicy(func(dialogtest.Packet) []time.Duration { return []time.Duration{oneWay} })
	r := &race{world: w, ours: w.stack("10.0.0.1"), peer: w.stack("10.0.0.2"), next: w.stack("10.0.0.3"), rivals: w.stack("10.0.0.4")}
	switch kind {
	case "incoming":
		r.peerOld, r.old = w.established(r.peer, r.ours)
	case "outgoing":
		r.old, r.peerOld = w.established(r.ours, r.peer)
	default:
		ringing := waiting(r.peer)
		d, err := r.ours.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(w.t, err)
		r.old, r.peerOld = d.(*dialog.Dialog), <-ringing
		settled()
	}
	calls := waiting(r.ours)
	key := r.old.Key()
	for _, from := range []struct {
		stack  *dialog.Stack
		placed **dialog.Dialog
		here   **dialog.Dialog
	}{{r.next, &r.nextNew, &r.new}, {r.rivals, new(*dialog.Dialog), &r.rival}} {
		opts := offer(offerSDP)
		opts.Replaces = &dialog.ReplacesInfo{CallID: key.CallID, FromTag: key.RemoteTag, ToTag: key.LocalTag}
		d, err := from.stack.NewInvite(context.Background(), uri("service", "10.0.0.1"), opts)
		require.NoError(w.t, err)
		*from.placed, *from.here = d.(*dialog.Dialog), <-calls
		require.Equal(w.t, r.old, (*from.here).Replaces())
	}
	settled()
	return r
}

// rivalEvents is what may happen while a call is being replaced. Errors are the
// events' own affair: many come too late.
var rivalEvents = []struct {
	name  string
	event func(ctx context.Context, r *race)
}{
	{"nothing", func(context.Context, *race) {}},
	{"we hang up", func(ctx context.Context, r *race) { _ = r.old.Bye(ctx, "") }},
	{"we close", func(_ context.Context, r *race) { _ = r.old.Close() }},
	{"the peer hangs up", func(ctx context.Context, r *race) { _ = r.peerOld.Hangup(ctx) }},
	{"the peer answers", func(ctx context.Context, r *race) { _ = r.peerOld.Accept(ctx, withSDP(answerSDP)) }},
	{"we re-INVITE", func(ctx context.Context, r *race) { _ = r.old.Hold(ctx) }},
	{"the peer re-INVITEs", func(ctx context.Context, r *race) { _ = r.peerOld.Hold(ctx) }},
	{"we UPDATE", func(ctx context.Context, r *race) { _, _ = r.old.Update(ctx, nil) }},
	{"we REFER", func(ctx context.Context, r *race) {
		if r.old.Refer(ctx, uri("x", "10.0.0.4"), dialog.ReferOpts{}) == nil {
			_, _ = r.old.WaitRefer(ctx)
		}
	}},
	{"the peer REFERs", func(ctx context.Context, r *race) {
		if r.peerOld.Refer(ctx, uri("x", "10.0.0.4"), dialog.ReferOpts{}) == nil {
			_, _ = r.peerOld.WaitRefer(ctx)
		}
	}},
	{"we NOTIFY", func(ctx context.Context, r *race) {
		if r.peerOld.Refer(ctx, uri("x", "10.0.0.4"), dialog.ReferOpts{}) != nil {
			return
		}
		time.Sleep(2 * oneWay)
		for _, refer := range r.old.GetAllReferSubscriptions() {
			_ = refer.SendNotify(ctx, 200, "OK")
		}
	}},
	{"INFO", func(ctx context.Context, r *race) {
		_ = r.peerOld.SendInfo(ctx, dialog.NewBody("text/plain", []byte("x")))
	}},
	{"the new one is cancelled", func(_ context.Context, r *race) { _ = r.nextNew.Close() }},
	{"the new one is refused", func(ctx context.Context, r *race) { _ = r.new.Reject(ctx, 486, "") }},
	{"the new one is hung up", func(ctx context.Context, r *race) { _ = r.new.Hangup(ctx) }},
	{"a rival is accepted", func(ctx context.Context, r *race) { _ = r.rival.Accept(ctx, withSDP(answerSDP)) }},
	{"a rival is refused", func(ctx context.Context, r *race) { _ = r.rival.Reject(ctx, 603, "") }},
	{"the peer shuts down", func(ctx context.Context, r *race) { _ = r.peer.Shutdown(ctx) }},
}

// TestReplacesAgainstEverythingElse accepts a call that replaces another, while
// something else happens, before and after, and at the very moment.
func TestReplacesAgainstEverythingElse(t *testing.T) {
	for _, kind := range []string{"incoming", "outgoing", "ringing"} {
		for _, e := range rivalEvents {
			for i, offset := range []time.Duration{-oneWay, 0, 0, oneWay, 2 * oneWay} {
				t.Run(fmt.Sprint(kind, "/", e.name, "/", offset, "/", i), func(t *testing.T) {
					bubble(t, func(t *testing.T, w *world) { playRace(t, w.aboutToReplace(kind), e.event, offset) })
				})
			}
		}
	}
}

func playRace(t *testing.T, r *race, event func(context.Context, *race), offset time.Duration) {
	ctx := context.Background()
	done := make(chan struct{})
	go func() {
		defer close(done)
		time.Sleep(time.Second + offset)
		event(ctx, r)
	}()
	time.Sleep(time.Second)
	err := r.new.Accept(ctx, withSDP(answerSDP))
	<-done
	time.Sleep(time.Minute) // all that repeats has its answer by now
	synctest.Wait()
	if err == nil || r.rival.State() == dialog.DialogStateEstablished {
		require.Equal(t, dialog.DialogStateTerminated, r.old.State(), "replaced")
	}
	if err == nil {
		require.NotEqual(t, dialog.DialogStateEstablished, r.rival.State(), "one only has the place")
	}
	agree(t, r.old, r.peerOld)
	agree(t, r.new, r.nextNew)
	for _, d := range []*dialog.Dialog{r.old, r.peerOld, r.new, r.nextNew, r.rival} {
		_ = d.Hangup(ctx) // it may tell what came of a BYE that crossed another
	}
	time.Sleep(10 * time.Minute)
	for _, s := range []*dialog.Stack{r.ours, r.peer, r.next, r.rivals} {
		require.Zero(t, testkit.Held(s))
	}
}

// agree checks that neither end of a call is left with half of it.
func agree(t *testing.T, a, b *dialog.Dialog) {
	t.Helper()
	over := func(d *dialog.Dialog) bool { return d.State() == dialog.DialogStateTerminated }
	require.Equal(t, over(a), over(b), "%v (%v) and %v (%v)", a.State(), a.Cause(), b.State(), b.Cause())
}
