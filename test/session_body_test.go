package test

import (
	"context"
	"encoding/base64"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// FS4, RFC 5621: the session description in a body of several parts is the offer, or
// the answer, in whatever message.

const (
	inMixed = "Content-Type: multipart/mixed;boundary=b"
	isup    = "--b\r\nContent-Type: application/isup;version=itu-t92+\r\nContent-Disposition: signal;handling=optional\r\n\r\n\x01\x11\x00\r\n"
)

// severalParts has an SDP as one of two parts.
func severalParts(body string) string {
	return isup + "--b\r\nContent-Type: application/sdp\r\nContent-Disposition: session\r\n\r\n" + body + "\r\n--b--\r\n"
}

// inParts gives a request a body of two parts.
func inParts(body string) func(*dialogtest.Request) {
	return func(r *dialogtest.Request) { r.Headers, r.Body = append(r.Headers, inMixed), severalParts(body) }
}

// inPartsOf is inParts for a response.
func inPartsOf(r dialogtest.Response) dialogtest.Response {
	r.Headers, r.Body = append(r.Headers, inMixed), severalParts(r.Body)
	return r
}

func TestTheSDPAmongPartsIsTheOffer(t *testing.T) {
	part := func(headers ...string) string {
		return "--b\r\n" + strings.Join(append(headers, "", held(offerSDP)), "\r\n") + "\r\n"
	}
	sdp := part("Content-Type: application/sdp")
	encoded := func(encoding, text string) string {
		return "--b\r\nContent-Type: application/sdp\r\nContent-Transfer-Encoding: " + encoding + "\r\n\r\n" + text + "\r\n"
	}
	early := strings.ReplaceAll("--b\r\nContent-Type: application/sdp\r\nContent-Disposition: early-session\r\n\r\n"+offerSDP+"\r\n", "4000", "9000")
	for name, c := range map[string]struct{ contentType, body string }{
		"first":                   {inMixed, sdp + isup + "--b--\r\n"},
		"last":                    {inMixed, isup + sdp + "--b--\r\n"},
		"alone":                   {inMixed, sdp + "--b--\r\n"},
		"not ended":               {inMixed, isup + strings.TrimSuffix(sdp, "\r\n")},
		"after a preamble":        {inMixed, "This is MIME.\r\n" + sdp + "--b--\r\nend"},
		"quoted boundary":         {`Content-Type: Multipart/Mixed; charset=x ; Boundary="b"`, sdp + "--b--\r\n"},
		"odd boundary":            {"Content-Type: multipart/mixed;boundary=--=_Part:1", strings.ReplaceAll(isup+sdp+"--b--\r\n", "--b", "----=_Part:1")},
		"for a session":           {inMixed, isup + part("content-type: Application/SDP;charset=utf-8", "content-disposition:Session ;handling=required") + "--b--\r\n"},
		"optional":                {inMixed, part("Content-Type: application/sdp", "Content-Disposition: session;handling=optional") + isup + "--b--\r\n"},
		"beside an optional one":  {inMixed, strings.Replace(early, "early-session", `session;handling="optional"`, 1) + sdp + "--b--\r\n"},
		"behind an early session": {inMixed, early + sdp + "--b--\r\n"},
		"before an early session": {inMixed, sdp + early + "--b--\r\n"},
		"one of two":              {inMixed, sdp + strings.ReplaceAll(sdp, "4000", "9000") + "--b--\r\n"},
		"nested":                  {inMixed, isup + "--b\r\nContent-Type: multipart/alternative;boundary=c\r\n\r\n" + strings.ReplaceAll(sdp, "--b", "--c") + "--c\r\nContent-Type: application/sdpng\r\n\r\nx\r\n--c--\r\n--b--\r\n"},
		"related":                 {"Content-Type: multipart/related;boundary=b", sdp + isup + "--b--\r\n"},
		"signed":                  {"Content-Type: multipart/signed;boundary=b;protocol=x", sdp + "--b\r\nContent-Type: application/pkcs7-signature\r\n\r\nx\r\n--b--\r\n"},
		"7bit":                    {inMixed, encoded("7bit", held(offerSDP)) + "--b--\r\n"},
		"8bit":                    {inMixed, encoded("8bit", held(offerSDP)) + "--b--\r\n"},
		"binary":                  {inMixed, encoded("BINARY", held(offerSDP)) + "--b--\r\n"},
		"base64":                  {inMixed, encoded("base64", base64.StdEncoding.EncodeToString([]byte(held(offerSDP)))) + "--b--\r\n"},
		"quoted-printable":        {inMixed, encoded("quoted-printable", strings.ReplaceAll(held(offerSDP), "=", "=3D")) + "--b--\r\n"},
	} {
		for _, method := range []string{"INVITE", "UPDATE", "PRACK"} {
			t.Run(name+" "+method, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					change := []func(*dialogtest.Request){withHeaders(c.contentType), withBody(c.body)}
					if method == "PRACK" {
						l, early := w.answeredEarly()
						body := string(l.pracked(early.Message, change...).Body())
						require.Contains(t, body, "m=audio 5000 RTP/AVP 0\r\na=recvonly\r\n")
						return
					}
					l := w.incoming(w.stack(stackIP), w.peer(peerIP))
					got := bodies(l.d)
					drained(got)
					res := l.offers(method, c.body, withHeaders(c.contentType))
					synctest.Wait()
					require.Equal(t, 200, res.StatusCode)
					require.Equal(t, "application/sdp", testkit.Value(res, "Content-Type"))
					require.Contains(t, string(res.Body()), "m=audio 5000 RTP/AVP 0\r\na=recvonly\r\n")
					require.Equal(t, []string{strings.TrimPrefix(c.contentType, "Content-Type: ") + "\n" + c.body}, drained(got), "OnBody has it as it came")

					asked := make(chan string, 1)
					l.d.OnOffer(func(_ context.Context, offer dialog.Body) (dialog.Body, error) {
						asked <- string(offer.Data())
						return sdpBody(answerSDP), nil
					})
					require.Equal(t, 200, l.offers(method, c.body, withHeaders(c.contentType)).StatusCode)
					require.Equal(t, held(offerSDP), <-asked)
					l.stands(l.peer)
				})
			})
		}
	}
}

// A body without a session description offers nothing: a re-INVITE asks for an offer.
func TestBodyThatDescribesNoSessionOffersNothing(t *testing.T) {
	for name, c := range map[string]struct {
		headers []string
		body    string
	}{
		"parts without SDP":            {[]string{inMixed}, isup + "--b--\r\n"},
		"no boundary":                  {[]string{"Content-Type: multipart/mixed"}, severalParts(offerSDP)},
		"another boundary":             {[]string{"Content-Type: multipart/mixed;boundary=c"}, severalParts(offerSDP)},
		"an early session":             {[]string{"Content-Type: application/sdp", "Content-Disposition: early-session"}, offerSDP},
		"an early session in parts":    {[]string{inMixed}, strings.Replace(severalParts(offerSDP), ": session", ": early-session", 1)},
		"an icon":                      {[]string{"Content-Type: image/png", "Content-Disposition: icon;handling=optional"}, "PNG"},
		"SDP by reference":             {[]string{inMixed}, strings.Replace(severalParts(offerSDP), ": session", ": by-reference", 1)},
		"a part without a type of SDP": {[]string{inMixed}, strings.Replace(severalParts(offerSDP), "application/sdp", "text/plain", 1)},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l := w.incoming(w.stack(stackIP), w.peer(peerIP))
				got := bodies(l.d)
				drained(got)
				body := string(l.offers("INVITE", c.body, withHeaders(c.headers...)).Body())
				require.Equal(t, versioned(answerSDP, 2), body, "our offer")
				require.Len(t, drained(got), 1)
				res := l.offers("UPDATE", c.body, withHeaders(c.headers...))
				require.Equal(t, 200, res.StatusCode)
				require.Empty(t, res.Body())
				l.d.OnOffer(func(_ context.Context, offer dialog.Body) (dialog.Body, error) {
					if len(offer.Data()) != 0 {
						t.Errorf("%q", offer.Data())
					}
					return sdpBody(versioned(held(answerSDP), 9)), nil
				})
				require.Equal(t, versioned(held(answerSDP), 9), string(l.offers("INVITE", c.body, withHeaders(c.headers...)).Body()))
				l.stands(l.peer)
			})
		})
	}
}

// A malformed part is not an offer that could be answered (FS6).
func TestSDPAmongPartsThatCannotBeRead(t *testing.T) {
	for name, body := range map[string]string{
		"no SDP":        severalParts(notSDP),
		"broken base64": strings.Replace(severalParts("@@@"), "Content-Disposition: session", "Content-Transfer-Encoding: base64\r\nContent-Disposition: session", 1),
	} {
		bubble(t, func(t *testing.T, w *world) {
			l := w.incoming(w.stack(stackIP), w.peer(peerIP))
			for _, method := range []string{"INVITE", "UPDATE"} {
				res := l.offers(method, body, withHeaders(inMixed))
				require.Equal(t, 488, res.StatusCode, name)
				require.NotEmpty(t, testkit.Value(res, "Warning"))
			}
			l.stands(l.peer)
		})
	}
}

// The INVITE that begins a call: with an offer among its parts, or without.
func TestOfferAmongThePartsOfTheFirstINVITE(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.rings(w.stack(stackIP), w.peer(peerIP), inParts(held(offerSDP)), withHeaders(demands))
		require.NoError(t, l.d.Accept(context.Background(), withSDP(strings.Replace(answerSDP, "sendrecv", "recvonly", 1))))
		l.next("200 INVITE")
		l.acknowledge(1)
		synctest.Wait()
		require.Contains(t, string(l.offers("UPDATE", offerSDP).Body()), "a=sendrecv", "the hold was the peer's")
		l.stands(l.peer)
	})
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		calls := waiting(b)
		require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{
			Method: "INVITE", URI: "sip:b@" + stackIP, Headers: []string{contactOfPeer, inMixed, demands}, Body: isup + "--b--\r\n",
		})))
		d := <-calls
		ctx := context.Background()
		require.ErrorIs(t, d.Provisional(ctx, 180, ""), dialog.ErrInvalidArgument, "the first reliable response has to offer (RFC 3262 5)")
		require.NoError(t, d.Provisional(ctx, 183, "", withSDP(offerSDP)))
		p.next("183 INVITE")
		require.NoError(t, d.Reject(ctx, 486, ""))
	})
}

// Answers, and offers that we asked for, in 2xx and 1xx.
func TestSDPAmongThePartsOfResponses(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.calls(w.stack(stackIP, withoutRetry), w.peer(peerIP), offer(offerSDP))
		l.answer(inPartsOf(dialogtest.Response{Code: 183, Body: answerSDP, Headers: reliably(1)}))
		in := l.next("PRACK")
		require.Empty(t, in.Message.Body())
		l.reply(in, dialogtest.Response{Code: 200})
		synctest.Wait()
		updated := began(func() error { // RFC 3311 5.1: the offer has been answered
			body, err := l.d.Update(context.Background(), sdpBody(held(offerSDP)))
			if err == nil {
				require.Equal(t, answerSDP, string(body.Data()))
			}
			return err
		})
		l.reply(l.next("UPDATE"), inPartsOf(dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: answerSDP}))
		require.NoError(t, <-updated)
		l.answer(dialogtest.Response{Code: 200})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		l.next("ACK")

		r := l.renegotiates(context.Background(), offerSDP)
		l.reply(r.in, inPartsOf(dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: answerSDP}))
		l.next("ACK")
		require.NoError(t, <-r.ended)
		require.Equal(t, answerSDP, string(r.body.Data()))
		require.Equal(t, "application/sdp", r.body.ContentType())

		for _, reliable := range []bool{false, true} {
			r = l.renegotiates(context.Background(), "")
			if reliable {
				l.reply(r.in, inPartsOf(dialogtest.Response{Code: 183, Headers: append(reliably(1), contactOfPeer), Body: held(answerSDP)}))
				prack := l.next("PRACK")
				require.Contains(t, string(prack.Message.Body()), "a=recvonly")
				l.reply(prack, dialogtest.Response{Code: 200})
				r.says(200, "")
				require.Empty(t, l.next("ACK").Message.Body())
			} else {
				l.reply(r.in, inPartsOf(dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: held(answerSDP)}))
				require.Contains(t, string(l.next("ACK").Message.Body()), "a=recvonly")
			}
			require.NoError(t, <-r.ended)
			require.Equal(t, held(answerSDP), string(r.body.Data()))
		}
		l.stands(l.peer)
	})
}

// Answers in ACK and PRACK.
func TestSDPAmongThePartsOfAnACKAndAPRACK(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.rings(w.stack(stackIP), w.peer(peerIP), withoutBody, withHeaders(knows))
		l.progress(183, withSDP(offerSDP))
		l.pracked(l.next("183 INVITE").Message, inParts(answerSDP))
		require.Equal(t, 200, l.offers("UPDATE", answerSDP).StatusCode, "agreed")
		require.NoError(t, l.d.Accept(context.Background()))
		l.next("200 INVITE")
		l.acknowledge(1)
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return sdpBody(held(offerSDP)), nil })
		l.ask("INVITE")
		require.Equal(t, 200, l.peer.final("INVITE").StatusCode)
		l.acknowledge(l.seq, inParts(answerSDP))
		synctest.Wait()
		l.d.OnOffer(nil)
		require.Contains(t, string(l.offers("UPDATE", answerSDP).Body()), "a=sendonly", "our hold was answered")
		l.stands(l.peer)
	})
}

// Bodies of several parts from the application.
func TestSDPAmongThePartsOfTheApplication(t *testing.T) {
	parts := func(body string) dialog.Body {
		return dialog.NewBody("multipart/mixed;boundary=b", []byte(severalParts(body)))
	}
	bubble(t, func(t *testing.T, w *world) {
		l := w.calls(w.stack(stackIP), w.peer(peerIP), dialog.InviteOpts{Body: parts(offerSDP)})
		require.Equal(t, severalParts(offerSDP), string(l.invite.Message.Body()))
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		require.Empty(t, l.next("ACK").Message.Body())
		synctest.Wait()
		require.Equal(t, versioned(held(offerSDP), 2), l.says(l.d.Hold, answerSDP))
		again := l.says(func(ctx context.Context) error { return l.d.ReInvite(ctx, dialog.InviteOpts{Body: parts(offerSDP)}) }, answerSDP)
		require.Equal(t, severalParts(versioned(offerSDP, 3)), again)
		require.Contains(t, string(l.offers("UPDATE", answerSDP).Body()), "o=alice 1 4 ")
		l.stands(l.peer)
	})
	bubble(t, func(t *testing.T, w *world) {
		l := w.rings(w.stack(stackIP), w.peer(peerIP))
		require.NoError(t, l.d.Accept(context.Background(), dialog.WithBody(parts(answerSDP))))
		require.Equal(t, severalParts(answerSDP), string(l.next("200 INVITE").Message.Body()))
		l.acknowledge(1)
		synctest.Wait()
		require.Equal(t, versioned(held(answerSDP), 2), l.says(l.d.Hold, offerSDP))
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return parts(answerSDP), nil })
		require.Equal(t, severalParts(versioned(answerSDP, 3)), string(l.offers("UPDATE", offerSDP).Body()))
		l.stands(l.peer)
	})
	// Without an SDP among them the peer is asked for an offer.
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		result := began(func() error {
			return l.d.ReInvite(context.Background(), dialog.InviteOpts{Body: dialog.NewBody("multipart/mixed;boundary=b", []byte(isup+"--b--\r\n"))})
		})
		l.reply(l.next("INVITE"), dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: held(answerSDP)})
		require.Contains(t, string(l.next("ACK").Message.Body()), "a=recvonly")
		require.NoError(t, <-result)
		l.stands(l.peer)
	})
}

// RFC 5621 4.2, 8.4: where AcceptBodies names types, it is those of the parts that
// count, unless they are optional.
func TestAcceptBodiesAreThoseOfTheParts(t *testing.T) {
	sdpOnly := func(c *dialog.StackConfig) { c.AcceptBodies = []string{"application/sdp"} }
	for name, c := range map[string]struct {
		body string
		code int
	}{
		"optional beside":         {severalParts(offerSDP), 200},
		"required beside":         {strings.Replace(severalParts(offerSDP), "optional", "required", 1), 415},
		"required if not said":    {strings.Replace(severalParts(offerSDP), ";handling=optional", "", 1), 415},
		"one of two alternatives": {"--b\r\nContent-Type: multipart/alternative;boundary=c\r\n\r\n--c\r\nContent-Type: application/sdp\r\n\r\n" + offerSDP + "\r\n--c\r\nContent-Type: application/sdpng\r\n\r\nx\r\n--c--\r\n--b--\r\n", 200},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l := w.incoming(w.stack(stackIP, sdpOnly), w.peer(peerIP))
				for _, method := range []string{"INVITE", "UPDATE"} {
					res := l.offers(method, c.body, withHeaders(inMixed))
					require.Equal(t, c.code, res.StatusCode)
					if c.code == 415 {
						require.Equal(t, "application/sdp", testkit.Value(res, "Accept"))
					}
				}
				l.stands(l.peer)
			})
		})
	}
}

// FD5. RFC 3261 8.2.3, 20.11: a body that its sender can do without is never a reason
// to refuse, and where it is not understood it is ignored.
func TestOptionalBodyIsNeverRefused(t *testing.T) {
	onlySDP := func(c *dialog.StackConfig) { c.AcceptBodies = []string{"application/sdp"} }
	plain, zipped := "Content-Type: text/plain", "Content-Encoding: gzip"
	cases := []struct {
		headers []string
		status  int
	}{
		{[]string{plain, "Content-Disposition: render;handling=optional"}, 200},
		{[]string{plain, "Content-Disposition: session ; Handling = OPTIONAL"}, 200},
		{[]string{plain, "Content-Disposition: icon;x=y;handling=optional;z"}, 200},
		{[]string{zipped, "Content-Type: application/sdp", "Content-Disposition: session;handling=optional"}, 200},
		{[]string{plain}, 415},
		{[]string{plain, "Content-Disposition: render"}, 415},
		{[]string{plain, "Content-Disposition: render;handling=required"}, 415},
		{[]string{plain, "Content-Disposition: render;handling=another"}, 415},
		{[]string{plain, "Content-Disposition: optional"}, 415},
		{[]string{plain, "Content-Disposition: render;x-handling=optional"}, 415},
		{[]string{zipped, "Content-Type: application/sdp", "Content-Disposition: session"}, 415},
	}
	for _, c := range cases {
		bubble(t, func(t *testing.T, w *world) {
			b, p := w.stack(stackIP, onlySDP), w.peer(peerIP)
			b.OnIncomingDialog(func(d dialog.IDialog) {
				d.OnBody(func(body dialog.Body) { t.Errorf("ignored, not handed out: %s", body.Data()) })
				if err := d.Accept(context.Background(), withSDP(answerSDP)); err != nil {
					t.Errorf("accept: %v", err)
				}
			})
			res := p.ask(b, dialogtest.Request{Method: "INVITE", URI: "sip:b@" + stackIP, Headers: c.headers, Body: "hello"})
			require.Equal(t, c.status, res.StatusCode, "%v", c.headers)
		})
	}
}

// An ignored body is not an offer: the 200 to such an INVITE has an offer.
func TestIgnoredBodyIsNoOffer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.incoming(w.stack(stackIP, func(c *dialog.StackConfig) { c.AcceptBodies = []string{"application/sdp"} }), p)
		l.d.OnOffer(func(_ context.Context, asked dialog.Body) (dialog.Body, error) {
			require.Empty(t, asked.Data())
			return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
		})
		optional := []string{"Content-Type: text/plain", "Content-Disposition: render;handling=optional"}
		l.ask("INVITE", withHeaders(optional...), withBody("hello"))
		require.Equal(t, answerSDP, string(l.peer.final("INVITE").Body()))
		l.acknowledge(l.seq, withBody(offerSDP))
		l.ask("UPDATE", withHeaders(optional...), withBody("hello"))
		res := l.peer.final("UPDATE")
		require.Equal(t, 200, res.StatusCode)
		require.Empty(t, res.Body())
		synctest.Wait()
		l.hangUp(p)
	})
}
