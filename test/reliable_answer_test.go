package test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// FS7, FA3, RFC 3261 13.2.1, RFC 6337 3.1.1, 3.1.2: once a reliable provisional response
// has brought the answer, or the offer, an SDP in a later response is neither. It goes
// to OnBody as it came, and does nothing else.
func TestSDPAfterAReliableAnswerIsNone(t *testing.T) {
	late := strings.Replace(versioned(answerSDP, 9), "5000", "5998", 1)
	for _, offers := range []bool{true, false} {
		bubble(t, func(t *testing.T, w *world) {
			opts := dialog.InviteOpts{}
			if offers {
				opts = offer(offerSDP)
			}
			asked := 0
			opts.Setup = func(d *dialog.Dialog) {
				d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { asked++; return sdpBody(offerSDP), nil })
			}
			l := w.calls(w.stack(stackIP, withoutRetry), w.peer(peerIP), opts)
			heard := bodies(l.d)
			again := func(r dialogtest.Response, rseq int) string {
				r.Headers = reliably(rseq)
				l.answer(r)
				in := l.next("PRACK")
				l.reply(in, dialogtest.Response{Code: 200})
				synctest.Wait()
				return string(in.Message.Body())
			}
			first := again(dialogtest.Response{Code: 183, Body: answerSDP}, 1)
			require.Equal(t, map[bool]string{true: "", false: offerSDP}[offers], first)
			require.Empty(t, again(dialogtest.Response{Code: 183, Body: late}, 2))
			l.answer(dialogtest.Response{Code: 200, Body: late})
			require.Empty(t, l.next("ACK").Message.Body())
			require.NoError(t, l.d.WaitAnswer(context.Background()))
			synctest.Wait()
			require.Equal(t, []string{"application/sdp\n" + answerSDP, "application/sdp\n" + late, "application/sdp\n" + late}, drained(heard))
			require.Equal(t, map[bool]int{true: 0, false: 1}[offers], asked)

			// So it is inside the call.
			r := l.renegotiates(context.Background(), map[bool]string{true: offerSDP}[offers])
			r.says(183, answerSDP, reliably(1)...)
			r.acknowledged("1 4 INVITE", 200)
			r.says(200, late)
			require.Empty(t, l.next("ACK").Message.Body())
			require.NoError(t, <-r.ended)
			require.Equal(t, answerSDP, string(r.body.Data()))
			require.Equal(t, map[bool]int{true: 0, false: 2}[offers], asked)
			l.d.OnOffer(nil)
			require.Equal(t, []string{"m=audio 4000 RTP/AVP 0 8"}, mLines(l.says(l.d.Hold, answerSDP)))
			l.stands(l.peer)
		})
	}
}
