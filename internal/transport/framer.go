package transport

import (
	"bytes"

	"github.com/emiago/sipgo/sip"
)

const (
	readSize = 4 << 10  // a connection's buffer at rest
	keepSize = 64 << 10 // a larger one is given back once it is empty
)

// frame is one thing found in a stream.
type frame struct {
	ping bool // a double CRLF (RFC 5626 4.4.1); nothing else is set then
	// message is well-formed or not, see its fault. raw is valid until the
	// framer reads on.
	message *parsed
	raw     []byte
	lost    bool // no further message can be found
}

// framer cuts a stream into messages (RFC 3261 7.5, 18.3). It knows no socket:
// space and fed bring bytes in, next takes frames out. What it holds is
// bounded by limits.
type framer struct {
	// Set at construction.
	dec    *decoder
	limits Limits

	buf     []byte // buf[start:] is unread
	start   int
	scanned int    // bytes of the unread ones in which no header block ends
	head    parsed // the message whose body is awaited
	headLen int    // its start line and headers with the empty line; 0: none is awaited
}

func newFramer(dec *decoder, limits Limits) *framer {
	return &framer{dec: dec, limits: limits}
}

// space is where to read into next.
func (f *framer) space() []byte {
	unread := f.unread()
	switch {
	case len(unread) == 0 && cap(f.buf) > keepSize, f.buf == nil:
		f.buf = make([]byte, 0, readSize)
	case f.start > 0:
		f.buf = f.buf[:copy(f.buf, unread)]
	}
	f.start = 0
	if len(f.buf) == cap(f.buf) {
		f.buf = append(f.buf, 0)[:len(f.buf)]
	}
	return f.buf[len(f.buf):cap(f.buf)]
}

// fed says that n bytes of space are filled.
func (f *framer) fed(n int) { f.buf = f.buf[:len(f.buf)+n] }

func (f *framer) unread() []byte { return f.buf[f.start:] }

func (f *framer) take(n int) []byte {
	b := f.buf[f.start : f.start+n]
	f.start += n
	f.scanned = 0
	return b
}

// begun reports whether a part of a message is waiting for the rest. Line ends
// between messages are none.
func (f *framer) begun() bool {
	return f.headLen > 0 || len(bytes.TrimLeft(f.unread(), crlf)) > 0
}

// next returns the next frame, or false when it needs more bytes.
func (f *framer) next() (frame, bool) {
	if f.headLen == 0 {
		if f.keepAlive() {
			return frame{ping: true}, true
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

// keepAlive takes line ends before a message (RFC 3261 7.5), and reports
// whether they were a ping. A single CRLF is passed over, also as the pong to
// a ping of ours.
func (f *framer) keepAlive() bool {
	for {
		b := f.unread()
		switch {
		case bytes.HasPrefix(b, []byte(endBlock)):
			f.take(len(endBlock))
			return true
		case len(b) > 2 && bytes.HasPrefix(b, []byte(crlf)) && !bytes.HasPrefix([]byte(endBlock), b):
			f.take(len(crlf))
		default:
			return false
		}
	}
}

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
	p := f.dec.decode(b[:end])
	f.checkLength(&p)
	if p.unframed {
		return &frame{message: &p, raw: f.take(end + len(endBlock)), lost: true}
	}
	f.head, f.headLen = p, end+len(endBlock)
	return nil
}

// checkLength: a stream needs a Content-Length (RFC 3261 18.3), and one that
// we are willing to hold.
func (f *framer) checkLength(p *parsed) {
	switch {
	case p.msg == nil:
		p.unframed = true
	case p.unframed:
	case p.length < 0:
		p.fail(bad("Missing Content-Length"))
		p.unframed = true
	case p.length > f.limits.BodyBytes:
		p.fail(&fault{code: sip.StatusRequestEntityTooLarge, reason: "Request Entity Too Large"})
		p.unframed = true
	}
}

func (f *framer) cutBody() (frame, bool) {
	size := f.headLen + f.head.length
	if len(f.unread()) < size {
		return frame{}, false
	}
	raw := f.take(size)
	p := f.head
	p.setBody(raw[f.headLen:])
	f.head, f.headLen = parsed{}, 0
	return frame{message: &p, raw: raw}, true
}
