package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
)

// offerCases are the cases of offers in a response, in its ACK or PRACK, and of refused
// offers.
func offerCases() []testCase {
	return overBoth(
		testCase{name: "sipp-asks-for-offers", scenario: "ask_in.xml", calls: 1, answer: answerWithOffers},
		testCase{name: "library-asks-for-offers", scenario: "ask_out.xml", calls: 1, call: callWithoutOffer},
	)
}

// answerWithOffers offers a session in a reliable 183, answers the offer in the
// PRACK to a 182, and makes another offer for a re-INVITE. It refuses video.
func answerWithOffers(ctx context.Context, d *dialog.Dialog) error {
	seen := watch(d)
	d.OnOffer(func(_ context.Context, theirs dialog.Body) (dialog.Body, error) {
		switch sdp := string(theirs.Data()); {
		case strings.Contains(sdp, "m=video"):
			return nil, errors.New("no camera")
		case strings.Contains(sdp, "a=sendonly"):
			return offer(2, "a=recvonly"), nil
		default:
			return offer(3), nil
		}
	})
	if err := d.Provisional(ctx, sip.StatusSessionInProgress, "", withSDP); err != nil {
		return fmt.Errorf("progress: %w", err)
	}
	if err := seen.untilBodies(ctx, 1); err != nil {
		return err
	}
	pause(ctx, 100*time.Millisecond) // the response to the PRACK leaves first
	if err := d.Provisional(ctx, sip.StatusQueued, "", dialog.WithReliable()); err != nil {
		return fmt.Errorf("progress: %w", err)
	}
	if err := seen.untilBodies(ctx, 2); err != nil {
		return err
	}
	if err := d.Accept(ctx); err != nil {
		return fmt.Errorf("accepting: %w", err)
	}
	if err := seen.untilTerminated(ctx); err != nil {
		return err
	}
	return errors.Join(
		seen.states("Established", "Terminated"),
		seen.bodies("o=sipp 100 1 ", "o=sipp 100 2 ", "o=sipp 100 3 ", "o=sipp 100 4 ", "o=sipp 100 5 "),
		endedBy(d, dialog.PartyRemote, "BYE"))
}

// callWithoutOffer lets sipp make the offers, in a reliable 183 and in the 200 to a
// re-INVITE, and cancels a second re-INVITE.
func callWithoutOffer(ctx context.Context, stack *dialog.Stack, target sip.Uri, opts dialog.InviteOpts) (*dialog.Dialog, error) {
	opts.Body = nil
	opts.Setup = func(d *dialog.Dialog) {
		d.OnOffer(func(_ context.Context, theirs dialog.Body) (dialog.Body, error) {
			if strings.Contains(string(theirs.Data()), "a=sendonly") {
				return offer(1, "a=recvonly"), nil
			}
			return offer(2), nil
		})
	}
	d, seen, err := established(ctx, stack, target, opts)
	if err != nil {
		return nil, err
	}
	theirs, err := d.Renegotiate(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("re-INVITE: %w", err)
	}
	if theirs == nil || !strings.Contains(string(theirs.Data()), "o=sipp 200 2 ") {
		return nil, fmt.Errorf("re-INVITE returned %v, not sipp's offer", theirs)
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := d.Renegotiate(short, offer(3)); !errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("re-INVITE returned %w when its context ended", err)
	}
	pause(ctx, 300*time.Millisecond) // the CANCEL
	return d, hangUp(ctx, d, seen)
}
