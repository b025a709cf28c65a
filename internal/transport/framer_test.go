package transport

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// found is what a framer reported, in words.
type found struct {
	frames []string
	begun  bool
}

// pieces feeds a framer piece by piece until the stream is lost.
func pieces(t testing.TB, l *Layer, parts ...string) found {
	f := newFramer(l.limits)
	var out found
	for _, part := range parts {
		for len(part) > 0 {
			n := copy(f.space(), part)
			f.fed(n)
			part = part[n:]
			for {
				fr, ok := f.next()
				if !ok {
					break
				}
				out.frames = append(out.frames, describe(fr))
				if fr.lost {
					return out
				}
			}
			if len(f.unread()) > l.limits.HeaderBytes+l.limits.BodyBytes+2*len(endBlock) {
				t.Fatalf("the framer holds %d bytes", len(f.unread()))
			}
		}
	}
	out.begun = f.begun()
	return out
}

func describe(fr frame) string {
	switch {
	case fr.ping != nil:
		return "ping"
	case !fr.whole:
		return "lost"
	case fr.message == nil:
		return fmt.Sprintf("no SIP lost=%v", fr.lost)
	}
	m, reason := fr.message.SIP(), ""
	if fr.message.Fault != nil {
		reason = fr.message.Fault.Reason
	}
	return fmt.Sprintf("%s|fault=%q|lost=%v", m.String(), reason, fr.lost)
}

// pipelined is a stream with all that framing must survive: line ends before
// and between messages, folded headers, a body that looks like a message's
// end, compact names, a ping.
func pipelined() string {
	folded := text("v=0\r\n\r\nBYE x\r\n\r\n",
		"INVITE sip:bob@example.com SIP/2.0",
		"v: SIP / 2.0 / TCP  a.example.com ;",
		" branch = z9hG4bKfold",
		"f: Alice",
		"\t<sip:alice@example.com>",
		"  ;tag=a",
		"t: <sip:bob@example.com>",
		"i: folded",
		"CSeq: 1",
		"  INVITE",
		"k: 100rel,",
		" timer",
		"l: 16",
	)
	return "\r\n" + folded + "\r\n\r\n" + options("one", "a.example.com", "") + "\r\n" +
		string(ok("two")) + "\r\n\r\n\r\n" + options("three", "a.example.com", strings.Repeat("x", 300))
}

func TestFramer_finds_the_same_messages_at_every_cut(t *testing.T) {
	l, _ := startLayer(t, Config{})
	stream := pipelined()
	whole := pieces(t, l, stream)
	require.Len(t, whole.frames, 6)
	require.Contains(t, whole.frames[0], "v=0\r\n\r\nBYE x\r\n\r\n|")
	require.Contains(t, whole.frames[0], "Via: SIP/2.0/TCP a.example.com;branch=z9hG4bKfold\r\n")
	require.Contains(t, whole.frames[0], "CSeq: 1 INVITE\r\n")
	require.Contains(t, whole.frames[0], "Supported: 100rel, timer\r\n")
	require.Equal(t, 1, strings.Count(whole.frames[0], "Content-Length"))
	require.Equal(t, "ping", whole.frames[1])
	require.Equal(t, "ping", whole.frames[4])
	for i := range stream {
		require.Equal(t, whole, pieces(t, l, stream[:i], stream[i:]), "cut at %d", i)
	}
	require.Equal(t, whole, pieces(t, l, strings.Split(stream, "")...), "byte by byte")
}

func TestFramer_knows_when_a_message_has_begun(t *testing.T) {
	l, _ := startLayer(t, Config{})
	msg := options("x", "a", "body")
	require.False(t, pieces(t, l, msg).begun)
	require.False(t, pieces(t, l, "\r\n").begun)
	require.False(t, pieces(t, l, "\r\n\r").begun)
	require.True(t, pieces(t, l, "O").begun)
	require.True(t, pieces(t, l, "\r\nO").begun)
	require.True(t, pieces(t, l, msg[:len(msg)-1]).begun)
}

func TestFramer_answers_each_double_CRLF_with_one_ping(t *testing.T) {
	l, _ := startLayer(t, Config{})
	require.Equal(t, []string{"ping"}, pieces(t, l, "\r\n\r\n").frames)
	require.Equal(t, []string{"ping"}, pieces(t, l, "\r", "\n", "\r", "\n").frames)
	require.Equal(t, []string{"ping", "ping"}, pieces(t, l, "\r\n\r\n\r\n\r\n").frames)
	require.Empty(t, pieces(t, l, "\r\n").frames)
}

func TestFramer_loses_a_stream_without_a_sure_length(t *testing.T) {
	l, _ := startLayer(t, Config{})
	with := func(lines ...string) string {
		return text("", append([]string{"OPTIONS sip:b@example.com SIP/2.0", "Via: SIP/2.0/TCP a;branch=z9hG4bK1"}, lines...)...)
	}
	for name, c := range map[string]struct{ stream, reason string }{
		"none":        {with(), "Missing Content-Length"},
		"negative":    {with("Content-Length: -1"), "Malformed Content-Length"},
		"no number":   {with("Content-Length: 1x"), "Malformed Content-Length"},
		"differing":   {with("Content-Length: 0", "l: 1"), "Differing Content-Length"},
		"huge":        {with("Content-Length: 99999999"), "Request Entity Too Large"},
		"beyond int":  {with("Content-Length: 99999999999999999999"), "Malformed Content-Length"},
		"many fields": {with(strings.Repeat("X: y\r\n", 300) + "Content-Length: 0"), "Too Many Header Fields"},
		"many values": {with("Contact: " + strings.Repeat("<sip:a@b>,", 300) + "<sip:a@b>"), "Too Many Header Fields"},
	} {
		out := pieces(t, l, c.stream+options("never", "a", ""))
		require.Len(t, out.frames, 1, name)
		require.Contains(t, out.frames[0], fmt.Sprintf("fault=%q|lost=true", c.reason), name)
	}
	require.Contains(t, pieces(t, l, with("Content-Length: 0", "l: 0")).frames[0], `fault=""|lost=false`)
}

func TestFramer_goes_on_after_a_malformed_message_whose_end_is_known(t *testing.T) {
	l, _ := startLayer(t, Config{})
	broken := text("abc", "OPTIONS sip:b@example.com SIP/2.0", "no colon here", "Via: SIP/2.0/TCP a;branch=z9hG4bK1", "Content-Length: 3")
	out := pieces(t, l, broken+options("after", "a", ""))
	require.Len(t, out.frames, 2)
	require.Contains(t, out.frames[0], `fault="Malformed Header Field"|lost=false`)
	require.Contains(t, out.frames[1], `Call-ID: after`)
}

func TestFramer_bounds_the_header_block(t *testing.T) {
	l, _ := startLayer(t, Config{})
	require.Equal(t, []string{"lost"}, pieces(t, l, strings.Repeat("x", 64<<10)).frames)
	long := text("", "OPTIONS sip:b@example.com SIP/2.0", "X: "+strings.Repeat("y", 40<<10), "Content-Length: 0")
	require.Equal(t, []string{"lost"}, pieces(t, l, long).frames)
	require.Equal(t, []string{"no SIP lost=true"}, pieces(t, l, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").frames)
}

// FT11: the bound is on the start line and the headers, what ends them left out,
// however the bytes are cut on their way.
func TestFramer_takes_a_header_block_of_just_the_limit(t *testing.T) {
	l, _ := startLayer(t, Config{Limits: Limits{HeaderBytes: 500, BodyBytes: 1000}})
	of := func(size int) string {
		head := strings.TrimSuffix(options("long", "a", ""), endBlock) + "\r\nX: "
		return head + strings.Repeat("x", size-len(head)) + endBlock
	}
	for cut := range 520 {
		fits, beyond := of(500), of(501)
		cut = min(cut, len(fits))
		got := pieces(t, l, fits[:cut], fits[cut:]).frames
		require.Len(t, got, 1)
		require.Contains(t, got[0], "Call-ID: long", "cut at %d", cut)
		require.Equal(t, []string{"lost"}, pieces(t, l, beyond[:cut], beyond[cut:]).frames, "cut at %d", cut)
	}
}
