package test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// The rows E1 to E3 of what was wrong with REFER and Replaces.

// E1, RFC 3891 3: Replaces names the tags as the side has them that is asked to
// replace: to-tag is its own. In a URI it is escaped.
func TestReplacesInReferToHasTheTagsOfThePeerAndIsEscaped(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, bob, carol := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP)
		withBob := w.outgoing(a, bob)
		withCarol := w.incoming(a, carol, func(r *dialogtest.Request) { r.CallID, r.FromTag = "x%1+y@carol.example", "ca~rol" })
		withCarol.tag = "ca~rol"
		target := sip.Uri{Scheme: "sip", User: "carol", Host: otherIP, Port: 5060}

		require.NoError(t, withBob.d.SendReferWithReplaces(context.Background(), target, withCarol.d, nil))
		refer := bob.next("REFER")
		require.Equal(t,
			"<sip:carol@"+otherIP+":5060?Replaces=x%251+y%40carol.example%3Bfrom-tag%3D"+withCarol.stackTag+"%3Bto-tag%3Dca~rol>",
			w.one(stackIP, "REFER").value(t, "Refer-To"))
		bob.reply(refer, dialogtest.Response{Code: 202})
		_, err := withBob.d.WaitRefer(context.Background())
		require.NoError(t, err)

		// ReferReplace calls the peer of the replaced dialog, at its Contact.
		require.NoError(t, withBob.d.ReferReplace(context.Background(), withCarol.d, dialog.ReferOpts{}))
		bob.next("REFER")
		require.Equal(t,
			"<sip:peer@"+otherIP+":5060?Replaces=x%251+y%40carol.example%3Bfrom-tag%3D"+withCarol.stackTag+"%3Bto-tag%3Dca~rol>",
			w.last(stackIP, "REFER").value(t, "Refer-To"))
	})
}

// E1: a call of ours is named likewise, and the two ends of this package agree.
func TestReplacesOfACallOfOurOwn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, bob, carol := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP)
		withBob, withCarol := w.outgoing(a, bob), w.outgoing(a, carol)
		require.NoError(t, withBob.d.ReferReplace(context.Background(), withCarol.d, dialog.ReferOpts{}))
		refer := bob.next("REFER").Request()
		value := refer.GetHeaders("Refer-To")[0].Value()
		require.Contains(t, value, "?Replaces="+withCarol.callID+"%3Bfrom-tag%3D"+withCarol.stackTag+"%3Bto-tag%3D"+farTag+">")

		var target sip.Uri
		_, err := sip.ParseAddressValue(value, &target, &sip.HeaderParams{})
		require.NoError(t, err)
		escaped, ok := target.Headers.Get("Replaces")
		require.True(t, ok)
		info, err := dialog.ParseReplacesHeader(escaped)
		require.NoError(t, err)
		require.Equal(t, &dialog.ReplacesInfo{CallID: withCarol.callID, FromTag: withCarol.stackTag, ToTag: farTag}, info)
		require.Equal(t, withCarol.callID+";from-tag="+withCarol.stackTag+";to-tag="+farTag, info.BuildReplacesHeader())
	})
}

// E1: what cannot be replaced is refused before anything leaves.
func TestReferReplaceNeedsACallWithAPeer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, bob := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(a, bob)
		unanswered := w.calls(a, w.peer(otherIP), offer(offerSDP))
		for _, other := range []dialog.IDialog{nil, (*dialog.Dialog)(nil), unanswered.d} {
			require.ErrorIs(t, l.d.ReferReplace(context.Background(), other, dialog.ReferOpts{}), dialog.ErrInvalidArgument)
			require.ErrorIs(t, l.d.SendReferWithReplaces(context.Background(), uri("x", otherIP), other, nil), dialog.ErrInvalidArgument)
		}
		require.Empty(t, w.sent(stackIP, "REFER"))
		require.NoError(t, unanswered.d.Close())
	})
}

// E1: Replaces is read as it stands in a header, and escaped as in a URI.
func TestParseReplacesHeader(t *testing.T) {
	good := map[string]dialog.ReplacesInfo{
		"id;from-tag=f;to-tag=t":                               {CallID: "id", FromTag: "f", ToTag: "t"},
		"id;to-tag=t;from-tag=f":                               {CallID: "id", FromTag: "f", ToTag: "t"},
		"id@host;to-tag=t;from-tag=f;early-only":               {CallID: "id@host", FromTag: "f", ToTag: "t", EarlyOnly: true},
		" id ; TO-TAG = t ; From-Tag = f ; x=y ; Early-Only ":  {CallID: "id", FromTag: "f", ToTag: "t", EarlyOnly: true},
		"id%40host%3Bto-tag%3Dt%3Bfrom-tag%3Df":                {CallID: "id@host", FromTag: "f", ToTag: "t"},
		"id%40host%3bto-tag%3dt%3bfrom-tag%3df%3bearly-only":   {CallID: "id@host", FromTag: "f", ToTag: "t", EarlyOnly: true},
		"a%25b+c%3Bfrom-tag%3Df%3Bto-tag%3Dt":                  {CallID: "a%b+c", FromTag: "f", ToTag: "t"},
		"a%b+c;from-tag=f;to-tag=t":                            {CallID: "a%b+c", FromTag: "f", ToTag: "t"},
		"id;from-tag=0;to-tag=0":                               {CallID: "id", FromTag: "0", ToTag: "0"},
		"425928@bobster.example.org;to-tag=7743;from-tag=6472": {CallID: "425928@bobster.example.org", FromTag: "6472", ToTag: "7743"},
	}
	for header, want := range good {
		got, err := dialog.ParseReplacesHeader(header)
		require.NoError(t, err, header)
		require.Equal(t, &want, got, header)
		back, err := dialog.ParseReplacesHeader(got.BuildReplacesHeader())
		require.NoError(t, err)
		require.Equal(t, got, back)
	}
	for _, header := range []string{
		"", ";", "id", "id;from-tag=f", "id;to-tag=t", ";from-tag=f;to-tag=t", "id;from-tag=;to-tag=t",
		"id;from-tag=f;from-tag=g;to-tag=t", "id;from-tag=f;to-tag=t;to-tag=u", "id%zz",
	} {
		_, err := dialog.ParseReplacesHeader(header)
		require.ErrorIs(t, err, dialog.ErrMalformed, "%q", header)
	}
	require.Equal(t, "i;from-tag=f;to-tag=t;early-only",
		(&dialog.ReplacesInfo{CallID: "i", FromTag: "f", ToTag: "t", EarlyOnly: true}).BuildReplacesHeader())
}

// arrived is what OnIncomingRefer was called with.
type arrived struct {
	dialog   dialog.IDialog
	referTo  string
	replaces *dialog.ReplacesInfo
}

// E1: the Replaces in a Refer-To that arrives reaches the application.
func TestReplacesInReferToReachesTheApplication(t *testing.T) {
	info := &dialog.ReplacesInfo{CallID: "x@y", FromTag: "f", ToTag: "t"}
	cases := []struct {
		referTo  string
		uri      string
		replaces *dialog.ReplacesInfo
	}{
		{"<sip:dora@10.0.0.8>", "sip:dora@10.0.0.8", nil},
		{"sip:dora@10.0.0.8", "sip:dora@10.0.0.8", nil},
		{`"Dora" <sip:dora@10.0.0.8;transport=udp>`, "sip:dora@10.0.0.8;transport=udp", nil},
		{"<sip:dora@10.0.0.8?Replaces=x%40y%3Bfrom-tag%3Df%3Bto-tag%3Dt>", "", info},
		{"<sip:dora@10.0.0.8?replaces=x%40y%3Bto-tag%3Dt%3Bfrom-tag%3Df>", "", info},
		{"<sip:dora@10.0.0.8;lr?Replaces=x%40y%3Bfrom-tag%3Df%3Bto-tag%3Dt>", "sip:dora@10.0.0.8;lr?Replaces=x%40y%3Bfrom-tag%3Df%3Bto-tag%3Dt", info},
		{"<sip:dora@10.0.0.8?Accept-Contact=*&Replaces=x%40y%3Bfrom-tag%3Df%3Bto-tag%3Dt>", "", info},
		{"<sip:dora@10.0.0.8?Replaces=x%40y%3Bfrom-tag%3Df%3Bto-tag%3Dt%3Bearly-only>", "",
			&dialog.ReplacesInfo{CallID: "x@y", FromTag: "f", ToTag: "t", EarlyOnly: true}},
	}
	for _, c := range cases {
		t.Run(c.referTo, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				l := w.incoming(b, p)
				got := make(chan arrived, 1)
				b.OnIncomingRefer(func(d dialog.IDialog, referTo sip.Uri, replaces *dialog.ReplacesInfo) {
					got <- arrived{d, referTo.String(), replaces}
				})
				l.ask("REFER", withHeaders("Refer-To: "+c.referTo))
				p.next("202 REFER")
				refer := <-got
				require.Same(t, l.d, refer.dialog)
				require.Equal(t, c.replaces, refer.replaces)
				if c.uri != "" {
					require.Equal(t, c.uri, refer.referTo)
				}
				require.Contains(t, refer.referTo, "sip:dora@10.0.0.8")
			})
		})
	}
}

// E1, RFC 3515 2.4.2: exactly one Refer-To, whose Replaces can be read; else 400
// and nothing begins.
func TestREFERThatCannotBeReadGets400(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		b.OnIncomingRefer(func(dialog.IDialog, sip.Uri, *dialog.ReplacesInfo) { t.Error("reached the application") })
		for _, lines := range [][]string{
			nil,
			{"Refer-To: <sip:a@10.0.0.8>", "Refer-To: <sip:b@10.0.0.8>"},
			{"Refer-To: <sip:a@10.0.0.8?Replaces=x%3Bfrom-tag%3Df>"},
			{"Refer-To: <sip:a@10.0.0.8?Replaces=x%3Bfrom-tag%3Df%3Bto-tag%3Dt%3Bto-tag%3Du>"},
		} {
			l.ask("REFER", withHeaders(lines...))
			p.next("400 REFER")
		}
		synctest.Wait()
		require.Empty(t, w.sent(stackIP, "NOTIFY"))
		require.Empty(t, l.d.GetAllReferSubscriptions())
	})
}

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
		// What is no status line is no news.
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

// REFER received: 202 and the first NOTIFY do not wait for the application; a
// retransmission is the same REFER; several are several.
func TestREFERIsAnsweredWhateverTheApplicationDoes(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		calls, end := make(chan string, 10), make(chan struct{})
		defer close(end)
		b.OnIncomingRefer(func(_ dialog.IDialog, referTo sip.Uri, _ *dialog.ReplacesInfo) {
			calls <- referTo.User
			if referTo.User == "bad" {
				panic("oh")
			}
			<-end
		})
		text := l.ask("REFER", withHeaders("Refer-To: <sip:dora@"+otherIP+">"))
		first := p.next("202 REFER")
		require.Equal(t, l.stackTag, testkit.ToTag(first.Message))
		require.Equal(t, l.target, contactOf(first.Message))
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		require.NoError(t, p.Send(b.Addr(), text))
		require.Equal(t, string(first.Data), string(p.next("202 REFER").Data))
		l.ask("REFER", withHeaders("Refer-To: <sip:bad@"+otherIP+">"))
		p.next("202 REFER")
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		synctest.Wait()
		require.ElementsMatch(t, []string{"dora", "bad"}, drained(calls), "each on a goroutine of its own")
		require.Len(t, l.d.GetAllReferSubscriptions(), 2)
		var events []string
		for _, m := range w.sent(stackIP, "NOTIFY") {
			events = append(events, m.value(t, "Event"))
		}
		require.Equal(t, []string{"refer;id=2", "refer;id=3"}, events)
		l.hangUp(p)
		require.Len(t, l.d.GetAllReferSubscriptions(), 2, "RFC 5057 5.5: they outlive the call")
		require.NoError(t, l.d.Close())
		for range 2 {
			p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		}
		synctest.Wait()
		require.Empty(t, l.d.GetAllReferSubscriptions())
	})
}
