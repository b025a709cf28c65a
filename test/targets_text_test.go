package test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

// Where requests of ours go is read from what the peer wrote, by the grammar, and
// sent back as it was.

// oddURIs lead to 10.0.0.9.
var oddURIs = []string{
	"sip:10.0.0.9:5060;lr;received=[2001:db8::1]",
	"sip:10.0.0.9;x=a:b;LR;y=[::1]:5",
	"sip:u;v=w:pass@10.0.0.9;lr",
	"sip:u:@10.0.0.9;lr",
	`sip:10.0.0.9;lr;+sip.ice="a>b,c"`,
	"sip:10.0.0.9;lr;d=1;d=2",
	"sip:%41%20,;?@10.0.0.9;lr",
	"sip:10.0.0.9;lr;received=sip:1.2.3.4",
}

// requestURI is the Request-URI of a message.
func requestURI(message string) string { return strings.Fields(message)[1] }

// callOf is a call of the peer's, accepted; by which Record-Route and Contact.
func callOf(t *testing.T, w *world, recordRoute, contact string) (d *dialog.Dialog, p *textPeer) {
	t.Helper()
	b, p := w.stack(stackIP), w.textPeer(peerIP)
	calls := waiting(b)
	lines := []string{"INVITE sip:b@10.0.0.1 SIP/2.0", "Via: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK1", "From: <sip:a@h>;tag=a", "To: <sip:b@h>",
		"Call-ID: 1", "CSeq: 1 INVITE", "Contact: " + contact}
	if recordRoute != "" {
		lines = append(lines, "Record-Route: "+recordRoute)
	}
	p.send(b.Addr(), lines...)
	require.NotEmpty(t, p.next("SIP/2.0 180"), "%s", contact)
	d = <-calls
	require.NoError(t, d.Accept(context.Background(), withSDP(answerSDP)))
	to := fieldOf(t, p.next("SIP/2.0 200"), "To")
	p.send(b.Addr(), "ACK sip:b@10.0.0.1 SIP/2.0", "Via: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK2", "From: <sip:a@h>;tag=a", "To: "+to, "Call-ID: 1", "CSeq: 1 ACK")
	synctest.Wait()
	return d, p
}

// hangs has the stack hang up, and returns its BYE.
func hangs(t *testing.T, w *world, d *dialog.Dialog, p *textPeer) string {
	t.Helper()
	ended := began(func() error { return d.Bye(context.Background(), "") })
	bye := p.next("BYE")
	require.NotEmpty(t, bye)
	p.send(w.stacks[0].Addr(), "SIP/2.0 200 OK", "Via: "+fieldOf(t, bye, "Via"), "From: "+fieldOf(t, bye, "From"), "To: "+fieldOf(t, bye, "To"),
		"Call-ID: "+fieldOf(t, bye, "Call-ID"), "CSeq: "+fieldOf(t, bye, "CSeq"))
	require.NoError(t, <-ended)
	return bye
}

// FW4, FW6, FW7
func TestRoutesAndTargetsAreSentBackAsTheyCame(t *testing.T) {
	for _, uri := range oddURIs {
		t.Run(uri, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				d, p := callOf(t, w, "<"+uri+">;x=y, <sip:second;lr>", "<sip:a@10.0.0.8>")
				bye := hangs(t, w, d, p)
				require.Equal(t, "sip:a@10.0.0.8", requestURI(bye))
				require.Equal(t, []string{"<" + uri + ">", "<sip:second;lr>"}, fieldsOf(bye, "Route"))
			})
			bubble(t, func(t *testing.T, w *world) {
				d, p := callOf(t, w, "", "<"+uri+">;q=1")
				bye := hangs(t, w, d, p)
				require.Equal(t, uri, requestURI(bye))
				require.Empty(t, fieldsOf(bye, "Route"))
			})
		})
	}
}

// FW5
func TestQuotesWithCommasAroundAnAddress(t *testing.T) {
	for _, around := range []string{
		`"a\"b,c" <%>`, `"a\\" <%>;x="b,c"`, `<%>;x="a\"b,c>";y`, `"<sip:no@10.0.0.7>, \"" <%>;q=1`, `Ann Bee <%>`, "\"\" <%>\t; x = \"\\\"\"",
	} {
		contact, route := strings.Replace(around, "%", "sip:a@10.0.0.9", 1), strings.Replace(around, "%", "sip:10.0.0.9;lr", 1)
		t.Run(around, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				d, p := callOf(t, w, route+", "+route, contact)
				require.Equal(t, "sip:a@10.0.0.9", requestURI(hangs(t, w, d, p)))
			})
			bubble(t, func(t *testing.T, w *world) { // in a 200
				a, p := w.stack(stackIP), w.textPeer(peerIP)
				d, err := a.NewInvite(context.Background(), uri("bob", peerIP), offer(offerSDP))
				require.NoError(t, err)
				invite := p.next("INVITE")
				p.send(a.Addr(), "SIP/2.0 200 OK", "Via: "+fieldOf(t, invite, "Via"), "From: "+fieldOf(t, invite, "From"), "To: <sip:bob@10.0.0.9>;tag=far",
					"Call-ID: "+fieldOf(t, invite, "Call-ID"), "CSeq: "+fieldOf(t, invite, "CSeq"), "Record-Route: "+route+","+route, "Contact: "+contact)
				require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
				ack := p.next("ACK")
				require.Equal(t, "sip:a@10.0.0.9", requestURI(ack))
				require.Equal(t, []string{"<sip:10.0.0.9;lr>", "<sip:10.0.0.9;lr>"}, fieldsOf(ack, "Route"))
				hangs(t, w, d.(*dialog.Dialog), p)
			})
		})
	}
}

// FW4, FW7
func TestReferToIsReadByTheGrammar(t *testing.T) {
	for value, want := range map[string]string{
		"<sip:10.0.0.7:5070;x;received=[2001:db8::1]>":                                    "sip:10.0.0.7:5070;x;received=[2001:db8::1]",
		`"A, \"B" <sip:c@10.0.0.7;LR?Replaces=i%40h%3Bto-tag%3Dt%3Bfrom-tag%3Df>;x="y,z"`: "sip:c@10.0.0.7;LR?Replaces=i%40h%3Bto-tag%3Dt%3Bfrom-tag%3Df",
		"sip:c@10.0.0.7;x=y": "sip:c@10.0.0.7",
	} {
		bubble(t, func(t *testing.T, w *world) {
			d, p := callOf(t, w, "", "<sip:a@10.0.0.9>")
			got := make(chan sip.Uri, 1)
			w.stacks[0].OnIncomingRefer(func(_ dialog.IDialog, referTo sip.Uri, replaces *dialog.ReplacesInfo) {
				if strings.Contains(value, "Replaces") && (replaces == nil || replaces.CallID != "i@h") {
					t.Error("Replaces is lost")
				}
				got <- referTo
			})
			p.send(w.stacks[0].Addr(), "REFER sip:b@10.0.0.1 SIP/2.0", "Via: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK3", "From: <sip:a@h>;Tag=a",
				"To: <sip:b@h>;TAG="+d.Key().LocalTag, "Call-ID: 1", "CSeq: 2 REFER", "Contact: <sip:a@10.0.0.9>", "r: "+value)
			require.NotEmpty(t, p.next("SIP/2.0 202"))
			uri := <-got
			require.Equal(t, want, uri.String())
			require.NoError(t, d.Close())
		})
	}
}

// FW8: methods are case-sensitive (RFC 3261 7.1); one that is not known gets 501 (RFC
// 3261 21.5.2).
func TestMethodsInAnotherCaseAreNotKnown(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		d, p := callOf(t, w, "", "<sip:a@10.0.0.9>")
		b := w.stacks[0]
		seq := 10
		for _, method := range []string{"Foo", "invite", "Options", "bye", "ack", "cancel", "!interesting-Method.%*_+`'~"} {
			for _, tag := range []string{"", ";tag=" + d.Key().LocalTag} {
				seq++
				p.send(b.Addr(), method+" sip:b@10.0.0.1 SIP/2.0", fmt.Sprint("Via: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK", seq), "From: <sip:a@h>;tag=a",
					"To: <sip:b@h>"+tag, "Call-ID: 1", fmt.Sprint("CSeq: ", seq, "  ", method), "Contact: <sip:a@10.0.0.9>")
				res := p.next("SIP/2.0")
				require.True(t, strings.HasPrefix(res, "SIP/2.0 501 "), "%s: %s", method, res)
				require.Equal(t, fmt.Sprint(seq, "  ", method), fieldOf(t, res, "CSeq"))
				require.NotEmpty(t, fieldOf(t, res, "Allow"))
			}
		}
		require.Equal(t, dialog.DialogStateEstablished, d.State())
		require.NoError(t, d.Close())
	})
}

// FW11: RFC 3261 7 wants CRLF; a datagram that has LF throughout says what it says.
func TestDatagramsWithBareLineFeeds(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.textPeer(peerIP)
		calls := waiting(b)
		lf := func(lines ...string) string { return strings.Join(lines, "\n") + "\n\n" }
		p.write(b.Addr(), lf("INVITE sip:b@10.0.0.1 SIP/2.0", "Via: SIP/2.0/UDP 10.0.0.9", " ;branch=z9hG4bK1", "From: <sip:a@h>;tag=a", "To: <sip:b@h>",
			"Call-ID: 1", "CSeq: 1 INVITE", "Contact: <sip:a@10.0.0.9>", "Content-Type: application/sdp", "Content-Length: 5")+"v=0\r\n")
		require.Equal(t, []string{"SIP/2.0/UDP 10.0.0.9 ;branch=z9hG4bK1"}, fieldsOf(p.next("SIP/2.0 180"), "Via"))
		d := <-calls
		require.Equal(t, "v=0\r\n", string(d.Request().Body()))
		require.NoError(t, d.Reject(context.Background(), 486, ""))
		require.NotEmpty(t, p.next("SIP/2.0 486"))

		// Among CRLFs a bare LF ends no line: it could hide another header.
		p.write(b.Addr(), "OPTIONS sip:b@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK2\r\nSubject: a\nTo: <sip:x@y>\r\nFrom: <sip:a@h>;tag=a\r\n"+
			"To: <sip:b@h>\r\nCall-ID: 2\r\nCSeq: 1 OPTIONS\r\n\r\n")
		require.NotEmpty(t, p.next("SIP/2.0 400"))
	})
}
