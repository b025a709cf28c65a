package past

// index leads from texts to records: a table of chains. A map of Go's would want chains as
// well, for the texts with the same hash, and take more memory.
type index[V any] struct {
	// Set at construction.

	store *Store[V]
	text  func(*chunk[V], *entry[V]) []byte
	link  func(*entry[V]) *link

	heads []uint32 // as many as a power of two
	count int
}

// link is the place of a record in a chain.
type link struct {
	hash uint64
	next uint32
}

// minHeads is the least number of chains.
const minHeads = 16

func (x *index[V]) add(where uint32, hash uint64) {
	if x.count >= len(x.heads) {
		x.grow()
	}
	x.count++
	x.insert(where, hash)
}

func (x *index[V]) insert(where uint32, hash uint64) {
	head := x.head(hash)
	*x.at(where) = link{hash: hash, next: *head}
	*head = where
}

func (x *index[V]) head(hash uint64) *uint32 { return &x.heads[hash&uint64(len(x.heads)-1)] }

func (x *index[V]) at(where uint32) *link {
	_, e := x.store.at(where)
	return x.link(e)
}

// grow doubles the number of chains.
func (x *index[V]) grow() {
	old := x.heads
	x.heads = make([]uint32, max(minHeads, 2*len(old)))
	for _, where := range old {
		for where != nowhere {
			l := *x.at(where)
			x.insert(where, l.hash)
			where = l.next
		}
	}
}

// find compares the text, too: others may have the same hash.
func (x *index[V]) find(text []byte) uint32 {
	if x.count == 0 {
		return nowhere
	}
	hash := x.store.hash(text)
	where := *x.head(hash)
	for where != nowhere {
		c, e := x.store.at(where)
		l := x.link(e)
		if l.hash == hash && string(x.text(c, e)) == string(text) {
			break
		}
		where = l.next
	}
	return where
}

func (x *index[V]) remove(where uint32) {
	l := x.at(where)
	at := x.head(l.hash)
	for *at != where {
		at = &x.at(*at).next
	}
	*at = l.next
	x.count--
}
