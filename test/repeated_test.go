package test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

// What a response repeats is as it came, byte for byte; and what a peer repeats
// of ours is taken, whatever it adds.

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
func TestWhatAPeerAddsToTheViaInAResponse(t *testing.T) {
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

// What an application changes in a response is as the application wants it, all
// else as it came.
func TestAResponseOptionWinsOverWhatIsRepeated(t *testing.T) {
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
