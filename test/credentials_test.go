package test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/emiago/sipgo/sip"
	"github.com/icholy/digest"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// realm is one that challenges: a proxy on the way by 407, or the peer by
// 401.
type realm struct {
	name      string
	code      int
	algorithm string
	nonce     string
	// verified counts the requests that had the right credentials for the nonce;
	// stale is true when it has taken the place of another.
	verified int
	stale    bool
}

func (r *realm) header() string {
	name := "Proxy-Authenticate"
	if r.code == 401 {
		name = "WWW-Authenticate"
	}
	return fmt.Sprintf(`%s: Digest realm="%s", nonce="%s", qop="auth", algorithm=%s, stale=%t`, name, r.name, r.nonce, r.algorithm, r.stale)
}

// check verifies a request's credentials as a server of the realm does; false:
// there are none, or for a nonce that has had its day.
func (r *realm) check(t *testing.T, req *sip.Request) bool {
	t.Helper()
	name := "Proxy-Authorization"
	if r.code == 401 {
		name = "Authorization"
	}
	for _, v := range values(req, name) {
		got, err := digest.ParseCredentials(v)
		require.NoError(t, err)
		if got.Realm != r.name || got.Nonce != r.nonce {
			continue
		}
		r.verified++
		require.Equal(t, r.verified, got.Nc, "%s counts its nonce", r.name)
		require.Equal(t, req.Recipient.String(), got.URI)
		want, err := digest.Digest(&digest.Challenge{Realm: r.name, Nonce: r.nonce, QOP: []string{"auth"}, Algorithm: r.algorithm},
			digest.Options{Method: string(req.Method), URI: got.URI, Username: "user of " + r.name, Password: "secret of " + r.name, Cnonce: got.Cnonce, Count: got.Nc})
		require.NoError(t, err)
		require.Equal(t, want.Response, got.Response)
		return true
	}
	return false
}

// guarded is three realms in a row, each of which lets nothing through that it does
// not know.
type guarded struct {
	t      *testing.T
	p      *peer
	realms []*realm
}

func (w *world) guarded(p *peer) *guarded {
	return &guarded{t: w.t, p: p, realms: []*realm{
		{name: "edge", code: 407, algorithm: "SHA-256", nonce: "e1"},
		{name: "core", code: 407, algorithm: "MD5", nonce: "c1"},
		{name: "home", code: 401, algorithm: "SHA-256", nonce: "h1"},
	}}
}

// known answers for all three realms.
func known(c *dialog.StackConfig) {
	c.Credentials = func(realm string) (string, string, bool) { return "user of " + realm, "secret of " + realm, true }
}

// renew gives every realm a new nonce.
func (g *guarded) renew() {
	for _, r := range g.realms {
		r.nonce, r.verified, r.stale = r.nonce+"+", 0, true
	}
}

// admits reads requests of a method, has each realm challenge what it does not
// know, and returns the one that has got through all of them.
func (g *guarded) admits(method string) dialogtest.Received {
	g.t.Helper()
	var seq uint32
	for range len(g.realms) + 1 {
		in := g.p.next(method)
		req := in.Request()
		if seq > 0 {
			require.Equal(g.t, seq+1, req.CSeq().SeqNo, "the next CSeq (RFC 3261 22.2)")
		}
		seq = req.CSeq().SeqNo
		passed := true
		for _, r := range g.realms {
			if passed = r.check(g.t, req); !passed {
				g.p.reply(in, dialogtest.Response{Code: r.code, ToTag: "realm-" + r.name, Headers: []string{r.header()}})
				break
			}
		}
		if passed {
			return in
		}
	}
	require.FailNow(g.t, "no credentials", "%s", method)
	return dialogtest.Received{}
}

// RFC 3261 22: three realms in a row, two proxies (407) and the peer (401),
// challenge a call's INVITE one after the other. Each later request of the call
// brings the credentials of all three at once, with its own count; when they are
// stale it is challenged three times again.
func TestEveryRequestOfACallPassesSeveralRealms(t *testing.T) {
	t.Run("known nonces", func(t *testing.T) { passSeveralRealms(t, func(*guarded) {}, 1) })
	t.Run("stale nonces", func(t *testing.T) { passSeveralRealms(t, (*guarded).renew, 4) })
}

// passSeveralRealms makes a call; each request inside it takes so many tries
// after what between does.
func passSeveralRealms(t *testing.T, between func(*guarded), tries uint32) {
	ctx := context.Background()
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP, known), w.peer(peerIP)
		g := w.guarded(p)
		d, err := a.NewInvite(ctx, uri("bob", peerIP), offer(offerSDP))
		require.NoError(t, err)
		in := g.admits("INVITE")
		require.EqualValues(t, 4, cseqOf(in.Message))
		p.reply(in, dialogtest.Response{Code: 200, ToTag: "b", Headers: []string{contactOfPeer}, Body: answerSDP})
		call := d.(*dialog.Dialog)
		require.NoError(t, call.WaitAnswer(ctx))
		synctest.Wait()
		ack := p.next("ACK") // the last of four; the three before are hop by hop
		for cseqOf(ack.Message) != 4 {
			ack = p.next("ACK")
		}
		require.Equal(t, values(in.Message, "Proxy-Authorization"), values(ack.Message, "Proxy-Authorization"))
		require.Equal(t, values(in.Message, "Authorization"), values(ack.Message, "Authorization"))
		require.Len(t, values(ack.Message, "Proxy-Authorization"), 2)

		between(g)
		again := began(func() error { return call.ReInvite(ctx, offer(offerSDP)) })
		p.reply(g.admits("INVITE"), dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: answerSDP})
		require.NoError(t, <-again)
		synctest.Wait()

		between(g)
		require.NoError(t, call.Refer(ctx, uri("carol", "10.0.0.3"), dialog.ReferOpts{}))
		p.reply(g.admits("REFER"), dialogtest.Response{Code: 202})
		_, err = call.WaitRefer(ctx)
		require.NoError(t, err)

		between(g)
		bye := began(func() error { return call.Bye(ctx, "") })
		in = g.admits("BYE")
		require.Equal(t, 4+3*tries, cseqOf(in.Message))
		p.reply(in, dialogtest.Response{Code: 200})
		require.NoError(t, <-bye)
	})
}

// Requests of a call that was not challenged before: NOTIFY and BYE of the called
// side, which answers its caller because Authenticate says so, and a REGISTER by Do.
func TestNotifyByeAndRegisterPassSeveralRealms(t *testing.T) {
	ctx := context.Background()
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP, func(c *dialog.StackConfig) {
			c.Authenticate = func(_ context.Context, c dialog.Challenge) (dialog.Credentials, bool) {
				return dialog.Credentials{Username: "user of " + c.Realm, Password: "secret of " + c.Realm}, true
			}
		}), w.peer(peerIP)
		l := w.incoming(a, p)
		g := w.guarded(p)
		l.ask("REFER", withHeaders("Refer-To: <sip:carol@10.0.0.3>"))
		p.next("202 REFER")
		p.reply(g.admits("NOTIFY"), dialogtest.Response{Code: 200}) // 100 Trying
		synctest.Wait()
		g.renew()
		notified := began(func() error { return l.d.GetAllReferSubscriptions()[0].SendNotify(ctx, 200, "OK") })
		p.reply(g.admits("NOTIFY"), dialogtest.Response{Code: 200})
		require.NoError(t, <-notified)

		g.renew()
		bye := began(func() error { return l.d.Bye(ctx, "") })
		p.reply(g.admits("BYE"), dialogtest.Response{Code: 200})
		require.NoError(t, <-bye)

		g.renew()
		register := began(func() error {
			res, err := a.Do(ctx, sip.NewRequest(sip.REGISTER, uri("", peerIP)))
			if err == nil && res.StatusCode != 200 {
				err = fmt.Errorf("REGISTER answered %d", res.StatusCode)
			}
			return err
		})
		p.reply(g.admits("REGISTER"), dialogtest.Response{Code: 200, ToTag: "r"})
		require.NoError(t, <-register)
	})
}

// One realm on the way that is not known ends it, however many are.
func TestOneUnknownRealmRefusesTheRequest(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.peerless(stackIP, "edge"), w.peer(peerIP)
		d, err := a.NewInvite(context.Background(), uri("bob", peerIP), dialog.InviteOpts{})
		require.NoError(t, err)
		edge, core := &realm{name: "edge", code: 407, algorithm: "MD5", nonce: "e1"}, &realm{name: "core", code: 407, algorithm: "MD5", nonce: "c1"}
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 407, ToTag: "x", Headers: []string{edge.header()}})
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 407, ToTag: "y", Headers: []string{core.header()}})
		var refused *dialog.ResponseError
		require.ErrorAs(t, d.(*dialog.Dialog).WaitAnswer(context.Background()), &refused)
		require.Equal(t, 407, refused.StatusCode)
		require.Len(t, w.sent(stackIP, "INVITE"), 2)
	})
}

// A response with the challenges of several realms, as a forking proxy merges
// them (RFC 3261 16.7), and one with the same realm twice: SHA-256 before MD5.
func TestChallengesInOneResponseAreAnsweredTogether(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP, known), w.peer(peerIP)
		g := w.guarded(p)
		weak := &realm{name: "edge", code: 407, algorithm: "MD5", nonce: "e1"}
		d, err := a.NewInvite(context.Background(), uri("bob", peerIP), dialog.InviteOpts{})
		require.NoError(t, err)
		headers := []string{weak.header()}
		for _, r := range g.realms {
			headers = append(headers, r.header())
		}
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 407, ToTag: "x", Headers: headers})
		in := p.next("INVITE")
		for _, r := range g.realms {
			require.True(t, r.check(t, in.Request()), r.name)
		}
		require.Len(t, values(in.Message, "Proxy-Authorization"), 2)
		p.reply(in, dialogtest.Response{Code: 486, ToTag: "y"})
		<-d.(*dialog.Dialog).Done()
	})
}
