package test

import (
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// An offer gets 406 when Accept leaves no room for an answer, inside a call too.
func TestOfferWhoseAnswerIsNotAcceptedGets406(t *testing.T) {
	cases := map[string]struct {
		headers []string
		body    string
		status  int
	}{
		"no Accept":              {nil, offerSDP, 200},
		"SDP":                    {[]string{"Accept: text/plain, Application / SDP;level=1"}, offerSDP, 200},
		"on another line":        {[]string{"Accept: text/plain", "Accept: application/sdp"}, offerSDP, 200},
		"any application's":      {[]string{"Accept: application/*"}, offerSDP, 200},
		"anything":               {[]string{"Accept: */*;q=0.5"}, offerSDP, 200},
		"another":                {[]string{"Accept: text/nobodyKnowsThis"}, offerSDP, 406},
		"in a parameter only":    {[]string{`Accept: text/plain;x="a,application/sdp"`}, offerSDP, 406},
		"nothing":                {[]string{"Accept:"}, offerSDP, 406},
		"another, without offer": {[]string{"Accept: text/plain"}, "", 200},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
				b.OnIncomingDialog(func(d dialog.IDialog) {
					if err := d.Accept(t.Context(), withSDP(answerSDP)); err != nil {
						t.Errorf("accept: %v", err)
					}
				})
				res := p.ask(b, dialogtest.Request{Method: "INVITE", URI: "sip:bob@10.0.0.2", Headers: c.headers, Body: c.body})
				require.Equal(t, c.status, res.StatusCode)
				if c.status == 406 {
					require.Regexp(t, `^399 \S+ ".+"$`, value(res, "Warning"))
				}
			})
		})
	}
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		b.OnIncomingDialog(func(d dialog.IDialog) { _ = d.Accept(t.Context(), withSDP(answerSDP)) })
		res := p.ask(b, dialogtest.Request{Method: "INVITE", URI: "sip:bob@10.0.0.2", Body: offerSDP})
		require.Equal(t, 200, res.StatusCode)
		require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{Method: "ACK", URI: "sip:bob@10.0.0.2", ToTag: testkit.ToTag(res)})))
		again := dialogtest.Request{Method: "INVITE", URI: "sip:bob@10.0.0.2", ToTag: testkit.ToTag(res), CSeq: 2, Headers: []string{"Accept: text/plain"}, Body: offerSDP}
		require.Equal(t, 406, p.ask(b, again).StatusCode)
	})
}

// An INVITE of RFC 2543 has no Contact and no tag: its From is the target.
func TestInviteOfRFC2543WithoutContactIsTaken(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		calls := make(chan dialog.IDialog, 1)
		b.OnIncomingDialog(func(d dialog.IDialog) {
			_ = d.Accept(t.Context(), withSDP(answerSDP))
			calls <- d
		})
		start := "INVITE sip:bob@10.0.0.2 SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.9\nTo: <sip:bob@10.0.0.2>\nFrom: <sip:alice@10.0.0.9>\nCall-ID: old\n"
		require.NoError(t, p.Send(b.Addr(), start+"CSeq: 1 INVITE\n\n"))
		answer := p.final("INVITE")
		require.Equal(t, 200, answer.StatusCode)
		ack := "ACK sip:bob@10.0.0.2 SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.9\nTo: <sip:bob@10.0.0.2>;tag=" + testkit.ToTag(answer) +
			"\nFrom: <sip:alice@10.0.0.9>\nCall-ID: old\nCSeq: 1 ACK\n\n"
		require.NoError(t, p.Send(b.Addr(), ack))
		require.NoError(t, (<-calls).Close())
		bye := p.next("BYE")
		require.Equal(t, "sip:alice@10.0.0.9", bye.Request().Recipient.String())
		p.reply(bye, dialogtest.Response{Code: 200})
	})
}

// Any other has to have one.
func TestInviteWithoutContactGets400(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		b.OnIncomingDialog(func(d dialog.IDialog) { _ = d.Accept(t.Context()) })
		for _, headers := range [][]string{{noContact}, {"Contact: <tel:+1>"}, {"Contact: *"}} {
			res := p.ask(b, dialogtest.Request{Method: "INVITE", URI: "sip:bob@10.0.0.2", CallID: dialog.TagGen(), Headers: headers})
			require.Equal(t, sip.StatusBadRequest, res.StatusCode, headers)
		}
		old := "INVITE sip:bob@10.0.0.2 SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.9\nTo: <sip:bob@10.0.0.2>\nFrom: <tel:+1>\nCall-ID: old\nCSeq: 1 INVITE\n\n"
		require.NoError(t, p.Send(b.Addr(), old))
		require.Equal(t, sip.StatusBadRequest, p.final("INVITE").StatusCode)
	})
}
