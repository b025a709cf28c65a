package test

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// E2: ReferOpts count, on every call that sends a REFER.
func TestReferOptsAreSent(t *testing.T) {
	yes := "true"
	cases := []struct {
		name string
		opts dialog.ReferOpts
		want map[string][]string
	}{
		{"none", dialog.ReferOpts{}, map[string][]string{
			"Refer-Sub": nil, "Referred-By": {"<sip:SoftPhone@" + stackIP + ">"},
		}},
		{"no subscription", dialog.ReferOpts{NoReferSub: true}, map[string][]string{"Refer-Sub": {"false"}}},
		{"a subscription", dialog.ReferOpts{ReferSub: &yes}, map[string][]string{"Refer-Sub": {"true"}}},
		{"headers", dialog.ReferOpts{Headers: map[string]string{"X-One": "1", "X-Two": "two, too"}}, map[string][]string{
			"X-One": {"1"}, "X-Two": {"two, too"},
		}},
		{"Referred-By", dialog.ReferOpts{Headers: map[string]string{"referred-by": "<sip:boss@x>"}}, map[string][]string{
			"Referred-By": {"<sip:boss@x>"},
		}},
	}
	calls := map[string]func(l *peerCall, other dialog.IDialog, opts dialog.ReferOpts) error{
		"Refer": func(l *peerCall, _ dialog.IDialog, opts dialog.ReferOpts) error {
			return l.d.Refer(context.Background(), uri("dora", otherIP), opts)
		},
		"SendRefer": func(l *peerCall, _ dialog.IDialog, opts dialog.ReferOpts) error {
			return l.d.SendRefer(context.Background(), uri("dora", otherIP), &opts)
		},
		"ReferReplace": func(l *peerCall, other dialog.IDialog, opts dialog.ReferOpts) error {
			return l.d.ReferReplace(context.Background(), other, opts)
		},
		"SendReferWithReplaces": func(l *peerCall, other dialog.IDialog, opts dialog.ReferOpts) error {
			return l.d.SendReferWithReplaces(context.Background(), uri("dora", otherIP), other, &opts)
		},
	}
	for by, call := range calls {
		for _, c := range cases {
			t.Run(by+" "+c.name, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					a, p := w.stack(stackIP), w.peer(peerIP)
					other := w.outgoing(a, w.peer(otherIP))
					l := w.outgoing(a, p)
					require.NoError(t, call(l, other.d, c.opts))
					p.next("REFER")
					synctest.Wait()
					m := w.one(stackIP, "REFER")
					require.Equal(t, "REFER sip:peer@"+peerIP+":5060 SIP/2.0", m.startLine())
					require.Equal(t, l.callID, m.value(t, "Call-ID"))
					require.Equal(t, "<"+l.target+">", m.value(t, "Contact"))
					require.Contains(t, m.value(t, "Refer-To"), otherIP)
					for name, values := range c.want {
						require.Equal(t, values, m.values(name), name)
					}
				})
			})
		}
	}
}

// E2, RFC 4488 4: a REFER that wants no subscription gets none, in either
// direction.
func TestReferSubFalseMakesNoSubscription(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(a, p)
		// Sent: granted by the peer.
		require.NoError(t, l.d.Refer(context.Background(), uri("dora", otherIP), dialog.ReferOpts{NoReferSub: true}))
		p.reply(p.next("REFER"), dialogtest.Response{Code: 202, Headers: []string{"Refer-Sub: false"}})
		r, err := l.d.WaitRefer(context.Background())
		require.NoError(t, err)
		require.True(t, ended(r))
		require.Empty(t, l.d.GetAllReferSubscriptions())
		l.ask("NOTIFY", withHeaders("Event: refer;id=2", "Subscription-State: active"))
		p.next("481 NOTIFY")
		// Sent: not granted.
		require.NoError(t, l.d.Refer(context.Background(), uri("dora", otherIP), dialog.ReferOpts{NoReferSub: true}))
		p.reply(p.next("REFER"), dialogtest.Response{Code: 202})
		r, err = l.d.WaitRefer(context.Background())
		require.NoError(t, err)
		require.Equal(t, []*dialog.ReferSubscription{r}, l.d.GetAllReferSubscriptions())

		// Received.
		calls := make(chan string, 1)
		a.OnIncomingRefer(func(_ dialog.IDialog, referTo sip.Uri, _ *dialog.ReplacesInfo) { calls <- referTo.User })
		l.ask("REFER", withHeaders("Refer-To: <sip:dora@"+otherIP+">", "Refer-Sub: false"))
		p.next("202 REFER")
		synctest.Wait()
		require.Equal(t, "false", w.one(stackIP, "202 REFER").value(t, "Refer-Sub"))
		require.Equal(t, "dora", <-calls)
		synctest.Wait()
		require.Empty(t, w.sent(stackIP, "NOTIFY"))
		_, ok := l.d.GetReferSubscription("2 REFER")
		require.False(t, ok)
	})
}

// ended reports whether a subscription is over now.
func ended(r *dialog.ReferSubscription) bool {
	select {
	case <-r.Done():
		return true
	default:
		return false
	}
}

// E3: the sender of a REFER learns the result by NOTIFY.
func TestSenderOfAREFERLearnsTheResult(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(a, p)
		r := l.refers()
		require.Equal(t, "2 REFER", r.ID)
		require.Equal(t, dialog.Progress{}, r.Status())
		found, ok := l.d.GetReferSubscription("2 REFER")
		require.True(t, ok)
		require.Same(t, r, found)

		notify := func(state, frag string, extra ...string) {
			t.Helper()
			l.ask("NOTIFY", withHeaders("Event: refer;id=2", "Subscription-State: "+state, "Content-Type: message/sipfrag;version=2.0"), withBody(frag))
			p.next("200 NOTIFY")
		}
		notify("active;expires=60", "SIP/2.0 100 Trying\r\n")
		require.Equal(t, dialog.Progress{Status: 100, Reason: "Trying"}, r.Status())
		notify("active;expires=60", "SIP/2.0 180 Ringing")
		require.Equal(t, dialog.Progress{Status: 180, Reason: "Ringing"}, r.Status())
		synctest.Wait()
		require.False(t, ended(r))
		require.ErrorIs(t, r.SendNotify(context.Background(), 200, "OK"), dialog.ErrNoSubscription)
		notify("terminated;reason=noresource", "SIP/2.0 486 Busy Here\r\nX: y\r\n")
		synctest.Wait()
		require.True(t, ended(r))
		require.Equal(t, dialog.Progress{Status: 486, Reason: "Busy Here"}, r.Status())
		require.Empty(t, l.d.GetAllReferSubscriptions())
		l.ask("NOTIFY", withHeaders("Event: refer;id=2", "Subscription-State: active"))
		p.next("481 NOTIFY")
		synctest.Wait()
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
	})
}

// E3, RFC 3515 2.4.4: a NOTIFY may come before the 202, and without an id where
// it is about the first REFER (2.4.6); it must be ours and for this event.
func TestWhichNOTIFYBelongsToWhichREFER(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(a, p)
		refer := func() dialogtest.Received {
			require.NoError(t, l.d.Refer(context.Background(), uri("dora", otherIP), dialog.ReferOpts{}))
			return p.next("REFER")
		}
		notify := func(event, frag, answer string) {
			t.Helper()
			l.ask("NOTIFY", withHeaders("Event: "+event, "Subscription-State: active", "Content-Type: message/sipfrag"), withBody(frag))
			p.next(answer + " NOTIFY")
		}
		notify("refer", "SIP/2.0 100 Trying", "481")
		first := refer()
		notify("refer", "SIP/2.0 100 Early", "200")
		p.reply(first, dialogtest.Response{Code: 202})
		one, err := l.d.WaitRefer(context.Background())
		require.NoError(t, err)
		require.Equal(t, "Early", one.Status().Reason)

		p.reply(refer(), dialogtest.Response{Code: 202})
		two, err := l.d.WaitRefer(context.Background())
		require.NoError(t, err)
		require.Equal(t, "3 REFER", two.ID)
		notify("refer;id=3", "SIP/2.0 180 Second", "200")
		notify("Refer ; ID=2", "SIP/2.0 180 First", "200")
		require.Equal(t, "First", one.Status().Reason)
		require.Equal(t, "Second", two.Status().Reason)
		notify("refer", "SIP/2.0 183 Unnamed", "200")
		require.Equal(t, "Unnamed", one.Status().Reason)
		notify("refer;id=4", "SIP/2.0 200 Nobody", "481")
		notify("presence", "x", "489")
		// A body that is not a status line is ignored.
		notify("refer;id=3", "nonsense", "200")
		require.Equal(t, "Second", two.Status().Reason)
	})
}

// E3: WaitRefer serves one REFER after the other, in the order of sending.
func TestWaitReferServesREFERsInTheirOrder(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(a, p)
		_, err := l.d.WaitRefer(context.Background())
		require.ErrorIs(t, err, dialog.ErrNoRefer)
		var sent []dialogtest.Received
		for range 3 {
			require.NoError(t, l.d.Refer(context.Background(), uri("dora", otherIP), dialog.ReferOpts{}))
			sent = append(sent, p.next("REFER"))
		}
		p.reply(sent[2], dialogtest.Response{Code: 200})
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err = l.d.WaitRefer(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded, "the first has no answer")
		p.reply(sent[1], dialogtest.Response{Code: 603})
		p.reply(sent[0], dialogtest.Response{Code: 202})
		one, err := l.d.WaitRefer(context.Background())
		require.NoError(t, err)
		require.Equal(t, "2 REFER", one.ID)
		_, err = l.d.WaitRefer(context.Background())
		var refused *dialog.ResponseError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, 603, refused.StatusCode)
		three, err := l.d.WaitRefer(context.Background())
		require.NoError(t, err)
		require.Equal(t, "4 REFER", three.ID)
		require.Len(t, l.d.GetAllReferSubscriptions(), 2)
		_, err = l.d.WaitRefer(context.Background())
		require.ErrorIs(t, err, dialog.ErrNoRefer)
	})
}

// E3: a subscription that the peer lets lapse ends with its time.
func TestSubscriptionOfOursLapses(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(a, p)
		r := l.refers()
		l.ask("NOTIFY", withHeaders("Event: refer", "Subscription-State: active;expires=40"))
		p.next("200 NOTIFY")
		start := time.Now()
		<-r.Done()
		require.Equal(t, 40*time.Second, time.Since(start))
		require.Empty(t, l.d.GetAllReferSubscriptions())
	})
}

// The outcome of a REFER, at its sender.

// refers has the stack send a REFER, which the peer accepts.
func (l *peerCall) refers() *dialog.ReferSubscription {
	l.t.Helper()
	require.NoError(l.t, l.d.Refer(context.Background(), uri("dora", otherIP), dialog.ReferOpts{}))
	l.reply(l.next("REFER"), dialogtest.Response{Code: 202})
	r, err := l.d.WaitRefer(context.Background())
	require.NoError(l.t, err)
	return r
}

// notifies sends a NOTIFY of the peer's about the REFER with that CSeq number,
// and returns the answer.
func (l *peerCall) notifies(number, state, frag string) int {
	l.t.Helper()
	return l.notifiesWith(frag, "Event: refer;id="+number, "Subscription-State: "+state, "Content-Type: message/sipfrag")
}

func (l *peerCall) notifiesWith(body string, headers ...string) int {
	l.t.Helper()
	text := l.Request(l.made("NOTIFY", withHeaders(headers...), withBody(body)))
	if !strings.Contains(strings.Join(headers, "\n"), "Content-Type:") {
		text = strings.Replace(text, "Content-Type: application/sdp\r\n", "", 1)
	}
	require.NoError(l.t, l.Send(l.stack, text))
	code := l.peer.final("NOTIFY").StatusCode
	synctest.Wait()
	return code
}

// waits waits for a transfer's outcome meanwhile.
func waits(r *dialog.ReferSubscription) <-chan outcome {
	result := make(chan outcome, 1)
	go func() {
		p, err := r.Wait(context.Background())
		result <- outcome{p, err}
	}()
	synctest.Wait()
	return result
}

type outcome struct {
	dialog.Progress
	err error
}

// A final status in a NOTIFY is the outcome, whatever it is and whatever state
// the NOTIFY gives: Wait returns it without an error, always the same.
func TestWaitReturnsAnyFinalStatus(t *testing.T) {
	for _, state := range []string{"terminated;reason=noresource", "active;expires=60", "pending", "terminated;reason=timeout"} {
		for _, status := range []int{200, 302, 486, 503, 603} {
			bubble(t, func(t *testing.T, w *world) {
				l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
				r := l.refers()
				result := waits(r)
				require.Equal(t, 200, l.notifies("2", "active;expires=60", "SIP/2.0 100 Trying\r\n"))
				require.Empty(t, result)
				require.Equal(t, 200, l.notifies("2", state, "SIP/2.0 "+strconv.Itoa(status)+" So It Is\r\n"))
				want := dialog.Progress{Status: status, Reason: "So It Is"}
				require.Equal(t, outcome{Progress: want}, <-result)
				if state[0] != 't' { // the subscription lasts, the outcome stands
					require.Equal(t, 200, l.notifies("2", "active", "SIP/2.0 180 Ringing\r\n"))
					require.Equal(t, 200, l.notifies("2", "terminated", "SIP/2.0 500 Other\r\n"))
				}
				again, err := r.Wait(context.Background())
				require.NoError(t, err)
				require.Equal(t, want, again)
				require.Equal(t, want, r.Status())
				require.True(t, ended(r))
			})
		}
	}
}

// Without an outcome the error says why, and what was reported last.
func TestWaitSaysWhyThereIsNoOutcome(t *testing.T) {
	ringing := dialog.Progress{Status: 180, Reason: "Ringing"}
	cases := []struct {
		name string
		end  func(l *peerCall, r *dialog.ReferSubscription)
		want dialog.TransferError
	}{
		{"NOTIFY without a reason", func(l *peerCall, _ *dialog.ReferSubscription) {
			require.Equal(l.t, 200, l.notifies("2", "terminated", ""))
		}, dialog.TransferError{Last: ringing}},
		{"NOTIFY", func(l *peerCall, _ *dialog.ReferSubscription) {
			require.Equal(l.t, 200, l.notifies("2", "terminated;reason=rejected;retry-after=60", ""))
		}, dialog.TransferError{Last: ringing, Reason: "rejected", RetryAfter: time.Minute}},
		{"NOTIFY of its expiry", func(l *peerCall, _ *dialog.ReferSubscription) {
			require.Equal(l.t, 200, l.notifies("2", "terminated;reason=timeout", "SIP/2.0 180 Ringing"))
		}, dialog.TransferError{Last: ringing, Reason: "timeout", Err: dialog.ErrTimeout}},
		{"expiry, the refresh unanswered", func(*peerCall, *dialog.ReferSubscription) {}, dialog.TransferError{Last: ringing, Err: dialog.ErrTimeout}},
		{"closed", func(_ *peerCall, r *dialog.ReferSubscription) {
			require.NoError(t, r.Close())
			require.NoError(t, r.Close())
		}, dialog.TransferError{Last: ringing, Err: dialog.ErrTerminated}},
		{"dialog closed", func(l *peerCall, _ *dialog.ReferSubscription) {
			require.NoError(t, l.d.Close())
		}, dialog.TransferError{Last: ringing, Err: dialog.ErrTerminated}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
				r := l.refers()
				require.Equal(t, 200, l.notifies("2", "active;expires=60", "SIP/2.0 180 Ringing\r\n"))
				result := waits(r)
				c.end(l, r)
				got := <-result
				var lost *dialog.TransferError
				require.ErrorAs(t, got.err, &lost)
				require.Equal(t, c.want, *lost)
				require.ErrorIs(t, got.err, dialog.ErrNoOutcome)
				require.Equal(t, c.want.Err != nil, errors.Is(got.err, c.want.Err))
				require.Equal(t, ringing, got.Progress)
				require.Contains(t, got.err.Error(), "last 180 Ringing")
				require.True(t, ended(r))
				require.Equal(t, 481, l.notifies("2", "active", "SIP/2.0 200 OK"), "it is forgotten")
			})
		})
	}
}

// A Wait that is given up leaves the transfer as it is.
func TestWaitEndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		r := l.refers()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := r.Wait(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, dialog.ErrNoOutcome)
		require.Equal(t, 200, l.notifies("2", "terminated", "SIP/2.0 200 OK"))
		p, err := r.Wait(ctx)
		require.NoError(t, err, "what is known is told, whatever the context")
		require.Equal(t, 200, p.Status)

		var noContext context.Context
		_, err = r.Wait(noContext)
		require.ErrorIs(t, err, dialog.ErrInvalidArgument)
		for _, none := range []*dialog.ReferSubscription{nil, {}} {
			_, err = none.Wait(ctx)
			require.ErrorIs(t, err, dialog.ErrNoSubscription)
			none.OnProgress(func(dialog.Progress) { t.Error("told of nothing") })
			require.NoError(t, none.Close())
			_, err = none.Follow(ctx, dialog.InviteOpts{})
			require.ErrorIs(t, err, dialog.ErrNoRefer)
		}
	})
}

// Several REFERs at once: each learns its own outcome.
func TestSeveralTransfersAtOnceLearnTheirOwnOutcome(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		var results []<-chan outcome
		for range 5 {
			results = append(results, waits(l.refers()))
		}
		for _, i := range []int{3, 0, 4, 1, 2} {
			number, status := strconv.Itoa(i+2), 480+i
			require.Equal(t, 200, l.notifies(number, "active", "SIP/2.0 18"+strconv.Itoa(i)+" X"))
			require.Equal(t, 200, l.notifies(number, "terminated", "SIP/2.0 "+strconv.Itoa(status)+" X"))
			require.Equal(t, status, (<-results[i]).Status)
		}
		require.Empty(t, l.d.GetAllReferSubscriptions())
	})
}

// Progress is told in order, each status once, the outcome last; whoever
// registers later hears the latest; a callback that panics, or ends its
// goroutine, costs itself only.
func TestProgressIsToldInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		r := l.refers()
		record := func() chan int {
			c := make(chan int, 20)
			r.OnProgress(func(p dialog.Progress) { c <- p.Status })
			return c
		}
		r.OnProgress(nil)
		r.OnProgress(func(dialog.Progress) { panic("in the application") })
		r.OnProgress(func(dialog.Progress) { runtime.Goexit() })
		first := record()
		for _, status := range []string{"100 Trying", "180 Ringing", "180 Ringing", "183 Progress"} {
			require.Equal(t, 200, l.notifies("2", "active", "SIP/2.0 "+status))
		}
		second := record()
		require.Equal(t, 200, l.notifies("2", "active", "SIP/2.0 200 OK"))
		require.Equal(t, 200, l.notifies("2", "active", "SIP/2.0 180 Ringing"))
		require.Equal(t, 200, l.notifies("2", "terminated", "SIP/2.0 200 OK"))
		third := record()
		synctest.Wait()
		require.Equal(t, []int{100, 180, 183, 200}, drained(first))
		require.Equal(t, []int{183, 200}, drained(second))
		require.Equal(t, []int{200}, drained(third))
	})
}

// A callback of OnProgress may call anything of the subscription and the call.
func TestProgressCallbackMayCallEverything(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		r := l.refers()
		told := make(chan error, 2)
		r.OnProgress(func(p dialog.Progress) {
			r.Status()
			r.Done()
			r.OnProgress(func(dialog.Progress) {})
			_, err := r.Wait(context.Background())
			told <- err
			told <- l.d.Close()
		})
		l.ask("NOTIFY", withHeaders("Event: refer", "Subscription-State: active"), withBody("SIP/2.0 180 Ringing"))
		l.next("200 NOTIFY")
		l.ask("NOTIFY", withHeaders("Event: refer", "Subscription-State: terminated"), withBody("SIP/2.0 200 OK"))
		l.next("200 NOTIFY")
		require.NoError(t, <-told)
		require.NoError(t, <-told)
		l.reply(l.next("BYE"), dialogtest.Response{Code: 200})
	})
}

// A NOTIFY may come before the 202, the last one too.
func TestOutcomeMayComeBeforeThe202(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		require.NoError(t, l.d.Refer(context.Background(), uri("dora", otherIP), dialog.ReferOpts{}))
		refer := l.next("REFER")
		require.Equal(t, 200, l.notifies("2", "terminated;reason=noresource", "SIP/2.0 200 OK"))
		r, err := l.d.WaitRefer(context.Background())
		require.NoError(t, err)
		l.reply(refer, dialogtest.Response{Code: 202})
		synctest.Wait()
		p, err := r.Wait(context.Background())
		require.NoError(t, err)
		require.Equal(t, 200, p.Status)
		require.Empty(t, l.d.GetAllReferSubscriptions())
	})
}

// A caller that already holds the subscription learns that its REFER was refused.
func TestWaitLearnsThatTheReferWasRefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		require.NoError(t, l.d.Refer(context.Background(), uri("dora", otherIP), dialog.ReferOpts{}))
		refer := l.next("REFER")
		require.Equal(t, 200, l.notifies("2", "active", "SIP/2.0 100 Trying"))
		r, ok := l.d.GetReferSubscription("2 REFER")
		require.True(t, ok)
		result := waits(r)
		l.reply(refer, dialogtest.Response{Code: 603})
		var refused *dialog.ResponseError
		require.ErrorAs(t, (<-result).err, &refused)
		require.Equal(t, 603, refused.StatusCode)
	})
}

// RFC 4488 4, RFC 7614 5: without a subscription there is no outcome.
func TestNoSubscriptionNoOutcome(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		for _, c := range []struct {
			opts    dialog.ReferOpts
			headers []string
		}{
			{dialog.ReferOpts{NoReferSub: true}, []string{"Refer-Sub: false;x=y"}},
			{dialog.ReferOpts{RequireNoSub: true}, nil},
		} {
			require.NoError(t, l.d.Refer(context.Background(), uri("dora", otherIP), c.opts))
			l.reply(l.next("REFER"), dialogtest.Response{Code: 202, Headers: c.headers})
			r, err := l.d.WaitRefer(context.Background())
			require.NoError(t, err)
			_, err = r.Wait(context.Background())
			require.ErrorIs(t, err, dialog.ErrNoOutcome)
			require.ErrorIs(t, err, dialog.ErrNoSubscription)
		}
		require.Equal(t, "nosub", w.last(stackIP, "REFER").value(t, "Require"))
	})
}

// RFC 4538 3: Target-Dialog names the call as the peer knows it. RFC 3892: who
// refers may be said.
func TestTargetDialogAndReferredByAreSent(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack(stackIP)
		other, l := w.outgoing(a, w.peer(otherIP)), w.outgoing(a, w.peer(peerIP))
		key := other.d.Key()
		require.NoError(t, l.d.Refer(context.Background(), uri("dora", otherIP), dialog.ReferOpts{
			TargetDialog: &key, ReferredBy: &dialog.Address{DisplayName: `The "Boss"`, URI: uri("boss", "10.0.0.3")},
		}))
		l.reply(l.next("REFER"), dialogtest.Response{Code: 420, Headers: []string{"Unsupported: tdialog"}})
		_, err := l.d.WaitRefer(context.Background())
		require.Error(t, err)
		refer := w.one(stackIP, "REFER")
		require.Equal(t, "tdialog", refer.value(t, "Require"))
		require.Equal(t, other.callID+";local-tag="+farTag+";remote-tag="+other.stackTag, refer.value(t, "Target-Dialog"))
		require.Equal(t, `"The \"Boss\"" <sip:boss@10.0.0.3:5060>`, refer.value(t, "Referred-By"))
	})
}

// FT8: a REFER that could not be written is none to wait for.
func TestAREFERThatWasNotWrittenIsNotWaitedFor(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		w.net.Host(stackIP).Unreachable(true)
		require.ErrorIs(t, l.d.Refer(context.Background(), uri("dora", otherIP), dialog.ReferOpts{}), dialog.ErrTransport)
		w.net.Host(stackIP).Unreachable(false)
		_, err := l.d.WaitRefer(context.Background())
		require.ErrorIs(t, err, dialog.ErrNoRefer)
		require.Empty(t, l.d.GetAllReferSubscriptions())
		require.Equal(t, "3 REFER", l.refers().ID)
		require.NoError(t, l.d.Close())
		l.reply(l.next("BYE"), dialogtest.Response{Code: 200})
	})
}

func TestReferAnswersAChallenge(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.peerless("10.0.0.1", "sip.example"), w.peer("10.0.0.9")
		call := w.calls(a, p, offer(offerSDP))
		d, in := call.d, call.invite
		p.reply(in, dialogtest.Response{Code: 200, ToTag: "b", Headers: []string{contactOfPeer}, Body: answerSDP})
		require.NoError(t, d.WaitAnswer(context.Background()))
		require.NoError(t, d.Refer(context.Background(), uri("carol", "10.0.0.3"), dialog.ReferOpts{}))
		p.reply(p.next("REFER"), dialogtest.Response{Code: 401, Headers: []string{challenge}})
		p.reply(p.next("REFER"), dialogtest.Response{Code: 202})
		sub, err := d.WaitRefer(context.Background())
		require.NoError(t, err)
		require.Equal(t, "3 REFER", sub.ID)
		found, ok := d.GetReferSubscription("3 REFER")
		require.True(t, ok)
		require.Same(t, sub, found)
		hangUp(t, d, p)
	})
}
