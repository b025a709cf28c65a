// Command media makes calls that can be heard: it answers each call and sends back the
// audio that it receives, or makes a call, sends a tone, and compares what comes back.
//
//	go run . -listen 127.0.0.1:5060
//	go run . -to sip:echo@127.0.0.1:5060 -for 3s
package main

import (
	"context"
	"errors"
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
		_, _ = fmt.Fprintln(os.Stderr, "media:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("media", flag.ContinueOnError)
	to := flags.String("to", "", "whom to call; empty answers calls")
	listen := flags.String("listen", "127.0.0.1:0", "address and port of SIP")
	last := flags.Duration("for", 3*time.Second, "how long the tone is")
	if err := flags.Parse(args); err != nil {
		return err
	}
	addr, err := netip.ParseAddrPort(*listen)
	if err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: addr.Addr().String(), Port: int(addr.Port())},
	})
	if err != nil {
		return err
	}
	if *to == "" {
		err = serve(ctx, stack, out)
	} else {
		err = call(ctx, stack, *to, *last, out)
	}
	limit, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(err, stack.Shutdown(limit))
}

// serve answers calls until ctx ends.
func serve(ctx context.Context, stack *dialog.Stack, out io.Writer) error {
	stack.OnCall(func(d *dialog.Dialog) {
		if err := echo(ctx, d); err != nil {
			_, _ = fmt.Fprintln(out, err)
		}
	})
	if err := stack.Start(ctx); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(out, "listening on", stack.Addr())
	<-ctx.Done()
	return nil
}

// echo answers a call, and sends back its audio until it ends.
func echo(ctx context.Context, d *dialog.Dialog) error {
	peer, err := audioOf(d.Request().Body())
	if err != nil {
		return errors.Join(err, d.Reject(ctx, 488, ""))
	}
	a, err := openAudio(peer)
	if err != nil {
		return errors.Join(err, d.Reject(ctx, 500, ""))
	}
	defer a.close()
	if err := d.Accept(ctx, dialog.WithBody(a.session())); err != nil {
		return err
	}
	go func() {
		<-d.Done()
		a.close() // ends receive
	}()
	for {
		payload, err := a.receive()
		if err != nil {
			return nil // the call has ended
		}
		if err := a.send(payload); err != nil {
			return errors.Join(err, d.Close())
		}
	}
}

// call makes one call, and compares the tone that it sends with what comes back.
func call(ctx context.Context, stack *dialog.Stack, to string, last time.Duration, out io.Writer) error {
	var target sip.Uri
	if err := sip.ParseUri(to, &target); err != nil {
		return fmt.Errorf("-to %s: %w", to, err)
	}
	if err := stack.Start(ctx); err != nil {
		return err
	}
	// The session names the socket, so that is opened before the call.
	a, err := openAudio(netip.AddrPortFrom(stack.Addr().Addr(), 0))
	if err != nil {
		return err
	}
	defer a.close()
	d, err := stack.Call(ctx, target, dialog.InviteOpts{Body: a.session()})
	if err != nil {
		return err
	}
	if err := d.WaitAnswer(ctx); err != nil {
		return err
	}
	if a.peer, err = audioOf(d.Response().Body()); err != nil {
		return errors.Join(err, d.Close())
	}
	same, err := listen(ctx, a, last)
	_, _ = fmt.Fprintf(out, "%d samples came back as they were sent\n", same)
	return errors.Join(err, d.Hangup(ctx))
}

// listen sends a tone, one packet every 20 ms, and counts the samples that come back as
// they were. The first that differs ends it.
func listen(ctx context.Context, a *audio, last time.Duration) (same int, err error) {
	clock := time.NewTicker(frame)
	defer clock.Stop()
	for sent := 0; sent < int(last/frame); sent++ {
		payload := tone(sent*samples, samples)
		if err := a.send(payload); err != nil {
			return same, err
		}
		back, err := a.receive()
		if err != nil {
			return same, err
		}
		if string(back) != string(payload) {
			return same, fmt.Errorf("packet %d was changed on its way", sent)
		}
		same += len(back)
		select {
		case <-clock.C:
		case <-ctx.Done():
			return same, ctx.Err()
		}
	}
	return same, nil
}
