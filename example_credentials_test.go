package dialog_test

import (
	"context"
	"fmt"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

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

	call, err := stack.NewInvite(ctx, sip.Uri{Scheme: "sip", User: "bob", Host: "10.0.0.3"}, dialog.InviteOpts{})
	must(err)
	fmt.Println(call.(*dialog.Dialog).WaitAnswer(ctx))
	// Output:
	// REGISTER is challenged by 10.0.0.2 with SHA-256
	// registered: 200
	// INVITE is challenged by 10.0.0.3 with MD5
	// dialog: WaitAnswer: INVITE answered 401 Unauthorized
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
