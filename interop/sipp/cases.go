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

const librarySDP = "v=0\r\n" +
	"o=library 7000 1 IN IP4 127.0.0.1\r\n" +
	"s=-\r\n" +
	"c=IN IP4 127.0.0.1\r\n" +
	"t=0 0\r\n" +
	"m=audio 17000 RTP/AVP 0\r\n" +
	"a=rtpmap:0 PCMU/8000\r\n"

// The case without ACK lasts 64*T1: 6.4 s instead of 32.
const (
	shortT1 = 100 * time.Millisecond
	shortT2 = 800 * time.Millisecond
)

// cases lists the longest first, so that the others run beside it.
func cases() []testCase {
	return slices.Concat(lastingCases(), []testCase{
		{name: "sipp-never-acks", scenario: "noack_in.xml", protocol: "udp", calls: 1, answer: answerUnacked,
			timers: dialog.Timers{T1: shortT1, T2: shortT2}, wire: repeatsUntilBye(shortT1, shortT2)},
		{name: "sipp-calls-udp", scenario: "call_in.xml", protocol: "udp", calls: 3, answer: answerUntilBye("o=sipp 100 1 ")},
		{name: "sipp-calls-tcp", scenario: "call_in.xml", protocol: "tcp", calls: 3, answer: answerUntilBye("o=sipp 100 1 ")},
		{name: "library-calls-udp", scenario: "call_out.xml", protocol: "udp", calls: 3, call: callAndBye},
		{name: "library-calls-tcp", scenario: "call_out.xml", protocol: "tcp", calls: 3, call: callAndBye},
		{name: "sipp-cancels", scenario: "cancel_in.xml", protocol: "udp", calls: 1, answer: ringUntilCancel},
		{name: "library-cancels", scenario: "cancel_out.xml", protocol: "udp", calls: 1, call: callAndCancel},
		{name: "library-refuses", scenario: "reject_in.xml", protocol: "udp", calls: 1, answer: refuse},
		{name: "sipp-refuses", scenario: "reject_out.xml", protocol: "udp", calls: 1, call: callRefused},
		{name: "hops-loose-callee", scenario: "route_in.xml", protocol: "udp", calls: 1, answer: answerAndBye},
		{name: "hops-loose-caller", scenario: "route_out.xml", protocol: "udp", calls: 1, call: callAndBye},
		{name: "hops-strict-caller", scenario: "strict_out.xml", protocol: "udp", calls: 1, call: callAndBye},
		{name: "digest-udp", scenario: "digest_out.xml", protocol: "udp", calls: 1, call: callAndBye, password: "secret", wire: proxyDigests("secret")},
		{name: "digest-tcp", scenario: "digest_out.xml", protocol: "tcp", calls: 1, call: callAndBye, password: "secret", wire: proxyDigests("secret")},
		{name: "digest-wrong", scenario: "digest_out.xml", protocol: "udp", calls: 1, call: callForbidden, password: "wrong"},
		{name: "digest-register", scenario: "register_out.xml", protocol: "udp", calls: 1, do: register, password: "secret"},
		{name: "sipp-forks", scenario: "fork_out.xml", protocol: "udp", calls: 1, call: callAndBye},
	}, overBoth(
		testCase{name: "sipp-acknowledges-early", scenario: "prack_in.xml", calls: 2, answer: answerEarly},
		testCase{name: "sipp-holds", scenario: "hold_in.xml", calls: 1, answer: answerUntilBye("o=sipp 100 1 ", "a=sendonly", "a=sendrecv")},
	), transferCases(), sessionCases(), offerCases(), renewalCases(), informCases(), identityCases())
}

// overBoth returns each case twice: over UDP, and with another name over TCP.
func overBoth(cases ...testCase) []testCase {
	var both []testCase
	for _, c := range cases {
		c.protocol = "udp"
		both = append(both, c)
		c.name, c.protocol = c.name+"-tcp", "tcp"
		both = append(both, c)
	}
	return both
}

func withSDP(res *sip.Response) {
	res.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	res.SetBody([]byte(librarySDP))
}

// accept checks the state of a call, and answers it.
func accept(ctx context.Context, d *dialog.Dialog) error {
	if state := d.State(); state != dialog.DialogStateRinging {
		return fmt.Errorf("an incoming call is %s", state)
	}
	if err := d.Accept(ctx, withSDP); err != nil {
		return fmt.Errorf("accepting: %w", err)
	}
	return nil
}

// answerUntilBye answers a call and waits for its end. bodies are the caller's expected
// offers.
func answerUntilBye(bodies ...string) func(ctx context.Context, d *dialog.Dialog) error {
	return func(ctx context.Context, d *dialog.Dialog) error {
		seen := watch(d)
		if err := accept(ctx, d); err != nil {
			return err
		}
		return untilBye(ctx, d, seen, bodies...)
	}
}

// untilBye waits until sipp has hung up an established call.
func untilBye(ctx context.Context, d *dialog.Dialog, seen *watcher, bodies ...string) error {
	if err := seen.untilTerminated(ctx); err != nil {
		return err
	}
	return errors.Join(
		seen.states("Established", "Terminated"),
		seen.bodies(bodies...),
		endedBy(d, dialog.PartyRemote, "BYE"))
}

// answerEarly answers the offer before the call: Accept must wait for the PRACK.
func answerEarly(ctx context.Context, d *dialog.Dialog) error {
	seen := watch(d)
	if err := d.Provisional(ctx, sip.StatusSessionInProgress, "", withSDP); err != nil {
		return fmt.Errorf("progress: %w", err)
	}
	if err := d.Accept(ctx); err != nil {
		return fmt.Errorf("accepting: %w", err)
	}
	return untilBye(ctx, d, seen, "o=sipp 100 1 ")
}

// answerAndBye hangs up at once: Bye must wait for the ACK.
func answerAndBye(ctx context.Context, d *dialog.Dialog) error {
	seen := watch(d)
	if err := accept(ctx, d); err != nil {
		return err
	}
	return hangUp(ctx, d, seen)
}

func answerUnacked(ctx context.Context, d *dialog.Dialog) error {
	seen := watch(d)
	if err := accept(ctx, d); err != nil {
		return err
	}
	if err := seen.untilTerminated(ctx); err != nil {
		return err
	}
	return errors.Join(seen.states("Established", "Terminated"), endedBy(d, dialog.PartyTimeout, "ACK"))
}

func ringUntilCancel(ctx context.Context, d *dialog.Dialog) error {
	seen := watch(d)
	if err := seen.untilTerminated(ctx); err != nil {
		return err
	}
	if err := d.Accept(ctx, withSDP); err == nil {
		return errors.New("accepting a cancelled call returned nil")
	}
	return errors.Join(seen.states("Terminated"), endedBy(d, dialog.PartyRemote, "CANCEL"))
}

func refuse(ctx context.Context, d *dialog.Dialog) error {
	seen := watch(d)
	if err := d.Reject(ctx, sip.StatusBusyHere, "Busy at lunch"); err != nil {
		return fmt.Errorf("refusing: %w", err)
	}
	if err := seen.untilTerminated(ctx); err != nil {
		return err
	}
	return errors.Join(seen.states("Terminated"), endedBy(d, dialog.PartyLocal, "INVITE"))
}

// invite places a call whose state changes are watched.
func invite(ctx context.Context, stack *dialog.Stack, target sip.Uri, opts dialog.InviteOpts) (*dialog.Dialog, *watcher, error) {
	placed, err := stack.NewInvite(ctx, target, opts)
	if err != nil {
		return nil, nil, fmt.Errorf("inviting: %w", err)
	}
	d := placed.(*dialog.Dialog)
	return d, watch(d), nil
}

func callAndBye(ctx context.Context, stack *dialog.Stack, target sip.Uri, opts dialog.InviteOpts) (*dialog.Dialog, error) {
	d, seen, err := established(ctx, stack, target, opts)
	if err != nil {
		return nil, err
	}
	if state := d.State(); state != dialog.DialogStateEstablished {
		return nil, fmt.Errorf("an answered call is %s", state)
	}
	pause(ctx, 300*time.Millisecond) // the call: the 200 of a second fork comes meanwhile
	return d, hangUp(ctx, d, seen)
}

func callAndCancel(ctx context.Context, stack *dialog.Stack, target sip.Uri, opts dialog.InviteOpts) (*dialog.Dialog, error) {
	d, seen, err := invite(ctx, stack, target, opts)
	if err != nil {
		return nil, err
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if err := d.WaitAnswer(short); !errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("WaitAnswer returned %v when its context ended", err)
	}
	if err := seen.untilTerminated(ctx); err != nil {
		return nil, err
	}
	if err := d.WaitAnswer(ctx); err == nil {
		return nil, errors.New("WaitAnswer returned nil for a cancelled call")
	}
	return d, errors.Join(seen.states("Terminated"), endedBy(d, dialog.PartyLocal, "CANCEL"))
}

func callRefused(ctx context.Context, stack *dialog.Stack, target sip.Uri, opts dialog.InviteOpts) (*dialog.Dialog, error) {
	return callEndedBy(ctx, stack, target, opts, sip.StatusBusyHere)
}

// callForbidden expects sipp's response to a wrong digest.
func callForbidden(ctx context.Context, stack *dialog.Stack, target sip.Uri, opts dialog.InviteOpts) (*dialog.Dialog, error) {
	return callEndedBy(ctx, stack, target, opts, sip.StatusForbidden)
}

func callEndedBy(ctx context.Context, stack *dialog.Stack, target sip.Uri, opts dialog.InviteOpts, code int) (*dialog.Dialog, error) {
	d, seen, err := invite(ctx, stack, target, opts)
	if err != nil {
		return nil, err
	}
	err = d.WaitAnswer(ctx)
	var refused *dialog.ResponseError
	if !errors.As(err, &refused) || refused.StatusCode != code {
		return nil, fmt.Errorf("WaitAnswer returned %v for a %d", err, code)
	}
	if err := seen.untilTerminated(ctx); err != nil {
		return nil, err
	}
	return d, errors.Join(seen.states("Terminated"), endedBy(d, dialog.PartyRemote, "INVITE"))
}

// register sends a REGISTER, whose Contact gets its host from the stack.
func register(ctx context.Context, stack *dialog.Stack, target sip.Uri) error {
	target.User = ""
	req := sip.NewRequest(sip.REGISTER, target)
	req.AppendHeader(&sip.ContactHeader{Address: sip.Uri{User: "library"}, Params: sip.NewParams()})
	req.AppendHeader(sip.NewHeader("Expires", "60"))
	res, err := stack.Do(ctx, req)
	if err != nil {
		return fmt.Errorf("registering: %w", err)
	}
	if res.StatusCode != sip.StatusOK {
		return fmt.Errorf("REGISTER was answered %d %s", res.StatusCode, res.Reason)
	}
	return nil
}

func endedBy(d *dialog.Dialog, by dialog.Party, method string) error {
	if cause := d.Cause(); cause.By != by || !strings.EqualFold(cause.Method, method) {
		return fmt.Errorf("cause is %q, expected %s %s", cause, by, method)
	}
	return nil
}
