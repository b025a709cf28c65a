package sendslot

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSlotIsGrantedInTheOrderOfAsking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slot Slot
		require.NoError(t, slot.Acquire(context.Background()))
		order := make(chan int, 50)
		for i := range 50 {
			go func() {
				if slot.Acquire(context.Background()) == nil {
					order <- i
					slot.Release()
				}
			}()
			synctest.Wait()
		}
		slot.Release()
		for i := range 50 {
			require.Equal(t, i, <-order)
		}
	})
}

func TestSlotHasOneHolderAtATimeAndIsNeverLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slot Slot
		var inside atomic.Int32
		var got, gaveUp atomic.Int32
		var all sync.WaitGroup
		for i := range 200 {
			all.Add(1)
			random := rand.New(rand.NewPCG(uint64(i), 1))
			go func() {
				defer all.Done()
				time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(random.IntN(200))*time.Millisecond)
				defer cancel()
				if slot.Acquire(ctx) != nil {
					gaveUp.Add(1)
					return
				}
				got.Add(1)
				if inside.Add(1) != 1 {
					t.Error("two hold the slot")
				}
				time.Sleep(time.Duration(random.IntN(5)) * time.Millisecond)
				inside.Add(-1)
				slot.Release()
			}()
		}
		all.Wait()
		require.NotZero(t, got.Load())
		require.NotZero(t, gaveUp.Load())
		require.Zero(t, slot.holders)
		require.Empty(t, slot.waiting)
	})
}

// A caller whose context ends at the moment of the grant either holds the slot or
// releases it.
func TestSlotIsNotLostWhenItIsGrantedToACallerThatGivesUp(t *testing.T) {
	for range 500 {
		var slot Slot
		require.NoError(t, slot.Acquire(context.Background()))
		ctx, cancel := context.WithCancel(context.Background())
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- slot.Acquire(ctx) }()
		go func() { second <- slot.Acquire(context.Background()) }()
		go cancel()
		go slot.Release()
		if <-first == nil {
			slot.Release()
		}
		require.NoError(t, <-second)
		slot.Release()
		require.Zero(t, slot.holders)
		require.Empty(t, slot.waiting)
	}
}

func TestSlotIsFreeWhenAllWhoJoinedHaveReleasedIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slot Slot
		require.NoError(t, slot.Acquire(context.Background()))
		slot.Join()
		slot.Join()
		taken := make(chan struct{})
		go func() {
			defer close(taken)
			_ = slot.Acquire(context.Background())
		}()
		for range 3 {
			synctest.Wait()
			select {
			case <-taken:
				t.Fatal("the slot is still held")
			default:
			}
			slot.Release()
		}
		<-taken
		slot.Release()
		require.Zero(t, slot.holders)
	})
}

// The result of each way to request the slot: free, held, and held until the context ends.
func TestWaysToAskForTheSlot(t *testing.T) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for name, row := range map[string]struct {
		held    int
		ask     func(*Slot) error
		fails   bool
		holders int
		waiting int
	}{
		"free: Acquire":                          {0, func(s *Slot) error { return s.Acquire(context.Background()) }, false, 1, 0},
		"free: Acquire with an ended context":    {0, func(s *Slot) error { return s.Acquire(ended) }, true, 0, 0},
		"held: Acquire with an ended context":    {1, func(s *Slot) error { return s.Acquire(ended) }, true, 1, 0},
		"free: Enqueue":                          {0, func(s *Slot) error { s.Enqueue(); return nil }, false, 1, 0},
		"held: Enqueue":                          {1, func(s *Slot) error { s.Enqueue(); return nil }, false, 1, 1},
		"free: Wait with an ended context":       {0, func(s *Slot) error { return s.Wait(ended, s.Enqueue()) }, false, 1, 0},
		"held: Wait with an ended context":       {1, func(s *Slot) error { return s.Wait(ended, s.Enqueue()) }, true, 1, 0},
		"free: WaitOrJoin with an ended context": {0, func(s *Slot) error { s.WaitOrJoin(ended, s.Enqueue()); return nil }, false, 1, 0},
		"held: WaitOrJoin with an ended context": {1, func(s *Slot) error { s.WaitOrJoin(ended, s.Enqueue()); return nil }, false, 2, 0},
		"free: Join":                             {0, func(s *Slot) error { s.Join(); return nil }, false, 1, 0},
		"held by two: Join":                      {2, func(s *Slot) error { s.Join(); return nil }, false, 3, 0},
		"held by two: Release":                   {2, func(s *Slot) error { s.Release(); return nil }, false, 1, 0},
		"held by two, one in the queue: Release": {2, func(s *Slot) error { s.Enqueue(); s.Release(); return nil }, false, 1, 1},
		"held by one, one in the queue: Release": {1, func(s *Slot) error { s.Enqueue(); s.Release(); return nil }, false, 1, 0},
		"held by one, two in the queue: Release": {1, func(s *Slot) error { s.Enqueue(); s.Enqueue(); s.Release(); return nil }, false, 1, 1},
		"granted to one who gives up, one is behind": {1, func(s *Slot) error {
			first := s.Enqueue()
			s.Enqueue()
			s.Release()
			s.leave(first)
			return nil
		}, false, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var slot Slot
			for range row.held {
				slot.Join()
			}
			require.Equal(t, row.fails, row.ask(&slot) != nil)
			require.Equal(t, row.holders, slot.holders)
			require.Len(t, slot.waiting, row.waiting)
		})
	}
}
