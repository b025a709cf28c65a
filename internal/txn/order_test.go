package txn

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
)

// bursts is how many pairs of messages each test of the order sends, and
// window how many of them are under way together.
const (
	bursts = 10000
	window = 500
)

// orderUser notes what comes, by Call-ID, and says when a pair is complete.
type orderUser struct {
	complete chan string // two events of one Call-ID, joined

	mu    sync.Mutex // guards the field below
	first map[string]string
}

func newOrderUser() *orderUser {
	return &orderUser{complete: make(chan string, 2*bursts), first: map[string]string{}}
}

func (u *orderUser) note(callID, event string) {
	u.mu.Lock()
	first, second := u.first[callID]
	u.first[callID] = event
	u.mu.Unlock()
	if second {
		u.complete <- first + " " + event
	}
}

func (u *orderUser) Request(tx *Server) {
	u.note(tx.Request().CallID().Value(), string(tx.Request().Method))
}
func (u *orderUser) Ack(ack *sipmsg.Message, _ *transport.Flow) { u.note(ack.CallID, "ACK") }
func (u *orderUser) Cancel(*Server, *sipmsg.Message)            {}
func (u *orderUser) ServerFailed(*Server, error)                {}
func (u *orderUser) Done(*Client, error)                        {}
func (u *orderUser) Response(_ *Client, res *sipmsg.Message) {
	u.note(res.CallID, fmt.Sprint(res.Status))
}

// orderRig is a layer on the wall clock, and an endpoint.
func orderRig(t testing.TB, user User) (*Layer, *dialogtest.Endpoint, netip.AddrPort) {
	return orderRigOn(t, dialogtest.NewNetwork(), user)
}

func orderRigOn(t testing.TB, network *dialogtest.Network, user User) (*Layer, *dialogtest.Endpoint, netip.AddrPort) {
	below := transport.New(transport.Config{Network: network.Host(ourIP), Resolver: peers})
	// T1 is such that nothing is repeated on a slow machine.
	layer := New(Config{Transport: below, User: user, Timers: Timers{T1: time.Minute}})
	addr, err := below.Listen(context.Background(), transport.ListenConfig{Transport: "udp", Address: ":5060"})
	require.NoError(t, err)
	peer, err := dialogtest.NewEndpoint(network.Host(peerIP), ":5060")
	require.NoError(t, err)
	t.Cleanup(func() {
		layer.Close()
		require.Equal(t, Counts{}, layer.Running())
		require.NoError(t, below.Close())
		network.Close()
	})
	return layer, peer, addr
}

func TestProvisionalAndFinalResponsesArriveInOrder(t *testing.T) {
	user := newOrderUser()
	layer, peer, _ := orderRig(t, user)
	for done := 0; done < bursts; done += window {
		for i := range window {
			_, err := layer.Request(t.Context(), outgoingRequest(sip.INVITE, fmt.Sprint("call-", done+i), 1),
				RequestOptions{NextHop: sip.Uri{Host: peerIP}}, user)
			require.NoError(t, err)
		}
		for range window {
			in, err := peer.Recv(t.Context())
			require.NoError(t, err)
			require.NoError(t, peer.Reply(in, dialogtest.Response{Code: 180, ToTag: "a"}))
			require.NoError(t, peer.Reply(in, dialogtest.Response{Code: 200, ToTag: "a"}))
		}
		for range window {
			require.Equal(t, "180 200", <-user.complete)
		}
	}
}

func TestAckAndByeArriveInOrder(t *testing.T) {
	user := newOrderUser()
	_, peer, addr := orderRig(t, user)
	via := "UDP " + peerIP + ":5060"
	for done := 0; done < bursts; done += window {
		for i := done; i < done+window; i++ {
			id := fmt.Sprint("call-", i)
			require.NoError(t, peer.Send(addr, requestText(via, id, "ACK", fmt.Sprint("z9hG4bK-a", i))))
			require.NoError(t, peer.Send(addr, requestText(via, id, "BYE", fmt.Sprint("z9hG4bK-b", i))))
		}
		for range window {
			require.Equal(t, "ACK BYE", <-user.complete)
		}
	}
}

// TestWorkOfOneCallRunsOneAtATimeAndOfOthersInParallel holds the first call
// inside the layer above.
func TestWorkOfOneCallRunsOneAtATimeAndOfOthersInParallel(t *testing.T) {
	queues := newQueues(func(work task) { work.run() })
	held, release, order := make(chan struct{}), make(chan struct{}), make(chan int, 3)
	require.True(t, queues.push("a", 0, func() { close(held); <-release; order <- 1 }))
	require.True(t, queues.push("a", 0, func() { order <- 2 }))
	<-held
	other := make(chan struct{})
	require.True(t, queues.push("b", 0, func() { close(other) }))
	<-other
	require.Empty(t, order)
	close(release)
	require.Equal(t, 1, <-order)
	require.Equal(t, 2, <-order)
	queues.close(context.Background())
	require.Zero(t, queues.len())
	require.False(t, queues.push("a", 0, func() {}))
}

// A user that asks again at once, with credentials for example, does not
// overtake the ACK to what it was refused with.
func TestTheAckToAFailureLeavesBeforeTheNextRequest(t *testing.T) {
	bubble(t, []string{"udp"}, func(t *testing.T, r *rig) {
		r.writing = func(data string) {
			if strings.HasPrefix(data, "ACK ") {
				time.Sleep(10 * time.Millisecond)
			}
		}
		r.user.onResponse = func(_ *Client, res *sipmsg.Message) {
			_, err := r.layer.Request(context.Background(), outgoingRequest(sip.INVITE, "call-1", 2), RequestOptions{NextHop: r.nextHop()}, &recorder{})
			if err != nil {
				t.Error(err)
			}
		}
		r.answer(r.request(sip.INVITE), 401, "a")
		time.Sleep(20 * time.Millisecond)
		require.Equal(t, []string{"ACK", "INVITE"}, r.lines())
	})
}
