package txn

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/sipmsg"
)

// held has the layer above stay in the first response with that status, until
// release is called.
func (r *rig) held(code int) (release func()) {
	entered, goOn, once := make(chan struct{}), make(chan struct{}), false
	r.user.onResponse = func(_ *Client, res *sipmsg.Message) {
		if res.Status == code && !once {
			once = true
			close(entered)
			<-goOn
		}
	}
	return func() {
		<-entered
		close(goOn)
		r.settle()
	}
}

// FX3: of the repetitions of a 2xx that come faster than they are handled some wait
// for each To tag, and none is lost that comes after.
func Test2xxThatWaitStandForTheirRepetitions(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		req := r.request(sip.INVITE)
		release := r.held(200)
		r.answer(req, 200, "a")
		r.settle()
		for range 1000 {
			for _, tag := range []string{"a", "b"} {
				r.answer(req, 200, tag)
			}
		}
		r.settle()
		release()
		require.Len(t, r.user.take(), 1+2*maxRepeats)
		require.Equal(t, uint64(2000-2*maxRepeats), r.layer.Stats().Responses)
		r.answer(req, 200, "a")
		r.settle()
		require.Equal(t, []string{"response 200"}, r.user.take())
	})
}

// FX3: neither provisional responses nor the 2xx of ever new forks wait without
// bound; the final response is never dropped.
func TestResponsesThatWaitAreBounded(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		req := r.request(sip.INVITE)
		release := r.held(180)
		for i := range 1000 {
			r.answer(req, 180, fmt.Sprint("t", i))
		}
		r.answer(req, 200, "a")
		for i := range 1000 {
			r.answer(req, 200, fmt.Sprint("f", i))
		}
		r.settle()
		release()
		events := r.user.take()
		require.Len(t, events, 1+defaultQueueLen+1)
		require.Equal(t, "response 200", events[len(events)-1])
		require.Equal(t, uint64(1000-1-defaultQueueLen+1000), r.layer.Stats().Responses)
	})
}

// FX3: however often a 2xx is repeated whose ACK has lost its connection, one new
// connection at a time is set up for it, also where the peer's own has been lost (FN5).
func TestAnAckThatLostItsConnectionDialsOnceAtATime(t *testing.T) {
	for _, resend := range []func(a *Ack) error{(*Ack).Resend, func(a *Ack) error { return a.ResendBy(a.flow) }} {
		bubble(t, []string{"tcp"}, func(t *testing.T, r *rig) {
			ack, err := r.layer.SendAck(context.Background(), outgoingRequest(sip.ACK, "call-1", 1), RequestOptions{NextHop: r.nextHop()})
			require.NoError(t, err)
			require.Equal(t, []string{"ACK"}, r.lines())
			r.net.BreakStreams()
			r.settle()
			r.net.SetStreamPolicy(func(dialogtest.Packet) time.Duration { return time.Second }) // so long it takes to connect
			for range 1000 {
				require.NoError(t, resend(ack))
				require.Equal(t, 1, r.layer.Running().Tasks)
			}
			time.Sleep(time.Minute)
			require.NotEmpty(t, r.lines())
		})
	}
}

// FX3: what must not wait sends an ACK by what is there, or not at all.
func TestAnAckThatMustNotWaitUsesAnOpenConnection(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		opt := RequestOptions{NextHop: r.nextHop(), NoWait: true}
		_, err := r.layer.SendAck(context.Background(), outgoingRequest(sip.ACK, "call-1", 1), opt)
		if r.wire == wire(r.tcp) {
			require.ErrorIs(t, err, ErrWouldWait, "nothing leads to the port that the peer listens on")
			r.request(sip.OPTIONS)
			_, err = r.layer.SendAck(context.Background(), outgoingRequest(sip.ACK, "call-1", 1), opt)
		}
		require.NoError(t, err)
		require.Equal(t, []string{"ACK"}, r.lines())
		opt.NextHop = sip.Uri{Scheme: "sip", Host: "example.test"}
		_, err = r.layer.SendAck(context.Background(), outgoingRequest(sip.ACK, "call-1", 1), opt)
		require.ErrorIs(t, err, ErrWouldWait)
		require.Empty(t, r.lines())
	})
}

// An ACK by a connection of ours that alone leads to its peer goes by another one to the
// same place once that is lost.
func TestAnAckThatLostItsConnectionOpensItAgain(t *testing.T) {
	bubble(t, []string{"tcp"}, func(t *testing.T, r *rig) {
		first, err := r.layer.SendAck(context.Background(), outgoingRequest(sip.ACK, "call-1", 1), RequestOptions{NextHop: r.nextHop()})
		require.NoError(t, err)
		nowhere := sip.Uri{Scheme: "sip", Host: "x.invalid"}
		ack, err := r.layer.SendAck(context.Background(), outgoingRequest(sip.ACK, "call-1", 1), RequestOptions{
			Flow: first.flow, NextHop: nowhere, FlowOnly: true, Reopen: true,
		})
		require.NoError(t, err)
		require.Equal(t, []string{"ACK", "ACK"}, r.lines())
		r.net.BreakStreams()
		r.settle()
		require.NoError(t, ack.Resend())
		require.Equal(t, []string{"ACK"}, r.lines())
	})
}
