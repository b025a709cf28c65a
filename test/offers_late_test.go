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

// Offers that are still open when the INVITE that they came in has its final answer:
// none stays so.

// The peer does not wait for the PRACK, as it should (RFC 3262 3).
func TestOfferInA1xxIsDecidedAfterThe2xx(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(dialog.InviteOpts{})
		decide := make(chan struct{})
		f.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { <-decide; return ourSession(), nil })
		f.says("A", 183, offerSDP, reliably(1)...)
		f.says("A", 200, "")
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		require.ErrorIs(t, f.d.Hold(context.Background()), dialog.ErrPending)
		close(decide)
		in := f.at["A"].next("PRACK")
		require.Equal(t, answerSDP, string(in.Message.Body()))
		f.at["A"].reply(in, dialogtest.Response{Code: 200})
		synctest.Wait()
		held := began(func() error { return f.d.Hold(context.Background()) })
		f.at["A"].reply(f.at["A"].next("INVITE"), dialogtest.Response{Code: 200, Body: offerSDP})
		require.NoError(t, <-held)
		f.over("A")
	})
}

// A PRACK that gets no answer ends no call that stands.
func TestPRACKWithAnOfferThatIsNeverAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, proposing(make(chan dialog.ForkInfo, 9)))
		l.answer(dialogtest.Response{Code: 183, Body: answerSDP, Headers: reliably(1)})
		p.next("PRACK")
		l.answer(dialogtest.Response{Code: 200})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		time.Sleep(40 * time.Second)
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		held := began(func() error { return l.d.Hold(context.Background()) })
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 200, Body: answerSDP, Headers: []string{contactOfPeer}})
		require.NoError(t, <-held)
		l.hangUp(p)
	})
}

// Another early dialog becomes the call.
func TestUpdateThatIsOpenInAForkThatLoses(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP), withoutRetry)
		f.says("A", 183, answerSDP, reliably(1)...)
		f.at["A"].reply(f.at["A"].next("PRACK"), dialogtest.Response{Code: 200})
		f.says("B", 183, answerSDP, reliably(1)...)
		f.at["B"].reply(f.at["B"].next("PRACK"), dialogtest.Response{Code: 200})
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		updated := began(func() error { _, err := f.d.Update(ctx, ourSession()); return err })
		f.at["A"].next("UPDATE")
		f.says("B", 200, "")
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		require.Error(t, <-updated)
		held := began(func() error { return f.d.Hold(context.Background()) })
		f.at["B"].reply(f.at["B"].next("INVITE"), dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, <-held)
		f.over("B")
	})
}

// What its 200 answers after the refusal is agreed on anew: nothing is to be
// restored (RFC 6141 3.4).
func TestPRACKWithAnOfferOutlivesItsReINVITE(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.outgoing(w.stack(stackIP), p)
		result := began(func() error { return l.d.ReInvite(context.Background(), proposing(make(chan dialog.ForkInfo, 9))) })
		in := p.next("INVITE")
		p.reply(in, dialogtest.Response{Code: 183, Body: answerSDP, Headers: reliably(1)})
		prack := p.next("PRACK")
		p.reply(in, dialogtest.Response{Code: 403})
		require.Error(t, <-result)
		synctest.Wait()
		p.reply(prack, dialogtest.Response{Code: 200, Body: answerSDP})
		synctest.Wait()
		p.quiet("INVITE", time.Minute)
		held := began(func() error { return l.d.Hold(context.Background()) })
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 200, Body: offerSDP, Headers: []string{contactOfPeer}})
		require.NoError(t, <-held)
		l.stands(p)
	})
}
