package test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
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

// RFC 5589 7.1: the target is told what is to come, and then called anew.
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
		if m.to.Addr().String() == targetIP && m.from.Addr().String() == transfereeIP && describe(m.msg) == "INVITE" {
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
