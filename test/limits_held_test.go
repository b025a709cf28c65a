package test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
)

// What a call holds of the messages of its peer is counted, or bounded by the size of
// one header block: what is learnt of a message does not keep its whole text.
func TestWhatACallHoldsIsCounted(t *testing.T) {
	const calls, uncounted = 20, 64 << 10
	junk := strings.Repeat("X-Junk: "+strings.Repeat("j", 1000)+"\r\n", 28) + "X-Junk: j"
	packages := "Recv-Info: " + strings.Repeat("abcd, ", 4000) + "abcd"
	asserted := "P-Asserted-Identity: " + strings.Repeat("<sip:a@b>, ", 2000) + "<sip:c@d>"
	var routes []string
	for i := range 200 {
		routes = append(routes, fmt.Sprintf("Record-Route: <sip:10.0.0.9;lr;n=%d>", i))
	}
	for name, c := range map[string]struct {
		invite, reInvite []string
		offer            string
	}{
		"header fields": {invite: []string{junk}, reInvite: []string{junk}},
		"routes":        {invite: routes},
		"packages":      {invite: []string{packages}, reInvite: []string{packages}},
		"a name":        {reInvite: []string{"P-Asserted-Identity: \"" + strings.Repeat("n", 25000) + "\" <sip:a@b.example>"}},
		"identities":    {invite: []string{asserted}, reInvite: []string{asserted}},
		"attributes":    {offer: large(offerSDP)},
		"media":         {offer: offerSDP + strings.Repeat("m=audio 0 RTP/AVP 0\r\n", 250)},
		"more media":    {offer: offerSDP + strings.Repeat("m=audio 0 RTP/AVP 0\r\n", 2500)},
		"formats":       {offer: offerSDP + "m=video 5000 RTP/AVP" + strings.Repeat(" 99", 15000) + "\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				answersAll(b)
				w.deaf()
				before := heap()
				for i := range calls {
					r := dialogtest.Request{
						Method: "INVITE", URI: "sip:b@" + stackIP, CallID: fmt.Sprint(i), FromTag: farTag, CSeq: 1,
						Headers: c.invite, Body: offerSDP,
					}
					require.NoError(t, p.Send(b.Addr(), p.Request(r)))
					res := p.final("INVITE")
					require.Equal(t, 200, res.StatusCode)
					r.ToTag, _ = res.To().Params.Get("tag")
					acknowledge := func() {
						ack := r
						ack.Method, ack.Headers, ack.Body = "ACK", nil, ""
						require.NoError(t, p.Send(b.Addr(), p.Request(ack)))
					}
					acknowledge()
					r.CSeq, r.Headers = 2, c.reInvite
					if c.offer != "" {
						r.Body = c.offer
					}
					require.NoError(t, p.Send(b.Addr(), p.Request(r)))
					p.final("INVITE")
					acknowledge()
				}
				time.Sleep(time.Minute) // the transactions are over
				synctest.Wait()
				require.Len(t, b.Dialogs(), calls)
				held, counted := (int(heap())-int(before))/calls, b.Stats().CallBytes/calls
				t.Logf("%d bytes a call, of them %d counted", held, counted)
				require.Less(t, held, counted+uncounted)
			})
		})
	}
}
