package test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/store/memory"
)

// faultyStore is a Store that notes what it is asked, and fails as fault says.
type faultyStore struct {
	kept *memory.Store

	mu  sync.Mutex // guards the fields below
	ops []string
	// fault, unless nil, is called before each operation: it may wait, and its error is the
	// operation's, which is then not done.
	fault func(ctx context.Context, op string) error
	// saved are the records that were written, the latest last.
	saved []dialog.Record
	// nothingDue is true for a store that gives out nothing that is overdue.
	nothingDue bool
}

func newFaultyStore() *faultyStore { return &faultyStore{kept: memory.New()} }

func (s *faultyStore) fails(fault func(ctx context.Context, op string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

func (s *faultyStore) asked(ctx context.Context, op string) error {
	s.mu.Lock()
	s.ops = append(s.ops, op)
	fault := s.fault
	s.mu.Unlock()
	if fault == nil {
		return nil
	}
	return fault(ctx, op)
}

// did returns the operations since the last did.
func (s *faultyStore) did() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	did := s.ops
	s.ops = nil
	return did
}

func (s *faultyStore) latest() dialog.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saved[len(s.saved)-1]
}

func (s *faultyStore) Save(ctx context.Context, r dialog.Record) error {
	if err := s.asked(ctx, "Save"); err != nil {
		return err
	}
	if err := s.kept.Save(ctx, r); err != nil {
		return err
	}
	r.Data = slices.Clone(r.Data)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saved = append(s.saved, r)
	return nil
}

func (s *faultyStore) Check(ctx context.Context, key dialog.StoreKey, fence uint64) error {
	if err := s.asked(ctx, "Check"); err != nil {
		return err
	}
	return s.kept.Check(ctx, key, fence)
}

func (s *faultyStore) Drop(ctx context.Context, key dialog.StoreKey, fence uint64, tomb time.Duration) error {
	if err := s.asked(ctx, "Drop"); err != nil {
		return err
	}
	return s.kept.Drop(ctx, key, fence, tomb)
}

func (s *faultyStore) Take(ctx context.Context, key dialog.StoreKey, owner string) (dialog.Record, error) {
	if err := s.asked(ctx, "Take"); err != nil {
		return dialog.Record{}, err
	}
	return s.kept.Take(ctx, key, owner)
}

func (s *faultyStore) Due(ctx context.Context, before time.Time, owner string, n int) ([]dialog.Record, error) {
	s.mu.Lock()
	fault, nothing := s.fault, s.nothingDue
	s.mu.Unlock()
	if nothing {
		return nil, nil
	}
	if fault != nil {
		if err := fault(ctx, "Due"); err != nil {
			return nil, err
		}
	}
	return s.kept.Due(ctx, before, owner, n)
}

// Len counts the calls that are kept.
func (s *faultyStore) Len() int { return s.kept.Len() }

// keeping has a stack keep its calls.
// promptStore is a Store that promises to be prompt.
type promptStore struct{ dialog.Store }

func (s *promptStore) Prompt() dialog.Store { return s }

func (s *promptStore) DropAll(ctx context.Context, calls []dialog.Record, tomb time.Duration) (errs []error) {
	for _, r := range calls {
		errs = append(errs, s.Drop(ctx, r.Key, r.Fence, tomb))
	}
	return errs
}

// promptIf makes a Store prompt, or not.
func promptIf(isPrompt bool, store dialog.Store) dialog.Store {
	if isPrompt {
		return &promptStore{store}
	}
	return store
}

func keeping(store dialog.Store) func(*dialog.StackConfig) {
	return func(c *dialog.StackConfig) { c.Store, c.Node = store, "one" }
}

// A plain call is written twice: when it is answered and when it ends, at either end.
func TestPlainCallIsWrittenTwice(t *testing.T) {
	for _, durability := range []dialog.Durability{dialog.BeforeAnswer, dialog.Async} {
		for _, ours := range []bool{true, false} {
			bubble(t, func(t *testing.T, w *world) {
				store := newFaultyStore()
				s, p := w.stack(stackIP, keeping(store), func(c *dialog.StackConfig) { c.Durability = durability }), w.peer(peerIP)
				var l *peerCall
				if ours {
					l = w.outgoing(s, p)
				} else {
					l = w.incoming(s, p)
				}
				require.Equal(t, []string{"Save"}, store.did())
				require.Equal(t, 1, store.Len())
				require.Regexp(t, `^one\.[0-9a-f]{8}$`, store.latest().Owner)
				for range 10 {
					l.exchange(func(ctx context.Context) error { return l.d.SendInfo(ctx, nil) }, "INFO", dialogtest.Response{Code: 200})
					l.theirs("OPTIONS", 200)
				}
				l.hangUp(p)
				synctest.Wait()
				require.Equal(t, []string{"Drop"}, store.did())
				require.Zero(t, store.Len())
				_, err := store.Take(context.Background(), store.latest().Key, "other")
				require.ErrorIs(t, err, dialog.ErrEnded)
				require.Zero(t, s.Stats().Unwritten)
			})
		}
	}
}

// A sweep may take a call that is due while the peer's BYE is answered here. That call has
// ended, whoever has it; one that we have ended may go on elsewhere: the peer may not have
// taken our BYE for the call's.
func TestCallThatIsTakenAtItsEndIsLeftOnlyIfThePeerMayHaveIt(t *testing.T) {
	for _, ours := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			store := newFaultyStore()
			s, p := w.stack(stackIP, keeping(store)), w.peer(peerIP)
			l := w.incoming(s, p)
			key := store.latest().Key
			store.did()
			taken := false
			store.fails(func(ctx context.Context, op string) error {
				if op == "Drop" && !taken {
					taken = true
					_, err := store.kept.Take(ctx, key, "other")
					return err
				}
				return nil
			})
			if ours {
				l.exchange(func(ctx context.Context) error { return l.d.Bye(ctx, "") }, "BYE", dialogtest.Response{Code: 200})
			} else {
				l.theirs("BYE", 200)
			}
			synctest.Wait()
			require.True(t, taken)
			require.Zero(t, s.Stats().Unwritten)
			_, err := store.kept.Take(context.Background(), key, "third")
			if ours {
				require.NoError(t, err)
				require.Equal(t, []string{"Drop"}, store.did())
				return
			}
			require.ErrorIs(t, err, dialog.ErrEnded)
			require.Equal(t, []string{"Drop", "Take", "Drop"}, store.did())
		})
	}
}

// silent is a store that does not answer.
func silent(ctx context.Context, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

// slow is a store that takes its time.
func slow(wait time.Duration) func(context.Context, string) error {
	return func(ctx context.Context, _ string) error {
		select {
		case <-time.After(wait):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// With BeforeAnswer the 200, or the ACK, leaves when the call is saved, and a call whose
// session changes is saved before that is agreed upon. With Async nothing waits.
func TestAnswersWaitUntilTheCallIsSaved(t *testing.T) {
	const wait = 100 * time.Millisecond
	for i, durability := range []dialog.Durability{dialog.BeforeAnswer, dialog.Async, dialog.BeforeAnswer, dialog.Async} {
		bubble(t, func(t *testing.T, w *world) {
			store, p := newFaultyStore(), w.peer(peerIP)
			store.fails(slow(wait))
			s := w.stack(stackIP, keeping(promptIf(i > 1, store)), func(c *dialog.StackConfig) { c.Durability = durability })
			takes := func(what string, most time.Duration, do func()) {
				t.Helper()
				began := time.Now()
				do()
				took := time.Since(began)
				if durability == dialog.Async {
					most = 0
				}
				require.GreaterOrEqual(t, took, most, what)
				require.Less(t, took, most+wait/2, what)
			}
			var l *peerCall
			takes("200", wait, func() {
				l = w.rings(s, p)
				accepted := began(func() error { return l.d.Accept(context.Background(), withSDP(answerSDP)) })
				l.final = l.next("200 INVITE")
				require.NoError(t, <-accepted)
				l.acknowledge(1)
				synctest.Wait()
			})
			time.Sleep(time.Second)
			takes("hold of theirs", wait, func() { l.theirs("INVITE", 200, withBody(heldSDP)) })
			time.Sleep(time.Second)
			takes("refresh of theirs", 0, func() { l.theirs("UPDATE", 200) })
			time.Sleep(time.Second)
			takes("UPDATE of theirs", wait, func() { l.theirs("UPDATE", 200, withBody(versioned(offerSDP, 3))) })
			time.Sleep(time.Second)
			takes("our hold", wait, func() { l.exchange(l.d.Hold, "INVITE", granted(answerSDP)) })
			time.Sleep(time.Second)
			l.hangUp(p)
			takes("ACK", wait, func() {
				l = w.calls(s, p, offer(offerSDP))
				l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
				l.next("ACK")
				require.NoError(t, l.d.WaitAnswer(context.Background()))
			})
			time.Sleep(time.Second)
			takes("BYE", 0, func() { hangUp(t, l.d, p) })
			time.Sleep(time.Second)
			require.Zero(t, s.Stats().Unsaved)
			require.Zero(t, store.Len())
		})
	}
}

// A store that does not answer delays an answer by the StoreTimeout, and no call ends by it.
func TestCallsGoOnWithoutTheStore(t *testing.T) {
	for _, ours := range []bool{true, false} {
		bubble(t, func(t *testing.T, w *world) {
			store, p := newFaultyStore(), w.peer(peerIP)
			store.fails(silent)
			s := w.stack(stackIP, keeping(store), func(c *dialog.StackConfig) { c.StoreTimeout = 300 * time.Millisecond })
			began := time.Now()
			var l *peerCall
			if ours {
				l = w.outgoing(s, p)
			} else {
				l = w.incoming(s, p)
			}
			require.Equal(t, 300*time.Millisecond, time.Since(began))
			require.Equal(t, uint64(1), s.Stats().Unsaved)
			for range 150 {
				l.exchange(func(ctx context.Context) error { return l.d.SendInfo(ctx, nil) }, "INFO", dialogtest.Response{Code: 200})
			}
			require.Zero(t, store.Len())
			require.Equal(t, 1, s.Stats().Unwritten)
			store.fails(nil)
			time.Sleep(10 * time.Second)
			require.Equal(t, 1, store.Len())
			require.Zero(t, s.Stats().Unwritten)
			store.fails(silent)
			l.hangUp(p)
			store.fails(nil)
			time.Sleep(10 * time.Second)
			require.Zero(t, store.Len())
		})
	}
}

// A CANCEL, or a BYE, that comes while the 200 waits for the store ends the call: the INVITE
// gets 487 (RFC 3261 9.2, 15.1.2), and the store keeps nothing.
func TestCallerGivesUpWhileTheCallIsSaved(t *testing.T) {
	for _, method := range []string{"CANCEL", "BYE"} {
		bubble(t, func(t *testing.T, w *world) {
			store, p := newFaultyStore(), w.peer(peerIP)
			store.fails(slow(200 * time.Millisecond))
			s := w.stack(stackIP, keeping(store))
			l := w.rings(s, p, func(r *dialogtest.Request) { r.Branch = "z9hG4bKheld" })
			accepted := began(func() error { return l.d.Accept(context.Background(), withSDP(answerSDP)) })
			time.Sleep(50 * time.Millisecond)
			if method == "CANCEL" {
				require.NoError(t, p.Send(l.stack, p.Request(dialogtest.Request{
					Method: "CANCEL", URI: l.stackURI, From: l.peerURI, FromTag: farTag, Branch: "z9hG4bKheld", CallID: l.callID, CSeq: 1,
				})))
			} else {
				l.ask("BYE")
			}
			p.next("200 " + method)
			require.Equal(t, 487, p.final("INVITE").StatusCode)
			require.ErrorIs(t, <-accepted, dialog.ErrAnswered)
			require.Equal(t, dialog.DialogStateTerminated, l.d.State())
			require.Equal(t, method, l.d.Cause().Method)
			l.acknowledge(1)
			time.Sleep(time.Second)
			require.Zero(t, store.Len())
			require.Empty(t, w.sent(stackIP, "200 INVITE"))
			require.Empty(t, w.sent(stackIP, "BYE"))
		})
	}
}
