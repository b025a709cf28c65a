package txn

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/sipmsg"
)

// endings counts how often each request was told its end, and what came after
// that.
type endings struct {
	mu    sync.Mutex // guards the fields below
	done  map[*Client]int
	after int
}

func (u *endings) Response(tx *Client, _ *sipmsg.Message) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.after += u.done[tx]
}

func (u *endings) Done(tx *Client, _ error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.done[tx]++
}

// raceRig is a layer between a target that answers 503 and one that rings.
type raceRig struct {
	layer   *Layer
	user    *endings
	clients sync.Map // by Call-ID
	running sync.WaitGroup
	reached chan struct{} // an INVITE has come to the first target
}

// serve answers INVITEs; of four of them one is cancelled before that, and one
// after it.
func (r *raceRig) serve(ctx context.Context, peer *dialogtest.Endpoint, code int) {
	defer r.running.Done()
	for n := 0; ; n++ {
		in, err := peer.Recv(ctx)
		if err != nil {
			return
		}
		req := in.Request()
		if req == nil || req.Method != sip.INVITE {
			continue
		}
		c, found := r.clients.Load(req.CallID().Value())
		if found && n%4 == 0 {
			r.running.Add(1)
			go func() { defer r.running.Done(); c.(*Client).Cancel() }()
		}
		_ = peer.Reply(in, dialogtest.Response{Code: code, ToTag: "a"})
		if found && n%4 == 1 {
			r.running.Add(1)
			go func() { defer r.running.Done(); c.(*Client).Cancel() }()
		}
		if code == 503 {
			r.reached <- struct{}{}
		}
	}
}

func (r *raceRig) call(id string) {
	defer r.running.Done()
	c, err := r.layer.Request(context.Background(), outgoingRequest(sip.INVITE, id, 1),
		RequestOptions{NextHop: sip.Uri{Host: "farm.example"}}, r.user)
	if err == nil {
		r.clients.Store(id, c)
		_, _, _ = c.Flow(), c.Sent(), c.Provisional()
	}
}

// TestMovingCancelAndCloseRace: each request moves from a target that answers 503
// to one that rings, while it is cancelled and the layer is closed, in each round after
// another number of requests. Each is told its end once, last, before Close returns.
func TestMovingCancelAndCloseRace(t *testing.T) {
	const calls = 40
	moved := 0
	for round := range calls {
		network := dialogtest.NewNetwork()
		layer, first, _ := orderRigOn(t, network, &recorder{})
		second, err := dialogtest.NewEndpoint(network.Host(peers[1].String()), ":5060")
		require.NoError(t, err)
		r := &raceRig{layer: layer, user: &endings{done: map[*Client]int{}}, reached: make(chan struct{}, calls)}
		ctx, cancel := context.WithCancel(t.Context())
		r.running.Add(2 + calls)
		go r.serve(ctx, first, 503)
		go r.serve(ctx, second, 180)
		for i := range calls {
			go r.call(fmt.Sprint("call-", i))
		}
		for range round {
			<-r.reached
		}
		layer.Close()
		cancel()
		r.running.Wait()
		require.Equal(t, Counts{}, layer.Running())
		sent := 0
		r.clients.Range(func(_, c any) bool {
			sent++
			require.Equal(t, 1, r.user.done[c.(*Client)])
			if c.(*Client).Flow().RemoteAddr().Addr() == peers[1] {
				moved++
			}
			return true
		})
		require.Len(t, r.user.done, sent)
		require.Zero(t, r.user.after)
		require.Zero(t, layer.Stats().Panics)
	}
	require.NotZero(t, moved)
}
