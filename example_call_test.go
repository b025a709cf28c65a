package dialog_test

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

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

// A media server follows the session of a call, whichever message changes it.
func ExampleDialog_OnSession() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	changed := make(chan struct{}, 1)
	network.stack("10.0.0.2").OnCall(func(call *dialog.Dialog) {
		call.OnSession(func(c dialog.SessionChange) {
			fmt.Println(c.Method, "offered by", c.OfferedBy, "ours:", direction(c.Local), "theirs:", direction(c.Remote))
			changed <- struct{}{}
		})
		must(call.Accept(ctx, dialog.WithBody(audio("sendrecv"))))
	})

	call := network.call("10.0.0.1", "10.0.0.2")
	<-changed
	must(call.Hold(ctx))
	<-changed
	fmt.Println("caller:", direction(call.Session().Local), call.Session().State)
	must(call.Bye(ctx, ""))
	// Output:
	// INVITE offered by remote ours: sendrecv theirs: sendrecv
	// INVITE offered by remote ours: recvonly theirs: sendonly
	// caller: sendonly stable
}

// What a call that does not come about says of itself, and an end that the peer explains.
func Example_errors() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	network.stack("10.0.0.2").OnCall(func(call *dialog.Dialog) {
		switch call.Request().Recipient.User {
		case "busy":
			must(call.RejectWith(ctx, 486, "", dialog.WithRetryAfter(time.Minute)))
		case "gone":
			must(call.Reject(ctx, 404, ""))
		default:
			must(call.Accept(ctx, dialog.WithBody(audio("sendrecv"))))
			must(call.ByeWith(ctx, dialog.ByeOpts{Reasons: []dialog.Reason{{Protocol: "Q.850", Cause: 38, Text: "Network out of order"}}}))
		}
	})
	phone := network.stack("10.0.0.1")
	try := func(target string) {
		var uri sip.Uri
		must(sip.ParseUri(target, &uri))
		call, err := phone.Call(ctx, uri, dialog.InviteOpts{Body: audio("sendrecv")})
		var refused *dialog.ResponseError
		switch {
		case errors.As(err, &refused) && refused.RetryAfter > 0:
			fmt.Println(refused.StatusCode, "again in", refused.RetryAfter)
		case errors.As(err, &refused):
			fmt.Println(refused.StatusCode, refused.Reason)
		case errors.Is(err, dialog.ErrTransport):
			fmt.Println("not reached:", errors.Is(err, syscall.ECONNREFUSED))
		case errors.Is(err, dialog.ErrTimeout):
			fmt.Println("no response")
		case err != nil:
			fmt.Println(err)
		default:
			<-call.Done()
			cause := call.Cause()
			fmt.Println("ended by", cause.By, cause.Method, cause.Reasons)
		}
	}
	try("sip:busy@10.0.0.2")
	try("sip:gone@10.0.0.2")
	network.Host("10.0.0.9") // it is there, but nobody listens
	try("sip:bob@10.0.0.9;transport=tcp")
	try("sip:bob@10.0.0.2")
	// Output:
	// 486 again in 1m0s
	// 404 Not Found
	// not reached: true
	// ended by remote BYE [Q.850;cause=38;text="Network out of order"]
}

// A server that takes one call at a time, and says so to the next caller.
func ExampleLimits() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	server, err := dialog.NewStack(&dialog.StackConfig{
		Transport:  &dialog.TransportConfig{Protocol: "udp", Address: "10.0.0.2", Port: 5060},
		MaxDialogs: 1,
		Limits:     dialog.Limits{InviteRate: 100, InviteRatePerSource: 20, UnconfirmedPerSource: 5},
		Network:    network.Host("10.0.0.2"), // left out: the operating system's
	})
	must(err)
	server.OnCall(func(call *dialog.Dialog) { must(call.Accept(ctx, answer)) })
	must(server.Start(ctx))
	defer func() { must(server.Shutdown(ctx)) }()

	call := network.call("10.0.0.1", "10.0.0.2")
	_, err = network.stack("10.0.0.3").Call(ctx, bobAt("10.0.0.2"), dialog.InviteOpts{Body: audio("sendrecv")})
	var refused *dialog.ResponseError
	fmt.Println(errors.As(err, &refused), refused.StatusCode, refused.RetryAfter > 0)
	stats := server.Stats()
	fmt.Println(stats.Dialogs, "call,", stats.Refused["full"], "refused")
	must(call.Bye(ctx, ""))
	// Output:
	// true 503 true
	// 1 call, 1 refused
}

// A program of the replaced package: it runs as it is.
func Example_upgrading() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	bob := network.stack("10.0.0.2")
	bob.OnIncomingDialog(func(d dialog.IDialog) {
		d.OnBody(func(body dialog.Body) { fmt.Println("offered", body.ContentType()) })
		_ = d.Accept(ctx, func(resp *sip.Response) {
			resp.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
			resp.SetBody(audio("sendrecv").Data())
		})
	})

	var stack dialog.IStack = network.stack("10.0.0.1")
	d, err := stack.NewInvite(ctx, bobAt("10.0.0.2"), dialog.InviteOpts{Body: audio("sendrecv")})
	must(err)
	established := make(chan struct{})
	d.OnStateChange(func(state dialog.DialogState) {
		if state == dialog.DialogStateEstablished {
			close(established)
		}
	})
	<-established
	found, ok := stack.DialogByKey(d.Key())
	fmt.Println(d.State(), ok && found == d)
	must(d.Bye(ctx, "done"))
	// Output:
	// offered application/sdp
	// Established true
}

// The stack takes the keys, and the messages, of all calls.
func ExampleStack_OnDTMF() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	bob := network.answering("10.0.0.2")
	bob.OnDTMF(func(call *dialog.Dialog, key dialog.DTMF) { fmt.Println("key:", string(key.Digit)) })
	must(bob.OnCallRequest("MESSAGE", func(_ context.Context, call *dialog.Dialog, req *sip.Request) dialog.Answer {
		fmt.Println("message:", string(req.Body()))
		return dialog.Answer{}
	}))

	call := network.call("10.0.0.1", "10.0.0.2")
	must(call.SendMessage(ctx, dialog.NewBody("text/plain", []byte("hello"))))
	must(call.SendDTMF(ctx, '5', dialog.DTMFOpts{}))
	must(call.Bye(ctx, ""))
	// Output:
	// message: hello
	// key: 5
}

// A call of ours that lasts as long as one of a caller: what the caller says of its end is
// said to the callee. A value of the application's goes with each.
func ExampleInviteOpts_context() {
	type account struct{}
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	rings, told := make(chan struct{}), make(chan struct{})
	network.stack("10.0.0.3").OnCall(func(call *dialog.Dialog) {
		close(rings)
		<-call.Done()
		fmt.Println("carol:", call.Cause().Reasons)
		close(told)
	})
	gateway, ended := network.stack("10.0.0.2"), make(chan struct{})
	gateway.OnCall(func(in *dialog.Dialog) {
		must(in.SetValue(account{}, "bob's"))
		out, err := gateway.NewInvite(ctx, bobAt("10.0.0.3"), dialog.InviteOpts{Body: audio("sendrecv"), Context: in.Context()})
		must(err)
		call := out.(*dialog.Dialog)
		err = call.WaitAnswer(ctx)
		fmt.Println(call.Value(account{}), "call:", errors.Is(err, dialog.ErrCanceled))
		close(ended)
	})

	call, err := network.stack("10.0.0.1").NewInvite(ctx, bobAt("10.0.0.2"), dialog.InviteOpts{})
	must(err)
	<-rings
	waiting, cancel := context.WithCancelCause(ctx)
	cancel(&dialog.ReasonError{Reasons: []dialog.Reason{{Protocol: "SIP", Cause: 200, Text: "Call completed elsewhere"}}})
	fmt.Println(call.(*dialog.Dialog).WaitAnswer(waiting))
	<-ended
	<-told
	// Unordered output:
	// context canceled
	// carol: [SIP;cause=200;text="Call completed elsewhere"]
	// bob's call: true
}

// The shortest caller and callee. What comes before the answer is heard in Setup.
func ExampleStack_Call() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	network.stack("10.0.0.2").OnCall(func(call *dialog.Dialog) {
		must(call.Accept(ctx, dialog.WithBody(audio("sendrecv"))))
	})

	call, err := network.stack("10.0.0.1").Call(ctx, bobAt("10.0.0.2"), dialog.InviteOpts{
		Body: audio("sendrecv"),
		Setup: func(call *dialog.Dialog) {
			call.OnStateChange(func(state dialog.DialogState) { fmt.Println(state) })
		},
	})
	must(err)
	must(call.Bye(ctx, ""))
	// Output:
	// Trying
	// Ringing
	// Established
	// Terminated
}

// A call is taken by a function that refuses whoever is not expected.
func ExampleStack_OnCall() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	network.stack("10.0.0.2").OnCall(func(call *dialog.Dialog) {
		if call.Request().Recipient.User != "bob" {
			must(call.Reject(ctx, 404, ""))
			return
		}
		must(call.Accept(ctx, dialog.WithBody(audio("sendrecv"))))
	})

	phone := network.stack("10.0.0.1")
	for _, user := range []string{"carol", "bob"} {
		call, err := phone.Call(ctx, sip.Uri{Scheme: "sip", User: user, Host: "10.0.0.2"}, dialog.InviteOpts{Body: audio("sendrecv")})
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(user, call.State())
		must(call.Bye(ctx, ""))
	}
	// Output:
	// dialog: Call: INVITE answered 404 Not Found
	// bob Established
}

// A caller without an offer gets one in an early dialog, in a response that is sent reliably;
// its PRACK has the answer.
func ExampleDialog_ForkAnswer() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	network.stack("10.0.0.2").OnCall(func(call *dialog.Dialog) {
		desk := dialog.WithFork("desk")
		must(call.Provisional(ctx, 183, "", desk, dialog.WithReliable(), dialog.WithBody(audio("sendrecv"))))
		theirs, err := call.ForkAnswer(ctx, "desk")
		must(err)
		fmt.Println("caller:", direction(theirs))
		must(call.Accept(ctx, desk))
	})

	caller := network.stack("10.0.0.1")
	caller.OnOfferRequest(func(context.Context, *dialog.OfferRequest) (dialog.Body, error) { return audio("recvonly"), nil })
	call, err := caller.Call(ctx, bobAt("10.0.0.2"), dialog.InviteOpts{})
	must(err)
	must(call.Bye(ctx, ""))
	// Output:
	// caller: recvonly
}
