package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
)

// identityCases are the cases of the headers about identities, and of the Reason for the
// end.
func identityCases() []testCase {
	return []testCase{
		{name: "sipp-says-who", scenario: "assert_in.xml", protocol: "udp", calls: 1, answer: answerToWhom},
		{name: "library-says-who", scenario: "assert_out.xml", protocol: "udp", calls: 1, call: callAndSayWho},
	}
}

// answerToWhom reads the caller's identity, sends the callee's, and checks the Reason of
// the BYE.
func answerToWhom(ctx context.Context, d *dialog.Dialog) error {
	invite := d.Request()
	got := fmt.Sprint(dialog.AssertedIdentities(invite), dialog.PrivacyOf(invite), dialog.DiversionsOf(invite), dialog.HistoryOf(invite))
	const want = `["Alice, A." <sip:alice@example.com> <tel:+14085264000>] [id critical] ` +
		`[<sip:bob@example.com>;reason=user-busy;counter=2] ` +
		`[<sip:bob@example.com>;index=1 <sip:library@example.com?Reason=SIP%3bcause%3D302>;index=1.1;rc=1]`
	if got != want {
		return fmt.Errorf("the INVITE says %s", got)
	}
	seen := watch(d)
	if err := d.Accept(ctx, withSDP,
		dialog.WithHeader("P-Asserted-Identity", `"The Library" <sip:library@example.com>`), dialog.WithHeader("Privacy", "id")); err != nil {
		return fmt.Errorf("accepting: %w", err)
	}
	if err := seen.untilTerminated(ctx); err != nil {
		return err
	}
	if reasons := d.Cause().Reasons; len(reasons) != 2 || reasons[0].Cause != 16 || reasons[1].Cause != sip.StatusOK {
		return fmt.Errorf("the BYE says %v", reasons)
	}
	return errors.Join(seen.states("Established", "Terminated"), endedBy(d, dialog.PartyRemote, "BYE"))
}

// callAndSayWho sends the caller's identity, reads the callee's, and sends a Reason in
// the BYE.
func callAndSayWho(ctx context.Context, stack *dialog.Stack, target sip.Uri, opts dialog.InviteOpts) (*dialog.Dialog, error) {
	opts.Headers = []dialog.Header{
		{Name: "P-Asserted-Identity", Value: `"Alice, A." <sip:alice@example.com>`}, {Name: "Privacy", Value: "id"},
		{Name: "Diversion", Value: "<sip:bob@example.com>;reason=no-answer"}, {Name: "History-Info", Value: "<sip:bob@example.com>;index=1"},
	}
	d, seen, err := established(ctx, stack, target, opts)
	if err != nil {
		return nil, err
	}
	if got := fmt.Sprint(dialog.AssertedIdentities(d.Response())); got != "[<sip:carol@example.com>]" {
		return nil, fmt.Errorf("the 200 says %s", got)
	}
	reason := dialog.Reason{Protocol: "SIP", Cause: sip.StatusOK, Text: "done"}
	if err := d.ByeWith(ctx, dialog.ByeOpts{Reasons: []dialog.Reason{reason}}); err != nil {
		return nil, fmt.Errorf("hanging up: %w", err)
	}
	if err := seen.untilTerminated(ctx); err != nil {
		return nil, err
	}
	return d, endedBy(d, dialog.PartyLocal, "BYE")
}
