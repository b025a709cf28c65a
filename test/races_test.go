package test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// Races that TestStress found, each made to happen.

// A further fork's 2xx that comes again after the fork has been released used
// to release it once more, with the CSeq of the first BYE.
func TestAForkIsReleasedOnceHoweverOftenItAnswers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.9"), offer(offerSDP))
		require.NoError(t, err)
		invite := p.next("INVITE")
		p.reply(invite, dialogtest.Response{Code: 200, ToTag: "one", Body: answerSDP})
		p.next("ACK")
		p.reply(invite, dialogtest.Response{Code: 200, ToTag: "two", Body: answerSDP})
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
		synctest.Wait()
		p.reply(invite, dialogtest.Response{Code: 200, ToTag: "two", Body: answerSDP})
		p.next("ACK")
		p.quiet("BYE", 2*time.Second)
		hangUp(t, d.(*dialog.Dialog), p)
	})
}

// A re-INVITE that the peer had begun to answer used to stay open for ever when
// the call ended first: its transaction had no timer any more.
func TestACallThatEndsCancelsItsReInvite(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.9"), offer(offerSDP))
		require.NoError(t, err)
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 200, ToTag: "peer", Body: answerSDP})
		p.next("ACK")
		synctest.Wait() // the state changes after the ACK has left
		call := d.(*dialog.Dialog)
		failed := make(chan error, 1)
		go func() { failed <- call.ReInvite(context.Background(), offer(offerSDP)) }()
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 100})
		synctest.Wait()
		go func() { _ = call.Bye(context.Background(), "") }()
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
		require.ErrorIs(t, <-failed, dialog.ErrTerminated)
		p.next("CANCEL")
		time.Sleep(2 * time.Minute)
		require.Zero(t, testkit.Held(a).Transactions)
	})
}

// Hangup used to ask whether the call was answered and then act: an Accept in
// between left the call standing.
func TestHangupAgainstAcceptEndsTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		calls := waiting(b)
		for range 50 {
			_, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
			require.NoError(t, err)
			call := <-calls
			accepted := make(chan error, 1)
			go func() { accepted <- call.Accept(context.Background(), withSDP(answerSDP)) }()
			require.NoError(t, call.Hangup(context.Background()))
			require.Equal(t, dialog.DialogStateTerminated, call.State())
			if err := <-accepted; err != nil && !errors.Is(err, dialog.ErrAnswered) {
				require.ErrorIs(t, err, dialog.ErrState)
			}
		}
	})
}
