// Command client makes calls with the library: INVITE, ACK after the 2xx, and BYE. It is
// compared with bench/barclient.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/bench/internal/child"
)

func main() {
	if err := child.Client(connect); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}

func connect(to string) (call func() error, err error) {
	var target sip.Uri
	if err := sip.ParseUri("sip:service@"+to, &target); err != nil {
		return nil, err
	}
	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport:  &dialog.TransportConfig{Protocol: "udp", Address: "127.0.0.1"},
		MaxDialogs: -1,
	})
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	if err := stack.Start(ctx); err != nil {
		return nil, err
	}
	offer := dialog.InviteOpts{Body: dialog.NewBody("application/sdp", []byte(child.Session))}
	return func() error {
		d, err := stack.NewInvite(ctx, target, offer)
		if err != nil {
			return err
		}
		if err := d.(*dialog.Dialog).WaitAnswer(ctx); err != nil {
			return err
		}
		return d.Bye(ctx, "")
	}, nil
}
