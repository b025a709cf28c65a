//go:build go1.25

package dialog_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
)

// The rows C1 to C13 of what was wrong with calls that arrive.

// C1: the remote target is the caller's Contact, not our own.
func TestBYEOfTheCalleeGoesToTheContactOfTheCaller(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p, away := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP)
		l := w.incoming(b, p, withHeaders("Contact: <sip:carol@"+otherIP+":5060;x=1>"))
		bye := l.hangUp(away)
		require.Equal(t, "BYE sip:carol@"+otherIP+":5060;x=1 SIP/2.0", bye.startLine())
		require.Equal(t, away.Addr(), bye.to)
	})
}

// C2: in requests of the callee From is the callee and To the caller, with
// the tags of each.
func TestRequestsOfTheCalleeCarryTheTagsTheRightWayRound(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		require.NoError(t, l.d.Refer(context.Background(), uri("dora", otherIP), dialog.ReferOpts{}))
		reinvite := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
		l.reply(l.next("INVITE"), dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, <-reinvite)
		l.hangUp(p)
		for i, what := range []string{"REFER", "INVITE", "ACK", "BYE"} {
			m := w.one(stackIP, what)
			require.Equal(t, "<"+l.stackURI+">;tag="+l.stackTag, m.value(t, "From"), what)
			require.Equal(t, "<"+l.peerURI+">;tag="+farTag, m.value(t, "To"), what)
			require.Equal(t, l.callID, m.value(t, "Call-ID"))
			// CSeq counts from our own first request; an ACK has its INVITE's.
			seq := []int{1, 2, 2, 3}[i]
			require.Equal(t, fmt.Sprintf("%d %s", seq, what), m.value(t, "CSeq"))
		}
		require.Equal(t, dialog.DialogKey{CallID: l.callID, LocalTag: l.stackTag, RemoteTag: farTag}, l.d.Key())
	})
}

// C3: Record-Route is in the 180 and the 2xx once, as it came, and is the
// callee's route in that order.
func TestRecordRouteIsCopiedOnceAndIsTheCalleesRoute(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p, proxy := w.stack(stackIP), w.peer(peerIP), w.peer(proxyIP)
		near, far := "<sip:"+proxyIP+":5060;lr>", "<sip:p2.example:5060;lr>"
		l := w.incoming(b, p, withHeaders("Record-Route: "+near, "Record-Route: "+far))
		for _, what := range []string{"180 INVITE", "200 INVITE"} {
			require.Equal(t, []string{near, far}, w.one(stackIP, what).values("Record-Route"), what)
		}
		bye := l.hangUp(proxy)
		require.Equal(t, []string{near, far}, bye.values("Route"))
		require.Equal(t, "BYE sip:peer@"+peerIP+":5060 SIP/2.0", bye.startLine())
		require.Equal(t, proxy.Addr(), bye.to)
		require.Empty(t, w.one(stackIP, "100 INVITE").values("Record-Route"))
	})
}

// C4: the offer of the INVITE reaches an OnBody that was registered when the
// call was offered; the first to register gets it, once.
func TestOfferOfTheInviteReachesTheApplication(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		got := make(chan string, 10)
		b.OnIncomingDialog(func(d dialog.IDialog) {
			d.OnBody(func(body dialog.Body) { got <- body.ContentType() + "\n" + string(body.Data()) })
			// OnBody has returned: the kept body has been delivered.
			if len(got) != 1 {
				t.Error("the offer was not delivered when OnBody returned")
			}
			d.OnBody(func(dialog.Body) { t.Error("the offer was delivered twice") })
		})
		require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:s@" + stackIP, Body: offerSDP})))
		p.next("180 INVITE")
		synctest.Wait()
		require.Equal(t, []string{"application/sdp\n" + offerSDP}, drained(got))
	})
}

// C4: it also reaches one that registers after the callback has returned.
func TestOfferIsKeptForWhoeverRegistersLater(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		require.Equal(t, []string{"application/sdp\n" + offerSDP}, drained(bodies(l.d)))
		require.Empty(t, drained(bodies(l.d)))
	})
}

// C5: Accept works after OnIncomingDialog has returned, and a retransmitted
// INVITE, before or after, makes no second call.
func TestRetransmittedInviteIsTheSameCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p)
		b.OnIncomingDialog(func(dialog.IDialog) { t.Error("a second call was offered") })
		require.NoError(t, p.Send(b.Addr(), l.inviteText))
		again := p.next("180 INVITE")
		synctest.Wait()
		require.Equal(t, w.sent(stackIP, "180 INVITE")[0].raw, string(again.Data))

		time.Sleep(30 * time.Second)
		require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
		p.next("200 INVITE")
		require.NoError(t, p.Send(b.Addr(), l.inviteText))
		synctest.Wait()
		l.acknowledge(1)
		synctest.Wait()
		require.NoError(t, p.Send(b.Addr(), l.inviteText))
		synctest.Wait()
		require.Len(t, w.sent(stackIP, "180 INVITE"), 2)
		require.Len(t, w.sent(stackIP, "200 INVITE"), 1, "RFC 6026 7.1: absorbed")
		found, ok := b.DialogByKey(l.d.Key())
		require.True(t, ok)
		require.Same(t, l.d, found)
	})
}

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
			require.Equal(t, l.stackTag, toTagOf(w.one(stackIP, what).msg), what)
		}
		require.NotEmpty(t, l.stackTag)
		require.Empty(t, toTagOf(w.one(stackIP, "100 INVITE").msg))
		require.ErrorIs(t, l.d.Accept(context.Background()), dialog.ErrTerminated)
		require.ErrorIs(t, l.d.Reject(context.Background(), 486, ""), dialog.ErrTerminated)
		synctest.Wait()
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
		require.Equal(t, l.stackTag, toTagOf(p.next("200 CANCEL").Message))
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
		{486, "a\r\nX: y", "SIP/2.0 486 a  X: y"},
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%d %q", c.code, c.reason), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				l := w.rings(b, p)
				require.NoError(t, l.d.Reject(context.Background(), c.code, c.reason))
				m := w.one(stackIP, fmt.Sprintf("%d INVITE", c.code))
				require.Equal(t, c.line, m.startLine())
				require.Equal(t, l.stackTag, toTagOf(m.msg))
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
				require.Equal(t, "timeout ACK", l.d.Cause().String())
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

// sdpWith is a session with these media.
func sdpWith(origin, media string) string {
	return "v=0\r\no=" + origin + "\r\ns=-\r\nc=IN IP4 10.0.0.9\r\nt=0 0\r\n" + media
}

// reinvites has the peer send a re-INVITE and returns the final answer, which it
// acknowledges.
func (l *leg) reinvites(change ...func(*dialogtest.Request)) wire {
	l.t.Helper()
	before := len(l.w.sentFinal(stackIP))
	l.ask("INVITE", change...)
	synctest.Wait()
	finals := l.w.sentFinal(stackIP)
	require.Len(l.t, finals, before+1)
	m := finals[before]
	require.Equal(l.t, l.stackTag, toTagOf(m.msg))
	require.Equal(l.t, fmt.Sprintf("%d INVITE", l.seq), m.value(l.t, "CSeq"))
	if response(m.msg).StatusCode == 200 {
		l.acknowledge(l.seq)
		synctest.Wait()
	}
	return m
}

// sentFinal returns the final answers to INVITEs that ip has sent.
func (w *world) sentFinal(ip string) []wire {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []wire
	for _, m := range w.log {
		if res, ok := m.msg.(*sip.Response); ok && m.from.Addr().String() == ip && res.StatusCode >= 200 && res.CSeq().MethodName == sip.INVITE {
			list = append(list, m)
		}
	}
	return list
}

// C10: a re-INVITE nobody decides is answered from the offer with our own
// session, not with an echo of the offer.
func TestReINVITENobodyDecidesIsAnsweredWithOurSession(t *testing.T) {
	ours := func(version int, media string) string {
		return fmt.Sprintf("v=0\r\no=bob 7 %d IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\n%s", version, media)
	}
	const origin = "far 1 2 IN IP4 10.0.0.9"
	cases := []struct{ name, offer, answer string }{
		{"the same again", sdpWith(origin, "m=audio 4000 RTP/AVP 0 8\r\na=sendrecv\r\n"), ours(2, "m=audio 5000 RTP/AVP 0\r\na=sendrecv\r\n")},
		{"hold", sdpWith(origin, "m=audio 4000 RTP/AVP 0 8\r\na=sendonly\r\n"), ours(2, "m=audio 5000 RTP/AVP 0\r\na=recvonly\r\n")},
		{"the other way", sdpWith(origin, "m=audio 4000 RTP/AVP 0\r\na=recvonly\r\n"), ours(2, "m=audio 5000 RTP/AVP 0\r\na=sendonly\r\n")},
		{"inactive", sdpWith(origin, "m=audio 4000 RTP/AVP 0\r\na=inactive\r\n"), ours(2, "m=audio 5000 RTP/AVP 0\r\na=inactive\r\n")},
		{"hold of the whole session", sdpWith(origin, "a=sendonly\r\nm=audio 4000 RTP/AVP 0\r\n"), ours(2, "m=audio 5000 RTP/AVP 0\r\na=recvonly\r\n")},
		{"no direction means both", sdpWith(origin, "m=audio 4000 RTP/AVP 0\r\n"), ours(2, "m=audio 5000 RTP/AVP 0\r\na=sendrecv\r\n")},
		{"a medium we do not have", sdpWith(origin, "m=audio 4000 RTP/AVP 0\r\nm=video 4002 RTP/AVP 99\r\na=rtpmap:99 H264/90000\r\n"), ours(2, "m=audio 5000 RTP/AVP 0\r\na=sendrecv\r\nm=video 0 RTP/AVP 99\r\n")},
		{"another medium in its place", sdpWith(origin, "m=video 4002 RTP/AVP 99\r\n"), ours(2, "m=video 0 RTP/AVP 99\r\n")},
		{"formats we do not have", sdpWith(origin, "m=audio 4000 RTP/AVP 18\r\n"), ours(2, "m=audio 0 RTP/AVP 18\r\n")},
		{"a medium that is switched off", sdpWith(origin, "m=audio 0 RTP/AVP 0\r\n"), ours(2, "m=audio 0 RTP/AVP 0\r\n")},
		{"none: our last session is the offer", "", ours(2, "m=audio 5000 RTP/AVP 0\r\na=sendrecv\r\n")},
		{"what does not parse", "this is no SDP", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				l := w.incoming(b, p)
				heard := bodies(l.d)
				drained(heard)
				m := l.reinvites(withBody(c.offer))
				require.Equal(t, "SIP/2.0 200 OK", m.startLine())
				require.Equal(t, c.answer, m.body())
				if c.answer != "" {
					require.Equal(t, "application/sdp", m.value(t, "Content-Type"))
				} else {
					require.Empty(t, m.values("Content-Type"))
				}
				require.Equal(t, strconv.Itoa(len(c.answer)), m.value(t, "Content-Length"))
				require.Len(t, m.values("Contact"), 1)
				if c.offer != "" {
					require.Equal(t, []string{"application/sdp\n" + c.offer}, drained(heard))
				}
				require.Equal(t, dialog.DialogStateEstablished, l.d.State())
			})
		})
	}
}

// C10: each further answer raises the version in o= once more (RFC 3264 8), and
// resuming restores what hold has changed.
func TestReINVITEsRaiseTheVersionOfOurSession(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		for i, turn := range [][2]string{{"sendonly", "recvonly"}, {"sendrecv", "sendrecv"}, {"inactive", "inactive"}} {
			m := l.reinvites(withBody(sdpWith(fmt.Sprintf("far 1 %d IN IP4 10.0.0.9", i+2), "m=audio 4000 RTP/AVP 0\r\na="+turn[0]+"\r\n")))
			require.Contains(t, m.body(), fmt.Sprintf("o=bob 7 %d IN IP4 10.0.0.2\r\n", i+2))
			require.Contains(t, m.body(), "a="+turn[1]+"\r\n")
		}
	})
}

// C10: with no session of our own there is nothing to answer with.
func TestReINVITEWithoutASessionOfOurOwnGetsNoBody(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p)
		require.NoError(t, l.d.Accept(context.Background()))
		l.acknowledge(1)
		m := l.reinvites(withBody(offerSDP))
		require.Equal(t, "SIP/2.0 200 OK", m.startLine())
		require.Empty(t, m.body())
		require.Equal(t, "0", m.value(t, "Content-Length"))
	})
}

// C10: the caller's side answers with what it offered.
func TestReINVITEToTheCallerIsAnsweredWithItsOffer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(a, p)
		m := l.reinvites(withBody(sdpWith("far 1 2 IN IP4 10.0.0.9", "m=audio 4000 RTP/AVP 8\r\na=sendonly\r\n")))
		require.Equal(t, "v=0\r\no=alice 1 2 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\na=recvonly\r\n", m.body())
	})
}

func requireRetryAfter(t *testing.T, m wire) {
	t.Helper()
	require.Equal(t, "SIP/2.0 500 Server Internal Error", m.startLine())
	seconds, err := strconv.Atoi(m.value(t, "Retry-After"))
	require.NoError(t, err)
	require.True(t, seconds >= 0 && seconds <= 10, "%d", seconds)
}

// C10: a second INVITE while the first still rings is not accepted: 500 with
// Retry-After (RFC 3261 14.2).
func TestINVITEWhileRingingGets500(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p)
		requireRetryAfter(t, l.reinvites(withBody(offerSDP)))
		require.Equal(t, dialog.DialogStateRinging, l.d.State())
		require.NoError(t, l.d.Accept(context.Background()))
	})
}

// C10: while our re-INVITE is open the peer's gets 491, and a second one of
// ours does not leave.
func TestReINVITEsThatCross(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP, withoutRetry), w.peer(peerIP)
		l := w.incoming(b, p)
		result := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
		mine := p.next("INVITE")
		require.Equal(t, "SIP/2.0 491 Request Pending", l.reinvites(withBody(offerSDP)).startLine())
		require.ErrorIs(t, l.d.ReInvite(context.Background(), offer(offerSDP)), dialog.ErrPending)
		p.reply(mine, dialogtest.Response{Code: 491})
		var refused *dialog.ResponseError
		require.ErrorAs(t, <-result, &refused)
		require.Equal(t, 491, refused.StatusCode)
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		require.Equal(t, "SIP/2.0 200 OK", l.reinvites(withBody(offerSDP)).startLine())
	})
}

// C10, RFC 5407 3.1.4, 3.1.5: a re-INVITE that overtakes the ACK is taken when
// offer and answer are complete, and gets 491 when our offer in the 2xx is not
// answered.
func TestReINVITEBeforeTheACK(t *testing.T) {
	for _, c := range []struct{ first, line string }{
		{offerSDP, "SIP/2.0 200 OK"},
		{"", "SIP/2.0 491 Request Pending"},
	} {
		t.Run(c.line, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				l := w.rings(b, p, withBody(c.first))
				require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
				l.ask("INVITE", withBody(offerSDP))
				synctest.Wait()
				finals := w.sentFinal(stackIP)
				require.Len(t, finals, 2)
				require.Equal(t, c.line, finals[1].startLine())
				// The late ACK still belongs to the first 200.
				l.acknowledge(1)
				l.acknowledge(2)
				time.Sleep(time.Minute)
				require.Len(t, w.sent(stackIP, "BYE"), 0)
			})
		})
	}
}

// C10: an offerless INVITE's 2xx carries our offer; the ACK's answer reaches the
// application.
func TestAnswerInTheACKReachesTheApplication(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, withBody(""))
		heard := bodies(l.d)
		require.NoError(t, l.d.Accept(context.Background(), withSDP(offerSDP)))
		l.acknowledge(1, withBody(answerSDP))
		synctest.Wait()
		require.Equal(t, []string{"application/sdp\n" + answerSDP}, drained(heard))
	})
}

// C10: OnOffer decides a re-INVITE; its answer is the body of the 200, and the
// target refreshes.
func TestOnOfferAnswersAReINVITE(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p, away := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP)
		l := w.incoming(b, p)
		offers := make(chan string, 1)
		l.d.OnOffer(func(_ context.Context, offer dialog.Body) (dialog.Body, error) {
			offers <- offer.ContentType() + "\n" + string(offer.Data())
			return dialog.NewBody("application/sdp", []byte("v=0\r\n")), nil
		})
		m := l.reinvites(withBody(offerSDP), withHeaders("Contact: <sip:moved@"+otherIP+":5060>"))
		require.Equal(t, "application/sdp\n"+offerSDP, <-offers)
		require.Equal(t, "SIP/2.0 200 OK", m.startLine())
		require.Equal(t, "v=0\r\n", m.body())
		require.Equal(t, "BYE sip:moved@"+otherIP+":5060 SIP/2.0", l.hangUp(away).startLine())
	})
}

// C10: an offerless re-INVITE asks OnOffer for an offer.
func TestOnOfferMakesTheOfferOfAnOfferlessReINVITE(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		l.d.OnOffer(func(_ context.Context, offer dialog.Body) (dialog.Body, error) {
			if len(offer.Data()) != 0 {
				t.Error("an offer came from nowhere")
			}
			return dialog.NewBody("application/sdp", []byte(offerSDP)), nil
		})
		require.Equal(t, offerSDP, l.reinvites().body())
	})
}

// C10, RFC 3261 14.2: a refused offer gets 488 with a Warning; session and
// target stay as they were.
func TestOnOfferRefusesAReINVITE(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return nil, errors.New("no") })
		m := l.reinvites(withBody(sdpWith("far 1 2 IN IP4 10.0.0.9", "m=audio 0 RTP/AVP 0\r\n")), withHeaders("Contact: <sip:moved@"+otherIP+":5060>"))
		require.Equal(t, "SIP/2.0 488 Not Acceptable Here", m.startLine())
		require.Regexp(t, `^399 \S+ ".+"$`, m.value(t, "Warning"))
		require.Empty(t, m.body())
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())

		l.d.OnOffer(nil)
		require.Contains(t, l.reinvites(withBody(offerSDP)).body(), "o=bob 7 2 IN IP4 10.0.0.2\r\n", "the session of before")
		require.Equal(t, "BYE sip:peer@"+peerIP+":5060 SIP/2.0", l.hangUp(p).startLine())
	})
}

// C10: target of a refused re-INVITE, without a successful one after it.
func TestRefusedReINVITEDoesNotRefreshTheTarget(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return nil, errors.New("no") })
		l.reinvites(withBody(offerSDP), withHeaders("Contact: <sip:moved@"+otherIP+":5060>"))
		require.Equal(t, "BYE sip:peer@"+peerIP+":5060 SIP/2.0", l.hangUp(p).startLine())
	})
}

// C10: an OnOffer that panics gets the peer 500, and costs the call nothing.
func TestOnOfferThatPanicsGets500(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { panic("oh") })
		require.Equal(t, "SIP/2.0 500 Server Internal Error", l.reinvites(withBody(offerSDP)).startLine())
		l.d.OnOffer(nil)
		require.Equal(t, "SIP/2.0 200 OK", l.reinvites(withBody(offerSDP)).startLine())
	})
}

// C10: an OnOffer that does not decide within the ringing limit: 504, and what
// it says later has no effect. Meanwhile another INVITE gets 500.
func TestOnOfferThatIsLateGets504(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		ended := make(chan error, 1)
		release := make(chan struct{})
		l.d.OnOffer(func(ctx context.Context, _ dialog.Body) (dialog.Body, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			<-release
			return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
		})
		began := time.Now()
		l.ask("INVITE", withBody(offerSDP))
		synctest.Wait()
		requireRetryAfter(t, l.reinvites(withBody(offerSDP)))
		require.ErrorIs(t, <-ended, context.DeadlineExceeded)
		synctest.Wait()
		require.Equal(t, 180*time.Second, w.one(stackIP, "504 INVITE").at.Sub(began))
		close(release)
		synctest.Wait()
		require.Len(t, w.sent(stackIP, "200 INVITE"), 1, "only the first INVITE's")
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
	})
}

// C10: a CANCEL of a re-INVITE gets that one 487; the call goes on. A BYE ends
// the call, and the re-INVITE too (RFC 3261 15.1.2).
func TestReINVITEThatIsGivenUp(t *testing.T) {
	for _, method := range []string{"CANCEL", "BYE"} {
		t.Run(method, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				l := w.incoming(b, p)
				ended := make(chan error, 1)
				l.d.OnOffer(func(ctx context.Context, _ dialog.Body) (dialog.Body, error) {
					<-ctx.Done()
					ended <- ctx.Err()
					return nil, ctx.Err()
				})
				l.ask("INVITE", withBody(offerSDP), func(r *dialogtest.Request) { r.Branch = "z9hG4bKopen" })
				synctest.Wait()
				l.ask(method, func(r *dialogtest.Request) {
					if method == "CANCEL" {
						r.Branch, r.CSeq = "z9hG4bKopen", 2
					}
				})
				require.ErrorIs(t, <-ended, context.Canceled)
				p.next("487 INVITE")
				synctest.Wait()
				w.one(stackIP, "200 "+method)
				require.Equal(t, method == "BYE", l.d.State() == dialog.DialogStateTerminated)
			})
		})
	}
}

// C10: the 200 to a re-INVITE repeats like any other; without its ACK the call
// ends (RFC 3261 14.2).
func TestReINVITEWithoutACKEndsTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		time.Sleep(time.Minute)
		l.ask("INVITE", withBody(offerSDP))
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
		synctest.Wait()
		list := w.sent(stackIP, "200 INVITE")[1:]
		require.Equal(t, twoHundreds(500*time.Millisecond, 4*time.Second), times(list))
		require.Equal(t, 32*time.Second, w.one(stackIP, "BYE").at.Sub(list[0].at))
		require.Equal(t, "timeout ACK", l.d.Cause().String())
	})
}

// C10: ReInvite needs an established call, and after Accept the ACK.
func TestReInviteWaitsForTheACK(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p)
		err := l.d.ReInvite(context.Background(), offer(offerSDP))
		require.ErrorIs(t, err, dialog.ErrState)
		require.ErrorContains(t, err, "Established state")
		require.NoError(t, l.d.Accept(context.Background()))
		result := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
		time.Sleep(3 * time.Second)
		require.Empty(t, w.sent(stackIP, "INVITE"))
		l.acknowledge(1)
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, <-result)
	})
}

// C10: a re-INVITE of ours that is only ever provisionally answered is cancelled
// after the ringing limit; one that the application gives up, at once. The call
// goes on.
func TestReInviteThatIsGivenUpIsCancelled(t *testing.T) {
	for _, c := range []struct {
		name  string
		ctx   time.Duration
		after time.Duration
		final int
		err   error
	}{
		{"limit", time.Hour, 180 * time.Second, 487, dialog.ErrTimeout},
		{"context", 5 * time.Second, 5 * time.Second, 487, context.DeadlineExceeded},
		{"a 200 that crosses", 5 * time.Second, 5 * time.Second, 200, context.DeadlineExceeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p := w.stack(stackIP), w.peer(peerIP)
				l := w.outgoing(a, p)
				ctx, cancel := context.WithTimeout(context.Background(), c.ctx)
				defer cancel()
				start := time.Now()
				result := began(func() error { return l.d.ReInvite(ctx, offer(offerSDP)) })
				again := p.next("INVITE")
				p.reply(again, dialogtest.Response{Code: 180})
				require.ErrorIs(t, <-result, c.err)
				require.Equal(t, c.after, time.Since(start))
				p.reply(p.next("CANCEL"), dialogtest.Response{Code: 200})
				m := w.one(stackIP, "CANCEL")
				require.Equal(t, "2 CANCEL", m.value(t, "CSeq"))
				require.Equal(t, farTag, toTagOf(m.msg))
				require.ErrorIs(t, l.d.ReInvite(context.Background(), offer(offerSDP)), dialog.ErrPending)
				p.reply(again, dialogtest.Response{Code: c.final, Body: answerSDP})
				synctest.Wait()
				require.Equal(t, "2 ACK", w.last(stackIP, "ACK").value(t, "CSeq"))
				require.Equal(t, dialog.DialogStateEstablished, l.d.State())
				require.Equal(t, "SIP/2.0 200 OK", l.reinvites(withBody(offerSDP)).startLine())
			})
		})
	}
}

// C11, RFC 3261 12.2.2: a CSeq that is not higher than the last gets 500; a
// retransmission gets its answer again; an ACK may have any.
func TestCSeqOfThePeerIsChecked(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		numbered := func(seq uint32) func(*dialogtest.Request) {
			return func(r *dialogtest.Request) { r.CSeq = seq }
		}
		text := l.ask("INFO", numbered(10))
		first := p.next("200 INFO")
		require.NoError(t, p.Send(b.Addr(), text))
		require.Equal(t, string(first.Data), string(p.next("200 INFO").Data))
		for _, seq := range []uint32{10, 9, 1} {
			l.ask("INFO", numbered(seq))
			require.Equal(t, seq, p.next("500 INFO").Response().CSeq().SeqNo)
		}
		// None of these has moved the number.
		l.ask("INFO", numbered(11))
		p.next("200 INFO")
		// A gap is no fault.
		l.ask("INFO", numbered(4000))
		p.next("200 INFO")
		l.ask("BYE", numbered(3999))
		p.next("500 BYE")
		synctest.Wait()
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		l.ask("BYE", numbered(4001))
		p.next("200 BYE")
		synctest.Wait()
		require.Equal(t, dialog.DialogStateTerminated, l.d.State())
	})
}

// C11: what a user agent has to understand inside a call is not answered 405.
func TestMethodsInsideACall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		l.ask("INFO", withHeaders("Content-Type: application/dtmf-relay"), withBody("Signal=1\r\n"))
		p.next("200 INFO")
		l.ask("INFO", withHeaders("Info-Package: x"))
		p.next("469 INFO")
		synctest.Wait()
		require.Len(t, w.one(stackIP, "469 INFO").values("Recv-Info"), 1)

		l.ask("OPTIONS")
		p.next("200 OPTIONS")
		synctest.Wait()
		options := w.one(stackIP, "200 OPTIONS")
		require.Contains(t, options.value(t, "Allow"), "NOTIFY, INFO")
		require.Equal(t, "application/sdp", options.value(t, "Accept"))
		require.Equal(t, "norefersub", options.value(t, "Supported"))

		l.ask("NOTIFY", withHeaders("Event: refer", "Subscription-State: active"))
		p.next("481 NOTIFY")
		l.ask("NOTIFY", withHeaders("Event: presence", "Subscription-State: active"))
		p.next("489 NOTIFY")
		synctest.Wait()
		require.Equal(t, "refer", w.one(stackIP, "489 NOTIFY").value(t, "Allow-Events"))

		l.ask("MESSAGE")
		p.next("405 MESSAGE")
		synctest.Wait()
		require.Contains(t, w.one(stackIP, "405 MESSAGE").value(t, "Allow"), "INVITE")
		l.ask("NONSENSE")
		p.next("501 NONSENSE")
		synctest.Wait()
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
	})
}

// C12: a call nobody answers gets 480 after the ringing limit, and makes room
// for another. Meanwhile it rings again every minute (RFC 3261 13.3.1.1).
func TestCallNobodyAnswersEndsWithTheRingingLimit(t *testing.T) {
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

// C12: a BYE before the answer is answered 200 and the INVITE 487 (RFC 3261
// 15.1.2).
func TestBYEBeforeTheAnswerEndsTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p)
		l.ask("BYE")
		p.next("200 BYE")
		p.next("487 INVITE")
		synctest.Wait()
		require.Equal(t, l.stackTag, toTagOf(w.one(stackIP, "487 INVITE").msg))
		require.Equal(t, uint32(1), w.one(stackIP, "487 INVITE").msg.CSeq().SeqNo)
		require.Equal(t, dialog.DialogStateTerminated, l.d.State())
		require.Equal(t, "remote BYE", l.d.Cause().String())
		require.ErrorIs(t, l.d.Accept(context.Background()), dialog.ErrTerminated)
		_, ok := b.DialogByKey(l.d.Key())
		require.False(t, ok)
	})
}

// C13: NOTIFY has a legal Event id, an expiry, a sipfrag that ends its line,
// and one Content-Length (RFC 3515 2.4, RFC 6665 4.2.2).
func TestNOTIFYIsWellFormed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		l.ask("REFER", withHeaders("Refer-To: <sip:dora@"+otherIP+">"))
		p.next("202 REFER")
		check := func(seq int, state, body string) {
			t.Helper()
			p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
			synctest.Wait()
			m := w.last(stackIP, "NOTIFY")
			require.Equal(t, "NOTIFY sip:peer@"+peerIP+":5060 SIP/2.0", m.startLine())
			require.Equal(t, fmt.Sprintf("%d NOTIFY", seq), m.value(t, "CSeq"))
			require.Equal(t, "refer;id=2", m.value(t, "Event"))
			require.Equal(t, state, m.value(t, "Subscription-State"))
			require.Equal(t, "message/sipfrag;version=2.0", m.value(t, "Content-Type"))
			require.Equal(t, strconv.Itoa(len(body)), m.value(t, "Content-Length"))
			require.Equal(t, body, m.body())
			require.Equal(t, "<"+l.target+">", m.value(t, "Contact"))
			require.Equal(t, l.stackTag, fromTagOf(m.msg))
			require.Equal(t, farTag, toTagOf(m.msg))
		}
		check(1, "active;expires=180", "SIP/2.0 100 Trying\r\n")
		r, ok := l.d.GetReferSubscription("2 REFER")
		require.True(t, ok)
		require.Equal(t, []*dialog.ReferSubscription{r}, l.d.GetAllReferSubscriptions())

		time.Sleep(30 * time.Second)
		sent := began(func() error { return r.SendNotify(context.Background(), 180, "Ringing") })
		check(2, "active;expires=150", "SIP/2.0 180 Ringing\r\n")
		require.NoError(t, <-sent)
		sent = began(func() error { return r.SendNotify(context.Background(), 200, "O\r\nK") })
		check(3, "terminated;reason=noresource", "SIP/2.0 200 O  K\r\n")
		require.NoError(t, <-sent)
		require.ErrorIs(t, r.SendNotify(context.Background(), 200, "OK"), dialog.ErrNoSubscription)
		require.Empty(t, l.d.GetAllReferSubscriptions())
	})
}

// C13: a subscription that nobody ends says so when its time is over.
func TestSubscriptionEndsWithItsTime(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		l.ask("REFER", withHeaders("Refer-To: <sip:dora@"+otherIP+">"))
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		time.Sleep(170 * time.Second)
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		synctest.Wait()
		list := w.sent(stackIP, "NOTIFY")
		require.Equal(t, []time.Duration{0, 180 * time.Second}, times(list))
		require.Equal(t, "terminated;reason=timeout", list[1].value(t, "Subscription-State"))
		require.Empty(t, l.d.GetAllReferSubscriptions())
	})
}
