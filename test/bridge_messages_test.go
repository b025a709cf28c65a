package test

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/bridge"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// The two calls share nothing that tells where the other side is, but the names.
func TestBridgeHidesTheOtherSide(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := established(t, w, bridge.Options{}, withHeaders("Subject: lunch", "X-Secret: 10.0.0.9", "P-Asserted-Identity: <sip:x@10.0.0.9>"))
		invite := w.one(stackIP, "INVITE")
		require.Equal(t, "lunch", invite.value(t, "Subject"))
		for _, header := range []string{"Via", "Contact", "Call-ID", "Record-Route", "Route", "X-Secret", "P-Asserted-Identity"} {
			require.NotContains(t, strings.Join(invite.values(header), ","), "10.0.0.9", header)
		}
		require.NotEqual(t, j.caller.callID, j.callee.callID)
		require.Len(t, invite.values("Via"), 1)
		require.Contains(t, invite.value(t, "From"), "sip:caller@10.0.0.9")
		require.NotEqual(t, farTag, j.callee.stackTag)
		require.NotContains(t, w.last(stackIP, "200 INVITE").value(t, "Contact"), otherIP)
		j.hangsUp(j.caller, j.callee)
	})
}

// Max-Forwards is one less (RFC 7332 4); none left is 483; an INVITE without one has 70.
func TestBridgeCountsHops(t *testing.T) {
	for received, want := range map[string]string{"Max-Forwards: 2": "1", "Max-Forwards: 1": "0", "Max-Forwards: 255": "254"} {
		t.Run(received, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				j := bridging(t, w, bridge.Options{}, onlyHops(received))
				require.Equal(t, want, w.one(stackIP, "INVITE").value(t, "Max-Forwards"))
				j.callee.answer(dialogtest.Response{Code: 486})
				j.gets("486 INVITE")
			})
		})
	}
	bubble(t, func(t *testing.T, w *world) {
		j := bridgeOf(t, w, bridge.Options{})
		j.invite(onlyHops("Max-Forwards: 0"))
		j.gets("483 INVITE")
		_, err := j.outcome()
		require.ErrorIs(t, err, bridge.ErrHops)
		require.Empty(t, w.sent(stackIP, "INVITE"))
	})
}

// RFC 5393 5.4.3: a Max-Breadth passes on, at most 60, as the bridge does not fork.
func TestBridgePassesMaxBreadth(t *testing.T) {
	for received, want := range map[string][]string{
		"":                   nil,
		"Max-Breadth: 1":     {"1"},
		"Max-Breadth: 60":    {"60"},
		"Max-Breadth: 61":    {"60"},
		"Max-Breadth: 0":     nil,
		"Max-Breadth: -1":    nil,
		"Max-Breadth: 1;x=y": nil,
	} {
		t.Run(received, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				headers := withHeaders("Subject: breadth")
				if received != "" {
					headers = withHeaders(received)
				}
				j := bridging(t, w, bridge.Options{}, headers)
				require.Equal(t, want, w.one(stackIP, "INVITE").values("Max-Breadth"))
				j.callee.answer(dialogtest.Response{Code: 486})
				j.gets("486 INVITE")
			})
		})
	}
	bubble(t, func(t *testing.T, w *world) {
		j := bridging(t, w, bridge.Options{Pass: bridge.Only("Max-Breadth")}, withHeaders("Max-Breadth: 7"))
		require.Equal(t, []string{"7"}, w.one(stackIP, "INVITE").values("Max-Breadth"))
		j.callee.answer(dialogtest.Response{Code: 486})
		j.gets("486 INVITE")
	})
}

// onlyHops is a request with another Max-Forwards.
func onlyHops(header string) func(*dialogtest.Request) { return withHeaders(header) }

// An INVITE of ours that comes back, for the same target, is a loop (RFC 3261 16.3 4).
func TestBridgeFindsLoops(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := bridging(t, w, bridge.Options{})
		sent := j.callee.invite.Request()
		loop := dialogtest.Request{Method: "INVITE", URI: "sip:another@" + j.b.Addr().String(), From: sent.From().Address.String(),
			FromTag: testkit.FromTag(sent), CallID: sent.CallID().Value(), CSeq: 1, Body: offerSDP}
		require.NoError(t, j.callee.Send(j.b.Addr(), j.callee.Request(loop)))
		j.callee.next("482 INVITE")
		_, err := j.outcome()
		require.ErrorIs(t, err, bridge.ErrLoop)
		j.callee.answer(dialogtest.Response{Code: 482})
		j.gets("482 INVITE")
		_, err = j.outcome()
		require.Error(t, err)
		j.over()
	})
}

// A bridge that calls itself for ever ends at once.
func TestBridgeThatCallsItself(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP, func(c *dialog.StackConfig) { c.NoAutoRinging = true })
		join := bridge.New(b, bridge.Options{})
		b.OnIncomingDialog(func(d dialog.IDialog) {
			_, _ = join.Join(t.Context(), d.(*dialog.Dialog), uri("self", stackIP), dialog.InviteOpts{})
		})
		p := w.peer(peerIP)
		res := p.ask(b, dialogtest.Request{Method: "INVITE", URI: "sip:b@10.0.0.1", Body: offerSDP})
		require.Equal(t, 482, res.StatusCode)
		require.Len(t, w.sent(stackIP, "INVITE"), 1)
	})
}

// INFO, MESSAGE and OPTIONS pass with their bodies, keys among them, and so do their
// responses.
func TestBridgePassesRequestsInsideTheCall(t *testing.T) {
	for _, from := range []string{"caller", "callee"} {
		for _, method := range []string{"INFO", "MESSAGE", "OPTIONS"} {
			t.Run(from+" "+method, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					j := established(t, w, bridge.Options{})
					one, two := j.caller, j.callee
					if from == "callee" {
						one, two = two, one
					}
					one.askOwn(method, withHeaders("Content-Type: application/dtmf-relay", "Subject: key", "Max-Forwards: 9"), withBody("Signal=5\r\nDuration=160\r\n"))
					got := two.next(method)
					require.Equal(t, "Signal=5\r\nDuration=160\r\n", body(got))
					require.Equal(t, "application/dtmf-relay", testkit.Value(got.Message, "Content-Type"))
					require.Equal(t, "key", testkit.Value(got.Message, "Subject"))
					require.Equal(t, "8", testkit.Value(got.Message, "Max-Forwards"))
					two.reply(got, dialogtest.Response{Code: 415, Headers: []string{"Warning: 399 x \"y\""}, Body: "no"})
					res := one.next("415 " + method)
					require.Equal(t, "no", body(res))
					require.Equal(t, `399 x "y"`, testkit.Value(res.Message, "Warning"))
					one.askOwn(method, withHeaders("Max-Forwards: 0"))
					one.next("483 " + method)
					j.hangsUp(one, two)
				})
			})
		}
	}
}

// Bodies that the bridge cannot read pass unchanged, and so do bodies of several parts.
func TestBridgePassesBodiesUntouched(t *testing.T) {
	for name, text := range map[string]string{
		"no SDP":     "hello\r\nthis is nothing",
		"broken SDP": "v=0\r\nm=audio\r\n\x00\xff",
		"odd lines":  "v=0\r\ns=-\r\nt=0 0\r\nm=x 1 y z\r\nfoo=bar\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				j := bridging(t, w, bridge.Options{}, withBody(text))
				require.Equal(t, text, body(j.callee.invite))
				j.callee.answer(dialogtest.Response{Code: 200, Body: text + "2"})
				require.Equal(t, text+"2", body(j.gets("200 INVITE")))
				j.caller.acknowledge(1)
				j.callee.next("ACK")
				j.caller.ask("INVITE", withBody(text+"3"))
				got := j.callee.next("INVITE")
				require.Equal(t, text+"3", body(got))
				j.callee.reply(got, dialogtest.Response{Code: 200, Body: text + "4"})
				require.Equal(t, text+"4", body(j.caller.next("200 INVITE")))
				j.caller.acknowledge(2)
				j.callee.next("ACK")
				j.hangsUp(j.caller, j.callee)
			})
		})
	}
	bubble(t, func(t *testing.T, w *world) {
		parts := "--x\r\nContent-Type: application/sdp\r\n\r\n" + offerSDP + "\r\n--x\r\nContent-Type: application/isup\r\n\r\n\x01\x02\r\n--x--\r\n"
		j := bridging(t, w, bridge.Options{}, withHeaders("Content-Type: multipart/mixed;boundary=x", "MIME-Version: 1.0", "Content-Disposition: session;handling=optional"), withBody(parts))
		require.Equal(t, parts, body(j.callee.invite))
		require.Equal(t, "multipart/mixed;boundary=x", testkit.Value(j.callee.invite.Message, "Content-Type"))
		require.Equal(t, "session;handling=optional", testkit.Value(j.callee.invite.Message, "Content-Disposition"))
		require.Equal(t, "1.0", testkit.Value(j.callee.invite.Message, "MIME-Version"))
		j.callee.answer(dialogtest.Response{Code: 486})
		j.gets("486 INVITE")
	})
	for _, method := range []string{"INVITE", "UPDATE"} {
		bubble(t, func(t *testing.T, w *world) {
			parts := "--x\r\nContent-Type: application/isup\r\n\r\n\x01\x02\r\n--x\r\nContent-Type: application/sdp\r\n\r\n" + second(offerSDP) + "\r\n--x--\r\n"
			j := established(t, w, bridge.Options{})
			j.caller.askOwn(method, withHeaders("Content-Type: multipart/mixed;boundary=x", "MIME-Version: 1.0"), withBody(parts))
			got := j.callee.next(method)
			require.Equal(t, parts, body(got))
			require.Equal(t, "multipart/mixed;boundary=x", testkit.Value(got.Message, "Content-Type"))
			require.Equal(t, "1.0", testkit.Value(got.Message, "MIME-Version"))
			answers := strings.ReplaceAll(parts, second(offerSDP), second(answerSDP))
			j.callee.reply(got, dialogtest.Response{Code: 200, Headers: []string{"Content-Type: multipart/mixed;boundary=x"}, Body: answers})
			answer := j.caller.next("200 " + method)
			require.Equal(t, answers, body(answer))
			require.Equal(t, "multipart/mixed;boundary=x", testkit.Value(answer.Message, "Content-Type"))
			if method == "INVITE" {
				j.caller.acknowledge(2)
				j.callee.next("ACK")
			}
			j.hangsUp(j.caller, j.callee)
		})
	}
}

// Options.Pass chooses the headers, also in responses, and Join's own options go along.
func TestBridgeHeaderPolicy(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pass := func(msg sip.Message) []dialog.Header {
			if _, isRequest := msg.(*sip.Request); isRequest {
				return bridge.Only("X-One")(msg)
			}
			return bridge.Only("X-Two")(msg)
		}
		j := bridging(t, w, bridge.Options{Pass: pass}, withHeaders("X-One: 1", "X-Two: 2", "Subject: none"))
		invite := w.one(stackIP, "INVITE")
		require.Equal(t, []string{"1"}, invite.values("X-One"))
		require.Empty(t, invite.values("X-Two"))
		require.Empty(t, invite.values("Subject"))
		j.callee.answer(dialogtest.Response{Code: 180, Headers: []string{"X-Two: ringing"}})
		require.Equal(t, "ringing", testkit.Value(j.gets("180 INVITE").Message, "X-Two"))
		j.callee.answer(dialogtest.Response{Code: 200, Headers: []string{"X-Two: here", "X-One: no"}, Body: answerSDP})
		ok := j.gets("200 INVITE")
		require.Equal(t, "here", testkit.Value(ok.Message, "X-Two"))
		require.Empty(t, testkit.Value(ok.Message, "X-One"))
		j.caller.acknowledge(1)
		synctest.Wait()
		j.callee.next("ACK")
		j.hangsUp(j.caller, j.callee)
	})
}

// Each call has its own session timer: a refresh of one does not reach the other.
func TestBridgeRefreshesEachCallByItself(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := bridging(t, w, bridge.Options{}, withHeaders("Supported: timer", "Session-Expires: 90;refresher=uac"))
		require.Empty(t, w.one(stackIP, "INVITE").values("Session-Expires"))
		j.callee.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		ok := j.gets("200 INVITE")
		require.Equal(t, "90;refresher=uac", testkit.Value(ok.Message, "Session-Expires"))
		j.caller.acknowledge(1)
		j.callee.next("ACK")
		j.caller.ask("UPDATE", withHeaders("Supported: timer", "Session-Expires: 90;refresher=uac"))
		j.caller.next("200 UPDATE")
		require.Empty(t, w.sent(stackIP, "UPDATE"))
		bye := j.caller.next("BYE") // no further refresh
		j.caller.reply(bye, dialogtest.Response{Code: 200})
		j.callee.reply(j.callee.next("BYE"), dialogtest.Response{Code: 200})
		j.over()
	})
}
