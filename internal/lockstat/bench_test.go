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
			m, n := kind.new(), 0
			for range b.N {
				m.Lock()
				n++
				m.Unlock()
			}
		})
		b.Run("read/free/"+kind.name, func(b *testing.B) {
			m, n, sum := kind.new(), 1, 0
			for range b.N {
				m.RLock()
				sum += n
				m.RUnlock()
			}
		})
		b.Run("read/parallel/"+kind.name, func(b *testing.B) {
			m, n := kind.new(), 1
			b.RunParallel(func(pb *testing.PB) {
				sum := 0
				for pb.Next() {
					m.RLock()
					sum += n
					m.RUnlock()
				}
			})
		})
		b.Run("write/parallel/"+kind.name, func(b *testing.B) {
			m, n := kind.new(), 0
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
