package dialog_test

import (
	"context"
	"fmt"
	"sync"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// A registrar that keeps the flow of each REGISTER, and calls back by it: to a telephone
// behind a NAT nothing else leads.
func ExampleFlow() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	registrar := network.stack("198.51.100.1")
	var mu sync.Mutex
	bindings := make(map[string]*dialog.Flow) // by address of record
	must(registrar.OnRequest("REGISTER", func(ctx context.Context, req *sip.Request) dialog.Answer {
		flow, record := dialog.FlowFrom(ctx), req.To().Address.User
		ok := dialog.Answer{Headers: []dialog.Header{{Name: "Contact", Value: req.Contact().Value()}}}
		mu.Lock()
		defer mu.Unlock()
		if flow.Equal(bindings[record]) { // renewed
			return ok
		}
		bindings[record] = flow
		flow.OnLost(func(error) { // the telephone registers again, by another
			mu.Lock()
			defer mu.Unlock()
			if flow.Equal(bindings[record]) {
				delete(bindings, record)
			}
		})
		return ok
	}))

	home := network.NAT("203.0.113.1", dialogtest.NATConfig{})
	phone, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: "192.168.0.2", Port: 5060},
		Network:   home.Host("192.168.0.2"), // left out: the operating system's
	})
	must(err)
	phone.OnCall(func(call *dialog.Dialog) { must(call.Accept(ctx, answer)) })
	must(phone.Start(ctx))
	defer func() { must(phone.Shutdown(ctx)) }()

	alice := sip.Uri{Scheme: "sip", User: "alice", Host: "198.51.100.1"}
	register := sip.NewRequest(sip.REGISTER, sip.Uri{Scheme: "sip", Host: "198.51.100.1"})
	register.AppendHeader(&sip.FromHeader{Address: alice, Params: sip.NewParams()})
	contact := sip.Uri{Scheme: "sip", User: "alice", Host: "192.168.0.2"}
	register.AppendHeader(&sip.ContactHeader{Address: contact, Params: sip.NewParams()})
	res, _, err := phone.DoWith(ctx, register, dialog.DoOpts{})
	must(err)
	fmt.Println("registered:", res.StatusCode)

	mu.Lock()
	flow := bindings["alice"]
	mu.Unlock()
	call, err := registrar.Call(ctx, contact, dialog.InviteOpts{Flow: flow, Body: audio("sendrecv")})
	must(err)
	fmt.Println("called by", flow)
	must(call.Bye(ctx, ""))
	// Output:
	// registered: 200
	// called by UDP 198.51.100.1:5060-203.0.113.1:5060
}
