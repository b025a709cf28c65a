// Package rate has token buckets: a single one, or one for each source, bounded in
// number.
package rate

import (
	"math"
	"sync"
	"time"
)

// Bucket allows a number of events a second, and as many at once. A nil bucket
// allows all events. It is safe for concurrent use.
type Bucket struct {
	perSecond float64

	mu     sync.Mutex // guards the fields below
	tokens float64
	last   time.Time
}

// NewBucket returns a full bucket; nil, which has no limit, for a rate that is not
// positive.
func NewBucket(perSecond float64) *Bucket {
	if perSecond <= 0 {
		return nil
	}
	return &Bucket{perSecond: perSecond, tokens: burst(perSecond)}
}

// burst is the number of events allowed at once: those of one second, but at least
// one.
func burst(perSecond float64) float64 { return math.Max(perSecond, 1) }

// Take takes a token, and reports whether the bucket had one.
func (b *Bucket) Take(now time.Time) bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fillLocked(now)
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func (b *Bucket) fillLocked(now time.Time) {
	if !b.last.IsZero() {
		b.tokens = math.Min(b.tokens+b.perSecond*now.Sub(b.last).Seconds(), burst(b.perSecond))
	}
	b.last = now
}

func (b *Bucket) full(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fillLocked(now)
	return b.tokens >= burst(b.perSecond)
}

// Sources has a bucket for each source. A nil Sources allows all events. It is safe
// for concurrent use.
type Sources[K comparable] struct {
	perSecond float64
	most      int

	mu      sync.Mutex // guards the fields below
	buckets map[K]*Bucket
	swept   time.Time
}

// sweepPause bounds the sweeps, so that in a flood not every new source causes one.
const sweepPause = 100 * time.Millisecond

// NewSources returns buckets for at most most sources; nil for a rate that is not
// positive.
func NewSources[K comparable](perSecond float64, most int) *Sources[K] {
	if perSecond <= 0 {
		return nil
	}
	return &Sources[K]{perSecond: perSecond, most: most, buckets: make(map[K]*Bucket)}
}

// Take takes a token of the source's bucket, and reports whether it had one. If as
// many sources are kept as allowed, quiet sources are forgotten. If none was quiet,
// Take refuses the new source: spoofed sources must not displace the counts of the
// others.
func (s *Sources[K]) Take(source K, now time.Time) bool {
	if s == nil {
		return true
	}
	b := s.bucket(source, now)
	return b != nil && b.Take(now)
}

func (s *Sources[K]) bucket(source K, now time.Time) *Bucket {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.buckets[source]; b != nil {
		return b
	}
	if len(s.buckets) >= s.most && now.Sub(s.swept) >= sweepPause {
		s.swept = now
		s.sweepLocked(now)
	}
	if len(s.buckets) >= s.most {
		return nil
	}
	b := NewBucket(s.perSecond)
	s.buckets[source] = b
	return b
}

// sweepLocked forgets the sources whose buckets are full again.
func (s *Sources[K]) sweepLocked(now time.Time) {
	for source, b := range s.buckets {
		if b.full(now) {
			delete(s.buckets, source)
		}
	}
}
