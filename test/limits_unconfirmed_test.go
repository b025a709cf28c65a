package test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// answersAll answers each call at once.
func answersAll(s *dialog.Stack) {
	s.OnIncomingDialog(func(d dialog.IDialog) {
		_ = d.Accept(context.Background(), dialog.WithBody(dialog.NewBody("application/sdp", []byte(answerSDP))))
	})
}

// FX11: 1,000 INVITEs that nobody acknowledges leave room for those who do, though
// they come from everywhere, and a call that goes on goes on.
func TestCallsThatNobodyAcknowledgesLeaveRoom(t *testing.T) {
	bounded(t, 40<<20, func(c *dialog.StackConfig) { c.MaxDialogs = 100 }, func(t *testing.T, w *world, b *dialog.Stack, look func()) {
		answersAll(b)
		for i := range 1000 {
			p := w.peer(fmt.Sprintf("10.1.%d.%d", i/250, i%250+1))
			require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{
				Method: "INVITE", URI: "sip:b@10.0.0.2", CallID: fmt.Sprint("spoofed", i), Body: offerSDP,
			})))
			synctest.Wait()
			stats := b.Stats()
			require.LessOrEqual(t, stats.Unconfirmed, 50)
			require.LessOrEqual(t, stats.Dialogs, 51)
			require.LessOrEqual(t, stats.Releasing, 100)
		}
		look()
		stats := b.Stats()
		require.Equal(t, 50, stats.Unconfirmed)
		require.EqualValues(t, 950, stats.Dropped["unconfirmed"])
		require.Zero(t, stats.Refused["full"])
		honest := w.stack("10.0.0.3")
		call, err := honest.NewInvite(context.Background(), uri("b", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		require.NoError(t, call.(*dialog.Dialog).WaitAnswer(context.Background()))
		synctest.Wait()
		time.Sleep(2 * time.Minute)
		require.Equal(t, dialog.DialogStateEstablished, call.State())
		stats = b.Stats()
		require.Zero(t, stats.Unconfirmed)
		require.Zero(t, stats.Releasing)
		require.Equal(t, 2, stats.Dialogs)
	})
}

// FX11: at the edge, altogether and of one source.
func TestUnconfirmedCallsAreBoundedExactly(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack("10.0.0.2", func(c *dialog.StackConfig) {
			c.Limits.Unconfirmed, c.Limits.UnconfirmedPerSource = 5, 2
		})
		answersAll(b)
		peers := make(map[string]*peer)
		call := func(ip, id string) {
			p := peers[ip]
			if p == nil {
				p = w.peer(ip)
				peers[ip] = p
			}
			require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:b@10.0.0.2", CallID: id, Body: offerSDP})))
			synctest.Wait()
		}
		here := func() (ids []string) {
			for _, d := range b.Dialogs() {
				ids = append(ids, d.Info().Key.CallID)
			}
			return ids
		}
		call("10.0.0.11", "a1")
		call("10.0.0.11", "a2")
		require.ElementsMatch(t, []string{"a1", "a2"}, here())
		call("10.0.0.11", "a3")
		require.ElementsMatch(t, []string{"a2", "a3"}, here(), "the oldest of its source")
		call("10.0.0.12", "b1")
		call("10.0.0.12", "b2")
		call("10.0.0.13", "c1")
		require.Len(t, here(), 5)
		call("10.0.0.14", "d1")
		require.ElementsMatch(t, []string{"a3", "b1", "b2", "c1", "d1"}, here(), "the oldest of all")
		require.EqualValues(t, 2, b.Stats().Dropped["unconfirmed"])
		time.Sleep(2 * time.Minute)
		require.Empty(t, here())
	})
}
