package register_test

import (
	"context"
	"fmt"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/register"
)

// must is for the examples. Your program handles the error instead.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// trunk starts a registrar in memory, which binds whoever comes for ten minutes, and calls
// back.
func trunk(network *dialogtest.Network, more ...dialog.Header) *dialog.Stack {
	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "tcp", Address: "198.51.100.1", Port: 5060},
		Network:   network.Host("198.51.100.1"),
	})
	must(err)
	must(stack.OnRequest("REGISTER", func(_ context.Context, req *sip.Request) dialog.Answer { return bound(req, 600, more...) }))
	must(stack.Start(context.Background()))
	return stack
}

// A gateway registers with its trunk, calls by way of it, and takes the registration back.
func Example() {
	ctx, network := context.Background(), dialogtest.NewNetwork()
	defer network.Close()
	provider := trunk(network)
	defer func() { must(provider.Shutdown(ctx)) }()

	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport:   &dialog.TransportConfig{Protocol: "tcp", Address: "203.0.113.5", Port: 5060},
		Network:     network.Host("203.0.113.5"), // left out: the operating system's
		Credentials: func(realm string) (string, string, bool) { return "4930123", "secret", realm == "trunk.example" },
	})
	must(err)
	must(stack.Start(ctx))
	defer func() { must(stack.Shutdown(ctx)) }()

	trunk := sip.Uri{Scheme: "sip", Host: "198.51.100.1", UriParams: sip.HeaderParams{{K: "transport", V: "tcp"}}}
	states := make(chan register.Status, 10)
	registration, err := register.Start(stack, register.Options{
		Record:    dialog.Address{URI: sip.Uri{Scheme: "sip", User: "4930123", Host: "198.51.100.1"}},
		Registrar: trunk,
		OnState:   func(s register.Status) { states <- s }, // each state, in order
	})
	must(err)
	status, err := registration.Wait(ctx) // the first one that counts
	must(err)
	fmt.Println(<-states)
	fmt.Println(<-states)
	fmt.Println("calls come to", status.Contacts[0].String())

	opts := registration.InviteOpts(dialog.InviteOpts{})
	fmt.Println("calls go out as", opts.From.URI.String())
	must(registration.Close(ctx))
	fmt.Println(<-states)
	// Output:
	// Registering
	// Registered for 10m0s
	// calls come to sip:4930123@203.0.113.5:5060;transport=tcp
	// calls go out as sip:4930123@198.51.100.1
	// Unregistered
}

// Calls for a telephone behind a router come by the connection of its REGISTER (RFC 5626),
// and its own calls take the route that the registrar has given.
func ExampleRegistration_InviteOpts() {
	ctx, network := context.Background(), dialogtest.NewNetwork()
	defer network.Close()
	pbx := trunk(network, dialog.Header{Name: "Require", Value: "outbound"}, dialog.Header{Name: "Service-Route", Value: "<sip:home.example;lr>"})
	defer func() { must(pbx.Shutdown(ctx)) }()

	phone, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "tcp", Address: "203.0.113.5", Port: 5060},
		Network:   network.Host("203.0.113.5"),
	})
	must(err)
	must(phone.Start(ctx))
	defer func() { must(phone.Shutdown(ctx)) }()

	registration, err := register.Start(phone, register.Options{
		Record:   dialog.Address{URI: sip.Uri{Scheme: "sip", User: "alice", Host: "home.example"}},
		Proxies:  []sip.Uri{{Scheme: "sip", Host: "198.51.100.1", UriParams: sip.HeaderParams{{K: "transport", V: "tcp"}}}},
		Instance: "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6", // the same after each start
		Expires:  20 * time.Minute,
	})
	must(err)
	_, err = registration.Wait(ctx)
	must(err)
	opts := registration.InviteOpts(dialog.InviteOpts{})
	for _, hop := range opts.Route {
		fmt.Println("by way of", hop.String())
	}
	fmt.Println("on", opts.Flow)
	must(registration.Close(ctx))
	// Output:
	// by way of sip:198.51.100.1;transport=tcp;lr
	// by way of sip:home.example;lr
	// on TCP 203.0.113.5:49152-198.51.100.1:5060
}
