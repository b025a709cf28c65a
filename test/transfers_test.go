package test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
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

var drawTransfers = flag.Bool("transfers.draw", false, "write the ladders of the transfers to testdata")

// transferScenes are the transfers of RFC 5589, by its sections.
var transferScenes = []struct {
	name string
	play func(t *testing.T, s *stage)
}{
	{"6.2-basic", playBasic},
	{"6.3.1-target-busy", playTargetBusy},
	{"6.3.2-target-does-not-answer", playTargetDoesNotAnswer},
	{"7.1-consultation-exposing-target", playExposingTarget},
	{"7.2-consultation-protecting-target", playProtectingTarget},
	{"7.3-attended", playAttended},
	{"7.4-recovery", playRecovery},
	{"7.5-attended-by-address-of-record", playAttendedByAddress},
	{"7.5-attended-address-fails", playAddressFails},
	{"7.6-semi-attended", playSemiAttended},
	{"7.7-fallback-to-basic", playFallback},
}

// TestTransfersGoAsInRFC5589 plays each transfer and compares all that was said
// with the ladder in testdata/transfers.
func TestTransfersGoAsInRFC5589(t *testing.T) {
	for _, scene := range transferScenes {
		t.Run(scene.name, func(t *testing.T) {
			onStage(t, steady, func(*dialog.StackConfig) {}, scene.play, func(s *stage) { s.checkLadder(scene.name) })
		})
	}
}

// TestTransfersSurviveLossAndReordering plays them where three of ten datagrams
// are lost, some come twice, and they overtake each other.
func TestTransfersSurviveLossAndReordering(t *testing.T) {
	for i, scene := range transferScenes {
		for round := range 3 {
			t.Run(fmt.Sprint(scene.name, "/", round), func(t *testing.T) {
				lossy := dialogtest.Lossy(uint64(100*i+round), 0.3, 0.1, 400*time.Millisecond)
				onStage(t, lossy, patient, scene.play, nil)
			})
		}
	}
}

// talking begins every scene: the transferee calls, and is put on hold.
func (s *stage) talking(t *testing.T) (transferors, transferees *dialog.Dialog) {
	t.Helper()
	transferees, transferors = s.transferee.call(s.transferor)
	require.NoError(t, transferors.Hold(context.Background()))
	return transferors, transferees
}

// consulting has the transferor talk to the target, and put it on hold, too.
func (s *stage) consulting(t *testing.T) (transferors, targets *dialog.Dialog) {
	t.Helper()
	transferors, targets = s.transferor.call(s.target)
	require.NoError(t, transferors.Hold(context.Background()))
	return transferors, targets
}

var accepted = dialog.Progress{Status: 200, Reason: "OK"}

// conversed ends a scene that came out well: transferee and target have talked,
// and one of them hangs up.
func (s *stage) conversed(t *testing.T, by, other *dialog.Dialog) {
	t.Helper()
	require.NotNil(t, by)
	require.NotNil(t, other)
	require.Equal(t, dialog.DialogStateEstablished, by.State())
	require.Equal(t, dialog.DialogStateEstablished, other.State())
	settled()
	require.NoError(t, by.Bye(context.Background(), ""))
	areOver(t, by, other)
}

// RFC 5589 6.2; 6.1 sends its REFER outside the call.
func playBasic(t *testing.T, s *stage) {
	call, transferees := s.talking(t)
	require.NoError(t, call.Refer(context.Background(), uri("target", targetIP), dialog.ReferOpts{}))
	require.Equal(t, accepted, transfers(t, call))
	require.NoError(t, call.Bye(context.Background(), "transferred"))
	areOver(t, call, transferees)
	s.conversed(t, <-s.target.calls, <-s.transferee.follows)
}

// RFC 5589 6.3.1: the call is taken up again.
func playTargetBusy(t *testing.T, s *stage) {
	s.target.answer = func(d *dialog.Dialog) { _ = d.Reject(context.Background(), 486, "") }
	call, transferees := s.talking(t)
	require.NoError(t, call.Refer(context.Background(), uri("target", targetIP), dialog.ReferOpts{}))
	require.Equal(t, dialog.Progress{Status: 486, Reason: "Busy Here"}, transfers(t, call))
	require.Nil(t, <-s.transferee.follows)
	s.recovered(t, call, transferees)
}

// recovered has a transferor take up the call whose transfer failed.
func (s *stage) recovered(t *testing.T, call, transferees *dialog.Dialog) {
	t.Helper()
	require.NoError(t, call.Resume(context.Background()))
	settled()
	require.NoError(t, call.Bye(context.Background(), ""))
	areOver(t, call, transferees)
}

// RFC 5589 6.3.2: the transferee gets tired of waiting.
func playTargetDoesNotAnswer(t *testing.T, s *stage) {
	s.target.answer = func(*dialog.Dialog) {}
	s.transferee.patience = 20 * time.Second
	call, transferees := s.talking(t)
	require.NoError(t, call.Refer(context.Background(), uri("target", targetIP), dialog.ReferOpts{}))
	require.Equal(t, dialog.Progress{Status: 487, Reason: "Request Terminated"}, transfers(t, call))
	require.Nil(t, <-s.transferee.follows)
	areOver(t, <-s.target.calls)
	s.recovered(t, call, transferees)
}

// RFC 5589 7.1: the target learns of the transfer, and is then called again.
func playExposingTarget(t *testing.T, s *stage) {
	call, transferees := s.talking(t)
	consultation, targets := s.transferor.call(s.target)
	require.NoError(t, consultation.Bye(context.Background(), ""))
	areOver(t, consultation, targets)
	require.NoError(t, call.Refer(context.Background(), uri("target", targetIP), dialog.ReferOpts{}))
	require.Equal(t, accepted, transfers(t, call))
	require.NoError(t, call.Bye(context.Background(), "transferred"))
	areOver(t, call, transferees)
	s.conversed(t, <-s.target.calls, <-s.transferee.follows)
}

// RFC 5589 7.2: the target calls the transferee, who does not get to know where
// it is. It is the transferee that ends the first call.
func playProtectingTarget(t *testing.T, s *stage) {
	call, transferees := s.talking(t)
	consultation, targets := s.consulting(t)
	require.NoError(t, consultation.ReferReplace(context.Background(), call, dialog.ReferOpts{}))
	require.Equal(t, accepted, transfers(t, consultation))
	areOver(t, call, transferees)
	require.Equal(t, dialog.Cause{By: dialog.PartyLocal, Method: "BYE", Reason: "replaced"}, transferees.Cause())
	require.NoError(t, consultation.Bye(context.Background(), "transferred"))
	areOver(t, consultation, targets)
	s.conversed(t, <-s.transferee.calls, <-s.target.follows)
}

// RFC 5589 7.3: it is the target that ends the consultation.
func playAttended(t *testing.T, s *stage) {
	call, transferees := s.talking(t)
	consultation, targets := s.consulting(t)
	require.NoError(t, call.ReferReplace(context.Background(), consultation, dialog.ReferOpts{}))
	s.attended(t, call, transferees, consultation, targets)
}

// attended is how a transfer with consultation ends.
func (s *stage) attended(t *testing.T, call, transferees, consultation, targets *dialog.Dialog) {
	t.Helper()
	require.Equal(t, accepted, transfers(t, call))
	areOver(t, consultation, targets)
	require.Equal(t, dialog.Cause{By: dialog.PartyLocal, Method: "BYE", Reason: "replaced"}, targets.Cause())
	require.NoError(t, call.Bye(context.Background(), "transferred"))
	areOver(t, call, transferees)
	s.conversed(t, <-s.target.calls, <-s.transferee.follows)
}

// RFC 5589 7.4: the transferee does not know REFER, so the target is asked.
func playRecovery(t *testing.T, s *stage) {
	s.transferee.refusesRefer()
	call, transferees := s.talking(t)
	consultation, targets := s.consulting(t)
	require.NoError(t, call.ReferReplace(context.Background(), consultation, dialog.ReferOpts{}))
	_, err := call.WaitRefer(context.Background())
	var refused *dialog.ResponseError
	require.True(t, errors.As(err, &refused), "%v", err)
	require.Equal(t, 501, refused.StatusCode)
	require.NoError(t, consultation.ReferReplace(context.Background(), call, dialog.ReferOpts{}))
	require.Equal(t, accepted, transfers(t, consultation))
	areOver(t, call, transferees)
	require.NoError(t, consultation.Bye(context.Background(), "transferred"))
	areOver(t, consultation, targets)
	s.conversed(t, <-s.transferee.calls, <-s.target.follows)
}

// RFC 5589 7.5: where a Contact leads nowhere else the target is called by its
// address of record, and must know Replaces.
func playAttendedByAddress(t *testing.T, s *stage) {
	call, transferees := s.talking(t)
	consultation, targets := s.consulting(t)
	address := uri("target", targetIP)
	address.Headers = sip.HeaderParams{{K: "Require", V: "replaces"}}
	require.NoError(t, call.SendReferWithReplaces(context.Background(), address, consultation, nil))
	s.attended(t, call, transferees, consultation, targets)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.log {
		if m.to.Addr().String() == targetIP && m.from.Addr().String() == transfereeIP && testkit.Describe(m.msg) == "INVITE" {
			require.Equal(t, "replaces", m.value(t, "Require"))
			require.NotEmpty(t, m.value(t, "Referred-By"))
		}
	}
}

// RFC 5589 7.5, figure 10: what the address leads to refuses, so the Contact is
// tried. Both subscriptions are the call's.
func playAddressFails(t *testing.T, s *stage) {
	call, transferees := s.talking(t)
	consultation, targets := s.consulting(t)
	s.target.refuseNext(sip.StatusForbidden)
	address := uri("target", targetIP)
	require.NoError(t, call.SendReferWithReplaces(context.Background(), address, consultation, nil))
	require.Equal(t, dialog.Progress{Status: 403, Reason: "Forbidden"}, transfers(t, call))
	require.Nil(t, <-s.transferee.follows)
	areOver(t, <-s.target.calls)
	require.Equal(t, dialog.DialogStateEstablished, targets.State())
	require.NoError(t, call.ReferReplace(context.Background(), consultation, dialog.ReferOpts{}))
	s.attended(t, call, transferees, consultation, targets)
}

// RFC 5589 7.7, figure 14: the target does not know what the consultation
// requires, so it is called without one.
func playFallback(t *testing.T, s *stage) {
	call, transferees := s.talking(t)
	opts := offer(offerSDP)
	opts.Require = []string{"replaces", "gruu"}
	consultation, err := s.transferor.NewInvite(context.Background(), uri("target", targetIP), opts)
	require.NoError(t, err)
	var refused *dialog.ResponseError
	require.True(t, errors.As(consultation.(*dialog.Dialog).WaitAnswer(context.Background()), &refused))
	require.Equal(t, 420, refused.StatusCode)
	settled()
	require.NoError(t, call.Refer(context.Background(), uri("target", targetIP), dialog.ReferOpts{}))
	require.Equal(t, accepted, transfers(t, call))
	require.NoError(t, call.Bye(context.Background(), "transferred"))
	areOver(t, call, transferees)
	s.conversed(t, <-s.target.calls, <-s.transferee.follows)
}

// RFC 5589 7.6, figure 11: the transferor does not wait for the target's answer;
// its user agent does.
func playSemiAttended(t *testing.T, s *stage) {
	answer := make(chan struct{})
	s.target.answer = func(d *dialog.Dialog) {
		if d.Replaces() == nil {
			<-answer
		}
		if err := d.Accept(context.Background(), withSDP(answerSDP)); err != nil {
			t.Errorf("accept: %v", err)
		}
	}
	call, transferees := s.talking(t)
	placed, err := s.transferor.NewInvite(context.Background(), uri("target", targetIP), offer(offerSDP))
	require.NoError(t, err)
	consultation := placed.(*dialog.Dialog)
	time.Sleep(5 * time.Second)
	close(answer)
	require.NoError(t, consultation.WaitAnswer(context.Background()))
	targets := <-s.target.calls
	require.NoError(t, call.ReferReplace(context.Background(), consultation, dialog.ReferOpts{}))
	s.attended(t, call, transferees, consultation, targets)
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
	// Messages of two goroutines at the same instant have no order.
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

// Transfers between three stacks on a bad network: a third of the datagrams is
// lost, others come twice and out of order. The outcome is learnt all the same,
// whoever hangs up meanwhile, and nothing is left.
func TestTransfersOnABadNetworkTellTheTruth(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b, c := w.stack(stackIP), w.stack(peerIP), w.stack(otherIP)
				caller, callee := w.established(a, b)
				results := followsRefers(context.Background(), b, offer(offerSDP))
				c.OnIncomingDialog(func(d dialog.IDialog) {
					if d.(*dialog.Dialog).Request().Recipient.User == "busy" {
						_ = d.Reject(context.Background(), 486, "")
						return
					}
					_ = d.Accept(context.Background(), withSDP(answerSDP))
				})
				w.net.SetPolicy(dialogtest.Lossy(seed, 0.3, 0.2, 700*time.Millisecond))
				learnt := began(func() error { return learnsOutcomes(caller) })
				if seed%2 == 0 {
					time.Sleep(2 * time.Second)
					_ = caller.Bye(context.Background(), "")
				}
				require.NoError(t, <-learnt)
				w.net.SetPolicy(nil)
				for range len(results) {
					if got := <-results; got.call != nil {
						require.NoError(t, got.call.Bye(context.Background(), ""))
					}
				}
				_, _ = caller.Close(), callee.Close()
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				for _, s := range w.stacks {
					require.Zero(t, testkit.Held(s))
				}
			})
		})
	}
}

// learnsOutcomes refers a call twice and checks what is learnt of it. A REFER
// that the call's end overtakes is refused.
func learnsOutcomes(d *dialog.Dialog) error {
	for _, user := range []string{"busy", "dora"} {
		target := sip.Uri{Scheme: "sip", User: user, Host: otherIP, Port: 5060}
		if err := d.Refer(context.Background(), target, dialog.ReferOpts{}); err != nil {
			return fmt.Errorf("%s: %w", user, err)
		}
	}
	for _, want := range []int{486, 200} {
		r, err := d.WaitRefer(context.Background())
		var refused *dialog.ResponseError
		switch {
		case errors.As(err, &refused):
			continue
		case err != nil:
			return err
		}
		if got, err := r.Wait(context.Background()); err != nil || got.Status != want {
			return fmt.Errorf("%s: want %d, got %v, %w", r.ID, want, got, err)
		}
	}
	return nil
}
