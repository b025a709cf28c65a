package test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

// rawOptions is a request as it may stand on a stream.
func rawOptions(length int, headers ...string) string {
	return strings.Join(append([]string{
		"OPTIONS sip:b@10.0.0.2 SIP/2.0", "Via: SIP/2.0/TCP 192.0.2.99:5099;branch=z9hG4bK1;received=192.0.2.98", "Max-Forwards: 70",
		"From: <sip:a@a>;tag=1", "To: <sip:b@b>", "Call-ID: raw", "CSeq: 1 OPTIONS", fmt.Sprint("Content-Length: ", length),
	}, headers...), "\r\n") + "\r\n\r\n"
}

// Whatever a peer writes on a stream: it is answered on that stream or not at
// all, counted, costs no more than the stream, and the calls go on.
func TestBadBytesOnAStreamCostNothingElse(t *testing.T) {
	cases := []struct {
		name string
		text string
		// answer is what comes back; closed after what time the stream ends, zero:
		// not for that. counted is the reason in Stats.
		answer  string
		closed  time.Duration
		refused string
		dropped string
	}{
		{name: "noise", text: strings.Repeat("\x00\xff~", 100) + "\r\n\r\n", dropped: "malformed"},
		{name: "another protocol", text: "GET / HTTP/1.1\r\nHost: b\r\n\r\n", dropped: "malformed"},
		{name: "half a message, then silence", text: rawOptions(0)[:60], closed: 30 * time.Second, dropped: "half messages"},
		{name: "a body that does not come", text: rawOptions(100) + "short", closed: 30 * time.Second, dropped: "half messages"},
		{name: "a negative length", text: rawOptions(-1), answer: "400", refused: "malformed"},
		{name: "a length that is no number", text: strings.Replace(rawOptions(0), "Length: 0", "Length: all", 1), answer: "400", refused: "malformed"},
		{name: "a header of 64 KiB", text: rawOptions(0, "Subject: "+strings.Repeat("x", 64<<10)), dropped: "unframed streams"},
		{name: "a thousand headers", text: rawOptions(0, strings.Split(strings.Repeat("X: y\n", 999)+"X: y", "\n")...), answer: "400", refused: "malformed"},
		{name: "a Via that points elsewhere", text: rawOptions(0), answer: "200"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b := w.site("10.0.0.1", "tcp", nil), w.site("10.0.0.2", "tcp", nil)
				a.follows(t)
				b.follows(t)
				caller, callee := a.call(t, b.uri("bob"), b.takes(t))
				conn, err := w.net.Host("10.0.0.9").DialContext(context.Background(), "tcp", b.Addr().String())
				require.NoError(t, err)
				_, _ = io.WriteString(conn, c.text)
				synctest.Wait()
				start := time.Now()
				require.NoError(t, conn.SetReadDeadline(start.Add(time.Minute)))
				answer, err := io.ReadAll(conn)
				if c.answer != "" {
					require.True(t, strings.HasPrefix(string(answer), "SIP/2.0 "+c.answer), "%s", answer)
				} else if len(answer) > 0 {
					require.Regexp(t, `^SIP/2\.0 [45]`, string(answer))
				}
				if c.closed > 0 {
					require.NoError(t, err)
					require.Equal(t, c.closed, time.Since(start))
				}
				stats := b.Stats()
				if c.refused != "" {
					require.NotZero(t, stats.Refused[c.refused])
				}
				if c.dropped != "" {
					require.NotZero(t, stats.Dropped[c.dropped], "%v", stats.Dropped)
				}
				require.NoError(t, conn.Close())
				require.Equal(t, dialog.DialogStateEstablished, callee.State())
				converse(t, caller, callee, true)
			})
		})
	}
}
