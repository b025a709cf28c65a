package test

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// Default offers and answers (RFC 3264, RFC 6337 5).

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
func TestRefreshOffersTheWantedSession(t *testing.T) {
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

// FS3: unknown lines are refused, and the others accepted.
func TestUnknownLinesAreRefused(t *testing.T) {
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
					require.Regexp(t, c.warning+`\S+ ".+"$`, testkit.Value(res, "Warning"))
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
			require.Contains(t, testkit.Value(bye.Message, "Reason"), "488")
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

// FD24, RFC 3264 8, RFC 6337 5.2.5: the version in our o= line never goes back, and
// goes up with each change, whoever wrote the SDP.

// said are the SDPs that the stack has sent, in order, a repetition once.
func (w *world) said(ip string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []string
	for _, m := range w.log {
		body := m.body()
		if m.from.Addr().String() == ip && strings.Contains(body, "v=0") && (len(list) == 0 || list[len(list)-1] != body) {
			list = append(list, body)
		}
	}
	return list
}

// versionOf is the version in an SDP's o= line.
func versionOf(t *testing.T, body string) int {
	t.Helper()
	found := regexp.MustCompile(`o=\S+ \S+ (\d+) IN`).FindStringSubmatch(body)
	require.NotNil(t, found, body)
	version, err := strconv.Atoi(found[1])
	require.NoError(t, err)
	return version
}

// versionsRise checks all that the stack has said, and returns the versions.
func (w *world) versionsRise(ip string) []int {
	w.t.Helper()
	var versions []int
	for i, body := range w.said(ip) {
		versions = append(versions, versionOf(w.t, body))
		if i > 0 {
			require.Greater(w.t, versions[i], versions[i-1], "%s\nafter\n%s", body, w.said(ip)[i-1])
		}
	}
	return versions
}

// sdpBody is a body of the application's.
func sdpBody(text string) dialog.Body { return dialog.NewBody("application/sdp", []byte(text)) }

// The application goes on counting where it was when Hold and Resume have counted
// behind it.
func TestSDPOfTheApplicationDoesNotGoBehindHold(t *testing.T) {
	other := strings.Replace(answerSDP, "5000", "5002", 1)
	for name, say := range map[string]func(l *peerCall, body string){
		"re-INVITE": func(l *peerCall, body string) {
			l.says(func(ctx context.Context) error { return l.d.ReInvite(ctx, dialog.InviteOpts{Body: sdpBody(body)}) }, offerSDP)
		},
		"UPDATE": func(l *peerCall, body string) {
			result := began(func() error { _, err := l.d.Update(context.Background(), sdpBody(body)); return err })
			l.reply(l.next("UPDATE"), dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: offerSDP})
			require.NoError(l.t, <-result)
		},
		"answer to a re-INVITE": func(l *peerCall, body string) {
			l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return sdpBody(body), nil })
			require.Equal(l.t, 200, l.offers("INVITE", offerSDP).StatusCode)
		},
		"offer that the peer asks for": func(l *peerCall, body string) {
			l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return sdpBody(body), nil })
			l.ask("INVITE")
			require.Equal(l.t, 200, l.peer.final("INVITE").StatusCode)
			l.acknowledge(l.seq, withBody(offerSDP))
			synctest.Wait()
		},
		"answer to an UPDATE": func(l *peerCall, body string) {
			l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return sdpBody(body), nil })
			require.Equal(l.t, 200, l.offers("UPDATE", offerSDP).StatusCode)
		},
		"answer in an ACK": func(l *peerCall, body string) {
			l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return sdpBody(body), nil })
			r := l.renegotiates(context.Background(), "")
			r.says(200, offerSDP)
			l.next("ACK")
			require.NoError(l.t, <-r.ended)
		},
		"answer in a PRACK": func(l *peerCall, body string) {
			l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return sdpBody(body), nil })
			r := l.renegotiates(context.Background(), "")
			r.says(183, offerSDP, reliably(1)...)
			l.reply(l.next("PRACK"), dialogtest.Response{Code: 200})
			r.says(200, "")
			l.next("ACK")
			require.NoError(l.t, <-r.ended)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l := w.incoming(w.stack(stackIP), w.peer(peerIP))
				l.says(l.d.Hold, offerSDP)
				l.says(l.d.Resume, offerSDP)
				say(l, versioned(other, 2)) // its own count
				say(l, versioned(answerSDP, 3))
				l.d.OnOffer(nil)
				l.offers("UPDATE", offerSDP)
				require.Equal(t, []int{1, 2, 3, 4, 5, 6}, w.versionsRise(stackIP))
				l.hangUp(l.peer)
			})
		})
	}
}

// An unchanged SDP keeps its version, and a higher version of the application stays.
func TestSameSDPKeepsItsVersion(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.incoming(w.stack(stackIP), w.peer(peerIP))
		again := func(body string) string {
			return l.says(func(ctx context.Context) error { return l.d.ReInvite(ctx, dialog.InviteOpts{Body: sdpBody(body)}) }, offerSDP)
		}
		require.Equal(t, answerSDP, again(answerSDP))
		require.Equal(t, versioned(answerSDP, 5), again(versioned(answerSDP, 5)))
		require.Equal(t, versioned(answerSDP, 5), again(answerSDP), "the same, which was 5")
		require.Equal(t, versioned(held(answerSDP), 6), again(held(answerSDP)))
		require.Equal(t, versioned(held(answerSDP), 9), again(versioned(held(answerSDP), 9)))
		lf := strings.ReplaceAll(versioned(answerSDP, 9), "\r\n", "\n")
		require.Equal(t, versioned(lf, 10), again(lf), "otherwise as it was written")
		require.Contains(t, l.says(l.d.Hold, offerSDP), "o=bob 7 11 ")
		require.Contains(t, again("v=0\r\no=John Doe 77 1 IN IP4 h\r\ns=-\r\n"), "o=John Doe 77 12 IN IP4 h\r\n")
		for _, odd := range []string{"no version in it", "v=0\r\no=- x y IN IP4 h\r\n"} {
			require.Equal(t, odd, again(odd), "nothing to count by")
		}
		l.stands(l.peer)
	})
}

// A refused offer has used its version: also a malformed one.
func TestRefusedOfferUsesItsVersionUp(t *testing.T) {
	for name, body := range map[string]string{
		"that can be read":    versioned(held(answerSDP), 4),
		"that cannot be read": "junk\r\no=bob 7 4 IN IP4 10.0.0.2\r\nm=\r\n",
		"of several parts":    "--b\r\nContent-Type: application/sdp\r\n\r\no=bob 7 4 IN IP4 10.0.0.2\r\n--b--\r\n",
	} {
		for _, method := range []string{"INVITE", "UPDATE"} {
			t.Run(name+" "+method, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					l := w.incoming(w.stack(stackIP, withoutRetry), w.peer(peerIP))
					contentType := "application/sdp"
					if strings.HasPrefix(body, "--b") {
						contentType = "multipart/mixed;boundary=b"
					}
					refused := began(func() error {
						if method == "INVITE" {
							return l.d.ReInvite(context.Background(), dialog.InviteOpts{Body: dialog.NewBody(contentType, []byte(body))})
						}
						_, err := l.d.Update(context.Background(), dialog.NewBody(contentType, []byte(body)))
						return err
					})
					l.reply(l.next(method), dialogtest.Response{Code: 488})
					require.Error(t, <-refused)
					require.Contains(t, string(l.offers("UPDATE", offerSDP).Body()), "o=bob 7 5 ")
					require.Contains(t, l.says(l.d.Hold, offerSDP), "o=bob 7 6 ")
					l.stands(l.peer)
				})
			})
		}
	}
}

// An offer of the peer's that was refused, whatever was wrong with it, changes nothing
// of ours.
func TestRefusedOfferOfThePeerUsesNoVersionUp(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.incoming(w.stack(stackIP), w.peer(peerIP))
		for _, theirs := range []string{notSDP, farSDP("m=image 4000 udptl t38")} {
			require.Equal(t, 488, l.offers("INVITE", theirs).StatusCode)
			require.Equal(t, 488, l.offers("UPDATE", theirs).StatusCode)
		}
		require.Equal(t, answerSDP, l.says(func(ctx context.Context) error {
			return l.d.ReInvite(ctx, dialog.InviteOpts{Body: sdpBody(answerSDP)})
		}, offerSDP))
		require.Contains(t, l.says(l.d.Hold, offerSDP), "o=bob 7 2 ")
		l.stands(l.peer)
	})
}

// The offer of a re-INVITE that is sent again after a 491 is the same; a preview in
// a provisional response counts too.
func TestVersionsOfRepeatedSDP(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.rings(w.stack(stackIP), w.peer(peerIP))
		require.NoError(t, l.d.Provisional(context.Background(), 183, "", withSDP(answerSDP)))
		require.NoError(t, l.d.Accept(context.Background(), withSDP(strings.Replace(answerSDP, "5000", "5002", 1))))
		l.next("200 INVITE")
		l.acknowledge(1)
		synctest.Wait()
		result := began(func() error {
			return l.d.ReInvite(context.Background(), dialog.InviteOpts{Body: sdpBody(held(answerSDP))})
		})
		first := l.next("INVITE")
		l.reply(first, dialogtest.Response{Code: 491})
		second := l.next("INVITE")
		require.Equal(t, string(first.Message.Body()), string(second.Message.Body()))
		l.reply(second, dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: offerSDP})
		require.NoError(t, <-result)
		require.Equal(t, []int{1, 2, 3}, w.versionsRise(stackIP))
		l.hangUp(l.peer)
	})
}

// Reliable responses, PRACKs and UPDATEs before the answer count in one row with what
// follows.
func TestVersionsBeforeAndAfterTheAnswer(t *testing.T) {
	for _, caller := range []bool{true, false} {
		t.Run(fmt.Sprint("caller ", caller), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s, p := w.stack(stackIP), w.peer(peerIP)
				var l *peerCall
				if caller {
					opts := offer(offerSDP)
					opts.PrackOffer = func(context.Context, dialog.ForkInfo) dialog.Body { return sdpBody(held(offerSDP)) }
					l = w.calls(s, p, opts)
					l.answer(dialogtest.Response{Code: 183, Body: answerSDP, Headers: reliably(1)})
					in := p.next("PRACK")
					p.reply(in, dialogtest.Response{Code: 200, Body: answerSDP})
					synctest.Wait()
				} else {
					l = w.rings(s, p, withHeaders(knows))
					l.progress(183, withSDP(offerSDP))
					l.pracked(p.next("183 INVITE").Message)
				}
				require.Equal(t, 200, l.offers("UPDATE", answerSDP).StatusCode)
				result := began(func() error { _, err := l.d.Update(context.Background(), sdpBody(offerSDP)); return err })
				p.reply(p.next("UPDATE"), dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: answerSDP})
				require.NoError(t, <-result)
				if caller {
					l.answer(dialogtest.Response{Code: 200})
					require.NoError(t, l.d.WaitAnswer(context.Background()))
					p.next("ACK")
				} else {
					require.NoError(t, l.d.Accept(context.Background(), withSDP(offerSDP)), "what the UPDATE said")
					p.next("200 INVITE")
					l.acknowledge(1)
				}
				synctest.Wait()
				l.says(l.d.Hold, answerSDP)
				w.versionsRise(stackIP)
				l.hangUp(p)
			})
		})
	}
}
