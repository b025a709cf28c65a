package test

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// What may keep a report from leaving, or make it say something old.

// While the ACK to a re-INVITE of ours waits for the application's answer no
// request leaves; what there is to report is not lost.
func TestReportsWaitForTheACK(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, dora := w.stack(stackIP), w.peer(otherIP)
		l := w.incoming(b, w.peer(peerIP))
		result := followsRefers(context.Background(), b, offer(offerSDP))
		decide := make(chan struct{})
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { <-decide; return ourSession(), nil })
		reinvited := began(func() error { return l.d.ReInvite(context.Background(), dialog.InviteOpts{}) })
		l.reply(l.next("INVITE"), dialogtest.Response{Code: 200, Body: offerSDP})
		synctest.Wait()
		l.ask("REFER", withHeaders(referToDora))
		l.next("202 REFER")
		dora.reply(dora.next("INVITE"), dialogtest.Response{Code: 486, ToTag: "d"})
		require.Error(t, (<-result).err)
		synctest.Wait()
		require.Empty(t, w.sent(stackIP, "NOTIFY"))
		close(decide)
		require.NoError(t, <-reinvited)
		require.Equal(t, []string{"100 Trying", "486 Busy Here"}, l.told())
	})
}

// What is reported between two others says what was reported last, or is about to
// be.
func TestReportsNeverGoBack(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(l *peerCall, r *dialog.ReferSubscription)
		want      []string
	}{
		"SUBSCRIBE": {func(l *peerCall, _ *dialog.ReferSubscription) {
			require.Equal(l.t, 200, l.subscribes("Event: refer;id=2", "Expires: 60"))
		}, []string{"183 Session Progress", "183 Session Progress", "486 Busy Here"}},
		"SUBSCRIBE that ends it": {func(l *peerCall, _ *dialog.ReferSubscription) {
			require.Equal(l.t, 200, l.subscribes("Event: refer;id=2", "Expires: 0"))
		}, []string{"183 Session Progress", "183 Session Progress"}},
		"Close": {func(_ *peerCall, r *dialog.ReferSubscription) {
			_ = r.Close()
		}, []string{"183 Session Progress", "183 Session Progress"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, dora := w.stack(stackIP), w.peer(otherIP)
				l := w.incoming(b, w.peer(peerIP))
				followsRefers(context.Background(), b, offer(offerSDP))
				r := l.receivedToDora()
				invite := dora.next("INVITE")
				dora.reply(invite, dialogtest.Response{Code: 180, ToTag: "d"})
				ringing := l.next("NOTIFY")
				dora.reply(invite, dialogtest.Response{Code: 183, ToTag: "d"})
				synctest.Wait()
				c.meanwhile(l, r)
				synctest.Wait()
				l.reply(ringing, dialogtest.Response{Code: 200})
				synctest.Wait()
				dora.reply(invite, dialogtest.Response{Code: 486, ToTag: "d"})
				for _, want := range c.want {
					notify := l.next("NOTIFY")
					l.reply(notify, dialogtest.Response{Code: 200})
					require.Equal(t, "SIP/2.0 "+want+"\r\n", string(notify.Message.Body()))
				}
				synctest.Wait()
				require.True(t, ended(r))
				require.Len(t, w.sent(stackIP, "NOTIFY"), 2+len(c.want))
			})
		})
	}
}

// A Setup that ends its goroutine costs the transfer, and the referrer learns it.
func TestReferrerLearnsOfASetupThatNeverReturns(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP)
		l := w.incoming(b, w.peer(peerIP))
		opts := offer(offerSDP)
		opts.Setup = func(*dialog.Dialog) { runtime.Goexit() }
		followsRefers(context.Background(), b, opts)
		l.ask("REFER", withHeaders(referToDora))
		start := time.Now()
		require.Equal(t, []string{"100 Trying", "503 Service Unavailable"}, l.told())
		require.Less(t, time.Since(start), time.Second)
		require.Empty(t, w.sent(stackIP, "INVITE"))
	})
}

// RFC 3515 3.4: a subscription lasts longer than the new call may ring, also where
// nobody waits for the outcome and so nobody prolongs it.
func TestSubscriptionLastsLongerThanTheCallRings(t *testing.T) {
	for _, limit := range []time.Duration{0, 170 * time.Second, 179 * time.Second, 10 * time.Minute} {
		t.Run(limit.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2", func(c *dialog.StackConfig) { c.RingingLimit = limit })
				dora := w.peer(otherIP)
				caller, _ := w.established(a, b)
				result := followsRefers(context.Background(), b, offer(offerSDP))
				require.NoError(t, caller.Refer(context.Background(), uri("dora", otherIP), dialog.ReferOpts{}))
				r, err := caller.WaitRefer(context.Background())
				require.NoError(t, err)
				dora.reply(dora.next("INVITE"), dialogtest.Response{Code: 180, ToTag: "d"}) // and no answer to the CANCEL
				require.Error(t, (<-result).err)
				synctest.Wait()
				require.Equal(t, 408, r.Status().Status)
				require.True(t, ended(r))
			})
		})
	}
}

// RFC 3515 2.4.6: a NOTIFY without an id is about the first REFER of the dialog.
func TestNOTIFYWithoutAnIDIsAboutTheFirstREFER(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		first, second := l.refers(), l.refers()
		state := "Subscription-State: terminated;reason=noresource"
		require.Equal(t, 200, l.notifiesWith("SIP/2.0 486 Busy Here", "Event: refer", state, rightType))
		require.Equal(t, 486, first.Status().Status)
		require.Zero(t, second.Status().Status)
		third := l.refers()
		require.Equal(t, 481, l.notifiesWith("SIP/2.0 200 OK", "Event: refer", state, rightType), "the first has ended")
		require.False(t, ended(second))
		require.False(t, ended(third))
	})
}
