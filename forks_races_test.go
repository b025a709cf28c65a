//go:build go1.25

package dialog_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
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
			require.Equal(t, 481, f.at[tag].answerTo("UPDATE").StatusCode)
			f.says("B", 486, "")
			require.Error(t, f.d.WaitAnswer(context.Background()))
			f.empty()
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
			require.Equal(t, tag, toTagOf(p.next("ACK").Message))
		}
		bye := p.next("BYE")
		require.Equal(t, "B", toTagOf(bye.Message))
		p.reply(bye, dialogtest.Response{Code: 200})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		result := began(func() error { return l.d.Bye(context.Background(), "") })
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
		require.NoError(t, <-result)
	})
}
