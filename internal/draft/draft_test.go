package draft

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/sipmsg"
)

// pick returns one of some values.
func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// randomURI is a URI of any form that a call may have.
func randomURI(r *rand.Rand) sip.Uri {
	if r.IntN(8) == 0 {
		uri, err := sipmsg.ToURI("tel:+1-201-555-0123;phone-context=example.com")
		if err != nil {
			panic(err)
		}
		return uri
	}
	return sip.Uri{
		Scheme: pick(r, "sip", "sips", ""), User: pick(r, "", "bob", "b%20b", "j%C3%BCrgen"), Password: pick(r, "", "p"),
		Host: pick(r, "example.com", "10.0.0.9", "[2001:db8::1]", "2001:db8::1"), Port: pick(r, 0, 5060, 65535),
		UriParams: pick(r, nil, sip.HeaderParams{{K: "lr"}}, sip.HeaderParams{{K: "transport", V: "tcp"}, {K: "x", V: "a%20b"}}),
		Headers:   pick(r, nil, sip.HeaderParams{{K: "Subject", V: "x"}, {K: "Replaces", V: "a%3Bb"}}),
	}
}

// made is a request as structs of sipgo's, and the same as a draft.
func made(r *rand.Rand) (*sip.Request, *Request) {
	method := pick(r, sip.INVITE, sip.ACK, sip.BYE, sip.PRACK, sip.UPDATE, sip.INFO, sip.REFER, sip.NOTIFY, sip.SUBSCRIBE, sip.MESSAGE)
	uri := randomURI(r)
	req, text := sip.NewRequest(method, uri), New(method, &uri)
	via := &sip.ViaHeader{
		ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: pick(r, "UDP", "TCP", "TLS", "WS"), Host: pick(r, "10.0.0.1", "2001:db8::1", "x.invalid"),
		Port: pick(r, 0, 5060), Params: sip.HeaderParams{{K: "branch", V: "z9hG4bK1"}, {K: "rport"}},
	}
	req.AppendHeader(via)
	text.SetVia(via.Transport, via.Host, via.Port, "z9hG4bK1")
	for range r.IntN(4) {
		route := randomURI(r)
		req.AppendHeader(&sip.RouteHeader{Address: route})
		text.AddRoute(&route)
	}
	from, to := randomURI(r), randomURI(r)
	display, tag := pick(r, "", "Bob", `B \"o\" b`, "Jürgen Ø 漢字"), pick(r, "", "t1")
	req.AppendHeader(&sip.FromHeader{DisplayName: display, Address: from, Params: sip.HeaderParams{{K: "tag", V: "ours"}}})
	text.AddParty("From", display, &from, "ours")
	header := &sip.ToHeader{Address: to}
	if tag != "" {
		header.Params = sip.HeaderParams{{K: "tag", V: tag}}
	}
	req.AppendHeader(header)
	text.AddParty("To", "", &to, tag)
	id := sip.CallIDHeader("id@10.0.0.1")
	req.AppendHeader(&id)
	text.Add("Call-ID", string(id))
	seq := r.Uint32()
	req.AppendHeader(&sip.CSeqHeader{SeqNo: seq, MethodName: method})
	text.AddCSeq(seq)
	hops := sip.MaxForwardsHeader(r.IntN(256))
	req.AppendHeader(&hops)
	text.SetMaxForwards(int(hops))
	for i := range r.IntN(4) {
		name, value := fmt.Sprint("X-", i), pick(r, "", "a", "a, b;c=\"d\"", "漢字")
		req.AppendHeader(sip.NewHeader(name, value))
		text.Add(name, value)
	}
	body := []byte(strings.Repeat("v", r.IntN(3)*700))
	length := sip.ContentLengthHeader(len(body))
	req.AppendHeader(&length)
	req.SetBody(body)
	text.Body = body
	return req, text
}

// The text of a request is byte for byte that of sipgo's structs.
func TestTextIsWrittenAsStructsAre(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		req, text := made(r)
		require.Equal(t, req.String(), string(text.Text()))
		text.Release()
	}
}

// So are parts that no valid URI has.
func TestOddURIsAreWrittenAsStructsAre(t *testing.T) {
	for _, uri := range []sip.Uri{
		{}, {Host: "*", Wildcard: true}, {Scheme: "SIP", User: "jürgen", Host: "::1", Port: -1}, {Host: "h", HierarhicalSlashes: true},
		{Password: "p", Host: "a:b"}, {Host: "h", UriParams: sip.HeaderParams{{K: "x", V: "a b"}, {V: "\t"}, {}}, Headers: sip.HeaderParams{{K: "d", V: `"q"`}}},
	} {
		req := New(sip.BYE, &uri)
		require.Equal(t, uri.String(), req.URI())
	}
}

// So is what is read of it, and written again (RFC 3261 22.2: the same request but for
// CSeq and credentials).
func TestTextIsReadBack(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		req, text := made(r)
		m, err := sipmsg.Parse(text.Text())
		require.NoError(t, err)
		require.Equal(t, req.Method, m.Method)
		require.Equal(t, req.Recipient.String(), m.RequestURI)
		require.Equal(t, string(req.Body()), string(m.Body()))
		require.Equal(t, req.CSeq().SeqNo, m.CSeq)
		again := Parse(text.Text())
		text.via = nil
		require.Equal(t, string(text.Text()), string(again.Text()))
		again.SetCSeq(m.CSeq + 1)
		again.Add("Authorization", "Digest x")
		require.Equal(t, m.CSeq+1, again.Message().CSeq)
		require.Equal(t, text.ToTag(), m.ToTag)
		again.SetCSeq(m.CSeq)
		again.Remove("authorization")
		require.Equal(t, string(text.Text()), string(again.Text()))
	}
}

// A request of the application's is written as it is, but for Via and Content-Length.
func TestRequestOfStructsIsWrittenAsItIs(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 1000 {
		req, text := made(r)
		text.via = nil
		require.Equal(t, string(text.Text()), string(Of(req).Text()))
		other := New(sip.OPTIONS, &sip.Uri{Host: "elsewhere"})
		other.Method = req.Method
		other.Replace(req)
		require.Equal(t, string(text.Text()), string(other.Text()))
	}
}

// RFC 3261 17.1.1.3 and 9.1.
func TestAckAndCancelRepeatTheirInvite(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 1000 {
		req, text := made(r)
		text.Add("Authorization", "Digest x")
		cancel, err := sipmsg.Parse(Derive(text.Text(), sip.CANCEL, 70).Text())
		require.NoError(t, err)
		require.Equal(t, req.Recipient.String(), cancel.RequestURI)
		require.Equal(t, sip.CANCEL, cancel.Method)
		require.Equal(t, sip.CANCEL, cancel.CSeqMethod)
		require.Equal(t, req.CSeq().SeqNo, cancel.CSeq)
		invite := text.Message()
		for _, name := range []string{"Route", "From", "To", "Call-ID"} {
			require.Equal(t, invite.Values(name), cancel.Values(name), name)
		}
		require.Equal(t, []string{string(text.via)}, cancel.Values("Via"))
		require.Empty(t, cancel.Values("Authorization"))
		require.Empty(t, cancel.Body())
	}
}

func TestFieldsAreChanged(t *testing.T) {
	req := New(sip.BYE, &sip.Uri{Host: "a"})
	for _, value := range []string{"1", "2", "3"} {
		req.Add("X", value)
	}
	req.Add("m", "<sip:a@b>")
	req.Set("X", "a longer one")
	require.Equal(t, []string{"a longer one", "2", "3"}, req.Message().Values("x"))
	require.Equal(t, "<sip:a@b>", req.Value("Contact"))
	req.RemoveIf("x", func(value string) bool { return value == "2" })
	require.Equal(t, "X: a longer one\r\nX: 3\r\n", req.Lines("Y", "x"))
	req.Remove("X")
	require.False(t, req.Has("X"))
	require.Empty(t, req.Lines("X"))
	req.Set("X", "")
	require.True(t, req.Has("X"))
	require.True(t, req.IsEmpty("X"))
	req.AddLines("Y: 1\r\n")
	require.Equal(t, "1", req.Value("Y"))
}

// FuzzNothingEndsItsLine puts anything into each place of a request: the same fields are
// read again, and no other.
func FuzzNothingEndsItsLine(f *testing.F) {
	f.Add("bob", "Bob", "text", "lr")
	f.Add("b\r\nX: y", "\r\n\r\nBYE sip:a SIP/2.0", "a\nb\rc", "x\r\n")
	f.Add("ü", "\\\x00", "\t", ";")
	f.Fuzz(func(t *testing.T, user, display, value, param string) {
		uri := sip.Uri{Host: "h", User: user, UriParams: sip.HeaderParams{{K: param, V: value}}}
		req := New(sip.BYE, &uri)
		req.AddRoute(&uri)
		req.AddParty("From", display, &uri, param)
		req.AddPartyText("To", value, param)
		req.Add("X", value)
		req.AddHeader(sip.NewHeader("Y", display))
		text := string(req.Text())
		head, body, ended := strings.Cut(text, crlf+crlf)
		require.True(t, ended)
		require.Empty(t, body)
		lines := strings.Split(head, crlf)
		require.Len(t, lines, 7, "%q", text)
		for i, name := range []string{"BYE ", "Route: ", "From: ", "To: ", "X: ", "Y: ", "Content-Length: 0"} {
			require.True(t, strings.HasPrefix(lines[i], name), "%q", lines[i])
			require.False(t, strings.ContainsAny(lines[i], "\r\n"), "%q", lines[i])
		}
		require.Equal(t, strings.NewReplacer("\r", " ", "\n", " ").Replace(value), req.Value("X"))
	})
}
