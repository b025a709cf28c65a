package test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

func TestDTMFInBothForms(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		caller, callee := w.established(a, b)
		keys := make(chan dialog.DTMF, 20)
		callee.OnDTMF(func(key dialog.DTMF) { keys <- key })
		for _, digit := range "0123456789*#Ad" {
			require.NoError(t, caller.SendDTMF(context.Background(), digit, dialog.DTMFOpts{}))
		}
		require.NoError(t, caller.SendDTMF(context.Background(), '5', dialog.DTMFOpts{Duration: 2 * time.Second}))
		require.NoError(t, caller.SendDTMF(context.Background(), '#', dialog.DTMFOpts{Plain: true}))
		synctest.Wait()
		for _, digit := range "0123456789*#AD" {
			require.Equal(t, dialog.DTMF{Digit: digit, Duration: 160 * time.Millisecond}, <-keys)
		}
		require.Equal(t, dialog.DTMF{Digit: '5', Duration: 2 * time.Second}, <-keys)
		require.Equal(t, dialog.DTMF{Digit: '#'}, <-keys)
		sent := w.sent("10.0.0.1", "INFO")
		require.Equal(t, "application/dtmf-relay", value(sent[1].msg, "Content-Type"))
		require.Equal(t, "Signal=1\r\nDuration=160\r\n", sent[1].body())
		require.Equal(t, "application/dtmf", value(sent[len(sent)-1].msg, "Content-Type"))
		require.Equal(t, "#", sent[len(sent)-1].body())

		for _, digit := range []rune{'E', 'x', ' ', 0, '٣', 'é'} {
			require.ErrorIs(t, caller.SendDTMF(context.Background(), digit, dialog.DTMFOpts{}), dialog.ErrInvalidArgument)
		}
		require.ErrorIs(t, caller.SendDTMF(context.Background(), '1', dialog.DTMFOpts{Duration: -1}), dialog.ErrInvalidArgument)
		require.NoError(t, caller.Bye(context.Background(), ""))
		require.ErrorIs(t, caller.SendDTMF(context.Background(), '1', dialog.DTMFOpts{}), dialog.ErrTerminated)
	})
}

// FD13. The peer has its 200 before the application hears of the key, also when the
// 200 takes its time.
func TestKeyIsToldOfOnceItsInfoIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		slow := func(e dialog.TraceEvent) {
			if e.Outbound && strings.Contains(string(e.Data), "CSeq: 11 INFO") {
				time.Sleep(time.Second) // on the fake clock
			}
		}
		b, p := w.stack("10.0.0.2", func(c *dialog.StackConfig) { c.Trace = slow }), w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		answered := make(chan int, 1)
		d.OnDTMF(func(dialog.DTMF) { answered <- len(w.sent("10.0.0.2", "200 INFO")) })
		r := inside("INFO", 11, "Content-Type: application/dtmf")
		r.Body = "5"
		require.NoError(t, p.Send(b.Addr(), p.Request(r)))
		require.Equal(t, 1, <-answered)
		hangUp(t, d, p)
	})
}

// What gateways write, and what they should not.
func TestDTMFIsReadAsItIsWritten(t *testing.T) {
	cases := []struct {
		kind, body string
		want       dialog.DTMF // zero: 400
	}{
		{"application/dtmf-relay", "Signal= 5\r\nDuration= 160\r\n", dialog.DTMF{Digit: '5', Duration: 160 * time.Millisecond}},
		{"Application/DTMF-Relay; x=y", "signal=*\nDuration=100\nVolume=3", dialog.DTMF{Digit: '*', Duration: 100 * time.Millisecond}},
		{"application/dtmf-relay", "Signal=11\r\n", dialog.DTMF{Digit: '#'}},
		{"application/dtmf-relay", "Duration=160\r\n", dialog.DTMF{}},
		{"application/dtmf-relay", "Signal=5\r\nDuration=-1\r\n", dialog.DTMF{}},
		{"application/dtmf-relay", "Signal=55\r\n", dialog.DTMF{}},
		{"application/dtmf-relay", "Signal=\r\n", dialog.DTMF{}},
		{"application/dtmf", "7", dialog.DTMF{Digit: '7'}},
		{"application/dtmf", " c \r\n", dialog.DTMF{Digit: 'C'}},
		{"application/dtmf", "15", dialog.DTMF{Digit: 'D'}},
		{"application/dtmf", "16", dialog.DTMF{}},
		{"application/dtmf", "\xff", dialog.DTMF{}},
		{"application/dtmf", "seven", dialog.DTMF{}},
	}
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		keys := make(chan dialog.DTMF, 20)
		d.OnDTMF(func(key dialog.DTMF) { keys <- key; panic("in the callback") })
		for i, c := range cases {
			r := inside("INFO", uint32(11+i), "Content-Type: "+c.kind)
			r.Body = c.body
			res := p.ask(b, r)
			if c.want == (dialog.DTMF{}) {
				require.Equal(t, 400, res.StatusCode, "%q", c.body)
				continue
			}
			require.Equal(t, 200, res.StatusCode, "%q", c.body)
			require.Equal(t, c.want, <-keys)
		}

		// Without a callback, and where it is something else, the handler has it.
		require.NoError(t, d.OnRequest("INFO", func(context.Context, *sip.Request) dialog.Answer { return dialog.Answer{Status: 406} }))
		r := inside("INFO", 40, "Content-Type: text/plain")
		r.Body = "5"
		require.Equal(t, 406, p.ask(b, r).StatusCode)
		d.OnDTMF(nil)
		r = inside("INFO", 41, "Content-Type: application/dtmf")
		r.Body = "5"
		require.Equal(t, 406, p.ask(b, r).StatusCode)
		hangUp(t, d, p)
	})
}
