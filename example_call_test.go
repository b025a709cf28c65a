package dialog_test

import (
	"context"
	"fmt"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
)

// One function decides every offer of all calls: the first, and later ones. It refuses to
// be held.
func ExampleStack_OnOfferRequest() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	bob := network.stack("10.0.0.2")
	bob.OnCall(func(call *dialog.Dialog) { must(call.Accept(ctx)) })
	bob.OnOfferRequest(func(_ context.Context, r *dialog.OfferRequest) (dialog.Body, error) {
		fmt.Println(r.Method, "early:", r.Early, direction(r.Offer))
		if direction(r.Offer) == "sendonly" {
			return nil, &dialog.Refusal{Status: 488, Reason: "No Music"}
		}
		return audio("sendrecv"), nil
	})

	call := network.call("10.0.0.1", "10.0.0.2")
	fmt.Println(call.Hold(ctx))
	must(call.Bye(ctx, ""))
	// Output:
	// INVITE early: true sendrecv
	// INVITE early: false sendonly
	// dialog: Hold: INVITE answered 488 No Music
}

// A callee that stands for two telephones: each rings in an early dialog of its own, beside
// that of the automatic 180, and the second answers.
func ExampleWithFork() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	network.stack("10.0.0.2").OnCall(func(call *dialog.Dialog) {
		must(call.Provisional(ctx, 180, "Ringing", dialog.WithFork("desk")))
		must(call.Provisional(ctx, 180, "Ringing", dialog.WithFork("mobile")))
		must(call.Accept(ctx, dialog.WithFork("mobile"), dialog.WithBody(audio("sendrecv"))))
	})

	call, err := network.stack("10.0.0.1").Call(ctx, sip.Uri{Scheme: "sip", User: "bob", Host: "10.0.0.2"}, dialog.InviteOpts{
		Body: audio("sendrecv"),
		Setup: func(d *dialog.Dialog) {
			d.OnFork(func(f dialog.ForkInfo) {
				if !f.Ended {
					fmt.Println(f.Status)
				}
			})
		},
	})
	must(err)
	must(call.Bye(ctx, ""))
	// Output:
	// 180
	// 180
	// 180
	// 200
}

// A caller without an offer gets ours, and its answer comes with the ACK.
func ExampleDialog_PeerAnswer() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	answered := make(chan struct{})
	network.stack("10.0.0.2").OnCall(func(d *dialog.Dialog) {
		must(d.Accept(ctx, dialog.WithBody(audio("sendrecv"))))
		theirs, err := d.PeerAnswer(ctx)
		must(err)
		fmt.Println("alice:", direction(theirs))
		close(answered)
	})

	alice := network.stack("10.0.0.1")
	alice.OnOfferRequest(func(context.Context, *dialog.OfferRequest) (dialog.Body, error) { return audio("recvonly"), nil })
	call, err := alice.Call(ctx, sip.Uri{Scheme: "sip", User: "bob", Host: "10.0.0.2"}, dialog.InviteOpts{})
	must(err)
	<-answered
	must(call.Bye(ctx, ""))
	// Output:
	// alice: recvonly
}
