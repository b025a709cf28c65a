package dialog

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

func TestTurnIsGivenInTheOrderOfAsking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turn turn
		require.NoError(t, turn.take(context.Background()))
		order := make(chan int, 50)
		for i := range 50 {
			go func() {
				if turn.take(context.Background()) == nil {
					order <- i
					turn.release()
				}
			}()
			synctest.Wait()
		}
		turn.release()
		for i := range 50 {
			require.Equal(t, i, <-order)
		}
	})
}

func TestTurnIsOneHoldersAtATimeAndNeverLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turn turn
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
				if turn.take(ctx) != nil {
					gaveUp.Add(1)
					return
				}
				got.Add(1)
				if inside.Add(1) != 1 {
					t.Error("two hold the turn")
				}
				time.Sleep(time.Duration(random.IntN(5)) * time.Millisecond)
				inside.Add(-1)
				turn.release()
			}()
		}
		all.Wait()
		require.NotZero(t, got.Load())
		require.NotZero(t, gaveUp.Load())
		require.Zero(t, turn.holders)
		require.Empty(t, turn.waiters)
	})
}

// A waiter whose context ends in the moment in which it is given the turn
// either has it or hands it on.
func TestTurnIsNotLostOnOneWhoGivesUp(t *testing.T) {
	for range 500 {
		var turn turn
		require.NoError(t, turn.take(context.Background()))
		ctx, cancel := context.WithCancel(context.Background())
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- turn.take(ctx) }()
		go func() { second <- turn.take(context.Background()) }()
		go cancel()
		go turn.release()
		if <-first == nil {
			turn.release()
		}
		require.NoError(t, <-second)
		turn.release()
		require.Zero(t, turn.holders)
		require.Empty(t, turn.waiters)
	}
}

func TestTurnWaitsForAllWhoJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turn turn
		require.NoError(t, turn.take(context.Background()))
		turn.join()
		turn.join()
		taken := make(chan struct{})
		go func() {
			defer close(taken)
			_ = turn.take(context.Background())
		}()
		for range 3 {
			synctest.Wait()
			select {
			case <-taken:
				t.Fatal("somebody still has the turn")
			default:
			}
			turn.release()
		}
		<-taken
		turn.release()
		require.Zero(t, turn.holders)
	})
}
