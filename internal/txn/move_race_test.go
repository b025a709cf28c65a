//go:build go1.25

package txn

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
)

// endings counts how often each request was told its end, and what came after
// that.
type endings struct {
	mu    sync.Mutex // guards the fields below
	done  map[*Client]int
	after int
}

func (u *endings) Response(tx *Client, _ *sip.Response) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.after += u.done[tx]
}

func (u *endings) Done(tx *Client, _ error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.done[tx]++
}

// TestMovingCancelAndCloseRace: each request moves from a target that answers 503
// to one that rings, while it is cancelled and the layer is closed. Each is told its end
// once, last, before Close returns.
func TestMovingCancelAndCloseRace(t *testing.T) {
	const rounds, calls = 30, 40
	for range rounds {
		network := dialogtest.NewNetwork()
		layer, first, _ := orderRigOn(t, network, &recorder{})
		second, err := dialogtest.NewEndpoint(network.Host(peers[1].String()), ":5060")
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		answer := func(peer *dialogtest.Endpoint, code int) {
			running.Add(1)
			go func() {
				defer running.Done()
				for {
					in, err := peer.Recv(ctx)
					if err != nil {
						return
					}
					if req := in.Request(); req != nil && req.Method == sip.INVITE {
						_ = peer.Reply(in, dialogtest.Response{Code: code, ToTag: "a"})
					}
				}
			}()
		}
		answer(first, 503)
		answer(second, 180)

		user := &endings{done: map[*Client]int{}}
		clients := make(chan *Client, calls)
		for i := range calls {
			running.Add(1)
			go func() {
				defer running.Done()
				c, err := layer.Request(context.Background(), outgoingRequest(sip.INVITE, fmt.Sprint("call-", i), 1),
					RequestOptions{NextHop: sip.Uri{Host: "farm.example"}}, user)
				if err == nil {
					clients <- c
					_, _, _ = c.Flow(), c.Request(), c.Provisional()
					c.Cancel()
				}
			}()
			if i == calls*3/4 {
				layer.Close()
				user.mu.Lock()
				for _, n := range user.done {
					require.Equal(t, 1, n)
				}
				user.mu.Unlock()
			}
		}
		cancel()
		running.Wait()
		require.Len(t, user.done, len(clients))
		require.Zero(t, user.after)
		require.Zero(t, layer.Stats().Panics)
	}
}
