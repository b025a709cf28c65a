// Command middle joins each call to one to another server, with package bridge.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/bench/internal/child"
	"sipdialog.example/dialog/bridge"
)

func main() {
	to := flag.String("to", "", "address of the server")
	if err := child.Serve(func() (string, error) { return start(*to) }); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "middle:", err)
		os.Exit(1)
	}
}

func start(to string) (string, error) {
	var target sip.Uri
	if err := sip.ParseUri("sip:service@"+to, &target); err != nil {
		return "", err
	}
	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport:     &dialog.TransportConfig{Protocol: "udp", Address: "127.0.0.1"},
		MaxDialogs:    -1,
		NoAutoRinging: true,
		// As bench/server: transactions of each call stay for 32 s.
		Limits: dialog.Limits{Transactions: 1 << 20, TransactionBytes: 4 << 30},
	})
	if err != nil {
		return "", err
	}
	b := bridge.New(stack, bridge.Options{})
	stack.OnCall(func(call *dialog.Dialog) {
		if _, err := b.Join(context.Background(), call, target, dialog.InviteOpts{}); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, "middle:", err)
		}
	})
	if err := stack.Start(context.Background()); err != nil {
		return "", err
	}
	return stack.Addr().String(), nil
}
