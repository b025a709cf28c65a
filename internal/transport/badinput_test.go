package transport

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/testcert"
)

// everyTransport runs test with a layer that listens for each transport, and a
// way to send it what one likes: on each a connection of its own.
func everyTransport(t *testing.T, limits Limits, test func(t *testing.T, w *badWire)) {
	ca := testcert.New(t)
	for _, transport := range []string{"UDP", "TCP", "TLS", "WS", "WSS"} {
		t.Run(transport, func(t *testing.T) {
			l, arrivals := startLayer(t, Config{Limits: limits})
			w := &badWire{transport: transport, layer: l, arrivals: arrivals, addr: listenTLS(t, l, transport, "127.0.0.1:0", ca.Server("127.0.0.1"))}
			// The other end is a layer too: its own handshakes, its raw bytes.
			w.peer, _ = startLayer(t, Config{TLS: ca.Client()})
			if transport == "UDP" {
				listen(t, w.peer, "udp", "127.0.0.1:0")
			}
			test(t, w)
			// The layer continues after any input.
			w.connect(t)
			w.send(t, options("after", "127.0.0.1", ""))
			require.Equal(t, "after", next(t, arrivals).msg.CallID().Value())
		})
	}
}

type badWire struct {
	transport string
	layer     *Layer
	arrivals  <-chan arrival
	addr      netip.AddrPort
	peer      *Layer
	flow      *Flow
}

func (w *badWire) connect(t *testing.T) {
	t.Helper()
	var err error
	w.flow, err = w.peer.Connect(context.Background(), Target{Transport: w.transport, Addr: w.addr})
	require.NoError(t, err)
}

// send writes bytes as they are; on a WebSocket as one message.
func (w *badWire) send(t *testing.T, data string) {
	t.Helper()
	require.NoError(t, w.flow.Send([]byte(data)))
}

// lost waits for the end of the connection.
func (w *badWire) lost(t *testing.T) error {
	t.Helper()
	lost := make(chan error, 1)
	w.flow.Watch(func(err error) { lost <- err })
	select {
	case err := <-lost:
		return err
	case <-time.After(10 * time.Second):
		require.FailNow(t, "the connection is still there")
		return nil
	}
}

func (w *badWire) framed() bool { return w.transport == "TCP" || w.transport == "TLS" }

func TestBadInput_a_message_of_64_KiB(t *testing.T) {
	everyTransport(t, Limits{}, func(t *testing.T, w *badWire) {
		w.connect(t)
		big := strings.Repeat("b", 64<<10)
		if w.transport == "UDP" {
			require.Error(t, w.flow.Send([]byte(options("big", "127.0.0.1", big))), "no datagram is that long")
			big = big[:60<<10]
		}
		w.send(t, options("big", "127.0.0.1", big))
		require.Equal(t, big, string(next(t, w.arrivals).msg.Body()))
	})
}

func TestBadInput_more_than_the_limits(t *testing.T) {
	everyTransport(t, Limits{BodyBytes: 10 << 10}, func(t *testing.T, w *badWire) {
		w.connect(t)
		w.send(t, options("body", "127.0.0.1", strings.Repeat("b", 12<<10)))
		if w.framed() {
			require.Error(t, w.lost(t)) // the end, or a reset: not all has been read
			w.connect(t)
		}
		require.Eventually(t, func() bool { return w.layer.Stats().Answered400 == 1 }, 10*time.Second, time.Millisecond, "413")

		header := strings.Replace(options("header", "127.0.0.1", ""), "Max-Forwards", "X: "+strings.Repeat("h", 33<<10)+"\r\nMax-Forwards", 1)
		w.send(t, header)
		if w.framed() {
			require.Error(t, w.lost(t))
			return
		}
		require.Eventually(t, func() bool { return w.layer.Stats().Answered400 == 2 }, 10*time.Second, time.Millisecond)
	})
}

func TestBadInput_a_thousand_headers(t *testing.T) {
	everyTransport(t, Limits{}, func(t *testing.T, w *badWire) {
		w.connect(t)
		w.send(t, strings.Replace(options("many", "127.0.0.1", ""), "Max-Forwards", strings.Repeat("X: y\r\n", 1000)+"Max-Forwards", 1))
		require.Eventually(t, func() bool { return w.layer.Stats().Answered400 == 1 }, 10*time.Second, time.Millisecond)
		if w.framed() {
			require.Error(t, w.lost(t), "the length may be among what was not read")
		}
	})
}

func TestBadInput_a_Content_Length_that_lies(t *testing.T) {
	everyTransport(t, Limits{PartialTimeout: 50 * time.Millisecond}, func(t *testing.T, w *badWire) {
		for _, length := range []string{"5", "2000000000", "99999999999999999999", "-1", "x", "3\r\nContent-Length: 4"} {
			before := w.layer.Stats()
			w.connect(t)
			w.send(t, strings.Replace(options("liar", "127.0.0.1", "body"), "Content-Length: 4", "Content-Length: "+length, 1))
			if w.framed() {
				require.Error(t, w.lost(t), length)
				continue
			}
			require.Eventually(t, func() bool { return w.layer.Stats().Answered400 == before.Answered400+1 }, 10*time.Second, time.Millisecond, length)
		}
		require.Empty(t, w.arrivals)
	})
}

func TestBadInput_bytes_that_are_no_SIP(t *testing.T) {
	everyTransport(t, Limits{}, func(t *testing.T, w *badWire) {
		w.connect(t)
		w.send(t, "\x00\x01\x02 no SIP at all \xff\xfe\r\n\r\n")
		if w.framed() {
			require.Error(t, w.lost(t))
			return
		}
		require.Eventually(t, func() bool { return w.layer.Stats().Malformed == 1 }, 10*time.Second, time.Millisecond)
	})
}

func TestBadInput_half_a_message_and_silence(t *testing.T) {
	everyTransport(t, Limits{PartialTimeout: 50 * time.Millisecond}, func(t *testing.T, w *badWire) {
		w.connect(t)
		half := options("half", "127.0.0.1", "body")
		half = half[:len(half)-2]
		switch {
		case w.transport == "UDP":
			w.send(t, half)
			require.Eventually(t, func() bool { return w.layer.Stats().Answered400 == 1 }, 10*time.Second, time.Millisecond)
			return
		case w.framed():
			w.send(t, half)
		default:
			// A frame that does not go on, written below the peer's framing.
			frame := wsFrame(ws.OpText, []byte(half), true)
			_, err := w.flow.stream.conn.Write(frame[:len(frame)-1])
			require.NoError(t, err)
		}
		require.Error(t, w.lost(t))
		require.EqualValues(t, 1, w.layer.Stats().ConnectionsPartial)
	})
}

func TestBadInput_many_connections_are_refused_on_every_stream(t *testing.T) {
	everyTransport(t, Limits{Connections: 2}, func(t *testing.T, w *badWire) {
		if w.transport == "UDP" {
			return
		}
		held := []net.Conn{dialTCP(t, w.addr), dialTCP(t, w.addr)}
		require.Eventually(t, func() bool { return w.layer.Stats().Connections == 2 }, 10*time.Second, time.Millisecond)
		over := dialTCP(t, w.addr)
		_, err := over.Read(make([]byte, 1))
		require.Error(t, err)
		require.False(t, errors.Is(err, context.DeadlineExceeded))
		require.EqualValues(t, 1, w.layer.Stats().ConnectionsRefused)
		for _, conn := range held {
			require.NoError(t, conn.Close())
		}
		require.Eventually(t, func() bool { return w.layer.Stats().Connections == 0 }, 10*time.Second, time.Millisecond)
	})
}
