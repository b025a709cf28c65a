package test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/store/memory"
)

// link is a Store as one process sees it: the results of its operations can be set.
type link struct {
	*memory.Store

	mu     sync.Mutex // guards the fields below
	before func(ctx context.Context, operation string) error
	count  map[string]int
}

// errNoStore is what a Store that is down says.
var errNoStore = errors.New("no connection")

// meets has f run before each operation, which fails with its error.
func (k *link) meets(f func(ctx context.Context, operation string) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.before = f
}

// cut has every operation fail.
func (k *link) cut() { k.meets(func(context.Context, string) error { return errNoStore }) }

// calls is how often an operation was called.
func (k *link) calls(operation string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.count[operation]
}

func (k *link) meet(ctx context.Context, operation string) error {
	k.mu.Lock()
	before := k.before
	k.count[operation]++
	k.mu.Unlock()
	if before == nil {
		return nil
	}
	return before(ctx, operation)
}

func (k *link) base() *memory.Store {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.Store
}

func (k *link) Save(ctx context.Context, r dialog.Record) error {
	if err := k.meet(ctx, "Save"); err != nil {
		return err
	}
	return k.base().Save(ctx, r)
}

func (k *link) Take(ctx context.Context, key dialog.StoreKey, owner string) (dialog.Record, error) {
	if err := k.meet(ctx, "Take"); err != nil {
		return dialog.Record{}, err
	}
	return k.base().Take(ctx, key, owner)
}

func (k *link) Check(ctx context.Context, key dialog.StoreKey, fence uint64) error {
	if err := k.meet(ctx, "Check"); err != nil {
		return err
	}
	return k.base().Check(ctx, key, fence)
}

func (k *link) Drop(ctx context.Context, key dialog.StoreKey, fence uint64, tomb time.Duration) error {
	if err := k.meet(ctx, "Drop"); err != nil {
		return err
	}
	return k.base().Drop(ctx, key, fence, tomb)
}

func (k *link) Due(ctx context.Context, before time.Time, owner string, n int) ([]dialog.Record, error) {
	if err := k.meet(ctx, "Due"); err != nil {
		return nil, err
	}
	return k.base().Due(ctx, before, owner, n)
}

func (k *link) Peek(ctx context.Context, key dialog.StoreKey) (dialog.Record, error) {
	if err := k.meet(ctx, "Peek"); err != nil {
		return dialog.Record{}, err
	}
	return k.base().Peek(ctx, key)
}

func (k *link) DueIf(ctx context.Context, before time.Time, owner string, n int, usable func(dialog.Record) bool) ([]dialog.Record, error) {
	if err := k.meet(ctx, "DueIf"); err != nil {
		return nil, err
	}
	return k.base().DueIf(ctx, before, owner, n, usable)
}

func newLink(store *memory.Store) *link { return &link{Store: store, count: make(map[string]int)} }

// process starts a stack with a Store, by a link of its own.
func (w *world) process(ip string, store *memory.Store, change ...func(*dialog.StackConfig)) (*dialog.Stack, *link) {
	w.t.Helper()
	k := newLink(store)
	kept := func(c *dialog.StackConfig) { c.Store = k }
	return w.stack(ip, append([]func(*dialog.StackConfig){kept}, change...)...), k
}

// kill is crash for a process with a Store.
func (w *world) kill(s *dialog.Stack, k *link) {
	w.t.Helper()
	k.cut()
	w.crash(s)
}

// restores are the calls that a stack has taken over.
type restores struct {
	mu   sync.Mutex
	list []restore
}

type restore struct {
	*dialog.Dialog
	why dialog.Takeover
}

// restoring records the calls that a stack takes over.
func restoring(s *dialog.Stack) *restores {
	r := &restores{}
	s.OnRestored(func(d *dialog.Dialog, why dialog.Takeover) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.list = append(r.list, restore{d, why})
	})
	return r
}

func (r *restores) all() []restore {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]restore(nil), r.list...)
}

// takenOver is the one call that was taken over, because of that method.
func (l *peerCall) takenOver(r *restores, method sip.RequestMethod) *dialog.Dialog {
	l.t.Helper()
	list := r.all()
	require.Len(l.t, list, 1)
	require.Equal(l.t, method, list[0].why.Method)
	l.d = list[0].Dialog
	return l.d
}

// failsOver kills the process of a call and starts another one at the same address, with the
// same Store.
func (l *peerCall) failsOver(k *link, store *memory.Store, change ...func(*dialog.StackConfig)) (*dialog.Stack, *link) {
	l.t.Helper()
	old, _ := l.w.stackAt(l.stack)
	l.w.kill(old, k)
	return l.w.process(l.stack.Addr().String(), store, change...)
}

// oneCall is the only call of a stack.
func oneCall(t *testing.T, s *dialog.Stack) *dialog.Dialog {
	t.Helper()
	list := s.Dialogs()
	require.Len(t, list, 1)
	return list[0]
}
