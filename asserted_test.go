package dialog_test

import (
	"context"
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

// What the network says of a call is set by Headers and WithHeader, and read from
// the INVITE and its responses; a BYE says why with a cause of ISDN.
func ExampleAssertedIdentities() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()

	desk := dialog.Address{DisplayName: "Front Desk", URI: sip.Uri{Scheme: "sip", User: "desk", Host: "example.com"}}
	ended := make(chan dialog.Cause, 1)
	bob := network.stack("10.0.0.2")
	bob.OnIncomingDialog(func(call dialog.IDialog) {
		callee := call.(*dialog.Dialog)
		invite := callee.Request()
		fmt.Println("called by", dialog.AssertedIdentities(invite)[0], "privacy", dialog.PrivacyOf(invite))
		fmt.Println("diverted by", dialog.DiversionsOf(invite)[0].URI.User, "as", dialog.DiversionsOf(invite)[0].Reason)
		must(call.Accept(ctx, dialog.WithHeader("P-Asserted-Identity", desk.String())))
		<-callee.Done()
		ended <- callee.Cause()
	})

	alice := dialog.Address{URI: sip.Uri{Scheme: "sip", User: "alice", Host: "example.com"}}
	carol := dialog.Diversion{Address: dialog.Address{URI: sip.Uri{Scheme: "sip", User: "carol", Host: "example.com"}}, Reason: "no-answer"}
	placed, err := network.stack("10.0.0.1").NewInvite(ctx, sip.Uri{Scheme: "sip", User: "bob", Host: "10.0.0.2"}, dialog.InviteOpts{
		Headers: []dialog.Header{
			{Name: "P-Asserted-Identity", Value: alice.String()}, {Name: "Privacy", Value: "id"}, {Name: "Diversion", Value: carol.String()},
		},
	})
	must(err)
	caller := placed.(*dialog.Dialog)
	must(caller.WaitAnswer(ctx))
	fmt.Println("answered by", dialog.AssertedIdentities(caller.Response())[0])

	must(caller.ByeWith(ctx, dialog.ByeOpts{Reasons: []dialog.Reason{{Protocol: "Q.850", Cause: 16, Text: "Normal call clearing"}}}))
	fmt.Println("ended by", (<-ended).Reasons[0])
	// Output:
	// called by <sip:alice@example.com> privacy [id]
	// diverted by carol as no-answer
	// answered by "Front Desk" <sip:desk@example.com>
	// ended by Q.850;cause=16;text="Normal call clearing"
}
