package dialog_test

import (
	"context"
	"fmt"
	"sync"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// registrar is a server that calls telephones behind NATs by the flows of their
// registrations.
type registrar struct {
	*dialog.Stack

	mu       sync.Mutex // guards the field below
	bindings map[string]registration
}

type registration struct {
	contact sip.Uri
	flow    *dialog.Flow
	release func()
}

// register is the handler of REGISTER. Who the phone is has been found out before.
func (r *registrar) register(ctx context.Context, req *sip.Request) dialog.Answer {
	user, flow := req.To().Address.User, dialog.FlowFrom(ctx)
	release := flow.Hold() // keeps the flow open
	stop := flow.OnLost(func(error) { r.forget(user, flow) })
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.bindings[user]; ok {
		old.release()
	}
	r.bindings[user] = registration{*req.Contact().Address.Clone(), flow, func() { stop(); release() }}
	return dialog.Answer{Headers: []dialog.Header{{Name: "Contact", Value: req.Contact().Value() + ";expires=600"}}}
}

// forget takes out a binding whose flow is lost, unless there is another one since.
func (r *registrar) forget(user string, flow *dialog.Flow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b, ok := r.bindings[user]; ok && b.flow.Equal(flow) {
		b.release()
		delete(r.bindings, user)
	}
}

// call calls a user, wherever the phone is.
func (r *registrar) call(ctx context.Context, user string, offer dialog.Body) (*dialog.Dialog, error) {
	r.mu.Lock()
	b, ok := r.bindings[user]
	r.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("%s is not registered", user)
	}
	return r.Call(ctx, b.contact, dialog.InviteOpts{Body: offer, Flow: b.flow})
}

// A telephone behind a router registers by TCP, and is called by that connection: nothing
// else leads to it.
func Example_nat() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	const serverIP = "198.51.100.1"
	router := network.NAT("203.0.113.1", dialogtest.NATConfig{})

	server, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "tcp", Address: serverIP, Port: 5060},
		Network:   network.Host(serverIP),
	})
	must(err)
	r := &registrar{Stack: server, bindings: make(map[string]registration)}
	must(server.OnRequest("REGISTER", r.register))
	must(server.Start(ctx))
	defer func() { must(server.Shutdown(ctx)) }()

	phone, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "tcp", Address: "0.0.0.0", Port: 5060},
		Network:   router.Host("192.168.0.2"),
	})
	must(err)
	phone.OnCall(func(call *dialog.Dialog) { must(call.Accept(ctx, answer)) })
	must(phone.Start(ctx))
	defer func() { must(phone.Shutdown(ctx)) }()

	flow, err := registerAt(ctx, phone, serverIP)
	must(err)
	// A phone registers again when that is called, and every few minutes.
	flow.OnLost(func(err error) { fmt.Println("lost:", err) })

	call, err := r.call(ctx, "alice", audio("sendrecv"))
	must(err)
	fmt.Println(call.State(), "from", call.Flow().Remote().Addr())
	must(call.Bye(ctx, ""))
	// Output:
	// Established from 203.0.113.1
}

// registerAt registers alice, and returns the flow to keep.
func registerAt(ctx context.Context, phone *dialog.Stack, server string) (*dialog.Flow, error) {
	uri := sip.Uri{Scheme: "sip", User: "alice", Host: server}
	req := sip.NewRequest(sip.REGISTER, sip.Uri{Scheme: "sip", Host: server, UriParams: sip.HeaderParams{{K: "transport", V: "tcp"}}})
	req.AppendHeader(&sip.FromHeader{Address: uri, Params: sip.NewParams()})
	req.AppendHeader(&sip.ContactHeader{Address: sip.Uri{Scheme: "sip", User: "alice"}})
	res, flow, err := phone.DoWith(ctx, req, dialog.DoOpts{})
	if err == nil && res.StatusCode != sip.StatusOK {
		err = fmt.Errorf("registration refused: %d", res.StatusCode)
	}
	return flow, err
}

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
	pbx.OnCall(func(call *dialog.Dialog) {
		must(call.Accept(ctx, answer))
		calls <- call
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

	call, err := phone.Call(ctx, sip.Uri{Scheme: "sip", User: "service", Host: serverIP}, dialog.InviteOpts{Body: audio("sendrecv")})
	must(err)
	callee := <-calls
	fmt.Println("alice is at", callee.Flow().Remote().Addr())

	network.Host(phoneIP).Move(newIP)
	phone.NetworkChanged()
	must(call.ReInvite(ctx, dialog.InviteOpts{Body: audio("sendrecv")}))
	fmt.Println("alice is at", callee.Flow().Remote().Addr())
	must(callee.Bye(ctx, ""))
	// Output:
	// alice is at 203.0.113.5
	// alice is at 203.0.113.77
}
