package test

import (
	"fmt"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

func invited(headers ...dialog.Header) *sip.Request {
	req := sip.NewRequest(sip.INVITE, sip.Uri{Scheme: "sip", Host: "example.com"})
	for _, h := range headers {
		req.AppendHeader(sip.NewHeader(h.Name, h.Value))
	}
	return req
}

func texts[T fmt.Stringer](list []T) []string {
	var texts []string
	for _, v := range list {
		texts = append(texts, v.String())
	}
	return texts
}

// The examples of RFC 3325 10, RFC 5806 5 and RFC 7044 5.5, and what does not
// parse.
func TestWhatTheNetworkSaysIsRead(t *testing.T) {
	req := invited(
		dialog.Header{Name: "P-Asserted-Identity", Value: `"Cullen, \"C\" Jennings" <sip:fluffy@cisco.com>, tel:+14085264000`},
		dialog.Header{Name: "P-Asserted-Identity", Value: `<>, `},
		dialog.Header{Name: "Privacy", Value: "ID;critical"},
		dialog.Header{Name: "Diversion", Value: `<sip:+19195551004@uunet.com>;reason=time-of-day;counter=2, <tel:+12125551003>;reason="user-busy";privacy=full;screen=no;limit=5`},
		dialog.Header{Name: "History-Info", Value: `<sip:bob@example.com>;index=1, <sip:bob@192.0.2.4?Reason=SIP%3bcause%3D302%3Btext%3D%22Moved%22>;index=1.1;rc=1`},
		dialog.Header{Name: "History-Info", Value: `<sip:carol@example.com>;index=1.2;mp=1`},
	)
	require.Equal(t, []string{`"Cullen, \"C\" Jennings" <sip:fluffy@cisco.com>`, "<tel:+14085264000>"}, texts(dialog.AssertedIdentities(req)))
	require.Equal(t, `Cullen, "C" Jennings`, dialog.AssertedIdentities(req)[0].DisplayName)
	require.Equal(t, []string{"id", "critical"}, dialog.PrivacyOf(req))

	diversions := dialog.DiversionsOf(req)
	require.Equal(t, []string{
		"<sip:+19195551004@uunet.com>;reason=time-of-day;counter=2",
		"<tel:+12125551003>;reason=user-busy;limit=5;privacy=full;screen=no",
	}, texts(diversions))
	require.Equal(t, "user-busy", diversions[1].Reason)
	require.Equal(t, 2, diversions[0].Counter)

	history := dialog.HistoryOf(req)
	require.Equal(t, []string{
		"<sip:bob@example.com>;index=1", "<sip:bob@192.0.2.4?Reason=SIP%3bcause%3D302%3Btext%3D%22Moved%22>;index=1.1;rc=1",
		"<sip:carol@example.com>;index=1.2;mp=1",
	}, texts(history))
	require.Equal(t, []dialog.Reason{{Protocol: "SIP", Cause: 302, Text: "Moved"}}, history[1].Reasons())
	require.Empty(t, history[0].Reasons())
	require.Equal(t, "mp", history[2].ChangedBy)
	require.Equal(t, "1", history[2].From)

	for _, none := range []*sip.Request{invited(), invited(dialog.Header{Name: "Diversion"}, dialog.Header{Name: "Privacy"}, dialog.Header{Name: "History-Info", Value: `"`})} {
		require.Empty(t, dialog.AssertedIdentities(none))
		require.Empty(t, dialog.PrivacyOf(none))
		require.Empty(t, dialog.DiversionsOf(none))
		require.Empty(t, dialog.HistoryOf(none))
	}
}
