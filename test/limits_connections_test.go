package test

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

// FX6: one host opens what connections it can, says nothing or half a message, and
// takes nobody else's room; all of it is counted, and over in 30 s.
func TestConnectionsOfOneHostAreBoundedAndCounted(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack("10.0.0.2", func(c *dialog.StackConfig) {
			c.Transport = &dialog.TransportConfig{Protocol: "tcp", Address: "10.0.0.2"}
			c.Limits.ConnectionsPerSource, c.Limits.StreamBytes = 5, 64<<10
		})
		dial := func(ip string) net.Conn {
			conn, err := w.net.Host(ip).DialContext(t.Context(), "tcp", b.Addr().String())
			require.NoError(t, err)
			return conn
		}
		for i := range 15 {
			conn := dial("10.0.0.66")
			if i%2 == 0 {
				_, _ = io.WriteString(conn, "OPTIONS sip:b@10.0.0.2 SIP/2.0\r\nX: "+string(make([]byte, 20<<10)))
			}
			synctest.Wait()
			require.LessOrEqual(t, b.Stats().StreamBytes, 64<<10)
		}
		dial("10.0.0.67")
		synctest.Wait()
		stats := b.Stats()
		require.NotZero(t, stats.StreamBytes)
		require.NotZero(t, stats.Refused["connections of a source"])
		require.NotZero(t, stats.Dropped["crowded connections"])
		require.LessOrEqual(t, stats.Connections, 6)
		time.Sleep(31 * time.Second)
		stats = b.Stats()
		require.Zero(t, stats.Connections)
		require.Zero(t, stats.StreamBytes)
		require.NotZero(t, stats.Dropped["silent connections"])
		require.NotZero(t, stats.Dropped["half messages"])
	})
}
