package transport

import (
	"bytes"
	"sync"
	"sync/atomic"

	"github.com/gobwas/ws"

	"sipdialog.example/dialog/internal/sipmsg"
)

const (
	restSize = 512     // a connection's buffer at rest
	readSize = 4 << 10 // the least that is read into once that is full
)

// buffers are those of readSize that are not in use.
var buffers = sync.Pool{New: func() any { return new([readSize]byte) }}

// frame is one thing found in a stream.
type frame struct {
	ping   *item // the answer to a keep-alive
	inside bool  // it came in the midst of a message
	pong   bool  // the answer to a keep-alive of ours; with ping: maybe
	// whole is one message, well-formed or not (see its fault), and nil if it is not
	// SIP. raw are the bytes that it was read from, valid until the framer reads on.
	whole   bool
	message *sipmsg.Message
	raw     []byte
	lost    bool          // no further message can be found
	ended   bool          // the peer closes the WebSocket
	code    ws.StatusCode // what a WebSocket that is lost or ended is closed with
}

// source cuts the bytes of a connection into frames. It knows no socket: space
// and fed bring bytes in, next takes frames out.
type source interface {
	// space is where to read into next.
	space() []byte
	// fed says that n bytes of space are filled.
	fed(n int)
	// next returns the next frame, or false when it needs more bytes.
	next() (frame, bool)
	// held is how many bytes are held for what waits for more, beside the buffer at
	// rest.
	held() int
	// begun reports whether a part of a message is waiting for the rest.
	begun() bool
	// expectPong says that a keep-alive has been sent. It may be called from any
	// goroutine.
	expectPong()
}

// window is the bytes of a connection that are not used up yet. It has a small buffer
// at rest, and a larger one while there is more.
type window struct {
	buf   []byte // buf[start:] is unread
	start int
	rest  []byte
}

func (w *window) space() []byte {
	if w.rest == nil {
		w.rest = make([]byte, 0, restSize)
	}
	switch unread := w.unread(); {
	case len(unread) == 0:
		w.move(w.rest)
	case w.start > 0:
		w.buf = w.buf[:copy(w.buf, unread)]
	case len(w.buf) == cap(w.buf):
		w.grow()
	}
	w.start = 0
	return w.buf[len(w.buf):cap(w.buf)]
}

// grow doubles the buffer.
func (w *window) grow() {
	if size := 2 * cap(w.buf); size > readSize {
		w.move(make([]byte, 0, size))
		return
	}
	w.move(buffers.Get().(*[readSize]byte)[:0])
}

// move copies the unread bytes into another buffer.
func (w *window) move(to []byte) {
	from := w.buf
	w.buf = append(to[:0], w.unread()...)
	if cap(from) == readSize && cap(to) != readSize {
		buffers.Put((*[readSize]byte)(from[:readSize]))
	}
}

// held is the larger buffer.
func (w *window) held() int {
	if cap(w.buf) <= restSize {
		return 0
	}
	return cap(w.buf)
}

func (w *window) fed(n int) { w.buf = w.buf[:len(w.buf)+n] }

func (w *window) unread() []byte { return w.buf[w.start:] }

func (w *window) take(n int) []byte {
	b := w.buf[w.start : w.start+n]
	w.start += n
	return b
}

// framer cuts a stream into messages (RFC 3261 7.5, 18.3). What it holds is
// bounded by limits.
type framer struct {
	limits Limits // set at construction

	window
	scanned int             // bytes of the unread ones in which no header block ends
	head    *sipmsg.Message // whose body is awaited
	headLen int             // its start line and headers with the empty line; 0: none is awaited
	awaits  atomic.Bool     // a pong; synchronised by itself
}

func newFramer(limits Limits) *framer { return &framer{limits: limits} }

func (f *framer) expectPong() { f.awaits.Store(true) }

// headWeight is what a parsed header block holds for each of its bytes.
const headWeight = 4

func (f *framer) held() int { return f.window.held() + headWeight*f.headLen }

func (f *framer) take(n int) []byte {
	f.scanned = 0
	return f.window.take(n)
}

// begun reports whether a part of a message is waiting for the rest. Line ends
// between messages are none.
func (f *framer) begun() bool {
	return f.headLen > 0 || len(bytes.TrimLeft(f.unread(), crlf)) > 0
}

func (f *framer) next() (frame, bool) {
	if f.headLen == 0 {
		if found := f.keepAlive(); found != nil {
			return *found, true
		}
		if found := f.cutHead(); found != nil {
			return *found, true
		}
	}
	if f.headLen == 0 {
		return frame{}, false
	}
	return f.cutBody()
}

// keepAlive takes line ends before a message (RFC 3261 7.5), and returns what
// they are when they are a pong that is awaited or a ping (RFC 5626 4.4.1). Any
// other single CRLF is passed over. A double one is a ping, also while a pong is awaited:
// a peer that need not answer ours wants its own answered. It may be two pongs at once,
// which an answer does no harm.
func (f *framer) keepAlive() *frame {
	for {
		b := f.unread()
		switch {
		case bytes.HasPrefix(b, []byte(endBlock)):
			f.take(len(endBlock))
			return &frame{ping: crlfPong(), pong: f.awaits.Load()}
		case f.awaits.Load() && bytes.HasPrefix(b, []byte(crlf)):
			f.take(len(crlf))
			f.awaits.Store(false)
			return &frame{pong: true}
		case len(b) > 2 && bytes.HasPrefix(b, []byte(crlf)) && !bytes.HasPrefix([]byte(endBlock), b):
			f.take(len(crlf))
		default:
			return nil
		}
	}
}

// crlfPong answers a double CRLF (RFC 5626 4.4.1).
func crlfPong() *item { return &item{data: []byte(crlf), quiet: true} }

// cutHead reads a header block when it is complete. It returns a frame when
// the message ends there for us: the framing is lost.
func (f *framer) cutHead() *frame {
	b := f.unread()
	end := bytes.Index(b[f.scanned:], []byte(endBlock))
	if end < 0 {
		f.scanned = max(0, len(b)-len(endBlock)+1)
		if len(b) > f.limits.HeaderBytes+len(endBlock) {
			return &frame{lost: true}
		}
		return nil
	}
	end += f.scanned
	if end > f.limits.HeaderBytes {
		return &frame{lost: true}
	}
	m := sipmsg.Decode(bytes.Clone(b[:end]), f.limits.Headers)
	if !f.framed(m) {
		return &frame{whole: true, message: m, raw: f.take(end + len(endBlock)), lost: true}
	}
	f.head, f.headLen = m, end+len(endBlock)
	return nil
}

// framed reports whether the end of a message is known: a stream needs a
// Content-Length (RFC 3261 18.3), and one that we are willing to hold.
func (f *framer) framed(m *sipmsg.Message) bool {
	switch {
	case m == nil:
		return false
	case m.LengthFault != nil:
		m.Fail(m.LengthFault)
	case m.Length < 0:
		m.Fail(badRequest("Missing Content-Length"))
	case m.Length > f.limits.BodyBytes:
		m.Fail(tooLarge())
	default:
		return true
	}
	return false
}

func (f *framer) cutBody() (frame, bool) {
	size := f.headLen + f.head.Length
	if len(f.unread()) < size {
		return frame{}, false
	}
	raw, m := f.take(size), f.head
	m.SetBody(bytes.Clone(raw[f.headLen:]))
	f.head, f.headLen = nil, 0
	return frame{whole: true, message: m, raw: raw}, true
}
