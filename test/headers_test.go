package test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// Headers that a response repeats are repeated byte for byte; and headers of ours that a peer
// repeats are accepted with its additions.

// quotedParams stand in Vias of gateways and of proxies with overload control.
var quotedParams = []string{
	`;x-route-tag="cid:A@h";branch=z9hG4bKAbC`,
	`;oc;oc-algo="loss";branch=z9hG4bKAbC`,
	`;x="a\"b";branch=z9hG4bKAbC`,
	`;branch=z9hG4bKAbC;x="a,b"`,
	`;branch=z9hG4bKAbC ; X = "a;branch=z9hG4bKno" ;y="\\"`,
	`;alias;BRANCH=z9hG4bKAbC;maddrs=[2001:db8::1];e="";z`,
}

// FW1
func TestEveryViaIsRepeatedByteForByte(t *testing.T) {
	for _, params := range quotedParams {
		t.Run(params, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.textPeer(peerIP)
				calls := waiting(b)
				top, lower := "SIP/2.0/UDP 10.0.0.9"+params, `SIP/2.0/TCP proxy.example`+params
				vias := []string{top + ", " + lower, lower}
				request := func(method, to string, vias ...string) []string {
					lines := []string{method + " sip:b@10.0.0.1 SIP/2.0"}
					for _, via := range vias {
						lines = append(lines, "Via: "+via)
					}
					return append(lines, "From: <sip:a@h>;tag=a", "To: "+to, "Call-ID: 1", "CSeq: 1 "+method, "Contact: <sip:a@10.0.0.9>")
				}
				p.send(b.Addr(), request("INVITE", "<sip:b@h>", vias...)...)
				for _, start := range []string{"SIP/2.0 100", "SIP/2.0 180"} {
					require.Equal(t, vias, fieldsOf(p.next(start), "Via"))
				}
				d := <-calls
				require.NoError(t, d.Reject(context.Background(), 486, ""))
				refusal := p.next("SIP/2.0 486")
				require.Equal(t, vias, fieldsOf(refusal, "Via"))

				// The ACK is of the same transaction: nothing is repeated.
				p.send(b.Addr(), request("ACK", fieldOf(t, refusal, "To"), top)...)
				synctest.Wait()
				require.Empty(t, p.next("SIP/2.0 486"))
			})
		})
	}
}

// FW1: received and rport are set in the top Via, and nowhere else.
func TestReceivedAndRportAreSetInTheTopVia(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.textPeer(peerIP)
		lower := `SIP/2.0/UDP low;rport;received=1.2.3.4;x="a,b"`
		p.send(b.Addr(), "OPTIONS sip:b@10.0.0.1 SIP/2.0", `Via: SIP/2.0/UDP top;x="a;rport";RPORT;received=6.6.6.6;branch=z9hG4bK1,`+lower, "Via: "+lower,
			"From: <sip:a@h>;tag=a", "To: <sip:b@h>", "Call-ID: 1", "CSeq: 1 OPTIONS")
		require.Equal(t, []string{`SIP/2.0/UDP top;x="a;rport";RPORT=5060;branch=z9hG4bK1;received=10.0.0.9,` + lower, lower},
			fieldsOf(p.next("SIP/2.0"), "Via"))
	})
}

// FW1, FW2
func TestParametersAddedToTheViaInAResponse(t *testing.T) {
	for _, added := range []string{`;x="a,b"`, `;received=10.0.0.1;rport=5060;x="a\"b"`, ` ;x="branch=z9hG4bKno;q" ;y`} {
		bubble(t, func(t *testing.T, w *world) {
			a, p := w.stack(stackIP), w.textPeer(peerIP)
			d, err := a.NewInvite(context.Background(), uri("bob", peerIP), offer(offerSDP))
			require.NoError(t, err)
			invite := p.next("INVITE")
			via, from := fieldOf(t, invite, "Via"), fieldOf(t, invite, "From")
			answer := func(status, to string) {
				p.send(a.Addr(), status, "Via: "+strings.Replace(via, ";", added+";", 1), "From: "+from+`;x="a;tag=evil"`, "To: "+to,
					"Call-ID: "+fieldOf(t, invite, "Call-ID"), "CSeq: "+fieldOf(t, invite, "CSeq"), "Contact: <sip:bob@10.0.0.9>")
			}
			answer("SIP/2.0 200 OK", `"a;tag=evil" <sip:bob@10.0.0.9>;x="a;tag=evil";Tag=good`)
			require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
			require.Equal(t, "good", tagIn(fieldOf(t, p.next("ACK"), "To")))
		})
	}
}

// FW2
func TestFromAndToAreRepeatedByteForByte(t *testing.T) {
	for _, c := range []struct{ from, to, tag string }{
		{`<sip:a@h>;tag=good;x="a;tag=evil"`, `<sip:b@h>;x="a b"`, "good"},
		{`"A \"B\", C;tag=no" <sip:a@h;x=y>;x="a b";Tag=good`, `"B, \\" <sip:b@h>;q=";tag=no"`, "good"},
		{`sip:a@h;tag=good`, `sip:b@h;x="<sip:c>"`, "good"},
		{"Ann Bee<sip:a@h> ; tag = good", "B  <tel:+1;x=y> ;\tz", "good"},
	} {
		t.Run(c.from, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.textPeer(peerIP)
				calls := waiting(b)
				p.send(b.Addr(), "INVITE sip:b@10.0.0.1 SIP/2.0", "Via: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK1", "From: "+c.from, "To: "+c.to,
					"Call-ID:  odd(id)<>@[h] ", "CSeq:\t0007   INVITE", "Contact: <sip:a@10.0.0.9>")
				ringing := p.next("SIP/2.0 180")
				d := <-calls
				require.Equal(t, c.tag, d.Key().RemoteTag)
				require.NoError(t, d.Accept(context.Background(), withSDP(answerSDP)))
				for _, res := range []string{ringing, p.next("SIP/2.0 200")} {
					require.Equal(t, c.from, fieldOf(t, res, "From"))
					require.Equal(t, c.to+";tag="+d.Key().LocalTag, fieldOf(t, res, "To"))
					require.Equal(t, "odd(id)<>@[h]", fieldOf(t, res, "Call-ID"))
					require.Equal(t, "0007   INVITE", fieldOf(t, res, "CSeq"))
				}
				p.send(b.Addr(), "ACK sip:b@10.0.0.1 SIP/2.0", "Via: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK2", "From: "+c.from, "To: "+c.to+";tag="+d.Key().LocalTag,
					"Call-ID: odd(id)<>@[h]", "CSeq: 7 ACK")
				p.send(b.Addr(), "BYE sip:b@10.0.0.1 SIP/2.0", "Via: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK3", "From: "+c.from, "To: "+c.to+";tag="+d.Key().LocalTag,
					"Call-ID: odd(id)<>@[h]", "CSeq: 8 BYE")
				require.Equal(t, c.from, fieldOf(t, p.next("SIP/2.0 200"), "From"))
				<-d.Done()
			})
		})
	}
}

// FW3
func TestRecordRouteIsRepeatedWithItsParameters(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.textPeer(peerIP)
		calls := waiting(b)
		routes := []string{
			`"P, \"Q" <sip:10.0.0.9;LR;x="a,b">;state=abc, <sip:[2001:db8::1]:5070;lr>;q="a,b"`,
			"<sip:10.0.0.8;lr;received=[2001:db8::1]>;a;b=c",
		}
		p.send(b.Addr(), "INVITE sip:b@10.0.0.1 SIP/2.0", "Via: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK1", "Record-Route: "+routes[0], "From: <sip:a@h>;tag=a",
			"To: <sip:b@h>", "record-route : "+routes[1], "Call-ID: 1", "CSeq: 1 INVITE", "Contact: <sip:a@10.0.0.9>")
		require.Empty(t, fieldsOf(p.next("SIP/2.0 100"), "Record-Route"))
		require.Equal(t, routes, fieldsOf(p.next("SIP/2.0 180"), "Record-Route"))
		d := <-calls
		require.NoError(t, d.Accept(context.Background(), withSDP(answerSDP)))
		require.Equal(t, routes, fieldsOf(p.next("SIP/2.0 200"), "Record-Route"))
	})
}

// Changes of the application in a response are sent; all other headers are repeated unchanged.
func TestAResponseOptionWinsOverRepeatedHeaders(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.textPeer(peerIP)
		calls := waiting(b)
		p.send(b.Addr(), "INVITE sip:b@10.0.0.1 SIP/2.0", `Via: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK1;x="a,b"`, "Record-Route: <sip:10.0.0.9;lr>;state=abc",
			`From: <sip:a@h>;tag=a;x="a b"`, "To:  Bob <sip:b@h>", "Call-ID: 1", "CSeq: 1 INVITE", "Contact: <sip:a@10.0.0.9>")
		d := <-calls
		require.NoError(t, d.Accept(context.Background(), withSDP(answerSDP), func(res *sip.Response) {
			res.To().DisplayName = "Robert"
			res.RecordRoute().Address.Host = "10.0.0.8"
		}))
		res := p.next("SIP/2.0 200")
		require.Equal(t, `SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK1;x="a,b"`, fieldOf(t, res, "Via"))
		require.Equal(t, `<sip:a@h>;tag=a;x="a b"`, fieldOf(t, res, "From"))
		require.Equal(t, `"Robert" <sip:b@h>;tag=`+d.Key().LocalTag, fieldOf(t, res, "To"))
		require.Equal(t, "<sip:10.0.0.8;lr>", fieldOf(t, res, "Record-Route"))
	})
}

// A request that is malformed is answered to its own address, if at all.
func TestARefusalGoesToTheSource(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p, other := w.stack(stackIP), w.textPeer(peerIP), w.textPeer(otherIP)
		p.send(b.Addr(), "OPTIONS sip:b@10.0.0.1 SIP/2.0", `Via: SIP/2.0/UDP 10.0.0.9;maddr=10.0.0.8;branch=z9hG4bK1;x="a,b", no Via`,
			"From: <sip:a@h>;tag=a", "To: <sip:b@h>", "Call-ID: 1", "CSeq: 1 OPTIONS")
		require.Equal(t, []string{`SIP/2.0/UDP 10.0.0.9;maddr=10.0.0.8;branch=z9hG4bK1;x="a,b", no Via`}, fieldsOf(p.next("SIP/2.0 400"), "Via"))
		require.Empty(t, other.next("SIP"))
		for _, via := range []string{"no Via", "SIP/2.0/UDP 10.0.0.9:x", `SIP/2.0/UDP 10.0.0.9;x="open`, ""} {
			p.send(b.Addr(), "OPTIONS sip:b@10.0.0.1 SIP/2.0", "Via: "+via, "From: <sip:a@h>;tag=a", "To: <sip:b@h>", "Call-ID: 1", "CSeq: 1 OPTIONS")
		}
		time.Sleep(time.Minute)
		require.Empty(t, p.next("SIP"))
	})
}

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

func TestHeaderTextIsTheReceivedText(t *testing.T) {
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

// FX4: responses, and each repetition of a 200 without an ACK, went to the host that the Via
// named.
func TestResponsesGoToTheSenderDespiteMaddr(t *testing.T) {
	for _, follow := range []bool{false, true} {
		for _, maddr := range []string{otherIP, stackIP, "255.255.255.255", "224.0.1.75", "0.0.0.0"} {
			for _, rport := range []string{"", ";rport"} {
				t.Run(fmt.Sprint(follow, maddr, rport), func(t *testing.T) {
					bubble(t, func(t *testing.T, w *world) {
						b := w.stack(stackIP, func(c *dialog.StackConfig) { c.FollowMaddr = follow })
						p := w.peer(peerIP)
						calls := waiting(b)
						say := func(r dialogtest.Request) {
							text := p.Request(r)
							via, rest, _ := strings.Cut(text, "\r\nVia: SIP/2.0/UDP ")
							require.NoError(t, p.Send(b.Addr(), via+"\r\nVia: SIP/2.0/UDP "+strings.Replace(rest, "\r\n", ";maddr="+maddr+rport+"\r\n", 1)))
						}
						say(dialogtest.Request{Method: "INVITE", URI: "sip:service@" + stackIP, FromTag: farTag, CSeq: 1, Body: offerSDP})
						d := <-calls
						require.NoError(t, d.Accept(t.Context(), withSDP(answerSDP)))
						time.Sleep(5 * time.Second)
						say(dialogtest.Request{Method: "OPTIONS", URI: "sip:service@" + stackIP, FromTag: "x", CSeq: 1, CallID: "other"})
						say(dialogtest.Request{Method: "foo bar", URI: "sip:service@" + stackIP, FromTag: "y", CSeq: 1, CallID: "broken"})
						synctest.Wait()
						want := peerIP
						if follow && maddr != "0.0.0.0" {
							want = maddr
						}
						w.mu.Lock()
						log := slices.Clone(w.log)
						w.mu.Unlock()
						for _, m := range log {
							switch {
							case m.from != b.Addr():
							case strings.HasPrefix(m.raw, "SIP/2.0 400"): // what is malformed is not believed
								require.Equal(t, peerIP, m.to.Addr().String(), m.raw)
							default:
								require.Equal(t, want, m.to.Addr().String(), m.raw)
							}
						}
						require.NotEmpty(t, w.sent(stackIP, "100 INVITE"))
						require.Greater(t, len(w.sent(stackIP, "200 INVITE")), 1)
						require.NotEmpty(t, w.sent(stackIP, "200 OPTIONS"))
						require.NoError(t, d.Close())
					})
				})
			}
		}
	}
}

// D11: every message has Content-Length once, and it is right, also when the
// application adds its own.
func TestContentLengthIsThereOnceAndRight(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack(stackIP), w.stack("10.0.0.2")
		incoming := make(chan *dialog.Dialog, 1)
		b.OnIncomingDialog(func(d dialog.IDialog) {
			err := d.Accept(context.Background(), withSDP(answerSDP), func(res *sip.Response) {
				res.AppendHeader(sip.NewHeader("Content-Length", "3"))
			})
			if err != nil {
				t.Error(err)
			}
			incoming <- d.(*dialog.Dialog)
		})
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		caller := d.(*dialog.Dialog)
		require.NoError(t, caller.WaitAnswer(context.Background()))
		callee := <-incoming
		synctest.Wait()
		require.NoError(t, callee.ReInvite(context.Background(), offer(answerSDP)))
		require.NoError(t, caller.ReInvite(context.Background(), dialog.InviteOpts{}))
		require.NoError(t, caller.Refer(context.Background(), uri("dora", otherIP), dialog.ReferOpts{}))
		r, err := caller.WaitRefer(context.Background())
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, dialog.Progress{Status: 100, Reason: "Trying"}, r.Status())
		require.NoError(t, caller.Bye(context.Background(), "done"))
		ringing, err := a.NewInvite(context.Background(), uri("bob", otherIP), offer(offerSDP))
		require.NoError(t, err)
		require.NoError(t, ringing.Close())

		w.mu.Lock()
		defer w.mu.Unlock()
		kinds := map[string]bool{}
		for _, m := range w.log {
			kinds[testkit.Describe(m.msg)] = true
			lengths := append(m.values("Content-Length"), m.values("l")...)
			require.Equal(t, []string{strconv.Itoa(len(m.body()))}, lengths, m.raw)
		}
		for _, what := range []string{"INVITE", "100 INVITE", "180 INVITE", "200 INVITE", "ACK", "REFER", "202 REFER", "NOTIFY", "200 NOTIFY", "BYE", "200 BYE"} {
			require.True(t, kinds[what], what)
		}
	})
}
