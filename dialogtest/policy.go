package dialogtest

import (
	"math/rand/v2"
	"sync"
	"time"
)

// Lossy returns a policy for [Network.SetPolicy] that loses a datagram with
// probability loss, repeats one that is not lost with probability dup, and
// delays each copy by a random time below jitter, which reorders them. The same
// seed and the same order of sending give the same outcome. Safe for concurrent
// use.
func Lossy(seed uint64, loss, dup float64, jitter time.Duration) func(Packet) []time.Duration {
	var mu sync.Mutex // guards random
	random := rand.New(rand.NewPCG(seed, seed))
	delay := func() time.Duration {
		if jitter <= 0 {
			return 0
		}
		return time.Duration(random.Int64N(int64(jitter)))
	}
	return func(Packet) []time.Duration {
		mu.Lock()
		defer mu.Unlock()
		if random.Float64() < loss {
			return nil
		}
		delays := []time.Duration{delay()}
		if random.Float64() < dup {
			delays = append(delays, delay())
		}
		return delays
	}
}
