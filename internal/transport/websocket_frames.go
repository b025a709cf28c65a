package transport

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// wsFramer cuts the bytes of a WebSocket into messages (RFC 6455 5, RFC 7118
// 5): each of its messages, in one frame or in fragments, is one SIP message.
// Its memory is bounded by limits.
type wsFramer struct {
	// Set at construction.
	limits Limits
	max    int // of one message
	side   ws.State

	window
	fragments  []byte // of the message that is not complete
	fragmented bool
}

func newWSFramer(limits Limits, client bool) *wsFramer {
	f := &wsFramer{limits: limits, max: limits.HeaderBytes + len(endBlock) + limits.BodyBytes, side: ws.StateServerSide}
	if client {
		f.side = ws.StateClientSide
	}
	return f
}

func (f *wsFramer) expectPong() {} // a pong has a frame of its own

func (f *wsFramer) held() int { return f.window.held() + cap(f.fragments) }

func (f *wsFramer) begun() bool { return f.fragmented || len(f.unread()) > 0 }

func (f *wsFramer) next() (frame, bool) {
	for {
		h, payload, code := f.cut()
		switch {
		case code != 0:
			return frame{lost: true, code: code}, true
		case payload == nil:
			return frame{}, false
		case h.OpCode.IsControl():
			fr := control(h.OpCode, payload)
			fr.inside = f.fragmented
			return fr, true
		}
		if data, complete := f.join(h, payload); complete {
			if fr := f.message(data); fr != nil {
				return *fr, true
			}
		}
	}
}

// cut takes one frame, unmasked. No payload: it is not complete. A code: the
// peer breaks the protocol, or wants too much.
func (f *wsFramer) cut() (h ws.Header, payload []byte, code ws.StatusCode) {
	b := bytes.NewReader(f.unread())
	h, err := ws.ReadHeader(b)
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return h, nil, 0
	case err != nil || ws.CheckHeader(h, f.state()) != nil:
		return h, nil, ws.StatusProtocolError
	case h.Length > int64(f.max-len(f.fragments)):
		return h, nil, ws.StatusMessageTooBig
	case int64(b.Len()) < h.Length:
		return h, nil, 0
	}
	f.take(len(f.unread()) - b.Len())
	payload = f.take(int(h.Length))
	if h.Masked {
		ws.Cipher(payload, h.Mask, 0)
	}
	return h, payload, 0
}

func (f *wsFramer) state() ws.State {
	if f.fragmented {
		return f.side.Set(ws.StateFragmented)
	}
	return f.side
}

// join puts fragments together; a message in one frame is not copied.
func (f *wsFramer) join(h ws.Header, payload []byte) (data []byte, complete bool) {
	if h.Fin && !f.fragmented {
		return payload, true
	}
	f.fragments = append(f.fragments, payload...)
	f.fragmented = !h.Fin
	if f.fragmented {
		return nil, false
	}
	data = f.fragments
	f.fragments = nil
	return data, true
}

// message reads one message; nil: line ends only, which mean nothing but for
// the double CRLF that some clients send (RFC 7118 6).
func (f *wsFramer) message(data []byte) *frame {
	rest := bytes.TrimLeft(data, crlf)
	switch {
	case string(data) == endBlock:
		return &frame{ping: crlfPong()}
	case len(rest) == 0 && len(data) > 0:
		return nil
	}
	m, beyond := decodeWhole(rest, f.limits)
	if m != nil && beyond > 0 {
		m.Fail(badRequest("More Than One Message"))
	}
	return &frame{whole: true, message: m, raw: data}
}

// control reads a control frame (RFC 6455 5.5).
func control(op ws.OpCode, payload []byte) frame {
	switch op {
	case ws.OpPing:
		return frame{ping: &item{data: bytes.Clone(payload), op: ws.OpPong, quiet: true}}
	case ws.OpPong:
		return frame{pong: true}
	}
	code := ws.StatusNormalClosure
	if len(payload) > 0 {
		said, reason := ws.ParseCloseFrameData(payload)
		code = said // is sent back
		if ws.CheckCloseFrameData(said, reason) != nil {
			code = ws.StatusProtocolError
		}
	}
	return frame{ended: true, code: code}
}

// messageOp is text, but for bytes that a text frame must not hold (RFC 6455
// 5.6).
func messageOp(data []byte) ws.OpCode {
	if utf8.Valid(data) {
		return ws.OpText
	}
	return ws.OpBinary
}

// wsFrame is one whole frame. A client's is masked, by an unpredictable key
// (RFC 6455 5.3).
func wsFrame(op ws.OpCode, payload []byte, client bool) []byte {
	h := ws.Header{Fin: true, OpCode: op, Length: int64(len(payload)), Masked: client}
	if client {
		_, _ = rand.Read(h.Mask[:]) // never fails
	}
	out := bytes.NewBuffer(make([]byte, 0, ws.HeaderSize(h)+len(payload)))
	_ = ws.WriteHeader(out, h) // the length is valid, and a buffer takes all
	start := out.Len()
	out.Write(payload)
	if client {
		ws.Cipher(out.Bytes()[start:], h.Mask, 0)
	}
	return out.Bytes()
}
