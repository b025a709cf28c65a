package test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// large is a session description of about 10,000 bytes.
func large(session string) string { return session + strings.Repeat("a=x\r\n", 2000) }

// callBytes bounds what the calls of a stack hold.
func callBytes(most int) func(*dialog.StackConfig) {
	return func(c *dialog.StackConfig) { c.Limits.CallBytes = most }
}

// FX11: large INVITEs are taken up to the bound, and others again when calls end; of
// what holds little there may be more.
func TestLargeINVITEsAreTakenUpToABound(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP, callBytes(64<<10)), w.peer(peerIP)
		answersAll(b)
		invite := func(id, body string) int {
			require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:b@" + stackIP, CallID: id, Body: body})))
			return p.final("INVITE").StatusCode
		}
		for i := range 5 {
			require.Equal(t, 200, invite(fmt.Sprint("large", i), large(offerSDP)))
			require.LessOrEqual(t, b.Stats().CallBytes, 64<<10)
		}
		res := invite("one more", large(offerSDP))
		require.Equal(t, 503, res)
		require.NotEmpty(t, w.sentTo(p.ip, "503 INVITE")[0].value(t, "Retry-After"))
		require.EqualValues(t, 1, b.Stats().Refused["call bytes"])
		require.Equal(t, 200, invite("a small one", offerSDP))
		require.Len(t, b.Dialogs(), 6)

		time.Sleep(2 * time.Minute) // none was acknowledged
		require.Zero(t, b.Stats().CallBytes)
		require.Equal(t, 200, invite("later", large(offerSDP)))
	})
}

// One that is refused for another bound holds nothing.
func TestRefusedINVITEsHoldNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP, func(c *dialog.StackConfig) { c.MaxDialogs, c.Limits.DialogsPerSource = 2, 1 })
		b.OnIncomingDialog(func(d dialog.IDialog) {})
		peers := []*peer{w.peer("10.0.0.11"), w.peer("10.0.0.12"), w.peer("10.0.0.13")}
		for i := range 6 {
			p := peers[i/2]
			require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:b@" + stackIP, CallID: fmt.Sprint(i), Body: large(offerSDP)})))
			synctest.Wait()
		}
		require.Len(t, b.Dialogs(), 2)
		require.Less(t, b.Stats().CallBytes, 45<<10)
	})
}

// A body that nobody is registered for is not kept where there is no room; the call
// and the session go on.
func TestBodiesForLaterAreKeptUpToABound(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP, callBytes(16<<10))
		l := w.incoming(b, w.peer(peerIP))
		before := b.Stats().CallBytes
		l.reinvites(withBody(large(offerSDP)))
		require.Greater(t, b.Stats().CallBytes, before+10000)
		l.reinvites(withBody(large(large(offerSDP))))
		require.LessOrEqual(t, b.Stats().CallBytes, before)
		require.EqualValues(t, 1, b.Stats().Dropped["bodies"])
		require.Empty(t, drained(bodies(l.d)))
		l.reinvites(withBody(large(offerSDP)))
		l.hangUp(l.peer)
		synctest.Wait()
		require.Zero(t, b.Stats().CallBytes)
	})
}

// Bodies that wait for a callback that is slow are counted until it has had them, and
// be it that it panics.
func TestBodiesThatWaitForACallbackAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP, callBytes(50<<10))
		l := w.incoming(b, w.peer(peerIP))
		drained(bodies(l.d))
		before := b.Stats().CallBytes
		busy := make(chan struct{})
		heard := 0
		l.d.OnBody(func(dialog.Body) {
			<-busy
			heard++
			panic("as well")
		})
		for range 10 {
			l.reinvites(withBody(large(offerSDP)))
			require.LessOrEqual(t, b.Stats().CallBytes, 50<<10)
		}
		require.Positive(t, b.Stats().Dropped["bodies"])
		close(busy)
		synctest.Wait()
		require.Equal(t, 3, heard)
		require.Equal(t, before, b.Stats().CallBytes)
	})
}

// Responses to our calls are heeded whatever they hold; of those over the bound the
// body is not kept.
func TestBodiesOfResponsesAreKeptUpToABound(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP), callBytes(30<<10))
		a := w.stacks[0]
		for _, tag := range []string{"A", "B", "A", "B"} {
			f.says(tag, 183, large(answerSDP))
			require.LessOrEqual(t, a.Stats().CallBytes, 30<<10)
		}
		require.Positive(t, a.Stats().Dropped["bodies"])
		f.says("A", 200, large(answerSDP))
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		synctest.Wait()
		require.LessOrEqual(t, a.Stats().CallBytes, 30<<10)
		require.Equal(t, 200, f.d.Response().StatusCode)
		f.over("A")
	})
}

// REFERs without an outcome, and those that nobody has followed, are counted.
func TestLargeREFERsAreTakenUpToABound(t *testing.T) {
	for name, headers := range map[string]string{"with a subscription": "Refer-Sub: true", "without": "Refer-Sub: false"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.stack(stackIP, callBytes(50<<10))
				b.OnIncomingRefer(func(dialog.IDialog, sip.Uri, *dialog.ReplacesInfo) {})
				l := w.incoming(b, w.peer(peerIP))
				before := b.Stats().CallBytes
				refer := func() int {
					l.ask("REFER", withHeaders("Refer-To: <sip:dora@"+otherIP+">", "Supported: norefersub", headers, "Subject: "+strings.Repeat("x", 10000)))
					return l.peer.final("REFER").StatusCode
				}
				for range 4 {
					require.Equal(t, 202, refer())
				}
				require.Greater(t, b.Stats().CallBytes, before+40000)
				require.Equal(t, 503, refer())
				require.EqualValues(t, 1, b.Stats().Refused["call bytes"])
			})
		})
	}
}
