package test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// Our own offers in a PRACK (RFC 3262 5).

// proposing is a call that offers held(offerSDP) in each PRACK that may.
func proposing(asked chan<- dialog.ForkInfo) dialog.InviteOpts {
	opts := offer(offerSDP)
	opts.PrackOffer = func(_ context.Context, response dialog.ForkInfo) dialog.Body {
		asked <- response
		return dialog.NewBody("application/sdp", []byte(held(offerSDP)))
	}
	return opts
}

// The offer is made once the first is answered, and the 200 answers it.
func TestOurOfferInAPRACK(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		asked := make(chan dialog.ForkInfo, 9)
		l := w.calls(a, p, proposing(asked))
		got := bodies(l.d)
		l.answer(dialogtest.Response{Code: 180, Headers: reliably(1)})
		plain := p.next("PRACK")
		require.Empty(t, plain.Message.Body(), "nothing is agreed on")
		p.reply(plain, dialogtest.Response{Code: 200})
		l.answer(dialogtest.Response{Code: 183, Body: answerSDP, Headers: reliably(2)})
		with := p.next("PRACK")
		require.Equal(t, versioned(held(offerSDP), 2), string(with.Message.Body()))
		response := <-asked
		require.Equal(t, 183, response.Status)
		require.Equal(t, answerSDP, string(response.Body.Data()))

		// It is open: no other offer is allowed.
		_, err := l.d.Update(context.Background(), ourSession())
		require.ErrorIs(t, err, dialog.ErrPending)
		l.meets("UPDATE", 491)
		p.reply(with, dialogtest.Response{Code: 200, Body: "v=0\r\n"})
		synctest.Wait()
		require.Equal(t, []string{"application/sdp\n" + answerSDP, "application/sdp\nv=0\r\n"}, drained(got))

		// RFC 6337 3.2: that was the PRACK to make one in.
		l.answer(dialogtest.Response{Code: 183, Headers: reliably(3)})
		plain = p.next("PRACK")
		require.Empty(t, plain.Message.Body())
		p.reply(plain, dialogtest.Response{Code: 200})

		// It stands: what we have put on hold stays so.
		l.ask("UPDATE", withBody(answerSDP))
		require.Contains(t, string(p.next("200 UPDATE").Message.Body()), "a=sendonly")
		l.answer(dialogtest.Response{Code: 200})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		require.Empty(t, asked)
		l.hangUp(p)
	})
}

// A failed offer leaves the session unchanged, and another offer may follow.
func TestOurOfferInAPRACKIsRolledBack(t *testing.T) {
	for name, res := range map[string]dialogtest.Response{
		"refused": {Code: 488}, "not answered by the 200": {Code: 200}, "answered by the call's answer": {},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p := w.stack(stackIP), w.peer(peerIP)
				l := w.calls(a, p, proposing(make(chan dialog.ForkInfo, 9)))
				l.answer(dialogtest.Response{Code: 183, Body: answerSDP, Headers: reliably(1)})
				in := p.next("PRACK")
				if res.Code != 0 {
					p.reply(in, res)
				}
				l.answer(dialogtest.Response{Code: 200})
				require.NoError(t, l.d.WaitAnswer(context.Background()))
				p.next("ACK")
				if res.Code == 0 {
					p.reply(in, dialogtest.Response{Code: 488})
				}
				l.ask("UPDATE", withBody(answerSDP))
				require.Contains(t, string(p.next("200 UPDATE").Message.Body()), "a=sendrecv", "nothing is on hold")
				updated := began(func() error {
					_, err := l.d.Update(context.Background(), dialog.NewBody("application/sdp", []byte(offerSDP)))
					return err
				})
				p.reply(p.next("UPDATE"), dialogtest.Response{Code: 200, Body: answerSDP})
				require.NoError(t, <-updated)
				l.hangUp(p)
			})
		})
	}
}

// The PRACK does not wait for ever, and a function that misbehaves makes no offer.
func TestPRACKWithoutTheOfferThatIsNotMade(t *testing.T) {
	for name, c := range map[string]struct {
		propose func(context.Context, dialog.ForkInfo) dialog.Body
		after   time.Duration
	}{
		"nil":      {func(context.Context, dialog.ForkInfo) dialog.Body { return nil }, 0},
		"panics":   {func(context.Context, dialog.ForkInfo) dialog.Body { panic("no") }, 0},
		"too late": {func(ctx context.Context, _ dialog.ForkInfo) dialog.Body { <-ctx.Done(); return ourSession() }, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p := w.stack(stackIP), w.peer(peerIP)
				opts := offer(offerSDP)
				opts.PrackOffer = c.propose
				l := w.calls(a, p, opts)
				since := time.Now()
				l.answer(dialogtest.Response{Code: 183, Body: answerSDP, Headers: reliably(1)})
				in := p.next("PRACK")
				require.Equal(t, c.after, time.Since(since))
				require.Empty(t, in.Message.Body())
				p.reply(in, dialogtest.Response{Code: 200})
				l.answer(dialogtest.Response{Code: 200})
				require.NoError(t, l.d.WaitAnswer(context.Background()))
				l.hangUp(p)
			})
		})
	}
}

// A call that ends meanwhile does not wait for the offer.
func TestCallThatEndsWhileAnOfferForAPRACKIsMade(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		opts, let := offer(offerSDP), make(chan struct{})
		opts.PrackOffer = func(context.Context, dialog.ForkInfo) dialog.Body { <-let; return ourSession() }
		l := w.calls(a, p, opts)
		l.answer(dialogtest.Response{Code: 183, Body: answerSDP, Headers: reliably(1)})
		synctest.Wait()
		require.NoError(t, l.d.Close())
		p.reply(p.next("CANCEL"), dialogtest.Response{Code: 200})
		l.answer(dialogtest.Response{Code: 487})
		synctest.Wait()
		close(let)
		l.settled(a)
	})
}

// The peer's UPDATE comes while ours is being made: it goes first, and the PRACK
// without.
func TestPRACKWithoutAnOfferThatAnotherHasOvertaken(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		opts, let := offer(offerSDP), make(chan struct{})
		opts.PrackOffer = func(context.Context, dialog.ForkInfo) dialog.Body { <-let; return ourSession() }
		l := w.calls(a, p, opts)
		l.d.OnOffer(func(ctx context.Context, _ dialog.Body) (dialog.Body, error) { <-ctx.Done(); return nil, nil })
		l.answer(dialogtest.Response{Code: 183, Body: answerSDP, Headers: reliably(1)})
		l.ask("UPDATE", withBody(offerSDP))
		synctest.Wait()
		close(let)
		in := p.next("PRACK")
		require.Empty(t, in.Message.Body())
		p.reply(in, dialogtest.Response{Code: 200})
		require.Equal(t, 504, p.final("UPDATE").StatusCode)
		l.answer(dialogtest.Response{Code: 200})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		l.hangUp(p)
	})
}

// Between two stacks, over a network that loses what it likes.
func TestStacksAgreeOnTheOfferInAPRACK(t *testing.T) {
	for seed := range uint64(4) {
		bubble(t, func(t *testing.T, w *world) {
			a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
			w.net.SetPolicy(dialogtest.Lossy(seed, 0.2, 0.2, 400*time.Millisecond))
			calls := w.progressing(b, answerSDP)
			d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), proposing(make(chan dialog.ForkInfo, 9)))
			require.NoError(t, err)
			got := bodies(d)
			callee := <-calls
			heard := bodies(callee)
			require.NoError(t, callee.Accept(context.Background()))
			require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
			synctest.Wait()
			require.Contains(t, drained(heard), "application/sdp\n"+versioned(held(offerSDP), 2))
			answers := drained(got)
			require.Contains(t, answers[len(answers)-1], "a=recvonly")
			w.net.SetPolicy(nil)
			require.NoError(t, d.Bye(context.Background(), ""))
		})
	}
}
