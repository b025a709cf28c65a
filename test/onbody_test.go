package test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

// nextOffer is an SDP that differs from the others.
const nextOffer = "v=0\r\no=alice 1 2 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4002 RTP/AVP 0\r\na=sendonly\r\n"

// FD17. The pattern of applications that accept first and then ask for bodies: the
// next one they hear of is that of the re-INVITE.
func TestOnBodyAfterAcceptBeginsWithTheNextBody(t *testing.T) {
	for name, later := range map[string]bool{"in the callback": false, "later": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
				taken, got := make(chan dialog.IDialog, 1), make(chan string, 10)
				take := func(d dialog.IDialog) {
					if err := d.Accept(context.Background(), withSDP(answerSDP)); err != nil {
						t.Errorf("accept: %v", err)
					}
					d.OnBody(func(body dialog.Body) { got <- string(body.Data()) })
				}
				b.OnIncomingDialog(func(d dialog.IDialog) {
					if !later {
						take(d)
					}
					taken <- d
				})
				d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
				require.NoError(t, err)
				if later {
					take(<-taken)
				}
				caller := d.(*dialog.Dialog)
				require.NoError(t, caller.WaitAnswer(context.Background()))
				require.NoError(t, caller.ReInvite(context.Background(), offer(nextOffer)))
				synctest.Wait()
				require.Equal(t, []string{nextOffer}, drained(got))
				require.NoError(t, caller.Bye(context.Background(), ""))
			})
		})
	}
}

// Who asks before Accept has the offer, and an Accept that answers nothing keeps it.
func TestOnBodyBeforeAcceptHasTheOffer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.rings(w.stack(stackIP), p)
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		require.ErrorIs(t, l.d.Accept(ended), context.Canceled)
		require.ErrorIs(t, l.d.Accept(context.Background(), dialog.WithReliable(), func(*sip.Response) { panic("no") }), dialog.ErrPanic)
		got := bodies(l.d)
		require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
		synctest.Wait()
		require.Equal(t, []string{"application/sdp\n" + offerSDP}, drained(got))
		p.next("200 INVITE")
		l.acknowledge(1)
		l.hangUp(p)
	})
}

// What is no offer is kept: the answer in the ACK, that in a PRACK, and what comes
// after Accept.
func TestOnBodyAfterAcceptHasWhatAcceptDoesNotAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.rings(w.stack(stackIP), p, withBody(""))
		require.NoError(t, l.d.Accept(context.Background(), withSDP(offerSDP)))
		p.next("200 INVITE")
		l.acknowledge(1, withBody(answerSDP))
		synctest.Wait()
		require.Equal(t, []string{"application/sdp\n" + answerSDP}, drained(bodies(l.d)))
		l.hangUp(p)
	})
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.incoming(w.stack(stackIP), p)
		l.ask("INVITE", withBody(nextOffer))
		require.Equal(t, 200, l.peer.final("INVITE").StatusCode)
		l.acknowledge(l.seq)
		synctest.Wait()
		require.Equal(t, []string{"application/sdp\n" + nextOffer}, drained(bodies(l.d)), "it came after Accept")
		l.hangUp(p)
	})
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.rings(w.stack(stackIP), p, withBody(""), withHeaders("Supported: 100rel"))
		require.NoError(t, l.d.Provisional(context.Background(), 183, "", withSDP(offerSDP)))
		ring := p.next("183 INVITE")
		l.ask("PRACK", withHeaders("RAck: "+value(ring.Message, "RSeq")+" 1 INVITE"), withBody(answerSDP))
		require.Equal(t, 200, l.peer.final("PRACK").StatusCode)
		require.NoError(t, l.d.Accept(context.Background()))
		require.Equal(t, []string{"application/sdp\n" + answerSDP}, drained(bodies(l.d)), "an answer is what the application needs")
		p.next("200 INVITE")
		l.acknowledge(1)
		l.hangUp(p)
	})
}

// An UPDATE before the answer has been answered too.
func TestOnBodyAfterAcceptIsNotToldOfAnEarlyUpdate(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.rings(w.stack(stackIP), p, withHeaders("Supported: 100rel"))
		require.NoError(t, l.d.Provisional(context.Background(), 183, "", withSDP(answerSDP)))
		got := p.next("183 INVITE")
		l.ask("PRACK", withHeaders("RAck: "+value(got.Message, "RSeq")+" 1 INVITE"))
		require.Equal(t, 200, l.peer.final("PRACK").StatusCode)
		l.ask("UPDATE", withBody(nextOffer))
		require.Equal(t, 200, l.peer.final("UPDATE").StatusCode)
		require.NoError(t, l.d.Accept(context.Background()))
		require.Empty(t, drained(bodies(l.d)))
		p.next("200 INVITE")
		l.acknowledge(1)
		l.hangUp(p)
	})
}
