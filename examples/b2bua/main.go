// Command b2bua passes every call on to a trunk, with the trunk's password: a caller who
// dials sip:1234@here talks to 1234 at the trunk. ctrl-C ends it and the calls.
//
//	go run ./examples/b2bua -listen 127.0.0.1:5060 -trunk sip:127.0.0.1:5070 -user me -password secret
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/bridge"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "b2bua:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags, target, addr := flag.NewFlagSet("b2bua", flag.ContinueOnError), sip.Uri{}, netip.AddrPort{}
	flags.TextVar(&addr, "listen", netip.MustParseAddrPort("127.0.0.1:5060"), "address and port to listen on")
	flags.Func("trunk", "URI of the trunk", func(text string) error { return sip.ParseUri(text, &target) })
	user, password, refer := flags.String("user", "", "user name at the trunk"), flags.String("password", "", "password at the trunk"), flags.Int("refer", 2, "REFER is 0: refused, 1: relayed, 2: followed")
	if err := flags.Parse(args); err != nil {
		return err
	}
	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport:     &dialog.TransportConfig{Protocol: "udp", Address: addr.Addr().String(), Port: int(addr.Port())},
		NoAutoRinging: true, // the trunk's ringing passes
		Credentials:   func(string) (string, string, bool) { return *user, *password, *user != "" },
	})
	if err != nil {
		return err
	}
	b := bridge.New(stack, bridge.Options{Refer: func(*dialog.ReferRequest) bridge.ReferPolicy { return bridge.ReferPolicy(*refer) }})
	stack.OnCall(func(call *dialog.Dialog) {
		callee := target
		callee.User = call.Request().Recipient.User
		_, err := b.Join(ctx, call, callee, dialog.InviteOpts{})
		_, _ = fmt.Fprintln(out, call.Info().Remote.URI.User, "calls", callee.User, err)
	})
	if err := stack.Start(ctx); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(out, "listening on", stack.Addr())
	<-ctx.Done()
	return stack.Shutdown(context.Background())
}
