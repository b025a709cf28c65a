package test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// The rows A13 and A14: what cannot be sent, and what is missing.

// A13: a REFER whose 202 cannot be sent leaves nothing behind: no
// subscription, no callback, no NOTIFY; and the call goes on.
func TestReferThatCannotBeAnsweredLeavesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		host := w.net.Host("10.0.0.1")
		a := w.stack("10.0.0.1", func(c *dialog.StackConfig) {
			c.Trace = func(e dialog.TraceEvent) {
				if !e.Outbound && strings.HasPrefix(string(e.Data), "REFER ") {
					host.Unreachable(true)
				}
			}
		})
		p := w.peer("10.0.0.9")
		d, in := w.toPeer(a, p)
		a.OnIncomingRefer(func(dialog.IDialog, sip.Uri, *dialog.ReplacesInfo) { t.Error("told of a REFER that failed") })
		w.say(p, a, p.inside(in, dialogtest.Request{Method: "REFER", CSeq: 5, Headers: []string{"Refer-To: <sip:carol@10.0.0.3>"}}))
		synctest.Wait()
		require.Empty(t, w.sent("10.0.0.1", "202 REFER"))
		require.Empty(t, d.GetAllReferSubscriptions())
		_, ok := d.GetReferSubscription("5 REFER")
		require.False(t, ok)
		host.Unreachable(false)
		time.Sleep(time.Minute)
		require.Empty(t, w.sent("10.0.0.1", "NOTIFY"))
		require.Equal(t, dialog.DialogStateEstablished, d.State())
		w.say(p, a, p.inside(in, dialogtest.Request{Method: "OPTIONS", CSeq: 6}))
		p.next("200 OPTIONS")
	})
}

// A13: responses are not refused for their size: a REFER with so long a From
// and Via that its 202 passes 1300 bytes is answered, with no logger at all.
func TestReferWithALongAnswerIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		d, in := w.toPeer(a, p)
		var headers []string
		for i := range 30 {
			headers = append(headers, fmt.Sprintf("Via: SIP/2.0/UDP proxy-%d.example.org;branch=z9hG4bK-long-branch-%032d", i, i))
		}
		text := p.inside(in, dialogtest.Request{Method: "REFER", CSeq: 5, Headers: append(headers, "Refer-To: <sip:carol@10.0.0.3>")})
		w.say(p, a, text)
		got := p.next("202 REFER")
		require.Greater(t, len(got.Data), 1300)
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		synctest.Wait()
		require.Len(t, d.GetAllReferSubscriptions(), 1)
	})
}

// publicCalls are all methods of a dialog with the least that can be handed in:
// each with a nil context too.
func publicCalls(d *dialog.Dialog, ctx context.Context) map[string]func() {
	return map[string]func(){
		"Key":           func() { d.Key() },
		"State":         func() { _ = d.State().String() },
		"Cause":         func() { _ = d.Cause().String() },
		"IsUAC":         func() { d.IsUAC() },
		"IsUAS":         func() { d.IsUAS() },
		"Done":          func() { d.Done() },
		"OnStateChange": func() { d.OnStateChange(nil) },
		"OnBody":        func() { d.OnBody(nil) },
		"OnOffer":       func() { d.OnOffer(nil) },
		"Accept":        func() { _ = d.Accept(ctx) },
		"Accept nil":    func() { _ = d.Accept(ctx, nil) },
		"Reject":        func() { _ = d.Reject(ctx, 0, "") },
		"Reject 486":    func() { _ = d.Reject(ctx, 486, "") },
		"Refer":         func() { _ = d.Refer(ctx, sip.Uri{}, dialog.ReferOpts{}) },
		"Refer to":      func() { _ = d.Refer(ctx, uri("carol", "10.0.0.3"), dialog.ReferOpts{}) },
		"ReferReplace":  func() { _ = d.ReferReplace(ctx, nil, dialog.ReferOpts{}) },
		"ReferReplace (*Dialog)(nil)": func() {
			_ = d.ReferReplace(ctx, (*dialog.Dialog)(nil), dialog.ReferOpts{})
		},
		"ReferReplace zero": func() { _ = d.ReferReplace(ctx, new(dialog.Dialog), dialog.ReferOpts{}) },
		"WaitRefer":         func() { _, _ = d.WaitRefer(ctx) },
		"SendRefer":         func() { _ = d.SendRefer(ctx, sip.Uri{}, nil) },
		"SendRefer to":      func() { _ = d.SendRefer(ctx, uri("carol", "10.0.0.3"), nil) },
		"SendReferWithReplaces": func() {
			_ = d.SendReferWithReplaces(ctx, sip.Uri{}, nil, nil)
		},
		"SendReferWithReplaces zero": func() {
			_ = d.SendReferWithReplaces(ctx, uri("carol", "10.0.0.3"), new(dialog.Dialog), nil)
		},
		"SendReferWithReplaces itself": func() {
			_ = d.SendReferWithReplaces(ctx, uri("carol", "10.0.0.3"), d, nil)
		},
		"HandleIncomingRefer":     func() { _ = d.HandleIncomingRefer(nil, sip.Uri{}, nil) },
		"HandleIncomingRefer new": func() { _ = d.HandleIncomingRefer(sip.NewRequest(sip.REFER, sip.Uri{}), sip.Uri{}, nil) },
		"GetReferSubscription":    func() { d.GetReferSubscription("") },
		"GetAll":                  func() { d.GetAllReferSubscriptions() },
		"WaitAnswer":              func() { _ = d.WaitAnswer(ctx) },
		"ReInvite":                func() { _ = d.ReInvite(ctx, dialog.InviteOpts{}) },
		"ReInvite nil body":       func() { _ = d.ReInvite(ctx, dialog.InviteOpts{Body: (*dialog.BodyImpl)(nil)}) },
		"Bye":                     func() { _ = d.Bye(ctx, "") },
		"Hangup":                  func() { _ = d.Hangup(ctx) },
		"Close":                   func() { _ = d.Close() },
	}
}

// A14: no public method panics, whatever is handed in and whatever the dialog:
// zero, ringing, established, ended.
func TestNoMethodOfADialogPanics(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		ringing := func() *dialog.Dialog {
			incoming := make(chan dialog.IDialog, 1)
			b.OnIncomingDialog(func(d dialog.IDialog) { incoming <- d })
			_, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
			require.NoError(t, err)
			return (<-incoming).(*dialog.Dialog)
		}
		dialogs := map[string]func() *dialog.Dialog{
			"zero":        func() *dialog.Dialog { return new(dialog.Dialog) },
			"ringing":     ringing,
			"established": func() *dialog.Dialog { d, _ := w.established(a, b); return d },
			"callee":      func() *dialog.Dialog { _, d := w.established(a, b); return d },
			"terminated": func() *dialog.Dialog {
				d, _ := w.established(a, b)
				require.NoError(t, d.Bye(context.Background(), ""))
				return d
			},
		}
		//nolint:staticcheck // a nil context is the point
		for _, ctx := range []context.Context{nil, context.Background()} {
			for kind, make := range dialogs {
				for name := range publicCalls(nil, nil) {
					d := make()
					bounded, cancel := ctx, func() {}
					if ctx != nil {
						bounded, cancel = context.WithTimeout(ctx, time.Second)
					}
					require.NotPanics(t, publicCalls(d, bounded)[name], "%s of a %s dialog", name, kind)
					cancel()
					_ = d.Close()
					synctest.Wait()
				}
			}
		}
		w.works(a, b)
	})
}

// A14: no public method of a stack panics: zero, not started, running, ended.
func TestNoMethodOfAStackPanics(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var none context.Context // not a context at all is the point
		made, err := dialog.NewStack(nil)
		require.NoError(t, err)
		ended := w.stack("10.0.0.1")
		require.NoError(t, ended.Shutdown(context.Background()))
		stacks := map[string]*dialog.Stack{
			"zero": new(dialog.Stack), "not started": made, "running": w.stack("10.0.0.2"), "ended": ended,
		}
		for kind, s := range stacks {
			for _, ctx := range []context.Context{none, context.Background()} {
				calls := map[string]func(){
					"NewInvite":    func() { _, _ = s.NewInvite(ctx, sip.Uri{}, dialog.InviteOpts{}) },
					"NewInvite to": func() { _, _ = s.NewInvite(ctx, uri("bob", "10.0.0.9"), dialog.InviteOpts{}) },
					"NewInvite nil": func() {
						_, _ = s.NewInvite(ctx, uri("bob", "10.0.0.9"), dialog.InviteOpts{Body: (*dialog.SimpleBody)(nil)})
					},
					"DialogByKey":    func() { s.DialogByKey(dialog.DialogKey{}) },
					"OnIncoming":     func() { s.OnIncomingDialog(nil) },
					"OnRefer":        func() { s.OnIncomingRefer(nil) },
					"Addr":           func() { s.Addr() },
					"Start nil":      func() { _ = s.Start(none) },
					"Shutdown nil":   func() { _ = s.Shutdown(none) },
					"NewStack empty": func() { _, _ = dialog.NewStack(&dialog.StackConfig{Transport: &dialog.TransportConfig{}}) },
				}
				if kind == "zero" {
					calls["Start"] = func() { _ = s.Start(ctx) }
					calls["Shutdown"] = func() { _ = s.Shutdown(ctx) }
				}
				for name, call := range calls {
					require.NotPanics(t, call, "%s of a %s stack", name, kind)
				}
			}
		}
		var sub *dialog.ReferSubscription
		for _, sub := range []*dialog.ReferSubscription{sub, {}, {ID: "2 REFER"}} {
			require.NotPanics(t, func() {
				require.Error(t, sub.SendNotify(none, 200, "OK"))
				require.Error(t, sub.SendNotify(context.Background(), 200, "OK"))
				require.Error(t, sub.SendNotify(context.Background(), 0, ""))
				sub.Status()
				<-sub.Done()
			})
		}
	})
}

// A REFER handed to a call that nobody has answered: there is no dialog in which
// to report, and the INVITE that goes out again has the next CSeq.
func TestReferHandedToAnUnansweredCallSendsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.peerless("10.0.0.1", "sip.example"), w.peer("10.0.0.9")
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.9"), offer(offerSDP))
		require.NoError(t, err)
		call := d.(*dialog.Dialog)
		req := sip.NewRequest(sip.REFER, uri("carol", "10.0.0.3"))
		req.AppendHeader(&sip.CSeqHeader{SeqNo: 7, MethodName: sip.REFER})
		require.NoError(t, call.HandleIncomingRefer(req, uri("carol", "10.0.0.3"), nil))
		for _, sub := range call.GetAllReferSubscriptions() {
			require.ErrorIs(t, sub.SendNotify(context.Background(), 180, ""), dialog.ErrState)
		}
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 401, ToTag: "x", Headers: []string{challenge}})
		again := p.next("INVITE")
		require.EqualValues(t, 2, again.Request().CSeq().SeqNo)
		require.Empty(t, w.sent("10.0.0.1", "NOTIFY"))
		p.reply(again, dialogtest.Response{Code: 486, ToTag: "x"})
		<-call.Done()
	})
}
