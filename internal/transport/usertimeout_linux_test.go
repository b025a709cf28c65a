package transport

import (
	"context"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// userTimeout is that of a connection's socket.
func userTimeout(t *testing.T, conn net.Conn) time.Duration {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	var ms int
	require.NoError(t, raw.Control(func(fd uintptr) {
		ms, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout)
	}))
	require.NoError(t, err)
	return time.Duration(ms) * time.Millisecond
}

// FN8: the kernel says in half a minute that what we write gets nowhere.
func TestStream_is_given_up_by_the_kernel_when_nothing_is_acknowledged(t *testing.T) {
	server, arrivals := startLayer(t, Config{})
	addr := listen(t, server, "tcp", "127.0.0.1:0")
	client, _ := startLayer(t, Config{})
	flow, err := client.Connect(context.Background(), Target{Transport: "TCP", Addr: addr})
	require.NoError(t, err)
	require.NoError(t, flow.Send([]byte(options("x", "127.0.0.1", ""))))
	require.Equal(t, unacknowledgedTime, userTimeout(t, flow.stream.raw))
	require.Equal(t, unacknowledgedTime, userTimeout(t, next(t, arrivals).flow.stream.raw))
}
