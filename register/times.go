package register

import (
	"math/rand/v2"
	"time"
)

const (
	// leastPause is the least time from the beginning of one REGISTER to that of the next,
	// but for those that one try needs: neither a registrar that grants little, nor an
	// application that calls Refresh in a loop, makes us faster. A grant of less is none.
	leastPause = 5 * time.Second
	// longestRetryAfter is the longest wait that a registrar may impose.
	longestRetryAfter = 24 * time.Hour
	// otherFactor is how much longer one flow waits while another is registered: 90 s
	// instead of 30 (RFC 5626 4.5).
	otherFactor = 3
	// earliest is how long before its end a long registration is refreshed.
	earliest = 10 * time.Minute
)

// refreshIn is when to refresh a registration that was granted so long: ten minutes before
// its end, or a short one after half of its time, so that a refresh can fail and be tried
// again. Up to a tenth earlier, so that many clients of one registrar do not do so at once.
func refreshIn(granted time.Duration) time.Duration {
	wait := max(granted/2, granted-earliest)
	return wait - rand.N(wait/10+1)
}

// backOff is the time to wait after so many failures in a row (RFC 5626 4.5): 50 to 100 %
// of W = min(max-time, base-time * 2^failures).
func backOff(failures int, base, longest time.Duration) time.Duration {
	w := base
	for range failures {
		if w *= 2; w >= longest {
			break
		}
	}
	w = min(w, longest)
	return w - rand.N(w/2+1)
}
