package dialog_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// A telephone hears that the connection is gone by which it is called.
func ExampleStack_OnFlowLost() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	overTCP := func(ip string) *dialog.Stack {
		stack, err := dialog.NewStack(&dialog.StackConfig{
			Transport: &dialog.TransportConfig{Protocol: "tcp", Address: ip, Port: 5060},
			Network:   network.Host(ip), // left out: the operating system's
		})
		must(err)
		must(stack.Start(ctx))
		return stack
	}
	registrar, phone := overTCP("198.51.100.1"), overTCP("203.0.113.5")
	defer func() { must(phone.Shutdown(ctx)); must(registrar.Shutdown(ctx)) }()

	lost := make(chan *dialog.Flow, 1)
	phone.OnFlowLost(func(flow *dialog.Flow, reason error) { lost <- flow })

	server := sip.Uri{Scheme: "sip", Host: "198.51.100.1", UriParams: sip.HeaderParams{{K: "transport", V: "tcp"}}}
	_, flow, err := phone.DoWith(ctx, sip.NewRequest(sip.OPTIONS, server), dialog.DoOpts{})
	must(err)
	defer flow.Hold()() // what depends on it: here the application itself
	network.Host("198.51.100.1").BreakStreams()
	fmt.Println("lost:", flow.Equal(<-lost))
	// Output:
	// lost: true
}

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

// A telephone calls a server over TLS. It checks the server's certificate against the name,
// or as here the address, that it calls.
func Example_tls() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	certificate, roots := certificateFor("10.0.0.2")

	server, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{
			Protocol: "tls", Address: "10.0.0.2", Port: 5061,
			TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
		},
		Network: network.Host("10.0.0.2"), // left out: the operating system's
	})
	must(err)
	server.OnCall(func(call *dialog.Dialog) { must(call.Accept(ctx, answer)) })
	must(server.Start(ctx))
	defer func() { must(server.Shutdown(ctx)) }()

	phone, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "tcp", Address: "10.0.0.1", Port: 5060},
		TLS:       &tls.Config{RootCAs: roots}, // left out: the system's roots
		Network:   network.Host("10.0.0.1"),    // left out: the operating system's
	})
	must(err)
	must(phone.Start(ctx))
	defer func() { must(phone.Shutdown(ctx)) }()

	var bob sip.Uri
	must(sip.ParseUri("sip:bob@10.0.0.2;transport=tls", &bob))
	call, err := phone.Call(ctx, bob, dialog.InviteOpts{Body: audio("sendrecv")})
	must(err)
	fmt.Println(call.State(), "over", call.Flow().Transport())
	must(call.Bye(ctx, ""))
	// Output:
	// Established over TLS
}

// A browser, or here a telephone, calls through a server that it reaches by WebSocket only.
func Example_webSocket() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	certificate, roots := certificateFor("10.0.0.2")

	server, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{
			Protocol: "wss", Address: "10.0.0.2", Port: 443,
			TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
			WebSocket: &dialog.WebSocketConfig{Origins: []string{"https://phone.example"}},
		},
		Network: network.Host("10.0.0.2"), // left out: the operating system's
	})
	must(err)
	server.OnCall(func(call *dialog.Dialog) { must(call.Accept(ctx, answer)) })
	must(server.Start(ctx))
	defer func() { must(server.Shutdown(ctx)) }()

	var proxy sip.Uri
	must(sip.ParseUri("wss://10.0.0.2:443/sip", &proxy))
	phone, err := dialog.NewStack(&dialog.StackConfig{
		Transport:     &dialog.TransportConfig{Protocol: "tcp", Address: "10.0.0.1", Port: 5060},
		OutboundProxy: &proxy,
		TLS:           &tls.Config{RootCAs: roots}, // left out: the system's roots
		Network:       network.Host("10.0.0.1"),    // left out: the operating system's
	})
	must(err)
	must(phone.Start(ctx))
	defer func() { must(phone.Shutdown(ctx)) }()

	call, err := phone.Call(ctx, sip.Uri{Scheme: "sip", User: "bob", Host: "phone.example"}, dialog.InviteOpts{Body: audio("sendrecv")})
	must(err)
	fmt.Println(call.State(), "over", call.Flow().Transport())
	must(call.Bye(ctx, ""))
	// Output:
	// Established over WSS
}

// certificateFor makes a certificate for an address that signs itself, and the roots that
// accept it. A server has one that an authority signed.
func certificateFor(ip string) (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP(ip)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(err)
	leaf, err := x509.ParseCertificate(der)
	must(err)
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}
