package test

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
	"sipdialog.example/dialog/internal/transport"
)

// unreachable is a target whose connection is never set up, and never refused.
const unreachable = "Contact: <sip:callee@10.0.0.66:5060;transport=tcp>"

// dialCount counts the connections that a stack tries to set up at a time.
type dialCount struct {
	transport.Network
	now, most, all atomic.Int32
}

func (n *dialCount) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	n.all.Add(1)
	n.most.Store(max(n.most.Load(), n.now.Add(1)))
	defer n.now.Add(-1)
	return n.Network.DialContext(ctx, network, address)
}

// dials counts those of a stack that is to be made.
func (w *world) dials(ip string) (*dialCount, func(*dialog.StackConfig)) {
	n := &dialCount{Network: w.net.Host(ip)}
	return n, func(c *dialog.StackConfig) { c.Network = n }
}

// FX3: a callee that repeats its 2xx a thousand times a second, and cannot be
// reached, has one dial at a time, and nothing queued. Its BYE is answered at once.
func TestRepeatedAnswersOfAnUnreachableCalleeQueueNothing(t *testing.T) {
	for name, c := range map[string]struct {
		contact string
		body    string // of the INVITE
		offer   string // of the 200
		tags    int
	}{
		"a dial":               {unreachable, offerSDP, answerSDP, 1},
		"a dial, a late offer": {unreachable, "", offerSDP, 1},
		"many forks":           {unreachable, offerSDP, answerSDP, 100},
		"a look-up":            {"Contact: <sip:callee@nobody.test>", offerSDP, answerSDP, 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				count, counted := w.dials(stackIP)
				w.nameServer().fallSilent(true)
				a, p := w.stack(stackIP, counted, w.resolves(stackIP)), w.peer(peerIP)
				opts := dialog.InviteOpts{}
				if c.body != "" {
					opts = offer(c.body)
				}
				l := w.calls(a, p, opts)
				w.deaf()
				before, most := heap(), uint64(0)
				for i := range 5000 {
					tag := fmt.Sprint(farTag, i%c.tags)
					res := p.Response(l.invite.Request(), dialogtest.Response{Code: 200, ToTag: tag, Headers: []string{c.contact}, Body: c.offer})
					w.net.Inject(p.Addr(), a.Addr(), []byte(res))
					time.Sleep(time.Millisecond)
					if i%10 == 0 {
						synctest.Wait()
						require.Zero(t, a.Stats().Queues, "something waits on the call's worker")
					}
					if i%1000 == 999 {
						most = max(most, heap())
					}
				}
				require.Less(t, most, before+uint64(1+c.tags)<<20)
				require.LessOrEqual(t, count.most.Load(), int32(1))
				l.tag = farTag + "0"
				began := time.Now()
				l.ask("BYE")
				p.next("200 BYE")
				require.Zero(t, time.Since(began))
				<-l.d.Done()
				require.Equal(t, dialog.PartyRemote, l.d.Cause().By)

				if c.tags > 1 {
					w.stacks = nil // shut down here, while the BYEs to the forks are on their way
					require.True(t, testkit.OnlyUnreachable(a.Shutdown(context.Background()), false))
					return
				}
				// Over on both sides: what comes now is not worth a dial.
				time.Sleep(5 * time.Second)
				all := count.all.Load()
				for range 1000 {
					res := p.Response(l.invite.Request(), dialogtest.Response{Code: 200, ToTag: farTag + "0", Headers: []string{c.contact}, Body: c.offer})
					w.net.Inject(p.Addr(), a.Addr(), []byte(res))
					time.Sleep(10 * time.Millisecond)
				}
				require.Equal(t, all, count.all.Load())
			})
		})
	}
}
