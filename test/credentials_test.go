package test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/icholy/digest"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
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

// strict is a server that lets nothing through without credentials, and notes the
// nonce counts in the order in which they came.
type strict struct {
	*element

	mu     sync.Mutex // guards the fields below
	counts map[sip.RequestMethod][]int
	all    []int
}

// admits answers whatever comes, until the element is closed.
func (s *strict) admits(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case in := <-s.arrivals:
			if req, ok := in.msg.(*sip.Request); ok {
				s.answer(in, req)
			}
		}
	}
}

func (s *strict) answer(in passing, req *sip.Request) {
	nc := s.count(req)
	switch {
	case req.Method == sip.ACK:
	case nc == 0:
		s.reply(in, 401, "", sip.NewHeader("WWW-Authenticate", `Digest realm="provider", nonce="shared", qop="auth"`))
	case req.Method == sip.INVITE:
		s.reply(in, 200, answerSDP)
	case req.Method == sip.REFER:
		s.reply(in, 202, "")
	default:
		s.reply(in, 200, "")
	}
}

// count returns and notes the nonce count of a request, 0 when it has none. An ACK
// repeats its INVITE's (RFC 3261 22.1).
func (s *strict) count(req *sip.Request) int {
	list := values(req, "Authorization")
	if len(list) == 0 {
		return 0
	}
	got, err := digest.ParseCredentials(list[0])
	if err != nil {
		s.t.Errorf("%q: %v", list[0], err)
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[req.Method] = append(s.counts[req.Method], got.Nc)
	if req.Method != sip.ACK {
		s.all = append(s.all, got.Nc)
	}
	return got.Nc
}

// FX8: whatever sends them, requests with one nonce arrive with counts that rise (RFC
// 7616 3.4), and no two have the same.
func TestNonceCountsRiseAcrossMethods(t *testing.T) {
	const calls = 20
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				server := &strict{element: w.element(peerIP, transport, nil, nil), counts: make(map[sip.RequestMethod][]int)}
				s := w.stack(stackIP, known, func(c *dialog.StackConfig) { c.Transport.Protocol = transport })
				ended, end := context.WithCancel(context.Background())
				defer end()
				go server.admits(ended)
				var all sync.WaitGroup
				for range calls {
					all.Go(func() { requestsOfACall(t, s, server.uri("bob")) })
				}
				all.Wait()
				for _, method := range []sip.RequestMethod{
					sip.INVITE, sip.UPDATE, sip.INFO, sip.REFER, sip.BYE, sip.REGISTER, sip.SUBSCRIBE, sip.MESSAGE,
				} {
					require.NotEmpty(t, server.counts[method], method)
				}
				require.Subset(t, server.counts[sip.INVITE], server.counts[sip.ACK])
				require.Len(t, server.counts[sip.ACK], calls)
				for i, nc := range server.all[1:] {
					require.Greater(t, nc, server.all[i], "%v", server.all)
				}
			})
		})
	}
}

// requestsOfACall makes a call and sends in it, and beside it, what can be sent at once.
func requestsOfACall(t *testing.T, s *dialog.Stack, target sip.Uri) {
	ctx := context.Background()
	call, err := s.NewInvite(ctx, target, offer(offerSDP))
	if err != nil {
		t.Error(err)
		return
	}
	d := call.(*dialog.Dialog)
	check := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	check(d.WaitAnswer(ctx))
	var all sync.WaitGroup
	for _, f := range []func() error{
		func() error { _, err := d.Update(ctx, nil); return err },
		func() error { return d.SendInfo(ctx, dialog.NewBody("text/plain", []byte("x"))) },
		func() error { return d.Refer(ctx, target, dialog.ReferOpts{NoReferSub: true}) },
		func() error { return <-does(s, sip.REGISTER, target) },
		func() error { return <-does(s, sip.SUBSCRIBE, target) },
		func() error { return <-does(s, sip.MESSAGE, target) },
	} {
		all.Go(func() { check(f()) })
	}
	all.Wait()
	check(d.ByeWith(ctx, dialog.ByeOpts{}))
}

// FW9: challenges follow the grammar (RFC 3261 25.1): white space, the case of names, unknown
// parameters, empty list elements. The qop counts.
func TestChallengesAreReadByTheGrammar(t *testing.T) {
	for challenge, qop := range map[string]string{
		"Digest\trealm=\"r\",\tnonce=\"n\"\t,\tqop=\"auth\"":                                          "auth",
		`digest Realm="r", NONCE="n", QOP="AUTH"`:                                                     "auth",
		`Digest realm="r", nonce="n", qop="auth",`:                                                    "auth",
		`Digest , realm = "r" ,, nonce="n", qop=auth`:                                                 "auth",
		`Digest x.y-z_1="a,b", realm="r", nonce="n", unknown=a.b_c-d, qop="auth", flag`:               "auth",
		`Digest realm="r", nonce="n", qop=""`:                                                         "",
		`Digest realm="r", nonce="n"`:                                                                 "",
		`Digest realm="r", nonce="n", qop="token,Auth"`:                                               "auth",
		`Digest realm="r", nonce="n", qop="auth-int"`:                                                 "auth-int",
		"Digest realm=\"r\",\r\n nonce=\"n\",\r\n\tqop=\"auth\"":                                      "auth",
		`Digest realm="r", nonce="n", qop="auth", algorithm=md5, domain="sip:a sip:b", charset=UTF-8`: "auth",
	} {
		t.Run(challenge, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a := w.stack(stackIP, func(c *dialog.StackConfig) {
					c.Credentials = func(realm string) (string, string, bool) { return "alice", "secret", realm == "r" }
				})
				p := w.textPeer(peerIP)
				result := began(func() error {
					req := sip.NewRequest(sip.OPTIONS, uri("bob", peerIP))
					req.SetBody([]byte("body"))
					_, err := a.Do(context.Background(), req)
					return err
				})
				first := p.next("OPTIONS")
				respond := func(to, status string, more ...string) {
					p.send(a.Addr(), append([]string{status, "Via: " + fieldOf(t, to, "Via"), "From: " + fieldOf(t, to, "From"), "To: <sip:bob@h>;tag=far",
						"Call-ID: " + fieldOf(t, to, "Call-ID"), "CSeq: " + fieldOf(t, to, "CSeq")}, more...)...)
				}
				respond(first, "SIP/2.0 401 Unauthorized", "WWW-Authenticate: "+challenge)
				second := p.next("OPTIONS")
				require.NotEmpty(t, second, "it is not answered")
				got, err := digest.ParseCredentials(fieldOf(t, second, "Authorization"))
				require.NoError(t, err)
				require.Equal(t, qop, got.QOP)
				offered := &digest.Challenge{Realm: "r", Nonce: "n", Algorithm: got.Algorithm}
				if qop != "" {
					offered.QOP = []string{qop}
				}
				checkDigest(t, got, offered, "OPTIONS", "body")
				respond(second, "SIP/2.0 200 OK")
				require.NoError(t, <-result)
			})
		})
	}
}

// checkDigest computes what a server does.
func checkDigest(t *testing.T, got *digest.Credentials, offered *digest.Challenge, method, body string) {
	t.Helper()
	want, err := digest.Digest(offered, digest.Options{
		Method: method, URI: got.URI, Username: "alice", Password: "secret", Cnonce: got.Cnonce, Count: got.Nc, GetBody: readerOf(body),
	})
	require.NoError(t, err)
	require.Equal(t, want.Response, got.Response)
}

func readerOf(body string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
}

// checkCredentials verifies the digest of a request as a server does.
func checkCredentials(t *testing.T, msg sip.Message, nonce string, count int) {
	t.Helper()
	got, err := digest.ParseCredentials(testkit.Value(msg, "Authorization"))
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
		call := w.calls(a, p, offer(offerSDP))
		d, first := call.d, call.invite
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
		require.Equal(t, testkit.Value(second.Message, "Authorization"), testkit.Value(ack.Message, "Authorization"))
		require.NoError(t, d.WaitAnswer(context.Background()))

		// Inside the call credentials go along at once; a nonce that aged is renewed.
		go func() { _ = d.Bye(context.Background(), "") }()
		bye := p.next("BYE")
		checkCredentials(t, bye.Message, "n1", 2)
		p.reply(bye, dialogtest.Response{Code: 401, Headers: []string{`WWW-Authenticate: Digest realm="sip.example", nonce="n2", qop="auth", algorithm=SHA-256, stale=true`}})
		bye = p.next("BYE")
		require.EqualValues(t, 4, bye.Request().CSeq().SeqNo)
		checkCredentials(t, bye.Message, "n2", 1)
		p.reply(bye, dialogtest.Response{Code: 200})
		<-d.Done()
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

// A call ended inside Credentials waited for itself.
func TestByeInsideCredentialsReturns(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		call, result := make(chan *dialog.Dialog, 1), make(chan error, 1)
		a := w.stack(stackIP, func(c *dialog.StackConfig) {
			c.Credentials = func(string) (string, string, bool) {
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
				defer cancel()
				result <- (<-call).Bye(ctx, "")
				return "", "", false
			}
		})
		l := w.calls(a, w.peer(peerIP), offer(offerSDP))
		call <- l.d
		l.answer(dialogtest.Response{Code: 401, Headers: []string{credentialsWanted}})
		require.NoError(t, <-result)
		require.Equal(t, dialog.DialogStateTerminated, l.d.State())
	})
}

// Credentials ran where Shutdown waited for it, without end.
func TestShutdownDoesNotWaitForBlockedCredentials(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		block := make(chan struct{})
		defer close(block)
		a := w.stack(stackIP, func(c *dialog.StackConfig) {
			c.Credentials = func(string) (string, string, bool) { <-block; return "a", "b", true }
		})
		l := w.calls(a, w.peer(peerIP), offer(offerSDP))
		l.answer(dialogtest.Response{Code: 401, Headers: []string{credentialsWanted}})
		synctest.Wait()
		require.Equal(t, 1, w.shutWithin(a).Callbacks)
	})
}

// credentialsWanted is a header of a 401.
const credentialsWanted = `WWW-Authenticate: Digest realm="r", nonce="n", algorithm=MD5`
