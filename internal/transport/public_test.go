package transport

import (
	"context"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/sipmsg"
)

// Translated is asked with a dialog locked: no network may be asked then.
func TestTranslated_asks_nobody(t *testing.T) {
	onAllAddresses(t, func(t *testing.T, l *Layer, asks *asks, flow *Flow) {
		require.False(t, flow.Translated())
		for host, translated := range map[string]bool{"192.0.2.1": false, "203.0.113.9": true} {
			flow.Local()
			via, err := sipmsg.ParseVia("SIP/2.0/UDP " + host + ";branch=z9hG4bK1;rport=5060")
			require.NoError(t, err)
			flow.Learn(&via.SentBy)
			time.Sleep(2 * routeTime)
			asked := asks.udp.Load()
			require.Equal(t, translated, flow.Translated())
			require.Equal(t, asked, asks.udp.Load())
		}
		l.routes.forget()
		require.False(t, flow.Translated(), "the port is ours, and nobody knows the address")
	})
}

// onAllAddresses runs body with a layer whose socket is bound to all addresses of a host,
// and its flow to a peer.
func onAllAddresses(t *testing.T, body func(t *testing.T, l *Layer, host *asks, flow *Flow)) {
	synctest.Test(t, func(t *testing.T) {
		network := dialogtest.NewNetwork()
		defer network.Close()
		network.Unspecified = true
		host := &asks{Host: network.Host("192.0.2.1")}
		l, _ := startLayer(t, Config{Network: host})
		listen(t, l, "udp", "0.0.0.0:5060")
		flow, err := l.Connect(context.Background(), Target{Transport: "UDP", Addr: farTCP.Addr})
		require.NoError(t, err)
		body(t, l, host, flow)
		require.NoError(t, l.Close())
	})
}

// asks is a host whose routes are asked for, and which has none while it is away.
type asks struct {
	*dialogtest.Host
	udp  atomic.Int32
	away atomic.Bool
}

func (a *asks) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network == "udp" {
		a.udp.Add(1)
		if a.away.Load() {
			return nil, syscall.ENETUNREACH
		}
	}
	return a.Host.DialContext(ctx, network, address)
}
