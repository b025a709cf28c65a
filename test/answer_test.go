package test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// C5: an application that blocks in OnIncomingDialog for ever harms no other
// call, and another goroutine can answer.
func TestAcceptFromElsewhereWhileTheCallbackBlocks(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		calls, end := make(chan dialog.IDialog, 2), make(chan struct{})
		defer close(end)
		b.OnIncomingDialog(func(d dialog.IDialog) { calls <- d; <-end })
		for _, id := range []string{"one", "two"} {
			require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:s@" + stackIP, CallID: id, Branch: "z9hG4bK" + id})))
			p.next("180 INVITE")
			require.NoError(t, (<-calls).Accept(context.Background()))
			require.Equal(t, id, p.next("200 INVITE").Response().CallID().Value())
		}
	})
}

// C7: of Accept, Reject and Close exactly one decides the final answer.
func TestExactlyOneDecidesTheFinalAnswer(t *testing.T) {
	reject := func(d *dialog.Dialog) error { return d.Reject(context.Background(), 486, "") }
	accept := func(d *dialog.Dialog) error { return d.Accept(context.Background()) }
	cases := []struct {
		name   string
		inside func(*dialog.Dialog) error
		final  string
	}{
		{"Reject first", reject, "486 INVITE"},
		{"Accept first", accept, "200 INVITE"},
		{"Close first", func(d *dialog.Dialog) error { return d.Close() }, "480 INVITE"},
		{"Hangup first", func(d *dialog.Dialog) error { return d.Hangup(context.Background()) }, "480 INVITE"},
	}
	late := map[string]func(*dialog.Dialog, dialog.ResponseOpt) error{
		"Accept": func(d *dialog.Dialog, opt dialog.ResponseOpt) error { return d.Accept(context.Background(), opt) },
		"Reject": func(d *dialog.Dialog, opt dialog.ResponseOpt) error {
			return d.RejectWith(context.Background(), 603, "", opt)
		},
	}
	for name, second := range late {
		for _, c := range cases {
			t.Run(c.name+" then "+name, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					b, p := w.stack(stackIP), w.peer(peerIP)
					l := w.rings(b, p)
					var first error
					done := make(chan struct{})
					// The options run when the second has looked at the state
					// and has not claimed the answer yet.
					err := second(l.d, func(*sip.Response) {
						go func() { defer close(done); first = c.inside(l.d) }()
						synctest.Wait()
					})
					<-done
					require.NoError(t, first)
					require.ErrorIs(t, err, dialog.ErrAnswered)
					p.next(c.final)
					l.acknowledge(1)
					synctest.Wait()
					for _, what := range []string{"200 INVITE", "480 INVITE", "486 INVITE", "603 INVITE"} {
						require.Equal(t, what == c.final, len(w.sent(stackIP, what)) > 0, what)
					}
				})
			})
		}
	}
}

// C7: the same from many goroutines at once.
func TestManyAnswersAtOnceSendOne(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p)
		errs := make(chan error, 40)
		var all sync.WaitGroup
		for i := range cap(errs) {
			all.Add(1)
			go func() {
				defer all.Done()
				if i%2 == 0 {
					errs <- l.d.Accept(context.Background())
				} else {
					errs <- l.d.Reject(context.Background(), 486, "")
				}
			}()
		}
		all.Wait()
		won := 0
		for _, err := range drained(errs) {
			if err == nil {
				won++
				continue
			}
			require.True(t, errors.Is(err, dialog.ErrAnswered) || errors.Is(err, dialog.ErrState), "%v", err)
		}
		require.Equal(t, 1, won)
		require.Equal(t, 1, len(w.sent(stackIP, "200 INVITE"))+len(w.sent(stackIP, "486 INVITE")))
	})
}

// C7: Reject takes 300 to 699; the code and the phrase are on the wire.
func TestRejectRefusesWithTheGivenCode(t *testing.T) {
	cases := []struct {
		code   int
		reason string
		line   string
	}{
		{300, "", "SIP/2.0 300 Multiple Choices"},
		{403, "Not today", "SIP/2.0 403 Not today"},
		{404, "", "SIP/2.0 404 Not Found"},
		{480, "", "SIP/2.0 480 Temporarily Unavailable"},
		{486, "", "SIP/2.0 486 Busy Here"},
		{488, "", "SIP/2.0 488 Not Acceptable Here"},
		{503, "", "SIP/2.0 503 Service Unavailable"},
		{603, "", "SIP/2.0 603 Decline"},
		{699, "Last", "SIP/2.0 699 Last"},
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%d %q", c.code, c.reason), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				l := w.rings(b, p)
				require.NoError(t, l.d.Reject(context.Background(), c.code, c.reason))
				m := w.one(stackIP, fmt.Sprintf("%d INVITE", c.code))
				require.Equal(t, c.line, m.startLine())
				require.Equal(t, l.stackTag, testkit.ToTag(m.msg))
				require.Equal(t, dialog.DialogStateTerminated, l.d.State())
				require.Equal(t, dialog.PartyLocal, l.d.Cause().By)
			})
		})
	}
}

// C7: Reject(200) is refused, and leaves the call as it was.
func TestRejectTakesFailuresOnly(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p)
		for _, code := range []int{-1, 0, 100, 180, 200, 202, 299, 700, 1000} {
			require.ErrorIs(t, l.d.Reject(context.Background(), code, ""), dialog.ErrInvalidArgument, code)
		}
		require.ErrorIs(t, l.d.Reject(context.Background(), 486, "a\r\nX: y"), dialog.ErrInvalidArgument)
		require.Equal(t, dialog.DialogStateRinging, l.d.State())
		require.NoError(t, l.d.Accept(context.Background()))
		require.ErrorIs(t, l.d.Reject(context.Background(), 486, ""), dialog.ErrState)
		require.ErrorIs(t, l.d.Accept(context.Background()), dialog.ErrState)
		l.acknowledge(1)
		synctest.Wait()
		require.Equal(t, []string{"10.0.0.9 INVITE", "10.0.0.1 100 INVITE", "10.0.0.1 180 INVITE", "10.0.0.1 200 INVITE", "10.0.0.9 ACK"}, w.flow())
	})
}

// An option could make a refusal of a 200, a 200 of a refusal, and the call's
// state was wrong.
func TestOptionMayNotChangeTheStatus(t *testing.T) {
	to := func(code int) dialog.ResponseOpt { return func(r *sip.Response) { r.StatusCode = code } }
	ctx := context.Background()
	for name, answer := range map[string]func(d *dialog.Dialog) error{
		"Accept":      func(d *dialog.Dialog) error { return d.Accept(ctx, to(486)) },
		"RejectWith":  func(d *dialog.Dialog) error { return d.RejectWith(ctx, 486, "", to(200)) },
		"Provisional": func(d *dialog.Dialog) error { return d.Provisional(ctx, 183, "", to(200)) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l := w.rings(w.stack(stackIP), w.peer(peerIP))
				require.ErrorIs(t, answer(l.d), dialog.ErrInvalidArgument)
				synctest.Wait()
				require.Equal(t, dialog.DialogStateRinging, l.d.State())
				require.Empty(t, w.sent(stackIP, "200 INVITE"))
				require.Empty(t, w.sent(stackIP, "486 INVITE"))
			})
		})
	}
}

// C8: the dialog is Established before the first byte of the 200 leaves.
func TestStateIsEstablishedWhenThe200Leaves(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p)
		var leaving []dialog.DialogState
		w.net.Tap(func(packet dialogtest.Packet) {
			if strings.HasPrefix(string(packet.Data), "SIP/2.0 200") {
				leaving = append(leaving, l.d.State())
			}
		})
		require.NoError(t, l.d.Accept(context.Background()))
		require.Equal(t, []dialog.DialogState{dialog.DialogStateEstablished}, leaving)
		// A REFER that comes upon the 200, before the ACK, is taken.
		l.ask("REFER", withHeaders("Refer-To: <sip:dora@"+otherIP+">"))
		p.next("202 REFER")
	})
}

// twoHundreds are the times of a 2xx without an ACK (RFC 3261 13.3.1.4): T1, doubling up to
// T2, for 64*T1.
func twoHundreds(t1, t2 time.Duration) []time.Duration {
	var list []time.Duration
	for at, interval := time.Duration(0), t1; at < 64*t1; at, interval = at+interval, min(2*interval, t2) {
		list = append(list, at)
	}
	return list
}

// C9: a 2xx repeats, byte for byte, until 64*T1; then BYE.
func TestA2xxWithoutACKRepeatsAndEndsWithBYE(t *testing.T) {
	cases := []struct {
		timers dialog.Timers
		t1, t2 time.Duration
	}{
		{dialog.Timers{}, 500 * time.Millisecond, 4 * time.Second},
		{dialog.Timers{T1: 100 * time.Millisecond, T2: time.Second}, 100 * time.Millisecond, time.Second},
	}
	for _, c := range cases {
		t.Run(c.t1.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP, func(config *dialog.StackConfig) { config.Timers = c.timers }), w.peer(peerIP)
				l := w.rings(b, p)
				require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
				// An ACK to another INVITE is not the one.
				l.acknowledge(7)
				bye := p.next("BYE")
				p.reply(bye, dialogtest.Response{Code: 200})
				synctest.Wait()
				list := w.sent(stackIP, "200 INVITE")
				require.Equal(t, twoHundreds(c.t1, c.t2), times(list))
				for _, m := range list {
					require.Equal(t, list[0].raw, m.raw)
				}
				require.Equal(t, 64*c.t1, w.one(stackIP, "BYE").at.Sub(list[0].at))
				require.Equal(t, dialog.DialogStateTerminated, l.d.State())
				require.Equal(t, "timeout ACK no ACK", l.d.Cause().String())
				require.ErrorIs(t, l.d.Cause().Err, dialog.ErrTimeout)
			})
		})
	}
}

func TestTwoHundredsAreAtTheTimesOfTheRFC(t *testing.T) {
	var seconds []float64
	for _, at := range twoHundreds(500*time.Millisecond, 4*time.Second) {
		seconds = append(seconds, at.Seconds())
	}
	require.Equal(t, []float64{0, .5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5}, seconds)
}

// C9: the ACK stops the repetition.
func TestACKStopsTheRepetitionOfThe200(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p)
		require.NoError(t, l.d.Accept(context.Background()))
		time.Sleep(2 * time.Second)
		l.acknowledge(1)
		time.Sleep(time.Minute)
		require.Equal(t, []time.Duration{0, 500 * time.Millisecond, 1500 * time.Millisecond}, times(w.sent(stackIP, "200 INVITE")))
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		require.Empty(t, w.sent(stackIP, "BYE"))
	})
}

// An answer whose first write failed was not repeated, and the caller rang on.
func TestAnswerThatCouldNotBeWrittenIsRepeated(t *testing.T) {
	for what, answer := range map[string]func(*dialog.Dialog) error{
		"200 INVITE": func(d *dialog.Dialog) error { return d.Accept(context.Background(), withSDP(answerSDP)) },
		"486 INVITE": func(d *dialog.Dialog) error { return d.Reject(context.Background(), 486, "") },
	} {
		t.Run(what, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l := w.rings(w.stack(stackIP), w.peer(peerIP))
				w.net.Host(stackIP).Unreachable(true)
				require.ErrorIs(t, answer(l.d), dialog.ErrTransport)
				w.net.Host(stackIP).Unreachable(false)
				time.Sleep(10 * time.Second)
				require.NotEmpty(t, w.sent(stackIP, what))
			})
		})
	}
}

// C12: an unanswered call gets 480 after the ringing limit, and no longer counts for
// MaxDialogs. Meanwhile 180 is repeated every minute (RFC 3261 13.3.1.1).
func TestUnansweredCallEndsWithTheRingingLimit(t *testing.T) {
	cases := []struct{ limit, ends time.Duration }{{0, 180 * time.Second}, {100 * time.Second, 100 * time.Second}}
	for _, c := range cases {
		t.Run(c.ends.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.stack(stackIP, func(config *dialog.StackConfig) { config.MaxDialogs, config.RingingLimit = 1, c.limit })
				p, other := w.peer(peerIP), w.peer(otherIP)
				l := w.rings(b, p)
				another := func() {
					require.NoError(t, other.Send(b.Addr(), other.Request(dialogtest.Request{Method: "INVITE", URI: l.stackURI})))
				}
				another()
				other.next("503 INVITE")
				synctest.Wait()
				require.NotEmpty(t, w.one(stackIP, "503 INVITE").value(t, "Retry-After"))

				time.Sleep(c.ends)
				synctest.Wait()
				ringing := w.sent(stackIP, "180 INVITE")
				require.Equal(t, c.ends, w.one(stackIP, "480 INVITE").at.Sub(ringing[0].at))
				want := []time.Duration{0, time.Minute}
				if c.limit == 0 {
					want = append(want, 2*time.Minute)
				}
				// One more may leave at the very moment of the limit.
				require.Equal(t, want, slices.DeleteFunc(times(ringing), func(at time.Duration) bool { return at == c.ends }))
				require.Equal(t, "timeout INVITE", l.d.Cause().String())
				require.ErrorIs(t, l.d.Accept(context.Background()), dialog.ErrTerminated)
				another()
				other.next("180 INVITE")
			})
		})
	}
}

// C12: a negative limit is none.
func TestCallWithoutRingingLimitRingsOn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP, func(config *dialog.StackConfig) { config.RingingLimit = -1 }), w.peer(peerIP)
		l := w.rings(b, p)
		time.Sleep(time.Hour + time.Second)
		require.Equal(t, dialog.DialogStateRinging, l.d.State())
		require.Len(t, w.sent(stackIP, "180 INVITE"), 61)
		require.NoError(t, l.d.Accept(context.Background()))
	})
}

// C12: a call that is accepted in time has no limit any more.
func TestRingingLimitEndsWithTheAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		time.Sleep(time.Hour)
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		require.Len(t, w.sent(stackIP, "180 INVITE"), 1)
		require.Empty(t, w.sent(stackIP, "480 INVITE"))
	})
}

// Without automatic ringing the 100 was repeated every minute.
func TestTryingIsNotRepeatedWithoutAutoRinging(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP, func(c *dialog.StackConfig) { c.NoAutoRinging = true }), w.peer(peerIP)
		b.OnIncomingDialog(func(dialog.IDialog) {})
		w.say(p, b, p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:x@" + stackIP}))
		time.Sleep(150 * time.Second)
		w.one(stackIP, "100 INVITE")
	})
}

// C10: a second INVITE while the first still rings is not accepted: 500 with
// Retry-After (RFC 3261 14.2), whether there is an offer or not.
func TestINVITEWhileRingingGets500(t *testing.T) {
	for _, body := range []string{offerSDP, ""} {
		bubble(t, func(t *testing.T, w *world) {
			b, p := w.stack(stackIP), w.peer(peerIP)
			l := w.rings(b, p, withBody(body))
			requireRetryAfter(t, l.reinvites(withBody(body)))
			require.Equal(t, dialog.DialogStateRinging, l.d.State())
			require.NoError(t, l.d.Accept(context.Background()))
		})
	}
}

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

// A callback registered before Accept gets the offer, and an Accept without an answer keeps
// it.
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

// Bodies that are not offers are kept: the answer in the ACK, that in a PRACK, and bodies
// after Accept.
func TestOnBodyAfterAcceptHasLaterBodies(t *testing.T) {
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
		l.ask("PRACK", withHeaders("RAck: "+testkit.Value(ring.Message, "RSeq")+" 1 INVITE"), withBody(answerSDP))
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
		l.ask("PRACK", withHeaders("RAck: "+testkit.Value(got.Message, "RSeq")+" 1 INVITE"))
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
