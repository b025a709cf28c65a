package transport

import (
	"context"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
)

// stunBinding is a request of STUN (RFC 5389 6), with which some keep flows open.
const stunBinding = "\x00\x01\x00\x00\x21\x12\xa4\x42abcdefghijkl"

// Noise over UDP gets no answer: it costs nothing then, and two stacks do not answer each
// other for ever.
func TestUDP_noise_is_not_answered(t *testing.T) {
	bubble(t, Limits{}, func(t *testing.T, l *Layer, arrivals <-chan arrival, peer *dialogtest.Host) {
		conn, err := peer.DialContext(context.Background(), "udp", "192.0.2.1:5060")
		require.NoError(t, err)
		defer conn.Close()
		for _, noise := range []string{crlf, endBlock, "\r\n\r\n\r\n", "\n", "\x00", "\x00\x00\x00\x00", stunBinding, "jaK"} {
			write(t, conn, noise)
		}
		synctest.Wait()
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
		_, err = conn.Read(make([]byte, 100))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Empty(t, arrivals)
		stats := l.Stats()
		require.Zero(t, stats.MessagesOut)
		require.Zero(t, stats.Answered400)
		require.Zero(t, stats.KeepAlives)
	})
}
