package test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testcert"
	"sipdialog.example/dialog/internal/testkit"
)

// congested is a link that loses one in five, and delays the rest.
var congested = dialogtest.Congestion{Loss: 0.2, Jitter: 100 * time.Millisecond, Reorder: 0.05, Seed: 12}

// Over a congested link every call is whole: set up, held, resumed, and ended at both
// ends. The times are in docs/performance.md.
func TestCallsOverACongestedLinkAreWhole(t *testing.T) {
	const calls, pace = 200, 100 * time.Millisecond
	ca := testcert.New(t)
	for _, transport := range []string{"udp", "tcp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.net.Window = 4 << 20 // as Linux lets a connection's grow: all calls share one
				w.net.SetPolicy(sparing(congested.Datagrams()))
				w.net.SetStreamPolicy(congested.Streams())
				from, to := w.site("10.0.0.1", transport, ca), w.site("10.0.0.2", transport, ca)
				callees := make(chan *dialog.Dialog, calls+1)
				to.OnIncomingDialog(func(d dialog.IDialog) {
					callees <- d.(*dialog.Dialog)
					_ = d.Accept(context.Background(), withSDP(answerSDP))
				})
				results := make(chan wholeCall, calls)
				for range calls {
					go func() { results <- from.wholeCall(to) }()
					time.Sleep(pace)
				}
				var setUps []time.Duration
				for range calls {
					result := <-results
					require.NoError(t, result.err)
					setUps = append(setUps, result.setUp)
				}
				for range calls {
					callee := <-callees
					<-callee.Done()
					require.Equal(t, dialog.Cause{By: dialog.PartyRemote, Method: "BYE"}, callee.Cause())
				}
				time.Sleep(time.Minute) // what was repeated is forgotten
				require.Empty(t, callees, "half a call")
				for _, s := range []*site{from, to} {
					stats := s.Stats()
					require.Zero(t, stats.Dialogs+stats.Releasing+stats.ClientTransactions+stats.ServerTransactions)
				}
				slices.Sort(setUps)
				t.Logf("set-up over %s: p50 %s, p99 %s", transport,
					setUps[calls/2].Round(time.Millisecond), setUps[calls*99/100].Round(time.Millisecond))
			})
		})
	}
}

// wholeCall is how long a call took to be set up, and what went wrong in it.
type wholeCall struct {
	setUp time.Duration
	err   error
}

// wholeCall calls, holds, resumes, talks a while and hangs up.
func (s *site) wholeCall(to *site) (result wholeCall) {
	ctx := context.Background()
	began := time.Now()
	d, err := s.NewInvite(ctx, testkit.URIOver(to.transport, "bob", to.Addr()), offer(offerSDP))
	if err != nil {
		return wholeCall{err: err}
	}
	call := d.(*dialog.Dialog)
	if err := call.WaitAnswer(ctx); err != nil {
		return wholeCall{err: fmt.Errorf("after %s: %w", time.Since(began), err)}
	}
	result.setUp = time.Since(began)
	for _, step := range []func(context.Context) error{call.Hold, call.Resume} {
		if err := step(ctx); err != nil {
			return wholeCall{err: err}
		}
		time.Sleep(10 * time.Second)
	}
	result.err = call.Bye(ctx, "")
	return result
}

// sparing loses no datagram more than five times. By chance all seven of an INVITE are
// lost in one run of a hundred; it is then the caller's right to give up.
func sparing(policy func(dialogtest.Packet) []time.Duration) func(dialogtest.Packet) []time.Duration {
	const most = 5
	var mu sync.Mutex // guards lost
	lost := make(map[string]int)
	return func(p dialogtest.Packet) []time.Duration {
		delays := policy(p)
		mu.Lock()
		defer mu.Unlock()
		if lost[string(p.Data)]++; len(delays) > 0 || lost[string(p.Data)] > most {
			delete(lost, string(p.Data))
			return append(delays, 0)[:1]
		}
		return nil
	}
}
