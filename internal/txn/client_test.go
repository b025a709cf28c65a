package txn

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/transport"
)

func TestARequestCarriesItsOwnVia(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		req := r.request(sip.OPTIONS)
		via := req.Via()
		require.Equal(t, strings.ToUpper(r.wire.via()[:3]), via.Transport)
		require.Equal(t, ourIP, via.Host)
		require.Equal(t, 5060, via.Port)
		branch, _ := via.Params.Get("branch")
		require.Regexp(t, "^z9hG4bK[0-9a-f]{24}$", branch)
		require.True(t, via.Params.Has("rport"))
		require.Equal(t, uint32(70), req.MaxForwards().Val())
		require.NotNil(t, req.ContentLength())
		require.Equal(t, sent(t, r.client).Via().Value(), via.Value())
		require.False(t, r.client.Provisional())
		r.answer(req, 100, "")
		r.settle()
		require.True(t, r.client.Provisional())
	})
}

func TestRequestsThatCannotBeAreRefused(t *testing.T) {
	bubble(t, []string{"udp"}, func(t *testing.T, r *rig) {
		opt := RequestOptions{NextHop: r.nextHop()}
		send := func(req *draft.Request) error {
			_, err := r.layer.Request(context.Background(), req, opt, r.user)
			return err
		}
		require.ErrorIs(t, send(nil), ErrNotAllowed)
		require.ErrorIs(t, send(draft.New(sip.BYE, &sip.Uri{})), ErrNotAllowed)
		require.ErrorIs(t, send(outgoingRequest(sip.ACK, "x", 1)), ErrNotAllowed)
		require.ErrorIs(t, send(outgoingRequest(sip.CANCEL, "x", 1)), ErrNotAllowed)
		mismatch := outgoingRequest(sip.BYE, "x", 1)
		mismatch.Method = sip.OPTIONS
		require.ErrorIs(t, send(mismatch), ErrNotAllowed)
		_, err := r.layer.SendAck(context.Background(), outgoingRequest(sip.BYE, "x", 1), opt)
		require.ErrorIs(t, err, ErrNotAllowed)

		opt.NextHop = sip.Uri{}
		require.ErrorIs(t, send(outgoingRequest(sip.BYE, "x", 1)), ErrTransport)
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		opt.NextHop = sip.Uri{Host: peerIP, UriParams: sip.HeaderParams{{K: "transport", V: "tcp"}}}
		_, err = r.layer.Request(ended, outgoingRequest(sip.BYE, "x", 1), opt, r.user)
		require.ErrorIs(t, err, context.Canceled)
		require.Empty(t, r.lines())
		require.Empty(t, r.user.take())
	})
}

// RFC 3261 17.1.1.3 and 9.1.
func TestAckAndCancelAreMadeOfTheInvite(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		invite := outgoingRequest(sip.INVITE, "call-1", 7)
		invite.AddRoute(&sip.Uri{Host: "proxy"})
		invite.Add("Require", "100rel")
		invite.Body = []byte("offer")
		c, err := r.layer.Request(context.Background(), invite, RequestOptions{NextHop: r.nextHop()}, r.user)
		require.NoError(t, err)
		r.settle()
		r.tcp.mu.Lock()
		r.tcp.got = strings.Replace(r.tcp.got, "Content-Length: 5", "Content-Length: 0", 1)
		r.tcp.mu.Unlock()
		sent := r.messages()[0].(*sip.Request)
		c.Cancel(sip.NewHeader("Reason", "SIP;cause=200"))
		c.Cancel(sip.NewHeader("Reason", "twice"))
		r.tcp.mu.Lock()
		r.tcp.got = "" // what is left of the body
		r.tcp.mu.Unlock()
		require.Empty(t, r.lines())
		r.answer(sent, 180, "far")
		cancel := r.messages()[0].(*sip.Request)
		require.Equal(t, sip.CANCEL, cancel.Method)
		require.Equal(t, "SIP;cause=200", cancel.GetHeader("Reason").Value())
		require.Equal(t, sent.To().Value(), cancel.To().Value())
		r.answer(cancel, 200, "far")
		r.answer(sent, 487, "far")
		ack := r.messages()[0].(*sip.Request)
		require.Equal(t, sip.ACK, ack.Method)
		to, _ := ack.To().Params.Get("tag")
		require.Equal(t, "far", to)
		for _, req := range []*sip.Request{cancel, ack} {
			require.Equal(t, sent.Recipient.String(), req.Recipient.String())
			require.Equal(t, sent.Via().Value(), req.Via().Value())
			require.Len(t, req.GetHeaders("Via"), 1)
			require.Equal(t, "<sip:proxy>", req.Route().Value())
			require.Equal(t, sent.From().Value(), req.From().Value())
			require.Equal(t, sent.CallID().Value(), req.CallID().Value())
			require.Equal(t, uint32(7), req.CSeq().SeqNo)
			require.Equal(t, req.Method, req.CSeq().MethodName)
			require.Empty(t, req.GetHeaders("Require"))
			require.Empty(t, req.Body())
		}
	})
}

// RFC 3261 17.1.1.2: seven datagrams, then Timer B.
func TestTotalLossTimesOutAfter64T1(t *testing.T) {
	bubble(t, []string{"udp"}, func(t *testing.T, r *rig) {
		start := time.Now()
		r.request(sip.INVITE)
		time.Sleep(64*t1 - 1)
		require.Len(t, r.lines(), 6)
		require.Empty(t, r.user.take())
		time.Sleep(time.Nanosecond)
		r.settle()
		require.Equal(t, []string{"done: timeout"}, r.user.take())
		require.Equal(t, 64*t1, time.Since(start))
		require.Equal(t, Counts{}, r.layer.Running())
	})
}

func TestTheLossOfAConnectionEndsARequestAtOnce(t *testing.T) {
	bubble(t, []string{"tcp"}, func(t *testing.T, r *rig) {
		start := time.Now()
		for range 3 {
			r.request(sip.INVITE)
		}
		r.net.Host(peerIP).BreakStreams()
		r.settle()
		require.Equal(t, []string{"done: transport", "done: transport", "done: transport"}, r.user.take())
		require.Zero(t, time.Since(start))
		require.Equal(t, Counts{}, r.layer.Running())
	})
}

func TestTimersAndTimeoutsAreValues(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		want time.Duration
	}{
		"T1":             {Config{Timers: Timers{T1: 100 * time.Millisecond}}, 6400 * time.Millisecond},
		"Config.Timeout": {Config{Timeout: 3 * time.Second}, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubbleWith(t, func(cfg *Config) { cfg.Timers, cfg.Timeout = c.cfg.Timers, c.cfg.Timeout }, func(t *testing.T, r *rig) {
				for _, method := range []sip.RequestMethod{sip.INVITE, sip.BYE} {
					_, err := r.layer.Request(context.Background(), outgoingRequest(method, "x", 1),
						RequestOptions{NextHop: r.nextHop()}, r.user)
					require.NoError(t, err)
					time.Sleep(c.want - 1)
					r.settle()
					require.Empty(t, r.user.take())
					time.Sleep(time.Nanosecond)
					r.settle()
					require.Equal(t, []string{"done: timeout"}, r.user.take())
				}
			})
		})
	}
}

// Rows D5 and D6: the 2xx of other forks and their repetitions must reach the user.
func TestEvery2xxReachesTheUserUntilTimerM(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		req := r.request(sip.INVITE)
		for _, tag := range []string{"a", "a", "b", "c", "b"} {
			r.answer(req, 200, tag)
		}
		time.Sleep(64*t1 - 1)
		r.answer(req, 200, "d")
		time.Sleep(time.Nanosecond)
		r.settle()
		r.answer(req, 200, "e")
		r.settle()
		require.Equal(t, []string{
			"response 200", "response 200", "response 200", "response 200", "response 200", "response 200", "done: <nil>",
		}, r.user.take())
		require.Equal(t, uint64(1), r.layer.Stats().Unmatched)
	})
}

func TestTheAckToA2xxIsSentAgainByteByByte(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		ack, err := r.layer.SendAck(context.Background(), outgoingRequest(sip.ACK, "call-1", 1), RequestOptions{NextHop: r.nextHop()})
		require.NoError(t, err)
		require.NoError(t, ack.Resend())
		got := r.messages()
		require.Len(t, got, 2)
		require.Equal(t, got[0].String(), got[1].String())
		require.Equal(t, Counts{}, r.layer.Running())

		r.net.BreakStreams()
		r.settle()
		require.NoError(t, ack.Resend())
		require.Equal(t, []string{"ACK"}, r.lines())
	})
}

// RFC 3261 18.1.1.
func TestARequestTooLongForUDPGoesByTCP(t *testing.T) {
	bubble(t, []string{"udp"}, func(t *testing.T, r *rig) {
		r.listenTCP()
		var prepared []string
		long := func(callID string) *Client {
			req := outgoingRequest(sip.MESSAGE, callID, 1)
			req.Body = []byte(strings.Repeat("x", 1300))
			c, err := r.layer.Request(context.Background(), req, RequestOptions{
				NextHop: r.nextHop(),
				Prepare: func(_ *draft.Request, local transport.Local) { prepared = append(prepared, local.Transport) },
			}, r.user)
			require.NoError(t, err)
			r.settle()
			return c
		}
		c := long("call-1")
		require.Equal(t, "TCP", c.Flow().Transport())
		require.Equal(t, "TCP", sent(t, c).Via().Transport)
		require.Equal(t, []string{"UDP", "TCP"}, prepared)
		require.Empty(t, r.lines())
		r.tcp.mu.Lock()
		require.Contains(t, r.tcp.got, "Via: SIP/2.0/TCP "+ourIP)
		r.tcp.got = ""
		r.tcp.mu.Unlock()
		r.net.BreakStreams()
		r.settle()
		require.Equal(t, []string{"done: transport"}, r.user.take())
	})
}

func TestARequestTooLongForUDPGoesByUDPWhereThereIsNoTCP(t *testing.T) {
	bubble(t, []string{"udp"}, func(t *testing.T, r *rig) {
		req := outgoingRequest(sip.MESSAGE, "call-1", 1)
		req.Body = []byte(strings.Repeat("x", 1300))
		c, err := r.layer.Request(context.Background(), req, RequestOptions{NextHop: r.nextHop()}, r.user)
		require.NoError(t, err)
		got := r.messages()
		require.Len(t, got, 1)
		require.Equal(t, "UDP", got[0].Via().Transport)
		require.Equal(t, sent(t, c).Via().Value(), got[0].Via().Value())
		r.answer(got[0].(*sip.Request), 200, "a")
		r.settle()
		require.Equal(t, []string{"response 200", "done: <nil>"}, r.user.take())
	})
}

func TestALostFlowIsReplacedByTheNextHop(t *testing.T) {
	bubble(t, []string{"tcp"}, func(t *testing.T, r *rig) {
		r.request(sip.OPTIONS)
		old := r.client.Flow()
		r.net.BreakStreams()
		r.settle()
		r.user.take()
		c, err := r.layer.Request(context.Background(), outgoingRequest(sip.BYE, "call-2", 1),
			RequestOptions{Flow: old, NextHop: r.nextHop()}, r.user)
		require.NoError(t, err)
		require.False(t, c.Flow().Same(old))
		require.Equal(t, []string{"BYE"}, r.lines())

		next, err := r.layer.Request(context.Background(), outgoingRequest(sip.BYE, "call-3", 1),
			RequestOptions{Flow: c.Flow(), NextHop: sip.Uri{Host: "10.9.9.9"}}, r.user)
		require.NoError(t, err)
		require.True(t, next.Flow().Same(c.Flow()))
	})
}

// RFC 3263 4.3: when one address fails the next is tried.
func TestTheNextAddressIsTriedWhenOneFails(t *testing.T) {
	bubble(t, []string{"tcp"}, func(t *testing.T, r *rig) {
		r.net.Host("10.0.0.3") // there, but without a listener
		below := transport.New(transport.Config{
			Network:  r.net.Host("10.0.0.4"),
			Resolver: names{netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr(peerIP)},
		})
		layer := New(Config{Transport: below, User: r.user})
		defer func() {
			layer.Close()
			require.NoError(t, below.Close())
		}()
		hop := sip.Uri{Host: "name.example", UriParams: sip.HeaderParams{{K: "transport", V: "tcp"}}}
		c, err := layer.Request(context.Background(), outgoingRequest(sip.BYE, "x", 1), RequestOptions{NextHop: hop}, r.user)
		require.NoError(t, err)
		require.Equal(t, peerIP, c.Flow().RemoteAddr().Addr().String())
		require.Equal(t, []string{"BYE"}, r.lines())
		require.Equal(t, Counts{Clients: 1}, layer.Running())
	})
}

func TestARequestThatCannotBeWrittenIsAnErrorAndNothingElse(t *testing.T) {
	bubble(t, []string{"udp"}, func(t *testing.T, r *rig) {
		r.net.Host(ourIP).Unreachable(true)
		_, err := r.layer.Request(context.Background(), outgoingRequest(sip.INVITE, "x", 1), RequestOptions{NextHop: r.nextHop()}, r.user)
		require.ErrorIs(t, err, ErrTransport)
		time.Sleep(time.Minute)
		require.Empty(t, r.user.take())
		require.Equal(t, Counts{}, r.layer.Running())
	})
}

func TestCloseTellsEachClientOnce(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		r.request(sip.INVITE)
		r.answer(r.request(sip.INVITE), 180, "a")
		r.answer(r.request(sip.INVITE), 200, "a")
		r.answer(r.request(sip.BYE), 200, "a")
		r.request(sip.OPTIONS)
		r.settle()
		r.user.take()
		r.layer.Close()
		r.layer.Close()
		require.ElementsMatch(t, []string{"done: closed", "done: closed", "done: <nil>", "done: closed"}, r.user.take())
		r.client.Cancel()
		time.Sleep(10 * time.Minute)
		r.settle()
		require.Empty(t, r.user.take())
		require.Empty(t, r.lines())
	})
}

// FT10: the peer may have read a request, and answered it, although its write fails
// in the end. What came of it counts, and the error does not.
func TestAResponseThatComesBeforeTheWriteFailsIsHeard(t *testing.T) {
	for _, method := range []sip.RequestMethod{sip.INVITE, sip.OPTIONS} {
		for _, code := range []int{180, 200, 486} {
			t.Run(fmt.Sprint(method, " ", code), func(t *testing.T) {
				bubble(t, []string{"udp"}, func(t *testing.T, r *rig) {
					r.writing = func(data string) {
						r.writing = nil
						msg, err := sip.ParseMessage([]byte(data))
						require.NoError(t, err)
						r.answer(msg.(*sip.Request), code, "peer")
						r.settle()
						r.net.Host(ourIP).Unreachable(true)
					}
					_, err := r.layer.Request(context.Background(), outgoingRequest(method, "x", 1), RequestOptions{NextHop: r.nextHop()}, r.user)
					require.NoError(t, err)
					r.settle()
					require.Contains(t, r.user.take(), fmt.Sprint("response ", code))
					r.net.Host(ourIP).Unreachable(false)
				})
			})
		}
	}
}
