package dialog_test

import (
	"context"
	"fmt"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// What the network says of a call is set by Headers and WithHeader, and read from
// the INVITE and its responses; a BYE says why with a cause of ISDN.
func ExampleAssertedIdentities() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()

	desk := dialog.Address{DisplayName: "Front Desk", URI: sip.Uri{Scheme: "sip", User: "desk", Host: "example.com"}}
	ended := make(chan dialog.Cause, 1)
	bob := network.stack("10.0.0.2")
	bob.OnCall(func(call *dialog.Dialog) {
		invite := call.Request()
		fmt.Println("called by", dialog.AssertedIdentities(invite)[0], "privacy", dialog.PrivacyOf(invite))
		fmt.Println("diverted by", dialog.DiversionsOf(invite)[0].URI.User, "as", dialog.DiversionsOf(invite)[0].Reason)
		must(call.Accept(ctx, dialog.WithHeader("P-Asserted-Identity", desk.String())))
		<-call.Done()
		ended <- call.Cause()
	})

	alice := dialog.Address{URI: sip.Uri{Scheme: "sip", User: "alice", Host: "example.com"}}
	carol := dialog.Diversion{Address: dialog.Address{URI: sip.Uri{Scheme: "sip", User: "carol", Host: "example.com"}}, Reason: "no-answer"}
	caller, err := network.stack("10.0.0.1").Call(ctx, sip.Uri{Scheme: "sip", User: "bob", Host: "10.0.0.2"}, dialog.InviteOpts{
		Headers: []dialog.Header{
			{Name: "P-Asserted-Identity", Value: alice.String()}, {Name: "Privacy", Value: "id"}, {Name: "Diversion", Value: carol.String()},
		},
	})
	must(err)
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

// A stack registers alice and calls bob. Authenticate gives her credentials to the
// registrar only, and never by MD5.
func ExampleChallenge() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	demanding(network, "10.0.0.2", "REGISTER", `Digest realm="example.com", nonce="n1", algorithm=SHA-256, qop="auth"`)
	demanding(network, "10.0.0.3", "INVITE", `Digest realm="example.com", nonce="n2"`)

	alice := sip.Uri{Scheme: "sip", User: "alice", Host: "example.com"}
	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: "10.0.0.1", Port: 5060},
		Network:   network.Host("10.0.0.1"), // left out: the operating system's
		From:      &dialog.Address{URI: alice},
		Authenticate: func(_ context.Context, c dialog.Challenge) (dialog.Credentials, bool) {
			fmt.Println(c.Method, "is challenged by", c.Peer.Addr(), "with", c.Algorithm)
			registrar := c.Realm == "example.com" && c.Method == "REGISTER"
			return dialog.Credentials{Username: "alice", Password: "secret"}, registrar && c.Algorithm != "MD5"
		},
	})
	must(err)
	must(stack.Start(ctx))
	defer func() { must(stack.Shutdown(ctx)) }()

	res, err := stack.Do(ctx, sip.NewRequest(sip.REGISTER, sip.Uri{Scheme: "sip", Host: "10.0.0.2"}))
	must(err)
	fmt.Println("registered:", res.StatusCode)

	_, err = stack.Call(ctx, sip.Uri{Scheme: "sip", User: "bob", Host: "10.0.0.3"}, dialog.InviteOpts{})
	fmt.Println(err)
	// Output:
	// REGISTER is challenged by 10.0.0.2 with SHA-256
	// registered: 200
	// INVITE is challenged by 10.0.0.3 with MD5
	// dialog: Call: INVITE answered 401 Unauthorized
}

// demanding is a server that lets nobody do something without credentials.
func demanding(network *exampleNetwork, ip, method, challenge string) {
	server, err := dialogtest.NewEndpoint(network.Host(ip), ip+":5060")
	must(err)
	go func() {
		for {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			in, err := server.Recv(ctx)
			cancel()
			if err != nil {
				return
			}
			req, ok := in.Message.(*sip.Request)
			switch {
			case !ok || string(req.Method) != method:
			case req.GetHeader("Authorization") == nil:
				must(server.Reply(in, dialogtest.Response{Code: 401, Reason: "Unauthorized", ToTag: "s", Headers: []string{"WWW-Authenticate: " + challenge}}))
			default:
				must(server.Reply(in, dialogtest.Response{Code: 200, ToTag: "s"}))
			}
		}
	}()
}
