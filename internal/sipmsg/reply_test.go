package sipmsg

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"
)

var peer = netip.MustParseAddrPort("192.0.2.7:5062")

// arrived is a request that came from the peer.
func arrived(lines ...string) *Message {
	m := whole([]byte(lined(lines...)))
	m.Arrived("UDP", peer)
	return m
}

const odd = `SIP/2.0/UDP h;x-route-tag="cid:A@h";branch=z9hG4bKAbC`

// A response repeats the text of the request, but for received, rport and our tag (RFC 3261
// 8.2.6.2, 12.1.1, 18.2.1; RFC 3581 4).
func TestRepliesRepeatTheText(t *testing.T) {
	lines := []string{
		"INVITE sip:b@h SIP/2.0",
		"v:  SIP / 2.0/UDP h:5060 ;RPort ; x=\"a,\\\"b\" ;received=10.0.0.1; branch=z9hG4bKAbC , " + odd,
		"Via: " + odd,
		`From: "A, \"B" <sip:a@h>;tag=good;x="a;tag=evil"`,
		"t:sip:b@h;x=\"a b\"",
		"Record-Route: <sip:10.0.0.9;lr>;state=abc, \"P, Q\" <sip:[::1];LR>",
		"Record-Route: <sip:p;lr;received=[2001:db8::1]>",
		"i: 1@h", "CSeq:  0009   INVITE", "Timestamp: 54", "Contact: <sip:a@h>", "Max-Forwards: 70",
	}
	repeated := []string{
		"Via: SIP / 2.0/UDP h:5060 ;RPort=5062 ; x=\"a,\\\"b\" ; branch=z9hG4bKAbC;received=192.0.2.7 , " + odd,
		"Via: " + odd,
		`From: "A, \"B" <sip:a@h>;tag=good;x="a;tag=evil"`,
	}
	routes := []string{
		"Record-Route: <sip:10.0.0.9;lr>;state=abc, \"P, Q\" <sip:[::1];LR>",
		"Record-Route: <sip:p;lr;received=[2001:db8::1]>",
	}
	to := "To: sip:b@h;x=\"a b\""
	rest := []string{"Call-ID: 1@h", "CSeq: 0009   INVITE"}
	for code, want := range map[int][]string{
		100: {to, rest[0], rest[1], "Timestamp: 54"},
		180: {to + ";tag=ours", routes[0], routes[1], rest[0], rest[1], "X: y"},
		486: {to + ";tag=ours", rest[0], rest[1], "X: y"},
	} {
		m := arrived(lines...)
		r := &Reply{Code: code, Reason: "Why", Tag: "ours", Body: []byte("body")}
		if code > 100 {
			r.Fields = []Field{{"X", "y"}}
		}
		got := strings.Split(string(m.AppendReply(nil, r)), crlf)
		require.Equal(t, append(append([]string{"SIP/2.0 " + text([]byte{byte('0' + code/100), byte('0' + code/10%10), byte('0' + code%10)}) + " Why"},
			append(repeated, want...)...), "Content-Length: 4", "", "body"), got)

		// By way of structs it is the same.
		res := m.NewReply(code, "Why", "ours")
		for _, f := range r.Fields {
			res.AppendHeader(sip.NewHeader(f.Name, f.Value))
		}
		res.SetBody(r.Body)
		structs := strings.Split(string(m.AppendResponse(nil, res)), crlf)
		require.ElementsMatch(t, got, structs)
	}
}

func TestReceivedIsLeftOutWhereTheSentByIsTheSource(t *testing.T) {
	for value, want := range map[string]string{
		"SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1":                "SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1",
		"SIP/2.0/UDP 192.0.2.7:1;received=6.6.6.6;branch=1":    "SIP/2.0/UDP 192.0.2.7:1;branch=1",
		"SIP/2.0/UDP 192.0.2.7;rport;branch=1":                 "SIP/2.0/UDP 192.0.2.7;rport=5062;branch=1;received=192.0.2.7",
		"SIP/2.0/UDP 192.0.2.7;rport=1;Received=x;branch=1":    "SIP/2.0/UDP 192.0.2.7;rport=5062;branch=1;received=192.0.2.7",
		"SIP/2.0/UDP [::ffff:192.0.2.7]:9;branch=1":            "SIP/2.0/UDP [::ffff:192.0.2.7]:9;branch=1",
		"SIP/2.0/UDP [2001:db8::1];received=[2001:db8::9];a=b": "SIP/2.0/UDP [2001:db8::1];a=b;received=192.0.2.7",
		`SIP/2.0/UDP x;received="a;b";BRANCH=Q`:                `SIP/2.0/UDP x;BRANCH=Q;received=192.0.2.7`,
	} {
		m := arrived("OPTIONS sip:b@h SIP/2.0", "Via: "+value)
		got := string(m.AppendReply(nil, &Reply{Code: 200}))
		require.Contains(t, got, "Via: "+want+crlf)
		// The structs say the same.
		made := m.Request().Via()
		require.Equal(t, made.Params.Has("received"), strings.Contains(want, "received="))
	}
}

func TestReceivedIsWrittenWithoutBrackets(t *testing.T) { // RFC 5118 4.5
	for value, want := range map[string]string{
		"SIP/2.0/UDP [2001:db8::7]:5070":      "SIP/2.0/UDP [2001:db8::7]:5070",
		"SIP/2.0/UDP [2001:db8::8];rport":     "SIP/2.0/UDP [2001:db8::8];rport=4444;received=2001:db8::7",
		"SIP/2.0/TCP pc.example.com;branch=z": "SIP/2.0/TCP pc.example.com;branch=z;received=2001:db8::7",
	} {
		m := whole([]byte(lined("OPTIONS sip:b@h SIP/2.0", "Via: "+value)))
		m.Arrived("UDP", netip.MustParseAddrPort("[2001:db8::7]:4444"))
		require.Contains(t, string(m.Reply(&Reply{Code: 200})), "Via: "+want+crlf)
		require.Equal(t, want, m.Request().Via().Value())
	}
}

// Changes of the application are sent, header by header.
func TestChangedHeadersAreWrittenAsTheyAreNow(t *testing.T) {
	lines := []string{
		"INVITE sip:b@h SIP/2.0", "Via: " + odd, "Via: " + odd, "From: <sip:a@h>;Tag=a", "To: Bob <sip:b@h>", "Call-ID: 1@h", "CSeq: 1  INVITE",
		"Record-Route: <sip:p;lr>;x=y",
	}
	for name, c := range map[string]struct {
		change func(*sip.Response)
		want   []string
		not    string
	}{
		"To's tag":  {func(r *sip.Response) { r.To().Params.Add("tag", "mine") }, []string{"To: Bob <sip:b@h>;tag=mine", "From: <sip:a@h>;Tag=a"}, ""},
		"To's name": {func(r *sip.Response) { r.To().DisplayName = "Eve" }, []string{`To: "Eve" <sip:b@h>;tag=ours`, "Record-Route: <sip:p;lr>;x=y"}, ""},
		"no To tag": {func(r *sip.Response) { r.To().Params.Remove("tag") }, []string{"To: Bob <sip:b@h>"}, "tag=ours"},
		"From": {func(r *sip.Response) { r.ReplaceHeader(sip.NewHeader("From", "<sip:x@y>;tag=q")) },
			[]string{"From: <sip:x@y>;tag=q"}, "Tag=a"},
		"Record-Route's URI": {func(r *sip.Response) { r.RecordRoute().Address.Host = "q" }, []string{"Record-Route: <sip:q;lr>", "Via: " + odd}, "x=y"},
		"no Record-Route":    {func(r *sip.Response) { r.RemoveHeader("Record-Route") }, []string{"CSeq: 1  INVITE"}, "Record-Route"},
		"another Record-Route": {func(r *sip.Response) {
			r.AppendHeader(&sip.RecordRouteHeader{Address: sip.Uri{Scheme: "sip", Host: "z"}})
		},
			[]string{"Record-Route: <sip:p;lr>", "Record-Route: <sip:z>"}, "x=y"},
		"Via":       {func(r *sip.Response) { r.Via().Host = "k" }, []string{"Via: SIP/2.0/UDP k;x-route-tag=\"cid:A@h\";branch=z9hG4bKAbC;received=192.0.2.7"}, ""},
		"one Via":   {func(r *sip.Response) { r.RemoveHeader("Via") }, []string{`Via: SIP/2.0/UDP h;x-route-tag="cid:A@h";branch=z9hG4bKAbC`}, "received"},
		"CSeq":      {func(r *sip.Response) { r.CSeq().SeqNo = 7 }, []string{"CSeq: 7 INVITE"}, ""},
		"something": {func(r *sip.Response) { r.AppendHeader(sip.NewHeader("X", "y")) }, []string{"X: y", "To: Bob <sip:b@h>;tag=ours"}, ""},
		"compact":   {func(r *sip.Response) { r.CompactHeaders = true; r.AppendHeader(sip.NewHeader("Subject", "y")) }, []string{"s: y", "l: 0"}, ""},
	} {
		m := arrived(lines...)
		res := m.NewReply(200, "OK", "ours")
		c.change(res)
		got := string(m.AppendResponse(nil, res))
		for _, want := range c.want {
			require.Contains(t, got, crlf+want+crlf, name)
		}
		if c.not != "" {
			require.NotContains(t, got, c.not, name)
		}
	}
}

func TestRepliesToIncompleteRequests(t *testing.T) {
	m := arrived("INVITE sip:b@h SIP/2.0", "Via: SIP/2.0/UDP 192.0.2.7", "CSeq: x", `To: "Mr <sip:a@b>`)
	require.Equal(t, "SIP/2.0 400 Bad\r\nVia: SIP/2.0/UDP 192.0.2.7\r\nCSeq: x\r\nTo: \"Mr <sip:a@b>\r\nContent-Length: 0\r\n\r\n",
		string(m.AppendReply(nil, &Reply{Code: 400, Reason: "Bad", Tag: "ours"})))
	m = arrived("INVITE sip:b@h SIP/2.0", "To: <sip:b@h>;")
	require.Contains(t, string(m.AppendReply(nil, &Reply{Code: 400, Tag: "ours"})), "To: <sip:b@h>;tag=ours\r\n")
	m = arrived("INVITE sip:b@h SIP/2.0", "To: <sip:b@h>;tag=theirs")
	require.Contains(t, string(m.AppendReply(nil, &Reply{Code: 400, Tag: "ours"})), "To: <sip:b@h>;tag=theirs\r\n")
}
