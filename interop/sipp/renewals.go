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

// renewalCases are the cases of session timers and redirection.
func renewalCases() []testCase {
	asksTimer := func(config *dialog.StackConfig) { config.SessionExpires = 2 * time.Minute }
	return append(overBoth(
		testCase{name: "sipp-asks-timer", scenario: "timer_in.xml", calls: 1, answer: answerUntilBye("o=sipp 100 1 ", "o=sipp 100 1 ")},
		testCase{name: "library-asks-timer", scenario: "timer_out.xml", calls: 1, call: callAndRefresh, configure: asksTimer},
	), testCase{name: "sipp-redirects", scenario: "redirect_out.xml", protocol: "udp", calls: 1, call: callRedirected})
}

// callAndRefresh refreshes the session early, and again after sipp has refreshed it.
// sipp's refresh also changes the target.
func callAndRefresh(ctx context.Context, stack *dialog.Stack, target sip.Uri, opts dialog.InviteOpts) (*dialog.Dialog, error) {
	d, seen, err := established(ctx, stack, target, opts)
	if err != nil {
		return nil, err
	}
	if _, err := d.Update(ctx, nil); err != nil {
		return nil, fmt.Errorf("refreshing: %w", err)
	}
	for d.Info().RemoteSeq == 0 {
		if ctx.Err() != nil {
			return nil, errors.New("sipp does not refresh")
		}
		pause(ctx, 20*time.Millisecond)
	}
	pause(ctx, 100*time.Millisecond) // the response
	if _, err := d.Update(ctx, nil); err != nil {
		return nil, fmt.Errorf("updating: %w", err)
	}
	return d, hangUp(ctx, d, seen)
}

// callRedirected follows a 302 to two targets. The second answers.
func callRedirected(ctx context.Context, stack *dialog.Stack, target sip.Uri, opts dialog.InviteOpts) (*dialog.Dialog, error) {
	opts.FollowRedirects = 4
	d, seen, err := established(ctx, stack, target, opts)
	if err != nil {
		return nil, err
	}
	if to := d.Info().RemoteTarget; !strings.EqualFold(to.User, "answering") {
		return nil, fmt.Errorf("the target is %s", to.String())
	}
	return d, hangUp(ctx, d, seen)
}
