package test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// quietly is a stack that sends no 180 of its own.
func quietly(c *dialog.StackConfig) { c.NoAutoRinging = true }

// silent is rings for such a stack.
func (w *world) silent(b *dialog.Stack, p *peer, change ...func(*dialogtest.Request)) *peerCall {
	w.t.Helper()
	calls := waiting(b)
	l := &peerCall{
		peer: p, w: w, stack: b.Addr(), tag: farTag, seq: 1,
		stackURI: "sip:service@" + b.Addr().String(), peerURI: "sip:caller@" + p.Addr().String(),
	}
	r := dialogtest.Request{Method: "INVITE", URI: l.stackURI, From: l.peerURI, FromTag: farTag, CSeq: 1, Body: offerSDP}
	for _, c := range change {
		c(&r)
	}
	l.inviteText = p.Request(r)
	require.NoError(w.t, p.Send(l.stack, l.inviteText))
	l.d = <-calls
	l.callID = l.d.Key().CallID
	return l
}

// forked has the application send a response in an early dialog, whose tag it returns with
// the response as the peer reads it.
func (l *peerCall) forked(id string, code int, opts ...dialog.ResponseOpt) (tag string, res *sip.Response) {
	l.t.Helper()
	l.progress(code, append(opts, dialog.WithFork(id))...)
	res = l.next(fmt.Sprintf("%d INVITE", code)).Response()
	l.target = contactOf(res)
	return testkit.ToTag(res), res
}

// in makes the peer's next requests belong to the early dialog of that tag.
func (l *peerCall) in(tag string) *peerCall {
	l.stackTag = tag
	return l
}

// RFC 3261 12.1.1, RFC 3262 3: each early dialog of WithFork has its own To tag, session
// and reliable responses, and one of them becomes the call.
func TestCalleeHasSeveralEarlyDialogs(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP, quietly), w.peer(peerIP)
		l := w.silent(b, p, withHeaders(knows))
		one, first := l.forked("one", 183, withSDP(answerSDP))
		two, second := l.forked("two", 183, withSDP(held(answerSDP)))
		again, _ := l.forked("one", 180)
		require.NotEqual(t, one, two)
		require.Equal(t, one, again)
		require.NotContains(t, []string{one, two}, l.d.Key().LocalTag)
		require.Empty(t, first.GetHeaders("Dialog-Fork-Mark"))

		// Each is acknowledged for itself.
		l.in("stranger").prack(first)
		p.next("481 PRACK")
		l.in(one).pracked(first)
		l.in(two).pracked(second)

		// Each has its session: a hold in one is not one in the other.
		l.in(one).ask("UPDATE", withBody(held(offerSDP)))
		require.Contains(t, string(p.next("200 UPDATE").Message.Body()), "a=recvonly")
		l.in(two).ask("UPDATE", withBody(offerSDP))
		updated := p.next("200 UPDATE")
		require.Equal(t, two, testkit.ToTag(updated.Message))
		l.in("stranger").ask("UPDATE", withBody(offerSDP))
		p.next("481 UPDATE")

		require.NoError(t, l.d.Accept(context.Background(), dialog.WithFork("two")))
		final := p.next("200 INVITE")
		require.Equal(t, two, testkit.ToTag(final.Message))
		require.Equal(t, two, l.d.Key().LocalTag)
		found, ok := b.DialogByKey(l.d.Key())
		require.True(t, ok)
		require.Same(t, l.d, found)
		l.in(one).acknowledge(1)
		synctest.Wait()
		p.next("200 INVITE") // not acknowledged by that
		l.in(two).acknowledge(1)
		synctest.Wait()
		p.quiet("200 INVITE", 10*time.Second)

		// The others have ended.
		l.in(one).ask("UPDATE")
		p.next("481 UPDATE")
		require.ErrorIs(t, l.d.Provisional(context.Background(), 180, "", dialog.WithFork("one")), dialog.ErrState)
		l.in(two).ask("INVITE", withBody(offerSDP))
		p.next("200 INVITE")
		l.acknowledge(l.seq)
		synctest.Wait()
		bye := l.hangUp(p)
		require.Contains(t, bye.value(t, "From"), two)
	})
}

// An early dialog ends by a 199, by the caller's BYE, or without PRACK, and others go on; the
// last one's BYE ends the call.
func TestEarlyDialogsOfACalleeEnd(t *testing.T) {
	for name, row := range map[string]struct {
		end    func(l *peerCall, tag string)
		status int
	}{
		"199": {func(l *peerCall, tag string) {
			ended, _ := l.forked("one", 199)
			require.Equal(l.t, tag, ended)
		}, 199},
		"BYE": {func(l *peerCall, tag string) { l.in(tag).ask("BYE"); l.next("200 BYE") }, 0},
		"no PRACK": {func(l *peerCall, _ string) {
			l.forked("one", 183, withSDP(answerSDP))
			time.Sleep(33 * time.Second)
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP, quietly), w.peer(peerIP)
				l := w.silent(b, p, withHeaders("Supported: 100rel, 199"))
				one, _ := l.forked("one", 180)
				two, _ := l.forked("two", 180)
				row.end(l, one)
				require.ErrorIs(t, l.d.Provisional(context.Background(), 180, "", dialog.WithFork("one")), dialog.ErrTerminated)
				require.ErrorIs(t, l.d.Accept(context.Background(), dialog.WithFork("one")), dialog.ErrTerminated)
				l.in(one).ask("OPTIONS")
				p.next("481 OPTIONS")
				require.Equal(t, dialog.DialogStateRinging, l.d.State())

				l.in(two).ask("BYE")
				p.next("487 INVITE")
				synctest.Wait()
				require.Equal(t, dialog.DialogStateTerminated, l.d.State())
			})
		})
	}
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP, quietly), w.peer(peerIP)
		l := w.silent(b, p)
		l.forked("one", 180)
		l.progress(199, dialog.WithFork("one")) // the caller does not know it
		p.quiet("199 INVITE", time.Second)
		require.ErrorIs(t, l.d.RejectWith(context.Background(), 486, "", dialog.WithFork("two")), dialog.ErrInvalidArgument)
		require.ErrorIs(t, l.d.Provisional(context.Background(), 180, "", dialog.WithFork("")), dialog.ErrInvalidArgument)
		for i := range 63 {
			require.NoError(t, l.d.Provisional(context.Background(), 180, "", dialog.WithFork(fmt.Sprint(i))))
		}
		require.ErrorIs(t, l.d.Provisional(context.Background(), 180, "", dialog.WithFork("one more")), dialog.ErrPending)
		require.NoError(t, l.d.Reject(context.Background(), 486, ""))
		p.next("486 INVITE")
		l.acknowledgesRefusal(w)
	})
}

// An UPDATE that waits for the application in an early dialog is refused when another one
// becomes the call, and when the call ends.
func TestAnUPDATEInAnEarlyDialogThatEndsIsAnswered(t *testing.T) {
	for name, end := range map[string]func(l *peerCall){
		"another is the call": func(l *peerCall) {
			require.NoError(l.t, l.d.Accept(context.Background(), dialog.WithFork("two")))
			l.in(testkit.ToTag(l.next("200 INVITE").Message)).acknowledge(1)
			synctest.Wait()
			go l.hangUp(l.peer)
		},
		"another is the call, the first has the UPDATE": func(l *peerCall) {
			l.progress(183, withSDP(answerSDP))
			first := l.next("183 INVITE").Message
			tag := testkit.ToTag(first)
			l.in(tag).pracked(first)
			l.ask("UPDATE", withBody(held(offerSDP)))
			synctest.Wait()
			require.NoError(l.t, l.d.Accept(context.Background(), dialog.WithFork("two")))
			l.in(testkit.ToTag(l.next("200 INVITE").Message)).acknowledge(1)
			synctest.Wait()
			go l.hangUp(l.peer)
		},
		"the first is the call": func(l *peerCall) {
			require.NoError(l.t, l.d.Accept(context.Background(), withSDP(answerSDP)))
			l.in(testkit.ToTag(l.next("200 INVITE").Message)).acknowledge(1)
			synctest.Wait()
			go l.hangUp(l.peer)
		},
		"CANCEL": func(l *peerCall) { l.cancels() },
		"BYE":    func(l *peerCall) { l.ask("BYE") },
		"199":    func(l *peerCall) { l.progress(199, dialog.WithFork("one")) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP, quietly), w.peer(peerIP)
				l := w.silent(b, p, withHeaders(knows))
				l.d.OnOfferRequest(func(ctx context.Context, r *dialog.OfferRequest) (dialog.Body, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				})
				one, first := l.forked("one", 183, withSDP(answerSDP))
				l.in(one).pracked(first)
				two, second := l.forked("two", 183, withSDP(answerSDP))
				l.in(two).pracked(second)
				l.in(one).ask("UPDATE", withBody(held(offerSDP)))
				synctest.Wait()
				end(l)
				synctest.Wait()
				require.Len(t, w.sent(stackIP, "481 UPDATE"), len(w.sent(peerIP, "UPDATE")))
				if l.d.State() != dialog.DialogStateTerminated && name == "199" {
					_ = l.d.Close()
				}
				l.acknowledgesRefusal(w)
			})
		})
	}
}

// Our offer in an early dialog, to an INVITE without one, is answered by its PRACK alone,
// and a PRACK's further offer is decided for that early dialog.
func TestOffersOfSeveralEarlyDialogs(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP, quietly), w.peer(peerIP)
		l := w.silent(b, p, withoutBody, withHeaders(knows))
		_, err := l.d.ForkAnswer(context.Background(), "one")
		require.ErrorIs(t, err, dialog.ErrState)
		one, first := l.forked("one", 183, withSDP(offerSDP))
		two, second := l.forked("two", 183, withSDP(offerSDP))
		l.in(two).pracked(second, withBody(held(answerSDP)))
		l.in(one).pracked(first, withBody(answerSDP))
		for id, want := range map[string]string{"one": answerSDP, "two": held(answerSDP)} {
			answer, err := l.d.ForkAnswer(context.Background(), id)
			require.NoError(t, err)
			require.Equal(t, want, string(answer.Data()))
		}
		asked := make(chan dialog.DialogKey, 1)
		l.d.OnOfferRequest(func(_ context.Context, r *dialog.OfferRequest) (dialog.Body, error) {
			asked <- r.Key
			return nil, errors.New("no")
		})
		_, third := l.forked("two", 183, dialog.WithReliable())
		refused := l.in(two).pracked(third, withBody(offerSDP))
		require.Contains(t, string(refused.Body()), "m=audio 0 ")
		require.Equal(t, two, (<-asked).LocalTag)
		synctest.Wait()
		require.NoError(t, l.d.Accept(context.Background(), dialog.WithFork("one")))
		require.Equal(t, one, testkit.ToTag(p.next("200 INVITE").Message))
		l.in(one).acknowledge(1)
		synctest.Wait()
		l.hangUp(p)
	})
}

// CANCEL and Accept in an early dialog cross: one of them decides, and no early dialog is
// left.
func TestAcceptInAnEarlyDialogCrossesCANCEL(t *testing.T) {
	for seed := range 40 {
		bubble(t, func(t *testing.T, w *world) {
			b, p := w.stack(stackIP, quietly), w.peer(peerIP)
			l := w.silent(b, p)
			for _, id := range []string{"one", "two", "three"} {
				l.forked(id, 180)
			}
			results := make(chan error, 4)
			for i, id := range []string{"one", "two", "three"} {
				go func() {
					time.Sleep(time.Duration((seed+i)%3) * time.Millisecond)
					results <- l.d.Accept(context.Background(), withSDP(answerSDP), dialog.WithFork(id))
				}()
			}
			go func() { results <- l.d.Provisional(context.Background(), 180, "", dialog.WithFork("four")) }()
			time.Sleep(time.Duration(seed%4) * time.Millisecond)
			l.cancels()
			accepted := 0
			for range 4 {
				if err := <-results; err == nil {
					accepted++
				}
			}
			time.Sleep(time.Second)
			finals := len(w.sent(stackIP, "487 INVITE"))
			if tags := finalTags(w); len(tags) > 0 {
				require.Len(t, tags, 1)
				require.Zero(t, finals)
				for tag := range tags {
					l.in(tag).acknowledge(1)
				}
				synctest.Wait()
				l.hangUp(p)
			} else {
				require.NotZero(t, finals)
			}
			l.acknowledgesRefusal(w)
		})
	}
}

// finalTags are the To tags of the 200 responses.
func finalTags(w *world) map[string]bool {
	tags := make(map[string]bool)
	for _, m := range w.sent(stackIP, "200 INVITE") {
		_, tag, _ := strings.Cut(m.value(w.t, "To"), "tag=")
		tags[tag] = true
	}
	return tags
}

// RFC 3311 5.1, RFC 3261 12.1: our UPDATE in one of several early dialogs of the caller's, each
// with a session of its own. A failure ends that one alone.
func TestUpdateInAnEarlyDialogOfACallee(t *testing.T) {
	offered := func(version int) dialog.Body {
		return dialog.NewBody("application/sdp", []byte(versioned(held(answerSDP), version)))
	}
	ctx := context.Background()
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP, quietly), w.peer(peerIP)
		l := w.silent(b, p, withHeaders(knows))
		ended := make(chan dialog.ForkInfo, 4)
		l.d.OnFork(func(f dialog.ForkInfo) { ended <- f })
		one, first := l.forked("one", 183, withSDP(answerSDP))
		_, err := l.d.UpdateFork(ctx, "one", offered(2))
		require.ErrorIs(t, err, dialog.ErrPending, "its answer is not acknowledged")
		two, second := l.forked("two", 183, withSDP(answerSDP))
		three, third := l.forked("three", 183, withSDP(answerSDP))
		for tag, res := range map[string]sip.Message{one: first, two: second, three: third} {
			l.in(tag).pracked(res)
		}
		update := func(id string) (dialogtest.Received, <-chan error, <-chan dialog.Body) {
			answers := make(chan dialog.Body, 1)
			result := began(func() error {
				answer, err := l.d.UpdateFork(ctx, id, offered(2))
				answers <- answer
				return err
			})
			return p.next("UPDATE"), result, answers
		}
		for id, tag := range map[string]string{"one": one, "two": two} {
			got, result, answers := update(id)
			require.Equal(t, tag, testkit.FromTag(got.Message))
			require.Equal(t, farTag, testkit.ToTag(got.Message))
			require.Contains(t, body(got), " 2 IN ")
			p.reply(got, dialogtest.Response{Code: 200, ToTag: farTag, Body: versioned(offerSDP, 2)})
			require.NoError(t, <-result)
			require.Equal(t, versioned(offerSDP, 2), string((<-answers).Data()))
		}
		for id, want := range map[string]error{"four": dialog.ErrInvalidArgument, "": dialog.ErrPending} {
			_, err := l.d.UpdateFork(ctx, id, offered(2))
			require.ErrorIs(t, err, want, id)
		}

		got, result, _ := update("three")
		p.reply(got, dialogtest.Response{Code: 481, ToTag: farTag})
		var refused *dialog.ResponseError
		require.ErrorAs(t, <-result, &refused)
		require.Equal(t, "three", (<-ended).ID)
		require.Equal(t, dialog.DialogStateRinging, l.d.State())
		_, err = l.d.UpdateFork(ctx, "three", offered(2))
		require.ErrorIs(t, err, dialog.ErrTerminated)

		// The one that becomes the call keeps what was agreed upon in it.
		require.NoError(t, l.d.Accept(ctx, dialog.WithFork("two")))
		require.Equal(t, two, testkit.ToTag(p.next("200 INVITE").Message))
		l.in(two).acknowledge(1)
		synctest.Wait()
		require.Equal(t, versioned(offerSDP, 2), string(l.d.Session().Remote.Data()))
		_, err = l.d.UpdateFork(ctx, "one", offered(3))
		require.ErrorIs(t, err, dialog.ErrTerminated)
		got, result, _ = update("two")
		p.reply(got, dialogtest.Response{Code: 200, ToTag: farTag, Body: versioned(offerSDP, 2)})
		require.NoError(t, <-result)
		l.hangUp(p)
	})
}

// RFC 3261 15: the caller's BYE in the early dialog in which the call sends ends that one, while
// there are others: the oldest of them takes its place, and is the call if no other is named.
func TestCallerEndsTheFirstEarlyDialog(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		ended := make(chan dialog.ForkInfo, 4)
		l := w.rings(b, p, withHeaders(knows))
		l.d.OnFork(func(f dialog.ForkInfo) { ended <- f })
		l.progress(183, withSDP(answerSDP)) // waits for PRACK
		early := p.next("183 INVITE").Message
		first := testkit.ToTag(early)
		two, _ := l.forked("two", 180)
		three, _ := l.forked("three", 180)
		l.in(first).ask("BYE", withHeaders("Reason: Q.850;cause=16"))
		p.next("200 BYE")
		told := <-ended
		require.True(t, told.Ended)
		require.Empty(t, told.ID)
		require.Equal(t, 16, told.Reasons[0].Cause)
		require.Equal(t, dialog.DialogStateRinging, l.d.State())
		require.Equal(t, two, l.d.Key().LocalTag)
		found, ok := b.DialogByKey(l.d.Key())
		require.True(t, ok)
		require.Same(t, l.d, found)
		l.in(first).prack(early)
		p.next("481 PRACK")
		p.quiet("183 INVITE", 40*time.Second)
		l.progress(180)
		require.Equal(t, two, testkit.ToTag(p.next("180 INVITE").Message))
		l.in(two).ask("BYE")
		p.next("200 BYE")
		require.Equal(t, "two", (<-ended).ID)
		require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
		require.Equal(t, three, testkit.ToTag(p.next("200 INVITE").Message))
		l.in(three).acknowledge(1)
		synctest.Wait()
		l.hangUp(p)
	})
}
