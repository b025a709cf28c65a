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

// transferCases are the cases of REFER and Replaces.
func transferCases() []testCase {
	return overBoth(
		testCase{name: "sipp-replaces", scenario: "replaces_in.xml", calls: 1, outcomes: 2, answer: answerReplaced},
		testCase{name: "sipp-is-transferred", scenario: "refer_out.xml", calls: 1, call: callAndTransfer},
		testCase{name: "sipp-transfers", scenario: "refer_in.xml", calls: 1, outcomes: 3, answer: answerTransferring, refer: followElsewhere},
		testCase{name: "sipp-is-target", scenario: "call_out.xml", calls: 2, outcomes: 1, do: transferToSipp, wire: replacesTheOther},
	)
}

// answerReplaced answers two calls. The second replaces the first.
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

// consultation is a call of another UA, given by its key.
type consultation struct {
	dialog.IDialog
	key dialog.DialogKey
}

func (c consultation) Key() dialog.DialogKey { return c.key }

// callAndTransfer asks sipp to replace a call of another UA, and waits for the outcome.
func callAndTransfer(ctx context.Context, stack *dialog.Stack, target sip.Uri, opts dialog.InviteOpts) (*dialog.Dialog, error) {
	d, seen, err := invite(ctx, stack, target, opts)
	if err != nil {
		return nil, err
	}
	if err := d.WaitAnswer(ctx); err != nil {
		return nil, fmt.Errorf("waiting for the answer: %w", err)
	}
	other := consultation{key: dialog.DialogKey{CallID: "other@192.0.2.1", LocalTag: "library", RemoteTag: "carol"}}
	carol := sip.Uri{Scheme: "sip", User: "carol", Host: "192.0.2.1"}
	if err := d.SendReferWithReplaces(ctx, carol, other, nil); err != nil {
		return nil, fmt.Errorf("referring: %w", err)
	}
	if err := transferred(ctx, d); err != nil {
		return nil, err
	}
	if err := d.Bye(ctx, "done"); err != nil {
		return nil, fmt.Errorf("hanging up: %w", err)
	}
	if err := seen.untilTerminated(ctx); err != nil {
		return nil, err
	}
	return d, errors.Join(seen.states("Established", "Terminated"), endedBy(d, dialog.PartyLocal, "BYE"))
}

// transferred waits for the outcome of a REFER, which must be 200.
func transferred(ctx context.Context, d *dialog.Dialog) error {
	refer, err := d.WaitRefer(ctx)
	if err != nil {
		return fmt.Errorf("waiting for the answer to the REFER: %w", err)
	}
	outcome, err := refer.Wait(ctx)
	if err != nil {
		return fmt.Errorf("waiting for the outcome: %w", err)
	}
	if outcome.Status != sip.StatusOK {
		return fmt.Errorf("the outcome was %d %s", outcome.Status, outcome.Reason)
	}
	return nil
}

// transferToSipp plays an attended transfer with sipp as the target: another stack calls
// stack, consults sipp, and asks stack to replace the consultation call.
func transferToSipp(ctx context.Context, stack *dialog.Stack, target sip.Uri) error {
	protocol := protocolOf(target)
	transferor, err := startStack(protocol)
	if err != nil {
		return err
	}
	followed := follow(ctx, stack)
	err = attend(ctx, transferor, loopback("", int(stack.Addr().Port()), protocol), target)
	if err == nil {
		err = <-followed
	}
	return errors.Join(err, transferor.Shutdown(ctx))
}

// follow lets a stack answer calls and follow one REFER.
func follow(ctx context.Context, stack *dialog.Stack) <-chan error {
	followed := make(chan error, 1)
	stack.OnIncomingDialog(func(d dialog.IDialog) { _ = d.Accept(ctx, withSDP) })
	stack.OnIncomingRefer(func(d dialog.IDialog, to sip.Uri, _ *dialog.ReplacesInfo) {
		opts := dialog.InviteOpts{Body: dialog.NewBody("application/sdp", []byte(librarySDP))}
		call, err := d.(*dialog.Dialog).FollowRefer(ctx, to, opts)
		if err == nil {
			err = call.Bye(ctx, "done")
		}
		followed <- err
	})
	return followed
}

// attend plays the transferor.
func attend(ctx context.Context, transferor *dialog.Stack, transferee, target sip.Uri) error {
	opts := dialog.InviteOpts{Body: dialog.NewBody("application/sdp", []byte(librarySDP))}
	var calls []*dialog.Dialog
	for _, to := range []sip.Uri{transferee, target} {
		d, _, err := invite(ctx, transferor, to, opts)
		if err != nil {
			return err
		}
		if err := d.WaitAnswer(ctx); err != nil {
			return fmt.Errorf("waiting for the answer of %s: %w", to.User, err)
		}
		calls = append(calls, d)
	}
	if err := calls[0].SendReferWithReplaces(ctx, target, calls[1], nil); err != nil {
		return fmt.Errorf("referring: %w", err)
	}
	if err := transferred(ctx, calls[0]); err != nil {
		return err
	}
	return errors.Join(calls[0].Bye(ctx, "done"), calls[1].Bye(ctx, "done"))
}

// replacesTheOther checks two INVITEs: the second must name the call of the first, from
// sipp's view, and must have Referred-By.
func replacesTheOther(log []message) error {
	var first, second *message
	toTag := ""
	for _, m := range log {
		line, _, _ := m.parts()
		switch isInvite := strings.HasPrefix(line, "INVITE "); {
		case isInvite && first == nil:
			first = &m
		case isInvite && len(m.values("Replaces")) == 1:
			second = &m
		case toTag == "" && strings.HasPrefix(line, "SIP/2.0 200"):
			_, toTag, _ = strings.Cut(m.values("To")[0], ";tag=")
		}
	}
	if first == nil || second == nil {
		return errors.New("no second INVITE with Replaces")
	}
	_, fromTag, _ := strings.Cut(first.values("From")[0], ";tag=")
	want := first.values("Call-ID")[0] + ";from-tag=" + fromTag + ";to-tag=" + toTag
	if got := second.values("Replaces")[0]; got != want {
		return fmt.Errorf("the header is %q, expected %q", got, want)
	}
	if len(second.values("Referred-By")) != 1 {
		return errors.New("the INVITE with Replaces has no Referred-By")
	}
	return nil
}

// answerTransferring answers a call in which sipp sends REFERs.
func answerTransferring(ctx context.Context, d *dialog.Dialog) error {
	seen := watch(d)
	if err := accept(ctx, d); err != nil {
		return err
	}
	if err := seen.untilTerminated(ctx); err != nil {
		return err
	}
	return errors.Join(seen.states("Established", "Terminated"), endedBy(d, dialog.PartyRemote, "BYE"))
}

// followElsewhere follows a REFER with a Route to another stack, since the target of the
// REFER cannot be reached directly.
func followElsewhere(ctx context.Context, d *dialog.Dialog, to sip.Uri) error {
	protocol := protocolOf(d.Info().RemoteTarget)
	target, err := startStack(protocol)
	if err != nil {
		return err
	}
	answerUnlessBusy(ctx, target)
	route := loopback("", int(target.Addr().Port()), protocol)
	route.UriParams = append(route.UriParams, sip.HeaderKV{K: "lr"})
	call, err := d.FollowRefer(ctx, to, dialog.InviteOpts{
		Body:  dialog.NewBody("application/sdp", []byte(librarySDP)),
		Route: []sip.Uri{route},
	})
	var refused *dialog.ResponseError
	switch {
	case err == nil:
		err = call.Bye(ctx, "done")
	case to.User == "busy" && errors.As(err, &refused) && refused.StatusCode == sip.StatusBusyHere:
		err = nil
	}
	return errors.Join(err, target.Shutdown(ctx))
}

// protocolOf returns the transport of a target.
func protocolOf(target sip.Uri) string {
	if transport, found := target.UriParams.Get("transport"); found {
		return strings.ToLower(transport)
	}
	return "udp"
}

// startStack starts another stack.
func startStack(protocol string) (*dialog.Stack, error) {
	stack, err := dialog.NewStack(&dialog.StackConfig{Transport: &dialog.TransportConfig{Protocol: protocol, Address: "127.0.0.1"}})
	if err != nil {
		return nil, err
	}
	return stack, stack.Start(context.Background())
}

// answerUnlessBusy makes a stack ring. Its user "busy" refuses calls, other users answer
// them.
func answerUnlessBusy(ctx context.Context, target *dialog.Stack) {
	target.OnIncomingDialog(func(d dialog.IDialog) {
		pause(ctx, 100*time.Millisecond)
		if d.(*dialog.Dialog).Request().Recipient.User == "busy" {
			_ = d.Reject(ctx, sip.StatusBusyHere, "")
			return
		}
		_ = d.Accept(ctx, withSDP)
	})
}
