package test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// However a call ends that has reliable responses without PRACK, the INVITE gets
// one final answer, nothing repeats, a late PRACK its 200, and nothing stays.
func TestCallThatEndsWhileAPRACKIsAwaited(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name  string
		end   func(l *peerCall) error
		final string
	}{
		{"CANCEL", func(l *peerCall) error { l.cancels(); return nil }, "487 INVITE"},
		{"BYE", func(l *peerCall) error { l.ask("BYE"); return nil }, "487 INVITE"},
		{"Reject", func(l *peerCall) error { return l.d.Reject(ctx, 486, "") }, "486 INVITE"},
		{"Close", func(l *peerCall) error { return l.d.Close() }, "480 INVITE"},
		{"Hangup", func(l *peerCall) error { return l.d.Hangup(ctx) }, "480 INVITE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l, early := w.answeredEarly()
				l.progress(183, withSDP(answerSDP)) // one that waits
				accepted := began(func() error { return l.d.Accept(ctx) })
				time.Sleep(time.Second)
				synctest.Wait()
				repeated := len(w.sent(stackIP, "183 INVITE"))
				require.NoError(t, c.end(l))
				l.next(c.final)
				require.ErrorIs(t, <-accepted, dialog.ErrAnswered)
				require.Empty(t, l.pracked(early.Message).Body())
				l.quiet("183 INVITE", 40*time.Second)
				require.Len(t, w.sent(stackIP, "183 INVITE"), repeated)
				require.Empty(t, w.sent(stackIP, "200 INVITE"))
				l.prack(early.Message)
				l.next("481 PRACK")
				l.settled(w.stacks[0])
			})
		})
	}
}

func TestShutdownWhileAPRACKIsAwaited(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l, _ := w.answeredEarly()
		l.progress(183, withSDP(answerSDP))
		accepted := began(func() error { return l.d.Accept(context.Background()) })
		synctest.Wait()
		require.NoError(t, w.stacks[0].Shutdown(context.Background()))
		l.next("503 INVITE")
		require.ErrorIs(t, <-accepted, dialog.ErrAnswered)
		require.Zero(t, testkit.Held(w.stacks[0]))
	})
}

// The ringing limit runs on while Accept waits.
func TestRingingLimitWhileAPRACKIsAwaited(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP, func(c *dialog.StackConfig) { c.RingingLimit = 10 * time.Second }), w.peer(peerIP)
		l := w.rings(b, p, withHeaders(knows))
		l.progress(183, withSDP(answerSDP))
		require.ErrorIs(t, l.d.Accept(context.Background()), dialog.ErrAnswered)
		p.next("480 INVITE")
		l.settled(b)
	})
}

// PRACK, CANCEL and BYE that cross Accept: one final answer, whichever it is,
// and the PRACK always gets its 200.
func TestPRACKCrossesEverything(t *testing.T) {
	for _, with := range []string{"CANCEL", "BYE"} {
		for _, first := range []bool{true, false} {
			bubble(t, func(t *testing.T, w *world) {
				l, early := w.answeredEarly()
				accepted := began(func() error { return l.d.Accept(context.Background()) })
				synctest.Wait()
				end := func() {
					if with == "BYE" {
						l.ask("BYE")
					} else {
						l.cancels()
					}
				}
				if first {
					end()
				}
				l.prack(early.Message)
				if !first {
					end()
				}
				synctest.Wait()
				require.Len(t, w.sent(stackIP, "200 PRACK"), 1)
				require.Len(t, w.sent(stackIP, "200 "+with), 1)
				if err := <-accepted; err != nil {
					require.ErrorIs(t, err, dialog.ErrAnswered)
					require.Len(t, w.sent(stackIP, "487 INVITE"), 1)
					require.Empty(t, w.sent(stackIP, "200 INVITE"))
				} else {
					require.Empty(t, w.sent(stackIP, "487 INVITE"))
					l.acknowledge(1)
					synctest.Wait()
					if with == "CANCEL" {
						l.hangUp(l.peer)
					}
				}
				l.settled(w.stacks[0])
			})
		}
	}
}

// Provisional, Accept and PRACKs from everywhere at once: the numbers rise by
// one, and each response waits for the one before.
func TestProvisionalResponsesFromManyGoroutines(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, withHeaders(demands))
		var all sync.WaitGroup
		for range 8 {
			all.Add(1)
			go func() {
				defer all.Done()
				_ = l.d.Provisional(context.Background(), 183, "", withSDP(answerSDP))
			}()
		}
		all.Wait()
		accepted := began(func() error { return l.d.Accept(context.Background()) })
		last := w.sent(stackIP, "180 INVITE")[0].msg
		for range 8 {
			l.pracked(last)
			next := p.next("183 INVITE").Message
			require.Equal(t, testkit.RSeq(last)+1, testkit.RSeq(next))
			last = next
		}
		synctest.Wait()
		require.Empty(t, w.sent(stackIP, "200 INVITE"))
		l.pracked(last)
		require.NoError(t, <-accepted)
		p.next("200 INVITE")
		l.acknowledge(1)
		synctest.Wait()
		l.hangUp(p)
		l.settled(b)
	})
}

// An INVITE that is repeated while a reliable response waits gets it again.
func TestINVITEAgainWhileAPRACKIsAwaited(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l, early := w.answeredEarly()
		require.NoError(t, l.Send(l.stack, l.inviteText))
		require.Equal(t, string(early.Data), string(l.next("183 INVITE").Data))
		l.pracked(early.Message)
		require.NoError(t, l.d.Reject(context.Background(), 486, ""))
		l.ask("PRACK", withHeaders(rackFor(early.Message)), func(r *dialogtest.Request) { r.FromTag = "other" })
		l.next("481 PRACK")
	})
}

// A session that is sent reliably while Accept waits for the send slot is to be
// agreed upon first (RFC 3262 3): Accept looks again.
func TestAcceptWaitsForAPRACKThatBecomesDueMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		// Nobody has that address: the connection is never made.
		l := w.rings(b, p, withHeaders(knows, "Contact: <sip:caller@10.0.0.44:5060;transport=tcp>"))
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		stuck := began(func() error { _, err := l.d.Update(ctx, nil); return err })
		synctest.Wait()
		accepted := began(func() error { return l.d.Accept(context.Background()) })
		synctest.Wait()
		l.progress(183, withSDP(answerSDP))
		early := p.next("183 INVITE").Message
		require.Error(t, <-stuck)
		synctest.Wait()
		require.Empty(t, accepted)
		require.Empty(t, w.sent(stackIP, "200 INVITE"))
		l.pracked(early)
		require.NoError(t, <-accepted)
		p.next("200 INVITE")
		l.acknowledge(1)
		l.ask("BYE")
		p.next("200 BYE")
		l.settled(b)
	})
}

// The final answer waits for a reliable response that is being written, so that
// none leaves after it (RFC 3262 3).
func TestAcceptWaitsForAReliableResponseThatIsBeingWritten(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, withHeaders(knows))
		let := make(chan struct{})
		w.net.SetPolicy(func(packet dialogtest.Packet) []time.Duration {
			if strings.HasPrefix(string(packet.Data), "SIP/2.0 182") {
				<-let
			}
			return []time.Duration{0}
		})
		provided := began(func() error {
			return l.d.Provisional(context.Background(), 182, "", dialog.WithReliable())
		})
		synctest.Wait()
		accepted := began(func() error { return l.d.Accept(context.Background(), withSDP(answerSDP)) })
		synctest.Wait()
		require.Empty(t, w.sent(stackIP, "200 INVITE"))
		close(let)
		require.NoError(t, <-provided)
		require.NoError(t, <-accepted)
		p.next("182 INVITE")
		p.next("200 INVITE")
		l.acknowledge(1)
		synctest.Wait()
		l.hangUp(p)
	})
}
