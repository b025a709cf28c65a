package lockstat

import (
	"sync"
	"testing"
)

// BenchmarkLock compares the mutex with sync's own, free and contended for.
func BenchmarkLock(b *testing.B) {
	type mutex interface {
		sync.Locker
		RLock()
		RUnlock()
	}
	for _, kind := range []struct {
		name string
		new  func() mutex
	}{
		{"sync", func() mutex { return &sync.RWMutex{} }},
		{"silent", func() mutex { return &RWMutex{} }},
		{"counting", func() mutex { return &RWMutex{Stats: &Stats{}} }},
	} {
		b.Run("write/free/"+kind.name, func(b *testing.B) {
			m := kind.new()
			for range b.N {
				m.Lock()
				m.Unlock()
			}
		})
		b.Run("read/free/"+kind.name, func(b *testing.B) {
			m := kind.new()
			for range b.N {
				m.RLock()
				m.RUnlock()
			}
		})
		b.Run("read/parallel/"+kind.name, func(b *testing.B) {
			m := kind.new()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					m.RLock()
					m.RUnlock()
				}
			})
		})
		b.Run("write/parallel/"+kind.name, func(b *testing.B) {
			m := kind.new()
			n := 0
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					m.Lock()
					n++
					m.Unlock()
				}
			})
		})
	}
}
