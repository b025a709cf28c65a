package test

import (
	"context"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// What a handler decides about a REFER that arrives.

// decides has the stack decide REFERs as handler says, and counts those that
// reach OnIncomingRefer.
func decides(s *dialog.Stack, handler dialog.ReferHandler) <-chan string {
	taken := make(chan string, 10)
	s.OnReferRequest(handler)
	s.OnIncomingRefer(func(_ dialog.IDialog, referTo sip.Uri, _ *dialog.ReplacesInfo) { taken <- referTo.User })
	return taken
}

func TestReferIsRefusedBeforeIt202(t *testing.T) {
	for _, status := range []int{300, 403, 429, 480, 503, 603, 699} {
		bubble(t, func(t *testing.T, w *world) {
			b := w.stack(stackIP)
			l := w.incoming(b, w.peer(peerIP))
			var refused *dialog.ReferRequest
			taken := decides(b, func(_ context.Context, refer *dialog.ReferRequest) dialog.Answer {
				refused = refer
				return dialog.Answer{Status: status, Reason: "No", Headers: []dialog.Header{{Name: "Retry-After", Value: "9"}}}
			})
			l.ask("REFER", withHeaders("Refer-To: <sip:dora@10.0.0.8>"))
			res := l.peer.final("REFER")
			require.Equal(t, status, res.StatusCode)
			require.Equal(t, "9", testkit.Value(res, "Retry-After"))
			synctest.Wait()
			require.Empty(t, taken)
			require.Empty(t, w.sent(stackIP, "NOTIFY"))
			require.Empty(t, l.d.GetAllReferSubscriptions())
			require.True(t, ended(refused.Subscription))
			require.ErrorIs(t, refused.Subscription.SendNotify(context.Background(), 200, "OK"), dialog.ErrNoSubscription)
			_, err := refused.Subscription.Follow(context.Background(), dialog.InviteOpts{})
			require.ErrorIs(t, err, dialog.ErrNoRefer)
			require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		})
	}
}

func TestReferIsAcceptedByTheHandler(t *testing.T) {
	for _, answer := range []dialog.Answer{{}, {Status: 200}, {Status: 202, Headers: []dialog.Header{{Name: "X-Seen", Value: "yes"}}}} {
		bubble(t, func(t *testing.T, w *world) {
			b := w.stack(stackIP)
			l := w.incoming(b, w.peer(peerIP))
			var got *dialog.ReferRequest
			taken := decides(b, func(_ context.Context, refer *dialog.ReferRequest) dialog.Answer {
				got = refer
				require.Empty(t, w.sent(stackIP, "202 REFER"))
				return answer
			})
			l.ask("REFER", withHeaders("Refer-To: <sip:dora@10.0.0.8?Replaces=x%3Bfrom-tag%3Df%3Bto-tag%3Dt>",
				"Referred-By: <sip:alice@10.0.0.9>;x=y", "Subject: please"))
			l.next("202 REFER")
			l.reply(l.next("NOTIFY"), dialogtest.Response{Code: 200})
			require.Equal(t, "dora", <-taken)
			require.Same(t, l.d, got.Dialog)
			require.Equal(t, "dora", got.ReferTo.User)
			require.Equal(t, &dialog.ReplacesInfo{CallID: "x", FromTag: "f", ToTag: "t"}, got.Replaces)
			require.Equal(t, "<sip:alice@10.0.0.9>;x=y", got.ReferredBy)
			require.Equal(t, "please", testkit.Value(got.Request, "Subject"))
			require.Equal(t, []*dialog.ReferSubscription{got.Subscription}, l.d.GetAllReferSubscriptions())
			require.Len(t, w.one(stackIP, "202 REFER").values("X-Seen"), len(answer.Headers))
		})
	}
}

// Two seconds, then 504; what the handler says then does not count.
func TestReferWithoutADecisionGets504(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP)
		l := w.incoming(b, w.peer(peerIP))
		taken := decides(b, func(ctx context.Context, _ *dialog.ReferRequest) dialog.Answer {
			<-ctx.Done()
			return dialog.Answer{}
		})
		start := time.Now()
		l.ask("REFER", withHeaders("Refer-To: <sip:dora@10.0.0.8>"))
		require.Equal(t, 504, l.peer.final("REFER").StatusCode)
		require.Equal(t, 2*time.Second, time.Since(start))
		synctest.Wait()
		require.Empty(t, taken)
		require.Empty(t, l.d.GetAllReferSubscriptions())
	})
}

func TestMisbehavingReferHandlerGets500(t *testing.T) {
	for name, misbehave := range map[string]func(){"panic": func() { panic("in the application") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.stack(stackIP)
				l := w.incoming(b, w.peer(peerIP))
				taken := decides(b, func(context.Context, *dialog.ReferRequest) dialog.Answer { misbehave(); return dialog.Answer{} })
				l.ask("REFER", withHeaders("Refer-To: <sip:dora@10.0.0.8>"))
				require.Equal(t, 500, l.peer.final("REFER").StatusCode)
				synctest.Wait()
				require.Empty(t, taken)
			})
		})
	}
}

// A call that ends meanwhile takes no REFER: 481.
func TestCallEndsWhileAReferIsDecided(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP)
		l := w.incoming(b, w.peer(peerIP))
		decide := make(chan struct{})
		taken := decides(b, func(context.Context, *dialog.ReferRequest) dialog.Answer { <-decide; return dialog.Answer{} })
		l.ask("REFER", withHeaders("Refer-To: <sip:dora@10.0.0.8>"))
		synctest.Wait()
		l.hangsUp()
		close(decide)
		require.Equal(t, 481, l.peer.final("REFER").StatusCode)
		synctest.Wait()
		require.Empty(t, taken)
		w.checkEmpty(b)
	})
}

// The bound counts those that are being decided.
func TestUndecidedRefersCountAgainstTheLimit(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP, func(c *dialog.StackConfig) { c.Limits.SubscriptionsPerDialog = 3 })
		l := w.incoming(b, w.peer(peerIP))
		decide := make(chan struct{})
		decides(b, func(context.Context, *dialog.ReferRequest) dialog.Answer { <-decide; return dialog.Answer{Status: 603} })
		for range 3 {
			l.ask("REFER", withHeaders("Refer-To: <sip:dora@10.0.0.8>"))
		}
		synctest.Wait()
		l.ask("REFER", withHeaders("Refer-To: <sip:dora@10.0.0.8>"))
		require.Equal(t, 503, l.peer.final("REFER").StatusCode)
		close(decide)
		for range 3 {
			require.Equal(t, 603, l.peer.final("REFER").StatusCode)
		}
		require.EqualValues(t, 1, b.Stats().Refused["subscriptions"])
		b.OnReferRequest(nil)
		l.ask("REFER", withHeaders("Refer-To: <sip:dora@10.0.0.8>"))
		require.Equal(t, 202, l.peer.final("REFER").StatusCode)
	})
}

// RFC 3892 2.1: one Referred-By. RFC 7614 5.3: nosub is known; RFC 4538: tdialog
// is where the application says so.
func TestHeadersOfAReferThatArrives(t *testing.T) {
	cases := []struct {
		headers  []string
		answer   int
		notifies int
	}{
		{[]string{"Referred-By: <sip:a@b>", "Referred-By: <sip:c@d>"}, 400, 0},
		{[]string{"Require: nosub"}, 202, 0},
		{[]string{"Require: norefersub", "Refer-Sub: false"}, 202, 0},
		{[]string{"Refer-Sub: true"}, 202, 1},
		{[]string{"Require: explicitsub"}, 420, 0},
		{[]string{"Require: tdialog", "Target-Dialog: x;local-tag=a;remote-tag=b"}, 420, 0},
	}
	for i, c := range cases {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.stack(stackIP)
				l := w.incoming(b, w.peer(peerIP))
				l.ask("REFER", withHeaders(append(c.headers, "Refer-To: <sip:dora@10.0.0.8>")...))
				res := l.peer.final("REFER")
				require.Equal(t, c.answer, res.StatusCode)
				synctest.Wait()
				require.Len(t, w.sent(stackIP, "NOTIFY"), c.notifies)
			})
		})
	}
}

// FD21. A REFER gets 202 whatever the application does; without a handler the outcome is known
// at once.
func TestReferWithoutAHandlerIsDeclinedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		b.OnIncomingRefer(nil)
		caller, callee := w.established(a, b)
		began := time.Now()
		for range 3 {
			require.NoError(t, caller.Refer(context.Background(), uri("carol", "10.0.0.3"), dialog.ReferOpts{}))
			r, err := caller.WaitRefer(context.Background())
			require.NoError(t, err)
			outcome, err := r.Wait(context.Background())
			require.NoError(t, err)
			require.Equal(t, dialog.Progress{Status: 603, Reason: "Decline"}, outcome)
			<-r.Done()
		}
		require.Zero(t, time.Since(began))
		synctest.Wait()
		require.Empty(t, callee.GetAllReferSubscriptions())
		require.Len(t, w.sent("10.0.0.2", "202 REFER"), 3)
		notifies := w.sent("10.0.0.2", "NOTIFY")
		require.Len(t, notifies, 3)
		require.Equal(t, "terminated;reason=noresource", notifies[0].value(t, "Subscription-State"))
		require.Equal(t, "SIP/2.0 603 Decline\r\n", notifies[0].body())
		_, err := callee.FollowRefer(context.Background(), uri("carol", "10.0.0.3"), dialog.InviteOpts{})
		require.ErrorIs(t, err, dialog.ErrNoRefer)
		require.Equal(t, dialog.DialogStateEstablished, caller.State())
		require.NoError(t, caller.Bye(context.Background(), ""))
	})
}

// With any kind of handler the stack sends no outcome itself.
func TestReferWithAHandlerIsNotDeclined(t *testing.T) {
	accept := func(context.Context, *dialog.ReferRequest) dialog.Answer { return dialog.Answer{} }
	for name, takes := range map[string]func(s *dialog.Stack){
		"OnIncomingRefer": func(s *dialog.Stack) { s.OnIncomingRefer(func(dialog.IDialog, sip.Uri, *dialog.ReplacesInfo) {}) },
		"OnReferRequest":  func(s *dialog.Stack) { s.OnReferRequest(accept) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				b.OnIncomingRefer(nil)
				l := w.incoming(b, p)
				takes(b)
				l.ask("REFER", withHeaders("Refer-To: <sip:carol@"+otherIP+">"))
				p.next("202 REFER")
				notify := p.next("NOTIFY")
				require.Equal(t, "SIP/2.0 100 Trying\r\n", string(notify.Message.Body()))
				p.reply(notify, dialogtest.Response{Code: 200})
				synctest.Wait()
				require.Len(t, l.d.GetAllReferSubscriptions(), 1)
				hangUp(t, l.d, p)
			})
		})
	}
}

// Without a subscription there is no NOTIFY; a peer that does not know the subscription, or
// does not respond, does not harm the call.
func TestReferWithoutAHandlerAndWithoutASubscription(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		b.OnIncomingRefer(nil)
		l := w.incoming(b, p)
		l.ask("REFER", withHeaders("Refer-To: <sip:carol@"+otherIP+">", "Refer-Sub: false"))
		require.Equal(t, "false", testkit.Value(p.next("202 REFER").Message, "Refer-Sub"))
		p.quiet("NOTIFY", time.Minute)

		l.ask("REFER", withHeaders("Refer-To: <sip:carol@"+otherIP+">"))
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 481})
		synctest.Wait()
		require.Empty(t, l.d.GetAllReferSubscriptions())
		l.ask("REFER", withHeaders("Refer-To: <sip:carol@"+otherIP+">"))
		p.next("NOTIFY")
		time.Sleep(time.Minute)
		require.Empty(t, l.d.GetAllReferSubscriptions())
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		l.hangUp(p)
	})
}

// An application that takes a REFER by HandleIncomingRefer takes it.
func TestReferHandedInIsNotDeclined(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		b.OnIncomingRefer(nil)
		l := w.incoming(b, p)
		req := sip.NewRequest(sip.REFER, uri("service", stackIP))
		req.AppendHeader(&sip.CSeqHeader{SeqNo: 7, MethodName: sip.REFER})
		require.NoError(t, l.d.HandleIncomingRefer(req, uri("carol", otherIP), nil))
		notify := p.next("NOTIFY")
		require.Equal(t, "SIP/2.0 100 Trying\r\n", string(notify.Message.Body()))
		p.reply(notify, dialogtest.Response{Code: 200})
		synctest.Wait()
		require.Len(t, l.d.GetAllReferSubscriptions(), 1)
		hangUp(t, l.d, p)
	})
}

const (
	tokenID     = "20398823.2UWQFN309shb3@referrer.example"
	referredByC = `Referred-By: <sip:caller@10.0.0.9>;cid="` + tokenID + `"`
)

// signed is a token as RFC 3892 7.1 has it; part is what else stands in it.
const signed = "Content-Type: multipart/signed;\r\n  protocol=\"application/pkcs7-signature\";\r\n  micalg=sha1; boundary=dragons39\r\n" +
	"content-id: <" + tokenID + ">\r\n\r\n" +
	"--dragons39\r\nContent-Type: message/sipfrag\r\nContent-Disposition: aib; handling=optional\r\n\r\n" +
	"Refer-To: <sip:dora@10.0.0.8>\r\n--unique-1x\r\n\r\n" +
	"--dragons39\r\nContent-Type: application/pkcs7-signature; name=smime.p7s\r\n\r\n\xff\x00 \r\n\r\n--dragons39--"
