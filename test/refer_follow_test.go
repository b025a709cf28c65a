package test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// followed is what came of FollowRefer.
type followed struct {
	call *dialog.Dialog
	err  error
}

// followsRefers has the stack follow the REFERs it gets.
func followsRefers(ctx context.Context, s *dialog.Stack, opts dialog.InviteOpts) <-chan followed {
	result := make(chan followed, 10)
	s.OnIncomingRefer(func(d dialog.IDialog, referTo sip.Uri, _ *dialog.ReplacesInfo) {
		call, err := d.(*dialog.Dialog).FollowRefer(ctx, referTo, opts)
		result <- followed{call, err}
	})
	return result
}

// told answers NOTIFYs with 200 and returns what they said, up to the last.
func (l *peerCall) told() []string {
	l.t.Helper()
	list, err := l.hears()
	require.NoError(l.t, err)
	return list
}

// hears is told for any goroutine.
func (l *peerCall) hears() (said []string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	for {
		notify, err := l.Recv(ctx)
		if err != nil {
			return said, err
		}
		if testkit.Describe(notify.Message) != "NOTIFY" {
			continue
		}
		if err := l.Reply(notify, dialogtest.Response{Code: 200}); err != nil {
			return said, err
		}
		said = append(said, strings.TrimSpace(strings.TrimPrefix(string(notify.Message.Body()), "SIP/2.0 ")))
		switch state := testkit.Value(notify.Message, "Subscription-State"); {
		case state == "terminated;reason=noresource":
			return said, nil
		case strings.HasPrefix(state, "terminated"):
			return said, errors.New(state)
		}
	}
}

// referredToDora is a call with a scripted peer, whose REFERs the stack follows, and
// dora, to whom they may lead.
func (w *world) referredToDora() (l *peerCall, dora *peer, result <-chan followed) {
	w.t.Helper()
	b, dora := w.stack(stackIP), w.peer(otherIP)
	l = w.incoming(b, w.peer(peerIP))
	return l, dora, followsRefers(context.Background(), b, offer(offerSDP))
}

// FollowRefer: the stack under test is referred by one scripted peer to another.

const referToDora = "Refer-To: <sip:dora@" + otherIP + ":5060>"

func TestFollowReferReportsEachProgressAndTheOutcome(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l, dora, result := w.referredToDora()
		l.ask("REFER", withHeaders("Refer-To: <sip:dora@"+otherIP+":5060;method=INVITE?Replaces=x%40y%3Bfrom-tag%3Df%3Bto-tag%3Dt"+
			"&Subject=Hello%20there&Require=replaces&From=evil&P-Asserted-Identity=sip%3Aboss%40x&Contact=sip%3Aevil&X-Ray=1%0d%0aEvil:2>",
			"Referred-By: <sip:peer@10.0.0.9>;cid=1"))
		invite := dora.next("INVITE")
		for _, code := range []int{100, 180, 180, 183} {
			dora.reply(invite, dialogtest.Response{Code: code, ToTag: "d"})
		}
		dora.reply(invite, dialogtest.Response{Code: 200, Reason: "Fine", ToTag: "d", Body: answerSDP})
		dora.next("ACK")
		require.Equal(t, []string{"100 Trying", "180 Ringing", "183 Session Progress", "200 Fine"}, l.told())
		got := <-result
		require.NoError(t, got.err)
		require.Equal(t, dialog.DialogStateEstablished, got.call.State())
		require.Equal(t, dialog.DialogStateEstablished, l.d.State(), "the old call is the application's")

		m := w.one(stackIP, "INVITE")
		require.Equal(t, "INVITE sip:dora@"+otherIP+":5060 SIP/2.0", m.startLine())
		require.Equal(t, "x@y;from-tag=f;to-tag=t", m.value(t, "Replaces"))
		require.Equal(t, "Hello there", m.value(t, "Subject"))
		require.Equal(t, "replaces", m.value(t, "Require"))
		require.Equal(t, "<sip:peer@10.0.0.9>;cid=1", m.value(t, "Referred-By"), "RFC 3892 2.2: as it was")
		require.Equal(t, "1  Evil:2", m.value(t, "X-Ray"))
		require.Contains(t, m.value(t, "From"), "sip:service@"+stackIP, "RFC 3892 2.2: the same to both")
		require.NotContains(t, m.raw, "evil")
		require.NotContains(t, m.raw, "boss")
		require.Equal(t, offerSDP, m.body())
	})
}

// The outcome is what it is.
func TestFollowReferReportsTheRealOutcome(t *testing.T) {
	cases := []struct {
		name   string
		answer func(t *testing.T, dora *peer)
		last   string
		is     error
	}{
		{"busy", func(_ *testing.T, dora *peer) {
			dora.reply(dora.next("INVITE"), dialogtest.Response{Code: 486, Reason: "Busy  Here"})
		}, "486 Busy  Here", nil},
		{"moved", func(_ *testing.T, dora *peer) {
			dora.reply(dora.next("INVITE"), dialogtest.Response{Code: 302})
		}, "302 Moved Temporarily", nil},
		{"decline", func(_ *testing.T, dora *peer) {
			dora.reply(dora.next("INVITE"), dialogtest.Response{Code: 603})
		}, "603 Decline", nil},
		{"silence", func(_ *testing.T, dora *peer) { dora.next("INVITE") }, "408 Request Timeout", dialog.ErrTimeout},
		{"given up", func(_ *testing.T, dora *peer) {
			invite := dora.next("INVITE")
			dora.reply(invite, dialogtest.Response{Code: 180, ToTag: "d"})
			dora.reply(dora.next("CANCEL"), dialogtest.Response{Code: 200})
			dora.reply(invite, dialogtest.Response{Code: 487, ToTag: "d"})
		}, "487 Request Terminated", context.DeadlineExceeded},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, dora := w.stack(stackIP), w.peer(otherIP)
				l := w.incoming(b, w.peer(peerIP))
				ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
				defer cancel()
				result := followsRefers(ctx, b, dialog.InviteOpts{})
				l.ask("REFER", withHeaders(referToDora))
				var list []string
				heard := began(func() (err error) { list, err = l.hears(); return err })
				c.answer(t, dora)
				require.NoError(t, <-heard)
				require.Equal(t, "100 Trying", list[0])
				require.Equal(t, c.last, list[len(list)-1])
				got := <-result
				require.Error(t, got.err)
				if c.is != nil {
					require.ErrorIs(t, got.err, c.is)
				} else {
					var refused *dialog.ResponseError
					require.ErrorAs(t, got.err, &refused)
				}
				require.Nil(t, got.call)
				synctest.Wait() // the answer to the last NOTIFY is on its way
				require.Empty(t, l.d.GetAllReferSubscriptions())
			})
		})
	}
}

// A reference that is not an INVITE to a SIP URI is not followed, and the referrer is told so.
func TestFollowReferRefusesOtherReferences(t *testing.T) {
	for _, referTo := range []string{
		"<sip:dora@10.0.0.8;method=MESSAGE>", "<sip:dora@10.0.0.8;method=BYE>", "<tel:+4312345>",
	} {
		bubble(t, func(t *testing.T, w *world) {
			b := w.stack(stackIP)
			l := w.incoming(b, w.peer(peerIP))
			result := followsRefers(context.Background(), b, dialog.InviteOpts{})
			l.ask("REFER", withHeaders("Refer-To: "+referTo))
			if got := l.peer.final("REFER").StatusCode; got != 202 {
				require.Equal(t, 400, got)
				return
			}
			require.Equal(t, []string{"100 Trying", "501 Not Implemented"}, l.told())
			require.ErrorIs(t, (<-result).err, dialog.ErrReference)
			require.Empty(t, w.sent(stackIP, "INVITE"))
		})
	}
}

// The referrer hangs up first: the new call goes on, and so do the reports.
func TestFollowReferGoesOnWhenTheReferrerHangsUp(t *testing.T) {
	for _, code := range []int{200, 481} {
		bubble(t, func(t *testing.T, w *world) {
			l, dora, result := w.referredToDora()
			b := w.stacks[0]
			l.ask("REFER", withHeaders(referToDora))
			l.reply(l.next("NOTIFY"), dialogtest.Response{Code: 200})
			invite := dora.next("INVITE")
			l.hangsUp()
			dora.reply(invite, dialogtest.Response{Code: 180, ToTag: "d"})
			ringing := l.next("NOTIFY")
			require.Contains(t, string(ringing.Message.Body()), "180")
			l.reply(ringing, dialogtest.Response{Code: code})
			synctest.Wait()
			dora.reply(invite, dialogtest.Response{Code: 200, ToTag: "d", Body: answerSDP})
			dora.next("ACK")
			got := <-result
			require.NoError(t, got.err, "RFC 3515 2.4.4: what was asked for stands")
			if code == 200 {
				require.Equal(t, []string{"200 OK"}, l.told())
			}
			synctest.Wait()
			require.Len(t, w.sent(stackIP, "NOTIFY"), map[int]int{200: 3, 481: 2}[code])
			closed := began(got.call.Close)
			dora.reply(dora.next("BYE"), dialogtest.Response{Code: 200})
			require.NoError(t, <-closed)
			w.checkEmpty(b)
		})
	}
}

// The referrer hangs up before the application follows: the call is over, and the
// REFER is followed all the same, with a subscription or without.
func TestFollowReferAfterTheCall(t *testing.T) {
	for _, headers := range [][]string{{referToDora}, {referToDora, "Refer-Sub: false"}} {
		bubble(t, func(t *testing.T, w *world) {
			b, dora := w.stack(stackIP), w.peer(otherIP)
			l := w.incoming(b, w.peer(peerIP))
			got := make(chan sip.Uri, 1)
			b.OnIncomingRefer(func(_ dialog.IDialog, referTo sip.Uri, _ *dialog.ReplacesInfo) { got <- referTo })
			l.ask("REFER", withHeaders(headers...))
			l.next("202 REFER")
			target := <-got
			l.hangsUp()
			result := began(func() error {
				_, err := l.d.FollowRefer(context.Background(), target, dialog.InviteOpts{})
				return err
			})
			dora.reply(dora.next("INVITE"), dialogtest.Response{Code: 486, ToTag: "d"})
			var refused *dialog.ResponseError
			require.ErrorAs(t, <-result, &refused)
			if len(headers) == 1 {
				require.Equal(t, []string{"100 Trying", "486 Busy Here"}, l.told())
			}
			_, err := l.d.FollowRefer(context.Background(), target, dialog.InviteOpts{})
			require.ErrorIs(t, err, dialog.ErrNoRefer, "once")
			w.checkEmpty(b)
		})
	}
}

// NOTIFYs leave one after the other, each when the one before was answered: none
// is overtaken, none lost, and one that was answered 500 is sent again.
func TestFollowReferKeepsItsReportsInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l, dora, _ := w.referredToDora()
		l.ask("REFER", withHeaders(referToDora))
		first := l.next("NOTIFY")
		invite := dora.next("INVITE")
		for _, code := range []int{180, 181, 183} {
			dora.reply(invite, dialogtest.Response{Code: code, ToTag: "d"})
		}
		dora.reply(invite, dialogtest.Response{Code: 486, ToTag: "d"})
		dora.next("ACK")
		synctest.Wait()
		require.Len(t, w.sent(stackIP, "NOTIFY"), 1)
		l.reply(first, dialogtest.Response{Code: 200})
		overtaken := l.next("NOTIFY")
		require.Contains(t, string(overtaken.Message.Body()), "180")
		l.reply(overtaken, dialogtest.Response{Code: 500})
		list := l.told()
		require.Equal(t, []string{"180 Ringing", "181 Scripted", "183 Session Progress", "486 Busy Here"}, list)
		var last uint32
		for _, m := range w.sent(stackIP, "NOTIFY") {
			require.Greater(t, m.msg.CSeq().SeqNo, last)
			last = m.msg.CSeq().SeqNo
		}
	})
}

// A flood of provisional responses is bounded; the outcome is among what is told.
func TestFollowReferBoundsQueuedReports(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l, dora, _ := w.referredToDora()
		b := w.stacks[0]
		l.ask("REFER", withHeaders(referToDora))
		first := l.next("NOTIFY")
		invite := dora.next("INVITE")
		for i := range 200 {
			dora.reply(invite, dialogtest.Response{Code: 180 + i%4, ToTag: "d"})
		}
		dora.reply(invite, dialogtest.Response{Code: 486, ToTag: "d"})
		dora.next("ACK")
		synctest.Wait()
		require.Zero(t, testkit.Held(b).Tasks, "nobody waits for the answer")
		l.reply(first, dialogtest.Response{Code: 200})
		list := l.told()
		require.LessOrEqual(t, len(list), 32)
		require.Equal(t, "486 Busy Here", list[len(list)-1])
	})
}

// Several REFERs at once: each is followed once, and told its own outcome.
func TestSeveralRefersAreFollowedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, dora := w.stack(stackIP), w.peer(otherIP)
		p := w.peer(peerIP)
		l := w.incoming(b, p)
		result := followsRefers(context.Background(), b, offer(offerSDP))
		for _, user := range []string{"d0", "d1", "d2", "d0"} {
			l.ask("REFER", withHeaders("Refer-To: <sip:"+user+"@"+otherIP+":5060>"))
			p.next("202 REFER")
		}
		go func() {
			for {
				notify, err := p.Recv(t.Context())
				if err != nil {
					return
				}
				if notify.Request() != nil {
					_ = p.Reply(notify, dialogtest.Response{Code: 200})
				}
			}
		}()
		for range 4 {
			invite := dora.next("INVITE")
			code := 480 + int(invite.Request().Recipient.User[1]-'0')
			dora.reply(invite, dialogtest.Response{Code: code, ToTag: "d"})
		}
		for range 4 {
			require.Error(t, (<-result).err)
		}
		time.Sleep(10 * time.Second) // the first NOTIFYs were not answered at once
		finals := map[string]int{}
		for _, m := range w.sent(stackIP, "NOTIFY") {
			if strings.HasPrefix(m.value(t, "Subscription-State"), "terminated") {
				finals[m.value(t, "Event")+" "+strings.Fields(m.body())[1]]++
			}
		}
		require.Equal(t, map[string]int{"refer;id=2 480": 1, "refer;id=3 481": 1, "refer;id=4 482": 1, "refer;id=5 480": 1}, finals)
	})
}

// Close of the old call does not cut off the report that is due; a SendNotify
// that comes first does, and there are never two last ones.
func TestFollowReferAndOthersReportOneOutcome(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l, dora, result := w.referredToDora()
		b := w.stacks[0]
		l.ask("REFER", withHeaders(referToDora))
		l.reply(l.next("NOTIFY"), dialogtest.Response{Code: 200})
		invite := dora.next("INVITE")
		hangUp(t, l.d, l.peer)
		dora.reply(invite, dialogtest.Response{Code: 486, ToTag: "d"})
		require.Equal(t, []string{"486 Busy Here"}, l.told())
		require.Error(t, (<-result).err)
		w.checkEmpty(b)
	})
	bubble(t, func(t *testing.T, w *world) {
		l, dora, result := w.referredToDora()
		r := l.receivedToDora()
		invite := dora.next("INVITE")
		sent := began(func() error { return r.SendNotify(context.Background(), 200, "Said Before") })
		require.Equal(t, []string{"200 Said Before"}, l.told())
		require.NoError(t, <-sent)
		dora.reply(invite, dialogtest.Response{Code: 486, ToTag: "d"})
		require.Error(t, (<-result).err)
		synctest.Wait()
		require.Len(t, w.sent(stackIP, "NOTIFY"), 2)
	})
}

// receivedToDora is received for a target that answers.
func (l *peerCall) receivedToDora() *dialog.ReferSubscription {
	l.t.Helper()
	l.ask("REFER", withHeaders(referToDora))
	l.reply(l.next("NOTIFY"), dialogtest.Response{Code: 200})
	synctest.Wait()
	return l.d.GetAllReferSubscriptions()[0]
}

// The options are the application's own; a Setup that panics costs the transfer.
func TestFollowReferTakesTheApplicationsOptions(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, dora := w.stack(stackIP), w.peer(otherIP)
		l := w.incoming(b, w.peer(peerIP))
		opts := offer(offerSDP)
		opts.From = &dialog.Address{URI: uri("desk", "10.0.0.3")}
		opts.Headers = []dialog.Header{{Name: "X-Mine", Value: "1"}}
		seen := make(chan *dialog.Dialog, 1)
		opts.Setup = func(d *dialog.Dialog) { seen <- d }
		result := followsRefers(context.Background(), b, opts)
		l.ask("REFER", withHeaders(referToDora))
		dora.reply(dora.next("INVITE"), dialogtest.Response{Code: 200, ToTag: "d", Body: answerSDP})
		got := <-result
		require.NoError(t, got.err)
		require.Same(t, got.call, <-seen)
		m := w.one(stackIP, "INVITE")
		require.Contains(t, m.value(t, "From"), "sip:desk@10.0.0.3")
		require.Equal(t, "1", m.value(t, "X-Mine"))

		opts.Setup = func(*dialog.Dialog) { panic("in the application") }
		result = followsRefers(context.Background(), b, opts)
		l.ask("REFER", withHeaders(referToDora))
		require.ErrorIs(t, (<-result).err, dialog.ErrPanic)
		var none context.Context
		_, err := l.d.FollowRefer(none, sip.Uri{}, opts)
		require.ErrorIs(t, err, dialog.ErrInvalidArgument)
	})
}

// Shutdown ends the new call as well, and says so once.
func TestShutdownWhileAReferIsFollowed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l, dora, result := w.referredToDora()
		b := w.stacks[0]
		l.ask("REFER", withHeaders(referToDora))
		l.reply(l.next("NOTIFY"), dialogtest.Response{Code: 200})
		invite := dora.next("INVITE")
		dora.reply(invite, dialogtest.Response{Code: 180, ToTag: "d"})
		l.reply(l.next("NOTIFY"), dialogtest.Response{Code: 200})
		down := began(func() error { return b.Shutdown(context.Background()) })
		dora.reply(dora.next("CANCEL"), dialogtest.Response{Code: 200})
		dora.reply(invite, dialogtest.Response{Code: 487, ToTag: "d"})
		last := l.next("NOTIFY")
		require.Contains(t, testkit.Value(last.Message, "Subscription-State"), "terminated;reason=noresource")
		l.reply(last, dialogtest.Response{Code: 200})
		l.reply(l.next("BYE"), dialogtest.Response{Code: 200})
		require.NoError(t, <-down)
		err := (<-result).err
		require.True(t, errors.Is(err, dialog.ErrShutdown) || errors.Is(err, dialog.ErrCanceled), "%v", err)
		require.Zero(t, testkit.Held(b))
		require.Len(t, w.sent(stackIP, "NOTIFY"), 3)
	})
}

// Events that may delay a report, or make it outdated.

// While the ACK to a re-INVITE of ours waits for the application's answer no request is sent;
// pending reports are not lost.
func TestReportsWaitForTheACK(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l, dora, result := w.referredToDora()
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

// A report between two others has the latest progress, or the one that is about to be sent.
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
				l, dora, _ := w.referredToDora()
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

// RFC 3515 3.4: a subscription lasts longer than the new call may ring, also if the referrer
// does not refresh it.
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
