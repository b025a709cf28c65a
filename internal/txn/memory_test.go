package txn

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/transport"
)

// TestMemoryOfEndedServerTransactions answers calls and says how much is kept
// for each while its transactions, an INVITE's in Accepted and a BYE's in
// Completed, wait for stragglers.
func TestMemoryOfEndedServerTransactions(t *testing.T) {
	const calls, bound = 2000, 900
	network := dialogtest.NewNetwork()
	defer network.Close()
	below := transport.New(transport.Config{Network: network.Host("10.0.0.1")})
	layer := New(Config{Transport: below, User: &acking{invites: make(map[string]*Server)}, Timers: Timers{T1: time.Minute}}) // longer than the test on a busy machine
	defer func() {
		layer.Close()
		require.NoError(t, below.Close())
	}()
	_, err := below.Listen(context.Background(), transport.ListenConfig{Transport: "udp", Address: ":5060"})
	require.NoError(t, err)
	conn, err := network.Host("10.0.0.2").ListenPacket(context.Background(), "udp", ":5060")
	require.NoError(t, err)
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.0.0.1:5060"))
	buf := make([]byte, 4096)
	exchange := func(call int, method string, final string) {
		_, err := conn.WriteTo([]byte(serverText(call, method)), to)
		require.NoError(t, err)
		for res := ""; final != "" && !strings.HasPrefix(res, final); {
			n, _, err := conn.ReadFrom(buf)
			require.NoError(t, err)
			res = string(buf[:n])
		}
	}
	const all = "SIP/2.0 200"
	one := func(call int) {
		exchange(call, "INVITE", all)
		exchange(call, "ACK", "")
		exchange(call, "BYE", all)
	}
	for i := range 100 { // what is made once
		one(i)
	}
	before := heap()
	for i := range calls {
		one(100 + i)
	}
	perCall := (heap() - before) / calls
	require.Equal(t, 2*(calls+100), layer.Running().Servers)
	t.Logf("%d bytes a call", perCall)
	require.Less(t, perCall, bound)
}

func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// serverText is a request as a usual phone sends it.
func serverText(call int, method string) string {
	body, seq, tag := "", 1, ""
	switch method {
	case "INVITE":
		body = benchSDP
	case "BYE":
		seq = 2
		fallthrough
	default:
		tag = ";tag=1234567890abcdef"
	}
	return strings.Join([]string{
		method + " sip:bob@10.0.0.1:5060 SIP/2.0",
		fmt.Sprintf("Via: SIP/2.0/UDP 10.0.0.2:5060;rport;branch=z9hG4bK-%s-%016x", method, call),
		fmt.Sprintf("From: \"Alice\" <sip:alice@10.0.0.2>;tag=%016x", call),
		"To: <sip:bob@10.0.0.1>" + tag,
		fmt.Sprintf("Call-ID: %016x-4f2a-9d1c@10.0.0.2", call),
		fmt.Sprintf("CSeq: %d %s", seq, method),
		"Contact: <sip:alice@10.0.0.2:5060>",
		"Max-Forwards: 70",
		"User-Agent: a telephone",
		fmt.Sprintf("Content-Length: %d", len(body)),
	}, "\r\n") + "\r\n\r\n" + body
}
