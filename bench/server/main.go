// Command server answers calls with the library: 180 at once, 200 from the
// callback. It is compared with bench/barsipgo.
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
	if err := child.Serve(start); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

func start() (string, error) {
	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport:  &dialog.TransportConfig{Protocol: "udp", Address: "127.0.0.1"},
		MaxDialogs: -1,
		// Two transactions of each call stay for 32 s: the default suffices for 3,100
		// calls a second.
		Limits: dialog.Limits{Transactions: 1 << 20, TransactionBytes: 4 << 30},
	})
	if err != nil {
		return "", err
	}
	stack.OnIncomingDialog(func(call dialog.IDialog) {
		if err := call.Accept(context.Background(), session); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, "server:", err)
		}
	})
	if err := stack.Start(context.Background()); err != nil {
		return "", err
	}
	return stack.Addr().String(), nil
}

func session(answer *sip.Response) {
	answer.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	answer.SetBody([]byte(child.Session))
}
