package test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

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

func keepUnanswered(c *dialog.StackConfig) { c.KeepUnanswered = true }

// unansweredRequests are the ways of an application's to send a request inside a call,
// and whether silence ends the call by default.
var unansweredRequests = []struct {
	name, method string
	send         func(ctx context.Context, d *dialog.Dialog) error
	ends         bool
}{
	{"SendInfo", "INFO", func(ctx context.Context, d *dialog.Dialog) error {
		return d.SendInfo(ctx, dialog.NewBody("text/plain", []byte("x")))
	}, true},
	{"SendDTMF", "INFO", func(ctx context.Context, d *dialog.Dialog) error { return d.SendDTMF(ctx, '5', dialog.DTMFOpts{}) }, true},
	{"Do", "INFO", func(ctx context.Context, d *dialog.Dialog) error {
		_, err := d.Do(ctx, sip.NewRequest(sip.INFO, sip.Uri{}))
		return err
	}, true},
	{"Update", "UPDATE", func(ctx context.Context, d *dialog.Dialog) error { _, err := d.Update(ctx, nil); return err }, true},
	{"Refer", "REFER", func(ctx context.Context, d *dialog.Dialog) error {
		if err := d.Refer(ctx, uri("carol", otherIP), dialog.ReferOpts{}); err != nil {
			return err
		}
		_, err := d.WaitRefer(ctx)
		return err
	}, true},
	{"SendMessage", "MESSAGE", func(ctx context.Context, d *dialog.Dialog) error {
		return d.SendMessage(ctx, dialog.NewBody("text/plain", []byte("x")))
	}, false},
	{"Do", "OPTIONS", func(ctx context.Context, d *dialog.Dialog) error {
		_, err := d.Do(ctx, sip.NewRequest(sip.OPTIONS, sip.Uri{}))
		return err
	}, false},
}

// FD25. RFC 3261 12.2.1.2: a peer that does not answer should lose the call. It does, in
// the methods that are the call's own (RFC 5057 5.3), unless the configuration keeps it.
func TestRequestWithoutAnAnswerEndsTheCallUnlessThatIsKept(t *testing.T) {
	for _, c := range unansweredRequests {
		for _, kept := range []bool{false, true} {
			t.Run(c.name+" "+c.method, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					p := w.peer(peerIP)
					var change []func(*dialog.StackConfig)
					if kept {
						change = append(change, keepUnanswered)
					}
					l := w.incoming(w.stack(stackIP, change...), p)
					began := time.Now()
					require.ErrorIs(t, c.send(context.Background(), l.d), dialog.ErrTimeout)
					require.Equal(t, 32*time.Second, time.Since(began))
					synctest.Wait()
					if c.ends && !kept {
						bye := p.next("BYE")
						p.reply(bye, dialogtest.Response{Code: 200})
						<-l.d.Done()
						require.Equal(t, dialog.PartyTimeout, l.d.Cause().By)
						require.Equal(t, c.method, l.d.Cause().Method)
						return
					}
					require.Equal(t, dialog.DialogStateEstablished, l.d.State())
					require.Empty(t, w.sent(stackIP, "BYE"))
					// The call goes on.
					l.ask("INFO")
					require.Equal(t, 200, l.peer.final("INFO").StatusCode)
					l.hangUp(p)
				})
			})
		}
	}
}

// Also after the caller has given up the request, and when another element responds for the
// peer.
func TestKeptCallOutlivesARequestThatWasGivenUp(t *testing.T) {
	for _, kept := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			p := w.peer(peerIP)
			l := w.incoming(w.stack(stackIP, func(c *dialog.StackConfig) { c.KeepUnanswered = kept }), p)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			require.ErrorIs(t, l.d.SendInfo(ctx, nil), context.DeadlineExceeded)
			p.next("INFO")
			done := began(func() error { return l.d.SendInfo(context.Background(), nil) })
			if kept {
				time.Sleep(time.Minute)
				require.ErrorIs(t, <-done, dialog.ErrTimeout)
				require.Equal(t, dialog.DialogStateEstablished, l.d.State())
				l.hangUp(p)
				return
			}
			p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
			<-l.d.Done()
			<-done
		})
		bubble(t, func(t *testing.T, w *world) {
			p := w.peer(peerIP)
			l := w.incoming(w.stack(stackIP, func(c *dialog.StackConfig) { c.KeepUnanswered = kept }), p)
			done := began(func() error { return l.d.SendInfo(context.Background(), nil) })
			p.reply(p.next("INFO"), dialogtest.Response{Code: 408})
			var refused *dialog.ResponseError
			require.ErrorAs(t, <-done, &refused)
			synctest.Wait()
			require.Len(t, w.sent(stackIP, "BYE"), map[bool]int{true: 0, false: 1}[kept])
			hangUp(t, l.d, p)
		})
	}
}

// A response that ends the dialog still ends the call, and so do a re-INVITE, a BYE, and an
// expired session.
func TestKeptCallEndsAllTheSameWhereItIsOver(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.incoming(w.stack(stackIP, keepUnanswered), p)
		done := began(func() error { return l.d.SendInfo(context.Background(), nil) })
		p.reply(p.next("INFO"), dialogtest.Response{Code: 481})
		<-done
		p.reply(p.next("BYE"), dialogtest.Response{Code: 481})
		<-l.d.Done()
	})
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.incoming(w.stack(stackIP, keepUnanswered), p)
		require.ErrorIs(t, l.d.ReInvite(context.Background(), offer(offerSDP)), dialog.ErrTimeout)
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
		<-l.d.Done()
	})
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.incoming(w.stack(stackIP, keepUnanswered), p)
		require.ErrorIs(t, l.d.Bye(context.Background(), ""), dialog.ErrTimeout)
		require.Equal(t, dialog.DialogStateTerminated, l.d.State())
	})
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.incoming(w.stack(stackIP, keepUnanswered), p, withHeaders("Supported: timer", "Session-Expires: 120;refresher=uas", "Allow: UPDATE"))
		require.Equal(t, "120;refresher=uas", testkit.Value(l.final.Message, "Session-Expires"))
		<-l.d.Done() // its refreshes are not answered
		require.Equal(t, dialog.PartyTimeout, l.d.Cause().By)
	})
}
