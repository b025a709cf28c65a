package transport

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
)

// records keeps when was logged what.
type records struct {
	mu   sync.Mutex // guards the field below
	list []slog.Record
}

func (r *records) Enabled(context.Context, slog.Level) bool { return true }
func (r *records) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *records) WithGroup(string) slog.Handler            { return r }

func (r *records) Handle(_ context.Context, record slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, record)
	return nil
}

// told are the times of the records with that text, as warnings and altogether.
func (r *records) told(text string) (warned []time.Time, all int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, record := range r.list {
		if record.Message != "transport: "+text {
			continue
		}
		all++
		if record.Level == slog.LevelWarn {
			warned = append(warned, record.Time)
		}
	}
	return warned, all
}

// jammed is a network whose sockets can neither read nor accept.
type jammed struct{ *dialogtest.Host }

var errJammed = errors.New("too many open files")

func (j jammed) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	ln, err := j.Host.Listen(ctx, network, address)
	return jammedListener{ln}, err
}

func (j jammed) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	conn, err := j.Host.ListenPacket(ctx, network, address)
	return jammedConn{conn}, err
}

type jammedListener struct{ net.Listener }

func (jammedListener) Accept() (net.Conn, error) { return nil, errJammed }

type jammedConn struct{ net.PacketConn }

func (jammedConn) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, errJammed }

// Of the same trouble the log is told every 10 s, however often it comes, and however
// often another does; each time is counted.
func TestWarnings_are_told_now_and_then(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, log := dialogtest.NewNetwork(), &records{}
		defer network.Close()
		l, _ := startLayer(t, Config{Network: jammed{network.Host("192.0.2.1")}, Logger: slog.New(log)})
		listen(t, l, "tcp", "192.0.2.1:5060")
		listen(t, l, "udp", "192.0.2.1:5060")
		time.Sleep(time.Minute)
		for text, failed := range map[string]uint64{"accept failed": l.Stats().AcceptErrors, "read failed": l.Stats().ReadErrors} {
			warned, all := log.told(text)
			require.EqualValues(t, failed, all, text)
			require.Greater(t, all, 50, text)
			require.Len(t, warned, 6, text)
			for i, at := range warned[1:] {
				require.GreaterOrEqual(t, at.Sub(warned[i]), warnEvery)
			}
		}
		require.NoError(t, l.Close())
	})
}

// The edge: ten seconds, and no less.
func TestWarnings_are_due_after_ten_seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &records{}
		l, _ := startLayer(t, Config{Logger: slog.New(log)})
		for _, wait := range []time.Duration{0, warnEvery - time.Nanosecond, time.Nanosecond, 0} {
			time.Sleep(wait)
			l.logRefusal(netip.AddrPort{}, ErrTooManyConnections)
		}
		warned, all := log.told("connection refused")
		require.Equal(t, 4, all)
		require.Len(t, warned, 2)
		require.Equal(t, warnEvery, warned[1].Sub(warned[0]))
		require.NoError(t, l.Close())
	})
}
