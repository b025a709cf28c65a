package test

import (
	"bytes"
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// FD22: a re-INVITE of the peer's had been answered 100, but had to wait until its
// dialog was told: an INVITE of ours that left meanwhile broke RFC 3261 14.1.
func TestNoReInviteOfOursFollowsTheHundredToThePeers(t *testing.T) {
	for _, decides := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			hold := make(chan struct{})
			var busy atomic.Bool
			s, p := w.stack(stackIP, func(c *dialog.StackConfig) {
				c.NoRetry = true
				c.Trace = func(e dialog.TraceEvent) {
					if e.Outbound && bytes.Contains(e.Data, []byte("CSeq: 2 INFO")) && busy.CompareAndSwap(false, true) {
						<-hold // the next request of the call waits as long
					}
				}
			}), w.peer(peerIP)
			l := w.incoming(s, p)
			if decides {
				l.d.OnOffer(untilTheEnd)
			}
			l.ask("INFO")
			synctest.Wait()
			require.True(t, busy.Load())
			l.ask("INVITE", withBody(offerSDP))
			synctest.Wait()
			result := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
			synctest.Wait()
			said := l.w.flow()
			ours := slices.Index(said, stackIP+" INVITE")
			hundred := slices.Index(said[slices.Index(said, stackIP+" 200 INVITE"):], stackIP+" 100 INVITE")
			require.False(t, ours >= 0 && hundred >= 0, "our INVITE and the 100 to the peer's: %v", said)
			close(hold)
			synctest.Wait()
			// The two have crossed.
			p.next("491 INVITE")
			mine := p.next("INVITE")
			p.reply(mine, dialogtest.Response{Code: 491})
			require.Error(t, <-result)
		})
	}
}

// Once it is known, ours has to wait.
func TestReInviteWaitsForThePeersThatWasAnsweredTrying(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(s, p)
		decided := make(chan struct{})
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
			<-decided
			return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
		})
		l.ask("INVITE", withBody(offerSDP))
		trying := p.next("100 INVITE")
		require.Equal(t, uint32(2), trying.Response().CSeq().SeqNo)
		require.ErrorIs(t, l.d.ReInvite(context.Background(), offer(offerSDP)), dialog.ErrPending)
		require.Empty(t, w.sent(stackIP, string(sip.INVITE)))
		close(decided)
		p.next("200 INVITE")
		l.acknowledge(2)
		synctest.Wait()
	})
}
