// Command ivr answers every call, waits for a key by INFO, and transfers the caller: key 1
// to the first of its arguments, key 2 to the second. It sends no media.
//
//	go run ./examples/ivr -listen 127.0.0.1:5060 sip:sales@127.0.0.1:5070 sip:support@127.0.0.1:5071
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/netip"
	"os"
	"os/signal"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/sdpbody"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	addr := netip.AddrPort{}
	flag.TextVar(&addr, "listen", netip.MustParseAddrPort("127.0.0.1:5060"), "address and port to listen on")
	flag.Parse()
	if err := run(ctx, addr, flag.Args()); err != nil {
		log.Fatal("ivr: ", err)
	}
}

func run(ctx context.Context, addr netip.AddrPort, args []string) error {
	targets, errs := make([]sip.Uri, len(args)), make([]error, len(args))
	for i, text := range args {
		errs[i] = sip.ParseUri(text, &targets[i])
	}
	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: addr.Addr().String(), Port: int(addr.Port())},
	})
	if err = errors.Join(err, errors.Join(errs...)); err != nil {
		return err
	}
	audio := sdpbody.Stream{Port: 4000, Codecs: []sdpbody.Codec{sdpbody.PCMU(), sdpbody.DTMF(101)}}
	stack.OnCall(func(call *dialog.Dialog) {
		session, err := sdpbody.New(sdpbody.Local{Addr: addr.Addr(), Streams: []sdpbody.Stream{audio}})
		if err == nil {
			fmt.Println(call.Info().Remote.URI.User, menu(ctx, call, session, targets))
		}
		_ = call.Hangup(context.Background())
	})
	if err = stack.Start(ctx); err == nil {
		fmt.Println("listening on", stack.Addr())
		<-ctx.Done()
	}
	return errors.Join(err, stack.Shutdown(context.Background()))
}

// menu answers a call, and transfers it to the target that the caller chooses.
func menu(ctx context.Context, call *dialog.Dialog, session *sdpbody.Session, targets []sip.Uri) any {
	keys := make(chan rune, 16)
	call.OnDTMF(func(key dialog.DTMF) { keys <- key.Digit })
	call.OnOfferRequest(session.Decide)
	if err := call.Accept(ctx); err != nil {
		return err
	}
	select {
	case key := <-keys:
		if i := int(key - '1'); i >= 0 && i < len(targets) {
			return transfer(ctx, call, targets[i])
		}
		return "no such target"
	case <-call.Done():
		return "hung up"
	}
}

// transfer waits until the caller has reached the target, or has not.
func transfer(ctx context.Context, call *dialog.Dialog, target sip.Uri) any {
	if err := call.Refer(ctx, target, dialog.ReferOpts{}); err != nil {
		return err
	}
	subscription, err := call.WaitRefer(ctx)
	if err != nil {
		return err
	}
	progress, err := subscription.Wait(ctx)
	return fmt.Sprint(target.User, ": ", progress.Status, " ", progress.Reason, " ", err)
}
