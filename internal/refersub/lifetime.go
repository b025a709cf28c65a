package refersub

import (
	"time"

	"sipdialog.example/dialog/internal/sipmsg"
)

const (
	// leastLife is the minimal duration of a subscription by a REFER, MaxLife its maximum,
	// refreshes included.
	leastLife = 3 * time.Minute
	MaxLife   = time.Hour
)

// DefaultLife is the duration of the subscription of a REFER: longer than a new call may
// ring, and its CANCEL may take (RFC 3515 3.4). A negative limit is none.
func DefaultLife(ringing time.Duration) time.Duration {
	if ringing < 0 {
		return MaxLife
	}
	return min(max(ringing+time.Minute, leastLife), MaxLife)
}

// Lifetime says until when a subscription lasts. It is zero before it begins.
type Lifetime struct {
	// until is the expiry, limit the latest expiry after all refreshes.
	until, limit time.Time
}

// Begun reports whether the subscription has begun.
func (l *Lifetime) Begun() bool { return !l.until.IsZero() }

// Prolong starts or prolongs the subscription, and returns for how long: the sum of all
// is bounded too.
func (l *Lifetime) Prolong(now time.Time, life time.Duration) time.Duration {
	if l.limit.IsZero() {
		l.limit = now.Add(MaxLife)
	}
	life = max(min(life, l.limit.Sub(now)), 0)
	l.until = now.Add(life)
	return life
}

// Left is the time until the subscription expires; negative once it has.
func (l *Lifetime) Left(now time.Time) time.Duration { return l.until.Sub(now) }

// RefreshIn is when a refresh is sent: the duration of a transaction before the expiry,
// or after half of the time that is left.
func (l *Lifetime) RefreshIn(now time.Time, transaction time.Duration) time.Duration {
	left := l.Left(now)
	return max(left-min(left/2, transaction), 0)
}

// Asked reads how long a SUBSCRIBE wants the subscription to last, by its Expires; most
// is never exceeded, and is meant without one (RFC 6665 4.2.1.1). ok is false when it
// cannot be read.
func Asked(expires string, most time.Duration) (life time.Duration, ok bool) {
	if expires == "" {
		return most, true
	}
	life, ok = sipmsg.Seconds(expires)
	return min(life, most), ok
}

// Granted reads how long a subscription of ours lasts: the expires parameter of a
// Subscription-State, or an Expires header; otherwise when it does not say.
func Granted(expires string, otherwise time.Duration) time.Duration {
	if life, _ := sipmsg.Seconds(expires); life > 0 {
		return min(life, MaxLife)
	}
	return otherwise
}
