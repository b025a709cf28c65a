package test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// Re-INVITEs, of the peer and of ours (RFC 3261 14).

// sdpWith is a session with these media.
func sdpWith(origin, media string) string {
	return "v=0\r\no=" + origin + "\r\ns=-\r\nc=IN IP4 10.0.0.9\r\nt=0 0\r\n" + media
}

// reinvites has the peer send a re-INVITE and returns the final answer, which it
// acknowledges.
func (l *peerCall) reinvites(change ...func(*dialogtest.Request)) wire {
	l.t.Helper()
	before := len(l.w.sentFinal(stackIP))
	l.ask("INVITE", change...)
	synctest.Wait()
	finals := l.w.sentFinal(stackIP)
	require.Len(l.t, finals, before+1)
	m := finals[before]
	require.Equal(l.t, l.stackTag, testkit.ToTag(m.msg))
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

// C10: an undecided re-INVITE is answered from the offer with our own session, not with an
// echo of the offer.
func TestReINVITEWithoutADecisionIsAnsweredWithOurSession(t *testing.T) {
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
		{"a medium that is switched off", sdpWith(origin, "m=audio 0 RTP/AVP 0\r\n"), ours(2, "m=audio 0 RTP/AVP 0\r\n")},
		{"none: our last session is the offer", "", ours(2, "m=audio 5000 RTP/AVP 0\r\na=sendrecv\r\n")},
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
				require.Equal(t, "application/sdp", m.value(t, "Content-Type"))
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

// RFC 3264 5.1: a dynamic payload type is what its rtpmap says, and that may be
// another codec on each side.
func TestPayloadTypesThatAreOtherCodecsAreNotAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.rings(w.stack(stackIP), w.peer(peerIP))
		ours := strings.Replace(answerSDP, "RTP/AVP 0", "RTP/AVP 0 96 97\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:96 opus/48000/2\r\na=rtpmap:97 telephone-event/8000", 1)
		require.NoError(t, l.d.Accept(context.Background(), withSDP(ours)))
		l.acknowledge(1)
		synctest.Wait()
		const theirs = "m=audio 4000 RTP/AVP 97 96 0\r\na=rtpmap:97 opus/48000/2\r\na=rtpmap:96 OPUS/48000/2\r\na=rtpmap:0 PCMU/8000/1\r\n"
		answer := l.reinvites(withBody(sdpWith("far 1 2 IN IP4 10.0.0.9", theirs))).body()
		require.Contains(t, answer, "m=audio 5000 RTP/AVP 0 96\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:96 opus/48000/2\r\na=sendrecv\r\n")
		l.hangUp(l.peer)
	})
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

// C10: while our re-INVITE is open, with an offer or without, the peer's gets 491,
// and a second one of ours does not leave.
func TestReINVITEsThatCross(t *testing.T) {
	for _, opts := range []dialog.InviteOpts{offer(offerSDP), {}} {
		bubble(t, func(t *testing.T, w *world) {
			b, p := w.stack(stackIP, withoutRetry), w.peer(peerIP)
			l := w.incoming(b, p)
			result := began(func() error { return l.d.ReInvite(context.Background(), opts) })
			mine := p.next("INVITE")
			require.Equal(t, "SIP/2.0 491 Request Pending", l.reinvites(withBody(offerSDP)).startLine())
			require.ErrorIs(t, l.d.ReInvite(context.Background(), opts), dialog.ErrPending)
			p.reply(mine, dialogtest.Response{Code: 491})
			var refused *dialog.ResponseError
			require.ErrorAs(t, <-result, &refused)
			require.Equal(t, 491, refused.StatusCode)
			require.Equal(t, dialog.DialogStateEstablished, l.d.State())
			require.Equal(t, "SIP/2.0 200 OK", l.reinvites(withBody(offerSDP)).startLine())
		})
	}
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
		require.Equal(t, versioned(offerSDP, 2), l.reinvites().body())
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

// RFC 3261 14.2, RFC 3311 5.2: a bridge whose other call is busy has the peer try
// again.
func TestOnOfferWithoutAFreeOtherCallGets491(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		d, inside := w.called(b, p, answerSDP)
		d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
			return nil, fmt.Errorf("other call: %w", dialog.ErrPending)
		})
		for seq, method := range []string{"INVITE", "UPDATE"} {
			r := inside(method, uint32(11+seq), contactOfPeer)
			r.Body = offerSDP
			res := p.ask(b, r)
			require.Equal(t, 491, res.StatusCode, method)
			require.Empty(t, testkit.Value(res, "Warning"))
		}
		hangUp(t, d, p)
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
// it says later has no effect. Meanwhile another INVITE gets 500, and none of ours
// leaves, whether there is an offer or one is asked for.
func TestOnOfferThatIsLateGets504(t *testing.T) {
	for _, body := range []string{offerSDP, ""} {
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
			l.ask("INVITE", withBody(body))
			synctest.Wait()
			requireRetryAfter(t, l.reinvites(withBody(body)))
			require.ErrorIs(t, l.d.ReInvite(context.Background(), dialog.InviteOpts{}), dialog.ErrPending)
			require.ErrorIs(t, <-ended, context.DeadlineExceeded)
			synctest.Wait()
			require.Equal(t, 180*time.Second, w.one(stackIP, "504 INVITE").at.Sub(began))
			close(release)
			synctest.Wait()
			require.Len(t, w.sent(stackIP, "200 INVITE"), 1, "only the first INVITE's")
			require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		})
	}
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
		require.Equal(t, "timeout ACK no ACK", l.d.Cause().String())
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
				require.Equal(t, farTag, testkit.ToTag(m.msg))
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

// RFC 3261 14.2.
func TestSecondReInviteHasToWait(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		decide := make(chan struct{})
		d.OnOffer(func(ctx context.Context, offer dialog.Body) (dialog.Body, error) {
			<-decide
			return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
		})
		require.NoError(t, p.Send(b.Addr(), p.Request(inside("INVITE", 11, contactOfPeer))))
		p.next("100 INVITE")
		res := p.ask(b, inside("INVITE", 12, contactOfPeer))
		require.Equal(t, 500, res.StatusCode)
		seconds, err := strconv.Atoi(testkit.Value(res, "Retry-After"))
		require.NoError(t, err)
		require.True(t, seconds >= 0 && seconds <= 10)
		close(decide)
		require.Equal(t, 200, p.final("INVITE").StatusCode)
		require.NoError(t, p.Send(b.Addr(), p.Request(inside("ACK", 11))))
		hangUp(t, d, p)
	})
}

// askBare is ask without the Contact that the peer's requests are given.
func (l *peerCall) askBare(method string, change ...func(*dialogtest.Request)) {
	l.t.Helper()
	text := regexp.MustCompile("(?m)^Contact: .*\n").ReplaceAllString(l.Request(l.made(method, change...)), "")
	require.NoError(l.t, l.Send(l.stack, text))
}

// FD1. RFC 3261 12.2.1.1, 12.2.2: a target refresh request should have a Contact,
// and where it has none there is nothing to refresh.
func TestReInviteWithoutContactKeepsTheTarget(t *testing.T) {
	const moved = "Contact: <sip:moved@" + otherIP + ":5060>"
	for name, made := range map[string]func(w *world, p *peer) *peerCall{
		"callee": func(w *world, p *peer) *peerCall { return w.incoming(w.stack(stackIP), p) },
		"caller": func(w *world, p *peer) *peerCall { return w.outgoing(w.stack(stackIP), p) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p, other := w.peer(peerIP), w.peer(otherIP)
				l := made(w, p)
				before := l.d.Info().RemoteTarget

				l.askBare("INVITE", withBody(offerSDP))
				require.Equal(t, 200, l.peer.final("INVITE").StatusCode)
				l.acknowledge(l.seq)
				l.askBare("UPDATE")
				require.Equal(t, 200, l.peer.final("UPDATE").StatusCode)
				synctest.Wait()
				require.Equal(t, before, l.d.Info().RemoteTarget)

				// One that has a Contact moves it, and the next without leaves it there.
				l.ask("INVITE", withHeaders(moved), withBody(offerSDP))
				require.Equal(t, 200, l.peer.final("INVITE").StatusCode)
				l.acknowledge(l.seq)
				l.askBare("INVITE")
				require.Equal(t, 200, l.peer.final("INVITE").StatusCode)
				l.acknowledge(l.seq)
				synctest.Wait()
				require.Equal(t, "BYE sip:moved@"+otherIP+":5060 SIP/2.0", l.hangUp(other).startLine())
			})
		})
	}
}

// A Contact is optional, but if there is one, it must be exactly one SIP URI inside a dialog
// too.
func TestReInviteWithABadContactGets400(t *testing.T) {
	for _, bad := range []string{
		"Contact: <sip:a@10.0.0.9>, <sip:b@10.0.0.8>", "Contact: <tel:+431234>", "Contact: *",
	} {
		bubble(t, func(t *testing.T, w *world) {
			p := w.peer(peerIP)
			l := w.incoming(w.stack(stackIP), p)
			l.ask("INVITE", withHeaders(bad), withBody(offerSDP))
			require.Equal(t, 400, l.peer.final("INVITE").StatusCode, bad)
			l.hangUp(p)
		})
	}
}

// A 2xx of the peer's without a Contact does not move the target either.
func TestAnswerWithoutContactKeepsTheTarget(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.outgoing(w.stack(stackIP), p)
		before := l.d.Info().RemoteTarget
		done := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
		re := p.next("INVITE")
		bare := regexp.MustCompile("(?m)^Contact: .*\n").ReplaceAllString(
			p.Response(re.Request(), dialogtest.Response{Code: 200, Body: answerSDP}), "")
		require.NoError(t, p.Send(l.stack, bare))
		require.NoError(t, <-done)
		p.next("ACK")
		require.Equal(t, before, l.d.Info().RemoteTarget)
		l.hangUp(p)
	})
}

// A re-INVITE that the peer had begun to answer outlived the call that the peer
// ended.
func TestReInviteEndsWithTheCallThatThePeerEnds(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(a, p)
		result := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 180})
		synctest.Wait()
		l.ask("BYE")
		p.next("200 BYE")
		require.ErrorIs(t, <-result, dialog.ErrTerminated)
		time.Sleep(time.Hour)
		require.Zero(t, testkit.Held(a).Transactions)
	})
}

// The result of a late 2xx to a re-INVITE was written while ReInvite read it.
func TestLateAnswerToAReInviteOfAnEndedCallIsAcknowledgedOnly(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		result := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
		re := l.peer.next("INVITE")
		l.ask("BYE")
		l.reply(re, dialogtest.Response{Code: 200, Body: answerSDP})
		require.ErrorIs(t, <-result, dialog.ErrTerminated)
		synctest.Wait()
		require.Equal(t, "2 ACK", w.last(stackIP, "ACK").value(t, "CSeq"))
	})
}

// A re-INVITE that was still being dialled when the call ended was written
// afterwards, and never given up.
func TestReInviteIsNotWrittenAfterTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p, withHeaders("Contact: <sip:peer@10.0.0.66:5060;transport=tcp>"))
		result := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
		synctest.Wait() // it dials a host that is not there
		l.ask("BYE")
		require.Error(t, <-result)
		time.Sleep(time.Hour)
		require.Empty(t, w.sent(stackIP, "INVITE"))
		require.Zero(t, testkit.Held(b).Transactions)
	})
}

// A 2xx to a re-INVITE that could not be delivered ended the call here, without
// a BYE to the peer.
func TestUndeliverableAnswerToAReInviteEndsTheCallByBYE(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP, func(c *dialog.StackConfig) { c.Transport.Protocol = "tcp" })
		contact := withHeaders("Contact: <sip:p@" + peerIP + ":5070;transport=tcp>")
		l := w.incomingTCP(b, w.peer(peerIP), contact)
		decide := make(chan struct{})
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { <-decide; return nil, nil })
		l.say("INVITE", contact)
		synctest.Wait()
		require.NoError(t, l.conn.Close()) // and Via names no listener
		synctest.Wait()
		elsewhere := w.accepts(peerIP + ":5070")
		close(decide)
		time.Sleep(40 * time.Second)
		require.Equal(t, dialog.DialogStateTerminated, l.d.State())
		require.Equal(t, "BYE", testkit.Describe((<-elsewhere).read().msg))
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

// B2: a ReInvite without a final response returns, without any deadline of the caller; so does
// one that gets provisional responses only.
func TestUnansweredReInviteReturns(t *testing.T) {
	for name, c := range map[string]struct {
		provisional bool
		timeout     time.Duration
		after       time.Duration
	}{
		"never answered":                {after: 32 * time.Second},
		"never answered, own TxTimeout": {timeout: 7 * time.Second, after: 7 * time.Second},
		"provisionally answered":        {provisional: true, after: 180 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a := w.stack("10.0.0.1", func(s *dialog.StackConfig) { s.TxTimeout = c.timeout })
				p := w.peer("10.0.0.9")
				d, _ := w.toPeer(a, p)
				stop := p.answers(func(req *sip.Request) int {
					if c.provisional && req.Method == sip.INVITE {
						return 180
					}
					return 0
				})
				defer stop()
				began := time.Now()
				require.ErrorIs(t, d.ReInvite(context.Background(), offer(offerSDP)), dialog.ErrTimeout)
				require.InDelta(t, c.after.Seconds(), time.Since(began).Seconds(), 0.1)
			})
		})
	}
}

// The same for a re-INVITE. The peer's 2xx to the first copy has no transaction any more;
// without an ACK the peer hangs up, and neither side keeps half of the call.
func TestAReInviteRepeatedOnANewConnectionLeavesNoHalfCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		caller, callee := w.breaks("INVITE")
		if err := caller.ReInvite(context.Background(), offer(offerSDP)); err == nil {
			require.NoError(t, caller.Bye(context.Background(), "")) // answered in time, as above
			<-callee.Done()
			return
		}
		require.Equal(t, dialog.DialogStateEstablished, caller.State())
		<-caller.Done()
		<-callee.Done()
		require.Equal(t, dialog.PartyTimeout, callee.Cause().By)
		require.Equal(t, dialog.PartyRemote, caller.Cause().By)
	})
}
