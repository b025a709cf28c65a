package txn

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
)

// farm is a rig with several peers behind one name: the first n of peers listen.
type farm struct {
	*rig
	wires []wire
}

func newFarm(t testing.TB, network string, n int, configure ...func(*Config)) *farm {
	f := &farm{rig: newRig(t, network, configure...)}
	f.wires = append(f.wires, f.wire)
	for _, ip := range peers[1:n] {
		if network == "udp" {
			f.wires = append(f.wires, f.listenUDP(ip.String()))
			continue
		}
		w := &tcpWire{t: t}
		f.listenOn(ip.String(), w)
		f.wires = append(f.wires, w)
	}
	return f
}

// name is the URI that leads to all peers.
func (f *farm) name() sip.Uri {
	uri := f.nextHop()
	uri.Host = "farm.example"
	return uri
}

// start sends a request by way of the name, which reaches the first peer.
func (f *farm) start(method sip.RequestMethod, opt RequestOptions) *sip.Request {
	if opt.NextHop.Host == "" {
		opt.NextHop = f.name()
	}
	c, err := f.layer.Request(context.Background(), outgoingRequest(method, "call-1", 7), opt, f.user)
	require.NoError(f.t, err)
	f.client = c
	return f.got(0)
}

// got is the one message that has come to a peer.
func (f *farm) got(peer int) *sip.Request {
	f.settle()
	all := f.wires[peer].drain()
	require.Len(f.t, all, 1)
	return all[0].(*sip.Request)
}

func (f *farm) nothing(peer int) {
	f.settle()
	require.Empty(f.t, f.wires[peer].drain())
}

func (f *farm) told(events ...string) {
	f.settle()
	require.Equal(f.t, events, f.user.take())
}

func bubbleFarm(t *testing.T, networks []string, n int, run func(t *testing.T, f *farm), configure ...func(*Config)) {
	t.Helper()
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { run(t, newFarm(t, network, n, configure...)) })
		})
	}
}

func branchOf(req *sip.Request) string {
	branch, _ := req.Via().Params.Get("branch")
	return branch
}

// RFC 3263 4.3: the same request with another branch.
func TestA503MovesARequestToTheNextTarget(t *testing.T) {
	for _, method := range []sip.RequestMethod{sip.INVITE, sip.BYE} {
		t.Run(string(method), func(t *testing.T) {
			bubbleFarm(t, both, 2, func(t *testing.T, f *farm) {
				prepared := 0
				first := f.start(method, RequestOptions{Prepare: func(*draft.Request, transport.Local) { prepared++ }})
				one, before := sent(t, f.client), f.client.Flow()
				answerOn(f.wires[0], first, 503, "a")
				second := f.got(1)
				require.Equal(t, method, second.Method)
				require.NotEqual(t, branchOf(first), branchOf(second))
				require.Len(t, second.GetHeaders("Via"), 1)
				require.Equal(t, first.CSeq().Value(), second.CSeq().Value())
				require.Equal(t, first.CallID().Value(), second.CallID().Value())
				require.Equal(t, first.From().Value(), second.From().Value())
				require.Equal(t, first.To().Value(), second.To().Value())
				require.Equal(t, 2, prepared)
				require.Equal(t, branchOf(first), branchOf(one), "the request that was sent is left alone")
				require.Equal(t, branchOf(second), branchOf(sent(t, f.client)))
				require.False(t, f.client.Flow().Same(before))
				require.Equal(t, peers[1], f.client.Flow().RemoteAddr().Addr())
				f.told()

				if method == sip.INVITE {
					require.Equal(t, sip.ACK, f.got(0).Method)
				}
				if method == sip.INVITE && f.wire == wire(f.udp) { // Timer D runs on
					answerOn(f.wires[0], first, 503, "a")
					require.Equal(t, branchOf(first), branchOf(f.got(0)))
				}
				answerOn(f.wires[0], first, 200, "a")
				answerOn(f.wires[1], second, 200, "b")
				f.settle()
				time.Sleep(64 * t1)
				f.told("response 200", "done: <nil>")
				require.Equal(t, peers[1], f.client.Flow().RemoteAddr().Addr())
				require.Equal(t, Counts{}, f.layer.Running())
			})
		})
	}
}

func TestTheLast503IsTheAnswer(t *testing.T) {
	bubbleFarm(t, both, 3, func(t *testing.T, f *farm) {
		answerOn(f.wires[0], f.start(sip.OPTIONS, RequestOptions{}), 503, "a")
		answerOn(f.wires[1], f.got(1), 503, "b")
		f.told()
		answerOn(f.wires[2], f.got(2), 503, "c")
		f.told("response 503", "done: <nil>")
		f.nothing(0)
	})
}

func TestARequestThatIsNotAnsweredAtAllMovesOn(t *testing.T) {
	for _, method := range []sip.RequestMethod{sip.INVITE, sip.BYE} {
		t.Run(string(method), func(t *testing.T) {
			bubbleFarm(t, both, 3, func(t *testing.T, f *farm) {
				f.start(method, RequestOptions{})
				for peer := 1; peer < 3; peer++ {
					time.Sleep(64*t1 - 1)
					f.settle()
					f.wires[peer-1].drain()
					f.nothing(peer)
					time.Sleep(time.Nanosecond)
					f.got(peer)
					f.told()
				}
				time.Sleep(64 * t1)
				f.told("done: timeout")
				require.Equal(t, Counts{}, f.layer.Running())
			})
		})
	}
}

// RFC 3263 4.3: without ever having received any response.
func TestATimeoutAfterAProvisionalResponseIsTheEnd(t *testing.T) {
	bubbleFarm(t, both, 2, func(t *testing.T, f *farm) {
		answerOn(f.wires[0], f.start(sip.BYE, RequestOptions{}), 100, "")
		time.Sleep(64 * t1)
		f.told("response 100", "done: timeout")
		f.nothing(1)
	})
}

func TestAnInviteThatRangMovesOnAfter503(t *testing.T) {
	bubbleFarm(t, both, 2, func(t *testing.T, f *farm) {
		first := f.start(sip.INVITE, RequestOptions{})
		answerOn(f.wires[0], first, 180, "a")
		f.told("response 180")
		require.True(t, f.client.Provisional())
		answerOn(f.wires[0], first, 503, "a")
		second := f.got(1)
		require.False(t, f.client.Provisional())
		answerOn(f.wires[1], second, 486, "b")
		f.told("response 486", "done: <nil>")
		require.Equal(t, sip.ACK, f.got(1).Method)
	})
}

func TestTheLossOfAConnectionMovesARequestOn(t *testing.T) {
	bubbleFarm(t, []string{"tcp"}, 2, func(t *testing.T, f *farm) {
		start := time.Now()
		f.start(sip.INVITE, RequestOptions{})
		f.net.Host(peerIP).BreakStreams()
		answerOn(f.wires[1], f.got(1), 200, "b")
		f.told("response 200")
		require.Zero(t, time.Since(start))
	})
}

// A peer that rings is not left ringing for another one.
func TestTheLossOfAConnectionAfterAProvisionalEndsARequest(t *testing.T) {
	bubbleFarm(t, []string{"tcp"}, 2, func(t *testing.T, f *farm) {
		answerOn(f.wires[0], f.start(sip.INVITE, RequestOptions{}), 180, "a")
		f.told("response 180")
		f.net.Host(peerIP).BreakStreams()
		f.told("done: transport")
	})
}

func TestTargetsThatRefuseConnectionsArePassedOver(t *testing.T) {
	bubbleFarm(t, []string{"tcp"}, 1, func(t *testing.T, f *farm) {
		f.net.Host(peers[1].String()) // there, but without a listener
		third := &tcpWire{t: t}
		f.listenOn(peers[2].String(), third)
		answerOn(f.wires[0], f.start(sip.BYE, RequestOptions{}), 503, "a")
		f.settle()
		got := third.drain()
		require.Len(t, got, 1)
		answerOn(third, got[0].(*sip.Request), 200, "c")
		f.told("response 200", "done: <nil>")
	})
}

func TestWhenAllRefuseTheLastRefusalIsToldOf(t *testing.T) {
	bubbleFarm(t, []string{"tcp"}, 1, func(t *testing.T, f *farm) {
		f.net.Host(peers[1].String())
		f.net.Host(peers[2].String())
		answerOn(f.wires[0], f.start(sip.BYE, RequestOptions{}), 503, "a")
		f.told("done: transport")
	})
}

// RFC 3263 4.3: fatal ICMP errors in UDP.
func TestARepetitionThatCannotBeWrittenMovesARequestOn(t *testing.T) {
	bubbleFarm(t, []string{"udp"}, 2, func(t *testing.T, f *farm) {
		f.start(sip.INVITE, RequestOptions{})
		before := f.client.Flow()
		f.net.Host(ourIP).Unreachable(true)
		time.Sleep(t1)
		f.told("done: transport") // the others cannot be written to either
		require.False(t, f.client.Flow().Same(before))
		require.Equal(t, Counts{}, f.layer.Running())
	})
}

func TestTheNextTargetIsSoughtNoLongerThanTheTimeout(t *testing.T) {
	bubbleFarm(t, []string{"tcp"}, 1, func(t *testing.T, f *farm) {
		// No host has the other addresses: dials hang.
		answerOn(f.wires[0], f.start(sip.BYE, RequestOptions{}), 503, "a")
		f.settle()
		require.Equal(t, 1, f.layer.Running().Tasks)
		time.Sleep(3*time.Second - 1)
		f.told()
		time.Sleep(time.Nanosecond)
		f.told("done: transport")
		require.Equal(t, Counts{}, f.layer.Running())
	}, func(c *Config) { c.Timeout = 3 * time.Second })
}

func TestALostPreferredFlowIsReplacedByANewConnection(t *testing.T) {
	bubbleFarm(t, []string{"tcp"}, 1, func(t *testing.T, f *farm) {
		f.start(sip.OPTIONS, RequestOptions{NextHop: f.nextHop()})
		flow := f.client.Flow()
		f.start(sip.BYE, RequestOptions{Flow: flow, NextHop: f.nextHop()})
		f.net.BreakStreams()
		require.Equal(t, sip.BYE, f.got(0).Method)
		f.told("done: transport") // OPTIONS had nowhere else to go
		require.False(t, f.client.Flow().Same(flow))
		require.Equal(t, flow.RemoteAddr(), f.client.Flow().RemoteAddr())
		f.net.BreakStreams() // once is enough
		f.told("done: transport")
	})
}

// A peer that has begun to answer has the request: to send it the same CSeq once
// more would be a second request, that it has to refuse (RFC 3261 12.2.2).
func TestALostFlowIsNotReplacedOnceThePeerHasBegunToAnswer(t *testing.T) {
	bubbleFarm(t, []string{"tcp"}, 1, func(t *testing.T, f *farm) {
		f.start(sip.OPTIONS, RequestOptions{NextHop: f.nextHop()})
		opt := RequestOptions{Flow: f.client.Flow(), NextHop: f.nextHop()}
		answerOn(f.wires[0], f.start(sip.INVITE, opt), 100, "")
		f.told("response 100")
		f.net.BreakStreams()
		f.told("done: transport", "done: transport") // the OPTIONS, and the INVITE
		f.nothing(0)
	})
}

func TestAPreferredFlowThatFailsGivesWayToTheNextHop(t *testing.T) {
	bubbleFarm(t, both, 2, func(t *testing.T, f *farm) {
		f.start(sip.OPTIONS, RequestOptions{})
		flow := f.client.Flow()
		next := f.nextHop()
		next.Host = peers[1].String()
		answerOn(f.wires[0], f.start(sip.BYE, RequestOptions{Flow: flow, NextHop: next}), 503, "a")
		answerOn(f.wires[1], f.got(1), 200, "b")
		f.told("response 200", "done: <nil>")
	})
}

// The peer that has answered, or has kept silent, is not asked again.
func TestAPreferredFlowIsNotTriedTwice(t *testing.T) {
	bubbleFarm(t, both, 1, func(t *testing.T, f *farm) {
		answerOn(f.wires[0], f.start(sip.OPTIONS, RequestOptions{}), 200, "o")
		f.told("response 200", "done: <nil>")
		opt := RequestOptions{Flow: f.client.Flow(), NextHop: f.nextHop()}
		answerOn(f.wires[0], f.start(sip.BYE, opt), 503, "a")
		f.told("response 503", "done: <nil>")
		f.start(sip.BYE, opt)
		time.Sleep(64 * t1)
		f.told("done: timeout")
	})
}

func TestA503IsTheAnswerWhenTheNextHopCannotBeResolved(t *testing.T) {
	bubbleFarm(t, both, 1, func(t *testing.T, f *farm) {
		f.start(sip.OPTIONS, RequestOptions{})
		opt := RequestOptions{Flow: f.client.Flow(), NextHop: sip.Uri{Scheme: "tel", Host: "1"}}
		answerOn(f.wires[0], f.start(sip.BYE, opt), 503, "a")
		f.told("response 503", "done: <nil>")
		require.Nil(t, f.client.Sent())
	})
}

func TestACancelledInviteIsNotMovedOn(t *testing.T) {
	bubbleFarm(t, both, 2, func(t *testing.T, f *farm) {
		first := f.start(sip.INVITE, RequestOptions{})
		f.client.Cancel()
		answerOn(f.wires[0], first, 503, "a")
		f.told("response 503", "done: <nil>")
		f.nothing(1)

		f.wires[0].drain()
		f.start(sip.INVITE, RequestOptions{})
		f.client.Cancel()
		time.Sleep(64 * t1)
		f.told("done: timeout")
		f.nothing(1)
	})
}

func TestCancelEndsTheSearchForTheNextTarget(t *testing.T) {
	bubbleFarm(t, []string{"tcp"}, 1, func(t *testing.T, f *farm) {
		start := time.Now()
		answerOn(f.wires[0], f.start(sip.INVITE, RequestOptions{}), 503, "a")
		f.settle()
		f.told()
		f.client.Cancel()
		f.client.Cancel()
		f.told("response 503", "done: <nil>")
		require.Zero(t, time.Since(start))
		require.Equal(t, Counts{}, f.layer.Running())
	})
}

func TestCancelWhileTheNextAttemptIsPrepared(t *testing.T) {
	bubbleFarm(t, both, 2, func(t *testing.T, f *farm) {
		times := 0
		first := f.start(sip.INVITE, RequestOptions{Prepare: func(*draft.Request, transport.Local) {
			if times++; times > 1 {
				f.client.Cancel()
			}
		}})
		answerOn(f.wires[0], first, 503, "a")
		f.told("response 503", "done: <nil>")
		f.nothing(1)
		require.Equal(t, 2, times)
	})
}

func TestCancelGoesToTheTargetInProgress(t *testing.T) {
	bubbleFarm(t, both, 2, func(t *testing.T, f *farm) {
		answerOn(f.wires[0], f.start(sip.INVITE, RequestOptions{}), 503, "a")
		second := f.got(1)
		f.wires[0].drain()
		f.client.Cancel(sip.NewHeader("Reason", "SIP;cause=200"))
		f.nothing(1)
		answerOn(f.wires[1], second, 180, "b")
		cancel := f.got(1)
		require.Equal(t, sip.CANCEL, cancel.Method)
		require.Equal(t, branchOf(second), branchOf(cancel))
		require.NotNil(t, cancel.GetHeader("Reason"))
		f.nothing(0)
		answerOn(f.wires[1], second, 487, "b")
		f.told("response 180", "response 487", "done: <nil>")
	})
}

func TestCloseEndsTheSearchForTheNextTarget(t *testing.T) {
	bubbleFarm(t, []string{"tcp"}, 1, func(t *testing.T, f *farm) {
		answerOn(f.wires[0], f.start(sip.INVITE, RequestOptions{}), 503, "a")
		f.settle()
		f.layer.Close()
		f.told("done: closed")
	})
}

// The user is blocked while the responses arrive.
func TestResponsesOfSeveralTargetsAreDeliveredInOrder(t *testing.T) {
	bubbleFarm(t, both, 2, func(t *testing.T, f *farm) {
		release := make(chan struct{})
		f.user.onResponse = func(*Client, *sipmsg.Message) { <-release }
		first := f.start(sip.INVITE, RequestOptions{})
		answerOn(f.wires[0], first, 180, "a")
		f.settle()
		answerOn(f.wires[0], first, 503, "a")
		second := f.got(1)
		answerOn(f.wires[1], second, 183, "b")
		f.settle()
		answerOn(f.wires[1], second, 486, "b")
		f.told("response 180")
		close(release)
		f.told("response 183", "response 486", "done: <nil>")
	})
}

func TestAPanicOfPrepareEndsTheRequest(t *testing.T) {
	bubbleFarm(t, both, 2, func(t *testing.T, f *farm) {
		times := 0
		answerOn(f.wires[0], f.start(sip.BYE, RequestOptions{Prepare: func(*draft.Request, transport.Local) {
			if times++; times > 1 {
				panic("as a test")
			}
		}}), 503, "a")
		f.told("response 503", "done: <nil>")
		require.EqualValues(t, 1, f.layer.Stats().Panics)
	})
}

// RFC 3261 18.1.1 holds for each target.
func TestALongRequestMovesOnFromItsStream(t *testing.T) {
	bubbleFarm(t, []string{"udp"}, 2, func(t *testing.T, f *farm) {
		f.listenTCP()
		req := outgoingRequest(sip.MESSAGE, "call-1", 1)
		req.Body = []byte(strings.Repeat("x", 1300))
		c, err := f.layer.Request(context.Background(), req, RequestOptions{NextHop: f.name()}, f.user)
		require.NoError(t, err)
		f.settle()
		require.Equal(t, "TCP", c.Flow().Transport())
		f.net.BreakStreams()
		second := f.got(1)
		require.Equal(t, "UDP", second.Via().Transport)
		require.Len(t, second.Body(), 1300)
		answerOn(f.wires[1], second, 200, "b")
		f.told("response 200", "done: <nil>")
	})
}
