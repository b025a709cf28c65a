package test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// What meets the end of an early dialog, or the decision which of them makes the
// call.

// offersByUpdate sends an UPDATE with an offer from a fork, and awaits no answer.
func (f *forked) offersByUpdate(tag string) {
	f.t.Helper()
	r := f.made("UPDATE", withBody(offerSDP))
	r.FromTag, r.CSeq = tag, 2
	require.NoError(f.t, f.at[tag].Send(f.stack, f.at[tag].Request(r)))
	synctest.Wait()
}

// An INVITE that goes out once more leaves no UPDATE of its early dialogs
// unanswered, neither in the call's own nor in another.
func TestAnUpdateThatIsOpenWhenTheInviteIsChallengedIsAnswered(t *testing.T) {
	for _, tag := range []string{"A", "B"} {
		bubble(t, func(t *testing.T, w *world) {
			f := w.forks(dialog.InviteOpts{}, func(c *dialog.StackConfig) {
				c.Credentials = func(string) (string, string, bool) { return "alice", "secret", true }
			})
			f.d.OnOffer(func(ctx context.Context, _ dialog.Body) (dialog.Body, error) { <-ctx.Done(); return nil, nil })
			f.says("A", 180, "")
			f.says("B", 180, "")
			f.offersByUpdate(tag)
			f.says("B", 407, "", `Proxy-Authenticate: Digest realm="far", nonce="n", algorithm=MD5`)
			f.invite = f.next("INVITE")
			require.Equal(t, 481, f.at[tag].final("UPDATE").StatusCode)
			f.refused("B")
		})
	}
}

// A fork that is released is found where its answer came from, as the call is: its
// Contact leads nowhere.
func TestAForkBehindANATIsReleasedWhereItIs(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(publicIP)
		l := w.calls(a, p, offer(offerSDP))
		for _, tag := range []string{"A", "B"} {
			l.answer(dialogtest.Response{Code: 200, ToTag: tag, Body: answerSDP, Headers: []string{"Contact: <sip:bob@" + privateIP + ":5060>"}})
			require.Equal(t, tag, testkit.ToTag(p.next("ACK").Message))
		}
		bye := p.next("BYE")
		require.Equal(t, "B", testkit.ToTag(bye.Message))
		p.reply(bye, dialogtest.Response{Code: 200})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		result := began(func() error { return l.d.Bye(context.Background(), "") })
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
		require.NoError(t, <-result)
	})
}

// Choosing a fork that has hung up meanwhile makes no call.
func TestAForkThatHangsUpDuringTheChoice(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		opts := offer(offerSDP)
		free := make(chan struct{})
		opts.Choose = func(dialog.ForkInfo) bool { <-free; return true }
		f := w.forks(opts)
		f.says("A", 200, answerSDP)
		require.Equal(t, 200, f.asks("A", "BYE", 1).StatusCode)
		synctest.Wait() // the 200 leaves before the fork ends
		close(free)
		f.at["A"].next("ACK")
		f.at["A"].reply(f.at["A"].next("BYE"), dialogtest.Response{Code: 481})
		f.says("B", 200, answerSDP)
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		require.Equal(t, "B", f.d.Key().RemoteTag)
		f.over("B")
	})
}

// The fork that was not chosen outlives the call: Shutdown waits for its BYE too.
func TestShutdownWaitsForAForkThatWasDeclinedLate(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		opts := offer(offerSDP)
		opts.Choose = func(dialog.ForkInfo) bool { time.Sleep(20 * time.Second); return false }
		f := w.forks(opts)
		f.says("A", 180, "")
		f.says("A", 200, answerSDP)
		bye := f.at["A"].next("BYE")
		require.Error(t, f.d.WaitAnswer(context.Background()))
		synctest.Wait()
		require.Equal(t, 1, testkit.Held(w.stacks[0]).Releasing)
		result := began(func() error { return w.stacks[0].Shutdown(context.Background()) })
		time.Sleep(time.Second)
		require.Empty(t, result, "the BYE is not answered")
		f.at["A"].reply(bye, dialogtest.Response{Code: 200})
		require.NoError(t, <-result)
		require.Zero(t, testkit.Held(w.stacks[0]).Releasing)
	})
}

// A peer that answers with ever new tags makes the stack hold 64 calls besides
// the one, not one for each answer (RFC 3261 13.2.2.4 as far as a proxy forks).
func TestTheNumberOfForksThatAnswerIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		for i := range 101 {
			l.answer(dialogtest.Response{Code: 200, ToTag: fmt.Sprint("t", i), Body: answerSDP})
		}
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		synctest.Wait()
		require.Equal(t, 64, a.Stats().Releasing)
		require.Equal(t, uint64(36), a.Stats().Dropped["answers"])
		acked, released := make(map[string]bool), make(map[string]bool)
		for method, tags := range map[string]map[string]bool{"ACK": acked, "BYE": released} {
			for _, m := range w.sent(stackIP, method) {
				tags[testkit.ToTag(m.msg)] = true
			}
		}
		require.Len(t, acked, 65)
		require.Len(t, released, 64)
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		acks := len(w.sent(stackIP, "ACK"))
		l.answer(dialogtest.Response{Code: 200, ToTag: "t64", Body: answerSDP})
		synctest.Wait()
		require.Len(t, w.sent(stackIP, "ACK"), acks+1, "a repeated 2xx of one that is known")
		for range 64 {
			p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
		}
		synctest.Wait()
		require.Zero(t, a.Stats().Releasing)
	})
}

// FT10: a fork may be declined while a PRACK is being written in it. The BYE has the
// higher CSeq, and leaves behind it.
func TestTheByeToAForkFollowsThePRACKThatIsBeingWritten(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		writing, written := make(chan struct{}), make(chan struct{})
		f := w.forks(offer(offerSDP), reliability(dialog.ReliableSupported), func(c *dialog.StackConfig) {
			c.Trace = func(e dialog.TraceEvent) {
				if e.Outbound && strings.HasPrefix(string(e.Data), "PRACK ") {
					close(writing)
					<-written
				}
			}
		})
		f.says("A", 183, "", reliably(1)...)
		<-writing
		f.says("B", 200, answerSDP)
		f.says("A", 200, answerSDP)
		require.Equal(t, "A", testkit.ToTag(f.at["A"].next("ACK").Message))
		require.Empty(t, w.sent(stackIP, "BYE"))
		close(written)
		prack, bye := f.at["A"].next("PRACK"), f.at["A"].next("BYE")
		require.Less(t, prack.Request().CSeq().SeqNo, bye.Request().CSeq().SeqNo)
		f.at["A"].reply(prack, dialogtest.Response{Code: 481})
		f.at["A"].reply(bye, dialogtest.Response{Code: 200})
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		f.over("B")
	})
}
