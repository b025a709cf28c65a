package txn

import (
	"sync/atomic"

	"sipdialog.example/dialog/internal/sipmsg"
)

// Server transactions are bounded by their bytes too: the keys and responses of
// requests with 31 KB of Call-ID are a hundred times those of others.

// txWeight is the least number of bytes of a server transaction: itself, and its places in
// the tables and timers, and its Server.
const txWeight = 1 << 10

// textWeight is the number of bytes of a text, as the allocator rounds it up.
func textWeight(n int) int { return n + n/8 }

// weightOf is about the number of bytes of a request with a response to it, which repeats
// most of it.
func weightOf(m *sipmsg.Message) int { return m.Weight() + textWeight(len(m.Text())) }

// budget counts bytes up to a bound. It synchronises itself.
type budget struct {
	most int64 // set at construction
	held atomic.Int64
}

// take counts bytes if they, and a reserve that is left to others, fit.
func (b *budget) take(bytes, reserve int64) bool {
	if b.held.Add(bytes) <= b.most-reserve {
		return true
	}
	b.held.Add(-bytes)
	return false
}

// give takes bytes off, or adds when they are negative.
func (b *budget) give(bytes int64) { b.held.Add(-bytes) }
