package transport

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/require"
)

// fuzzSeeds are well-formed and malformed streams, some of them from RFC 4475.
func fuzzSeeds() []string {
	return []string{
		pipelined(),
		"\r\n\r\n",
		options("seed", "[::1]:5060", "v=0\r\n"),
		string(ok("seed")),
		// RFC 4475 3.1.2.2: Content-Length larger than the message.
		text("v=0\r\n", "INVITE sip:user@example.com SIP/2.0", "Max-Forwards: 80", "To: sip:j.user@example.com",
			"From: sip:caller@example.net;tag=93942939o2", "Call-ID: clerr.0ha0isndaksdjweiafasdk3",
			"CSeq: 8 INVITE", "Via: SIP/2.0/UDP host5.example.com;branch=z9hG4bK-39234-23523", "Content-Length: 9999"),
		// RFC 4475 3.1.2.3: negative Content-Length.
		text("v=0\r\n", "INVITE sip:user@example.com SIP/2.0", "Via: SIP/2.0/UDP 192.0.2.53;branch=z9hG4bKkdjuw", "Content-Length: -999"),
		// RFC 4475 3.1.2.6: unterminated quoted string.
		text("", "INVITE sip:user@example.com SIP/2.0", "To: \"Mr. J. User <sip:j.user@example.com>", "l: 0"),
		// RFC 4475 3.1.2.1: extraneous separators.
		text("", "INVITE sip:user@example.com SIP/2.0", "Via: SIP/2.0/UDP 192.0.2.15;;,;,,",
			"Contact: \"Joe\" <sip:joe@example.org>;;;;", "Content-Length: 0"),
		// RFC 4475 3.3.9: differing Content-Length.
		text("There's no way to know", "OPTIONS sip:user@example.com SIP/2.0", "Via: SIP/2.0/UDP host5.example.net;branch=z9hG4bK293423",
			"Content-Length: 13", "Content-Length: 5"),
		// RFC 4475 3.1.1.2: every token character.
		text("", "!INTERESTING-METHOD0123456789_*+`.%indeed'~ sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com SIP/2.0",
			"Via: SIP/2.0/TCP host1.example.com;branch=z9hG4bK-.!%66*_+`'~", "Content-Length: 0"),
		text("", "OPTIONS sip:user@example.com SIP/2.0", "v: SIP/2.0/UDP ;", "Route: ,", "m: *,<", "t: <>", "f: \"", "l: 0"),
	}
}

// FuzzStream: framing never panics, holds no more than its limits, and finds
// the same frames wherever the stream is cut.
func FuzzStream(f *testing.F) {
	for i, seed := range fuzzSeeds() {
		f.Add([]byte(seed), uint16(7*i), uint16(13*i+1))
	}
	l := New(Config{Limits: Limits{HeaderBytes: 4 << 10, BodyBytes: 4 << 10, Headers: 64}})
	f.Cleanup(func() { _ = l.Close() })
	f.Fuzz(func(t *testing.T, data []byte, cut1, cut2 uint16) {
		stream := string(data)
		a, b := int(cut1)%(len(stream)+1), int(cut2)%(len(stream)+1)
		a, b = min(a, b), max(a, b)
		whole := pieces(t, l, stream)
		require.Equal(t, whole, pieces(t, l, stream[:a], stream[a:b], stream[b:]))
	})
}

// FuzzDatagram: whatever arrives is handed up with its mandatory marks, or
// answered, or dropped; the answer can be parsed; nothing panics.
func FuzzDatagram(f *testing.F) {
	for _, seed := range fuzzSeeds() {
		f.Add([]byte(seed))
	}
	f.Add([]byte(strings.Repeat("\r\n", 9)))
	l := New(Config{})
	f.Cleanup(func() { _ = l.Close() })
	source := netip.MustParseAddrPort("192.0.2.7:5062")
	f.Fuzz(func(t *testing.T, data []byte) {
		m, _ := decodeWhole(bytes.TrimLeft(data, crlf), l.limits)
		if m == nil || !m.IsRequest() {
			return
		}
		m.Arrived("UDP", source)
		_ = Encode(m.SIP())
		if m.Fault == nil || !m.HasVia() {
			return
		}
		answer, _ := decodeWhole(l.refusal(m), l.limits)
		require.NotNil(t, answer)
		require.False(t, answer.IsRequest())
	})
}

// FuzzWebSocket: how the bytes of a WebSocket are cut does not matter, nothing
// panics, and what is held is bounded.
func FuzzWebSocket(f *testing.F) {
	for _, seed := range fuzzSeeds() {
		f.Add(append(wsFrame(ws.OpPing, []byte("p"), true), wsFrame(ws.OpText, []byte(seed), true)...), uint16(7))
	}
	f.Add(wsFrame(ws.OpClose, []byte{3, 232, 'x'}, true), uint16(1))
	f.Add([]byte{0x01, 0x80, 0, 0, 0, 0, 0x80, 0x80, 0, 0, 0, 0}, uint16(6))
	l := New(Config{Limits: Limits{BodyBytes: 1 << 10, HeaderBytes: 1 << 10}})
	f.Cleanup(func() { _ = l.Close() })
	f.Fuzz(func(t *testing.T, data []byte, cut uint16) {
		at := int(cut) % (len(data) + 1)
		require.Equal(t, wsPieces(t, l, data), wsPieces(t, l, data[:at], data[at:]))
	})
}

// wsPieces feeds a framer piece by piece and describes what comes out.
func wsPieces(t *testing.T, l *Layer, pieces ...[]byte) []string {
	framer := newWSFramer(l.limits, false)
	var out []string
	for _, piece := range pieces {
		for len(piece) > 0 {
			n := copy(framer.space(), piece)
			framer.fed(n)
			piece = piece[n:]
			for fr, ok := framer.next(); ok; fr, ok = framer.next() {
				out = append(out, fmt.Sprint(describe(fr), fr.ended, fr.code, fr.pong, fr.inside))
				if fr.lost || fr.ended {
					return out
				}
			}
			require.LessOrEqual(t, len(framer.unread())+len(framer.fragments), 2*framer.max+ws.MaxHeaderSize)
		}
	}
	return out
}
