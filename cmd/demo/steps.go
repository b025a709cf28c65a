package main

import (
	"context"
	"fmt"

	"sipdialog.example/dialog"
)

func (s *scene) aliceCalls(ctx context.Context) (err error) {
	if s.alicesCall, err = s.alice.call(ctx, s.bob.uri()); err != nil {
		return err
	}
	s.bobsCall, err = receive(ctx, s.bob.calls)
	return err
}

// bobSendsEarlyMedia answers alice's offer. Her stack supports RFC 3262, so bob's stack
// repeats the 183 until hers has acknowledged it.
func (s *scene) bobSendsEarlyMedia(ctx context.Context) error {
	return s.bobsCall.Provisional(ctx, 183, "", dialog.WithBody(s.bob.session()))
}

// bothRing checks that the call is not answered.
func (s *scene) bothRing() error {
	for _, c := range []*call{s.alicesCall, s.bobsCall} {
		if state := c.State(); state != dialog.DialogStateRinging {
			return fmt.Errorf("%s's call is %s", c.owner.name, state)
		}
	}
	return nil
}

// bobAnswers sends a 200 without a session, since the 183 had it.
func (s *scene) bobAnswers(ctx context.Context) error {
	if err := s.bobsCall.Accept(ctx); err != nil {
		return err
	}
	return s.alicesCall.WaitAnswer(ctx)
}

// aliceRefreshes sends the same UPDATE that her stack sends after half of the session
// interval (RFC 4028 7.4). 90 s is the shortest interval, and too long for a demo.
func (s *scene) aliceRefreshes(ctx context.Context) error {
	_, err := s.alicesCall.Update(ctx, nil)
	return err
}

// aliceRefers asks bob to call carol. Bob's stack accepts by itself (202, NOTIFY 100)
// and then calls bob's callback.
func (s *scene) aliceRefers(ctx context.Context) (err error) {
	if err = s.alicesCall.Refer(ctx, s.carol.uri(), dialog.ReferOpts{}); err != nil {
		return err
	}
	if s.sent, err = s.alicesCall.WaitRefer(ctx); err != nil {
		return err
	}
	uri := s.carol.uri()
	asked, err := receive(ctx, s.bob.refers)
	if err != nil {
		return err
	}
	if asked.dialog != dialog.IDialog(s.bobsCall.Dialog) || asked.to.String() != uri.String() {
		return fmt.Errorf("bob was asked to call %s", asked.to.String())
	}
	s.bob.record.note("bob", "asked to call carol")
	subscriptions := s.bobsCall.GetAllReferSubscriptions()
	if len(subscriptions) != 1 {
		return fmt.Errorf("bob has %d subscriptions", len(subscriptions))
	}
	s.received = subscriptions[0]
	return nil
}

func (s *scene) bobCallsCarol(ctx context.Context) (err error) {
	if s.newCall, err = s.bob.call(ctx, s.carol.uri()); err != nil {
		return err
	}
	if s.carolsCall, err = receive(ctx, s.carol.calls); err != nil {
		return err
	}
	return s.tellAlice(ctx, 180, "Ringing")
}

func (s *scene) carolAnswers(ctx context.Context) error {
	if err := s.carolsCall.Accept(ctx, dialog.WithBody(s.carol.session())); err != nil {
		return err
	}
	if err := s.newCall.WaitAnswer(ctx); err != nil {
		return err
	}
	if err := s.tellAlice(ctx, 200, "OK"); err != nil {
		return err
	}
	_, err := receive(ctx, s.sent.Done())
	return err
}

// tellAlice reports the status of the call to carol. Alice's stack has the report before
// it answers the NOTIFY.
func (s *scene) tellAlice(ctx context.Context, status int, reason string) error {
	if err := s.received.SendNotify(ctx, status, reason); err != nil {
		return err
	}
	reported := s.sent.Status()
	s.record.note("alice", fmt.Sprintf("transfer: %d %s", reported.Status, reported.Reason))
	return nil
}

// transferBegan checks the first report, which bob's stack made by itself.
func (s *scene) transferBegan() error {
	if reported := s.sent.Status(); reported.Status != 100 {
		return fmt.Errorf("alice was told %d %s, not 100", reported.Status, reported.Reason)
	}
	return nil
}

// hungUp checks both ends of a call that has ended.
func (s *scene) hungUp(by, other *call) error {
	if err := by.ended(dialog.PartyLocal); err != nil {
		return err
	}
	if err := other.ended(dialog.PartyRemote); err != nil {
		return err
	}
	for _, c := range []*call{by, other} {
		if _, found := c.owner.stack.DialogByKey(c.Key()); found {
			return fmt.Errorf("%s's stack still has the call", c.owner.name)
		}
	}
	return nil
}

// receive waits for a value from a channel, or for its close.
func receive[T any](ctx context.Context, from <-chan T) (value T, err error) {
	select {
	case value = <-from:
		return value, nil
	case <-ctx.Done():
		return value, ctx.Err()
	}
}
