// Package registry finds the dialog that a message belongs to (RFC 3261 12.2.2), from the
// first INVITE until late messages cannot come any more, and bounds how many there are. It
// has no clock and no lock: time is an argument, and its owner's mutex guards it.
package registry

import (
	"net/netip"
	"time"

	"sipdialog.example/dialog/internal/rel100"
	"sipdialog.example/dialog/internal/tombstone"
)

// Key is the dialog ID (RFC 3261 12): without RemoteTag before the peer's is known.
type Key struct{ CallID, LocalTag, RemoteTag string }

// Of is the registry of dialogs D by keys K. A dialog stands under its present key in at
// most one of three sets:
//
//	Active      calls in progress
//	releasing   calls that have ended for the application, and further forks, whose peer is
//	            not released yet
//	subscribed  calls that are over on both sides, but for subscriptions of REFERs (RFC 5057
//	            4), and the dialogs of REFERs outside calls
//
// What ended lately is a tombstone. All sets are empty in the end. A nil registry is empty,
// and stays so.
type Of[K interface {
	comparable
	~struct{ CallID, LocalTag, RemoteTag string }
}, D comparable] struct {
	traits Traits[D]
	limits Limits
	// Active may be read by the owner.
	Active                map[K]D
	releasing, subscribed map[K]D
	// aliases are further keys of active calls: earlier ones, as that of a caller before it
	// learnt the peer's tag, and those of early dialogs. aliasesOf has them by call.
	aliases   map[K]D
	aliasesOf map[D][]K
	// replacing has the calls for which another was accepted beyond the limit, to replace
	// them, and that other; replaces is its inverse.
	replacing, replaces map[D]D
	// bySource counts the active calls by the address they came from.
	bySource map[netip.Addr]int
	// ended has, for some calls, the PRACK that may still come.
	ended *tombstone.Set[rel100.RAck]
	waits []*Wait
}

// Traits are what the registry needs to know of a dialog. Both never change.
type Traits[D any] struct {
	// Source is the address that a call came from; invalid for a call of ours.
	Source func(D) netip.Addr
	// IsCallee reports whether it began with an INVITE of the peer.
	IsCallee func(D) bool
}

// Limits bound the sets.
type Limits struct {
	// Calls bounds the active calls unless negative, PerSource those of one address unless
	// zero.
	Calls, PerSource  int
	Subscribed, Ended int
}

// New returns an empty registry.
func New[K interface {
	comparable
	~struct{ CallID, LocalTag, RemoteTag string }
}, D comparable](now time.Time, limits Limits, traits Traits[D]) *Of[K, D] {
	return &Of[K, D]{
		traits: traits, limits: limits,
		Active: make(map[K]D), releasing: make(map[K]D), subscribed: make(map[K]D),
		aliases: make(map[K]D), aliasesOf: make(map[D][]K),
		replacing: make(map[D]D), replaces: make(map[D]D), bySource: make(map[netip.Addr]int),
		ended: tombstone.New[rel100.RAck](now, limits.Ended),
	}
}

// Verdict says whether a dialog was added, or why not.
type Verdict int

// The verdicts. Full and SourceFull: it would be beyond Limits. Known: there is one with its
// key. Ended: there was one lately.
const (
	Added Verdict = iota
	Full
	SourceFull
	Known
	Ended
)

// Add adds a new call within the limits. Beyond that of calls it adds one that replaces
// another, which is not the zero value then (RFC 3891 3). One may wait for each; and a
// replaced call stays until its BYE is answered, so that calls which replace each other in
// turn are bounded too.
func (r *Of[K, D]) Add(key K, d, replaced D) Verdict {
	full := !r.HasRoom()
	if full && !r.mayReplace(replaced) {
		return Full
	}
	source := r.traits.Source(d)
	if most := r.limits.PerSource; most > 0 && source.IsValid() && r.bySource[source] >= most {
		return SourceFull
	}
	if source.IsValid() {
		r.bySource[source]++
	}
	if full {
		r.replacing[replaced], r.replaces[d] = d, replaced
	}
	r.Active[key] = d
	return Added
}

// HasRoom reports whether one more call is within the limit.
func (r *Of[K, D]) HasRoom() bool { return r.limits.Calls < 0 || len(r.Active) < r.limits.Calls }

func (r *Of[K, D]) mayReplace(replaced D) bool {
	var none D
	return replaced != none && r.replacing[replaced] == none && len(r.Active)-r.limits.Calls < r.limits.Calls
}

// Restore adds a call of which another process may have had a part.
func (r *Of[K, D]) Restore(key K, d D) Verdict {
	var none D
	_, isAlias := r.aliases[key]
	switch {
	case r.Active[key] != none || isAlias || r.IsLeft(key):
		return Known
	case r.hasTombstone(key):
		return Ended
	case !r.HasRoom():
		return Full
	}
	r.Active[key] = d
	return Added
}

// Subscribe adds the dialog of a REFER outside calls, within the limit.
func (r *Of[K, D]) Subscribe(key K, d D) Verdict {
	if len(r.subscribed) >= r.limits.Subscribed {
		return Full
	}
	r.subscribed[key] = d
	return Added
}

// Release adds a further fork, whose peer is to be released.
func (r *Of[K, D]) Release(key K, d D) {
	if r != nil {
		r.releasing[key] = d
	}
}

// AddAlias adds the key of an early dialog of an active call.
func (r *Of[K, D]) AddAlias(key K, d D) {
	if r != nil {
		r.aliases[key] = d
		r.aliasesOf[d] = append(r.aliasesOf[d], key)
	}
}

// Rekey files a dialog under its present key. The old one stays an alias of an active call.
func (r *Of[K, D]) Rekey(d D, old, key K) {
	if r == nil {
		return
	}
	for _, set := range []map[K]D{r.Active, r.releasing, r.subscribed} {
		if set[old] == d {
			delete(set, old)
			set[key] = d
			break
		}
	}
	if r.Active[key] == d {
		r.AddAlias(old, d)
	}
}

// Leave removes a call from the active ones, with all that is about them only. It reports
// false, and changes nothing, for any other.
func (r *Of[K, D]) Leave(key K, d D) bool {
	if r == nil || r.Active[key] != d {
		return false
	}
	delete(r.Active, key)
	for _, alias := range r.aliasesOf[d] {
		delete(r.aliases, alias)
	}
	delete(r.aliasesOf, d)
	r.unlink(d)
	if source := r.traits.Source(d); source.IsValid() {
		if r.bySource[source]--; r.bySource[source] <= 0 {
			delete(r.bySource, source)
		}
	}
	return true
}

// unlink forgets what a call replaces, and what replaces it.
func (r *Of[K, D]) unlink(d D) {
	if other, found := r.replacing[d]; found {
		delete(r.replacing, d)
		delete(r.replaces, other)
	}
	if other, found := r.replaces[d]; found {
		delete(r.replaces, d)
		delete(r.replacing, other)
	}
}

// File files a call that is not active any more: under releasing while an exchange with its
// peer is open, else under subscribed while it is in use, up to a bound. Otherwise it
// is forgotten, and File reports false.
func (r *Of[K, D]) File(key K, d D, isOpen, inUse bool) (left bool) {
	r.drop(r.releasing, key, d)
	r.drop(r.subscribed, key, d)
	switch {
	case isOpen:
		r.releasing[key] = d
	case inUse && len(r.subscribed) < r.limits.Subscribed:
		r.subscribed[key] = d
	default:
		return false
	}
	return true
}

// drop removes a dialog from a set: not another of the same key, as of a fork that was
// declined.
func (r *Of[K, D]) drop(set map[K]D, key K, d D) {
	if set[key] == d {
		delete(set, key)
	}
}
