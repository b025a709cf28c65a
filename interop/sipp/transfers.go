package main

import (
	"context"
	"errors"
	"fmt"

	"sipdialog.example/dialog"
)

// transferCases are the cases of REFER and Replaces.
func transferCases() []testCase {
	return []testCase{
		{name: "sipp-replaces", scenario: "replaces_in.xml", protocol: "udp", calls: 1, outcomes: 2, answer: answerReplaced},
		{name: "sipp-replaces-tcp", scenario: "replaces_in.xml", protocol: "tcp", calls: 1, outcomes: 2, answer: answerReplaced},
	}
}

// answerReplaced answers two calls, of which the second replaces the first.
func answerReplaced(ctx context.Context, d *dialog.Dialog) error {
	seen, old := watch(d), d.Replaces()
	if old != nil && old.State() != dialog.DialogStateEstablished {
		return fmt.Errorf("the replaced call is %s before the new one is answered", old.State())
	}
	if err := accept(ctx, d); err != nil {
		return err
	}
	if err := seen.untilTerminated(ctx); err != nil {
		return err
	}
	by := dialog.PartyLocal // the replaced call is ended here
	if old != nil {
		by = dialog.PartyRemote
	}
	return errors.Join(seen.states("Established", "Terminated"), endedBy(d, by, "BYE"))
}
