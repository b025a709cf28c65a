package registry

import "maps"

// ByKey returns the active call with that key, or that had it.
func (r *Of[K, D]) ByKey(key K) (d D, found bool) {
	if r == nil {
		return d, false
	}
	if d, found = r.Active[key]; !found {
		d, found = r.aliases[key]
	}
	return d, found
}

// Find returns the dialog of a request of the peer, or the zero value. byHalf is true if it
// was found by our half of the key only: the request belongs to it while forks of our INVITE
// may still answer, as the first that one sends (RFC 3261 12.2.2).
func (r *Of[K, D]) Find(key K) (d D, byHalf bool) {
	var none D
	if r == nil {
		return none, false
	}
	for _, set := range []map[K]D{r.Active, r.releasing, r.subscribed} {
		if d := set[key]; d != none {
			return d, false
		}
	}
	if d := r.aliases[key]; d != none && r.traits.IsCallee(d) {
		return d, false // an early dialog, which may have ended
	}
	half := halfOf(key)
	for _, set := range []map[K]D{r.Active, r.aliases, r.releasing} {
		if d := set[half]; d != none {
			return d, true
		}
	}
	return none, false
}

func halfOf[K ~struct{ CallID, LocalTag, RemoteTag string }](key K) K {
	whole := Key(key)
	return K(Key{CallID: whole.CallID, LocalTag: whole.LocalTag})
}

// Named returns the active calls that a header may mean by a key (RFC 3891 3), the zero
// value among them: that of the key, and one of whose early dialogs it may be.
func (r *Of[K, D]) Named(key K) (calls [3]D) {
	if r == nil {
		return calls
	}
	half := halfOf(key)
	return [3]D{r.Active[key], r.Active[half], r.aliases[half]}
}

// Subscribed returns the dialog of that key that only subscriptions keep, or the zero value.
func (r *Of[K, D]) Subscribed(key K) (d D) {
	if r == nil {
		return d
	}
	return r.subscribed[key]
}

// HasSubscribed reports whether only subscriptions keep a dialog with our half of a key.
func (r *Of[K, D]) HasSubscribed(key K) bool {
	half := Key(halfOf(key))
	for k := range r.subscribed {
		if whole := Key(k); whole.CallID == half.CallID && whole.LocalTag == half.LocalTag {
			return true
		}
	}
	return false
}

// IsLeft reports whether a dialog with that key has ended, and something is left of it.
func (r *Of[K, D]) IsLeft(key K) bool {
	var none D
	return r != nil && (r.releasing[key] != none || r.subscribed[key] != none)
}

// Leaves reports whether something is left of d, which has ended.
func (r *Of[K, D]) Leaves(key K, d D) bool {
	return r != nil && (r.releasing[key] == d || r.subscribed[key] == d)
}

// Open returns all dialogs, and CountOpen their number.
func (r *Of[K, D]) Open() []D {
	if r == nil {
		return nil
	}
	list := make([]D, 0, r.CountOpen())
	for _, set := range []map[K]D{r.Active, r.releasing, r.subscribed} {
		for d := range maps.Values(set) {
			list = append(list, d)
		}
	}
	return list
}

// CountOpen counts all dialogs.
func (r *Of[K, D]) CountOpen() int {
	if r == nil {
		return 0
	}
	return len(r.Active) + len(r.releasing) + len(r.subscribed)
}
