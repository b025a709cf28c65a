package test

import (
	"context"
	"errors"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// What a peer sends that it should not, each with its answer: the call goes on,
// or ends as calls do. How damaged bytes are treated is in badbytes_test.go.

const notSDP = "m=audio\r\nthis is not a session\r\n"

// responds sends a response from which the lines that match are taken away.
func (l *peerCall) responds(in dialogtest.Received, r dialogtest.Response, without string) {
	l.t.Helper()
	text := l.Response(in.Request(), r)
	require.NoError(l.t, l.Send(in.From, regexp.MustCompile("(?m)^"+without+".*\n").ReplaceAllString(text, "")))
}

// stands checks that a call is up and can be ended.
func (l *peerCall) stands(at *peer) {
	l.t.Helper()
	synctest.Wait()
	require.Equal(l.t, dialog.DialogStateEstablished, l.d.State())
	l.hangUp(at)
}

// RFC 3261 13.2.2.4, 12.1.2: without a Contact the target stays what was called,
// of two it is the first, and a peer without a tag is one of RFC 2543.
func TestAcceptanceThatLacksWhatItShouldHave(t *testing.T) {
	ok := dialogtest.Response{Code: 200, ToTag: farTag, Body: answerSDP}
	twoContacts := ok
	twoContacts.Headers = []string{"Contact: <sip:first@10.0.0.9>, <sip:second@10.0.0.8>"}
	noTag := ok
	noTag.ToTag = ""
	for name, c := range map[string]struct {
		res         dialogtest.Response
		without     string
		target, tag string
	}{
		"no Contact":     {ok, "Contact", "sip:bob@10.0.0.9:5060", farTag},
		"two Contacts":   {twoContacts, "X", "sip:first@10.0.0.9", farTag},
		"a star":         {dialogtest.Response{Code: 200, ToTag: farTag, Headers: []string{"Contact: *"}}, "X", "sip:bob@10.0.0.9:5060", farTag},
		"another scheme": {dialogtest.Response{Code: 200, ToTag: farTag, Headers: []string{"Contact: <tel:+43>"}}, "X", "sip:bob@10.0.0.9:5060", farTag},
		"no To tag":      {noTag, "X", "sip:peer@10.0.0.9:5060", ""},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p := w.stack(stackIP), w.peer(peerIP)
				l := w.calls(a, p, offer(offerSDP))
				l.responds(l.invite, c.res, c.without)
				require.NoError(t, l.d.WaitAnswer(context.Background()))
				ack := p.next("ACK").Request()
				require.Equal(t, c.target, ack.Recipient.String())
				require.Equal(t, c.tag, testkit.ToTag(ack))
				l.responds(l.invite, c.res, c.without)
				p.next("ACK")
				l.stands(p)
			})
		})
	}
}

func TestPeerWithoutATagCanHangUp(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		p.reply(l.invite, dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		text := l.Request(l.made("BYE"))
		require.NoError(t, p.Send(l.stack, regexp.MustCompile("(?m)^(From: .*);tag=.*$").ReplaceAllString(text, "$1")))
		require.Equal(t, 200, p.final("BYE").StatusCode)
		<-l.d.Done()
		require.Equal(t, dialog.PartyRemote, l.d.Cause().By)
	})
}

func TestRingingWithoutAContact(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		l.responds(l.invite, dialogtest.Response{Code: 180, ToTag: farTag}, "Contact")
		synctest.Wait()
		require.Equal(t, dialog.DialogStateRinging, l.d.State())
		require.Equal(t, "bob", l.d.Info().RemoteTarget.User)
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		require.Equal(t, "peer", l.d.Info().RemoteTarget.User)
		l.stands(p)
	})
}

// FS6: the application's SDP is its own; a re-INVITE or UPDATE that nobody decides and
// that cannot be read gets 488 with a Warning (RFC 3261 14.2, RFC 3311 5.2).
func TestOfferThatDoesNotParse(t *testing.T) {
	for _, handler := range []string{"none", "answers", "refuses"} {
		t.Run(handler, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				l := w.rings(b, p, withBody(notSDP))
				require.Equal(t, notSDP, <-bodiesOnly(l.d), "the application has it as it came")
				l.accepted()
				switch handler {
				case "answers":
					l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
						return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
					})
				case "refuses":
					l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return nil, errors.New("cannot be read") })
				}
				for _, method := range []string{"INVITE", "UPDATE"} {
					l.ask(method, withBody(notSDP), withHeaders("Contact: <sip:moved@10.0.0.9:5060>"))
					res := p.final(method)
					switch {
					case handler == "answers":
						require.Equal(t, 200, res.StatusCode)
						require.Equal(t, answerSDP, string(res.Body()))
					default:
						require.Equal(t, 488, res.StatusCode)
						require.NotEmpty(t, value(res, "Warning"))
					}
					if method == "INVITE" && res.StatusCode == 200 {
						l.acknowledge(l.seq)
					}
				}
				require.Equal(t, handler == "answers", l.d.Info().RemoteTarget.User == "moved")
				l.stands(p)
			})
		})
	}
}

// bodiesOnly is bodies without the content types.
func bodiesOnly(d *dialog.Dialog) <-chan string {
	list := make(chan string, 100)
	d.OnBody(func(b dialog.Body) { list <- string(b.Data()) })
	return list
}

// In a 2xx, offer or answer, and in an ACK it is the application's to judge: where
// it refuses an offer that cannot be read, nothing can be answered, and the call
// ends (RFC 3261 13.2.2.4).
func TestAcceptanceWithABodyThatDoesNotParse(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		got := bodiesOnly(l.d)
		l.answer(dialogtest.Response{Code: 200, Body: notSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		synctest.Wait()
		require.Equal(t, notSDP, <-got)
		result := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: notSDP})
		require.NoError(t, <-result)
		result = began(func() error {
			body, err := l.d.Update(context.Background(), dialog.NewBody("application/sdp", []byte(offerSDP)))
			if err == nil && string(body.Data()) != notSDP {
				err = errors.New("another body")
			}
			return err
		})
		p.reply(p.next("UPDATE"), dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: notSDP})
		require.NoError(t, <-result)
		l.stands(p)
	})
	for _, refuse := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			a, p := w.stack(stackIP), w.peer(peerIP)
			opts := dialog.InviteOpts{}
			if refuse {
				opts.Setup = func(d *dialog.Dialog) {
					d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return nil, errors.New("no") })
				}
			}
			l := w.calls(a, p, opts)
			l.answer(dialogtest.Response{Code: 200, Body: notSDP})
			ack := p.next("ACK")
			require.Empty(t, ack.Message.Body())
			if !refuse {
				l.stands(p)
				return
			}
			p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
			<-l.d.Done()
		})
	}
}

// A body where nothing was offered answers nothing: in an ACK it goes to OnBody
// and changes no session, in the 200 to an UPDATE it goes nowhere.
func TestAnswerToNoOffer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p)
		got := bodiesOnly(l.d)
		require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
		p.next("200 INVITE")
		l.acknowledge(1, withBody(answerSDP))
		synctest.Wait()
		require.Equal(t, []string{offerSDP, answerSDP}, drained(got))

		result := began(func() error {
			body, err := l.d.Update(context.Background(), nil)
			if err == nil && body != nil {
				err = errors.New("an answer to no offer")
			}
			return err
		})
		p.reply(p.next("UPDATE"), dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: offerSDP})
		require.NoError(t, <-result)
		synctest.Wait()
		require.Empty(t, drained(got))

		// Nothing is open afterwards.
		l.ask("INVITE", withBody(offerSDP))
		require.Equal(t, 200, p.final("INVITE").StatusCode)
		l.acknowledge(l.seq)
		l.stands(p)
	})
}

// RFC 3261 14.2, RFC 3311 5.2: of two offers at once the second has to wait.
func TestTwoOffersAtOnce(t *testing.T) {
	for _, c := range []struct {
		first, second string
		code          int
	}{
		{"INVITE", "INVITE", 500}, {"INVITE", "UPDATE", 500}, {"UPDATE", "UPDATE", 500}, {"UPDATE", "INVITE", 500},
	} {
		t.Run(c.first+" and "+c.second, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				l := w.incoming(b, p)
				decide := make(chan struct{})
				l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
					<-decide
					return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
				})
				l.ask(c.first, withBody(offerSDP))
				first := l.seq
				synctest.Wait()
				l.ask(c.second, withBody(offerSDP))
				refused := p.final(c.second)
				require.Equal(t, c.code, refused.StatusCode)
				require.NotEmpty(t, value(refused, "Retry-After"))
				close(decide)
				res := p.final(c.first)
				require.Equal(t, 200, res.StatusCode)
				require.Equal(t, first, res.CSeq().SeqNo)
				if c.first == "INVITE" {
					l.acknowledge(first)
				}
				l.stands(p)
			})
		})
	}
}

// RFC 3261 8.2.3: with a list of types another gets 415; without, it is the
// application's, and nobody's answer has no body. The session stays.
func TestReINVITEWithAnotherContentType(t *testing.T) {
	for _, listed := range []bool{true, false} {
		bubble(t, func(t *testing.T, w *world) {
			b, p := w.stack(stackIP, func(c *dialog.StackConfig) {
				if listed {
					c.AcceptBodies = []string{"application/sdp"}
				}
			}), w.peer(peerIP)
			l := w.incoming(b, p)
			for _, method := range []string{"INVITE", "UPDATE"} {
				l.ask(method, withHeaders("Content-Type: text/plain"), withBody("hello"))
				res := p.final(method)
				require.Equal(t, map[bool]int{true: 415, false: 200}[listed], res.StatusCode)
				require.Equal(t, listed, value(res, "Accept") == "application/sdp")
				require.Empty(t, res.Body())
				if method == "INVITE" && !listed {
					l.acknowledge(l.seq)
				}
			}
			l.ask("INVITE") // without an offer: our session is as it was
			res := p.final("INVITE")
			require.Contains(t, string(res.Body()), "m=audio 5000 RTP/AVP 0\r\n")
			l.acknowledge(l.seq, withBody(offerSDP))
			l.stands(p)
		})
	}
}

// RFC 4028 6, 9: too small an interval gets 422 from whoever can be told, and is
// raised otherwise; what cannot be read asks for nothing.
func TestSessionIntervalsThatCannotBe(t *testing.T) {
	for _, c := range []struct {
		headers []string
		code    int
		granted string
	}{
		{[]string{"Supported: timer", "Session-Expires: 599"}, 422, ""},
		{[]string{"Session-Expires: 599"}, 200, "600;refresher=uas"},
		{[]string{"Supported: timer", "Session-Expires: 0"}, 200, ""},
		{[]string{"Supported: timer", "Session-Expires: -5"}, 200, ""},
		{[]string{"Supported: timer", "Session-Expires: soon"}, 200, ""},
		{[]string{"Supported: timer", "Session-Expires: 99999999999999999999"}, 200, ""},
		{[]string{"Supported: timer", "Session-Expires: "}, 200, ""},
		{[]string{"Supported: timer", "Session-Expires: 900;refresher=nobody"}, 200, "900;refresher=uac"},
		{[]string{"Supported: timer", "Session-Expires: 900", "Min-SE: many"}, 200, "900;refresher=uac"},
	} {
		for _, method := range []string{"INVITE", "re-INVITE", "UPDATE"} {
			t.Run(method+" "+c.headers[len(c.headers)-1], func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					b, p := w.stack(stackIP, func(c *dialog.StackConfig) { c.MinSE = 10 * time.Minute }), w.peer(peerIP)
					if method == "INVITE" {
						accepting(t, b)
						res := p.invited(b, c.headers...)
						require.Equal(t, c.code, res.StatusCode)
						require.Equal(t, c.granted, value(res, "Session-Expires"))
						p.bye(b)
						require.Empty(t, b.Dialogs())
						return
					}
					l := w.incoming(b, p)
					method := method[len(method)-6:]
					l.ask(method, withHeaders(c.headers...))
					res := p.final(method)
					require.Equal(t, c.code, res.StatusCode)
					require.Equal(t, c.granted, value(res, "Session-Expires"))
					if method == "INVITE" && res.StatusCode == 200 {
						l.acknowledge(l.seq)
					}
					l.stands(p)
				})
			})
		}
	}
}
