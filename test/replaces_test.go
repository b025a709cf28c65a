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
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// Replaces: in the Refer-To of a REFER, and in an INVITE (RFC 3891).

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

// naming is the value of a Replaces or Join header that names the call to
// the stack.
func (l *peerCall) naming() string {
	return l.callID + ";from-tag=" + l.tag + ";to-tag=" + l.stackTag
}

// invites sends an INVITE that begins a call, with these header lines.
func (p *peer) invites(to *dialog.Stack, headers ...string) {
	p.t.Helper()
	require.NoError(p.t, p.Send(to.Addr(), p.Request(dialogtest.Request{
		Method: "INVITE", URI: "sip:service@" + to.Addr().String(), FromTag: "new", Headers: headers, Body: offerSDP,
	})))
}

// invited is invites, and the final answer, with its ACK if it is a 200.
func (p *peer) invited(to *dialog.Stack, headers ...string) *sip.Response {
	p.t.Helper()
	p.invites(to, headers...)
	res := p.final("INVITE")
	if res.StatusCode == 200 {
		p.acknowledges(to, res)
	}
	return res
}

func (p *peer) acknowledges(to *dialog.Stack, res *sip.Response) {
	p.t.Helper()
	require.NoError(p.t, p.Send(to.Addr(), p.Request(dialogtest.Request{
		Method: "ACK", URI: contactOf(res), FromTag: "new", ToTag: testkit.ToTag(res),
	})))
}

// accepting has the stack accept every call, after the functions first, and returns the
// calls.
func accepting(t *testing.T, s *dialog.Stack, first ...func(d *dialog.Dialog)) <-chan *dialog.Dialog {
	calls := make(chan *dialog.Dialog, 10)
	s.OnIncomingDialog(func(d dialog.IDialog) {
		for _, f := range first {
			f(d.(*dialog.Dialog))
		}
		if err := d.Accept(context.Background(), withSDP(answerSDP)); err != nil {
			t.Errorf("accept: %v", err)
		}
		calls <- d.(*dialog.Dialog)
	})
	return calls
}

// noting notes which call an INVITE replaces, for accepting.
func noting(named **dialog.Dialog) func(*dialog.Dialog) {
	return func(d *dialog.Dialog) { *named = d.Replaces() }
}

// RFC 3891 3: the replaced call is ended by BYE, after the 200 to the new one.
func TestInviteWithReplacesTakesTheCallsPlace(t *testing.T) {
	for name, call := range map[string]func(w *world, s *dialog.Stack, p *peer) *peerCall{
		"of an incoming call":  func(w *world, s *dialog.Stack, p *peer) *peerCall { return w.incoming(s, p) },
		"of an outgoing call":  func(w *world, s *dialog.Stack, p *peer) *peerCall { return w.outgoing(s, p) },
		"of one not confirmed": func(w *world, s *dialog.Stack, p *peer) *peerCall { return w.unacknowledged(s, p) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s, p, other := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP)
				old := call(w, s, p)
				var named, joins *dialog.Dialog
				calls := accepting(t, s, noting(&named), func(d *dialog.Dialog) { joins = d.Joins() })
				require.Equal(t, 200, other.invited(s, "Replaces: "+old.naming(), "Require: replaces").StatusCode)
				d := <-calls
				require.Equal(t, old.d, named)
				require.Nil(t, joins)
				require.Nil(t, d.Replaces(), "what it has replaced it keeps no longer")
				if name == "of one not confirmed" {
					old.acknowledge(1)
				}
				bye := p.next("BYE")
				require.Equal(t, `SIP;text="replaced"`, testkit.Value(bye.Message, "Reason"))
				p.reply(bye, dialogtest.Response{Code: 200})
				synctest.Wait()
				require.Equal(t, dialog.DialogStateTerminated, old.d.State())
				require.Equal(t, dialog.Cause{By: dialog.PartyLocal, Method: "BYE", Reason: "replaced"}, old.d.Cause())
				require.Equal(t, dialog.DialogStateEstablished, d.State())
				require.Less(t, indexOf(w.flow(), stackIP+" 200 INVITE"), indexOf(w.flow(), stackIP+" BYE"))
				hangUp(t, d, other)
			})
		})
	}
}

// unacknowledged is a call that the stack has answered, and whose ACK is missing.
func (w *world) unacknowledged(s *dialog.Stack, p *peer) *peerCall {
	l := w.rings(s, p)
	require.NoError(w.t, l.d.Accept(context.Background(), withSDP(answerSDP)))
	l.final = p.next("200 INVITE")
	return l
}

func indexOf(list []string, what string) int {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i] == what {
			return i
		}
	}
	return -1
}

// RFC 3891 3, 7.1: an early call of ours is cancelled: another phone picks it up.
func TestInviteWithReplacesPicksUpARingingCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, desk, lab := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP)
		old := w.alerting(s, desk)
		var named *dialog.Dialog
		calls := accepting(t, s, noting(&named))
		require.Equal(t, 200, lab.invited(s, "Replaces: "+old.naming()+";early-only").StatusCode)
		<-calls
		require.Equal(t, old.d, named)
		cancel := desk.next("CANCEL")
		desk.reply(cancel, dialogtest.Response{Code: 200})
		old.answer(dialogtest.Response{Code: 487})
		require.ErrorIs(t, old.d.WaitAnswer(context.Background()), dialog.ErrCanceled)
		lab.bye(s)
	})
}

// An INVITE of ours that a proxy forks has several early dialogs, each of which
// may be named.
func TestInviteWithReplacesPicksUpAnyFork(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, desk, lab := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP)
		old := w.calls(s, desk, offer(offerSDP))
		for _, tag := range []string{"one", "two", "three"} {
			old.answer(dialogtest.Response{Code: 180, ToTag: tag})
		}
		old.answer(dialogtest.Response{Code: 199, ToTag: "three"})
		synctest.Wait()
		name := "Replaces: " + old.callID + ";to-tag=" + old.stackTag + ";from-tag="
		var named *dialog.Dialog
		calls := accepting(t, s, noting(&named))
		require.Equal(t, 603, w.peer("10.0.0.3").invited(s, name+"three").StatusCode, "it has ended")
		require.Equal(t, 481, w.peer("10.0.0.4").invited(s, name+"four").StatusCode)
		require.Equal(t, 200, lab.invited(s, name+"two;early-only").StatusCode)
		<-calls
		require.Equal(t, old.d, named)
		desk.reply(desk.next("CANCEL"), dialogtest.Response{Code: 200})
		old.answer(dialogtest.Response{Code: 487, ToTag: "one"})
		lab.bye(s)
	})
}

// bye has the peer hang up the call that invited began.
func (p *peer) bye(s *dialog.Stack) {
	p.t.Helper()
	for _, d := range s.Dialogs() {
		if info := d.Info(); info.Key.RemoteTag == "new" {
			require.NoError(p.t, p.Send(s.Addr(), p.Request(dialogtest.Request{
				Method: "BYE", FromTag: "new", ToTag: info.Key.LocalTag, CSeq: 7,
			})))
			p.next("200 BYE")
		}
	}
	synctest.Wait()
}

// The rows of the answers for an INVITE that names a call: see RFC 3891 3 and
// RFC 3911 4. The call is not touched.
func TestInviteThatNamesACallInVain(t *testing.T) {
	established := func(w *world, s *dialog.Stack, p *peer) *peerCall { return w.incoming(s, p) }
	ringsHere := func(w *world, s *dialog.Stack, p *peer) *peerCall { return w.rings(s, p) }
	ringsThere := func(w *world, s *dialog.Stack, p *peer) *peerCall {
		l := w.alerting(s, p)
		return l
	}
	unanswered := func(w *world, s *dialog.Stack, p *peer) *peerCall {
		l := w.calls(s, p, offer(offerSDP))
		l.answer(dialogtest.Response{Code: 100})
		synctest.Wait()
		return l
	}
	line := func(format string) func(*peerCall) []string {
		return func(l *peerCall) []string {
			r := strings.NewReplacer("NAME", l.naming(), "ID", l.callID, "OURS", l.stackTag, "THEIRS", l.tag)
			return strings.Split(r.Replace(format), "|")
		}
	}
	for _, c := range []struct {
		name    string
		call    func(w *world, s *dialog.Stack, p *peer) *peerCall
		headers func(*peerCall) []string
		status  int
	}{
		{"another Call-ID", established, line("Replaces: xID;from-tag=THEIRS;to-tag=OURS"), 481},
		{"the tags exchanged", established, line("Replaces: ID;from-tag=OURS;to-tag=THEIRS"), 481},
		{"another to-tag", established, line("Replaces: ID;from-tag=THEIRS;to-tag=x"), 481},
		{"no from-tag, as it were", established, line("Replaces: ID;from-tag=0;to-tag=OURS"), 481},
		{"early-only, confirmed", established, line("Replaces: NAME;early-only"), 486},
		{"early here", ringsHere, line("Replaces: NAME"), 481},
		{"early there, nobody has answered", unanswered, line("Replaces: ID;from-tag=0;to-tag=OURS"), 481},
		{"early there, another fork", ringsThere, line("Replaces: ID;from-tag=x;to-tag=OURS"), 481},
		{"twice", established, line("Replaces: NAME|Replaces: NAME"), 400},
		{"twice in one line", established, line("Replaces: NAME, NAME"), 400},
		{"with something behind a comma", established, line("Replaces: NAME, x"), 400},
		{"without a tag", established, line("Replaces: ID;from-tag=THEIRS"), 400},
		{"with an empty tag", established, line("Replaces: ID;from-tag=;to-tag=OURS"), 400},
		{"with two tags of a kind", established, line("Replaces: NAME;to-tag=OURS"), 400},
		{"without a Call-ID", established, line("Replaces: ;from-tag=THEIRS;to-tag=OURS"), 400},
		{"empty", established, line("Replaces: "), 400},
		{"escaped", established, line("Replaces: ID%3Bfrom-tag%3DTHEIRS%3Bto-tag%3DOURS"), 400},
		{"with Join", established, line("Replaces: NAME|Join: NAME"), 400},
		{"Join twice", established, line("Join: NAME|Join: NAME"), 400},
		{"Join without a tag", established, line("Join: ID;to-tag=OURS"), 400},
		{"Join of no call", established, line("Join: ID;from-tag=x;to-tag=OURS"), 481},
		{"Join when nobody can mix", established, line("Join: NAME"), 488},
		{"Require: join when nobody can mix", established, line("Require: join, replaces|Join: NAME"), 420},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s, p, other := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP)
				l := c.call(w, s, p)
				before := l.d.State()
				s.OnIncomingDialog(func(dialog.IDialog) { t.Error("offered") })
				require.Equal(t, c.status, other.invited(s, c.headers(l)...).StatusCode)
				synctest.Wait()
				require.Empty(t, w.sent(stackIP, "180 INVITE")[count(w, l):], "nobody hears it ring")
				require.Equal(t, before, l.d.State())
				require.Empty(t, w.sent(stackIP, "BYE"))
				require.Empty(t, w.sent(stackIP, "CANCEL"))
				l.over()
			})
		})
	}
}

// count is how often the stack rang for the call itself.
func count(_ *world, l *peerCall) int {
	if l.d.IsUAS() {
		return 1
	}
	return 0
}

// over ends the call, whatever its state.
func (l *peerCall) over() {
	l.t.Helper()
	established := l.d.State() == dialog.DialogStateEstablished
	require.NoError(l.t, l.d.Close())
	switch {
	case established:
		l.reply(l.next("BYE"), dialogtest.Response{Code: 200})
	case l.d.IsUAC():
		l.reply(l.next("CANCEL"), dialogtest.Response{Code: 200})
		l.answer(dialogtest.Response{Code: 487})
	}
	synctest.Wait()
}

// RFC 3891 3: one INVITE only may carry it, and one that begins a call.
func TestReplacesInAnotherRequestGets400(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(s, p)
		for _, method := range []string{"INVITE", "REFER", "INFO", "OPTIONS", "UPDATE", "NOTIFY", "BYE"} {
			for _, name := range []string{"Replaces", "Join"} {
				l.ask(method, withHeaders(name+": "+l.naming(), "Refer-To: <sip:x@10.0.0.3>"))
				require.Equal(t, 400, p.final(method).StatusCode, method)
			}
		}
		res := p.ask(s, dialogtest.Request{Method: "OPTIONS", CallID: "out", Headers: []string{"Replaces: " + l.naming()}})
		require.Equal(t, 400, res.StatusCode)
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		l.over()
	})
}

// RFC 3891 3: 603, so that no phone rings for a call that has ended; for as long as the
// tombstone lasts.
func TestReplacesOfACallThatHasEndedGets603(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p, other := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP)
		l := w.incoming(s, p)
		s.OnIncomingDialog(func(dialog.IDialog) { t.Error("offered") })
		hangup := began(func() error { return l.d.Bye(context.Background(), "") })
		bye := p.next("BYE")
		require.Equal(t, 603, other.invited(s, "Replaces: "+l.naming()).StatusCode, "while the BYE is on its way")
		p.reply(bye, dialogtest.Response{Code: 200})
		require.NoError(t, <-hangup)
		require.Equal(t, 603, w.peer("10.0.0.3").invited(s, "Replaces: "+l.naming()).StatusCode)
		time.Sleep(33 * time.Second) // 64*T1, on the fake clock
		require.Equal(t, 481, w.peer("10.0.0.4").invited(s, "Replaces: "+l.naming()).StatusCode)
	})
}

// RFC 3891 6.1: a tag of zero is also none, as callers of RFC 2543 have it.
func TestReplacesWithATagOfZeroMatchesNone(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p, other := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP)
		var named *dialog.Dialog
		calls := accepting(t, s, noting(&named))
		text := p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:service@" + s.Addr().String(), FromTag: "gone", Body: offerSDP})
		require.NoError(t, p.Send(s.Addr(), strings.Replace(text, ";tag=gone", "", 1)))
		ok := p.final("INVITE")
		ack := p.Request(dialogtest.Request{Method: "ACK", FromTag: "gone", ToTag: testkit.ToTag(ok)})
		require.NoError(t, p.Send(s.Addr(), strings.Replace(ack, ";tag=gone", "", 1)))
		old := <-calls
		require.Empty(t, old.Key().RemoteTag)
		name := old.Key().CallID + ";from-tag=0;to-tag=" + old.Key().LocalTag
		require.Equal(t, 200, other.invited(s, "Replaces: "+name).StatusCode)
		d := <-calls
		require.Equal(t, old, named)
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
		hangUp(t, d, other)
	})
}

// RFC 3911 4: the new call is handed over with the call to be joined; nothing ends, and an
// early call may be joined, too.
func TestInviteWithJoinIsHandedOver(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.stack(stackIP, func(c *dialog.StackConfig) {
			c.AuthorizeJoin = func(context.Context, dialog.TakeoverRequest) dialog.Answer { return dialog.Answer{} }
		})
		p, other := w.peer(peerIP), w.peer(otherIP)
		old := w.rings(s, p)
		calls := accepting(t, s)
		res := other.invited(s, "Join: "+old.naming(), "Require: join")
		require.Equal(t, 200, res.StatusCode)
		require.Contains(t, testkit.Value(res, "Supported"), "join")
		d := <-calls
		require.Equal(t, old.d, d.Joins())
		require.Nil(t, d.Replaces())
		synctest.Wait()
		require.Equal(t, dialog.DialogStateRinging, old.d.State())
		hangUp(t, d, other)
		old.over()
	})
}

// Headers of an INVITE of ours (RFC 3891 4, 6.2; RFC 3911 5).
func TestInviteNamesACall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p, other := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP)
		old := w.outgoing(s, p)
		info := dialog.ReplacesOf(old.d)
		require.Equal(t, &dialog.ReplacesInfo{CallID: old.callID, FromTag: old.stackTag, ToTag: farTag}, info)
		early := *info
		early.EarlyOnly = true
		for _, c := range []struct {
			opts  dialog.InviteOpts
			lines map[string]string
		}{
			{dialog.InviteOpts{Replaces: &early, Require: []string{"replaces"}},
				map[string]string{"Replaces": info.BuildReplacesHeader() + ";early-only", "Require": "replaces"}},
			{dialog.InviteOpts{Join: &early}, map[string]string{"Join": info.BuildReplacesHeader()}},
		} {
			l := w.calls(s, other, c.opts)
			for name, want := range c.lines {
				require.Equal(t, want, testkit.Value(l.invite.Message, name))
			}
			require.Contains(t, testkit.Value(l.invite.Message, "Supported"), "replaces")
			l.answer(dialogtest.Response{Code: 486})
			synctest.Wait()
		}
		for _, wrong := range []dialog.InviteOpts{
			{Replaces: info, Join: info}, {Replaces: &dialog.ReplacesInfo{}}, {Join: &dialog.ReplacesInfo{CallID: "a", ToTag: "b"}},
			{Replaces: &dialog.ReplacesInfo{CallID: "a;b", FromTag: "c", ToTag: "d"}},
			{Replaces: &dialog.ReplacesInfo{CallID: "a", FromTag: "c", ToTag: "d\r\nVia: x"}},
		} {
			_, err := s.NewInvite(context.Background(), uri("bob", otherIP), wrong)
			require.ErrorIs(t, err, dialog.ErrInvalidArgument)
		}
		require.Nil(t, dialog.ReplacesOf(nil))
		require.Nil(t, dialog.ReplacesOf((*dialog.Dialog)(nil)))
		require.Nil(t, dialog.ReplacesOf(new(dialog.Dialog)))
		old.over()
	})
}

// FuzzDialogNames reads the headers that name a call: what is read is whole, and
// what it is written as is read as the same.
func FuzzDialogNames(f *testing.F) {
	for _, seed := range []string{
		"98732@sip.example.com;from-tag=r33th4x0r;to-tag=ff87ff", "12adf2f34456gs5;to-tag=12345;from-tag=54321;early-only",
		"87134@171.161.34.23;to-tag=24796;from-tag=0", "id%3Bto-tag%3DT%3Bfrom-tag%3DF", "a;local-tag=b;remote-tag=c",
		"a;from-tag=b;from-tag=c;to-tag=d", ";;;==", `a;from-tag="b;to-tag=c";to-tag=d`, `a;to-tag=b;from-tag="c`, `a"<b;from-tag=c;to-tag=d`, "a;to-tag;from-tag=", "%", "a;early-only=;from-tag=%3B;to-tag=b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		info, err := dialog.ParseReplacesHeader(value)
		if (err == nil) != (info != nil) {
			t.Fatalf("%q: %+v, %v", value, info, err)
		}
		if err == nil {
			if info.CallID == "" || info.FromTag == "" || info.ToTag == "" {
				t.Fatalf("%q: %+v", value, info)
			}
			again, err := dialog.ParseReplacesHeader(info.BuildReplacesHeader())
			if err != nil || *again != *info {
				t.Fatalf("%q: %+v, then %+v, %v", value, info, again, err)
			}
		}
		if key, err := dialog.ParseTargetDialog(value); err == nil && (key.CallID == "" || key.LocalTag == "" || key.RemoteTag == "") {
			t.Fatalf("%q: %+v", value, key)
		}
	})
}
