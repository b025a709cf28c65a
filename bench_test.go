package dialog

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/dialogstate"
)

// hotKeys is how many calls are looked up over and over, however many there are.
const hotKeys = 1000

// BenchmarkDialogByKey looks calls up from all processors at once: the same 1,000
// calls, and any of all. The bare map has no lock and no one who writes.
func BenchmarkDialogByKey(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		s, keys := enrolled(b, n)
		find := func(key DialogKey) bool {
			_, ok := s.DialogByKey(key)
			return ok
		}
		b.Run(fmt.Sprintf("hot/dialogs=%d", n), func(b *testing.B) { benchLookup(b, shuffled(keys)[:min(n, hotKeys)], find) })
		b.Run(fmt.Sprintf("random/dialogs=%d", n), func(b *testing.B) { benchLookup(b, shuffled(keys), find) })
		bare := bareMap(s, keys)
		b.Run(fmt.Sprintf("bare-map/dialogs=%d", n), func(b *testing.B) {
			benchLookup(b, shuffled(keys), func(key DialogKey) bool { return bare[key] != nil })
		})
	}
}

// BenchmarkState reads the state of calls from all processors at once.
func BenchmarkState(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		s, keys := enrolled(b, n)
		dialogs := make([]*Dialog, min(n, hotKeys))
		for i := range dialogs {
			dialogs[i], _ = s.DialogByKey(keys[i])
		}
		b.Run(fmt.Sprintf("dialogs=%d", n), func(b *testing.B) {
			benchLookup(b, dialogs, func(d *Dialog) bool { return d.State() == DialogStateEstablished })
		})
	}
}

// BenchmarkStats reads the statistics of a stack that holds 1,000 calls.
func BenchmarkStats(b *testing.B) {
	s, _ := enrolled(b, 1000)
	b.ReportAllocs()
	for range b.N {
		_ = s.Stats()
	}
}

func enrolled(b *testing.B, n int) (*Stack, []DialogKey) {
	b.Helper()
	s, err := NewStack(nil)
	require.NoError(b, err)
	return s, enrol(s, n)
}

// withPeer gives a dialog a peer of that tag.
func withPeer(d *Dialog, tag string) *Dialog {
	d.setCurrentLocked(&dialogState{d: d, State: dialogstate.Restore(dialogstate.View{LocalTag: d.localTag, RemoteTag: tag})})
	return d
}

// enrol takes n established calls into a stack that is not started, without a
// word on the network, and returns their keys.
func enrol(s *Stack, n int) []DialogKey {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	keys := make([]DialogKey, n)
	for i := range keys {
		d := s.adopt(withPeer(&Dialog{
			stack: s, callID: randomHex(16), localTag: TagGen(), state: DialogStateEstablished,
		}, strconv.Itoa(i)))
		keys[i] = d.keyLocked()
		s.dialogs[keys[i]] = d
	}
	return keys
}

func bareMap(s *Stack, keys []DialogKey) map[DialogKey]*Dialog {
	bare := make(map[DialogKey]*Dialog)
	for _, key := range keys {
		bare[key], _ = s.DialogByKey(key)
	}
	return bare
}

// shuffled returns the items in an order that no cache foresees.
func shuffled[T any](items []T) []T {
	random := rand.New(rand.NewPCG(1, 2))
	list := append([]T(nil), items...)
	random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// benchLookup asks about one item after the other, each processor from a place of
// its own.
func benchLookup[T any](b *testing.B, items []T, ask func(T) bool) {
	var starts atomic.Int64
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		i := int(starts.Add(1)) * 7919 % len(items)
		for pb.Next() {
			if !ask(items[i]) {
				b.Error("not found")
				return
			}
			if i++; i == len(items) {
				i = 0
			}
		}
	})
}
