package txn

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
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

// toTags are the tags in the To of the responses, without that of a 100.
func toTags(msgs []sip.Message) map[string]int {
	tags := map[string]int{}
	for _, msg := range msgs {
		if res := msg.(*sip.Response); res.StatusCode > 100 {
			tag, _ := res.To().Params.Get("tag")
			tags[tag]++
		}
	}
	return tags
}

// Row C6: 180, 487 and the 200 to CANCEL had different tags.
func TestOneToTagOnAllAnswersToAnInviteAndItsCancel(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		r.wire.send(r.text("INVITE", "z9hG4bK-1"))
		r.settle()
		s := r.user.lastServer()
		respondWith(180)(r, s)
		r.wire.send(r.text("CANCEL", "z9hG4bK-1"))
		r.settle()
		respondWith(487)(r, s)
		msgs := r.messages()
		require.Len(t, msgs, 4)
		require.Equal(t, "100", short(msgs[0]))
		require.False(t, msgs[0].To().Params.Has("tag"))
		require.Equal(t, map[string]int{s.ToTag(): 3}, toTags(msgs))
		require.NotEmpty(t, s.ToTag())
		require.Equal(t, []string{"request INVITE", "cancel"}, r.user.take())
	})
}

func TestTheToTagOfARequestIsKept(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		r.wire.send(strings.Replace(r.text("BYE", "z9hG4bK-1"), "To: <sip:us@10.0.0.1>", "To: <sip:us@10.0.0.1>;tag=mine", 1))
		r.settle()
		s := r.user.lastServer()
		require.Equal(t, "mine", s.ToTag())
		respondWith(200)(r, s)
		require.Equal(t, map[string]int{"mine": 1}, toTags(r.messages()))
	})
}

func TestResponsesCopyTheHeadersOfRFC3261(t *testing.T) {
	bubble(t, []string{"udp"}, func(t *testing.T, r *rig) {
		r.wire.send(r.text("INVITE", "z9hG4bK-1", "Via: SIP/2.0/UDP first;branch=z9hG4bK-0",
			"Record-Route: <sip:p2;lr>, <sip:p1;lr>", "Timestamp: 54"))
		trying := r.messages()[0].(*sip.Response)
		require.Equal(t, "54", trying.GetHeader("Timestamp").Value())
		require.Empty(t, trying.GetHeaders("Record-Route"))

		s := r.user.lastServer()
		for code, routes := range map[int]int{180: 2, 200: 2, 486: 0} {
			res := s.NewResponse(code, "")
			require.Len(t, res.GetHeaders("Record-Route"), routes)
			require.Len(t, res.GetHeaders("Via"), 2)
			require.Equal(t, s.Request().From().Value(), res.From().Value())
			require.Equal(t, s.Request().CSeq().Value(), res.CSeq().Value())
			require.Empty(t, res.GetHeaders("Timestamp"))
			require.Equal(t, reasonPhrase(code), res.Reason)
			res.From().Params.Add("tag", "changed")
			res.Via().Params.Add("branch", "changed")
		}
		tag, _ := s.Request().From().Params.Get("tag")
		require.Equal(t, "peer", tag)
		require.Equal(t, "Busy", s.NewResponse(486, "Busy").Reason)
	})
}

// Rows C6 and C7: a second final answer, or a 200 after the 487, was sent.
func TestADifferentFinalAnswerIsNeverWritten(t *testing.T) {
	network := dialogtest.NewNetwork()
	finals := finalsOnTheWire(network)
	user := &racing{}
	layer, peer, addr := orderRigOn(t, network, user)
	const rounds = 300
	for i := range rounds {
		id, branch := fmt.Sprint("call-", i), fmt.Sprint("z9hG4bK-", i)
		require.NoError(t, peer.Send(addr, requestText("UDP 10.0.0.2:5060", id, "INVITE", branch)))
		require.NoError(t, peer.Send(addr, requestText("UDP 10.0.0.2:5060", id, "CANCEL", branch)))
	}
	answered := 0
	for answered < 2*rounds { // the INVITE's and the CANCEL's final answers
		in, err := peer.Recv(t.Context())
		require.NoError(t, err)
		if res := in.Response(); res.StatusCode >= 200 {
			answered++
		}
	}
	layer.Close()
	user.running.Wait()
	for branch, seen := range finals() {
		require.Len(t, seen, 1, branch)
	}
}

// racing answers each INVITE from several goroutines at once.
type racing struct {
	answering
	running sync.WaitGroup
}

func (u *racing) Request(tx *Server) {
	for _, code := range []int{200, 486, 603, 200} {
		u.running.Add(1)
		go func() {
			defer u.running.Done()
			runtime.Gosched()
			_ = tx.Respond(tx.NewResponse(code, fmt.Sprint("from ", code)))
		}()
	}
}

func (u *racing) Cancel(tx *Server, _ *sipmsg.Message) { _ = tx.Respond(tx.NewResponse(487, "")) }

// finalsOnTheWire watches the different final answers to INVITEs, by branch.
func finalsOnTheWire(network *dialogtest.Network) func() map[string]map[string]bool {
	var mu sync.Mutex
	seen := map[string]map[string]bool{}
	network.Tap(func(p dialogtest.Packet) {
		msg, err := sip.NewParser().ParseSIP(p.Data)
		res, ok := msg.(*sip.Response)
		if err != nil || !ok || res.StatusCode < 200 || res.CSeq().MethodName != sip.INVITE {
			return
		}
		branch, _ := res.Via().Params.Get("branch")
		mu.Lock()
		defer mu.Unlock()
		if seen[branch] == nil {
			seen[branch] = map[string]bool{}
		}
		seen[branch][string(p.Data)] = true
	})
	return func() map[string]map[string]bool {
		mu.Lock()
		defer mu.Unlock()
		return seen
	}
}

func TestRespondSaysWhyItRefuses(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		r.wire.send(r.text("INVITE", "z9hG4bK-1"))
		r.settle()
		s := r.user.lastServer()
		require.ErrorIs(t, s.Respond(nil), ErrNotAllowed)
		require.ErrorIs(t, s.Respond(s.NewResponse(99, "")), ErrNotAllowed)
		require.ErrorIs(t, s.Respond(s.NewResponse(700, "")), ErrNotAllowed)
		require.Zero(t, s.Final())
		require.NoError(t, s.Respond(s.NewResponse(200, "")))
		require.Equal(t, 200, s.Final())
		require.ErrorIs(t, s.Respond(s.NewResponse(180, "")), ErrFinalSent)
		require.ErrorIs(t, s.Respond(s.NewResponse(200, "Other")), ErrFinalSent)
		require.NoError(t, s.Respond(s.NewResponse(200, "")))
		time.Sleep(64 * t1)
		r.settle()
		require.ErrorIs(t, s.Respond(s.NewResponse(200, "")), ErrEnded)
		require.ErrorIs(t, s.Respond(s.NewResponse(500, "")), ErrFinalSent)
		require.ErrorIs(t, s.Repeat(), ErrEnded)

		r.wire.send(r.text("BYE", "z9hG4bK-2"))
		r.settle()
		s = r.user.lastServer()
		require.ErrorIs(t, s.Repeat(), ErrEnded)
		require.ErrorIs(t, s.Respond(s.NewResponse(100, "")), ErrNotAllowed)
		require.ErrorIs(t, s.Respond(s.NewResponse(408, "")), ErrNotAllowed)
		time.Sleep(64 * t1)
		r.settle()
		require.ErrorIs(t, s.Respond(s.NewResponse(200, "")), ErrEnded)
	})
}

func TestACancelOfNothingGets481(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		r.wire.send(r.text("CANCEL", "z9hG4bK-1"))
		require.Equal(t, []string{"481"}, r.lines())
		require.Empty(t, r.user.take())
	})
}

func TestARetransmittedCancelGetsTheSameAnswer(t *testing.T) {
	bubble(t, []string{"udp"}, func(t *testing.T, r *rig) {
		r.wire.send(r.text("INVITE", "z9hG4bK-1"))
		r.wire.send(r.text("CANCEL", "z9hG4bK-1"))
		r.wire.send(r.text("CANCEL", "z9hG4bK-1"))
		require.Equal(t, []string{"100", "200", "200"}, r.lines())
		require.Equal(t, []string{"request INVITE", "cancel"}, r.user.take())
	})
}

// The sent-by is part of the identity: another client may use the same branch.
func TestACancelFromAnotherSentByDoesNotMatch(t *testing.T) {
	bubble(t, []string{"udp"}, func(t *testing.T, r *rig) {
		r.wire.send(r.text("INVITE", "z9hG4bK-1"))
		r.wire.send(strings.Replace(r.text("CANCEL", "z9hG4bK-1"), peerIP+":5060", "other:5060;rport", 1))
		require.Equal(t, []string{"100", "481"}, r.lines())
	})
}

// A CANCEL that comes while the user is about to answer is not reported when
// the answer wins.
func TestCancelIsNotReportedAfterAFinalAnswer(t *testing.T) {
	bubble(t, []string{"udp"}, func(t *testing.T, r *rig) {
		entered, release := make(chan struct{}), make(chan struct{})
		r.user.onRequest = func(tx *Server) {
			close(entered)
			<-release
			_ = tx.Respond(tx.NewResponse(200, ""))
		}
		r.wire.send(r.text("INVITE", "z9hG4bK-1"))
		<-entered
		r.wire.send(r.text("CANCEL", "z9hG4bK-1"))
		r.settle()
		close(release)
		require.Equal(t, []string{"100", "200", "200"}, r.lines())
		require.Equal(t, []string{"request INVITE"}, r.user.take())
	})
}

// RFC 3261 17.2.3: a client without the magic cookie has one identity for
// INVITE, ACK and CANCEL.
func TestClientsWithoutTheMagicCookieAreMatched(t *testing.T) {
	for _, branch := range []string{"1", "z9hG4bK", ""} {
		t.Run("branch "+branch, func(t *testing.T) {
			bubble(t, both, func(t *testing.T, r *rig) {
				r.wire.send(r.text("INVITE", branch))
				r.wire.send(r.text("INVITE", branch))
				require.Equal(t, []string{"100", "100"}, r.lines())
				s := r.user.lastServer()
				r.wire.send(r.text("CANCEL", branch))
				require.Equal(t, []string{"200"}, r.lines())
				respondWith(487)(r, s)
				ack := r.text("ACK", branch)
				r.wire.send(ack) // without our tag it acknowledges another response
				r.settle()
				require.Equal(t, "Completed", stateOf(r.layer.pastServers, &s.tx.transaction))
				r.wire.send(strings.Replace(ack, "To: <sip:us@10.0.0.1>", "To: <sip:us@10.0.0.1>;tag="+s.ToTag(), 1))
				r.settle()
				require.NotEqual(t, "Completed", stateOf(r.layer.pastServers, &s.tx.transaction))
				require.Equal(t, []string{"request INVITE", "cancel", "ack"}, r.user.take())
			})
		})
	}
}

// RFC 6026 6: in Accepted the ACK of such a client goes up.
func TestTheAckToA2xxWithoutTheMagicCookieGoesUp(t *testing.T) {
	bubble(t, []string{"udp"}, func(t *testing.T, r *rig) {
		r.wire.send(r.text("INVITE", "1"))
		r.settle()
		s := r.user.lastServer()
		respondWith(200)(r, s)
		r.wire.send(strings.Replace(r.text("ACK", "1"), "To: <sip:us@10.0.0.1>", "To: <sip:us@10.0.0.1>;tag="+s.ToTag(), 1))
		r.settle()
		require.Equal(t, []string{"request INVITE", "ack"}, r.user.take())
	})
}

func TestTheSameRequestByAnotherPathGets482(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		for _, method := range []string{"INVITE", "OPTIONS"} {
			r.wire.send(r.text(method, "z9hG4bK-1-"+method))
			r.wire.send(r.text(method, "z9hG4bK-2-"+method))
			got := r.lines()
			require.Equal(t, "482", got[len(got)-1])
			require.Equal(t, []string{"request " + method}, r.user.take())
		}
		require.Equal(t, uint64(2), r.layer.Stats().Merged)

		// Inside a dialog, and once the first is over, it is not a merged request.
		text := r.text("INVITE", "z9hG4bK-3")
		r.wire.send(strings.Replace(text, "To: <sip:us@10.0.0.1>", "To: <sip:us@10.0.0.1>;tag=x", 1))
		require.Empty(t, r.lines(), "the 100 is the user's to send")
		s := r.user.lastServer()
		s.Trying()
		respondWith(500)(r, s)
		require.Equal(t, []string{"100", "500"}, r.lines())
		time.Sleep(10 * time.Minute)
		r.settle()
		r.lines()
		require.Equal(t, Counts{Servers: 1}, r.layer.Running()) // the first INVITE rings
	})
}

func TestAFullQueueRefusesRequestsButNotTheEndOfACall(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		entered, release := make(chan struct{}), make(chan struct{})
		r.user.onRequest = func(tx *Server) {
			if tx.Request().Method == sip.SUBSCRIBE {
				close(entered)
				<-release
			}
		}
		r.wire.send(r.text("SUBSCRIBE", "z9hG4bK-held"))
		<-entered
		for i := range defaultQueueLen {
			r.wire.send(withCSeq(r.text("INFO", fmt.Sprint("z9hG4bK-", i)), i+2))
		}
		require.Empty(t, r.lines())
		for i, method := range []string{"INFO", "OPTIONS", "INVITE", "BYE", "PRACK", "CANCEL", "ACK"} {
			r.wire.send(withCSeq(r.text(method, "z9hG4bK-over-"+method), 100+i))
		}
		got := r.messages()
		var codes []string
		for _, msg := range got {
			codes = append(codes, short(msg))
			if short(msg) == "503" {
				require.NotNil(t, msg.(*sip.Response).GetHeader("Retry-After"))
			}
		}
		require.Equal(t, []string{"503", "503", "100", "503", "481"}, codes)
		require.Equal(t, uint64(3), r.layer.Stats().Refused)
		r.wire.send(r.textOf("call-2", "OPTIONS", "z9hG4bK-other")) // another call is not held up
		r.settle()
		require.Equal(t, []string{"request SUBSCRIBE", "request OPTIONS"}, r.user.take())
		close(release)
		r.settle()
		events := r.user.take()
		require.Len(t, events, defaultQueueLen+3)
		require.Equal(t, []string{"request BYE", "request PRACK", "ack"}, events[defaultQueueLen:])
	})
}

func withCSeq(text string, seq int) string {
	return strings.Replace(text, "CSeq: 1 ", fmt.Sprintf("CSeq: %d ", seq), 1)
}

// RFC 3261 18.2.2: the connection is gone, so the answer goes by a new one, to
// the sent-by port.
func TestAResponseAfterTheLossOfItsConnectionGoesByANewOne(t *testing.T) {
	bubble(t, []string{"tcp"}, func(t *testing.T, r *rig) {
		r.wire.send(r.text("INVITE", "z9hG4bK-1"))
		require.Equal(t, []string{"100"}, r.lines())
		r.net.BreakStreams()
		r.settle()
		s := r.user.lastServer()
		require.NoError(t, s.Respond(s.NewResponse(180, "")))
		require.NoError(t, s.Respond(s.NewResponse(200, "")))
		lines := r.lines()
		require.Equal(t, "200", lines[len(lines)-1])
		require.NoError(t, s.Repeat())
		require.Equal(t, []string{"200"}, r.lines())
		require.Equal(t, []string{"request INVITE"}, r.user.take())
	})
}

func TestTheUserIsToldWhenThereIsNoNewConnection(t *testing.T) {
	bubble(t, []string{"tcp"}, func(t *testing.T, r *rig) {
		r.wire.send(r.text("INVITE", "z9hG4bK-1"))
		r.settle()
		r.net.BreakStreams()
		r.net.Host(peerIP).Unreachable(true)
		r.settle()
		s := r.user.lastServer()
		require.NoError(t, s.Respond(s.NewResponse(200, "")))
		r.settle()
		require.Equal(t, []string{"request INVITE", "failed: transport"}, r.user.take())
		require.Equal(t, "Accepted", stateOf(r.layer.pastServers, &s.tx.transaction)) // RFC 6026 7.1
	})
}

func TestAResponseThatCannotBeWrittenOnUDPIsAnError(t *testing.T) {
	bubble(t, []string{"udp"}, func(t *testing.T, r *rig) {
		r.wire.send(r.text("INVITE", "z9hG4bK-1"))
		r.settle()
		s := r.user.lastServer()
		r.net.Host(ourIP).Unreachable(true)
		require.ErrorIs(t, s.Respond(s.NewResponse(486, "")), ErrTransport)
		require.Equal(t, "Completed", stateOf(r.layer.pastServers, &s.tx.transaction)) // RFC 6026 7.1
		r.net.Host(ourIP).Unreachable(false)
		r.lines()
		time.Sleep(t1)
		r.settle()
		require.Equal(t, []string{"486"}, r.lines()) // Timer G
	})
}

// Row A12: a panic in a callback killed the process.
func TestPanicsAndGoexitOfTheUserAreSurvived(t *testing.T) {
	for name, fail := range map[string]func(){"panic": func() { panic("user") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, "udp")
				r.user.onRequest = func(*Server) { fail() }
				for i := range 3 {
					r.wire.send(withCSeq(r.text("INFO", fmt.Sprint("z9hG4bK-", i)), i+1))
				}
				r.settle()
				require.Equal(t, []string{"request INFO", "request INFO", "request INFO"}, r.user.take())
			})
		})
	}
}

func TestPrematureCloseLeavesNothing(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		r.wire.send(r.text("INVITE", "z9hG4bK-1"))
		r.wire.send(r.text("BYE", "z9hG4bK-2"))
		r.settle()
		s := r.user.lastServer()
		r.lines()
		r.layer.Close()
		require.ErrorIs(t, s.Respond(s.NewResponse(200, "")), ErrEnded)
		r.wire.send(r.text("OPTIONS", "z9hG4bK-3"))
		require.Empty(t, r.lines())
		_, err := r.layer.Request(context.Background(), outgoingRequest(sip.BYE, "x", 1), RequestOptions{NextHop: r.nextHop()}, r.user)
		require.ErrorIs(t, err, ErrClosed)
		r.user.take()
		time.Sleep(10 * time.Minute)
		r.settle()
		require.Empty(t, r.user.take())
	})
}

// FT11: of several responses that are lost with one connection the latest goes by the
// new one, of which there is one; should that fail, the user hears of it once.
func TestResponsesThatAreLostWithOneConnectionGoByOneNewOne(t *testing.T) {
	for _, reachable := range []bool{true, false} {
		bubble(t, []string{"tcp"}, func(t *testing.T, r *rig) {
			r.wire.send(r.text("INVITE", "z9hG4bK-1"))
			require.Equal(t, []string{"100"}, r.lines())
			r.net.BreakStreams()
			r.settle()
			r.dials.gate = make(chan struct{})
			s := r.user.lastServer()
			for _, code := range []int{180, 183, 200} {
				require.NoError(t, s.Respond(s.NewResponse(code, "")))
				r.settle()
			}
			require.EqualValues(t, 1, r.dials.begun.Load())
			var written []string
			r.writing = func(data string) { written = append(written, data) }
			r.net.Host(peerIP).Unreachable(!reachable)
			close(r.dials.gate)
			r.settle()
			if reachable {
				require.Equal(t, []string{"200"}, r.lines())
				require.Len(t, written, 1)
				require.Equal(t, []string{"request INVITE"}, r.user.take())
			} else {
				require.Equal(t, []string{"request INVITE", "failed: transport"}, r.user.take())
			}
			require.EqualValues(t, 1, r.dials.begun.Load())
			r.net.Host(peerIP).Unreachable(false)
		})
	}
}

// A redial that crosses ReplyBy leaves the newer flow alone, and its end says nothing of
// whom that reaches.
func TestARedialThatCrossesANewerFlowSendsByThat(t *testing.T) {
	for _, reachable := range []bool{true, false} {
		bubble(t, []string{"tcp"}, func(t *testing.T, r *rig) {
			r.wire.send(r.text("INVITE", "z9hG4bK-1"))
			require.Equal(t, []string{"100"}, r.lines())
			r.net.BreakStreams()
			r.settle()
			r.dials.gate = make(chan struct{})
			s := r.user.lastServer()
			require.NoError(t, s.Respond(s.NewResponse(180, "")))
			r.settle()
			conn, err := r.net.Host("10.0.0.3").DialContext(context.Background(), "tcp", ourIP+":5060")
			require.NoError(t, err)
			moved := &tcpWire{t: t}
			moved.use(conn)
			r.settle()
			flow, err := r.transport.Connect(context.Background(), transport.Target{Transport: "TCP", Addr: conn.LocalAddr().(*net.TCPAddr).AddrPort()})
			require.NoError(t, err)
			s.ReplyBy(flow)
			r.net.Host(peerIP).Unreachable(!reachable)
			close(r.dials.gate)
			r.settle()
			require.NoError(t, s.Respond(s.NewResponse(200, "")))
			r.settle()
			got := moved.drain()
			require.Len(t, got, 2)
			require.Equal(t, []string{"180", "200"}, []string{short(got[0]), short(got[1])})
			require.Empty(t, r.lines())
			require.Equal(t, []string{"request INVITE"}, r.user.take())
			r.net.Host(peerIP).Unreachable(false)
		})
	}
}
