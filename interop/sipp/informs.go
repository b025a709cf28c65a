package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
)

// informCases are the cases of INFO.
func informCases() []testCase {
	known := func(config *dialog.StackConfig) { config.InfoPackages = []string{"known"} }
	return []testCase{
		{name: "sipp-informs", scenario: "info_in.xml", protocol: "udp", calls: 1, answer: answerInformed, configure: known},
		{name: "library-informs", scenario: "info_out.xml", protocol: "udp", calls: 1, call: callAndInform, configure: known},
	}
}

// answerInformed answers a call in which sipp sends two DTMF keys, and one INFO of the
// package that we support.
func answerInformed(ctx context.Context, d *dialog.Dialog) error {
	keys, news := make(chan dialog.DTMF, 9), make(chan string, 9)
	d.OnDTMF(func(key dialog.DTMF) { keys <- key })
	err := d.OnRequest("INFO", func(_ context.Context, req *sip.Request) dialog.Answer {
		news <- dialog.InfoPackageOf(req)
		return dialog.Answer{}
	})
	if err != nil {
		return err
	}
	seen := watch(d)
	if err := accept(ctx, d); err != nil {
		return err
	}
	if err := seen.untilTerminated(ctx); err != nil {
		return err
	}
	if got := drain(keys); !slices.Equal(got, []dialog.DTMF{{Digit: '5', Duration: 240 * time.Millisecond}, {Digit: '#'}}) {
		return fmt.Errorf("the keys were %v", got)
	}
	if got := drain(news); !slices.Equal(got, []string{"known"}) {
		return fmt.Errorf("INFOs of the packages %q", got)
	}
	return errors.Join(seen.states("Established", "Terminated"), endedBy(d, dialog.PartyRemote, "BYE"))
}

// drain returns the values that a channel holds.
func drain[T any](from <-chan T) []T {
	var all []T
	for len(from) > 0 {
		all = append(all, <-from)
	}
	return all
}

// callAndInform sends keys and INFOs of two packages. sipp no longer accepts the second.
func callAndInform(ctx context.Context, stack *dialog.Stack, target sip.Uri, opts dialog.InviteOpts) (*dialog.Dialog, error) {
	d, seen, err := established(ctx, stack, target, opts)
	if err != nil {
		return nil, err
	}
	news := dialog.NewBody("text/plain", []byte("news"))
	err = errors.Join(
		d.SendDTMF(ctx, '5', dialog.DTMFOpts{}),
		d.SendDTMF(ctx, '*', dialog.DTMFOpts{Plain: true}),
		d.SendInfoPackage(ctx, "beta", news))
	if err != nil {
		return nil, fmt.Errorf("informing: %w", err)
	}
	if err := d.SendInfoPackage(ctx, "gamma", news); !errors.Is(err, dialog.ErrInfoPackage) {
		return nil, fmt.Errorf("an INFO of a package that sipp has not listed returned %w", err)
	}
	var refused *dialog.ResponseError
	if err := d.SendInfoPackage(ctx, "alpha", news); !errors.As(err, &refused) || refused.StatusCode != 469 {
		return nil, fmt.Errorf("an INFO returned %w for a 469", err)
	}
	return d, hangUp(ctx, d, seen)
}
