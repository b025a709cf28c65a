package dialog_test

import (
	"context"
	"fmt"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
)

// A telephone takes its call along into another network, and has to show that it is the
// one that the call is with.
func ExampleStackConfig_moveCredentials() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	network.Unspecified = true // sockets bound to all addresses say so, as those of an operating system
	const serverIP, phoneIP, newIP = "198.51.100.1", "203.0.113.5", "203.0.113.77"
	passwords := map[string]string{"alice": "secret"}

	server := &dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: serverIP, Port: 5060},
		Network:   network.Host(serverIP),
	}
	server.MoveFlow = dialog.MoveSameAddress // a router that gives another port is no concern
	server.MoveCredentials = func(_ context.Context, d *dialog.Dialog) (string, dialog.Credentials, bool) {
		user := d.Info().Remote.URI.User
		password, ok := passwords[user]
		return "pbx.example", dialog.Credentials{Username: user, Password: password}, ok
	}
	pbx, err := dialog.NewStack(server)
	must(err)
	calls := make(chan *dialog.Dialog, 1)
	pbx.OnIncomingDialog(func(call dialog.IDialog) {
		must(call.Accept(ctx, answer))
		calls <- call.(*dialog.Dialog)
	})
	must(pbx.Start(ctx))
	defer func() { must(pbx.Shutdown(ctx)) }()

	phone, err := dialog.NewStack(&dialog.StackConfig{
		Transport:   &dialog.TransportConfig{Protocol: "udp", Address: "0.0.0.0", Port: 5060},
		Network:     network.Host(phoneIP),
		From:        &dialog.Address{URI: sip.Uri{Scheme: "sip", User: "alice"}},
		Credentials: func(realm string) (string, string, bool) { return "alice", "secret", realm == "pbx.example" },
	})
	must(err)
	must(phone.Start(ctx))
	defer func() { must(phone.Shutdown(ctx)) }()

	call, err := phone.NewInvite(ctx, sip.Uri{Scheme: "sip", User: "service", Host: serverIP}, dialog.InviteOpts{Body: audio("sendrecv")})
	must(err)
	must(call.(*dialog.Dialog).WaitAnswer(ctx))
	callee := <-calls
	fmt.Println("alice is at", callee.Flow().Remote().Addr())

	network.Host(phoneIP).Move(newIP)
	phone.NetworkChanged()
	must(call.(*dialog.Dialog).ReInvite(ctx, dialog.InviteOpts{Body: audio("sendrecv")}))
	fmt.Println("alice is at", callee.Flow().Remote().Addr())
	must(callee.Bye(ctx, ""))
	// Output:
	// alice is at 203.0.113.5
	// alice is at 203.0.113.77
}
