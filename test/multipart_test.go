package test

import (
	"context"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

// allocated is how many bytes f has allocated, garbage included.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// FX10: a multipart body costs what its bytes do, however many parts it has.
func TestMultipartReferOfManyPartsMakesNoGarbage(t *testing.T) {
	const size = 1<<20 - 1000
	many := func(part string) string {
		return strings.Repeat("--b\r\n"+part+"\r\n", size/len("--b\r\n"+part+"\r\n")) + "--b--\r\n"
	}
	for name, body := range map[string]string{
		"empty parts":          many(""),
		"parts with a header":  many("A: b\r\n\r\n"),
		"parts with the token": many("Content-ID: <" + tokenID + ">\r\n\r\n"),
		"one long header":      "--b\r\n" + strings.Repeat("Content-ID: <"+tokenID+">\r\n", size/60) + "\r\n--b--\r\n",
		"nearly delimiters":    strings.Repeat("--b", size/3),
		"padding":              "\r\n--b" + strings.Repeat(" ", size-100),
		"dashes":               strings.Repeat("-", size),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.stack(stackIP, func(c *dialog.StackConfig) {
					c.Listeners = []dialog.TransportConfig{{Protocol: "tcp", Address: stackIP, Port: 5060}}
				})
				l := w.incoming(b, w.peer(peerIP))
				b.OnReferRequest(func(context.Context, *dialog.ReferRequest) dialog.Answer { return dialog.Answer{Status: 603} })
				refer := l.Request(l.made("REFER", withHeaders(referToDora, referredByC, "Content-Type: multipart/mixed; boundary=b"), withBody(body)))
				w.deaf()
				conn, err := w.net.Host(peerIP).DialContext(context.Background(), "tcp", stackIP+":5060")
				require.NoError(t, err)
				defer func() { _ = conn.Close() }()
				answer := make([]byte, 4<<10)
				var n int
				garbage := allocated(func() {
					go func() { _, _ = conn.Write([]byte(refer)) }()
					n, err = conn.Read(answer)
				})
				require.NoError(t, err)
				require.Contains(t, string(answer[:n]), "SIP/2.0 603 ")
				require.Less(t, garbage, uint64(24<<20), "the body is 1 MiB")
				t.Logf("%d KiB", garbage>>10)
				hangUp(t, l.d, l.peer)
			})
		})
	}
}
