package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
)

// sessionCases are the cases of 100rel, forks, UPDATE and glare.
func sessionCases() []testCase {
	return slices.Concat([]testCase{
		{name: "sipp-crosses", scenario: "glare_out.xml", protocol: "udp", calls: 1, call: callAndCross},
		{name: "library-waits", scenario: "glare_in.xml", protocol: "udp", calls: 1, answer: answerAndRenegotiate},
		{name: "sipp-forks-reliably", scenario: "fork_reliable_out.xml", protocol: "udp", calls: 1, call: callForked},
	}, overBoth(
		testCase{name: "sipp-rings-reliably", scenario: "reliable_out.xml", calls: 1, call: callAndBye},
		testCase{name: "sipp-agrees-reliably", scenario: "agree_out.xml", calls: 1, call: callAndAgree},
		testCase{name: "sipp-updates", scenario: "update_in.xml", calls: 1, answer: answerUpdated},
		testCase{name: "library-holds", scenario: "hold_out.xml", calls: 1, call: callAndHold},
		testCase{name: "library-updates", scenario: "update_out.xml", calls: 1, call: callAndUpdate},
	))
}

// offer returns the library's session in a later version, with further lines.
func offer(version int, lines ...string) dialog.Body {
	text := strings.Replace(librarySDP, "o=library 7000 1 ", fmt.Sprintf("o=library 7000 %d ", version), 1)
	for _, line := range lines {
		text += line + "\r\n"
	}
	return dialog.NewBody("application/sdp", []byte(text))
}

// established places a call and waits for the answer.
func established(ctx context.Context, stack *dialog.Stack, target sip.Uri, opts dialog.InviteOpts) (*dialog.Dialog, *watcher, error) {
	d, seen, err := invite(ctx, stack, target, opts)
	if err != nil {
		return nil, nil, err
	}
	if err := d.WaitAnswer(ctx); err != nil {
		return nil, nil, fmt.Errorf("waiting for the answer: %w", err)
	}
	return d, seen, nil
}

// hangUp ends an established call, and checks its states.
func hangUp(ctx context.Context, d *dialog.Dialog, seen *watcher) error {
	if err := d.Bye(ctx, "done"); err != nil {
		return fmt.Errorf("hanging up: %w", err)
	}
	if err := seen.untilTerminated(ctx); err != nil {
		return err
	}
	return errors.Join(seen.states("Established", "Terminated"), endedBy(d, dialog.PartyLocal, "BYE"))
}

// answerUpdated answers the offer in a reliable 183, and the call after an UPDATE. It
// hangs up after two more UPDATEs.
func answerUpdated(ctx context.Context, d *dialog.Dialog) error {
	seen := watch(d)
	if err := d.Provisional(ctx, sip.StatusSessionInProgress, "", withSDP); err != nil {
		return fmt.Errorf("progress: %w", err)
	}
	if err := seen.untilBodies(ctx, 2); err != nil {
		return err
	}
	pause(ctx, 100*time.Millisecond) // the response to the UPDATE leaves first
	if err := d.Accept(ctx); err != nil {
		return fmt.Errorf("accepting: %w", err)
	}
	if err := seen.untilBodies(ctx, 3); err != nil {
		return err
	}
	pause(ctx, 300*time.Millisecond) // the UPDATEs without a body
	if err := hangUp(ctx, d, seen); err != nil {
		return err
	}
	return seen.bodies("o=sipp 100 1 ", "a=sendonly", "o=sipp 100 3 ")
}

// callForked is callAndBye for a call in which a 199 ends one of the early dialogs.
func callForked(ctx context.Context, stack *dialog.Stack, target sip.Uri, opts dialog.InviteOpts) (*dialog.Dialog, error) {
	over := make(chan dialog.ForkInfo, 9)
	opts.Setup = func(d *dialog.Dialog) {
		d.OnFork(func(fork dialog.ForkInfo) {
			if fork.Ended {
				over <- fork
			}
		})
	}
	d, err := callAndBye(ctx, stack, target, opts)
	if err != nil {
		return nil, err
	}
	first := <-over
	if first.Status != 199 || len(first.Reasons) != 1 || first.Reasons[0].Cause != sip.StatusBusyHere {
		return nil, fmt.Errorf("the early dialog that ended first was %+v", first)
	}
	return d, nil
}

// callAndUpdate offers a session in the INVITE and, by UPDATE, in the early dialog
// and twice in the call: the last is refused.
func callAndUpdate(ctx context.Context, stack *dialog.Stack, target sip.Uri, opts dialog.InviteOpts) (*dialog.Dialog, error) {
	rings := make(chan struct{}, 1)
	opts.Setup = func(d *dialog.Dialog) {
		d.OnFork(func(fork dialog.ForkInfo) {
			if fork.Status == sip.StatusSessionInProgress {
				rings <- struct{}{}
			}
		})
	}
	d, seen, err := invite(ctx, stack, target, opts)
	if err != nil {
		return nil, err
	}
	select {
	case <-rings:
	case <-ctx.Done():
		return nil, fmt.Errorf("no 183: %w", ctx.Err())
	}
	pause(ctx, 100*time.Millisecond) // sipp answers one request before it reads another
	if err := update(ctx, d, offer(2), "o=sipp 200 2 "); err != nil {
		return nil, fmt.Errorf("early: %w", err)
	}
	if err := d.WaitAnswer(ctx); err != nil {
		return nil, fmt.Errorf("waiting for the answer: %w", err)
	}
	if err := update(ctx, d, offer(3, "a=sendonly"), "a=recvonly"); err != nil {
		return nil, err
	}
	var refused *dialog.ResponseError
	if _, err := d.Update(ctx, offer(4)); !errors.As(err, &refused) || refused.StatusCode != sip.StatusNotAcceptableHere {
		return nil, fmt.Errorf("UPDATE returned %w for a 488", err)
	}
	return d, hangUp(ctx, d, seen)
}

// callAndAgree puts a second offer into the PRACK, and a third into a re-INVITE. sipp
// answers each before it accepts.
func callAndAgree(ctx context.Context, stack *dialog.Stack, target sip.Uri, opts dialog.InviteOpts) (*dialog.Dialog, error) {
	opts.PrackOffer = func(context.Context, dialog.ForkInfo) dialog.Body { return offer(2, "a=sendonly") }
	d, seen, err := established(ctx, stack, target, opts)
	if err != nil {
		return nil, err
	}
	answer, err := d.Renegotiate(ctx, offer(3))
	if err != nil {
		return nil, fmt.Errorf("re-INVITE: %w", err)
	}
	if answer == nil || !strings.Contains(string(answer.Data()), "o=sipp 200 3 ") {
		return nil, fmt.Errorf("the re-INVITE returned %v", answer)
	}
	return d, hangUp(ctx, d, seen)
}

// callAndHold holds the call and resumes it.
func callAndHold(ctx context.Context, stack *dialog.Stack, target sip.Uri, opts dialog.InviteOpts) (*dialog.Dialog, error) {
	d, seen, err := established(ctx, stack, target, opts)
	if err != nil {
		return nil, err
	}
	if err := d.Hold(ctx); err != nil {
		return nil, fmt.Errorf("holding: %w", err)
	}
	if err := d.Resume(ctx); err != nil {
		return nil, fmt.Errorf("resuming: %w", err)
	}
	return d, hangUp(ctx, d, seen)
}

// update sends an offer by UPDATE and checks that the answer contains part.
func update(ctx context.Context, d *dialog.Dialog, offer dialog.Body, part string) error {
	answer, err := d.Update(ctx, offer)
	if err != nil {
		return fmt.Errorf("updating: %w", err)
	}
	if answer == nil || !strings.Contains(string(answer.Data()), part) {
		return fmt.Errorf("UPDATE returned %v, not an answer with %q", answer, part)
	}
	return nil
}

// answerAndRenegotiate answers, and sends a re-INVITE and an UPDATE. sipp refuses each
// once with a response that leads to a retry.
func answerAndRenegotiate(ctx context.Context, d *dialog.Dialog) error {
	seen := watch(d)
	if err := accept(ctx, d); err != nil {
		return err
	}
	began := time.Now()
	if _, err := d.Renegotiate(ctx, offer(2)); err != nil {
		return fmt.Errorf("re-INVITE: %w", err)
	}
	if waited := time.Since(began); waited > 3*time.Second {
		return fmt.Errorf("the re-INVITE went out again after %s", waited) // RFC 3261 14.1: 2 s
	}
	began = time.Now()
	if err := update(ctx, d, offer(3), "o=sipp 100 3 "); err != nil {
		return err
	}
	if waited := time.Since(began); waited < time.Second {
		return fmt.Errorf("the UPDATE went out again after %s", waited)
	}
	return hangUp(ctx, d, seen)
}

// callAndCross sends a re-INVITE that crosses a re-INVITE of sipp.
func callAndCross(ctx context.Context, stack *dialog.Stack, target sip.Uri, opts dialog.InviteOpts) (*dialog.Dialog, error) {
	d, seen, err := established(ctx, stack, target, opts)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	answer, err := d.Renegotiate(ctx, offer(2))
	if err != nil {
		return nil, fmt.Errorf("re-INVITE: %w", err)
	}
	if waited := time.Since(began); waited < 2100*time.Millisecond || waited > 5*time.Second {
		return nil, fmt.Errorf("the re-INVITE went out again after %s", waited) // RFC 3261 14.1
	}
	if !strings.Contains(string(answer.Data()), "o=sipp 200 3 ") {
		return nil, fmt.Errorf("re-INVITE returned %s", answer.Data())
	}
	return d, hangUp(ctx, d, seen)
}
