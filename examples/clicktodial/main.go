// Command clicktodial calls two telephones and connects them by flow I or IV of RFC 3725.
//
//	go run ./examples/clicktodial -flow 4 sip:alice@127.0.0.1:5070 sip:bob@127.0.0.1:5080
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"os"
	"os/signal"
	"regexp"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/bridge"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	flow, first, second := flag.Int("flow", 4, "flow of RFC 3725: 1 or 4"), sip.Uri{}, sip.Uri{}
	ring := flag.Duration("ring", time.Minute, "how long a telephone may ring")
	flag.Parse()
	stack, err := dialog.NewStack(&dialog.StackConfig{RingingLimit: *ring, Transport: &dialog.TransportConfig{Protocol: "udp", Address: "127.0.0.1"}})
	if err := errors.Join(err, sip.ParseUri(flag.Arg(0), &first), sip.ParseUri(flag.Arg(1), &second), stack.Start(ctx)); err != nil {
		log.Fatal("clicktodial: ", err)
	}
	connect := map[int]func(context.Context, *dialog.Stack, sip.Uri, sip.Uri) (a, b *dialog.Dialog, err error){1: flowI, 4: flowIV}[*flow]
	a, b, err := connect(ctx, stack, first, second)
	if log.Println("connected:", err == nil, err); err == nil {
		bridge.New(stack, bridge.Options{}).Link(a, b) // the end of one ends the other
		defer context.AfterFunc(ctx, func() { _ = a.Close() })()
		<-a.Done()
	}
	log.Println("ended:", stack.Shutdown(context.Background())) // hangs up what is left
}

// call places a call and waits for its answer. decide answers the offer that comes with it.
func call(ctx context.Context, stack *dialog.Stack, to sip.Uri, offer dialog.Body, decide dialog.OfferRequestHandler) (*dialog.Dialog, error) {
	d, err := stack.Call(ctx, to, dialog.InviteOpts{Body: offer, Setup: func(d *dialog.Dialog) { d.OnOfferRequest(decide) }})
	if err == nil {
		err = d.WaitAnswer(ctx)
	}
	return d, err
}

// flowI offers the second telephone what the first one, which has answered, offers.
func flowI(ctx context.Context, stack *dialog.Stack, first, second sip.Uri) (a, b *dialog.Dialog, err error) {
	connected := make(chan error, 1)
	a, err = call(ctx, stack, first, nil, func(ctx context.Context, r *dialog.OfferRequest) (answer dialog.Body, err error) {
		defer func() { connected <- err }()
		if b, err = call(ctx, stack, second, r.Offer, nil); err != nil {
			return nil, err // the first call ends
		}
		return dialog.NewBody("application/sdp", b.Response().Body()), nil
	})
	if err == nil {
		err = <-connected
	}
	return a, b, err
}

// flowIV connects the first telephone to no media until the second one has answered. Its
// description is then that of the second, with our o= line (RFC 3725 4.4).
func flowIV(ctx context.Context, stack *dialog.Stack, first, second sip.Uri) (a, b *dialog.Dialog, err error) {
	none := "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
	a, err = call(ctx, stack, first, dialog.NewBody("application/sdp", []byte(none)), nil)
	if err != nil {
		return a, nil, err
	}
	b, err = call(ctx, stack, second, nil, func(ctx context.Context, r *dialog.OfferRequest) (dialog.Body, error) {
		offer := regexp.MustCompile(`(?m)^o=.*?\r?$`).ReplaceAll(r.Offer.Data(), []byte("o=- 1 2 IN IP4 127.0.0.1\r"))
		return a.Renegotiate(ctx, dialog.NewBody("application/sdp", offer))
	})
	return a, b, err
}
