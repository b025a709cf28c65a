package past

import "time"

// perChunk is how many records, and maxChunk how much text, are in one piece of memory.
const (
	perChunk = 128
	maxChunk = 32 << 10
)

// chunk is memory for some records, which becomes free when the last of them ends.
type chunk[V any] struct {
	entries []entry[V]
	text    []byte
	done    int // how many entries have ended
}

// entry is a record. It has no pointers.
type entry[V any] struct {
	key, alias       link
	end              time.Duration
	at               uint32 // where its text begins: key, alias, note and data
	keyLen, aliasLen uint16
	noteLen, dataLen uint16
	value            V
}

// nowhere is the place of no record.
const nowhere uint32 = 0

// place names an entry of a chunk.
func place(chunk uint32, entry int) uint32 { return chunk*perChunk + uint32(entry) + 1 }

// next is an empty chunk that is as large as one which has become full.
func (c *chunk[V]) next() *chunk[V] {
	return &chunk[V]{entries: make([]entry[V], 0, len(c.entries)), text: make([]byte, 0, len(c.text))}
}

func (c *chunk[V]) empty() { c.entries, c.text, c.done = c.entries[:0], c.text[:0], 0 }

func (c *chunk[V]) hasRoom(n int) bool {
	return len(c.entries) < perChunk && len(c.text)+n <= maxChunk
}

func (c *chunk[V]) add(end time.Duration, r *Record[V]) {
	c.entries = append(c.entries, entry[V]{
		end: end, at: uint32(len(c.text)), value: r.Value,
		keyLen: uint16(len(r.Key)), aliasLen: uint16(len(r.Alias)),
		noteLen: uint16(len(r.Note)), dataLen: uint16(len(r.Data)),
	})
	c.text = append(append(append(append(c.text, r.Key...), r.Alias...), r.Note...), r.Data...)
}

// first is the entry that ends next. There is one.
func (c *chunk[V]) first() *entry[V] { return &c.entries[c.done] }

func (c *chunk[V]) key(e *entry[V]) []byte   { return c.text[e.at:][:e.keyLen] }
func (c *chunk[V]) alias(e *entry[V]) []byte { return c.text[e.at:][e.keyLen:][:e.aliasLen] }

func (c *chunk[V]) record(e *entry[V]) Record[V] {
	rest := c.text[e.at:][e.keyLen:][e.aliasLen:]
	return Record[V]{
		Key: string(c.key(e)), Alias: string(c.alias(e)), Note: string(rest[:e.noteLen]),
		Data: append([]byte(nil), rest[e.noteLen:][:e.dataLen]...), Value: e.value,
	}
}

func (e *entry[V]) length() int {
	return int(e.keyLen) + int(e.aliasLen) + int(e.noteLen) + int(e.dataLen)
}

func (e *entry[V]) byKey() *link   { return &e.key }
func (e *entry[V]) byAlias() *link { return &e.alias }
