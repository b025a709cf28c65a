package test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// What offers and answers have in them that nobody decides (RFC 3264, RFC 6337 5).

// wideSDP is a session with two streams and several formats each.
const wideSDP = "v=0\r\no=alice 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\n" +
	"m=audio 4000 RTP/AVP 9 0 8 101\r\na=rtpmap:9 G722/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\n" +
	"m=video 4002 RTP/AVP 31 34\r\n"

// farSDP is a session of the peer's with these media.
func farSDP(lines ...string) string {
	return sdpWith("far 1 2 IN IP4 10.0.0.9", strings.Join(lines, "\r\n")+"\r\n")
}

// mLines are the m= lines of a body.
func mLines(body string) []string {
	return regexp.MustCompile(`m=[^\r\n]*`).FindAllString(body, -1)
}

// offers has the peer offer by INVITE or UPDATE, and returns the final answer, which
// it acknowledges.
func (l *peerCall) offers(method, body string, change ...func(*dialogtest.Request)) *sip.Response {
	l.t.Helper()
	l.ask(method, append([]func(*dialogtest.Request){withBody(body)}, change...)...)
	seq := l.seq
	for {
		res := l.peer.final(method)
		if res.CSeq().SeqNo != seq {
			continue
		}
		if method == "INVITE" && res.StatusCode == 200 {
			l.acknowledge(seq)
			synctest.Wait()
		}
		return res
	}
}

// answered checks the m= lines of the answer to an offer.
func (l *peerCall) answered(method, offer string, lines ...string) string {
	l.t.Helper()
	res := l.offers(method, offer)
	require.Equal(l.t, 200, res.StatusCode)
	require.Equal(l.t, lines, mLines(string(res.Body())))
	return string(res.Body())
}

// says answers the stack's re-INVITE, which change begins, and returns its body.
func (l *peerCall) says(change func(context.Context) error, answer string) string {
	l.t.Helper()
	result := began(func() error { return change(context.Background()) })
	in := l.next("INVITE")
	l.reply(in, dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: answer})
	require.NoError(l.t, <-result)
	l.next("ACK")
	return string(in.Message.Body())
}

// wide is a call whose application has said wideSDP, as its offer or as its answer.
func (w *world) wide(caller bool) *peerCall {
	w.t.Helper()
	s, p := w.stack(stackIP), w.peer(peerIP)
	if caller {
		l := w.calls(s, p, offer(wideSDP))
		l.answer(dialogtest.Response{Code: 200, Body: farSDP("m=audio 4000 RTP/AVP 0", "m=video 0 RTP/AVP 31")})
		require.NoError(w.t, l.d.WaitAnswer(context.Background()))
		p.next("ACK")
		synctest.Wait()
		return l
	}
	l := w.rings(s, p, withBody(farSDP("m=audio 4000 RTP/AVP 0 8 9 101", "m=video 4002 RTP/AVP 31 34")))
	require.NoError(w.t, l.d.Accept(context.Background(), withSDP(wideSDP)))
	p.next("200 INVITE")
	l.acknowledge(1)
	synctest.Wait()
	return l
}

// FS1, FS2: what one offer of the peer's leaves out, be it a format, an attribute or
// a stream, is there for the next one, and for offers of ours.
func TestNothingThatAnOfferTakesAwayIsLost(t *testing.T) {
	const audio, video = "m=audio 4000 RTP/AVP 9 0 8 101", "m=video 4002 RTP/AVP 31 34"
	for _, caller := range []bool{true, false} {
		for _, method := range []string{"INVITE", "UPDATE"} {
			t.Run(fmt.Sprintf("%s, caller %t", method, caller), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					l := w.wide(caller)
					l.answered(method, farSDP("m=audio 4000 RTP/AVP 8", "m=video 0 RTP/AVP 31"), "m=audio 4000 RTP/AVP 8", "m=video 0 RTP/AVP 31")
					l.answered(method, farSDP("m=audio 4000 RTP/AVP 0", "m=video 4000 RTP/AVP 34"), "m=audio 4000 RTP/AVP 0", "m=video 4002 RTP/AVP 34")
					l.answered(method, farSDP("m=audio 0 RTP/AVP 0", "m=video 0 RTP/AVP 34"), "m=audio 0 RTP/AVP 0", "m=video 0 RTP/AVP 34")
					body := l.answered(method, farSDP("m=audio 4000 RTP/AVP 0 9", "m=video 0 RTP/AVP 31"), "m=audio 4000 RTP/AVP 9 0", "m=video 0 RTP/AVP 31")
					require.NotContains(t, body, ":101 ")
					body = l.answered(method, farSDP("m=audio 4000 RTP/AVP 0 101\r\na=sendonly", "m=video 4002 RTP/AVP 31"), "m=audio 4000 RTP/AVP 0 101", "m=video 4002 RTP/AVP 31")
					require.Contains(t, body, "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=recvonly\r\n")

					l.answered(method, farSDP("m=audio 0 RTP/AVP 8", "m=video 0 RTP/AVP 31"), "m=audio 0 RTP/AVP 8", "m=video 0 RTP/AVP 31")
					held := l.says(l.d.Hold, farSDP("m=audio 4000 RTP/AVP 8\r\na=recvonly", "m=video 0 RTP/AVP 31"))
					require.Equal(t, []string{audio, video}, mLines(held))
					require.Equal(t, 2, strings.Count(held, "a=sendonly\r\n"))
					l.answered(method, farSDP("m=audio 4000 RTP/AVP 8", "m=video 0 RTP/AVP 31"), "m=audio 4000 RTP/AVP 8", "m=video 0 RTP/AVP 31")
					require.Equal(t, []string{audio, video}, mLines(l.says(l.d.Resume, farSDP("m=audio 4000 RTP/AVP 8", "m=video 0 RTP/AVP 31"))))

					l.answered(method, farSDP("m=audio 0 RTP/AVP 8", "m=video 0 RTP/AVP 31", "m=image 0 udptl t38"), "m=audio 0 RTP/AVP 8", "m=video 0 RTP/AVP 31", "m=image 0 udptl t38")
					l.answered("INVITE", "", audio, video, "m=image 0 udptl t38")
					l.stands(l.peer)
				})
			})
		}
	}
}

// FS1: nor is it lost when the application answers an offer itself.
func TestAnswersOfTheApplicationTakeNothingAway(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.wide(true)
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
			return dialog.NewBody("application/sdp", []byte(versioned(farSDP("m=audio 4000 RTP/AVP 8", "a=recvonly", "m=video 0 RTP/AVP 31"), 9))), nil
		})
		l.answered("INVITE", farSDP("m=audio 4000 RTP/AVP 8", "a=sendonly", "m=video 0 RTP/AVP 31"), "m=audio 4000 RTP/AVP 8", "m=video 0 RTP/AVP 31")
		l.d.OnOffer(nil)
		body := l.answered("INVITE", farSDP("m=audio 4000 RTP/AVP 0 101", "m=video 4000 RTP/AVP 34"), "m=audio 4000 RTP/AVP 0 101", "m=video 4002 RTP/AVP 34")
		require.Equal(t, 2, strings.Count(body, "a=sendrecv\r\n"), "the hold was the peer's")
		l.stands(l.peer)
	})
}

// FS1, RFC 4028 7.4: a refresh offers what is wanted; where that stands it is the
// same, byte by byte.
func TestRefreshOffersWhatIsWanted(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.calls(w.stack(stackIP), w.peer(peerIP), offer(wideSDP))
		timed := []string{contactOfPeer, "Session-Expires: 90;refresher=uac", "Require: timer"}
		l.answer(dialogtest.Response{Code: 200, Headers: timed, Body: farSDP("m=audio 4000 RTP/AVP 0", "m=video 0 RTP/AVP 31")})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		refreshed := func() string {
			in := l.next("INVITE")
			l.reply(in, dialogtest.Response{Code: 200, Headers: timed, Body: farSDP("m=audio 4000 RTP/AVP 0", "m=video 0 RTP/AVP 31")})
			l.next("ACK")
			return string(in.Message.Body())
		}
		require.Equal(t, wideSDP, refreshed())
		l.offers("INVITE", farSDP("m=audio 4000 RTP/AVP 8", "m=video 0 RTP/AVP 31"), withHeaders("Session-Expires: 90;refresher=uas", "Supported: timer"))
		require.Equal(t, versioned(wideSDP, 3), refreshed())
		require.Equal(t, versioned(wideSDP, 3), refreshed())
		l.stands(l.peer)
	})
}

// FS3: what nobody knows is refused, and the rest goes on.
func TestLinesThatNobodyKnowsAreRefused(t *testing.T) {
	const audio = "m=audio 5000 RTP/AVP 0"
	for name, c := range map[string]struct {
		offer string
		lines []string
	}{
		"a fax that is switched off":   {farSDP("m=audio 4000 RTP/AVP 0", "m=image 0 udptl t38"), []string{audio, "m=image 0 udptl t38"}},
		"a fax beside":                 {farSDP("m=audio 4000 RTP/AVP 0", "m=image 4002 udptl t38", "a=T38FaxVersion:0"), []string{audio, "m=image 0 udptl t38"}},
		"a fax in the first place":     {farSDP("m=image 4002 udptl t38", "m=audio 4000 RTP/AVP 0"), []string{"m=image 0 udptl t38", audio}},
		"media that nobody has heard":  {farSDP("m=audio 4000 RTP/AVP 0", "m=smell 7 ODOR/1 rose lily", "m=x-y 9 a b"), []string{audio, "m=smell 0 ODOR/1 rose lily", "m=x-y 0 a b"}},
		"other transports":             {farSDP("m=audio 4000 RTP/AVP 0", "m=audio 4002 UDP/TLS/RTP/SAVPF 0", "m=application 4 TCP/WSS/BFCP *"), []string{audio, "m=audio 0 UDP/TLS/RTP/SAVPF 0", "m=application 0 TCP/WSS/BFCP *"}},
		"a secure line first":          {farSDP("m=audio 4002 RTP/SAVP 0", "a=crypto:1 x", "m=audio 4000 RTP/AVP 0"), []string{"m=audio 0 RTP/SAVP 0", audio}},
		"bandwidth after the time":     {strings.Replace(farSDP("m=audio 4000 RTP/AVP 0"), "t=0 0\r\n", "t=0 0\r\nb=AS:64\r\n", 1), []string{audio}},
		"bandwidth that nobody knows":  {farSDP("b=XYZ:abc", "m=audio 4000 RTP/AVP 0", "b=TIAS:64000.5"), []string{audio}},
		"no time":                      {strings.Replace(farSDP("m=audio 4000 RTP/AVP 0"), "t=0 0\r\n", "", 1), []string{audio}},
		"no session name, no address":  {"v=0\r\no=far 1 2 IN IP4 10.0.0.9\r\nm=audio 4000 RTP/AVP 0\r\n", []string{audio}},
		"an address of another kind":   {strings.ReplaceAll(farSDP("m=audio 4000 RTP/AVP 0"), "IN IP4 10.0.0.9", "TN RFC2543 +1-201"), []string{audio}},
		"a session that is no number":  {strings.Replace(farSDP("m=audio 4000 RTP/AVP 0"), "far 1 2 ", "far me/1 99999999999999999999 ", 1), []string{audio}},
		"lines that nobody knows":      {farSDP("y=0100000001", "f=v/2/5", "m=audio 4000 RTP/AVP 0", "y=1"), []string{audio}},
		"a URI that is none":           {farSDP("u=http://%zz", "m=audio 4000 RTP/AVP 0"), []string{audio}},
		"a number of ports":            {farSDP("m=audio 4000/2 RTP/AVP 0"), []string{audio}},
		"a port that cannot be":        {farSDP("m=audio 4000 RTP/AVP 0", "m=audio 70000 RTP/AVP 0"), []string{audio, "m=audio 0 RTP/AVP 0"}},
		"a line without a format":      {farSDP("m=audio 4000 RTP/AVP 0", "m=video 4002 RTP/AVP"), []string{audio, "m=video 0 RTP/AVP 0"}},
		"all switched off":             {farSDP("m=audio 0 RTP/AVP 0", "m=image 0 udptl t38"), []string{"m=audio 0 RTP/AVP 0", "m=image 0 udptl t38"}},
		"a session without any stream": {"v=0\r\no=far 1 2 IN IP4 10.0.0.9\r\ns=-\r\nt=0 0\r\n", nil},
	} {
		for _, method := range []string{"INVITE", "UPDATE"} {
			t.Run(name+" "+method, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					l := w.incoming(w.stack(stackIP), w.peer(peerIP))
					body := l.answered(method, c.offer, c.lines...)
					require.Contains(t, body, "o=bob 7 2 IN IP4 10.0.0.2\r\n")
					require.Contains(t, body, "t=0 0\r\n")
					l.answered(method, offerSDP, audio)
					l.stands(l.peer)
				})
			})
		}
	}
}

// FS3, FS6, RFC 3261 14.2, 20.43: what has no acceptable line, and what cannot be
// read, is refused, and the Warning says why; session and target stay.
func TestOfferThatCannotBeAccepted(t *testing.T) {
	for name, c := range map[string]struct {
		offer, warning string
	}{
		"a fax alone":            {farSDP("m=image 4000 udptl t38"), "^304 "},
		"a fax for the audio":    {farSDP("m=audio 0 RTP/AVP 0", "m=image 4000 udptl t38"), "^304 "},
		"other formats":          {farSDP("m=audio 4000 RTP/AVP 18"), "^305 "},
		"keys without sound":     {farSDP("m=audio 4000 RTP/AVP 101", "a=rtpmap:101 telephone-event/8000"), "^305 "},
		"another transport":      {farSDP("m=audio 4000 RTP/SAVP 0"), "^304 "},
		"no SDP":                 {notSDP, "^399 "},
		"half of one":            {"v=0\r\no=far 1 2 IN IP4 10.0.0.9\r\nm=audio\r\n", "^399 "},
		"another version of SDP": {strings.Replace(offerSDP, "v=0", "v=1", 1), "^399 "},
		"only its first line":    {"v=0\r\n", "^399 "},
	} {
		for _, method := range []string{"INVITE", "UPDATE"} {
			t.Run(name+" "+method, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					l := w.incoming(w.stack(stackIP), w.peer(peerIP))
					res := l.offers(method, c.offer, withHeaders("Contact: <sip:moved@10.0.0.9:5060>"))
					require.Equal(t, 488, res.StatusCode)
					require.Regexp(t, c.warning+`\S+ ".+"$`, value(res, "Warning"))
					require.Empty(t, res.Body())
					require.Equal(t, "peer", l.d.Info().RemoteTarget.User)
					require.Contains(t, l.answered(method, offerSDP, "m=audio 5000 RTP/AVP 0"), "o=bob 7 2 ", "the session of before")
					l.stands(l.peer)
				})
			})
		}
	}
}

// FS3, RFC 3261 13.2.2.4: an offer that we asked for cannot be refused but by port 0
// in every line, and the end of the call.
func TestOfferThatWeAskedForAndCannotAccept(t *testing.T) {
	for _, reliable := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
			r := l.renegotiates(context.Background(), "")
			answer := ""
			if reliable {
				r.says(183, farSDP("m=image 4000 udptl t38"), reliably(1)...)
				answer = r.acknowledged("1 2 INVITE", 200)
			} else {
				r.says(200, farSDP("m=image 4000 udptl t38"))
				answer = string(l.next("ACK").Message.Body())
			}
			require.Contains(t, answer, "o=alice 1 2 ")
			require.Equal(t, []string{"m=image 0 udptl t38"}, mLines(answer))
			bye := l.next("BYE")
			require.Contains(t, value(bye.Message, "Reason"), "488")
			l.reply(bye, dialogtest.Response{Code: 200})
			if reliable {
				r.says(487, "")
			}
			<-r.ended
			l.settled(w.stacks[0])
		})
	}
}

// FS3: so it is in a PRACK, whose 200 cannot be withheld (RFC 3262 3): what is wanted
// is offered anew.
func TestOfferInAPRACKThatCannotBeAccepted(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l, early := w.answeredEarly("Allow: INVITE, UPDATE, PRACK")
		refused := string(l.pracked(early.Message, withBody(farSDP("m=image 4000 udptl t38"))).Body())
		require.Equal(t, []string{"m=image 0 udptl t38"}, mLines(refused))
		require.Contains(t, refused, "o=bob 7 2 ")
		again := l.next("UPDATE")
		require.Contains(t, string(again.Message.Body()), "o=bob 7 3 ")
		require.Equal(t, []string{"m=audio 5000 RTP/AVP 0"}, mLines(string(again.Message.Body())))
		l.reply(again, dialogtest.Response{Code: 200, Body: offerSDP})
		synctest.Wait()
		require.NoError(t, l.d.Accept(context.Background()))
		l.next("200 INVITE")
		l.acknowledge(1)
		l.stands(l.peer)
	})
}

// FS5: the ends of lines do not matter, the peer's and the application's own.
func TestLineEndsDoNotMatter(t *testing.T) {
	lf := func(text string) string { return strings.ReplaceAll(text, "\r\n", "\n") }
	for name, write := range map[string]func(string) string{
		"LF":                   lf,
		"no last line end":     func(text string) string { return strings.TrimSuffix(text, "\r\n") },
		"LF, and none at last": func(text string) string { return strings.TrimSuffix(lf(text), "\n") },
		"CR":                   func(text string) string { return strings.ReplaceAll(text, "\r\n", "\r") },
		"blank lines":          func(text string) string { return strings.ReplaceAll(text, "\r\n", "\r\n\r\n") },
	} {
		for _, callee := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", callee ", callee), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
					calls := waiting(b)
					d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(write(offerSDP)))
					require.NoError(t, err)
					far, near := <-calls, d.(*dialog.Dialog)
					require.NoError(t, far.Accept(context.Background(), withSDP(write(answerSDP))))
					require.NoError(t, near.WaitAnswer(context.Background()))
					synctest.Wait()
					if callee {
						near, far = far, near
					}
					require.NoError(t, near.Hold(context.Background()))
					require.NoError(t, far.ReInvite(context.Background(), offer(write(versioned(held(offerSDP), 7)))))
					require.NoError(t, far.Hold(context.Background()))
					require.NoError(t, near.Resume(context.Background()))
					require.NoError(t, far.Resume(context.Background()))
					ip := map[bool]string{true: "10.0.0.1", false: "10.0.0.2"}[callee]
					last := w.last(ip, "INVITE").body()
					require.Contains(t, last, "\r\na=sendrecv\r\n")
					require.NotContains(t, strings.ReplaceAll(last, "\r\n", ""), "\n")
					require.NoError(t, near.Bye(context.Background(), ""))
				})
			})
		}
	}
}
