package test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// Dialog.Transfer: a REFER as one call, which returns its own subscription.

type transferred struct {
	r   *dialog.ReferSubscription
	err error
}

// transfers calls Transfer meanwhile.
func (l *peerCall) transfers(ctx context.Context, opts dialog.ReferOpts) <-chan transferred {
	result := make(chan transferred, 1)
	go func() {
		r, err := l.d.Transfer(ctx, uri("dora", otherIP), opts)
		result <- transferred{r, err}
	}()
	return result
}

// Of several REFERs at once each has its own subscription, in whatever order they are
// accepted, and WaitRefer has none of them.
func TestEachTransferHasItsOwnSubscription(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		const n = 5
		results, refers := make([]<-chan transferred, n), make([]dialogtest.Received, n)
		for i := range n {
			results[i] = l.transfers(context.Background(), dialog.ReferOpts{})
			refers[i] = l.next("REFER")
		}
		require.NoError(t, l.d.Refer(context.Background(), uri("dora", otherIP), dialog.ReferOpts{}))
		l.reply(l.next("REFER"), dialogtest.Response{Code: 202})
		for i := n - 1; i >= 0; i-- {
			l.reply(refers[i], dialogtest.Response{Code: 202})
			got := <-results[i]
			require.NoError(t, got.err)
			require.Equal(t, request(refers[i].Message).CSeq().Value(), got.r.ID)
			number := fmt.Sprint(request(refers[i].Message).CSeq().SeqNo)
			require.Equal(t, 200, l.notifies(number, "terminated;reason=noresource", fmt.Sprintf("SIP/2.0 %d Busy", 480+i)))
			p, err := got.r.Wait(context.Background())
			require.NoError(t, err)
			require.Equal(t, 480+i, p.Status)
		}
		queued, err := l.d.WaitRefer(context.Background())
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(n+2)+" REFER", queued.ID)
		_, err = l.d.WaitRefer(context.Background())
		require.ErrorIs(t, err, dialog.ErrNoRefer)
	})
}

// RFC 6665 4.4.1: NOTIFYs may come before the 202, the last one too; the 202 may even be
// lost then.
func TestTransferWhoseNOTIFYsComeBeforeThe202(t *testing.T) {
	for _, c := range []struct {
		name     string
		notifies []string
		accepted bool
	}{
		{"progress", []string{"100 Trying", "180 Ringing"}, true},
		{"outcome", []string{"100 Trying", "200 OK"}, true},
		{"outcome without a 202", []string{"200 OK"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
				result := l.transfers(context.Background(), dialog.ReferOpts{})
				refer := l.next("REFER")
				for _, line := range c.notifies {
					state := "active;expires=60"
					if line == "200 OK" {
						state = "terminated;reason=noresource"
					}
					require.Equal(t, 200, l.notifies("2", state, "SIP/2.0 "+line))
				}
				if c.accepted {
					l.reply(refer, dialogtest.Response{Code: 202})
				}
				got := <-result
				require.NoError(t, got.err)
				if c.name == "progress" {
					require.Equal(t, 180, got.r.Status().Status)
					require.Equal(t, 200, l.notifies("2", "terminated;reason=noresource", "SIP/2.0 200 OK"))
				}
				p, err := got.r.Wait(context.Background())
				require.NoError(t, err)
				require.Equal(t, 200, p.Status)
				require.Empty(t, l.d.GetAllReferSubscriptions())
			})
		})
	}
}

// A transfer ends also if the peer sends nothing more, agrees to no subscription, refuses, or
// hangs up.
func TestTransferEndsInEveryCase(t *testing.T) {
	refused := func(t *testing.T, got transferred) {
		var e *dialog.ResponseError
		require.ErrorAs(t, got.err, &e)
		require.Equal(t, 603, e.StatusCode)
		require.Nil(t, got.r)
	}
	without := func(why error) func(*testing.T, transferred) {
		return func(t *testing.T, got transferred) {
			require.NoError(t, got.err)
			_, err := got.r.Wait(context.Background())
			require.ErrorIs(t, err, dialog.ErrNoOutcome)
			require.ErrorIs(t, err, why)
		}
	}
	failed := func(why error) func(*testing.T, transferred) {
		return func(t *testing.T, got transferred) {
			require.ErrorIs(t, got.err, why)
			require.Nil(t, got.r)
		}
	}
	toBye := func(req *sip.Request) int {
		if req.Method == sip.BYE {
			return 200
		}
		return 0
	}
	accept := func(l *peerCall, refer dialogtest.Received) { l.reply(refer, dialogtest.Response{Code: 202}) }
	for name, c := range map[string]struct {
		opts dialog.ReferOpts
		play func(l *peerCall, refer dialogtest.Received)
		want func(*testing.T, transferred)
	}{
		"no NOTIFY": {dialog.ReferOpts{}, accept, without(dialog.ErrTimeout)},
		"Refer-Sub: false": {dialog.ReferOpts{NoReferSub: true}, func(l *peerCall, refer dialogtest.Received) {
			l.reply(refer, dialogtest.Response{Code: 202, Headers: []string{"Refer-Sub: false"}})
		}, without(dialog.ErrNoSubscription)},
		"nosub": {dialog.ReferOpts{RequireNoSub: true}, accept, without(dialog.ErrNoSubscription)},
		"refused": {dialog.ReferOpts{}, func(l *peerCall, refer dialogtest.Received) {
			l.reply(refer, dialogtest.Response{Code: 603})
		}, refused},
		"BYE, then 603": {dialog.ReferOpts{}, func(l *peerCall, refer dialogtest.Received) {
			l.ask("BYE")
			l.next("200 BYE")
			l.reply(refer, dialogtest.Response{Code: 603})
		}, refused},
		"no response": {dialog.ReferOpts{}, func(l *peerCall, _ dialogtest.Received) {
			l.peer.answers(toBye)
		}, failed(dialog.ErrTimeout)},
		"Close": {dialog.ReferOpts{}, func(l *peerCall, _ dialogtest.Received) {
			require.NoError(l.t, l.d.Close())
			l.peer.answers(toBye)
		}, failed(dialog.ErrTerminated)},
		"BYE, then 202": {dialog.ReferOpts{}, func(l *peerCall, refer dialogtest.Received) {
			l.ask("BYE")
			l.next("200 BYE")
			accept(l, refer)
			require.Equal(l.t, 200, l.notifies("2", "terminated;reason=noresource", "SIP/2.0 486 Busy Here"))
		}, func(t *testing.T, got transferred) {
			require.NoError(t, got.err)
			p, err := got.r.Wait(context.Background())
			require.NoError(t, err)
			require.Equal(t, 486, p.Status)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a := w.stack(stackIP)
				l := w.outgoing(a, w.peer(peerIP))
				result := l.transfers(context.Background(), c.opts)
				c.play(l, l.next("REFER"))
				c.want(t, <-result)
			})
		})
	}
}

// A transfer that its caller gives up leaves nothing behind: a NOTIFY gets 481, and a
// challenge is not answered.
func TestTransferEndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack(stackIP, func(c *dialog.StackConfig) {
			c.Credentials = func(string) (string, string, bool) { return "a", "b", true }
		})
		l := w.outgoing(a, w.peer(peerIP))
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		result := l.transfers(ctx, dialog.ReferOpts{})
		refer := l.next("REFER")
		require.Equal(t, 200, l.notifies("2", "active", "SIP/2.0 100 Trying"))
		got := <-result
		require.ErrorIs(t, got.err, context.DeadlineExceeded)
		require.Nil(t, got.r)
		require.Empty(t, l.d.GetAllReferSubscriptions())
		require.Equal(t, 481, l.notifies("2", "active", "SIP/2.0 180 Ringing"))
		l.reply(refer, dialogtest.Response{Code: 401, Headers: []string{`WWW-Authenticate: Digest realm="r", nonce="n"`}})
		synctest.Wait()
		require.Equal(t, "2 REFER", w.last(stackIP, "REFER").value(t, "CSeq"))
		_, err := l.d.WaitRefer(context.Background())
		require.ErrorIs(t, err, dialog.ErrNoRefer)
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
	})
}

// RFC 5589 7: the Refer-To of an attended transfer is the peer of the other call, or a
// given URI, with the name of that call.
func TestAttendedTransferNamesTheOtherCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack(stackIP)
		other := w.outgoing(a, w.peer(otherIP))
		l := w.outgoing(a, w.peer(peerIP))
		key := other.d.Key()
		for _, target := range []sip.Uri{{}, uri("dora", "10.0.0.77")} {
			host := target.Host
			if host == "" {
				host = otherIP
			}
			result := began(func() error {
				_, err := l.d.Transfer(context.Background(), target, dialog.ReferOpts{Replaces: other.d})
				return err
			})
			l.reply(l.next("REFER"), dialogtest.Response{Code: 202})
			require.NoError(t, <-result)
			value := w.last(stackIP, "REFER").value(t, "Refer-To")
			require.Contains(t, value, host)
			var to sip.Uri
			require.NoError(t, sip.ParseUri(value[1:len(value)-1], &to))
			escaped, _ := to.Headers.Get("Replaces")
			named, err := dialog.ParseReplacesHeader(escaped)
			require.NoError(t, err)
			require.Equal(t, &dialog.ReplacesInfo{CallID: key.CallID, FromTag: key.LocalTag, ToTag: key.RemoteTag}, named)
		}
		require.NoError(t, l.d.Close())
		var none *dialog.Dialog
		_, err := other.d.Transfer(context.Background(), sip.Uri{}, dialog.ReferOpts{Replaces: none})
		require.ErrorIs(t, err, dialog.ErrInvalidArgument)
		_, err = other.d.Transfer(context.Background(), sip.Uri{}, dialog.ReferOpts{})
		require.ErrorIs(t, err, dialog.ErrInvalidArgument)
		var state *dialog.StateError
		_, err = l.d.Transfer(context.Background(), uri("dora", otherIP), dialog.ReferOpts{})
		require.True(t, errors.As(err, &state))
	})
}
