package dialog

import (
	"context"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/outgoing"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipuri"
)

// plain makes headers of lines as messages made by hand have them: of one Go type,
// whatever their name.
func plain(lines ...string) []sip.Header {
	var list []sip.Header
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		list = append(list, sip.NewHeader(name, value))
	}
	return list
}

// FD18. An answer made by hand, as tests of old make it, teaches the caller where the
// peer is and by which way.
func TestAnswerWithPlainHeadersMovesAHalfMadeCaller(t *testing.T) {
	const contact = "<sip:peer@127.0.0.9:5070;transport=tcp>"
	routes := []string{"<sip:a.example;lr>", "<sip:b.example:5090;lr>", "<sip:c.example;lr;x=y>"}
	answers := map[string][]sip.Header{
		"plain":      plain("Record-Route: "+routes[0], "Record-Route: "+routes[1], "Record-Route: "+routes[2], "Contact: "+contact, "To: <sip:us@127.0.0.1>;tag=theirs"),
		"one line":   plain("Record-Route: "+strings.Join(routes, ", "), "Contact: "+contact, "To: <sip:us@127.0.0.1>;tag=theirs"),
		"lower case": plain("record-route: "+routes[0]+","+routes[1], "record-route: "+routes[2], "contact: "+contact, "to: sip:us@127.0.0.1;tag=theirs"),
		"compact":    plain("Record-Route: "+strings.Join(routes, " ,"), "m: "+contact, "t: \"A, B\" <sip:us@127.0.0.1>;TAG=theirs"),
		"named":      plain("Record-Route: \"P, x\" "+routes[0]+";a=b, P "+routes[1]+", "+routes[2], "CONTACT: \"<a>, b\" "+contact+";q=0.1", "TO: <sip:us@127.0.0.1>;x=y;tag=theirs"),
		"mixed": append(plain("Record-Route: "+routes[0], "Record-Route: "+routes[1], "Contact: "+contact),
			&sip.RecordRouteHeader{Address: sip.Uri{Scheme: "sip", Host: "c.example", UriParams: sip.HeaderParams{{K: "lr"}}}}, whiteboxTo("theirs")),
	}
	for name, headers := range answers {
		for _, state := range []DialogState{DialogStateTrying, DialogStateRinging} {
			d := &Dialog{stack: &Stack{config: &StackConfig{}}, isUAC: true, state: state, localTag: "ours"}
			require.NoError(t, d.processResponse(whiteboxResponse(200, headers...)), name)
			require.Equal(t, DialogStateEstablished, d.state, name)
			require.Equal(t, "sip:peer@127.0.0.9:5070;transport=tcp", d.remoteTarget.String(), name)
			require.Equal(t, []string{"c.example", "b.example", "a.example"}, whiteboxHosts(d.routeSet), name)
			require.Equal(t, 5090, d.routeSet[1].Port, name)
			require.True(t, sipuri.IsLoose(d.routeSet[0]), name)
			require.Equal(t, DialogKey{LocalTag: "ours", RemoteTag: "theirs"}, d.Key(), name)
		}
	}
}

// A provisional response made by hand, and what it brings.
func TestProvisionalWithPlainHeadersIsRead(t *testing.T) {
	d := &Dialog{stack: &Stack{config: &StackConfig{}}, isUAC: true, state: DialogStateTrying, localTag: "ours"}
	got := make(chan Body, 1)
	d.OnBody(func(body Body) { got <- body })
	res := whiteboxResponse(183, plain("To: <sip:us@127.0.0.1>;tag=theirs", "m: <sip:peer@127.0.0.9>", "c: application/sdp", "require: 100rel", "rseq: 7")...)
	res.SetBody([]byte("v=0\r\n"))
	require.NoError(t, d.processResponse(res))
	require.Equal(t, DialogStateRinging, d.State())
	require.Equal(t, "theirs", d.Key().RemoteTag)
	require.Equal(t, "127.0.0.9", d.Info().RemoteTarget.Host)
	require.Equal(t, "application/sdp", (<-got).ContentType())
	require.EqualValues(t, 7, d.rseqOf(received(res)))
}

func TestReferWithAPlainCSeqIsTakenOnce(t *testing.T) {
	for _, line := range []string{"CSeq: 2 REFER", "cseq:  2   REFER"} {
		d := &Dialog{stack: &Stack{config: &StackConfig{}}, state: DialogStateEstablished}
		req := sip.NewRequest(sip.REFER, sip.Uri{Scheme: "sip", Host: "127.0.0.1"})
		for _, h := range plain(line, "b: <sip:boss@127.0.0.8>", "refer-to: <sip:carol@127.0.0.3?Replaces=id%3Bfrom-tag%3Df%3Bto-tag%3Dt>") {
			req.AppendHeader(h)
		}
		referTo, replaces, err := referTarget(req)
		require.NoError(t, err)
		require.Equal(t, &ReplacesInfo{CallID: "id", FromTag: "f", ToTag: "t"}, replaces)
		for range 2 {
			require.NoError(t, d.HandleIncomingRefer(req, referTo, replaces))
		}
		require.Len(t, d.GetAllReferSubscriptions(), 1)
		require.Equal(t, "2 REFER", d.GetAllReferSubscriptions()[0].ID)
		require.Equal(t, "<sip:boss@127.0.0.8>", d.GetAllReferSubscriptions()[0].refer.By)
	}
	for _, line := range []string{"CSeq: REFER", "CSeq: x REFER", "CSeq: 2", "CSeq: 99999999999 REFER"} {
		req := sip.NewRequest(sip.REFER, sip.Uri{Scheme: "sip", Host: "127.0.0.1"})
		req.AppendHeader(plain(line)[0])
		require.ErrorIs(t, (&Dialog{state: DialogStateEstablished}).HandleIncomingRefer(req, sip.Uri{Host: "127.0.0.3"}, nil), ErrMalformed, line)
	}
}

// An INVITE made by hand makes the same dialog as one that was parsed.
func TestCalleeOfAPlainInvite(t *testing.T) {
	s, err := NewStack(&StackConfig{})
	require.NoError(t, err)
	req := sip.NewRequest(sip.INVITE, sip.Uri{Scheme: "sip", Host: "127.0.0.1"})
	for _, h := range plain(
		"Record-Route: <sip:a.example;lr>, <sip:b.example;lr>", "i: id", `t: "Us \"2\"" <sip:us@127.0.0.1>`, "f: <sip:them@127.0.0.9>;tag=theirs",
		"cseq: 17 INVITE", "m: <sip:them@127.0.0.9:5071>", "c: application/sdp",
	) {
		req.AppendHeader(h)
	}
	req.SetBody([]byte("v=0\r\n"))
	m := whiteboxReceived(t, req)
	d := s.newCallee(whiteboxServer{m: m}, m)
	require.Equal(t, DialogKey{CallID: "id", LocalTag: "ours", RemoteTag: "theirs"}, d.Key())
	info := d.Info()
	require.Equal(t, []string{"a.example", "b.example"}, whiteboxHosts(info.RouteSet))
	require.Equal(t, 5071, info.RemoteTarget.Port)
	require.EqualValues(t, 17, info.RemoteSeq)
	require.Equal(t, `Us "2"`, info.Local.DisplayName)
	require.Equal(t, "them", info.Remote.URI.User)
	require.Equal(t, "application/sdp", d.aside.body.ContentType())
	require.True(t, sipheader.HasTarget(m))
	req.AppendHeader(plain("Contact: <sip:other@127.0.0.9>")[0])
	require.False(t, sipheader.HasTarget(whiteboxReceived(t, req)), "two")
}

// What Do changes before a request leaves it can change, whatever the type.
func TestPlainHeadersOfARequestAreGivenTheirTypes(t *testing.T) {
	req := sip.NewRequest(sip.REGISTER, sip.Uri{Scheme: "sip", Host: "127.0.0.9"})
	for _, h := range plain("f: Alice <sip:alice@127.0.0.9>", "To: <sip:alice@127.0.0.9>", "i: id", "cseq: 5 REGISTER", "m: <sip:alice@127.0.0.1>, <sip:alice@127.0.0.2>;q=0.5",
		"route: <sip:p.example;lr>", "X-Other: f") {
		req.AppendHeader(h)
	}
	own, err := outgoing.Typed(req)
	require.NoError(t, err)
	(&Stack{config: &StackConfig{}}).completing().Complete(own)
	tag, _ := own.From().Params.Get("tag")
	require.Len(t, tag, 16)
	own.CSeq().SeqNo++
	text := own.String()
	for _, line := range []string{"From: \"Alice\" <sip:alice@127.0.0.9>;tag=" + tag, "CSeq: 6 REGISTER", "Call-ID: id", "Contact: <sip:alice@127.0.0.2>;q=0.5", "Route: <sip:p.example;lr>", "X-Other: f"} {
		require.Equal(t, 1, strings.Count(text, line+"\r\n"), "%s in\n%s", line, text)
	}
	require.Equal(t, "p.example", outgoing.NextHop(own).Host)
	require.NotContains(t, req.String(), tag, "the application's is not changed")

	for _, line := range []string{"From: ", "CSeq: 5 OPTIONS", "CSeq: five REGISTER", "cseq: 5"} {
		req := sip.NewRequest(sip.REGISTER, sip.Uri{Scheme: "sip", Host: "127.0.0.9"})
		req.AppendHeader(plain(line)[0])
		_, err := (&Stack{config: &StackConfig{}}).Do(context.Background(), req)
		require.ErrorIs(t, err, ErrInvalidArgument, line)
	}
}

// A ResponseOpt may have added what it likes, by what name it likes.
func TestPlainHeadersInAResponseOptAreSeen(t *testing.T) {
	res := whiteboxResponse(200)
	require.NoError(t, applyOpts(res, []ResponseOpt{func(res *sip.Response) {
		for _, h := range plain("l: 99", "content-length: 98", "require: timer, 100rel", "rseq: 1", "c: application/sdp") {
			res.AppendHeader(h)
		}
		res.SetBody([]byte("v=0\r\n"))
	}}))
	require.Equal(t, []string{"timer"}, sipheader.Listed(res, "Require"))
	require.Empty(t, sipheader.AllNamed(res, "RSeq"))
	require.Len(t, sipheader.AllNamed(res, "Content-Length"), 1)
	require.Equal(t, "5", sipheader.Value(res, "Content-Length"))
	require.Equal(t, "application/sdp", bodyOf(res).ContentType())
}
