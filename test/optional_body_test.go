package test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

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

// What is ignored offers nothing: an INVITE without an offer is answered with one.
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
