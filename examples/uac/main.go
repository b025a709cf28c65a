// Command uac makes a call, keeps it for a while and hangs up; ctrl-C hangs up at
// once. It sends no media: its session names an unused port.
//
//	go run ./examples/uac -to sip:bob@127.0.0.1:5060
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "uac:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("uac", flag.ContinueOnError)
	to := flags.String("to", "sip:bob@127.0.0.1:5060", "whom to call")
	listen := flags.String("listen", "127.0.0.1:0", "address and port to call from")
	protocol := flags.String("transport", "udp", "udp or tcp")
	keep := flags.Duration("for", 3*time.Second, "how long to keep the call")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var target sip.Uri
	if err := sip.ParseUri(*to, &target); err != nil {
		return fmt.Errorf("-to %s: %w", *to, err)
	}
	addr, err := netip.ParseAddrPort(*listen)
	if err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: *protocol, Address: addr.Addr().String(), Port: int(addr.Port())},
		UserAgent: "uac/1.0",
	})
	if err != nil {
		return err
	}
	// Not ctx, since ctrl-C should end the call first, then the stack.
	if err := stack.Start(context.Background()); err != nil {
		return err
	}
	err = call(ctx, stack, target, *keep, out)
	if shutdownErr := shutdown(stack); err == nil {
		err = shutdownErr
	}
	return err
}

// call makes one call, from the INVITE to the answer to the BYE.
func call(ctx context.Context, stack *dialog.Stack, target sip.Uri, keep time.Duration, out io.Writer) error {
	session := fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 %[1]s\r\ns=-\r\nc=IN IP4 %[1]s\r\nt=0 0\r\n"+
		"m=audio 4000 RTP/AVP 0\r\na=sendrecv\r\n", stack.Addr().Addr())
	offer := dialog.InviteOpts{
		Body: dialog.NewBody("application/sdp", []byte(session)),
		// Setup runs before the INVITE is sent, so that no state is missed.
		Setup: func(d *dialog.Dialog) {
			d.OnStateChange(func(state dialog.DialogState) { _, _ = fmt.Fprintln(out, state) })
		},
	}
	placed, err := stack.NewInvite(ctx, target, offer)
	if err != nil {
		return err
	}
	d := placed.(*dialog.Dialog)
	if err := d.WaitAnswer(ctx); err != nil {
		return err // cancelled or refused: there is no call to hang up
	}
	select {
	case <-time.After(keep):
	case <-ctx.Done():
	case <-d.Done():
	}
	hangup, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return d.Bye(hangup, "")
}

// shutdown waits for pending responses, such as the response to a CANCEL.
func shutdown(stack *dialog.Stack) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return stack.Shutdown(ctx)
}
