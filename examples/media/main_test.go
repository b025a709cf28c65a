package main

import (
	"bytes"
	"context"
	"io"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A tone comes back from the echo, sample by sample.
func TestToneComesBack(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	said, says := io.Pipe()
	served := make(chan error, 1)
	serving, stop := context.WithCancel(ctx)
	go func() { served <- run(serving, nil, says) }()
	line := make([]byte, 100)
	n, err := said.Read(line)
	require.NoError(t, err)
	_, at, listens := strings.Cut(strings.TrimSpace(string(line[:n])), "listening on ")
	require.True(t, listens)

	var out bytes.Buffer
	require.NoError(t, run(ctx, []string{"-to", "sip:echo@" + at, "-for", "500ms"}, &out))
	require.Equal(t, "4000 samples came back as they were sent\n", out.String())
	stop()
	require.NoError(t, <-served)
}

// G.711, table 2a: the ends of the segments, and silence.
func TestMuLaw(t *testing.T) {
	for sample, code := range map[int]byte{0: 0xff, 32635: 0x80, -32635: 0x00, 32767: 0x80, 124: 0xef, -124: 0x6f, 3900: 0xb0} {
		require.Equal(t, code, muLaw(sample), "%d", sample)
	}
}

// A decoded sample differs from the tone by less than half a step of its segment.
func TestToneIsASine(t *testing.T) {
	for i, code := range tone(0, rate) {
		want := 8000 * math.Sin(2*math.Pi*440*float64(i)/rate)
		require.InDelta(t, want, decode(code), 8+math.Abs(want)/32, "sample %d", i)
	}
}

// decode is the inverse of muLaw, by the formula of G.711.
func decode(code byte) float64 {
	code = ^code
	value := float64((int(code&0x0f)<<3+132)<<(code>>4&7) - 132)
	if code&0x80 != 0 {
		return -value
	}
	return value
}

func TestSessionsWithoutPCMU(t *testing.T) {
	want := netip.MustParseAddrPort("127.0.0.1:4000")
	for session, ok := range map[string]bool{
		"c=IN IP4 127.0.0.1\r\nm=audio 4000 RTP/AVP 8 0\r\n": true,
		"c=IN IP4 127.0.0.1\r\nm=audio 4000 RTP/AVP 8\r\n":   false,
		"c=IN IP4 127.0.0.1\r\nm=audio 0 RTP/AVP 0\r\n":      false,
		"c=IN IP4 name\r\nm=audio 4000 RTP/AVP 0\r\n":        false,
		"": false,
	} {
		got, err := audioOf([]byte(session))
		require.Equal(t, ok, err == nil, session)
		require.True(t, !ok || got == want, session)
	}
}
