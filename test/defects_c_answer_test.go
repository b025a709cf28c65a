package test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
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

// The rows C6 to C9: who decides a call that arrives, and what becomes of its 2xx.

// C6: CANCEL is answered 200 and the INVITE 487, both with the To tag of the
// 180; the dialog ends; nothing can answer any more.
func TestCANCELEndsARingingCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, func(r *dialogtest.Request) { r.Branch = "z9hG4bKcancelled" })
		seen := watch(l.d)
		cancel := p.Request(dialogtest.Request{
			Method: "CANCEL", URI: l.stackURI, From: l.peerURI, FromTag: farTag, Branch: "z9hG4bKcancelled",
			Headers: []string{`Reason: SIP;cause=200;text="Call completed elsewhere"`},
		})
		require.NoError(t, p.Send(b.Addr(), cancel))
		p.next("200 CANCEL")
		p.next("487 INVITE")
		for _, what := range []string{"180 INVITE", "200 CANCEL", "487 INVITE"} {
			require.Equal(t, l.stackTag, testkit.ToTag(w.one(stackIP, what).msg), what)
		}
		require.NotEmpty(t, l.stackTag)
		require.Empty(t, testkit.ToTag(w.one(stackIP, "100 INVITE").msg))
		synctest.Wait()
		require.ErrorIs(t, l.d.Accept(context.Background()), dialog.ErrTerminated)
		require.ErrorIs(t, l.d.Reject(context.Background(), 486, ""), dialog.ErrTerminated)
		require.Equal(t, []dialog.DialogState{dialog.DialogStateTerminated}, seen.seen())
		require.Equal(t, "remote CANCEL 487 Call completed elsewhere", l.d.Cause().String())

		// The 487 repeats until its ACK, which repeats the INVITE's branch.
		time.Sleep(time.Second)
		require.Equal(t, []time.Duration{0, 500 * time.Millisecond}, times(w.sent(stackIP, "487 INVITE")))
		require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{
			Method: "ACK", URI: l.stackURI, From: l.peerURI, FromTag: farTag, ToTag: l.stackTag, Branch: "z9hG4bKcancelled",
		})))
		time.Sleep(time.Minute)
		require.Len(t, w.sent(stackIP, "487 INVITE"), 2)
		require.Empty(t, w.sent(stackIP, "200 INVITE"))
	})
}

// C6: a CANCEL that comes while Accept is being decided wins, and the 200 is
// never sent.
func TestAcceptThatLosesToCANCELSendsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, func(r *dialogtest.Request) { r.Branch = "z9hG4bKcancelled" })
		err := l.d.Accept(context.Background(), func(*sip.Response) {
			if err := p.Send(b.Addr(), p.Request(dialogtest.Request{
				Method: "CANCEL", URI: l.stackURI, From: l.peerURI, FromTag: farTag, Branch: "z9hG4bKcancelled",
			})); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		})
		require.ErrorIs(t, err, dialog.ErrAnswered)
		p.next("487 INVITE")
		p.quiet("200 INVITE", time.Minute)
		require.Equal(t, dialog.DialogStateTerminated, l.d.State())
	})
}

// C6: a CANCEL after the 200 has no effect but its own 200 (RFC 3261 9.2).
func TestCANCELAfterTheAnswerChangesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, func(r *dialogtest.Request) { r.Branch = "z9hG4bKcancelled" })
		require.NoError(t, l.d.Accept(context.Background()))
		p.next("200 INVITE")
		require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{
			Method: "CANCEL", URI: l.stackURI, From: l.peerURI, FromTag: farTag, Branch: "z9hG4bKcancelled",
		})))
		require.Equal(t, l.stackTag, testkit.ToTag(p.next("200 CANCEL").Message))
		l.acknowledge(1)
		p.quiet("487 INVITE", time.Second)
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		l.hangUp(p)
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

// twoHundreds is when a 2xx leaves that nobody acknowledges (RFC 3261
// 13.3.1.4): T1, doubling up to T2, for 64*T1.
func twoHundreds(t1, t2 time.Duration) []time.Duration {
	var list []time.Duration
	for at, interval := time.Duration(0), t1; at < 64*t1; at, interval = at+interval, min(2*interval, t2) {
		list = append(list, at)
	}
	return list
}

// C9: a 2xx repeats, byte for byte, until 64*T1; then BYE.
func TestAnswerNobodyAcknowledgesRepeatsAndEndsWithBYE(t *testing.T) {
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

// C9, RFC 3261 15: the callee's BYE waits for the ACK, or for 64*T1.
func TestBYEOfTheCalleeWaitsForTheACK(t *testing.T) {
	for _, acked := range []bool{true, false} {
		t.Run(strconv.FormatBool(acked), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				l := w.rings(b, p)
				require.NoError(t, l.d.Accept(context.Background()))
				result := began(func() error { return l.d.Bye(context.Background(), "enough") })
				time.Sleep(10 * time.Second)
				require.Empty(t, w.sent(stackIP, "BYE"))
				wait := 32 * time.Second
				if acked {
					l.acknowledge(1)
					wait = 10 * time.Second
				}
				p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
				require.NoError(t, <-result)
				bye := w.one(stackIP, "BYE")
				require.Equal(t, wait, bye.at.Sub(w.sent(stackIP, "200 INVITE")[0].at))
				require.Equal(t, `SIP;text="enough"`, bye.value(t, "Reason"))
				require.Equal(t, "local BYE enough", l.d.Cause().String())
			})
		})
	}
}

// RFC 3261 13.2.2.4: an offer in a 2xx is answered in its ACK also where the BYE
// follows at once: in a call that was given up, and in a further fork.
func TestOfferInA2xxOfACallThatIsReleased(t *testing.T) {
	for _, givenUp := range []bool{true, false} {
		bubble(t, func(t *testing.T, w *world) {
			f := w.forks(dialog.InviteOpts{})
			f.says("A", 180, "")
			f.says("B", 180, "")
			if givenUp {
				require.NoError(t, f.d.Close())
				f.next("CANCEL")
			} else {
				f.says("A", 200, offerSDP)
				require.Empty(t, f.at["A"].next("ACK").Message.Body(), "nobody decides, and there is no session")
			}
			f.says("B", 200, offerSDP)
			ack := f.at["B"].next("ACK")
			require.Contains(t, string(ack.Message.Body()), "m=audio 0 ")
			f.at["B"].reply(f.at["B"].next("BYE"), dialogtest.Response{Code: 200})
			if !givenUp {
				f.over("A")
				return
			}
			f.empty()
		})
	}
}
