package test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// refuses checks that a stack answers a request outside calls with 503 and Retry-After.
func (p *peer) refuses(s *dialog.Stack, r dialogtest.Request) {
	p.t.Helper()
	res := p.ask(s, r)
	require.Equal(p.t, 503, res.StatusCode, r.Method)
	require.NotEmpty(p.t, testkit.Value(res, "Retry-After"))
}

// another is an INVITE outside calls.
func another(tag string) dialogtest.Request {
	return dialogtest.Request{Method: "INVITE", FromTag: tag, CallID: tag, CSeq: 1, Body: offerSDP, Headers: []string{contactOfPeer}}
}

// Calls go on in every state, and new ones are sent elsewhere (RFC 3261 21.5.4).
func TestDrainRefusesNewCallsAndWaitsForTheOthers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		require.NoError(t, b.OnRequest("OPTIONS", func(context.Context, *sip.Request) dialog.Answer {
			t.Error("the probe of a proxy gets 503")
			return dialog.Answer{Status: 200}
		}))
		established := w.incoming(b, w.peer("10.0.0.21"))
		ringing := w.rings(b, w.peer("10.0.0.22"))
		placed := w.alerting(b, w.peer("10.0.0.23"))
		ended := began(func() error { return b.Drain(context.Background()) })
		synctest.Wait()

		p.refuses(b, another("new"))
		p.refuses(b, dialogtest.Request{Method: "OPTIONS", FromTag: "probe"})
		require.EqualValues(t, 2, b.Stats().Refused["draining"])

		established.ask("INFO")
		require.Equal(t, 200, established.peer.final("INFO").StatusCode)
		established.ask("INVITE", withBody(versioned(offerSDP, 2)))
		require.Equal(t, 200, established.peer.final("INVITE").StatusCode)
		established.acknowledge(established.seq)
		ringing.accepted()
		placed.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, placed.d.WaitAnswer(context.Background()))
		bridged := w.outgoing(b, w.peer("10.0.0.24")) // a bridge calls for a call that it has

		for _, l := range []*peerCall{established, ringing, placed, bridged} {
			synctest.Wait()
			require.Empty(t, ended, "calls are left")
			hangUp(t, l.d, l.peer)
		}
		require.NoError(t, <-ended)
		require.NoError(t, b.Drain(context.Background()), "nothing is left")
	})
}

func TestDrainSaysHowManyCallsAreLeft(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		first, second := w.incoming(b, w.peer("10.0.0.21")), w.rings(b, w.peer("10.0.0.22"))
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		begin := time.Now()
		err := b.Drain(ctx)
		require.Equal(t, time.Minute, time.Since(begin))
		var left *dialog.DrainError
		require.ErrorAs(t, err, &left)
		require.Equal(t, 2, left.Calls)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "Drain: not drained: 2 calls left")

		p.refuses(b, another("later"))
		ended := began(func() error { return b.Drain(context.Background()) })
		hangUp(t, first.d, first.peer)
		require.Empty(t, ended)
		require.NoError(t, second.d.Reject(context.Background(), 486, "Busy Here"))
		second.next("486 INVITE")
		second.acknowledge(1)
		require.NoError(t, <-ended)
	})
}

// A call that takes the place of one that is here cannot go elsewhere (RFC 3891 3).
func TestDrainAdmitsACallThatReplacesOneOfThisStack(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP)
		old := w.incoming(b, w.peer("10.0.0.21"))
		ctx, cancel := context.WithCancel(context.Background())
		ended := began(func() error { return b.Drain(ctx) })
		synctest.Wait()
		w.peer(peerIP).refuses(b, another("new"))
		heir := w.rings(b, w.peer("10.0.0.22"), withHeaders("Replaces: "+old.naming()))
		accepted := began(func() error { return heir.d.Accept(context.Background(), withSDP(answerSDP)) })
		old.reply(old.next("BYE"), dialogtest.Response{Code: 200})
		heir.next("200 INVITE")
		heir.acknowledge(1)
		require.NoError(t, <-accepted)
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		hangUp(t, heir.d, heir.peer)
	})
}

func TestDrainAndShutdownMayCross(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		unstarted, err := dialog.NewStack(nil)
		require.NoError(t, err)
		require.ErrorIs(t, unstarted.Drain(context.Background()), dialog.ErrNotStarted)
		var none context.Context
		require.ErrorIs(t, unstarted.Drain(none), dialog.ErrInvalidArgument)

		b := w.stack(stackIP)
		l := w.incoming(b, w.peer(peerIP))
		var waits []<-chan error
		for range 3 {
			waits = append(waits, began(func() error { return b.Drain(context.Background()) }))
		}
		synctest.Wait()
		shut := began(func() error { return b.Shutdown(context.Background()) })
		l.reply(l.next("BYE"), dialogtest.Response{Code: 200})
		require.NoError(t, <-shut)
		for _, wait := range waits {
			require.ErrorIs(t, <-wait, dialog.ErrShutdown)
		}
		require.ErrorIs(t, b.Drain(context.Background()), dialog.ErrShutdown)
	})
}

// Once Drain has returned nil there is no call, however close an INVITE came.
func TestNoCallBeginsBehindTheEndOfDrain(t *testing.T) {
	for range 50 {
		bubble(t, func(t *testing.T, w *world) {
			b, p := w.stack(stackIP), w.scriptedPeer(peerIP)
			var drained atomic.Bool
			var late atomic.Int32
			b.OnIncomingDialog(func(d dialog.IDialog) {
				if drained.Load() {
					late.Add(1)
				}
				_ = d.Reject(context.Background(), 486, "Busy Here")
			})
			atOnce(2, func(i int) {
				if i == 0 {
					p.calls(b, 20)
					return
				}
				if err := b.Drain(context.Background()); err != nil {
					t.Errorf("drain: %v", err)
				}
				drained.Store(true)
				if n := len(b.Dialogs()); n != 0 {
					t.Errorf("%d calls behind the end of Drain", n)
				}
			})
			synctest.Wait()
			require.Zero(t, late.Load())
			p.close()
		})
	}
}
