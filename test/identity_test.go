package test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/icholy/digest"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

func TestInviteSaysWhoCalls(t *testing.T) {
	alice := &dialog.Address{DisplayName: "Alice \"A\"", URI: sip.Uri{Scheme: "sip", User: "alice", Host: "example.com"}}
	cases := []struct {
		name string
		opts dialog.InviteOpts
		from string
		more map[string]string
	}{
		{"by default", dialog.InviteOpts{}, "<sip:SoftPhone@10.0.0.1>", nil},
		{"as the call says", dialog.InviteOpts{From: alice}, `"Alice \"A\"" <sip:alice@example.com>`, nil},
		{"without a host", dialog.InviteOpts{From: &dialog.Address{URI: sip.Uri{User: "bob"}}}, "<sip:bob@10.0.0.1>", nil},
		{"anonymously", dialog.InviteOpts{From: alice, Anonymous: true}, `"Anonymous" <sip:anonymous@anonymous.invalid>`, map[string]string{"Privacy": "id"}},
		{"with headers", dialog.InviteOpts{Headers: []dialog.Header{
			{Name: "P-Asserted-Identity", Value: "<sip:a@b>"}, {Name: "X-Tab", Value: "a\tb"},
		}}, "<sip:SoftPhone@10.0.0.1>", map[string]string{"P-Asserted-Identity": "<sip:a@b>", "X-Tab": "a\tb", "Max-Forwards": "70"}},
		{"with fewer hops", dialog.InviteOpts{MaxForwards: 7}, "<sip:SoftPhone@10.0.0.1>", map[string]string{"Max-Forwards": "7"}},
		{"with a contact", dialog.InviteOpts{Contact: &sip.Uri{Scheme: "sip", User: "me", Host: "10.0.0.1", Port: 5060}}, "<sip:SoftPhone@10.0.0.1>",
			map[string]string{"Contact": "<sip:me@10.0.0.1:5060>"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
				d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.9"), c.opts)
				require.NoError(t, err)
				in := p.next("INVITE")
				tag := d.Key().LocalTag
				require.Equal(t, c.from+";tag="+tag, in.Request().From().Value())
				for name, want := range c.more {
					require.Equal(t, want, value(in.Message, name))
				}
				p.reply(in, dialogtest.Response{Code: 486, ToTag: "x"})
			})
		})
	}
}

func TestOutboundProxyIsAPreloadedRoute(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack("10.0.0.1", func(c *dialog.StackConfig) { c.OutboundProxy = &sip.Uri{Scheme: "sip", Host: "10.0.0.9", Port: 5060} })
		proxy := w.peer("10.0.0.9")
		_, err := a.NewInvite(context.Background(), sip.Uri{Scheme: "sip", User: "bob", Host: "nowhere.invalid"}, dialog.InviteOpts{})
		require.NoError(t, err)
		in := proxy.next("INVITE")
		require.Equal(t, "<sip:10.0.0.9:5060;lr>", value(in.Message, "Route"))
		require.Equal(t, "sip:bob@nowhere.invalid", in.Request().Recipient.String())
		proxy.reply(in, dialogtest.Response{Code: 404, ToTag: "x"})
	})
}

func TestSetupMissesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		seen := &states{}
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.9"), dialog.InviteOpts{Setup: func(d *dialog.Dialog) { seen = watch(d) }})
		require.NoError(t, err)
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 486, ToTag: "x"})
		require.Error(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		synctest.Wait()
		require.Equal(t, []dialog.DialogState{dialog.DialogStateTrying, dialog.DialogStateTerminated}, seen.seen())

		_, err = a.NewInvite(context.Background(), uri("bob", "10.0.0.9"), dialog.InviteOpts{Setup: func(*dialog.Dialog) { panic("setup") }})
		require.ErrorIs(t, err, dialog.ErrPanic)
		require.Empty(t, a.Dialogs())
	})
}

func TestEarlyMediaAndRedirection(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		calls := waiting(b)
		require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:b@10.0.0.2", Headers: []string{contactOfPeer, "Subject: hello"}, Body: offerSDP})))
		d := <-calls
		req := d.Request()
		require.Equal(t, "hello", value(req, "Subject"))
		require.Equal(t, "10.0.0.9:5060", req.Source())
		require.Equal(t, offerSDP, string(req.Body()))
		require.NotSame(t, req, d.Request())

		require.ErrorIs(t, d.Provisional(context.Background(), 200, ""), dialog.ErrInvalidArgument)
		require.NoError(t, d.Provisional(context.Background(), 183, "", dialog.WithBody(dialog.NewBody("application/sdp", []byte(answerSDP)))))
		early := p.next("183 INVITE")
		require.Equal(t, answerSDP, string(early.Message.Body()))
		require.NotEmpty(t, value(early.Message, "Contact"))

		require.NoError(t, d.RejectWith(context.Background(), 302, "", dialog.WithContacts(uri("carol", "10.0.0.3")),
			dialog.WithRetryAfter(90*time.Second), dialog.WithWarning(399, "moved"), dialog.WithHeader("X-Why", "because")))
		res := p.final("INVITE")
		require.Equal(t, 302, res.StatusCode)
		require.Equal(t, "<sip:carol@10.0.0.3:5060>", value(res, "Contact"))
		require.Len(t, res.GetHeaders("Contact"), 1)
		require.Equal(t, "90", value(res, "Retry-After"))
		require.Equal(t, `399 dialog "moved"`, value(res, "Warning"))
		require.Equal(t, "because", value(res, "X-Why"))
		require.Error(t, d.Provisional(context.Background(), 180, ""))
	})
}

func TestInfoIsAConsistentCopy(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		caller, callee := w.established(a, b)
		ctx := caller.Context()
		require.Len(t, a.Dialogs(), 1)
		info := caller.Info()
		require.Equal(t, caller.Key(), info.Key)
		require.True(t, info.IsUAC)
		require.Equal(t, "bob", info.Remote.URI.User)
		require.Equal(t, "10.0.0.2", info.RemoteTarget.Host)
		require.EqualValues(t, 1, info.LocalSeq)
		info.RemoteTarget.UriParams.Add("mine", "")
		require.False(t, caller.Info().RemoteTarget.UriParams.Has("mine"))
		require.NoError(t, caller.ByeWith(context.Background(), dialog.ByeOpts{Reason: "enough", Headers: []dialog.Header{{Name: "X-Bye", Value: "now"}}}))
		bye := w.sent("10.0.0.1", "BYE")[0]
		require.Equal(t, "now", value(bye.msg, "X-Bye"))
		require.Equal(t, `SIP;text="enough"`, value(bye.msg, "Reason"))
		<-ctx.Done()
		require.ErrorIs(t, context.Cause(ctx), dialog.ErrTerminated)
		synctest.Wait()
		info = callee.Info()
		require.Equal(t, dialog.PartyRemote, info.Cause.By)
		var history []dialog.DialogState
		for _, change := range info.History {
			history = append(history, change.State)
		}
		require.Equal(t, []dialog.DialogState{dialog.DialogStateRinging, dialog.DialogStateEstablished, dialog.DialogStateTerminated}, history)
	})
}

const challenge = `WWW-Authenticate: Digest realm="sip.example", nonce="n1", qop="auth", algorithm=SHA-256`

// checkCredentials verifies the digest of a request as a server does.
func checkCredentials(t *testing.T, msg sip.Message, nonce string, count int) {
	t.Helper()
	got, err := digest.ParseCredentials(value(msg, "Authorization"))
	require.NoError(t, err)
	require.Equal(t, count, got.Nc)
	req := msg.(*sip.Request)
	method := req.Method
	if method == sip.ACK {
		method = sip.INVITE // the ACK repeats its INVITE's (RFC 3261 22.1)
	}
	want, err := digest.Digest(&digest.Challenge{Realm: "sip.example", Nonce: nonce, QOP: []string{"auth"}, Algorithm: "SHA-256"},
		digest.Options{Method: string(method), URI: got.URI, Username: "alice", Password: "secret", Cnonce: got.Cnonce, Count: count})
	require.NoError(t, err)
	require.Equal(t, want.Response, got.Response)
}

// RFC 3261 22: every request but ACK and CANCEL answers challenges, with its
// next CSeq; the ACK carries its INVITE's credentials.
func TestChallengesAreAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack("10.0.0.1", func(c *dialog.StackConfig) {
			c.Credentials = func(realm string) (string, string, bool) { return "alice", "secret", realm == "sip.example" }
		})
		p := w.peer("10.0.0.9")
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.9"), offer(offerSDP))
		require.NoError(t, err)
		first := p.next("INVITE")
		p.reply(first, dialogtest.Response{Code: 401, ToTag: "x", Headers: []string{challenge}})
		p.next("ACK")
		second := p.next("INVITE")
		require.EqualValues(t, 2, second.Request().CSeq().SeqNo)
		require.Equal(t, first.Request().CallID().Value(), second.Request().CallID().Value())
		require.Equal(t, first.Request().From().Value(), second.Request().From().Value())
		require.False(t, second.Request().To().Params.Has("tag"))
		checkCredentials(t, second.Message, "n1", 1)
		p.reply(second, dialogtest.Response{Code: 200, ToTag: "b", Headers: []string{contactOfPeer}, Body: answerSDP})
		ack := p.next("ACK")
		require.EqualValues(t, 2, ack.Request().CSeq().SeqNo)
		require.Equal(t, value(second.Message, "Authorization"), value(ack.Message, "Authorization"))
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))

		// Inside the call credentials go along at once; a nonce that aged is renewed.
		go func() { _ = d.Bye(context.Background(), "") }()
		bye := p.next("BYE")
		checkCredentials(t, bye.Message, "n1", 2)
		p.reply(bye, dialogtest.Response{Code: 401, Headers: []string{`WWW-Authenticate: Digest realm="sip.example", nonce="n2", qop="auth", algorithm=SHA-256, stale=true`}})
		bye = p.next("BYE")
		require.EqualValues(t, 4, bye.Request().CSeq().SeqNo)
		checkCredentials(t, bye.Message, "n2", 1)
		p.reply(bye, dialogtest.Response{Code: 200})
		<-d.(*dialog.Dialog).Done()
	})
}

func TestWrongPasswordIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack("10.0.0.1", func(c *dialog.StackConfig) {
			c.Credentials = func(string) (string, string, bool) { return "alice", "wrong", true }
		})
		p := w.peer("10.0.0.9")
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.9"), dialog.InviteOpts{})
		require.NoError(t, err)
		for range 2 {
			p.reply(p.next("INVITE"), dialogtest.Response{Code: 401, ToTag: "x", Headers: []string{challenge}})
		}
		var refused *dialog.ResponseError
		require.ErrorAs(t, d.(*dialog.Dialog).WaitAnswer(context.Background()), &refused)
		require.Equal(t, 401, refused.StatusCode)
		require.Len(t, w.sent("10.0.0.1", "INVITE"), 2)
	})
}

// A call that is given up while its challenge is being answered does not go
// out once more.
func TestCancelWhileAChallengeIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.peerless("10.0.0.1", "sip.example"), w.peer("10.0.0.9")
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.9"), dialog.InviteOpts{})
		require.NoError(t, err)
		in := p.next("INVITE")
		p.reply(in, dialogtest.Response{Code: 180, ToTag: "x"})
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		require.ErrorIs(t, d.(*dialog.Dialog).WaitAnswer(ctx), context.Canceled)
		p.next("CANCEL")
		p.reply(in, dialogtest.Response{Code: 401, ToTag: "x", Headers: []string{challenge}})
		<-d.(*dialog.Dialog).Done()
		require.Len(t, w.sent("10.0.0.1", "INVITE"), 1)
	})
}

// peerless starts a stack that has credentials for a realm.
func (w *world) peerless(ip, realm string) *dialog.Stack {
	return w.stack(ip, func(c *dialog.StackConfig) {
		c.Credentials = func(asked string) (string, string, bool) { return "alice", "secret", asked == realm }
	})
}

func TestReferAnswersAChallenge(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.peerless("10.0.0.1", "sip.example"), w.peer("10.0.0.9")
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.9"), offer(offerSDP))
		require.NoError(t, err)
		in := p.next("INVITE")
		p.reply(in, dialogtest.Response{Code: 200, ToTag: "b", Headers: []string{contactOfPeer}, Body: answerSDP})
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		require.NoError(t, d.Refer(context.Background(), uri("carol", "10.0.0.3"), dialog.ReferOpts{}))
		p.reply(p.next("REFER"), dialogtest.Response{Code: 401, Headers: []string{challenge}})
		p.reply(p.next("REFER"), dialogtest.Response{Code: 202})
		sub, err := d.WaitRefer(context.Background())
		require.NoError(t, err)
		require.Equal(t, "3 REFER", sub.ID)
		found, ok := d.(*dialog.Dialog).GetReferSubscription("3 REFER")
		require.True(t, ok)
		require.Same(t, sub, found)
		hangUp(t, d, p)
	})
}
