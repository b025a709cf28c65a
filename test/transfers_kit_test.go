package test

import (
	"cmp"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
	"sipdialog.example/dialog/ladder"
)

// The people of RFC 5589, in the order of its diagrams.
const (
	transferorIP = "10.0.0.1"
	transfereeIP = "10.0.0.2"
	targetIP     = "10.0.0.3"
)

// stage is three stacks between which a transfer is played.
type stage struct {
	*world
	transferor, transferee, target *actor
}

// actor is one of them: a stack whose application answers calls, and follows
// REFERs.
type actor struct {
	*dialog.Stack
	w  *world
	ip string
	// patience is how long a call made for a REFER may ring.
	patience time.Duration
	// answer treats a call that arrives; nil accepts it, but the next one when
	// refusal is not zero.
	answer  func(d *dialog.Dialog)
	refusal atomic.Int32
	// calls are those that arrived; follows are those made for REFERs, nil for
	// one that came to nothing.
	calls, follows chan *dialog.Dialog
}

func (w *world) actor(ip string, config func(*dialog.StackConfig)) *actor {
	a := &actor{
		w: w, ip: ip, patience: 10 * time.Minute,
		calls: make(chan *dialog.Dialog, 10), follows: make(chan *dialog.Dialog, 10),
	}
	a.Stack = w.stack(ip, config)
	a.OnIncomingDialog(a.called)
	a.OnIncomingRefer(func(d dialog.IDialog, to sip.Uri, _ *dialog.ReplacesInfo) { a.referred(d.(*dialog.Dialog), to) })
	return a
}

func (a *actor) called(call dialog.IDialog) {
	d := call.(*dialog.Dialog)
	if a.answer != nil {
		a.answer(d)
	} else if code := a.refusal.Swap(0); code != 0 {
		_ = d.Reject(context.Background(), int(code), "")
	} else if err := d.Accept(context.Background(), withSDP(answerSDP)); err != nil {
		a.w.t.Errorf("%s: accept: %v", a.ip, err)
	}
	a.calls <- d
}

func (a *actor) referred(d *dialog.Dialog, to sip.Uri) {
	ctx, cancel := context.WithTimeout(context.Background(), a.patience)
	defer cancel()
	call, _ := d.FollowRefer(ctx, to, offer(offerSDP))
	a.follows <- call
}

// refuseNext has an actor refuse the next call.
func (a *actor) refuseNext(code int) { a.refusal.Store(int32(code)) }

// refusesRefer has an actor not know REFER.
func (a *actor) refusesRefer() {
	a.OnReferRequest(func(context.Context, *dialog.ReferRequest) dialog.Answer {
		return dialog.Answer{Status: sip.StatusNotImplemented}
	})
}

// call has a call another, and returns both ends of the established call.
func (a *actor) call(b *actor) (caller, callee *dialog.Dialog) {
	t := a.w.t
	t.Helper()
	d, err := a.NewInvite(context.Background(), uri("somebody", b.ip), offer(offerSDP))
	require.NoError(t, err)
	caller = d.(*dialog.Dialog)
	require.NoError(t, caller.WaitAnswer(context.Background()))
	callee = <-b.calls
	settled()
	return caller, callee
}

// settled lets what has been said arrive: the ACK to a 2xx, for example.
func settled() {
	time.Sleep(time.Second)
	synctest.Wait()
}

// transfers waits for a REFER that was sent, and returns its outcome.
func transfers(t *testing.T, d *dialog.Dialog) dialog.Progress {
	t.Helper()
	r, err := d.WaitRefer(context.Background())
	require.NoError(t, err)
	outcome, err := r.Wait(context.Background())
	require.NoError(t, err)
	settled()
	return outcome
}

// areOver waits until calls are over.
func areOver(t *testing.T, calls ...*dialog.Dialog) {
	t.Helper()
	for _, d := range calls {
		select {
		case <-d.Done():
		case <-time.After(20 * time.Minute):
			require.Fail(t, "a call goes on", "%+v", d.Info())
		}
	}
}

// onStage plays a scene between three stacks. Nothing is left of it.
func onStage(t *testing.T, network func(dialogtest.Packet) []time.Duration, config func(*dialog.StackConfig),
	play func(t *testing.T, s *stage), check func(s *stage),
) {
	bubble(t, func(t *testing.T, w *world) {
		w.net.SetPolicy(network)
		s := &stage{w, w.actor(transferorIP, config), w.actor(transfereeIP, config), w.actor(targetIP, config)}
		play(t, s)
		if check != nil {
			check(s)
		}
		time.Sleep(30 * time.Minute) // what is remembered of calls that ended
		synctest.Wait()
		for _, a := range []*actor{s.transferor, s.transferee, s.target} {
			require.Zero(t, testkit.Held(a.Stack), a.ip)
		}
	})
}

// steady is a network on which a message takes a time of its own between each
// two, so that a scene has one course only.
func steady(p dialogtest.Packet) []time.Duration {
	ends := p.From.Addr().As4()[3] + p.To.Addr().As4()[3]
	return []time.Duration{time.Duration(ends) * 7 * time.Millisecond}
}

// patient lets everything be repeated often enough for any loss.
func patient(c *dialog.StackConfig) {
	c.Timers.T2, c.TxTimeout, c.RingingLimit = 500*time.Millisecond, 10*time.Minute, 20*time.Minute
}

// draw returns the ladder of all that was sent.
func (s *stage) draw() string {
	participant := func(name, ip string) ladder.Participant {
		return ladder.Participant{Name: name, Addr: netip.MustParseAddrPort(ip + ":5060")}
	}
	l := ladder.New(participant("Transferor", transferorIP), participant("Transferee", transfereeIP), participant("Target", targetIP))
	s.mu.Lock()
	log := slices.Clone(s.log)
	s.mu.Unlock()
	// What two goroutines send at the same instant has no order.
	slices.SortStableFunc(log, func(a, b wire) int {
		return cmp.Or(a.at.Compare(b.at), a.from.Compare(b.from), a.to.Compare(b.to))
	})
	for _, m := range log {
		l.Message(m.at, m.from, m.to, []byte(m.raw))
	}
	return l.String()
}

// checkLadder compares the ladder with the one in testdata.
func (s *stage) checkLadder(name string) {
	s.t.Helper()
	path := filepath.Join("testdata", "transfers", name+".txt")
	drawn := s.draw()
	if *drawTransfers {
		require.NoError(s.t, os.WriteFile(path, []byte(drawn), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(s.t, err)
	require.Equal(s.t, string(want), drawn)
}
