package registry

import "net/netip"

// Sizes are the numbers of what a registry has. Sources is the number of addresses whose
// counted calls differ from their active calls.
type Sizes struct {
	Dialogs, Aliases, Releasing, Subscribed, Replacing, Tombstones, Sources int
}

// Sizes counts.
func (r *Of[K, D]) Sizes() Sizes {
	if r == nil {
		return Sizes{}
	}
	return Sizes{
		Dialogs: len(r.Active), Aliases: len(r.aliases), Releasing: len(r.releasing), Subscribed: len(r.subscribed),
		Replacing: max(len(r.replacing), len(r.replaces)), Tombstones: r.ended.Len(),
	}
}

// Audit is Sizes with Sources, for which it looks at every call.
func (r *Of[K, D]) Audit() Sizes {
	sizes := r.Sizes()
	if r == nil {
		return sizes
	}
	calls := make(map[netip.Addr]int)
	for _, d := range r.Active {
		if source := r.traits.Source(d); source.IsValid() {
			calls[source]++
		}
	}
	for source, n := range r.bySource {
		if n != calls[source] || n == 0 {
			sizes.Sources++
		}
		delete(calls, source)
	}
	sizes.Sources += len(calls)
	return sizes
}
