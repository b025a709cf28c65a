package rate

import (
	"net/netip"
	"time"
)

// maxSources bounds the IP addresses whose rate is kept.
const maxSources = 10000

// Admission decides which of many events are accepted. It is set at construction.
type Admission struct {
	all     *Bucket
	sources *Sources[netip.Addr]
}

// NewAdmission accepts so many events in a second, altogether and of one IP address; zero
// means no bound.
func NewAdmission(perSecond, perSource float64) Admission {
	return Admission{all: NewBucket(perSecond), sources: NewSources[netip.Addr](perSource, maxSources)}
}

// Admits reports whether an event of that address is accepted now. A source beyond its own
// rate does not use up the rate of all.
func (a Admission) Admits(source netip.Addr, now time.Time) bool {
	return a.sources.Take(source, now) && a.all.Take(now)
}
