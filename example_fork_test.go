package dialog_test

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// A proxy forks the call to a desk phone and a mobile. Both ring, and the
// application watches them until the mobile answers.
func ExampleDialog_OnFork() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	phones := network.phones("10.0.0.2")

	told := make(chan dialog.ForkInfo, 4)
	placed, err := network.stack("10.0.0.1").NewInvite(ctx, bobAt("10.0.0.2"), dialog.InviteOpts{
		Body:  audio("sendrecv"),
		Setup: func(call *dialog.Dialog) { call.OnFork(func(fork dialog.ForkInfo) { told <- fork }) },
	})
	must(err)
	call := placed.(*dialog.Dialog)
	show := func(fork dialog.ForkInfo) { fmt.Println(fork.RemoteTag, fork.Status, "ended:", fork.Ended) }

	phones.answer("desk", 180)
	show(<-told)
	phones.answer("mobile", 180)
	show(<-told)
	fmt.Println("early dialogs:", len(call.Forks()))

	phones.answer("mobile", 200)
	must(call.WaitAnswer(ctx))
	show(<-told)
	show(<-told)
	fmt.Println("early dialogs:", len(call.Forks()))
	must(call.Bye(ctx, ""))
	// Output:
	// desk 180 ended: false
	// mobile 180 ended: false
	// early dialogs: 2
	// desk 180 ended: true
	// mobile 200 ended: false
	// early dialogs: 0
}

// A proxy forks the call to two telephones, both ring, and one of them is enough.
func ExampleDialog_ByeFork() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	phones := network.phones("10.0.0.2")

	rings := make(chan struct{}, 8)
	placed, err := network.stack("10.0.0.1").NewInvite(ctx, bobAt("10.0.0.2"), dialog.InviteOpts{
		Body:  audio("sendrecv"),
		Setup: func(call *dialog.Dialog) { call.OnFork(func(dialog.ForkInfo) { rings <- struct{}{} }) },
	})
	must(err)
	call := placed.(*dialog.Dialog)
	for _, tag := range []string{"desk", "mobile"} {
		phones.answer(tag, 180)
		<-rings
	}
	must(call.ByeFork(ctx, "desk", dialog.ByeOpts{}))
	fmt.Println("hung up:", <-phones.hungUp)
	fmt.Println("rings:", call.Key().RemoteTag)
	phones.answer("mobile", 200)
	must(call.WaitAnswer(ctx))
	must(call.Bye(ctx, ""))
	fmt.Println("hung up:", <-phones.hungUp)
	// Output:
	// hung up: desk
	// rings: mobile
	// hung up: mobile
}

// The application does not take the first who answers: it hangs up on the
// voicemail, and waits for somebody else.
func ExampleInviteOpts_choose() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	phones := network.phones("10.0.0.2")

	placed, err := network.stack("10.0.0.1").NewInvite(ctx, bobAt("10.0.0.2"), dialog.InviteOpts{
		Body: audio("sendrecv"),
		Choose: func(fork dialog.ForkInfo) bool {
			fmt.Println("answered:", fork.RemoteTag)
			return fork.RemoteTag != "voicemail"
		},
	})
	must(err)
	call := placed.(*dialog.Dialog)
	phones.answer("voicemail", 200)
	fmt.Println("hung up:", <-phones.hungUp)
	phones.answer("mobile", 200)
	must(call.WaitAnswer(ctx))
	fmt.Println("talking to:", call.Key().RemoteTag)
	must(call.Bye(ctx, ""))
	fmt.Println("hung up:", <-phones.hungUp)
	// Output:
	// answered: voicemail
	// hung up: voicemail
	// answered: mobile
	// talking to: mobile
	// hung up: mobile
}

// Bob has moved. A redirection is the call's refusal, and says where he is now,
// unless it is to be followed.
func ExampleInviteOpts_followRedirects() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	network.stack("10.0.0.2").OnCall(func(d *dialog.Dialog) {
		must(d.RejectWith(ctx, 302, "", dialog.WithContacts(bobAt("10.0.0.3"))))
	})
	network.answering("10.0.0.3")
	alice := network.stack("10.0.0.1")

	for _, targets := range []int{0, 5} {
		call, err := alice.Call(ctx, bobAt("10.0.0.2"), dialog.InviteOpts{
			Body: audio("sendrecv"), FollowRedirects: targets,
		})
		var moved *dialog.ResponseError
		if errors.As(err, &moved) {
			fmt.Println(moved.StatusCode, "to", moved.Contacts[0].Host)
			continue
		}
		must(err)
		fmt.Println(call.State(), "with", call.Info().RemoteTarget.Host)
		must(call.Bye(ctx, ""))
	}
	// Output:
	// 302 to 10.0.0.3
	// Established with 10.0.0.3
}

func bobAt(host string) sip.Uri { return sip.Uri{Scheme: "sip", User: "bob", Host: host} }

// phones are those that a proxy forks a call to, each known by its tag.
type phones struct {
	*dialogtest.Endpoint
	ringing chan struct{}       // closed when the INVITE is there
	invite  dialogtest.Received // set before that
	hungUp  chan string         // the tags of those that got a BYE
}

// phones starts them, and the proxy before them, at one address.
func (n *exampleNetwork) phones(ip string) *phones {
	endpoint, err := dialogtest.NewEndpoint(n.Host(ip), ip+":5060")
	must(err)
	p := &phones{Endpoint: endpoint, ringing: make(chan struct{}), hungUp: make(chan string, 4)}
	go p.serve()
	return p
}

// serve takes the INVITE and answers each BYE, until the network is closed.
func (p *phones) serve() {
	for {
		in, err := p.Recv(context.Background())
		if err != nil {
			return
		}
		switch req := in.Request(); req.Method {
		case sip.INVITE:
			if p.invite.Message == nil { // else repeated
				p.invite = in
				close(p.ringing)
			}
		case sip.BYE:
			must(p.Reply(in, dialogtest.Response{Code: 200}))
			_, tag, _ := strings.Cut(req.To().Value(), ";tag=")
			p.hungUp <- tag
		}
	}
}

// answer answers the INVITE as the phone with that tag.
func (p *phones) answer(tag string, code int) {
	<-p.ringing
	response := dialogtest.Response{Code: code, ToTag: tag}
	if code == 200 {
		response.Body = string(audio("sendrecv").Data())
	}
	must(p.Reply(p.invite, response))
}
