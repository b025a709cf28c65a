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

// The shortest session interval (RFC 4028 4). The refresh is due after half of it, and
// the BYE a third before its end (10).
const (
	leastInterval = 90 * time.Second
	refreshDue    = leastInterval / 2
	byeDue        = leastInterval - leastInterval/3
)

// lastingCases are those in which a session timer fires.
func lastingCases() []testCase {
	asksTimer := func(config *dialog.StackConfig) { config.SessionExpires = leastInterval }
	return overBoth(
		testCase{name: "sipp-stops-refreshing", scenario: "expire_out.xml", calls: 1, call: callUntilExpired, configure: asksTimer,
			lasts: byeDue, wire: silentUntil("BYE", byeDue)},
		testCase{name: "library-refreshes", scenario: "refresh_out.xml", calls: 1, call: callUntilBye, configure: asksTimer,
			lasts: refreshDue, wire: silentUntil("UPDATE", refreshDue)},
		testCase{name: "library-reinvites", scenario: "refresh_in.xml", calls: 1, answer: answerUntilBye("o=sipp 100 1 ", "o=sipp 100 1 "),
			lasts: refreshDue, wire: silentUntil("INVITE", refreshDue)},
	)
}

// callUntilBye leaves everything to the session timer and to sipp.
func callUntilBye(ctx context.Context, stack *dialog.Stack, target sip.Uri, opts dialog.InviteOpts) (*dialog.Dialog, error) {
	return callUntilEnd(ctx, stack, target, opts, dialog.PartyRemote)
}

func callUntilExpired(ctx context.Context, stack *dialog.Stack, target sip.Uri, opts dialog.InviteOpts) (*dialog.Dialog, error) {
	return callUntilEnd(ctx, stack, target, opts, dialog.PartyTimeout)
}

func callUntilEnd(ctx context.Context, stack *dialog.Stack, target sip.Uri, opts dialog.InviteOpts, by dialog.Party) (*dialog.Dialog, error) {
	d, seen, err := established(ctx, stack, target, opts)
	if err != nil {
		return nil, err
	}
	if err := seen.untilTerminated(ctx); err != nil {
		return nil, err
	}
	return d, errors.Join(seen.states("Established", "Terminated"), endedBy(d, by, "BYE"))
}

// silentUntil checks a call without messages for the time due, after which the library
// sends the request of its timer. The timer starts with the last message before the
// silence that sipp sent; an ACK starts none.
func silentUntil(request string, due time.Duration) func([]message) error {
	return func(log []message) error {
		began := log[0].at
		for i, m := range log {
			if i > 0 && m.at.Sub(log[i-1].at) > due/2 {
				if !m.received || !strings.HasPrefix(m.text, request+" ") {
					return fmt.Errorf("sipp was not silent:\n%s", indent(m.text))
				}
				if err := onTime(m.at.Sub(began), due); err != nil {
					return fmt.Errorf("%s: %w", request, err)
				}
				return nil
			}
			if !m.received && !strings.HasPrefix(m.text, "ACK ") {
				began = m.at
			}
		}
		return errors.New("no silence of sipp")
	}
}
