package transport

import (
	"bytes"
	"sync"

	"github.com/emiago/sipgo/sip"
)

// maxPooled keeps one large message from pinning its buffer for ever.
const maxPooled = 16 << 10

// encodeBuffers holds scratch space only; nothing in it outlives a call.
var encodeBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// Encode serialises msg. The slice is the caller's and exactly as long as the
// message: it may be kept for retransmission. msg must not be changed by
// another goroutine meanwhile.
func Encode(msg sip.Message) []byte {
	buf := encodeBuffers.Get().(*bytes.Buffer)
	buf.Reset()
	msg.StringWrite(buf)
	out := make([]byte, buf.Len())
	copy(out, buf.Bytes())
	if buf.Cap() <= maxPooled {
		encodeBuffers.Put(buf)
	}
	return out
}
