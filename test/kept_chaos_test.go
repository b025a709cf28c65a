package test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/store/memory"
)

// chaosStore fails at random: it does not do what it is asked, or says so though it has done
// it, or takes its time, or does it twice.
type chaosStore struct {
	kept *memory.Store

	mu     sync.Mutex // guards the fields below
	random *rand.Rand
	// harm is how many of a hundred operations fail.
	harm int
}

var errChaos = errors.New("store: out of order")

func (s *chaosStore) n(n int) int { s.mu.Lock(); defer s.mu.Unlock(); return s.random.IntN(n) }

func (s *chaosStore) harms(percent int) { s.mu.Lock(); defer s.mu.Unlock(); s.harm = percent }

// do does an operation, as it pleases.
func (s *chaosStore) do(ctx context.Context, operation func() error) error {
	s.mu.Lock()
	harmed := s.random.IntN(100) < s.harm
	s.mu.Unlock()
	if !harmed {
		return operation()
	}
	switch s.n(4) {
	case 0:
		return errChaos
	case 1:
		_ = operation()
		return errChaos
	case 2:
		if err := slow(time.Duration(s.n(6000))*time.Millisecond)(ctx, ""); err != nil {
			return err
		}
		return operation()
	default:
		_ = operation()
		return operation()
	}
}

func (s *chaosStore) Save(ctx context.Context, r dialog.Record) error {
	return s.do(ctx, func() error { return s.kept.Save(ctx, r) })
}

func (s *chaosStore) Take(ctx context.Context, key dialog.StoreKey, owner string) (r dialog.Record, err error) {
	err = s.do(ctx, func() (err error) { r, err = s.kept.Take(ctx, key, owner); return err })
	return r, err
}

func (s *chaosStore) Check(ctx context.Context, key dialog.StoreKey, fence uint64) error {
	return s.do(ctx, func() error { return s.kept.Check(ctx, key, fence) })
}

func (s *chaosStore) Drop(ctx context.Context, key dialog.StoreKey, fence uint64, tomb time.Duration) error {
	return s.do(ctx, func() error { return s.kept.Drop(ctx, key, fence, tomb) })
}

func (s *chaosStore) Due(ctx context.Context, before time.Time, owner string, n int) (list []dialog.Record, err error) {
	err = s.do(ctx, func() (err error) { list, err = s.kept.Due(ctx, before, owner, n); return err })
	return list, err
}

// Len counts the calls that are kept.
func (s *chaosStore) Len() int { return s.kept.Len() }

// strictPeer answers the requests of a call as RFC 3261 12.2.2 says, and notes what no call
// should see.
type strictPeer struct {
	t     *testing.T
	last  uint32
	by    map[uint32]string // the branch that a number has come with
	codes map[uint32]int
	byes  int
}

func (p *strictPeer) answer(req *sip.Request) dialogtest.Response {
	seq, branch := req.CSeq().SeqNo, req.Via().Params.String()
	if before, known := p.by[seq]; known {
		if before != branch {
			p.t.Errorf("CSeq %d %s was used twice", seq, req.Method)
		}
		return dialogtest.Response{Code: p.codes[seq]}
	}
	r := dialogtest.Response{Code: 500}
	switch {
	case p.byes > 0:
		r.Code = 481
	case seq > p.last:
		p.last, r = seq, granted("")
		if req.Method == sip.BYE {
			p.byes++
		}
		if len(req.Body()) > 0 {
			r.Body = versioned(answerSDP, int(seq)+2)
		}
	}
	p.by[seq], p.codes[seq] = branch, r.Code
	return r
}

// Several processes own a call one after the other, and at times at once, with a store that
// fails in every way: no CSeq number is used twice, only the application hangs up, and the
// call exists in the end.
func TestOwnersInterleaved(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) { interleaved(t, w, seed) })
		})
	}
}

func interleaved(t *testing.T, w *world, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 0))
	store := &chaosStore{kept: memory.New(), random: rand.New(rand.NewPCG(seed, 1))}
	config := func(c *dialog.StackConfig) {
		keeping(promptIf(seed%4 < 2, store))(c)
		c.SessionExpires = 90 * time.Second
		c.Durability = dialog.Durability(seed % 2)
	}
	nodes := []*dialog.Stack{w.stack(stackIP, config), w.stack("10.0.0.2", config), w.stack("10.0.0.3", config)}
	p, strict := w.peer(peerIP), &strictPeer{t: t, by: map[uint32]string{}, codes: map[uint32]int{}}
	l := w.outgoing(nodes[0], p, "Session-Expires: 90;refresher=uac", "Allow: INVITE, UPDATE")
	strict.last = 1
	stop := p.replies(strict.answer)
	store.harms(30)
	ctx := context.Background()
	for range 60 {
		node := nodes[random.IntN(len(nodes))]
		calls := node.Dialogs()
		switch act := random.IntN(6); {
		case act == 0: // the peer's request is routed to another process
			require.NoError(t, p.Send(node.Addr(), p.Request(l.made("OPTIONS"))))
		case act == 1:
			time.Sleep(time.Duration(random.IntN(40_000)) * time.Millisecond)
		case len(calls) == 0:
		case act == 2:
			go func() { _ = calls[0].Hold(ctx) }()
		case act == 3:
			_ = calls[0].SetAppData([]byte{byte(random.IntN(256))})
		default:
			go func() { _ = calls[0].SendInfo(ctx, nil) }()
			time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond)
		}
	}
	store.harms(0)
	time.Sleep(40 * time.Second)
	require.Zero(t, strict.byes)
	require.Equal(t, 1, store.Len())
	var last *dialog.Dialog // whoever has the call hangs up
	require.NoError(t, p.Send(nodes[0].Addr(), p.Request(l.made("OPTIONS"))))
	time.Sleep(10 * time.Second)
	for _, node := range nodes {
		for _, d := range node.Dialogs() {
			if d.SendInfo(ctx, nil) == nil {
				last = d
			}
		}
	}
	require.NotNil(t, last)
	require.NoError(t, last.Bye(ctx, ""))
	time.Sleep(2 * time.Minute) // and those that had it learn so
	stop()
	require.Equal(t, 1, strict.byes)
	require.Zero(t, store.Len())
	for _, node := range nodes {
		require.Empty(t, node.Dialogs())
	}
	synctest.Wait()
}
