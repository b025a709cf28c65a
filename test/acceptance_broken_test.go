package test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

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
