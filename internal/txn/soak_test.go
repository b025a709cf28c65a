package txn

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
)

// callee answers each INVITE with 180 and after a while with 200, which it
// repeats until the ACK comes (RFC 3261 13.3.1.4; every T1 here), and each BYE with 200.
type callee struct {
	mu        sync.Mutex // guards the fields below
	awaitsACK map[string]*Server
	failures  []error
}

func (u *callee) Request(tx *Server) {
	if tx.Request().Method != sip.INVITE {
		_ = tx.Respond(tx.NewResponse(200, ""))
		return
	}
	_ = tx.Respond(tx.NewResponse(180, ""))
	time.AfterFunc(3*time.Second, func() {
		u.mu.Lock()
		u.awaitsACK[tx.Request().CallID().Value()] = tx
		u.mu.Unlock()
		if tx.Respond(tx.NewResponse(200, "")) != nil { // the CANCEL was first
			u.Ack(tx.Message(), tx.Flow())
			return
		}
		u.repeat(tx)
	})
}

func (u *callee) repeat(tx *Server) {
	time.AfterFunc(t1, func() {
		u.mu.Lock()
		waiting := u.awaitsACK[tx.Request().CallID().Value()] != nil
		u.mu.Unlock()
		if waiting && tx.Repeat() == nil {
			u.repeat(tx)
		}
	})
}

func (u *callee) Ack(ack *sipmsg.Message, _ *transport.Flow) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.awaitsACK, ack.CallID)
}

func (u *callee) Cancel(tx *Server, _ *sipmsg.Message) { _ = tx.Respond(tx.NewResponse(487, "")) }

func (u *callee) ServerFailed(_ *Server, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.failures = append(u.failures, err)
}

// call is the caller's side of one call: ACK for each 2xx, BYE after the first,
// or CANCEL at the first 180.
type call struct {
	layer   *Layer
	id      string
	hangUp  bool // by CANCEL
	outcome chan string

	mu  sync.Mutex // guards the fields below
	ack *Ack
}

func (c *call) options() RequestOptions {
	return RequestOptions{NextHop: sip.Uri{Host: peerIP}}
}

func (c *call) Response(tx *Client, res *sipmsg.Message) {
	invite := res.CSeqMethod == sip.INVITE
	switch code := res.Status; {
	case code == 180 && c.hangUp:
		tx.Cancel()
	case code == 200 && invite:
		c.accepted(tx)
	case code >= 200:
		c.outcome <- fmt.Sprint(res.CSeqMethod, " ", code)
	}
}

func (c *call) accepted(tx *Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ack != nil {
		_ = c.ack.Resend()
		return
	}
	c.ack, _ = c.layer.SendAck(context.Background(), outgoingRequest(sip.ACK, c.id, 1), c.options())
	_, _ = c.layer.Request(context.Background(), outgoingRequest(sip.BYE, c.id, 2), c.options(), c)
}

func (c *call) Done(tx *Client, err error) {
	if err != nil {
		c.outcome <- fmt.Sprint(tx.method, " ", err)
	}
}

// TestAllCallsCompleteOnALossyNetwork repeats more often and for longer than the
// defaults: with these one request in some hundreds is really lost at 30 %.
func TestAllCallsCompleteOnALossyNetwork(t *testing.T) {
	const calls = 150
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := dialogtest.NewNetwork()
				finals := finalsOnTheWire(network)
				network.SetPolicy(dialogtest.Lossy(seed, 0.3, 0.2, 300*time.Millisecond))
				answering := &callee{awaitsACK: map[string]*Server{}}
				var layers []*Layer
				for ip, user := range map[string]User{ourIP: &recorder{}, peerIP: answering} {
					below := transport.New(transport.Config{Network: network.Host(ip)})
					layer := New(Config{Transport: below, User: user, Timers: Timers{T2: t1}, Timeout: 10 * time.Minute})
					_, err := below.Listen(context.Background(), transport.ListenConfig{Transport: "udp", Address: ":5060"})
					require.NoError(t, err)
					layers = append(layers, layer)
					if ip == ourIP {
						layers[0], layers[len(layers)-1] = layer, layers[0]
					}
					defer func() { layer.Close(); require.NoError(t, below.Close()) }()
				}

				outcomes := make(chan string, 2*calls)
				for i := range calls {
					c := &call{layer: layers[0], id: fmt.Sprint("call-", i), hangUp: i%3 == 0, outcome: outcomes}
					_, err := layers[0].Request(context.Background(), outgoingRequest(sip.INVITE, c.id, 1), c.options(), c)
					require.NoError(t, err)
				}
				counts := map[string]int{}
				for range calls {
					counts[<-outcomes]++
				}
				// A CANCEL may lose against the 200, which then ends in a BYE.
				require.Equal(t, calls, counts["BYE 200"]+counts["INVITE 487"], counts)
				require.Greater(t, counts["INVITE 487"], calls/6)

				time.Sleep(2 * time.Minute)
				synctest.Wait()
				require.Empty(t, outcomes)
				require.Empty(t, answering.awaitsACK)
				require.Empty(t, answering.failures)
				for _, layer := range layers {
					require.Equal(t, Counts{}, layer.Running())
					require.Zero(t, layer.merging.len())
					require.Zero(t, layer.Stats().Panics)
				}
				for branch, seen := range finals() {
					require.Len(t, seen, 1, branch)
				}
			})
		})
	}
}

// TestCloseDuringTraffic: whatever runs, Close returns, each request that was
// sent is told its end once, and nothing is called afterwards.
func TestCloseDuringTraffic(t *testing.T) {
	user := newOrderUser()
	layer, peer, addr := orderRig(t, &answering{})
	stop := make(chan struct{})
	var running sync.WaitGroup
	for g := range 4 {
		running.Add(1)
		go func() {
			defer running.Done()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprint(g, "-", i)
				c, err := layer.Request(context.Background(), outgoingRequest(sip.INVITE, id, 1),
					RequestOptions{NextHop: sip.Uri{Host: peerIP}}, user)
				if err == nil {
					c.Cancel()
				}
				_ = peer.Send(addr, requestText("UDP 10.0.0.2:5060", id, "INVITE", "z9hG4bK-"+id))
			}
		}()
	}
	for range 500 {
		in, err := peer.Recv(t.Context())
		require.NoError(t, err)
		if in.Request() != nil {
			require.NoError(t, peer.Reply(in, dialogtest.Response{Code: 180, ToTag: "a"}))
		}
	}
	layer.Close()
	close(stop)
	running.Wait()
	require.Equal(t, Counts{}, layer.Running())
	require.Zero(t, layer.Stats().Panics)
}
