package test

import (
	"bytes"
	"context"
	"io"
	"mime"
	"mime/multipart"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// The Referred-By token of a REFER (RFC 3892).

// mixed is a body of parts.
func mixed(parts ...string) string {
	return "\r\n--unique-1 \r\n" + strings.Join(parts, "\r\n--unique-1\t\r\n") + "\r\n--unique-1--\r\n"
}

// sentParts returns what stands in a multipart body, part by part, with the type of
// each.
func sentParts(t *testing.T, m wire) (types, parts []string) {
	t.Helper()
	kind, params, err := mime.ParseMediaType(m.value(t, "Content-Type"))
	require.NoError(t, err)
	require.Equal(t, "multipart/mixed", kind)
	r := multipart.NewReader(strings.NewReader(m.body()), params["boundary"])
	for {
		p, err := r.NextRawPart()
		if err == io.EOF {
			return types, parts
		}
		require.NoError(t, err)
		data, err := io.ReadAll(p)
		require.NoError(t, err)
		types, parts = append(types, p.Header.Get("Content-Type")), append(parts, string(data))
	}
}

// RFC 3892 2.2: header and token are copied without modification.
func TestReferredByTokenGoesToTheTarget(t *testing.T) {
	for name, opts := range map[string]dialog.InviteOpts{"with an offer": offer(offerSDP), "without": {}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, dora := w.stack(stackIP), w.peer(otherIP)
				l := w.incoming(b, w.peer(peerIP))
				result := followsRefers(context.Background(), b, opts)
				l.ask("REFER", withHeaders(referToDora, referredByC, "Content-Type: multipart/mixed; boundary=unique-1"),
					withBody(mixed("Content-Type: text/plain\r\n\r\nhello", signed, "Content-Type: text/plain\r\n\r\nbye")))
				invite := dora.next("INVITE")
				dora.reply(invite, dialogtest.Response{Code: 200, ToTag: "d", Body: answerSDP})
				dora.next("ACK")
				require.Equal(t, []string{"100 Trying", "200 OK"}, l.told())
				m := w.one(stackIP, "INVITE")
				require.Equal(t, strings.TrimPrefix(referredByC, "Referred-By: "), m.value(t, "Referred-By"))
				require.True(t, bytes.Contains([]byte(m.body()), []byte("\r\n"+signed+"\r\n--part-")), "byte for byte:\n%s", m.body())
				types, parts := sentParts(t, m)
				if name == "without" {
					require.Len(t, types, 1)
				} else {
					require.Equal(t, "application/sdp", types[0])
					require.Equal(t, offerSDP, parts[0])
					require.Len(t, types, 2)
				}
				got := <-result
				require.NoError(t, got.err)
				if name == "without" {
					return
				}
				// The offered SDP counts, not the whole body.
				hold := began(func() error { return got.call.Hold(context.Background()) })
				again := dora.next("INVITE")
				require.Equal(t, "application/sdp", testkit.Value(again.Message, "Content-Type"))
				require.Contains(t, string(again.Message.Body()), "a=sendonly")
				dora.reply(again, dialogtest.Response{Code: 200, Body: answerSDP})
				require.NoError(t, <-hold)
			})
		})
	}
}

// A body part that is not a token of the referrer is not copied: the body stays as it would be
// without it.
func TestOnlyAReferredByTokenIsCopied(t *testing.T) {
	const kind = "Content-Type: multipart/mixed; boundary=unique-1"
	for name, c := range map[string]struct{ referredBy, kind, body string }{
		"no cid":               {"Referred-By: <sip:caller@10.0.0.9;cid=x>", kind, mixed(signed)},
		"another cid":          {`Referred-By: <sip:caller@10.0.0.9>;cid="other@x"`, kind, mixed(signed)},
		"an empty cid":         {`Referred-By: <sip:caller@10.0.0.9>;cid=""`, kind, mixed(signed)},
		"no body":              {referredByC, kind, ""},
		"no boundary":          {referredByC, "Content-Type: multipart/mixed", mixed(signed)},
		"a boundary of bytes":  {referredByC, "Content-Type: multipart/mixed; boundary*=utf-8''%ff", mixed(signed)},
		"no parts":             {referredByC, "Content-Type: text/plain; boundary=unique-1", mixed(signed)},
		"a part without end":   {referredByC, kind, "--unique-1\r\n" + signed},
		"a part without a gap": {referredByC, kind, mixed("Content-ID: <" + tokenID + ">")},
		"a session":            {referredByC, kind, mixed("Content-Type: application/sdp\r\nContent-ID: <" + tokenID + ">\r\n\r\n" + answerSDP)},
		"too long":             {referredByC, kind, mixed(strings.Replace(signed, "--unique-1x", strings.Repeat("x", 32<<10), 1))},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l, dora, _ := w.referredToDora()
				l.ask("REFER", withHeaders(referToDora, c.referredBy, c.kind), withBody(c.body))
				dora.reply(dora.next("INVITE"), dialogtest.Response{Code: 486})
				l.told()
				synctest.Wait()
				m := w.one(stackIP, "INVITE")
				require.Equal(t, "application/sdp", m.value(t, "Content-Type"))
				require.Equal(t, offerSDP, m.body())
			})
		})
	}
}

// allocated is how many bytes f has allocated, garbage included.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// FX10: a multipart body costs what its bytes do, however many parts it has.
func TestMultipartReferOfManyPartsMakesNoGarbage(t *testing.T) {
	const size = 1<<20 - 1000
	many := func(part string) string {
		return strings.Repeat("--b\r\n"+part+"\r\n", size/len("--b\r\n"+part+"\r\n")) + "--b--\r\n"
	}
	for name, body := range map[string]string{
		"empty parts":          many(""),
		"parts with a header":  many("A: b\r\n\r\n"),
		"parts with the token": many("Content-ID: <" + tokenID + ">\r\n\r\n"),
		"one long header":      "--b\r\n" + strings.Repeat("Content-ID: <"+tokenID+">\r\n", size/60) + "\r\n--b--\r\n",
		"nearly delimiters":    strings.Repeat("--b", size/3),
		"padding":              "\r\n--b" + strings.Repeat(" ", size-100),
		"dashes":               strings.Repeat("-", size),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.stack(stackIP, func(c *dialog.StackConfig) {
					c.Listeners = []dialog.TransportConfig{{Protocol: "tcp", Address: stackIP, Port: 5060}}
				})
				l := w.incoming(b, w.peer(peerIP))
				b.OnReferRequest(func(context.Context, *dialog.ReferRequest) dialog.Answer { return dialog.Answer{Status: 603} })
				refer := l.Request(l.made("REFER", withHeaders(referToDora, referredByC, "Content-Type: multipart/mixed; boundary=b"), withBody(body)))
				w.deaf()
				conn, err := w.net.Host(peerIP).DialContext(context.Background(), "tcp", stackIP+":5060")
				require.NoError(t, err)
				defer func() { _ = conn.Close() }()
				answer := make([]byte, 4<<10)
				var n int
				garbage := allocated(func() {
					go func() { _, _ = conn.Write([]byte(refer)) }()
					n, err = conn.Read(answer)
				})
				require.NoError(t, err)
				require.Contains(t, string(answer[:n]), "SIP/2.0 603 ")
				require.Less(t, garbage, uint64(24<<20), "the body is 1 MiB")
				t.Logf("%d KiB", garbage>>10)
				hangUp(t, l.d, l.peer)
			})
		})
	}
}
