package bridge_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/emiago/sipgo/sip"
	"go.uber.org/goleak"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/bridge"
	"sipdialog.example/dialog/dialogtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stackOn starts a stack on a host of a network in memory.
func stackOn(network *dialogtest.Network, ip string) *dialog.Stack {
	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport:     &dialog.TransportConfig{Protocol: "udp", Address: ip, Port: 5060},
		Network:       network.Host(ip),
		NoAutoRinging: true,
	})
	if err != nil {
		panic(err)
	}
	if err := stack.Start(context.Background()); err != nil {
		panic(err)
	}
	return stack
}

// sendOn sends a call on to bob, unless the caller is not welcome, and says how it ends.
func sendOn(ctx context.Context, b *bridge.Bridge, call *dialog.Dialog) {
	if call.Info().Remote.URI.User == "spam" {
		_ = call.Reject(ctx, 403, "")
		return
	}
	bob := sip.Uri{Scheme: "sip", User: "bob", Host: "192.0.2.3", Port: 5060}
	if _, err := b.Join(ctx, call, bob, dialog.InviteOpts{}); err != nil {
		fmt.Println("no call:", err)
		return
	}
	fmt.Println("the call begins")
	<-call.Done()
	fmt.Println("the call has ended:", call.Cause())
}

func ExampleBridge_Join() {
	ctx, network := context.Background(), dialogtest.NewNetwork()
	caller, middle, callee := stackOn(network, "192.0.2.1"), stackOn(network, "192.0.2.2"), stackOn(network, "192.0.2.3")

	b := bridge.New(middle, bridge.Options{})
	middle.OnCall(func(call *dialog.Dialog) { sendOn(ctx, b, call) })

	ended := make(chan struct{})
	callee.OnCall(func(call *dialog.Dialog) {
		fmt.Println("called by", call.Info().Remote.URI.User)
		call.OnStateChange(func(state dialog.DialogState) {
			if state == dialog.DialogStateTerminated {
				fmt.Println(call.Cause().Reasons[0].Text)
				close(ended)
			}
		})
		_ = call.Accept(ctx, dialog.WithBody(dialog.NewBody("application/sdp", []byte("v=0\r\nm=audio 4000 RTP/AVP 0\r\n"))))
	})

	alice := dialog.Address{URI: sip.Uri{Scheme: "sip", User: "alice", Host: "192.0.2.1"}}
	call, err := caller.Call(ctx, sip.Uri{Scheme: "sip", User: "bob", Host: "192.0.2.2", Port: 5060}, dialog.InviteOpts{
		From: &alice, Body: dialog.NewBody("application/sdp", []byte("v=0\r\nm=audio 5000 RTP/AVP 0\r\n")),
	})
	if err == nil {
		err = call.WaitAnswer(ctx)
	}
	if err == nil {
		err = call.Bye(ctx, "good bye")
	}
	<-ended
	fmt.Println(err)
	for _, stack := range []*dialog.Stack{caller, middle, callee} {
		_ = stack.Shutdown(ctx)
	}
	network.Close()
	// Unordered output:
	// called by alice
	// the call begins
	// the call has ended: remote BYE good bye
	// good bye
	// <nil>
}

// Transfer: a REFER to carol is followed by the bridge itself, any other is refused. Alice, who
// stays, needs no support for REFER.
func ExampleOptions() {
	ctx, network := context.Background(), dialogtest.NewNetwork()
	alice, middle := stackOn(network, "192.0.2.1"), stackOn(network, "192.0.2.2")
	bob, carol := stackOn(network, "192.0.2.3"), stackOn(network, "192.0.2.4")
	session := dialog.NewBody("application/sdp", []byte("v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"))
	at := func(user, host string) sip.Uri { return sip.Uri{Scheme: "sip", User: user, Host: host, Port: 5060} }
	for _, telephone := range []*dialog.Stack{bob, carol} {
		telephone.OnCall(func(call *dialog.Dialog) { _ = call.Accept(ctx, dialog.WithBody(session)) })
	}

	b := bridge.New(middle, bridge.Options{
		Refer: func(refer *dialog.ReferRequest) bridge.ReferPolicy {
			if refer.ReferTo.User != "carol" {
				return bridge.ReferRefused
			}
			return bridge.ReferFollowed
		},
		Followed: func(_, now *bridge.Call) { fmt.Println("connected with", now.Out().Info().Remote.URI.User) },
	})
	middle.OnCall(func(call *dialog.Dialog) { _, _ = b.Join(ctx, call, at("bob", "192.0.2.3"), dialog.InviteOpts{}) })

	call, err := alice.Call(ctx, at("bob", "192.0.2.2"), dialog.InviteOpts{Body: session})
	fmt.Println("alice calls bob:", err)
	atBob := bob.Dialogs()[0]
	_, err = atBob.Transfer(ctx, at("dave", "192.0.2.5"), dialog.ReferOpts{})
	fmt.Println(err)
	transfer, err := atBob.Transfer(ctx, at("carol", "192.0.2.4"), dialog.ReferOpts{})
	if err == nil {
		outcome, _ := transfer.Wait(ctx)
		fmt.Println("outcome:", outcome.Status)
	}
	<-atBob.Done() // the bridge has hung up
	fmt.Println("alice:", call.State())
	_ = call.Bye(ctx, "")
	for _, stack := range []*dialog.Stack{alice, bob, carol, middle} {
		_ = stack.Shutdown(ctx)
	}
	network.Close()
	// Unordered output:
	// alice calls bob: <nil>
	// dialog: Transfer: REFER answered 603 Decline
	// connected with carol
	// outcome: 200
	// alice: Established
}

// Click-to-dial (RFC 3725, flow I): the first telephone is called without an offer. Its own
// offer goes to the second telephone, whose answer goes into the ACK. Then the two calls are
// one.
func ExampleBridge_Link() {
	ctx, network := context.Background(), dialogtest.NewNetwork()
	first, controller, second := stackOn(network, "192.0.2.1"), stackOn(network, "192.0.2.2"), stackOn(network, "192.0.2.3")
	session := dialog.NewBody("application/sdp", []byte("v=0\r\nm=audio 4000 RTP/AVP 0\r\n"))
	ended := make(chan dialog.Cause, 1)
	for _, telephone := range []*dialog.Stack{first, second} {
		telephone.OnCall(func(call *dialog.Dialog) { _ = call.Accept(ctx, dialog.WithBody(session)) })
	}

	var b *dialog.Dialog
	connected := make(chan error, 1)
	a, err := controller.Call(ctx, sip.Uri{Scheme: "sip", User: "alice", Host: "192.0.2.1", Port: 5060}, dialog.InviteOpts{
		Setup: func(a *dialog.Dialog) {
			a.OnOfferRequest(func(ctx context.Context, r *dialog.OfferRequest) (answer dialog.Body, err error) {
				defer func() { connected <- err }()
				b, err = controller.Call(ctx, sip.Uri{Scheme: "sip", User: "bob", Host: "192.0.2.3", Port: 5060}, dialog.InviteOpts{Body: r.Offer})
				if err != nil {
					return nil, err
				}
				return dialog.NewBody("application/sdp", b.Response().Body()), nil
			})
		},
	})
	if err == nil {
		err = <-connected
	}
	fmt.Println("connected:", err)
	bridge.New(controller, bridge.Options{}).Link(a, b)

	go func() { <-b.Done(); ended <- b.Cause() }()
	_ = first.Dialogs()[0].Bye(ctx, "enough")
	fmt.Println("the second call ended by", (<-ended).By)
	for _, stack := range []*dialog.Stack{first, controller, second} {
		_ = stack.Shutdown(ctx)
	}
	network.Close()
	// Output:
	// connected: <nil>
	// the second call ended by local
}
