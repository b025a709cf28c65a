package test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// FX7: requests in calls that are not here are told so, and nothing of them stays.
func TestRequestsOfNoCallTakeNoTransaction(t *testing.T) {
	bounded(t, 2<<20, func(*dialog.StackConfig) {}, func(t *testing.T, w *world, b *dialog.Stack, look func()) {
		time.Sleep(time.Minute) // the call's own transactions end
		p := w.peer("10.0.0.9")
		for _, method := range []string{"BYE", "PRACK", "INFO", "CANCEL"} {
			ask := func(i int) dialogtest.Request {
				return dialogtest.Request{Method: method, URI: "sip:b@10.0.0.2", CallID: fmt.Sprint(method, i), ToTag: "none"}
			}
			text := p.Request(ask(-1))
			require.NoError(t, p.Send(b.Addr(), text))
			first := p.next("481 " + method)
			require.NoError(t, p.Send(b.Addr(), text))
			require.Equal(t, first.Message.String(), p.next("481 "+method).Message.String(), "the same answer to the same request")
			for i := range 1000 {
				r := ask(i)
				r.CallID += strings.Repeat("x", 30<<10)
				require.NoError(t, p.Send(b.Addr(), p.Request(r)))
				p.next("481 " + method)
				require.Zero(t, b.Stats().ServerTransactions)
			}
			look()
		}
	})
}

// FX7: what transactions hold is bounded, though there are few of them; a call in
// progress goes on.
func TestTransactionsAreBoundedInBytes(t *testing.T) {
	const most = 8 << 20
	bounded(t, most+2<<20, func(c *dialog.StackConfig) { c.Limits.TransactionBytes = most }, func(t *testing.T, w *world, b *dialog.Stack, look func()) {
		p := w.peer("10.0.0.9")
		_, inside := w.called(b, p, answerSDP)
		refused := 0
		for i := range 1000 {
			id := fmt.Sprint(i, strings.Repeat("x", 30<<10))
			require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{Method: "OPTIONS", URI: "sip:b@10.0.0.2", CallID: id})))
			if p.final("OPTIONS").StatusCode == 503 {
				refused++
			}
			require.LessOrEqual(t, b.Stats().TransactionBytes, most)
		}
		require.Greater(t, refused, 500)
		require.EqualValues(t, refused, b.Stats().Refused["queue"])
		look()
		require.Equal(t, 200, p.ask(b, inside("INFO", 11)).StatusCode)
		require.Equal(t, 200, p.ask(b, inside("BYE", 12)).StatusCode)
		time.Sleep(time.Minute)
		require.Zero(t, b.Stats().TransactionBytes)
	})
}
