package dialog_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// A caller: it calls bob, waits for the answer, and hangs up. Callbacks that Setup registers
// miss nothing, since it runs before the INVITE is sent.
func Example_firstCall() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	network.answering("10.0.0.2")

	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: "10.0.0.1", Port: 5060},
		From:      &dialog.Address{DisplayName: "Alice", URI: sip.Uri{Scheme: "sip", User: "alice", Host: "example.com"}},
		Network:   network.Host("10.0.0.1"), // left out: the operating system's
	})
	must(err)
	must(stack.Start(ctx))
	defer func() { must(stack.Shutdown(ctx)) }()

	var bob sip.Uri
	must(sip.ParseUri("sip:bob@10.0.0.2", &bob))
	patience, cancel := context.WithTimeout(ctx, 30*time.Second) // then the call is cancelled
	defer cancel()
	call, err := stack.Call(patience, bob, dialog.InviteOpts{
		Body: audio("sendrecv"),
		Setup: func(call *dialog.Dialog) {
			call.OnStateChange(func(state dialog.DialogState) { fmt.Println(state) })
			call.OnBody(func(body dialog.Body) { fmt.Println("answered", direction(body)) })
		},
	})
	must(err)
	must(call.Bye(ctx, "nothing to say"))
	fmt.Println("ended by", call.Cause())
	// Unordered output:
	// Trying
	// Ringing
	// answered sendrecv
	// Established
	// Terminated
	// ended by local BYE nothing to say
}

// A callee: it refuses some calls, and answers others once somebody lifts the receiver.
// Here mallory and alice call. A caller who gives up meanwhile is a missed call.
func Example_answering() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	lifted, missed := make(chan struct{}), make(chan dialog.Cause, 1)

	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: "10.0.0.2", Port: 5060},
		Network:   network.Host("10.0.0.2"), // left out: the operating system's
	})
	must(err)
	stack.OnCall(func(call *dialog.Dialog) {
		caller := call.Info().Remote.URI.User
		if caller == "mallory" {
			must(call.Reject(ctx, 603, "")) // Decline
			return
		}
		fmt.Println(caller, "rings") // the caller has got 180
		select {
		case <-lifted:
		case <-call.Done():
			missed <- call.Cause()
			return
		}
		if err := call.Accept(ctx, dialog.WithBody(audio("sendrecv"))); err != nil {
			fmt.Println("gave up just now:", err)
			return
		}
		<-call.Done()
		fmt.Println("ended by", call.Cause())
	})
	must(stack.Start(ctx))
	defer func() { must(stack.Shutdown(ctx)) }()

	phone := network.stack("10.0.0.1")
	call := func(ctx context.Context, from string, states ...func(dialog.DialogState)) (*dialog.Dialog, error) {
		return phone.Call(ctx, bobAt("10.0.0.2"), dialog.InviteOpts{
			From: &dialog.Address{URI: sip.Uri{Scheme: "sip", User: from}}, Body: audio("sendrecv"),
			Setup: func(d *dialog.Dialog) {
				for _, callback := range states {
					d.OnStateChange(callback)
				}
			},
		})
	}
	_, err = call(ctx, "mallory")
	fmt.Println(err)
	patience, cancel := context.WithCancel(ctx)
	impatient := func(state dialog.DialogState) {
		if state == dialog.DialogStateRinging {
			cancel()
		}
	}
	_, err = call(patience, "alice", impatient)
	fmt.Println(errors.Is(err, context.Canceled))
	fmt.Println("missed:", <-missed)
	close(lifted)
	alice, err := call(ctx, "alice")
	must(err)
	must(alice.Bye(ctx, ""))
	// Unordered output:
	// dialog: Call: INVITE answered 603 Decline
	// alice rings
	// true
	// missed: remote CANCEL 487
	// alice rings
	// ended by remote BYE
}

// A re-INVITE offers another session, here one that only sends; what it brings
// goes to OnBody. A peer that decides nothing answers as RFC 3264 has it.
func ExampleDialog_ReInvite() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	network.answering("10.0.0.2")

	call := network.call("10.0.0.1", "10.0.0.2")
	call.OnBody(func(b dialog.Body) { fmt.Println("bob:", direction(b)) }) // at once: the answer that came
	for _, direction := range []string{"sendonly", "sendrecv"} {
		must(call.ReInvite(ctx, dialog.InviteOpts{Body: audio(direction)}))
	}
	must(call.Bye(ctx, ""))
	// Output:
	// bob: sendrecv
	// bob: recvonly
	// bob: sendrecv
}

// Hold and Resume offer the session that there is with other directions.
func ExampleDialog_Hold() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	network.stack("10.0.0.2").OnCall(func(d *dialog.Dialog) {
		d.OnBody(func(b dialog.Body) { fmt.Println("offered", direction(b)) })
		must(d.Accept(ctx, answer))
	})

	call := network.call("10.0.0.1", "10.0.0.2")
	must(call.Hold(ctx))
	must(call.Resume(ctx))
	must(call.Bye(ctx, ""))
	// Output:
	// offered sendrecv
	// offered sendonly
	// offered sendrecv
}

// A blind transfer: alice asks bob to call carol, and learns what came of it. Here bob reports
// by hand; FollowRefer does it by itself.
func ExampleReferSubscription_SendNotify() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	bob := network.answering("10.0.0.2")
	network.answering("10.0.0.3")

	bob.OnIncomingRefer(func(d dialog.IDialog, carol sip.Uri, _ *dialog.ReplacesInfo) {
		asked := d.(*dialog.Dialog).GetAllReferSubscriptions()[0]
		_, err := bob.Call(ctx, carol, dialog.InviteOpts{Body: audio("sendrecv")})
		must(err)
		must(asked.SendNotify(ctx, 200, "OK"))
	})

	call := network.call("10.0.0.1", "10.0.0.2")
	carol := sip.Uri{Scheme: "sip", User: "carol", Host: "10.0.0.3"}
	transfer, err := call.Transfer(ctx, carol, dialog.ReferOpts{})
	must(err)
	outcome, err := transfer.Wait(ctx)
	must(err)
	fmt.Println("transfer:", outcome.Status, outcome.Reason)
	must(call.Bye(ctx, "transferred"))
	// Output:
	// transfer: 200 OK
}

// An attended transfer: alice has talked to carol, and has bob take her place in
// that call. Carol's old call ends when the new one is answered.
func ExampleDialog_FollowRefer() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	network.answering("10.0.0.2").OnIncomingRefer(func(d dialog.IDialog, carol sip.Uri, _ *dialog.ReplacesInfo) {
		_, err := d.(*dialog.Dialog).FollowRefer(ctx, carol, dialog.InviteOpts{Body: audio("sendrecv")})
		must(err)
	})
	network.stack("10.0.0.3").OnCall(func(d *dialog.Dialog) {
		if old := d.Replaces(); old != nil {
			fmt.Println("carol: a call takes the place of one that is", old.State())
		}
		must(d.Accept(ctx, answer))
	})

	bob, carol := network.call("10.0.0.1", "10.0.0.2"), network.call("10.0.0.4", "10.0.0.3")
	must(bob.ReferReplace(ctx, carol, dialog.ReferOpts{}))
	transfer, err := bob.WaitRefer(ctx)
	must(err)
	outcome, err := transfer.Wait(ctx)
	must(err)
	fmt.Println("alice: bob was answered", outcome.Status, outcome.Reason)
	<-carol.Done()
	fmt.Println("alice: carol's call ended by", carol.Cause())
	must(bob.Bye(ctx, "transferred"))
	// Output:
	// carol: a call takes the place of one that is Established
	// alice: bob was answered 200 OK
	// alice: carol's call ended by remote BYE replaced
}

// The callee decides what becomes of its session: it refuses to be held.
func ExampleDialog_OnOffer() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	network.answering("10.0.0.2").OnCall(func(d *dialog.Dialog) {
		d.OnOffer(func(_ context.Context, offer dialog.Body) (dialog.Body, error) {
			fmt.Println("offered", direction(offer))
			if direction(offer) == "sendonly" {
				return nil, errors.New("no music, please")
			}
			return audio("sendrecv"), nil
		})
		must(d.Accept(ctx, answer))
	})

	call := network.call("10.0.0.1", "10.0.0.2")
	for _, direction := range []string{"sendonly", "sendrecv"} {
		err := call.ReInvite(ctx, dialog.InviteOpts{Body: audio(direction)})
		var refused *dialog.ResponseError
		fmt.Println("refused:", errors.As(err, &refused) && refused.StatusCode == sip.StatusNotAcceptableHere)
	}
	must(call.Bye(ctx, ""))
	// Output:
	// offered sendonly
	// refused: true
	// offered sendrecv
	// refused: false
}

// Early media: the answer goes ahead of the call's, in a 183 that is repeated
// until the caller has acknowledged it, where the caller knows RFC 3262. Accept
// waits for that, and then needs no body.
func ExampleDialog_Provisional() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()

	network.stack("10.0.0.2").OnCall(func(d *dialog.Dialog) {
		must(d.Provisional(ctx, 183, "", dialog.WithBody(audio("sendonly"))))
		must(d.Accept(ctx))
	})

	heard := make(chan string, 1)
	call, err := network.stack("10.0.0.1").Call(ctx, sip.Uri{Scheme: "sip", User: "bob", Host: "10.0.0.2"}, dialog.InviteOpts{
		Body: audio("sendrecv"),
		Setup: func(call *dialog.Dialog) {
			call.OnBody(func(session dialog.Body) { heard <- direction(session) })
		},
	})
	must(err)
	fmt.Println(<-heard)
	fmt.Println(call.State())
	must(call.Bye(ctx, ""))
	// Output:
	// sendonly
	// Established
}

// The callee has answered the offer before it answers the call. The PRACK for that
// brings a further offer, which is answered at once.
func ExampleInviteOpts_prackOffer() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()

	network.stack("10.0.0.2").OnCall(func(d *dialog.Dialog) {
		must(d.Provisional(ctx, 183, "", dialog.WithBody(audio("sendrecv"))))
		must(d.Accept(ctx))
	})

	heard := make(chan string, 2)
	call, err := network.stack("10.0.0.1").Call(ctx, bobAt("10.0.0.2"), dialog.InviteOpts{
		Body: audio("sendrecv"),
		PrackOffer: func(_ context.Context, answered dialog.ForkInfo) dialog.Body {
			fmt.Println(answered.Status, direction(answered.Body))
			return audio("sendonly")
		},
		Setup: func(call *dialog.Dialog) {
			call.OnBody(func(session dialog.Body) { heard <- direction(session) })
		},
	})
	must(err)
	fmt.Println(<-heard, <-heard)
	must(call.Bye(ctx, ""))
	// Output:
	// 183 sendrecv
	// sendrecv recvonly
}

// Shutdown hangs up all calls and leaves nothing behind.
func ExampleStack_Shutdown() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	stack := network.answering("10.0.0.2")
	calls := []*dialog.Dialog{network.call("10.0.0.1", "10.0.0.2"), network.call("10.0.0.3", "10.0.0.2")}

	ctx, cancel := context.WithTimeout(ctx, 40*time.Second) // past 64*T1, to leave no call half open
	defer cancel()
	fmt.Println("left behind:", stack.Shutdown(ctx))
	for _, call := range calls {
		<-call.Done() // which comes after its answer to the BYE
		fmt.Println(call.State(), call.Cause())
	}
	fmt.Println(stack.Start(ctx))
	// Output:
	// left behind: <nil>
	// Terminated remote BYE
	// Terminated remote BYE
	// dialog: Start: stack shut down
}

// exampleNetwork is a network in memory, and the stacks of those whom an
// example needs besides the one it is about.
type exampleNetwork struct {
	*dialogtest.Network
	stacks []*dialog.Stack
}

func newExampleNetwork() *exampleNetwork {
	return &exampleNetwork{Network: dialogtest.NewNetwork()}
}

func (n *exampleNetwork) close() {
	for _, stack := range n.stacks {
		must(stack.Shutdown(context.Background()))
	}
	n.Close()
}

func (n *exampleNetwork) stack(ip string) *dialog.Stack {
	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: ip, Port: 5060},
		Network:   n.Host(ip),
	})
	must(err)
	must(stack.Start(context.Background()))
	n.stacks = append(n.stacks, stack)
	return stack
}

// answering starts a stack that answers whoever calls.
func (n *exampleNetwork) answering(ip string) *dialog.Stack {
	stack := n.stack(ip)
	stack.OnCall(func(d *dialog.Dialog) { must(d.Accept(context.Background(), answer)) })
	return stack
}

// call starts a stack and has it make a call, until it is answered.
func (n *exampleNetwork) call(from, to string) *dialog.Dialog {
	target := sip.Uri{Scheme: "sip", User: "bob", Host: to}
	call, err := n.stack(from).Call(context.Background(), target, dialog.InviteOpts{Body: audio("sendrecv")})
	must(err)
	return call
}

// answer puts a session into a 200.
func answer(ok *sip.Response) {
	ok.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	ok.SetBody(audio("sendrecv").Data())
}

// audio is a session of one audio stream in that direction.
func audio(direction string) dialog.Body {
	return dialog.NewBody("application/sdp", []byte("v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\n"+
		"c=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\na="+direction+"\r\n"))
}

// direction is that of a session of one stream.
func direction(session dialog.Body) string {
	_, direction, _ := strings.Cut(strings.TrimSpace(string(session.Data())), "a=")
	return direction
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
