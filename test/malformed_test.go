package test

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// without takes the header lines of that name out of a message.
func without(text, header string) string {
	head, body, _ := strings.Cut(text, "\r\n\r\n")
	var lines []string
	for _, line := range strings.Split(head, "\r\n") {
		if name, _, _ := strings.Cut(line, ":"); !strings.EqualFold(name, header) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + body
}

// needed are the headers without which there is no answer but 400 (RFC 3261
// 8.1.1).
var needed = []string{"From", "To", "Call-ID", "CSeq", "Via"}

// B1: a datagram without one of the headers everything relies on costs nothing
// but an answer of 400, whatever the method, inside a call and outside. An ACK
// is never answered, and without a Via there is nowhere to answer to.
func TestDatagramWithoutANeededHeaderIsRefused(t *testing.T) {
	methods := []string{
		"INVITE", "BYE", "ACK", "REFER", "CANCEL", "OPTIONS", "NOTIFY", "INFO", "UPDATE", "PRACK",
		"MESSAGE", "SUBSCRIBE", "REGISTER", "PUBLISH", "UNHEARD",
	}
	headers := append([]string{"Max-Forwards", "Contact", "Content-Length", "Refer-To", "Event"}, needed...)
	bubble(t, func(t *testing.T, w *world) {
		a, b, p := w.stack("10.0.0.1"), w.stack("10.0.0.2"), w.peer("10.0.0.9")
		caller, in := w.toPeer(a, p)
		seq := uint32(100)
		for _, method := range methods {
			for _, header := range headers {
				seq++
				r := dialogtest.Request{
					Method: method, CSeq: seq, CallID: fmt.Sprintf("b1-%d", seq), URI: "sip:us@10.0.0.1:5060",
					Headers: []string{"Refer-To: <sip:carol@10.0.0.3>", "Event: refer"}, Body: offerSDP,
				}
				w.say(p, a, without(p.Request(r), header))
				if method != "BYE" {
					w.say(p, a, without(p.inside(in, r), header))
				}
				w.say(p, a, without(p.Request(dialogtest.Request{
					Method: method, CSeq: seq, CallID: fmt.Sprintf("b1-tag-%d", seq), ToTag: "nobody",
				}), header))
				synctest.Wait()
			}
		}
		refused := make(map[string]int)
		for _, method := range methods {
			for _, m := range w.sent("10.0.0.1", "400 "+method) {
				for _, header := range needed {
					if strings.Contains(m.raw, "400 Missing "+header+"\r\n") {
						refused[method+" "+header]++
					}
				}
			}
		}
		for _, method := range methods {
			for _, header := range []string{"From", "To", "Call-ID"} {
				want := 3
				switch method {
				case "BYE":
					want = 2
				case "ACK":
					want = 0
				}
				require.Equal(t, want, refused[method+" "+header], "%s without %s", method, header)
			}
			require.Zero(t, refused[method+" Via"])
		}
		require.Len(t, w.sent("10.0.0.1", "400"), 3*(len(methods)-1)-1, "without CSeq")
		require.Equal(t, dialog.DialogStateEstablished, caller.State(), "none of it touched the call")
		w.works(a, b)
		w.works(b, a)
		defer p.answers(always(200))()
		require.NoError(t, caller.Bye(context.Background(), ""))
	})
}

// B1: an answer without one of them is dropped; the call goes on with the
// next.
func TestAnswerWithoutANeededHeaderIsDropped(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		call := w.calls(a, p, offer(offerSDP))
		d, in := call.d, call.invite
		for _, code := range []int{100, 180, 200, 404} {
			for _, header := range needed {
				text := p.Response(in.Request(), dialogtest.Response{Code: code, ToTag: "bad", Body: answerSDP})
				w.say(p, a, without(text, header))
			}
		}
		synctest.Wait()
		require.Equal(t, dialog.DialogStateTrying, d.State())
		require.Empty(t, d.Key().RemoteTag)
		p.reply(in, dialogtest.Response{Code: 200, ToTag: farTag, Body: answerSDP})
		p.next("ACK")
		require.NoError(t, d.WaitAnswer(context.Background()))
		defer p.answers(always(200))()
		require.NoError(t, d.Bye(context.Background(), ""))
	})
}

// B1: bytes that are not SIP, and incomplete messages.
func TestRubbishIsDropped(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, p := w.stack("10.0.0.1"), w.stack("10.0.0.2"), w.peer("10.0.0.9")
		whole := p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:us@10.0.0.1:5060", Body: offerSDP})
		for i := range len(whole) {
			w.net.Inject(netip.MustParseAddrPort("10.0.0.77:5060"), a.Addr(), []byte(whole[:i]))
		}
		for _, text := range []string{
			"\r\n", "\r\n\r\n", "\x00\x01\x02", "INVITE", "SIP/2.0", "SIP/2.0 \r\n\r\n", "SIP/2.0 -1 X\r\n\r\n",
			"INVITE sip:us SIP/2.0\r\n\r\n", "CANCEL sip:us@10.0.0.1 SIP/2.0\r\nVia: x\r\n\r\n",
			"BYE sip:us@10.0.0.1 SIP/2.0\r\nTo:\r\nFrom:\r\nCall-ID:\r\nCSeq:\r\nVia:\r\n\r\n",
			strings.Replace(whole, "CSeq: 1 INVITE", "CSeq: 1 BYE", 1),
			strings.Replace(whole, "CSeq: 1 INVITE", "CSeq: 99999999999999 INVITE", 1),
			strings.Replace(whole, "Content-Length: ", "Content-Length: 9", 1),
			strings.Replace(whole, "Content-Length: ", "Content-Length: -", 1),
			strings.Repeat("A", 60000),
		} {
			w.net.Inject(netip.MustParseAddrPort("10.0.0.77:5060"), a.Addr(), []byte(text))
		}
		synctest.Wait()
		w.works(a, b)
		w.works(b, a)
	})
}

// Any bytes on a stream get a response on that stream or none, are counted, cost no more than
// the stream, and other calls continue.
func TestBadBytesOnAStreamCostNothingElse(t *testing.T) {
	cases := []struct {
		name string
		text string
		// answer is what comes back; closed after what time the stream ends, zero:
		// not for that. counted is the reason in Stats.
		answer  string
		closed  time.Duration
		refused string
		dropped string
	}{
		{name: "noise", text: strings.Repeat("\x00\xff~", 100) + "\r\n\r\n", dropped: "malformed"},
		{name: "another protocol", text: "GET / HTTP/1.1\r\nHost: b\r\n\r\n", dropped: "malformed"},
		{name: "half a message, then silence", text: rawOptions(0)[:60], closed: 30 * time.Second, dropped: "half messages"},
		{name: "a body that does not come", text: rawOptions(100) + "short", closed: 30 * time.Second, dropped: "half messages"},
		{name: "a negative length", text: rawOptions(-1), answer: "400", refused: "malformed"},
		{name: "a length that is no number", text: strings.Replace(rawOptions(0), "Length: 0", "Length: all", 1), answer: "400", refused: "malformed"},
		{name: "a header of 64 KiB", text: rawOptions(0, "Subject: "+strings.Repeat("x", 64<<10)), dropped: "unframed streams"},
		{name: "a thousand headers", text: rawOptions(0, strings.Split(strings.Repeat("X: y\n", 999)+"X: y", "\n")...), answer: "400", refused: "malformed"},
		{name: "a Via that points elsewhere", text: rawOptions(0), answer: "200"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b := w.site("10.0.0.1", "tcp", nil), w.site("10.0.0.2", "tcp", nil)
				a.follows(t)
				b.follows(t)
				caller, callee := a.call(t, b.uri("bob"), b.takes(t))
				conn, err := w.net.Host("10.0.0.9").DialContext(context.Background(), "tcp", b.Addr().String())
				require.NoError(t, err)
				_, _ = io.WriteString(conn, c.text)
				synctest.Wait()
				start := time.Now()
				require.NoError(t, conn.SetReadDeadline(start.Add(time.Minute)))
				answer, err := io.ReadAll(conn)
				if c.answer != "" {
					require.True(t, strings.HasPrefix(string(answer), "SIP/2.0 "+c.answer), "%s", answer)
				} else if len(answer) > 0 {
					require.Regexp(t, `^SIP/2\.0 [45]`, string(answer))
				}
				if c.closed > 0 {
					require.NoError(t, err)
					require.Equal(t, c.closed, time.Since(start))
				}
				stats := b.Stats()
				if c.refused != "" {
					require.NotZero(t, stats.Refused[c.refused])
				}
				if c.dropped != "" {
					require.NotZero(t, stats.Dropped[c.dropped], "%v", stats.Dropped)
				}
				require.NoError(t, conn.Close())
				require.Equal(t, dialog.DialogStateEstablished, callee.State())
				converse(t, caller, callee, true)
			})
		})
	}
}

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
func TestAcceptanceWithoutMandatoryHeaders(t *testing.T) {
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

// FW10: a 2xx is acknowledged, whatever is wrong with what is not needed: its peer
// would repeat it for half a minute else, and hold half a call (RFC 3261 13.2.2.4).
func TestAcceptanceWithBrokenHeadersIsAcknowledged(t *testing.T) {
	for _, broken := range []string{
		"Max-Forwards: many", "Max-Forwards:", "Max-Forwards: 1\r\nMax-Forwards: 2", "Route: <", "Route: ,,", "Date: yesterday", "Expires: soon",
		"Content-Type:", "Content-Length: some", "Content-Length: -1", "Content-Length: 0\r\nl: 1", "Session-Expires: ;", "Allow: \"", "Supported: <",
		"Contact: <sip:", "Contact: \"open <sip:b@10.0.0.9>", "Contact: ", "Contact: <sip:b@10.0.0.9:x>", "no header at all", ": nothing", "X: a\rb",
		"From: \"open <sip:x>;tag=x", "Refer-To: <", "Require: \"", "RSeq: x", "Reason: ;;", "P-Asserted-Identity: <<", "Retry-After: x", "Timestamp: \x00",
	} {
		t.Run(broken, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				d, p, answer := brokenAcceptance(t, w)
				answer(broken)
				ack := p.next("ACK")
				require.Equal(t, "sip:bob@10.0.0.9:5060", requestURI(ack))
				require.Equal(t, "far", tagIn(fieldOf(t, ack, "To")))
				require.NoError(t, d.WaitAnswer(context.Background()))
				answer(broken)
				require.NotEmpty(t, p.next("ACK"))
				hangs(t, w, d, p)
			})
		})
	}
}

// The tag is what the ACK needs of To.
func TestAcceptanceWithABrokenToIsAcknowledged(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		d, p, answer := brokenAcceptance(t, w)
		answer("To: \"open <sip:bob@10.0.0.9>;tag=far")
		require.Equal(t, "far", tagIn(fieldOf(t, p.next("ACK"), "To")))
		require.NoError(t, d.WaitAnswer(context.Background()))
		hangs(t, w, d, p)
	})
}

// Without the whole route no request finds its way: ACK, then BYE.
func TestAcceptanceWithoutAReadableRouteIsAcknowledgedAndEnded(t *testing.T) {
	for _, route := range []string{"Record-Route: <sip:10.0.0.9;lr>, <sip:", "Record-Route: <sip:10.0.0.9;lr>\r\nRecord-Route: ;;"} {
		bubble(t, func(t *testing.T, w *world) {
			d, p, answer := brokenAcceptance(t, w)
			answer(route)
			require.NotEmpty(t, p.next("ACK"))
			bye := p.next("BYE")
			p.send(w.stacks[0].Addr(), "SIP/2.0 200 OK", "Via: "+fieldOf(t, bye, "Via"), "From: "+fieldOf(t, bye, "From"), "To: "+fieldOf(t, bye, "To"),
				"Call-ID: "+fieldOf(t, bye, "Call-ID"), "CSeq: "+fieldOf(t, bye, "CSeq"))
			require.ErrorIs(t, d.WaitAnswer(context.Background()), dialog.ErrMalformed)
			<-d.Done()
			require.ErrorIs(t, d.Cause().Err, dialog.ErrMalformed)
		})
	}
}

func TestInviteWithoutAReadableRouteGets400(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.textPeer(peerIP)
		waiting(b)
		p.send(b.Addr(), "INVITE sip:b@10.0.0.1 SIP/2.0", "Via: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK1", "Record-Route: <sip:10.0.0.9;lr>,<sip:", "From: <sip:a@h>;tag=a",
			"To: <sip:b@h>", "Call-ID: 1", "CSeq: 1 INVITE", "Contact: <sip:a@10.0.0.9>")
		require.NotEmpty(t, p.next("SIP/2.0 400"))
	})
}

// brokenAcceptance is a call of ours, and what answers it 200 with a line more: it
// stands for those of its name.
func brokenAcceptance(t *testing.T, w *world) (d *dialog.Dialog, p *textPeer, answer func(line string)) {
	t.Helper()
	a, p := w.stack(stackIP), w.textPeer(peerIP)
	call, err := a.NewInvite(context.Background(), uri("bob", peerIP), offer(offerSDP))
	require.NoError(t, err)
	invite := p.next("INVITE")
	return call.(*dialog.Dialog), p, func(line string) {
		lines := []string{"SIP/2.0 200 OK"}
		for _, l := range []string{
			"Via: " + fieldOf(t, invite, "Via"), "From: " + fieldOf(t, invite, "From"), "To: <sip:bob@10.0.0.9>;tag=far", "Contact: <sip:bob@10.0.0.9:5060>",
			"Call-ID: " + fieldOf(t, invite, "Call-ID"), "CSeq: " + fieldOf(t, invite, "CSeq"),
		} {
			name, _, _ := strings.Cut(line, ":")
			if !strings.HasPrefix(l, name+":") || name == "" {
				lines = append(lines, l)
			}
		}
		p.send(a.Addr(), append(lines, line)...)
	}
}
