package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"sipdialog.example/dialog"
)

// scene has the three people and the calls between them. One goroutine plays it; a step
// stores the values that later steps need.
type scene struct {
	record            *record
	alice, bob, carol *person

	alicesCall, bobsCall *call // alice to bob
	newCall, carolsCall  *call // bob to carol
	sent, received       *dialog.ReferSubscription
}

// step is an action, with the messages and notes expected after it.
type step struct {
	name  string
	do    func(ctx context.Context) error
	flow  []string
	notes []string
	// check, unless nil, checks further conditions.
	check func() error
}

func openScene(ctx context.Context, logger *slog.Logger) (*scene, error) {
	s := &scene{record: newRecord()}
	for _, p := range []struct {
		name    string
		session time.Duration
		at      **person
	}{{"alice", 90 * time.Second, &s.alice}, {"bob", 0, &s.bob}, {"carol", 0, &s.carol}} {
		started, err := newPerson(ctx, p.name, p.session, s.record, logger)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("start %s: %w", p.name, err), s.close(ctx))
		}
		*p.at = started
	}
	return s, nil
}

// close shuts the stacks down.
func (s *scene) close(ctx context.Context) error {
	var errs []error
	for _, p := range []*person{s.alice, s.bob, s.carol} {
		if p == nil {
			continue
		}
		if err := p.stack.Shutdown(ctx); err != nil {
			errs = append(errs, fmt.Errorf("shut %s down: %w", p.name, err))
		}
	}
	return errors.Join(errs...)
}

// play runs the steps up to the first that fails.
func (s *scene) play(ctx context.Context, steps []step, out io.Writer) error {
	for i, next := range steps {
		if err := s.playStep(ctx, next); err != nil {
			return fmt.Errorf("step %d, %s: %w", i+1, next.name, err)
		}
		_, _ = fmt.Fprintf(out, "%d. %s\n", i+1, next.name)
	}
	return nil
}

func (s *scene) playStep(ctx context.Context, next step) error {
	if err := next.do(ctx); err != nil {
		return err
	}
	if err := s.record.expect(ctx, next.flow, next.notes); err != nil {
		return err
	}
	if next.check != nil {
		return next.check()
	}
	return nil
}
