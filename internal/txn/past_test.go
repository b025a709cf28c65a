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

// acking says at the ACK that a 2xx is not repeated any more.
type acking struct {
	benchUser
	mu      sync.Mutex // guards the field below
	invites map[string]*Server
}

func (u *acking) Request(tx *Server) {
	if tx.isInvite() {
		u.mu.Lock()
		u.invites[tx.callID] = tx
		u.mu.Unlock()
	}
	u.benchUser.Request(tx)
}

func (u *acking) Ack(ack *sipmsg.Message, _ *transport.Flow) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.invites[ack.CallID].Acknowledged()
	delete(u.invites, ack.CallID)
}

// A copy that comes by another path is refused also when the first has been answered, and
// its transaction is a record (RFC 3261 8.2.2.2).
func TestACopyByAnotherPathIsRefusedWhenTheFirstIsOver(t *testing.T) {
	bubble(t, []string{"udp"}, func(t *testing.T, r *rig) {
		r.user.onRequest = func(s *Server) { _ = s.Respond(s.NewResponse(200, "")); s.Acknowledged() }
		for i, method := range []string{"OPTIONS", "INVITE"} {
			call := "call-" + method
			r.wire.send(r.textOf(call, method, "z9hG4bK-1"+method))
			require.Contains(t, r.lines(), "200")
			require.Equal(t, i+1, r.layer.pastServers.len())
			require.Zero(t, r.layer.merging.len())
			r.wire.send(r.textOf(call, method, "z9hG4bK-2"+method))
			require.Equal(t, []string{"482"}, r.lines())
			require.Equal(t, []string{"request " + method}, r.user.take())
		}
	})
}

// A CANCEL for what is over gets 200, with the tag of the response (RFC 3261 9.2).
func TestACancelForAnEndedTransactionGetsItsTag(t *testing.T) {
	bubble(t, []string{"udp"}, func(t *testing.T, r *rig) {
		r.user.onRequest = func(s *Server) { _ = s.Respond(s.NewResponse(200, "")); s.Acknowledged() }
		for _, method := range []string{"OPTIONS", "INVITE"} {
			r.wire.send(r.text(method, "z9hG4bK-"+method))
			sent := r.messages()
			r.wire.send(r.text("CANCEL", "z9hG4bK-"+method))
			got := r.messages()
			require.Len(t, got, 1)
			require.Equal(t, "200", short(got[0]))
			require.Equal(t, headerOf(sent[len(sent)-1], "To"), headerOf(got[0], "To"))
			r.user.take()
		}
	})
}

func headerOf(msg interface{ String() string }, name string) string {
	for _, line := range strings.Split(msg.String(), "\r\n") {
		if strings.HasPrefix(line, name+": ") {
			return line
		}
	}
	return ""
}

// The ACK of a client without the magic cookie needs our tag also when it comes again
// (RFC 3261 17.2.3).
func TestAnAckWithoutOurTagMatchesNoEndedTransaction(t *testing.T) {
	bubble(t, []string{"udp"}, func(t *testing.T, r *rig) {
		r.user.onRequest = respondWithFinal(486)
		r.wire.send(r.text("INVITE", "1"))
		r.settle()
		s := r.user.lastServer()
		ack := r.text("ACK", "1")
		ours := strings.Replace(ack, "To: <sip:us@10.0.0.1>", "To: <sip:us@10.0.0.1>;tag="+s.ToTag(), 1)
		r.wire.send(ours)
		r.settle()
		require.Equal(t, 1, r.layer.pastServers.len())
		r.user.take()
		r.wire.send(ours)
		r.settle()
		require.Empty(t, r.user.take())
		r.wire.send(ack)
		r.settle()
		require.Equal(t, []string{"ack"}, r.user.take())
	})
}

func respondWithFinal(code int) func(*Server) {
	return func(s *Server) { _ = s.Respond(s.NewResponse(code, "")) }
}

// A response that is too long for a record keeps its transaction.
func TestATransactionWithALongResponseWaitsAsItIs(t *testing.T) {
	bubble(t, []string{"udp"}, func(t *testing.T, r *rig) {
		r.user.onRequest = func(s *Server) {
			res := s.NewResponse(200, "")
			res.SetBody([]byte(strings.Repeat("x", 5000)))
			_ = s.Respond(res)
		}
		for range 2 {
			r.wire.send(r.text("OPTIONS", "z9hG4bK-1"))
			require.Equal(t, []string{"200"}, r.lines())
		}
		require.Equal(t, []string{"request OPTIONS"}, r.user.take())
		require.Equal(t, 1, r.layer.servers.len())
		require.Zero(t, r.layer.pastServers.len())
		time.Sleep(64 * t1)
		r.settle()
		require.Equal(t, Counts{}, r.layer.Running())
	})
}

// Many records end together, none before its time and none long after it.
func TestRecordsEndTogether(t *testing.T) {
	bubble(t, []string{"udp"}, func(t *testing.T, r *rig) {
		r.user.onRequest = func(s *Server) { _ = s.Respond(s.NewResponse(200, "")) }
		const n, apart = 100, 7 * time.Millisecond
		began := time.Now()
		for i := range n {
			r.wire.send(r.textOf(fmt.Sprint("call-", i), "OPTIONS", fmt.Sprint("z9hG4bK-", i)))
			time.Sleep(apart)
		}
		for r.layer.Running().Servers > 0 {
			at := time.Since(began) - 64*t1
			began := int(max(0, at)/apart) + 1 // so many have waited as long as they are to
			late := int(max(0, at-together) / apart)
			gone := n - r.layer.Running().Servers
			require.LessOrEqual(t, gone, began)
			require.GreaterOrEqual(t, gone, min(n, late))
			time.Sleep(apart)
			r.settle()
		}
	})
}

// A request that comes by several sockets at once is one request, whether its transaction
// is under way or a record by then; and whatever runs, Close leaves nothing.
func TestCopiesThatMeetATransactionWhichEndsAreNoNewRequests(t *testing.T) {
	for _, closes := range []bool{false, true} {
		t.Run(fmt.Sprint("closes ", closes), func(t *testing.T) {
			const requests, copies = 3000, 4
			network := dialogtest.NewNetwork()
			defer network.Close()
			below := transport.New(transport.Config{Network: network.Host(ourIP)})
			user := &counting{seen: make(map[string]int)}
			layer := New(Config{Transport: below, User: user})
			_, err := below.Listen(context.Background(), transport.ListenConfig{Transport: "udp", Address: ":5060"})
			require.NoError(t, err)
			flow, ok := below.Ready(sip.Uri{Scheme: "sip", Host: peerIP})
			require.True(t, ok)
			var running sync.WaitGroup
			for i := range requests {
				text := requestText("UDP 10.0.0.2:5060", fmt.Sprint("call-", i), "OPTIONS", fmt.Sprint("z9hG4bK-", i))
				for range copies {
					running.Go(func() {
						m, err := sipmsg.Parse([]byte(text))
						if err != nil {
							panic(err)
						}
						m.Arrived("UDP", netip.MustParseAddrPort("10.0.0.2:5060"))
						layer.receive(m, flow)
					})
				}
				if closes && i == requests/2 {
					running.Go(layer.Close)
				}
			}
			running.Wait()
			layer.queues.waitIdle(t.Context(), time.Minute)
			user.mu.Lock()
			for id, n := range user.seen {
				require.Equal(t, 1, n, id)
			}
			user.mu.Unlock()
			if !closes {
				require.Len(t, user.seen, requests)
				require.Equal(t, requests, layer.pastServers.len())
				require.Zero(t, layer.servers.len())
				require.Equal(t, uint64(0), layer.Stats().Merged)
			}
			layer.Close()
			require.Equal(t, Counts{}, layer.Running())
			require.Zero(t, layer.Held())
			require.Zero(t, layer.merging.len())
			require.NoError(t, below.Close())
		})
	}
}

// counting answers, and counts how often each request comes.
type counting struct {
	benchUser
	mu   sync.Mutex // guards the field below
	seen map[string]int
}

func (u *counting) Request(s *Server) {
	u.mu.Lock()
	u.seen[s.callID]++
	u.mu.Unlock()
	_ = s.Answer(200, "")
}

// A refusal at a limit leaves no transaction, and no record (RFC 3261 8.2.7).
func TestARefusalAtALimitLeavesNothing(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		r.user.onRequest = func(s *Server) { _ = s.Refuse() }
		for _, method := range []string{"OPTIONS", "INVITE"} {
			r.wire.send(r.text(method, "z9hG4bK-"+method))
			require.Contains(t, r.lines(), "503")
			require.Equal(t, Counts{}, r.layer.Running())
			require.Zero(t, r.layer.Held())
		}
	})
}

// The response that is repeated has bytes of its own: those it was written with serve other
// messages meanwhile.
func TestARepeatedResponseHasBytesOfItsOwn(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		r.wire.send(r.textOf("first", "INVITE", "z9hG4bK-1"))
		r.settle()
		s := r.user.lastServer()
		r.lines()
		require.NoError(t, s.Answer(486, ""))
		first := r.messages()
		for i := range 20 {
			r.wire.send(r.textOf(fmt.Sprint("other-", i), "INVITE", fmt.Sprint("z9hG4bK-other-", i)))
			r.settle()
			require.NoError(t, r.user.lastServer().Answer(404, ""))
		}
		r.messages()
		r.wire.send(r.textOf("first", "INVITE", "z9hG4bK-1"))
		again := r.messages()
		require.Len(t, again, 1)
		require.Equal(t, first[0].String(), again[0].String())
		require.NoError(t, s.Answer(486, ""))
		require.NoError(t, s.Repeat())
		for _, msg := range r.messages() {
			require.Equal(t, first[0].String(), msg.String())
		}
	})
}
