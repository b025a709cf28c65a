package dialog_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
)

// A call is transferred: its callee decides whether to do what the REFER asks
// for, FollowRefer does it, and the caller learns what came of it.
func ExampleStack_OnReferRequest() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	network.answering("10.0.0.3") // to whom the call is transferred

	bob := network.answering("10.0.0.2")
	bob.OnReferRequest(func(_ context.Context, refer *dialog.ReferRequest) dialog.Answer {
		if refer.ReferTo.Host != "10.0.0.3" {
			return dialog.Answer{Status: sip.StatusGlobalDecline}
		}
		return dialog.Answer{} // accepted
	})
	bob.OnIncomingRefer(func(d dialog.IDialog, referTo sip.Uri, _ *dialog.ReplacesInfo) {
		_, err := d.(*dialog.Dialog).FollowRefer(ctx, referTo, dialog.InviteOpts{Body: audio("sendrecv")})
		fmt.Println("bob is connected:", err == nil)
	})

	call := network.call("10.0.0.1", "10.0.0.2")
	for _, host := range []string{"10.0.0.66", "10.0.0.3"} {
		must(call.Refer(ctx, sip.Uri{Scheme: "sip", User: "carol", Host: host}, dialog.ReferOpts{}))
		transfer, err := call.WaitRefer(ctx)
		var refused *dialog.ResponseError
		if errors.As(err, &refused) {
			fmt.Println("refused:", refused.StatusCode)
			continue
		}
		must(call.Bye(ctx, "transferred")) // the transfer reports all the same
		outcome, err := transfer.Wait(ctx)
		fmt.Println("outcome:", outcome.Status, err)
	}
	// Unordered output:
	// refused: 603
	// bob is connected: true
	// outcome: 200 <nil>
}

// Bob's caller is transferred to carol, with whom bob has spoken: one call sends the REFER and
// returns its subscription.
func ExampleDialog_Transfer() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	network.answering("10.0.0.3") // carol
	alice := network.answering("10.0.0.1")
	alice.OnIncomingRefer(func(d dialog.IDialog, referTo sip.Uri, _ *dialog.ReplacesInfo) {
		_, err := d.(*dialog.Dialog).FollowRefer(ctx, referTo, dialog.InviteOpts{Body: audio("sendrecv")})
		must(err)
	})

	bob := network.stack("10.0.0.2")
	call := func(host string) *dialog.Dialog {
		d, err := bob.Call(ctx, sip.Uri{Scheme: "sip", Host: host}, dialog.InviteOpts{Body: audio("sendrecv")})
		must(err)
		return d
	}
	talk, consultation := call("10.0.0.1"), call("10.0.0.3")
	transfer, err := talk.Transfer(ctx, sip.Uri{}, dialog.ReferOpts{Replaces: consultation})
	must(err)
	outcome, err := transfer.Wait(ctx)
	fmt.Println(outcome.Status, err)
	must(talk.Bye(ctx, "transferred"))
	<-consultation.Done() // replaced
	// Output:
	// 200 <nil>
}

// One call takes a REFER to carol only, and follows it; the function for it is the call's own.
func ExampleDialog_OnRefer() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	network.answering("10.0.0.3") // carol
	network.stack("10.0.0.2").OnCall(func(call *dialog.Dialog) {
		call.OnRefer(func(_ context.Context, refer *dialog.ReferRequest) dialog.Answer {
			if refer.ReferTo.User != "carol" {
				return dialog.Answer{Status: sip.StatusGlobalDecline}
			}
			refer.OnAccepted(func() {
				_, err := refer.Subscription.Follow(ctx, dialog.InviteOpts{Body: audio("sendrecv")})
				must(err)
			})
			return dialog.Answer{}
		})
		must(call.Accept(ctx, answer))
	})

	call := network.call("10.0.0.1", "10.0.0.2")
	for _, user := range []string{"dave", "carol"} {
		transfer, err := call.Transfer(ctx, sip.Uri{Scheme: "sip", User: user, Host: "10.0.0.3"}, dialog.ReferOpts{})
		if err != nil {
			fmt.Println(err)
			continue
		}
		outcome, err := transfer.Wait(ctx)
		fmt.Println(outcome.Status, err)
	}
	// Output:
	// dialog: Transfer: REFER answered 603 Decline
	// 200 <nil>
}
