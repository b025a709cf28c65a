package test

import (
	"context"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

func TestHeaderTextIsWhatCame(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.textPeer(peerIP)
		calls := waiting(b)
		via := `SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK1;x="a,b"`
		p.send(b.Addr(), "INVITE sip:b@10.0.0.1 SIP/2.0", "Via: "+via, "v: SIP/2.0/TCP low;X", `Record-Route: "P" <sip:10.0.0.9;lr>;state="a;b", <sip:p;lr>`,
			"f:  <sip:a@h>;Tag=a", "To: <sip:b@h>", "Call-ID: 1", "CSeq: 1 INVITE", "Contact: <sip:a@10.0.0.9>", "X-Odd: ;;,,", "Subject: folded", "  text")
		d := <-calls
		for _, req := range []*sip.Request{d.Request(), d.Request()} {
			require.Equal(t, []string{via, "SIP/2.0/TCP low;X"}, dialog.HeaderText(req, "VIA"))
			require.Equal(t, []string{"<sip:a@h>;Tag=a"}, dialog.HeaderText(req, "From"))
			require.Equal(t, []string{";;,,"}, dialog.HeaderText(req, "x-odd"))
			require.Equal(t, []string{"folded text"}, dialog.HeaderText(req, "s"))
			require.Nil(t, dialog.HeaderText(req, "Route"))
			routes := dialog.HeaderList(dialog.HeaderText(req, "Record-Route")[0])
			require.Len(t, routes, 2)
			state, found := dialog.HeaderParam(routes[0], "STATE")
			require.True(t, found)
			require.Equal(t, "a;b", state)
			req.RemoveHeader("Via")
			require.Equal(t, []string{`<sip:10.0.0.9;lr>`, "<sip:p;lr>"}, dialog.HeaderText(req.Clone(), "Record-Route"), "a clone is sipgo's")
		}
		require.NoError(t, d.Reject(context.Background(), 486, ""))

		got := make(chan []string, 1)
		require.NoError(t, b.OnRequest("Foo", func(_ context.Context, req *sip.Request) dialog.Answer {
			got <- dialog.HeaderText(req, "via")
			return dialog.Answer{}
		}))
		p.send(b.Addr(), "Foo sip:b@10.0.0.1 SIP/2.0", "Via: "+via, "From: <sip:a@h>;tag=a", "To: <sip:b@h>", "Call-ID: 2", "CSeq: 1 Foo")
		require.Equal(t, []string{via}, <-got)
	})
	require.Nil(t, dialog.HeaderText(nil, "Via"))
}
