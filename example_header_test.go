package dialog_test

import (
	"context"
	"fmt"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
)

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

func ExampleHeaderParam() {
	const value = `"Bob; tag=no" <sip:bob@example.com;lr>;tag=yes;reason="Moved; permanently";flag`
	fmt.Println(dialog.HeaderParam(value, "Tag"))
	fmt.Println(dialog.HeaderParam(value, "reason"))
	fmt.Println(dialog.HeaderParam(value, "flag"))
	fmt.Println(dialog.HeaderParam(value, "lr"))
	// Output:
	// yes true
	// Moved; permanently true
	//  true
	//  false
}
