package test

import (
	"bytes"
	"context"
	"io"
	"mime"
	"mime/multipart"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

const (
	tokenID     = "20398823.2UWQFN309shb3@referrer.example"
	referredByC = `Referred-By: <sip:caller@10.0.0.9>;cid="` + tokenID + `"`
)

// signed is a token as RFC 3892 7.1 has it; part is what else stands in it.
const signed = "Content-Type: multipart/signed;\r\n  protocol=\"application/pkcs7-signature\";\r\n  micalg=sha1; boundary=dragons39\r\n" +
	"content-id: <" + tokenID + ">\r\n\r\n" +
	"--dragons39\r\nContent-Type: message/sipfrag\r\nContent-Disposition: aib; handling=optional\r\n\r\n" +
	"Refer-To: <sip:dora@10.0.0.8>\r\n--unique-1x\r\n\r\n" +
	"--dragons39\r\nContent-Type: application/pkcs7-signature; name=smime.p7s\r\n\r\n\xff\x00 \r\n\r\n--dragons39--"

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
				// What was offered is the session, not the body.
				hold := began(func() error { return got.call.Hold(context.Background()) })
				again := dora.next("INVITE")
				require.Equal(t, "application/sdp", value(again.Message, "Content-Type"))
				require.Contains(t, string(again.Message.Body()), "a=sendonly")
				dora.reply(again, dialogtest.Response{Code: 200, Body: answerSDP})
				require.NoError(t, <-hold)
			})
		})
	}
}

// What is no token of the referrer's does not go along: the body is what it would
// be.
func TestWhatIsNoReferredByTokenStaysHere(t *testing.T) {
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
				b, dora := w.stack(stackIP), w.peer(otherIP)
				l := w.incoming(b, w.peer(peerIP))
				followsRefers(context.Background(), b, offer(offerSDP))
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
