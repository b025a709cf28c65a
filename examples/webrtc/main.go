// Command webrtc is a telephone in the browser, and the program behind it: it serves the
// page, takes the page's SIP over a secure WebSocket, and joins its calls with those of a
// telephone that speaks SIP over TCP. Build the page once, then open what the program says:
//
//	(cd web && npm ci && npm run build)
//	go run . -phone "sip:phone@127.0.0.1:5070;transport=tcp"
package main

import (
	"context"
	"crypto/tls"
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
		_, _ = fmt.Fprintln(os.Stderr, "webrtc:", err)
		os.Exit(1)
	}
}

// options are what the flags say.
type options struct {
	address        netip.Addr
	page, wss, sip int // ports
	phone          sip.Uri
	web            string
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("webrtc", flag.ContinueOnError)
	flags.TextVar(&o.address, "address", netip.MustParseAddr("127.0.0.1"), "address to listen on")
	flags.IntVar(&o.page, "page", 8443, "port of the page")
	flags.IntVar(&o.wss, "wss", 8444, "port of the WebSocket; browsers refuse 5060 and 5061")
	flags.IntVar(&o.sip, "sip", 5060, "port of SIP over TCP")
	flags.Func("phone", "URI of the telephone", func(text string) error { return sip.ParseUri(text, &o.phone) })
	flags.StringVar(&o.web, "web", "web", "folder of the page")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.phone.Host == "" {
		return o, errors.New("-phone is missing")
	}
	return o, nil
}

func run(ctx context.Context, args []string, out io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	certificate, err := selfSigned(o.address)
	if err != nil {
		return err
	}
	secure := &tls.Config{Certificates: []tls.Certificate{certificate}}
	stack, err := newStack(o, secure)
	if err != nil {
		return err
	}
	newSwitchboard(ctx, stack, o.phone, out)
	if err := stack.Start(ctx); err != nil {
		return err
	}
	addrs := stack.Addrs()
	page, err := servePage(o, secure, addrs[0].Port())
	if err == nil {
		_, _ = fmt.Fprintf(out, "open https://%s, call sip:browser@%s;transport=tcp\n", page.Addr, addrs[1])
		<-ctx.Done()
		err = page.Close()
	}
	limit, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(err, stack.Shutdown(limit))
}

// newStack listens for browsers and for telephones.
func newStack(o options, secure *tls.Config) (*dialog.Stack, error) {
	return dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{
			Protocol: "wss", Address: o.address.String(), Port: o.wss,
			TLSConfig: secure,
		},
		// The session of a browser is too large for a datagram.
		Listeners:     []dialog.TransportConfig{{Protocol: "tcp", Address: o.address.String(), Port: o.sip}},
		NoAutoRinging: true, // the ringing of the other side passes
	})
}
