package test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

// FX12: how many bytes leave for each byte of a request whose source may be forged, when
// nobody ever answers what leaves, at the default timers and with a request as short as can be.
// docs/security.md has these figures.
func TestAmplificationIsAsDocumented(t *testing.T) {
	ctx := context.Background()
	body := dialog.WithBody(dialog.NewBody("application/sdp", []byte(answerSDP)))
	for _, c := range []struct {
		name, method, supported string
		take                    func(dialog.IDialog)
		messages, factor        int // at most
	}{
		{"OPTIONS", "OPTIONS", "", nil, 1, 3},
		{"reject", "INVITE", "", func(d dialog.IDialog) { _ = d.Reject(ctx, 486, "") }, 13, 18},
		{"ring until RingingLimit", "INVITE", "", func(dialog.IDialog) {}, 16, 25}, // the third minute ends with RingingLimit,
		{"reliable 183", "INVITE", "k:100rel", func(d dialog.IDialog) {
			_ = d.(*dialog.Dialog).Provisional(ctx, 183, "", body)
		}, 20, 42},
		{"accept", "INVITE", "", func(d dialog.IDialog) { _ = d.Accept(ctx, body) }, 24, 68},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.stack(stackIP)
				b.OnIncomingDialog(c.take)
				request := shortest(c.method, c.supported)
				p := w.peer(peerIP)
				require.NoError(t, p.Send(b.Addr(), request))
				time.Sleep(10 * time.Minute)
				out, messages := w.bytesFrom(stackIP)
				factor := float64(out) / float64(len(request))
				t.Logf("%d bytes in, %d out in %d messages: %.1f", len(request), out, messages, factor)
				require.LessOrEqual(t, messages, c.messages)
				require.LessOrEqual(t, factor, float64(c.factor))
			})
		})
	}
}

// shortest is what a sender sends who wants much for little.
func shortest(method, header string) string {
	if header != "" {
		header += "\r\n"
	}
	return method + " sip:" + stackIP + " SIP/2.0\r\nv:SIP/2.0/UDP " + peerIP + ";branch=z9hG4bK1\r\nf:<sip:a>;tag=1\r\n" +
		"t:<sip:b>\r\ni:1\r\nCSeq:1 " + method + "\r\nm:<sip:" + peerIP + ">\r\n" + header + "\r\n"
}

// bytesFrom counts what a host has sent.
func (w *world) bytesFrom(ip string) (bytes, messages int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.log {
		if m.from.Addr().String() == ip {
			bytes += len(m.raw)
			messages++
		}
	}
	return bytes, messages
}
