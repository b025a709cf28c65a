package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/bridge"
	"sipdialog.example/dialog/dialogtest"
)

// threeStacks is a bridge between two stacks.
type threeStacks struct {
	w                      *world
	caller, bridge, callee *dialog.Stack
	in, out                *dialog.Dialog // as the caller and the callee have them
}

// throughBridge makes a call from one stack by a bridge to another.
func (w *world) throughBridge(o bridge.Options, change ...func(*dialog.StackConfig)) *threeStacks {
	w.t.Helper()
	s := &threeStacks{w: w, caller: w.stack(peerIP, change...), callee: w.stack(otherIP, change...)}
	s.bridge = w.stack(stackIP, append(change, func(c *dialog.StackConfig) { c.NoAutoRinging = true })...)
	join := bridge.New(s.bridge, o)
	s.bridge.OnIncomingDialog(func(d dialog.IDialog) {
		if _, err := join.Join(context.Background(), d.(*dialog.Dialog), uri("bob", otherIP), dialog.InviteOpts{}); err != nil {
			w.t.Errorf("join: %v", err)
		}
	})
	taken := waiting(s.callee)
	d, err := s.caller.NewInvite(context.Background(), uri("bob", stackIP), offer(offerSDP))
	require.NoError(w.t, err)
	s.in, s.out = d.(*dialog.Dialog), <-taken
	require.NoError(w.t, s.out.Accept(context.Background(), withSDP(answerSDP)))
	require.NoError(w.t, s.in.WaitAnswer(context.Background()))
	synctest.Wait()
	return s
}

// Re-INVITEs of both sides at once: each is 491 somewhere, is tried again after the delays
// of RFC 3261 14.1, and gets through.
func TestBridgeResolvesGlareOfBothSides(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s := w.throughBridge(bridge.Options{})
				random := rand.New(rand.NewPCG(seed, 1))
				w.net.SetPolicy(dialogtest.Lossy(seed, 0.05*float64(seed%5), 0.05*float64(seed%3), time.Duration(random.IntN(80))*time.Millisecond))
				delays := []time.Duration{time.Duration(random.IntN(100)) * time.Millisecond, time.Duration(random.IntN(100)) * time.Millisecond}
				offers := []string{second(offerSDP), second(answerSDP)}
				errs := make([]error, 2)
				answers := make([]dialog.Body, 2)
				atOnce(2, func(i int) {
					time.Sleep(delays[i])
					d := []*dialog.Dialog{s.in, s.out}[i]
					answers[i], errs[i] = d.Renegotiate(context.Background(), dialog.NewBody("application/sdp", []byte(offers[i])))
				})
				require.NoError(t, errs[0], "seed %d: caller", seed)
				require.NoError(t, errs[1], "seed %d: callee", seed)
				require.NotNil(t, answers[0])
				require.NotNil(t, answers[1])
				w.net.SetPolicy(nil)
				time.Sleep(time.Minute)
				synctest.Wait()
				require.Len(t, s.bridge.Dialogs(), 2)
				require.NoError(t, s.in.Bye(context.Background(), ""))
				synctest.Wait()
				time.Sleep(time.Minute)
				require.Equal(t, dialog.DialogStateTerminated, s.out.State())
				require.Empty(t, s.bridge.Dialogs())
			})
		})
	}
}

// A 491 of one side becomes that of the other at once: its peer tries again, and the bridge
// does not, so that the next request of that side finds it free.
func TestBridgePassesGlareAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := established(t, w, bridge.Options{})
		j.caller.ask("INVITE", withBody(second(offerSDP)))
		got := j.callee.next("INVITE")
		j.callee.ask("INVITE", withBody(second(answerSDP)))
		j.callee.next("491 INVITE")
		j.callee.reply(got, dialogtest.Response{Code: 491})
		j.caller.next("491 INVITE")
		j.callee.ask("INVITE", withBody(second(answerSDP)))
		j.caller.reply(j.caller.next("INVITE"), dialogtest.Response{Code: 200, Body: second(offerSDP)})
		j.callee.next("200 INVITE")
		j.callee.acknowledge(2)
		j.caller.next("ACK")
		j.callee.quiet("INVITE", 5*time.Second)
		j.hangsUp(j.caller, j.callee)
	})
}
