package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
)

// testCase is a stack and a sipp with one scenario. Exactly one of answer, call and do
// is set: it decides which side calls.
type testCase struct {
	name     string
	scenario string
	protocol string
	calls    int
	// lasts is the wait for a timer that cannot be shortened. The case has so much more
	// time, and runs beside the others.
	lasts time.Duration
	// outcomes is the number of outcomes of the library; zero: one for each call.
	outcomes int
	timers   dialog.Timers
	network  dialog.Network // nil: the operating system's
	// password is that of the user "library" in every realm; empty: none.
	password string
	// configure, if not nil, changes the stack's configuration.
	configure func(config *dialog.StackConfig)
	// answer plays the library's side of a call that sipp makes.
	answer func(ctx context.Context, d *dialog.Dialog) error
	// refer follows a REFER of sipp in that call. Its result is an outcome too.
	refer func(ctx context.Context, d *dialog.Dialog, to sip.Uri) error
	// call makes a call to sipp and plays it to its end.
	call func(ctx context.Context, stack *dialog.Stack, target sip.Uri, opts dialog.InviteOpts) (*dialog.Dialog, error)
	// do sends sipp requests outside calls.
	do func(ctx context.Context, stack *dialog.Stack, target sip.Uri) error
	// wire, if not nil, checks the messages that sipp sent and received.
	wire func(log []message) error
}

// outcome is the result of one call on the library's side. For a request outside calls
// it has no dialog.
type outcome struct {
	dialog *dialog.Dialog
	err    error
}

// limit bounds the case.
func (c testCase) limit() time.Duration { return caseLimit + c.lasts }

// run plays the case, with sipp's files in dir. It repeats the case if sipp's port was
// taken.
func (c testCase) run(dir string) error {
	for tries := 1; ; tries++ {
		err := c.once(dir)
		if !errors.Is(err, errPortTaken) || tries == maxTries {
			return err
		}
	}
}

func (c testCase) once(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.limit())
	defer cancel()
	config := &dialog.StackConfig{
		Transport:   &dialog.TransportConfig{Protocol: c.protocol, Address: "127.0.0.1", Port: 0},
		UserAgent:   "library/1.0",
		Timers:      c.timers,
		Network:     c.network,
		Credentials: c.credentials,
	}
	if c.configure != nil {
		c.configure(config)
	}
	stack, err := dialog.NewStack(config)
	if err != nil {
		return err
	}
	if err := stack.Start(context.Background()); err != nil {
		return err
	}
	playErr := c.play(ctx, stack, dir)
	grace := 5 * time.Second
	if playErr != nil {
		grace = 100 * time.Millisecond // sipp has exited and answers nothing
	}
	shutdownCtx, release := context.WithTimeout(context.Background(), grace)
	defer release()
	if err := stack.Shutdown(shutdownCtx); err != nil && playErr == nil {
		return fmt.Errorf("shutting down: %w", err)
	}
	return playErr
}

// credentials returns the stack's answer to a challenge.
func (c testCase) credentials(string) (username, password string, ok bool) {
	return "library", c.password, c.password != ""
}

func (c testCase) play(ctx context.Context, stack *dialog.Stack, dir string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	outcomes := make(chan outcome)
	deliver := func(d *dialog.Dialog, err error) {
		select {
		case outcomes <- outcome{d, err}:
		case <-ctx.Done():
		}
	}
	if c.refer != nil {
		stack.OnIncomingRefer(func(d dialog.IDialog, to sip.Uri, _ *dialog.ReplacesInfo) {
			deliver(nil, c.refer(ctx, d.(*dialog.Dialog), to))
		})
	}
	sipp, err := c.connect(ctx, stack, dir, deliver)
	if err != nil {
		return err
	}
	exited := make(chan error, 1)
	go func() { exited <- sipp.wait() }()

	dialogs, err := c.collect(ctx, outcomes, exited)
	if err != nil {
		return err
	}
	for _, d := range dialogs {
		if d == nil {
			continue
		}
		if _, found := stack.DialogByKey(d.Key()); found {
			return fmt.Errorf("the stack still has dialog %+v in state %s", d.Key(), d.State())
		}
	}
	return c.judge(filepath.Join(dir, messageLog))
}

// connect starts sipp and lets one side call the other.
func (c testCase) connect(ctx context.Context, stack *dialog.Stack, dir string, deliver func(*dialog.Dialog, error)) (*child, error) {
	if c.answer != nil {
		stack.OnIncomingDialog(func(incoming dialog.IDialog) {
			d := incoming.(*dialog.Dialog)
			deliver(d, c.answer(ctx, d))
		})
		return startSipp(ctx, c, dir, stack.Addr().String())
	}
	sipp, err := startSipp(ctx, c, dir, "")
	if err != nil {
		return nil, err
	}
	if err := sipp.waitListening(ctx, c.protocol); err != nil {
		return nil, errors.Join(err, sipp.wait())
	}
	target := loopback("sipp", sipp.port, c.protocol)
	opts := dialog.InviteOpts{Body: dialog.NewBody("application/sdp", []byte(librarySDP))}
	for range c.expected() {
		go func() {
			if c.do != nil {
				deliver(nil, c.do(ctx, stack, target))
				return
			}
			deliver(c.call(ctx, stack, target, opts))
		}()
	}
	return sipp, nil
}

// loopback returns the URI of a UA that listens on a port.
func loopback(user string, port int, protocol string) sip.Uri {
	uri := sip.Uri{Scheme: "sip", User: user, Host: "127.0.0.1", Port: port}
	if protocol == "tcp" {
		uri.UriParams = sip.HeaderParams{{K: "transport", V: "tcp"}}
	}
	return uri
}

func (c testCase) expected() int {
	if c.outcomes > 0 {
		return c.outcomes
	}
	return c.calls
}

// collect waits for every call and for sipp. It stops if sipp or the library fails.
func (c testCase) collect(ctx context.Context, outcomes <-chan outcome, exited <-chan error) ([]*dialog.Dialog, error) {
	var dialogs []*dialog.Dialog
	for done := false; !done || len(dialogs) < c.expected(); {
		select {
		case o := <-outcomes:
			if o.err != nil {
				return nil, c.failed(ctx, o.err, exited, done)
			}
			dialogs = append(dialogs, o.dialog)
		case err := <-exited:
			if err != nil {
				return nil, err
			}
			done = true
		case <-ctx.Done():
			return nil, fmt.Errorf("not over after %s: %d of %d calls ended, sipp has exited: %t", c.limit(), len(dialogs), c.expected(), done)
		}
	}
	return dialogs, nil
}

// failed adds sipp's error to the library's, if sipp exits soon.
func (c testCase) failed(ctx context.Context, err error, exited <-chan error, done bool) error {
	err = fmt.Errorf("library: %w", err)
	if done {
		return err
	}
	soon, cancel := context.WithTimeout(ctx, 7*time.Second)
	defer cancel()
	select {
	case sippErr := <-exited:
		return errors.Join(err, sippErr)
	case <-soon.Done():
		return errors.Join(err, errors.New("sipp: still running"))
	}
}

// judge reads sipp's log and checks every message of the library.
func (c testCase) judge(path string) error {
	log, err := readLog(path)
	if err != nil {
		return err
	}
	if len(log) == 0 {
		return fmt.Errorf("no message can be read from %s", path)
	}
	for _, m := range log {
		if !m.received {
			continue
		}
		if err := m.wellFormed(); err != nil {
			return fmt.Errorf("%w in\n%s", err, indent(m.text))
		}
	}
	if c.wire == nil {
		return nil
	}
	return c.wire(log)
}
