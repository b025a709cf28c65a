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
	*memory.Store

	mu  sync.Mutex // guards the fields below
	ops []string
	// fault, unless nil, is called before each operation: it may wait, and its error is the
	// operation's, which is then not done.
	fault func(ctx context.Context, op string) error
	// saved are the records, the latest last.
	saved []dialog.Record
}

func newFaultyStore() *faultyStore { return &faultyStore{Store: memory.New()} }

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
	r.Data = slices.Clone(r.Data)
	s.mu.Lock()
	s.saved = append(s.saved, r)
	s.mu.Unlock()
	return s.Store.Save(ctx, r)
}

func (s *faultyStore) Check(ctx context.Context, key dialog.StoreKey, fence uint64) error {
	if err := s.asked(ctx, "Check"); err != nil {
		return err
	}
	return s.Store.Check(ctx, key, fence)
}

func (s *faultyStore) Drop(ctx context.Context, key dialog.StoreKey, fence uint64, tomb time.Duration) error {
	if err := s.asked(ctx, "Drop"); err != nil {
		return err
	}
	return s.Store.Drop(ctx, key, fence, tomb)
}

// keeping has a stack keep its calls.
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
