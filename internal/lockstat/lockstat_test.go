package lockstat

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAFreeLockIsNotCounted(t *testing.T) {
	var stats Stats
	m := RWMutex{Stats: &stats}
	n := 0
	m.Lock()
	n++
	m.Unlock()
	m.RLock()
	n++
	m.RUnlock()
	require.Equal(t, 2, n)
	require.Zero(t, stats.Waits())
	require.Zero(t, stats.Waited())
}

func TestWaitingIsCounted(t *testing.T) {
	var stats Stats
	m := RWMutex{Stats: &stats}
	for _, lock := range []func(){
		func() { m.Lock(); defer m.Unlock() },
		func() { m.RLock(); defer m.RUnlock() },
	} {
		before := stats.Waits()
		m.Lock()
		done := make(chan struct{})
		go func() { lock(); close(done) }()
		select {
		case <-done:
			t.Error("the lock did not lock")
		case <-time.After(5 * time.Millisecond):
		}
		m.Unlock()
		<-done
		require.Equal(t, before+1, stats.Waits())
	}
	require.Positive(t, stats.Waited())
}

func TestItExcludes(t *testing.T) {
	var m RWMutex
	n := 0
	var all sync.WaitGroup
	for range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			for range 1000 {
				m.Lock()
				n++
				m.Unlock()
				m.RLock()
				_ = n
				m.RUnlock()
			}
		}()
	}
	all.Wait()
	require.Equal(t, 8000, n)
}
