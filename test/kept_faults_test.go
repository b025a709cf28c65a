package test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/store/memory"
)

// forgetting is a Store that can forget what it has acknowledged: it then has what it had
// when it was asked to remember.
type forgetting struct {
	mu         sync.Mutex // guards the fields below
	now        map[dialog.StoreKey]dialog.Record
	remembered map[dialog.StoreKey]dialog.Record
	tombs      map[dialog.StoreKey]uint64
}

func newForgetting() *forgetting {
	return &forgetting{now: map[dialog.StoreKey]dialog.Record{}, tombs: map[dialog.StoreKey]uint64{}}
}

func (f *forgetting) remember() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.remembered = map[dialog.StoreKey]dialog.Record{}
	for key, r := range f.now {
		f.remembered[key] = r
	}
}

func (f *forgetting) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now, f.tombs = f.remembered, map[dialog.StoreKey]uint64{}
}

func (f *forgetting) Len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.now)
}

func (f *forgetting) mayLocked(key dialog.StoreKey, fence uint64) error {
	if tomb, ended := f.tombs[key]; ended && tomb >= fence {
		return dialog.ErrEnded
	}
	if r, ok := f.now[key]; ok && r.Fence > fence {
		return dialog.ErrMoved
	}
	return nil
}

func (f *forgetting) Save(_ context.Context, r dialog.Record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.mayLocked(r.Key, r.Fence); err != nil {
		return err
	}
	if held, ok := f.now[r.Key]; ok && held.Fence == r.Fence && held.Owner != r.Owner {
		return dialog.ErrMoved
	}
	delete(f.tombs, r.Key)
	f.now[r.Key] = r
	return nil
}

func (f *forgetting) Take(_ context.Context, key dialog.StoreKey, owner string) (dialog.Record, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ended := f.tombs[key]; ended {
		return dialog.Record{}, dialog.ErrEnded
	}
	r, ok := f.now[key]
	if !ok {
		return dialog.Record{}, dialog.ErrNotKept
	}
	r.Fence, r.Owner = r.Fence+1, owner
	f.now[key] = r
	return r, nil
}

func (f *forgetting) Check(_ context.Context, key dialog.StoreKey, fence uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, kept := f.now[key]
	_, ended := f.tombs[key]
	if !kept && !ended {
		return dialog.ErrNotKept
	}
	return f.mayLocked(key, fence)
}

func (f *forgetting) Drop(_ context.Context, key dialog.StoreKey, fence uint64, _ time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r, ok := f.now[key]; ok && r.Fence > fence {
		return dialog.ErrMoved
	}
	delete(f.now, key)
	f.tombs[key] = fence
	return nil
}

func (f *forgetting) Due(_ context.Context, before time.Time, owner string, n int) (list []dialog.Record, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, r := range f.now {
		if len(list) == n || r.Due.IsZero() || r.Due.After(before) {
			continue
		}
		r.Fence, r.Owner, r.Due = r.Fence+1, owner, before.Add(dialog.ClaimTime)
		f.now[key] = r
		list = append(list, r)
	}
	return list, nil
}

// severed is a Store as one process sees it, until it is cut off.
type severed struct {
	dialog.Store
	cut atomic.Bool
}

func (s *severed) Save(ctx context.Context, r dialog.Record) error {
	if s.cut.Load() {
		return errNoStore
	}
	return s.Store.Save(ctx, r)
}

func (s *severed) Drop(ctx context.Context, key dialog.StoreKey, fence uint64, tomb time.Duration) error {
	if s.cut.Load() {
		return errNoStore
	}
	return s.Store.Drop(ctx, key, fence, tomb)
}

// keptBy starts a stack that keeps its calls in a store, and returns what kills it.
func (w *world) keptBy(ip string, store dialog.Store) (s *dialog.Stack, kill func()) {
	w.t.Helper()
	by := &severed{Store: store}
	s = w.stack(ip, func(c *dialog.StackConfig) { c.Store, c.SessionExpires = by, 30*time.Minute })
	return s, func() { by.cut.Store(true); w.crash(s) }
}

// info has a call send an INFO, and returns its number.
func (l *peerCall) info() uint32 {
	l.t.Helper()
	sent := began(func() error { return l.d.SendInfo(context.Background(), nil) })
	in := l.next("INFO")
	l.reply(in, dialogtest.Response{Code: 200})
	require.NoError(l.t, <-sent)
	return in.Request().CSeq().SeqNo
}

// A store fails over, and the changes since some moment are gone, though they were
// acknowledged. The call goes on, with numbers above all that were used.
func TestStoreThatForgetsEndsNoCall(t *testing.T) {
	t.Run("the latest saves, and its process dies", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			f, p := newForgetting(), w.peer(peerIP)
			s, kill := w.keptBy(stackIP, f)
			l := w.incoming(s, p)
			f.remember()
			var last uint32
			for range 150 {
				last = l.info()
			}
			f.forget()
			kill()
			s, _ = w.keptBy(stackIP, f)
			l.theirs("INFO", 200)
			l.d = oneCall(t, s)
			require.Greater(t, l.info(), last)
			hangUp(t, l.d, p)
			require.Zero(t, f.Len())
		})
	})
	t.Run("everything, and its process lives", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			f, p := newForgetting(), w.peer(peerIP)
			f.remember()
			s, _ := w.keptBy(stackIP, f)
			l := w.incoming(s, p)
			f.forget()
			l.theirs("INFO", 200)
			l.info()
			time.Sleep(5 * time.Minute)
			require.Equal(t, 1, f.Len())
			require.Equal(t, dialog.DialogStateEstablished, l.d.State())
			hangUp(t, l.d, p)
			require.Zero(t, f.Len())
		})
	})
	t.Run("a change of owner, to a process that lives", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			f, p := newForgetting(), w.peer(peerIP)
			s, kill := w.keptBy(stackIP, f)
			l := w.incoming(s, p)
			f.remember()
			kill()
			second, _ := w.keptBy(otherIP, f)
			third, _ := w.keptBy("10.0.0.4", f)
			l.stack = second.Addr()
			l.theirs("INFO", 200)
			l.d = oneCall(t, second)
			last := l.info()
			f.forget() // the third gets the same fence
			l.stack = third.Addr()
			l.theirs("INFO", 200)
			list := []*dialog.Dialog{l.d, oneCall(t, third)}
			for _, d := range list {
				require.NoError(t, d.SetAppData([]byte("mine")))
			}
			time.Sleep(5 * time.Minute)
			require.Empty(t, w.sent(otherIP, "BYE"))
			require.Empty(t, w.sent("10.0.0.4", "BYE"))
			require.Equal(t, 1, f.Len())
			alive := second.Dialogs()
			alive = append(alive, third.Dialogs()...)
			require.Len(t, alive, 1, "the first that saves has it")
			l.d = alive[0]
			require.GreaterOrEqual(t, l.info(), last)
			hangUp(t, l.d, p)
			require.Zero(t, f.Len())
		})
	})
	t.Run("the end of a call", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			f, p := newForgetting(), w.peer(peerIP)
			s, _ := w.keptBy(stackIP, f)
			l := w.withTimer(s, p, "callee", 90*time.Second, true)
			f.remember()
			hangUp(t, l.d, p)
			f.forget()
			require.Equal(t, 1, f.Len())
			stop := p.replies(func(*sip.Request) dialogtest.Response { return dialogtest.Response{Code: 481} })
			time.Sleep(5 * time.Minute)
			stop()
			require.Empty(t, s.Dialogs())
			require.Zero(t, f.Len(), "its peer knows it no longer")
		})
	})
}

// twice is a Store that does everything twice, as one does whose client repeats what it has
// got no answer to.
type twice struct{ *memory.Store }

func (s *twice) Save(ctx context.Context, r dialog.Record) error {
	_ = s.Store.Save(ctx, r)
	return s.Store.Save(ctx, r)
}

func (s *twice) Take(ctx context.Context, key dialog.StoreKey, owner string) (dialog.Record, error) {
	_, _ = s.Store.Take(ctx, key, owner)
	return s.Store.Take(ctx, key, owner)
}

func (s *twice) Drop(ctx context.Context, key dialog.StoreKey, fence uint64, tomb time.Duration) error {
	_ = s.Store.Drop(ctx, key, fence, tomb)
	return s.Store.Drop(ctx, key, fence, tomb)
}

func (s *twice) Due(ctx context.Context, before time.Time, owner string, n int) ([]dialog.Record, error) {
	list, err := s.Store.Due(ctx, before, owner, n)
	return append(list, list...), err // and says so twice
}

// A store that does, and answers, everything twice ends no call: there is one dialog of it, and
// it is refreshed once.
func TestStoreThatAnswersTwiceEndsNoCall(t *testing.T) {
	for _, byRequest := range []bool{true, false} {
		bubble(t, func(t *testing.T, w *world) {
			store, p := &twice{memory.New()}, w.peer(peerIP)
			s, kill := w.keptBy(stackIP, store)
			l := w.withTimer(s, p, "callee", 90*time.Second, true)
			last := l.info()
			kill()
			s, _ = w.keptBy(stackIP, store)
			if byRequest {
				l.theirs("INFO", 200)
			}
			p.reply(p.next("UPDATE"), grants(90*time.Second))
			synctest.Wait()
			l.d = oneCall(t, s)
			require.Greater(t, l.info(), last)
			time.Sleep(40 * time.Second)
			require.Len(t, w.sent(stackIP, "UPDATE"), 1)
			require.Empty(t, w.sent(stackIP, "BYE"))
			hangUp(t, l.d, p)
			synctest.Wait()
			require.Zero(t, store.Len())
		})
	}
}
