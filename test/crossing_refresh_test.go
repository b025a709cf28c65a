package test

import (
	"bytes"
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// withoutUpdate lets a stack's Allow say nothing of UPDATE: its sessions are refreshed
// by re-INVITE.
func withoutUpdate(c *dialog.StackConfig) {
	c.Network = networkWithoutUpdate{c.Network.(*dialogtest.Host)}
}

type networkWithoutUpdate struct{ *dialogtest.Host }

func (n networkWithoutUpdate) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	conn, err := n.Host.ListenPacket(ctx, network, address)
	return connWithoutUpdate{conn}, err
}

type connWithoutUpdate struct{ net.PacketConn }

func (c connWithoutUpdate) WriteTo(data []byte, to net.Addr) (int, error) {
	changed := bytes.Replace(data, []byte("OPTIONS, UPDATE, "), []byte("OPTIONS, "), 1)
	if _, err := c.PacketConn.WriteTo(changed, to); err != nil {
		return 0, err
	}
	return len(data), nil
}

// bothRefresh makes a call of 90 s between two stacks, each of which is to refresh it:
// both asked for a timer at once, and each was named the refresher by the other.
func (w *world) bothRefresh(a, b *dialog.Stack) (caller, callee *dialog.Dialog) {
	w.t.Helper()
	caller, callee = w.established(a, b)
	w.delayed(50 * time.Millisecond)
	asks := action{"UPDATE", func(ctx context.Context, d *dialog.Dialog) error {
		_, err := d.Update(ctx, nil, dialog.Header{Name: "Session-Expires", Value: "90"})
		return err
	}}
	err1, err2 := together(caller, callee, asks, asks)
	require.NoError(w.t, err1)
	require.NoError(w.t, err2)
	return caller, callee
}

// With an UPDATE the two refreshes cross for as long as the call lasts, and do no harm.
func TestRefreshesThatCross(t *testing.T) {
	for method, change := range map[string]func(*dialog.StackConfig){"UPDATE": func(*dialog.StackConfig) {}, "INVITE": withoutUpdate} {
		t.Run(method+" and UPDATE", func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				caller, callee := w.bothRefresh(w.stack("10.0.0.1"), w.stack("10.0.0.2", change))
				time.Sleep(10*refreshAt + 10*time.Second)
				one, other := w.sent("10.0.0.1", method), w.sent("10.0.0.2", "UPDATE")
				require.Len(t, one, 11)
				require.Len(t, other, 11)
				require.Len(t, w.sent("10.0.0.2", "200 "+method), 11)
				require.Len(t, w.sent("10.0.0.1", "200 UPDATE"), 11)
				require.Equal(t, one[10].at, other[10].at)
				require.Equal(t, dialog.DialogStateEstablished, caller.State())
				require.Equal(t, dialog.DialogStateEstablished, callee.State())
				require.NoError(t, caller.Bye(context.Background(), ""))
				w.nothingLeft()
			})
		})
	}
}

// By re-INVITE both get 491, and both come again, the callee's first (RFC 3261 14.1).
// That one settles whose task it is: the caller's says so too, and from then on the
// callee refreshes alone.
func TestRefreshesByReInviteThatCross(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		caller, callee := w.bothRefresh(w.stack("10.0.0.1", withoutUpdate), w.stack("10.0.0.2", withoutUpdate))
		time.Sleep(refreshAt + 10*time.Second)
		one, other := w.sent("10.0.0.1", "INVITE"), w.sent("10.0.0.2", "INVITE")
		require.Len(t, one, 3, "the first, the refresh, and that again")
		require.Len(t, other, 2)
		require.Equal(t, one[1].at, other[0].at)
		for side, again := range map[string]struct {
			wire
			least, most time.Duration
		}{
			"10.0.0.2": {one[2], 2100 * time.Millisecond, 4 * time.Second}, "10.0.0.1": {other[1], 0, 2 * time.Second},
		} {
			refused := w.one(side, "491 INVITE").at.Add(50 * time.Millisecond)
			require.GreaterOrEqual(t, again.at.Sub(refused), again.least)
			require.LessOrEqual(t, again.at.Sub(refused), again.most)
		}
		require.Equal(t, "90;refresher=uac", value(other[1].msg, "Session-Expires"))
		require.Equal(t, "90;refresher=uas", value(one[2].msg, "Session-Expires"))
		require.Contains(t, w.one("10.0.0.1", "200 INVITE").body(), "o=alice 1 2 ")
		require.Equal(t, versioned(offerSDP, 3), one[2].body(), "all that is wanted, not what the answer had to leave out")
		require.Equal(t, answerSDP, other[1].body())

		settled := one[2].at
		time.Sleep(10 * refreshAt)
		require.Len(t, w.sent("10.0.0.1", "INVITE"), 3)
		refreshed := w.sent("10.0.0.2", "INVITE")
		require.Equal(t, settled.Add(50*time.Millisecond+refreshAt), refreshed[2].at)
		require.GreaterOrEqual(t, len(refreshed), 2+9)
		require.Empty(t, w.sent("10.0.0.1", "BYE"))
		require.Empty(t, w.sent("10.0.0.2", "BYE"))
		require.Equal(t, dialog.DialogStateEstablished, caller.State())
		require.Equal(t, dialog.DialogStateEstablished, callee.State())
		require.NoError(t, callee.Bye(context.Background(), ""))
		w.nothingLeft()
		w.versionsTell()
	})
}

// Also where a re-INVITE of the application's is not to be sent again, a refresh is:
// the callee's first.
func TestRefreshesThatCrossComeAgainWithoutRetries(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		caller, callee := w.bothRefresh(w.stack("10.0.0.1", withoutUpdate, withoutRetry), w.stack("10.0.0.2", withoutUpdate, withoutRetry))
		time.Sleep(10 * refreshAt)
		require.Len(t, w.sent("10.0.0.1", "INVITE"), 2, "the first, and the refresh")
		require.Len(t, w.sent("10.0.0.1", "491 INVITE"), 1)
		require.Len(t, w.sent("10.0.0.2", "491 INVITE"), 1)
		require.Equal(t, dialog.DialogStateEstablished, caller.State())
		require.Equal(t, dialog.DialogStateEstablished, callee.State())
		require.NoError(t, caller.Bye(context.Background(), ""))
		w.nothingLeft()
		w.versionsTell()
	})
}

// What one side holds stays on hold when a refresh of the other crosses it, until it
// resumes.
func TestRefreshThatCrossesAHoldKeepsTheHold(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		caller, callee := w.established(w.stack("10.0.0.1", lasting(2*refreshAt)), w.stack("10.0.0.2", withoutUpdate))
		w.delayed(50 * time.Millisecond)
		time.Sleep(refreshAt)
		require.NoError(t, callee.Hold(context.Background()))
		time.Sleep(5 * time.Second)
		require.Len(t, w.sent("10.0.0.2", "491 INVITE"), 1)
		require.Contains(t, w.last("10.0.0.2", "200 INVITE").body(), "a=sendonly", "the answer to the refresh")
		require.NoError(t, callee.Resume(context.Background()))
		require.Contains(t, w.last("10.0.0.1", "200 INVITE").body(), "a=sendrecv")
		require.NoError(t, caller.Bye(context.Background(), ""))
		w.nothingLeft()
		w.versionsTell()
	})
}

// Two sides that hold at the same instant resume one after the other: then both send
// again.
func TestHoldsThatCrossAreUndone(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		caller, callee := w.established(w.stack("10.0.0.1"), w.stack("10.0.0.2"))
		w.delayed(50 * time.Millisecond)
		err1, err2 := together(caller, callee, holds, holds)
		require.NoError(t, err1)
		require.NoError(t, err2)
		require.Contains(t, w.last("10.0.0.2", "200 INVITE").body(), "a=inactive")
		require.NoError(t, caller.Resume(context.Background()))
		require.Contains(t, w.last("10.0.0.2", "200 INVITE").body(), "a=sendonly")
		require.NoError(t, callee.Resume(context.Background()))
		require.Contains(t, w.last("10.0.0.1", "200 INVITE").body(), "a=sendrecv")
		require.NoError(t, caller.Bye(context.Background(), ""))
		w.nothingLeft()
		w.versionsTell()
	})
}
