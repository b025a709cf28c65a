package test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

func (p *peer) invite(id string) dialogtest.Request {
	return dialogtest.Request{Method: "INVITE", URI: "sip:b@10.0.0.2", CallID: id, Headers: []string{contactOfPeer}}
}

// answered sends INVITEs at once and counts the 180s and 503s that come.
func (p *peer) answered(w *world, to *dialog.Stack, ids ...string) (ringing, refused int) {
	before180, before503 := len(w.sentTo(p.ip, "180 INVITE")), len(w.sentTo(p.ip, "503 INVITE"))
	for _, id := range ids {
		require.NoError(p.t, p.Send(to.Addr(), p.Request(p.invite(id))))
	}
	synctest.Wait()
	return len(w.sentTo(p.ip, "180 INVITE")) - before180, len(w.sentTo(p.ip, "503 INVITE")) - before503
}

// sentTo returns the messages sent to ip that match.
func (w *world) sentTo(ip, what string) []wire {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []wire
	for _, m := range w.log {
		if m.to.Addr().String() == ip && describe(m.msg) == what {
			list = append(list, m)
		}
	}
	return list
}

func ids(prefix string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprint(prefix, i)
	}
	return list
}

func TestRateOfInvitesIsLimited(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack("10.0.0.2", func(c *dialog.StackConfig) { c.Limits.InviteRate = 5 })
		b.OnIncomingDialog(func(dialog.IDialog) {})
		p := w.peer("10.0.0.9")
		ringing, refused := p.answered(w, b, ids("a", 20)...)
		require.Equal(t, 5, ringing)
		require.Equal(t, 15, refused)
		require.NotEmpty(t, value(w.sentTo("10.0.0.9", "503 INVITE")[0].msg, "Retry-After"))
		time.Sleep(time.Second)
		ringing, _ = p.answered(w, b, ids("b", 20)...)
		require.Equal(t, 5, ringing)
	})
}

func TestOneSourceDoesNotUseUpTheOthers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack("10.0.0.2", func(c *dialog.StackConfig) {
			c.Limits.InviteRatePerSource, c.Limits.InviteRate = 2, 5
		})
		b.OnIncomingDialog(func(dialog.IDialog) {})
		p, q := w.peer("10.0.0.9"), w.peer("10.0.0.8")
		ringing, _ := p.answered(w, b, ids("a", 20)...)
		require.Equal(t, 2, ringing)
		ringing, _ = q.answered(w, b, ids("b", 20)...)
		require.Equal(t, 2, ringing)
	})
}

func TestDialogsPerSourceAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack("10.0.0.2", func(c *dialog.StackConfig) { c.Limits.DialogsPerSource = 3 })
		var calls sync.Map
		b.OnIncomingDialog(func(d dialog.IDialog) { calls.Store(d, true) })
		p, q := w.peer("10.0.0.9"), w.peer("10.0.0.8")
		ringing, _ := p.answered(w, b, ids("a", 10)...)
		require.Equal(t, 3, ringing)
		ringing, _ = q.answered(w, b, ids("b", 1)...)
		require.Equal(t, 1, ringing)
		calls.Range(func(d, _ any) bool { _ = d.(*dialog.Dialog).Close(); return true })
		synctest.Wait()
		ringing, _ = p.answered(w, b, ids("c", 10)...)
		require.Equal(t, 3, ringing)
	})
}

func TestSubscriptionsOfACallAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2", func(c *dialog.StackConfig) { c.Limits.SubscriptionsPerDialog = 2 }), w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		for i, want := range []int{202, 202, 503} {
			res := p.ask(b, inside("REFER", uint32(11+i), contactOfPeer, "Refer-To: <sip:c@10.0.0.3>"))
			require.Equal(t, want, res.StatusCode)
		}
		require.Len(t, d.GetAllReferSubscriptions(), 2)
		hangUp(t, d, p)
	})
}

// A flood of calls from spoofed addresses leaves a call in progress alive, and
// no more behind than the limits say.
func TestFloodLeavesCallsAlive(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack("10.0.0.1")
		b := w.stack("10.0.0.2", func(c *dialog.StackConfig) {
			c.MaxDialogs, c.Limits.Tombstones, c.RingingLimit = 50, 100, 10*time.Second
		})
		caller, callee := w.established(a, b)
		var offered atomic.Int32
		b.OnIncomingDialog(func(dialog.IDialog) { offered.Add(1) })
		p := w.peer("10.0.0.9")
		for round := range 5 {
			for _, id := range ids(fmt.Sprint("r", round, "-"), 200) {
				w.net.Inject(p.Addr(), b.Addr(), []byte(p.Request(p.invite(id))))
			}
			synctest.Wait()
			require.LessOrEqual(t, len(b.Dialogs()), 50)
			time.Sleep(11 * time.Second)
		}
		require.EqualValues(t, 5*49, offered.Load())
		require.NoError(t, caller.ReInvite(context.Background(), offer(offerSDP)))
		require.NoError(t, caller.Bye(context.Background(), ""))
		synctest.Wait()
		require.Equal(t, dialog.DialogStateTerminated, callee.State())
	})
}
