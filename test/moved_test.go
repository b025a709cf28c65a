package test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/testkit"
)

// breaks makes a call over TCP whose connections break, once, when the callee has
// read such a request and before it can answer it.
func (w *world) breaks(method string) (caller, callee *dialog.Dialog) {
	var on atomic.Bool
	tcp := func(c *dialog.StackConfig) { c.Transport.Protocol = "tcp" }
	a := w.stack("10.0.0.1", tcp)
	b := w.stack("10.0.0.2", tcp, func(c *dialog.StackConfig) {
		c.Trace = func(e dialog.TraceEvent) {
			if !e.Outbound && strings.HasPrefix(string(e.Data), method+" ") && on.CompareAndSwap(true, false) {
				w.net.BreakStreams()
			}
		}
	})
	caller, callee = w.established(a, b)
	on.Store(true)
	return caller, callee
}

// RFC 3263 4.3: a request whose connection breaks before any response goes out
// once more, identical but for its branch. A peer that had read the first does
// nothing twice: in its dialog the CSeq is no news (RFC 3261 12.2.2).
func TestARequestRepeatedOnANewConnectionIsHandledOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		caller, callee := w.breaks("INFO")
		var handled atomic.Int32
		require.NoError(t, callee.OnRequest("INFO", func(context.Context, *sip.Request) dialog.Answer {
			handled.Add(1)
			return dialog.Answer{}
		}))
		// The answer to the first may come by a connection that the peer makes,
		// before the loss is seen here.
		if err := caller.SendInfo(context.Background(), dialog.NewBody("text/plain", []byte("once"))); err != nil {
			var refused *dialog.ResponseError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, 500, refused.StatusCode)
			sent := w.sent("10.0.0.1", "INFO")
			require.Len(t, sent, 2)
			require.Equal(t, request(sent[0].msg).CSeq().SeqNo, request(sent[1].msg).CSeq().SeqNo)
			require.NotEqual(t, testkit.BranchOf(sent[0].msg), testkit.BranchOf(sent[1].msg))
		}
		synctest.Wait()
		require.EqualValues(t, 1, handled.Load())
		require.NoError(t, caller.Bye(context.Background(), ""))
		<-callee.Done()
	})
}

// The same for a BYE: both ends know that the call is over.
func TestAByeRepeatedOnANewConnectionEndsTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		caller, callee := w.breaks("BYE")
		require.NoError(t, caller.Bye(context.Background(), ""))
		<-callee.Done()
		require.Equal(t, dialog.PartyLocal, caller.Cause().By)
		require.Equal(t, dialog.PartyRemote, callee.Cause().By)
	})
}

// And for a re-INVITE. The peer's 2xx to the first has nobody any more who waits
// for it; without an ACK the peer hangs up, and no end believes in a call
// that the other has left.
func TestAReInviteRepeatedOnANewConnectionLeavesNoHalfCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		caller, callee := w.breaks("INVITE")
		if err := caller.ReInvite(context.Background(), offer(offerSDP)); err == nil {
			require.NoError(t, caller.Bye(context.Background(), "")) // answered in time, as above
			<-callee.Done()
			return
		}
		require.Equal(t, dialog.DialogStateEstablished, caller.State())
		<-caller.Done()
		<-callee.Done()
		require.Equal(t, dialog.PartyTimeout, callee.Cause().By)
		require.Equal(t, dialog.PartyRemote, caller.Cause().By)
	})
}
