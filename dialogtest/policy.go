package dialogtest

import (
	"math/rand/v2"
	"sync"
	"time"
)

// Lossy returns a policy for [Network.SetPolicy] that loses a datagram with
// probability loss, repeats one that is not lost with probability dup, and
// delays each copy by a random time below jitter, which reorders them. The same
// seed and the same order of sending give the same result. The policy is safe for
// concurrent use.
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

// Congestion is an overloaded link.
type Congestion struct {
	// Loss is the probability that a datagram, or a segment of a stream, is lost.
	Loss float64
	// Jitter bounds the random delay of each.
	Jitter time.Duration
	// Reorder is the probability that a datagram is delayed by another Jitter, so
	// that later ones overtake it.
	Reorder float64
	Seed    uint64
}

// The times after which TCP retransmits an unacknowledged segment (RFC 6298): at first,
// and after it has measured a round trip of some 100 ms. They double.
const (
	firstRTO = time.Second
	laterRTO = 300 * time.Millisecond
	mostRTO  = 2 * time.Minute
)

// Datagrams returns a policy for [Network.SetPolicy].
func (c Congestion) Datagrams() func(Packet) []time.Duration {
	chance := newDice(c.Seed)
	return func(Packet) []time.Duration {
		lost, late, delay := chance.is(c.Loss), chance.is(c.Reorder), chance.below(c.Jitter)
		switch {
		case lost:
			return nil
		case late:
			delay += c.Jitter
		}
		return []time.Duration{delay}
	}
}

// Streams returns a policy for [Network.SetStreamPolicy]. A lost segment is a delay until
// TCP has retransmitted it, for this and all later segments. One write is one segment. The
// policy does not model that TCP sends less after a loss.
func (c Congestion) Streams() func(Packet) time.Duration {
	chance := newDice(c.Seed)
	return func(p Packet) time.Duration {
		delay, timeout := chance.below(c.Jitter), laterRTO
		if len(p.Data) == 0 { // an attempt to connect is a round trip
			delay, timeout = delay+chance.below(c.Jitter), firstRTO
		}
		for timeout < mostRTO && chance.is(c.Loss) {
			delay += timeout
			timeout *= 2
		}
		return delay
	}
}

// dice is a source of random numbers for several goroutines.
type dice struct {
	mu     sync.Mutex // guards the field below
	random *rand.Rand
}

func newDice(seed uint64) *dice { return &dice{random: rand.New(rand.NewPCG(seed, seed))} }

func (d *dice) is(probability float64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.random.Float64() < probability
}

func (d *dice) below(limit time.Duration) time.Duration {
	if limit <= 0 {
		return 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Duration(d.random.Int64N(int64(limit)))
}
