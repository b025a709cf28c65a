package test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/bridge"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// triangle is a bridge among three stacks: alice calls bob, and carol is the target of REFERs.
type triangle struct {
	w                          *world
	alice, bob, carol, between *dialog.Stack
	// atBob and atCarol are the calls that reach them. carol answers hers by answer.
	atBob, atCarol chan *dialog.Dialog
	// a and b are the two ends of the first call.
	a, b *dialog.Dialog
}

const carolIP = "10.0.0.7"

var carolSDP = strings.NewReplacer("o=bob 7", "o=carol 8", "10.0.0.2", carolIP, "m=audio 5000", "m=audio 7000").Replace(answerSDP)

func (w *world) triangle(o bridge.Options, answer func(*dialog.Dialog) error) *triangle {
	w.t.Helper()
	g := &triangle{w: w, alice: w.stack(peerIP), bob: w.stack(otherIP), carol: w.stack(carolIP)}
	g.between = w.stack(stackIP, func(c *dialog.StackConfig) { c.NoAutoRinging = true })
	g.atBob, g.atCarol = make(chan *dialog.Dialog, 4), make(chan *dialog.Dialog, 4)
	join := bridge.New(g.between, o)
	g.between.OnCall(func(d *dialog.Dialog) {
		to := map[string]string{"bob": otherIP, "carol": carolIP}[d.Request().Recipient.User]
		_, _ = join.Join(context.Background(), d, uri("x", to), dialog.InviteOpts{})
	})
	g.bob.OnCall(func(d *dialog.Dialog) {
		require.NoError(w.t, d.Accept(context.Background(), withSDP(answerSDP)))
		g.atBob <- d
	})
	g.carol.OnCall(func(d *dialog.Dialog) {
		if err := answer(d); err == nil {
			g.atCarol <- d
		}
	})
	g.a = g.calls("bob")
	g.b = <-g.atBob
	return g
}

// calls has alice call a user through the bridge.
func (g *triangle) calls(user string) *dialog.Dialog {
	g.w.t.Helper()
	d, err := g.alice.Call(context.Background(), uri(user, stackIP), offer(offerSDP))
	require.NoError(g.w.t, err)
	require.NoError(g.w.t, d.WaitAnswer(context.Background()))
	synctest.Wait()
	return d
}

func answersAsCarol(d *dialog.Dialog) error {
	return d.Accept(context.Background(), withSDP(carolSDP))
}

func isBusy(d *dialog.Dialog) error {
	_ = d.Reject(context.Background(), 486, "")
	return context.Canceled
}

// referrer returns the end that sends the REFER, and the one that stays.
func (g *triangle) referrer(callee bool) (from, stays *dialog.Dialog) {
	if callee {
		return g.b, g.a
	}
	return g.a, g.b
}

// talks checks that two ends are joined, by an INFO, and that the end of one is that of the
// other, after which nothing is left.
func (g *triangle) talks(one, two *dialog.Dialog) {
	t := g.w.t
	t.Helper()
	heard := make(chan string, 1)
	require.NoError(t, two.OnRequest("MESSAGE", func(_ context.Context, req *sip.Request) dialog.Answer {
		heard <- string(req.Body())
		return dialog.Answer{}
	}))
	require.NoError(t, one.SendMessage(context.Background(), dialog.NewBody("text/plain", []byte("hello"))))
	require.Equal(t, "hello", <-heard)
	require.NoError(t, one.Bye(context.Background(), ""))
	time.Sleep(time.Minute)
	synctest.Wait()
	require.Equal(t, dialog.DialogStateTerminated, two.State())
	require.Empty(t, g.between.Dialogs())
	goroutinesAtMost(t, 200)
}

func policy(p bridge.ReferPolicy) bridge.Options {
	return bridge.Options{Refer: func(*dialog.ReferRequest) bridge.ReferPolicy { return p }}
}

// A followed REFER: the other side is connected with the target, under the o= line that it
// knows (RFC 3264 8), the referrer gets the outcome and BYE.
func TestBridgeFollowsARefer(t *testing.T) {
	for name, callee := range map[string]bool{"of the caller": false, "of the callee": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				var was *bridge.Call
				followed := make(chan *bridge.Call, 1)
				o := policy(bridge.ReferFollowed)
				o.Followed = func(before, now *bridge.Call) { was = before; followed <- now }
				g := w.triangle(o, answersAsCarol)
				from, stays := g.referrer(callee)
				transfer, err := from.Transfer(context.Background(), uri("carol", carolIP), dialog.ReferOpts{})
				require.NoError(t, err)
				outcome, err := transfer.Wait(context.Background())
				require.NoError(t, err)
				require.Equal(t, 200, outcome.Status)
				<-from.Done()
				require.Equal(t, dialog.PartyRemote, from.Cause().By)
				now := <-followed
				_ = was.Hangup(context.Background(), dialog.ByeOpts{}) // of what has not gone on
				require.Equal(t, dialog.DialogStateEstablished, now.In().State())
				require.Equal(t, dialog.DialogStateEstablished, now.Out().State())
				require.Equal(t, dialog.DialogStateEstablished, stays.State())

				invites := w.sent(stackIP, "INVITE")
				offered := invites[len(invites)-1].body()
				require.Contains(t, offered, "m=audio 7000")
				require.Contains(t, offered, map[bool]string{false: "o=alice", true: "o=bob"}[callee])
				g.talks(stays, <-g.atCarol)
			})
		})
	}
}

// If the target refuses, the referrer learns that, and the call goes on.
func TestBridgeWhoseReferFails(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		g := w.triangle(policy(bridge.ReferFollowed), isBusy)
		transfer, err := g.a.Transfer(context.Background(), uri("carol", carolIP), dialog.ReferOpts{})
		require.NoError(t, err)
		outcome, err := transfer.Wait(context.Background())
		require.NoError(t, err)
		require.Equal(t, 486, outcome.Status)
		g.talks(g.a, g.b)
	})
}

// The side that stays hangs up while the target rings: the target is cancelled, and the
// referrer's call ends.
func TestBridgeWhoseOtherSideEndsDuringARefer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		rings := make(chan *dialog.Dialog, 1)
		g := w.triangle(policy(bridge.ReferFollowed), func(d *dialog.Dialog) error { rings <- d; return context.Canceled })
		_, err := g.a.Transfer(context.Background(), uri("carol", carolIP), dialog.ReferOpts{})
		require.NoError(t, err)
		target := <-rings
		require.NoError(t, g.b.Bye(context.Background(), ""))
		<-target.Done()
		<-g.a.Done()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Empty(t, g.between.Dialogs())
	})
}

// An attended transfer, both of whose calls go through the bridge: the two other sides are
// connected without a new call, and both calls of the referrer end.
func TestBridgeFollowsAnAttendedRefer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		g := w.triangle(policy(bridge.ReferFollowed), answersAsCarol)
		consulted := g.calls("carol")
		atCarol := <-g.atCarol
		transfer, err := g.a.Transfer(context.Background(), uri("carol", stackIP), dialog.ReferOpts{Replaces: consulted})
		require.NoError(t, err)
		outcome, err := transfer.Wait(context.Background())
		require.NoError(t, err)
		require.Equal(t, 200, outcome.Status)
		<-g.a.Done()
		<-consulted.Done()
		require.Equal(t, stackIP, g.b.Info().RemoteTarget.Host)
		g.talks(g.b, atCarol)
	})
}

// A relayed REFER: request, responses and NOTIFYs pass.
func TestBridgeRelaysARefer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := established(t, w, policy(bridge.ReferRelayed))
		j.caller.ask("REFER", withHeaders("Refer-To: <sip:carol@"+carolIP+";x=y>", "Referred-By: <sip:caller@10.0.0.9>"))
		refer := j.callee.next("REFER")
		require.Equal(t, "<sip:carol@"+carolIP+";x=y>", testkit.Value(refer.Message, "Refer-To"))
		require.Equal(t, "<sip:caller@10.0.0.9>", testkit.Value(refer.Message, "Referred-By"))
		j.callee.reply(refer, dialogtest.Response{Code: 202})
		j.caller.next("202 REFER")
		hears := func() string {
			notify := j.caller.next("NOTIFY")
			j.caller.reply(notify, dialogtest.Response{Code: 200})
			return body(notify)
		}
		require.Contains(t, hears(), "100 Trying")
		number, _, _ := strings.Cut(refer.Request().CSeq().Value(), " ")
		for _, frag := range []string{"SIP/2.0 180 Ringing\r\n", "SIP/2.0 486 Busy Here\r\n"} {
			state := map[bool]string{true: "active;expires=60", false: "terminated;reason=noresource"}[strings.Contains(frag, "180")]
			require.Equal(t, 200, j.callee.notifies(number, state, frag))
			require.Contains(t, hears(), strings.TrimSpace(frag))
		}
		j.hangsUp(j.caller, j.callee)
	})
	for _, status := range []int{603, 488, 405} {
		bubble(t, func(t *testing.T, w *world) {
			j := established(t, w, policy(bridge.ReferRelayed))
			j.callee.ask("REFER", withHeaders("Refer-To: <sip:carol@"+carolIP+">"))
			j.caller.reply(j.caller.next("REFER"), dialogtest.Response{Code: status})
			j.callee.next(map[int]string{603: "603 REFER", 488: "488 REFER", 405: "405 REFER"}[status])
			j.hangsUp(j.callee, j.caller)
		})
	}
}

// A relayed attended REFER names the call at the other peer, not that of the bridge's.
func TestBridgeRelaysAnAttendedRefer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		g := w.triangle(policy(bridge.ReferRelayed), answersAsCarol)
		consulted := g.calls("carol")
		atCarol := <-g.atCarol
		_, err := g.a.Transfer(context.Background(), uri("carol", stackIP), dialog.ReferOpts{Replaces: consulted})
		require.NoError(t, err)
		refers := w.sent(stackIP, "REFER")
		to := refers[len(refers)-1].value(t, "Refer-To")
		require.Contains(t, to, atCarol.Key().CallID)
		require.Contains(t, to, carolIP)
		for _, d := range []*dialog.Dialog{g.a, consulted} {
			require.NoError(t, d.Bye(context.Background(), ""))
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		require.Empty(t, g.between.Dialogs())
	})
}

// Without a policy nothing passes: the stack declines. A policy may refuse.
func TestBridgeRefusesARefer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := established(t, w, policy(bridge.ReferRefused))
		j.caller.ask("REFER", withHeaders("Refer-To: <sip:carol@"+carolIP+">"))
		j.caller.next("603 REFER")
		j.callee.quiet("REFER", time.Second)
		j.hangsUp(j.caller, j.callee)
	})
}
