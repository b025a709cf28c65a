// Command transfer calls two people, connects them with each other, and hangs up: an
// attended transfer (RFC 5589 7.3). It sends no media, and its session names an unused
// port.
//
//	go run ./examples/transfer sip:bob@127.0.0.1:5060 sip:carol@127.0.0.1:5070
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
)

const session = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"

func main() {
	if len(os.Args) != 3 {
		log.Fatalln("usage: transfer WHOM TO")
	}
	if err := run(context.Background(), os.Args[1], os.Args[2]); err != nil {
		log.Fatalln("transfer:", err)
	}
}

func run(ctx context.Context, whom, to string) error {
	stack, err := dialog.NewStack(&dialog.StackConfig{Transport: &dialog.TransportConfig{Protocol: "udp", Address: "127.0.0.1"}})
	if err != nil {
		return err
	}
	defer func() { _ = stack.Shutdown(ctx) }() // ends the remaining calls
	if err := stack.Start(ctx); err != nil {
		return err
	}
	bob, err := call(ctx, stack, whom)
	if err != nil {
		return fmt.Errorf("%s: %w", whom, err)
	}
	carol, err := call(ctx, stack, to)
	if err != nil {
		return fmt.Errorf("%s: %w", to, err)
	}
	// We ask Bob to call Carol. His call replaces our call with her, which she then ends.
	if err := bob.ReferReplace(ctx, carol, dialog.ReferOpts{}); err != nil {
		return err
	}
	refer, err := bob.WaitRefer(ctx)
	if err != nil {
		return err // Bob refuses
	}
	if outcome, err := refer.Wait(ctx); err != nil {
		return err
	} else if outcome.Status >= 300 {
		return fmt.Errorf("%s called %s: %d %s", whom, to, outcome.Status, outcome.Reason)
	}
	return bob.Bye(ctx, "transferred")
}

// call makes a call, and holds it.
func call(ctx context.Context, stack *dialog.Stack, to string) (*dialog.Dialog, error) {
	var target sip.Uri
	if err := sip.ParseUri(to, &target); err != nil {
		return nil, err
	}
	placed, err := stack.NewInvite(ctx, target, dialog.InviteOpts{Body: dialog.NewBody("application/sdp", []byte(session))})
	if err != nil {
		return nil, err
	}
	d := placed.(*dialog.Dialog)
	if err := d.WaitAnswer(ctx); err != nil {
		return nil, err
	}
	return d, d.Hold(ctx)
}
