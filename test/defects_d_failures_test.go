package test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// The row D7: requests that fail inside a call.

// D7: any final answer to the BYE ends the dialog, and so does none (RFC 3261
// 15.1.1).
func TestWhateverTheAnswerToBYETheCallIsOver(t *testing.T) {
	cases := []struct {
		name  string
		codes []int
		after time.Duration
		err   error
	}{
		{"200", []int{200}, 0, nil},
		{"481", []int{481}, 0, nil},
		{"408", []int{408}, 0, nil},
		{"500", []int{500}, 0, nil},
		{"503", []int{503}, 0, nil},
		{"603", []int{603}, 0, nil},
		{"100 and then 200", []int{100, 200}, 0, nil},
		{"100 and then nothing", []int{100}, 32 * time.Second, dialog.ErrTimeout},
		{"nothing", nil, 32 * time.Second, dialog.ErrTimeout},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p := w.stack(stackIP), w.peer(peerIP)
				l := w.outgoing(a, p)
				seen := watch(l.d)
				start := time.Now()
				result := began(func() error { return l.d.Bye(context.Background(), "bye bye") })
				bye := p.next("BYE")
				require.Equal(t, `SIP;text="bye bye"`, bye.Request().GetHeaders("Reason")[0].Value())
				for _, code := range c.codes {
					p.reply(bye, dialogtest.Response{Code: code})
				}
				require.ErrorIs(t, <-result, c.err)
				require.Equal(t, c.after, time.Since(start))
				synctest.Wait()
				require.Equal(t, dialog.DialogStateTerminated, l.d.State())
				require.Equal(t, []dialog.DialogState{dialog.DialogStateTerminated}, seen.seen())
				_, ok := a.DialogByKey(l.d.Key())
				require.False(t, ok)
				require.NoError(t, l.d.Close())
			})
		})
	}
}

// D7: with the shorter timeout that was configured.
func TestTxTimeoutBoundsTheBYE(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP, func(c *dialog.StackConfig) { c.TxTimeout = 3 * time.Second }), w.peer(peerIP)
		l := w.outgoing(a, p)
		start := time.Now()
		require.ErrorIs(t, l.d.Bye(context.Background(), ""), dialog.ErrTimeout)
		require.Equal(t, 3*time.Second, time.Since(start))
		require.Equal(t, dialog.DialogStateTerminated, l.d.State())
	})
}

// D7: the two sides' BYEs may cross; each gets its 200 (RFC 5407 3.2.1).
func TestBYEsThatCrossAreBothAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(a, p)
		result := began(func() error { return l.d.Bye(context.Background(), "") })
		mine := p.next("BYE")
		l.ask("BYE")
		p.next("200 BYE")
		p.reply(mine, dialogtest.Response{Code: 200})
		require.NoError(t, <-result)
		// And one that comes late, for a dialog that is gone.
		l.ask("BYE")
		p.next("200 BYE")
		// Nothing else is taken there any more.
		l.ask("INFO")
		p.next("481 INFO")
	})
}

// D7, RFC 5057: a re-INVITE or REFER whose failure ends the usage or the dialog is
// followed by BYE (RFC 3261 12.2.1.2); another leaves the call alone.
func TestFailedRequestsInsideACall(t *testing.T) {
	cases := []struct {
		method string
		code   int // 0: no answer
		ends   bool
	}{
		{"INVITE", 481, true}, {"INVITE", 408, true}, {"INVITE", 0, true}, {"INVITE", 404, true}, {"INVITE", 502, true},
		{"INVITE", 488, false}, {"INVITE", 491, false}, {"INVITE", 500, false}, {"INVITE", 603, false}, {"INVITE", 302, false},
		{"REFER", 481, true}, {"REFER", 0, true}, {"REFER", 483, true}, {"REFER", 405, false}, {"REFER", 603, false},
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%s %d", c.method, c.code), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p := w.stack(stackIP, withoutRetry), w.peer(peerIP)
				l := w.outgoing(a, p)
				result := began(func() error {
					if c.method == "INVITE" {
						return l.d.ReInvite(context.Background(), offer(offerSDP))
					}
					if err := l.d.Refer(context.Background(), uri("dora", otherIP), dialog.ReferOpts{}); err != nil {
						return err
					}
					_, err := l.d.WaitRefer(context.Background())
					return err
				})
				start := time.Now()
				asked := p.next(c.method)
				if c.code > 0 {
					p.reply(asked, dialogtest.Response{Code: c.code})
				}
				err := <-result
				if c.code > 0 {
					var refused *dialog.ResponseError
					require.ErrorAs(t, err, &refused)
					require.Equal(t, c.code, refused.StatusCode)
					require.Equal(t, c.method, refused.Method)
				} else {
					require.ErrorIs(t, err, dialog.ErrTimeout)
					require.Equal(t, 32*time.Second, time.Since(start))
				}
				if !c.ends {
					p.quiet("BYE", time.Minute)
					require.Equal(t, dialog.DialogStateEstablished, l.d.State())
					return
				}
				bye := p.next("BYE")
				require.Equal(t, "3 BYE", bye.Request().CSeq().Value())
				p.reply(bye, dialogtest.Response{Code: 200})
				<-l.d.Done()
				synctest.Wait()
				require.Equal(t, c.code, l.d.Cause().Status)
				require.Equal(t, c.method, l.d.Cause().Method)
			})
		})
	}
}

// D7, RFC 5057 5.1: a NOTIFY that fails ends its subscription, and the call only
// with the codes that destroy the dialog.
func TestFailedNOTIFY(t *testing.T) {
	cases := []struct {
		code         int
		subscription bool
		call         bool
	}{{481, false, true}, {489, false, true}, {0, false, true}, {500, true, true}, {403, true, true}, {404, false, false}}
	for _, c := range cases {
		t.Run(strconv.Itoa(c.code), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				l := w.incoming(b, p)
				l.ask("REFER", withHeaders("Refer-To: <sip:dora@"+otherIP+">"))
				p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
				synctest.Wait()
				r, _ := l.d.GetReferSubscription("2 REFER")
				result := began(func() error { return r.SendNotify(context.Background(), 180, "Ringing") })
				asked := p.next("NOTIFY")
				if c.code > 0 {
					p.reply(asked, dialogtest.Response{Code: c.code})
				}
				require.Error(t, <-result)
				synctest.Wait()
				if !c.call {
					p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
					synctest.Wait()
				}
				_, alive := l.d.GetReferSubscription("2 REFER")
				require.Equal(t, c.subscription, alive)
				require.Equal(t, c.call, l.d.State() == dialog.DialogStateEstablished)
			})
		})
	}
}
