// Command uas is an answering machine: it answers every call, keeps it for a
// while and hangs up; ctrl-C ends it and the calls. It sends no media: its
// session names an unused port.
//
//	go run ./examples/uas -listen 127.0.0.1:5060
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
		_, _ = fmt.Fprintln(os.Stderr, "uas:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("uas", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:5060", "address and port to listen on")
	protocol := flags.String("transport", "udp", "udp or tcp")
	keep := flags.Duration("for", 10*time.Second, "how long to keep a call")
	if err := flags.Parse(args); err != nil {
		return err
	}
	addr, err := netip.ParseAddrPort(*listen)
	if err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: *protocol, Address: addr.Addr().String(), Port: int(addr.Port())},
		UserAgent: "uas/1.0",
	})
	if err != nil {
		return err
	}
	m := &machine{stack: stack, keep: *keep, out: out}
	stack.OnIncomingDialog(func(call dialog.IDialog) { m.take(ctx, call.(*dialog.Dialog)) })
	if err := stack.Start(context.Background()); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(out, "listening on", stack.Addr())
	<-ctx.Done()
	// Shutdown ends the remaining calls.
	end, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return stack.Shutdown(end)
}

// machine has the values that all calls share.
type machine struct {
	stack *dialog.Stack
	keep  time.Duration
	out   io.Writer
}

// take answers a call and ends it. It runs once for each call, on its own goroutine.
func (m *machine) take(ctx context.Context, call *dialog.Dialog) {
	id := call.Key().CallID
	call.OnStateChange(func(state dialog.DialogState) { _, _ = fmt.Fprintln(m.out, id, state) })
	if err := call.Accept(ctx, m.answer); err != nil {
		_, _ = fmt.Fprintln(m.out, id, "not answered:", err)
		return
	}
	select {
	case <-time.After(m.keep):
	case <-ctx.Done():
		return
	case <-call.Done():
		return
	}
	if err := call.Bye(ctx, "time is up"); err != nil {
		_, _ = fmt.Fprintln(m.out, id, "hung up:", err)
	}
}

// answer puts the session into the 200.
func (m *machine) answer(ok *sip.Response) {
	session := fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 %[1]s\r\ns=-\r\nc=IN IP4 %[1]s\r\nt=0 0\r\n"+
		"m=audio 4002 RTP/AVP 0\r\na=sendrecv\r\n", m.stack.Addr().Addr())
	ok.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	ok.SetBody([]byte(session))
}
