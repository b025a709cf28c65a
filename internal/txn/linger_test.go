package txn

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/transport"
)

// lingerer is a transaction that notes when its wait ends.
func lingerer(l *Layer, ended map[int]time.Duration, name int, began time.Time) *transaction {
	return &transaction{layer: l, owner: timedFunc(func(s *slot, generation uint32, e event) {
		if s.generation == generation && e == eventLimit {
			ended[name] = time.Since(began)
		}
	})}
}

type timedFunc func(s *slot, generation uint32, e event)

func (f timedFunc) onTimer(s *slot, generation uint32, e event) { f(s, generation, e) }

// Transactions that wait for stragglers end when each would by a timer of its own,
// whichever of them is ended early, the first, the last or one between.
func TestTransactionsThatLingerTogetherEndEachInItsTime(t *testing.T) {
	const n, apart = 5, time.Second
	for mask := range 1 << n { // the bits are those ended early
		synctest.Test(t, func(t *testing.T) {
			network := dialogtest.NewNetwork()
			defer network.Close()
			below := transport.New(transport.Config{Network: network.Host("10.0.0.1")})
			l := New(Config{Transport: below, User: &benchUser{}})
			began, ended := time.Now(), make(map[int]time.Duration)
			wait := l.timers.limit()
			q := l.lingering[wait]
			var all []*transaction
			for i := range n {
				tx := lingerer(l, ended, i, began)
				tx.lingers = q
				q.add(tx)
				all = append(all, tx)
				time.Sleep(apart)
			}
			want := make(map[int]time.Duration)
			for i, tx := range all {
				if mask&(1<<i) != 0 {
					tx.stopLocked()
					tx.stopLocked()
				} else {
					want[i] = time.Duration(i)*apart + wait
				}
			}
			time.Sleep(2 * wait)
			synctest.Wait()
			require.Equal(t, want, ended)
			require.Nil(t, q.first)
			require.Nil(t, q.last)
			require.Nil(t, q.timer, "no timer without a transaction")
			l.Close()
			require.NoError(t, below.Close())
		})
	}
}

// One that is ended while the one before is being told does not end twice, and one
// that begins then is not forgotten.
func TestATransactionThatBeginsToLingerWhileAnotherEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := dialogtest.NewNetwork()
		defer network.Close()
		below := transport.New(transport.Config{Network: network.Host("10.0.0.1")})
		l := New(Config{Transport: below, User: &benchUser{}})
		began, ended := time.Now(), make(map[int]time.Duration)
		wait := l.timers.T4
		q := l.lingering[wait]
		first, second, third := lingerer(l, ended, 1, began), lingerer(l, ended, 2, began), lingerer(l, ended, 3, began)
		note := first.owner
		first.owner = timedFunc(func(s *slot, generation uint32, e event) {
			note.onTimer(s, generation, e)
			q.remove(second)
			q.add(third)
		})
		q.add(first)
		q.add(second)
		time.Sleep(3 * wait)
		synctest.Wait()
		require.Equal(t, map[int]time.Duration{1: wait, 3: 2 * wait}, ended)
		require.Nil(t, q.timer)
		l.Close()
		require.NoError(t, below.Close())
	})
}
