package test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

// To whom credentials are sent: docs/security.md.

const (
	asksServer = `WWW-Authenticate: Digest realm="provider", nonce="n1"`
	asksProxy  = `Proxy-Authenticate: Digest realm="provider", nonce="n2"`
)

// credentialsOf are all that a message carries.
func credentialsOf(msg sip.Message) []string {
	return append(values(msg, "Authorization"), values(msg, "Proxy-Authorization")...)
}

// none checks that nothing of what ip was sent has credentials.
func (w *world) none(ip string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.log {
		if m.to.Addr().String() == ip {
			require.Empty(w.t, credentialsOf(m.msg), "%s sent to %s", testkit.Describe(m.msg), ip)
		}
	}
}

// challenge answers a request by 401 or 407 with a challenge.
func (p *peer) challenge(in dialogtest.Received, header string) {
	p.t.Helper()
	code := 401
	if strings.HasPrefix(header, "Proxy") {
		code = 407
	}
	p.reply(in, dialogtest.Response{Code: code, ToTag: "guard", Headers: []string{header}})
}

// does sends a request by Do and returns the channel of its outcome.
func does(s *dialog.Stack, method sip.RequestMethod, target sip.Uri) <-chan error {
	return began(func() error {
		_, err := s.Do(context.Background(), sip.NewRequest(method, target))
		return err
	})
}

// registered has the stack register with a peer that challenges, and answers.
func registered(t *testing.T, s *dialog.Stack, p *peer, header string) {
	t.Helper()
	done := does(s, sip.REGISTER, uri("", p.ip))
	p.challenge(p.next("REGISTER"), header)
	in := p.next("REGISTER")
	require.Len(t, credentialsOf(in.Message), 1)
	p.reply(in, dialogtest.Response{Code: 200, ToTag: "r"})
	require.NoError(t, <-done)
}

// asked counts the calls of Credentials.
type asked struct {
	mu     sync.Mutex
	realms []string
}

func (a *asked) config(c *dialog.StackConfig) {
	c.Credentials = func(realm string) (string, string, bool) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.realms = append(a.realms, realm)
		return "user", "secret", true
	}
}

func (a *asked) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.realms)
}

// FX1: RFC 3261 22.2. What one destination has asked for goes to no other.
func TestCredentialsGoToTheDestinationThatAskedForThem(t *testing.T) {
	ctx := context.Background()
	for _, header := range []string{asksServer, asksProxy} {
		bubble(t, func(t *testing.T, w *world) {
			s, a, b := w.stack(stackIP, known), w.peer(peerIP), w.peer(otherIP)
			registered(t, s, a, header)
			for _, method := range []sip.RequestMethod{sip.REGISTER, sip.OPTIONS, sip.MESSAGE} {
				done := does(s, method, uri("b", otherIP))
				b.reply(b.next(string(method)), dialogtest.Response{Code: 200, ToTag: "b"})
				require.NoError(t, <-done)
			}
			referred := began(func() error {
				_, err := s.Refer(ctx, uri("b", otherIP), uri("c", "10.0.0.3"), dialog.ReferOpts{NoReferSub: true})
				return err
			})
			b.reply(b.next("REFER"), dialogtest.Response{Code: 202, ToTag: "b", Headers: []string{"Refer-Sub: false", "Contact: <sip:b@10.0.0.8:5060>"}})
			require.NoError(t, <-referred)
			l := w.outgoing(s, b)
			l.hangUp(b)
			w.none(otherIP)

			// A gets them at once where they are those of a server.
			done := does(s, sip.REGISTER, uri("", peerIP))
			in := a.next("REGISTER")
			require.Len(t, values(in.Message, "Authorization"), strings.Count(header, "WWW"))
			require.Empty(t, values(in.Message, "Proxy-Authorization"), "a proxy's are for their Call-ID (RFC 3261 22.3)")
			a.reply(in, dialogtest.Response{Code: 200, ToTag: "r"})
			require.NoError(t, <-done)
		})
	}
}

// FX1: two users of ours, or two targets behind one proxy, are two destinations.
func TestCredentialsAreForOneTargetAndOneOfOurUsers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP, known, func(c *dialog.StackConfig) { c.OutboundProxy = &sip.Uri{Scheme: "sip", Host: peerIP} }), w.peer(peerIP)
		ask := func(from, target string) *sip.Request {
			to := sip.Uri{Scheme: "sip", Host: target}
			if user, host, found := strings.Cut(target, "@"); found {
				to.User, to.Host = user, host
			}
			req := sip.NewRequest(sip.OPTIONS, to)
			req.AppendHeader(&sip.FromHeader{Address: sip.Uri{Scheme: "sip", User: from, Host: "home.example"}})
			return req
		}
		do := func(req *sip.Request, challenge string) *sip.Request {
			done := began(func() error { _, err := s.Do(context.Background(), req); return err })
			in := p.next("OPTIONS")
			first := in.Request()
			if challenge != "" {
				p.challenge(in, challenge)
				in = p.next("OPTIONS")
			}
			p.reply(in, dialogtest.Response{Code: 200, ToTag: "x"})
			require.NoError(t, <-done)
			return first
		}
		require.Empty(t, credentialsOf(do(ask("alice", "a.example"), asksServer)))
		require.Len(t, credentialsOf(do(ask("alice", "a.example"), "")), 1)
		require.Empty(t, credentialsOf(do(ask("alice", "b.example"), "")), "behind the same proxy")
		require.Empty(t, credentialsOf(do(ask("bob", "a.example"), "")), "another user of ours")
		require.Empty(t, credentialsOf(do(ask("alice", "carol@a.example"), "")), "another user of the server's, who may see them")
		// Those of the outbound proxy are for every target (RFC 3261 22.3).
		require.Empty(t, values(do(ask("alice", "b.example"), asksProxy), "Proxy-Authorization"))
		require.Len(t, values(do(ask("alice", "c.example"), ""), "Proxy-Authorization"), 1)
		require.Empty(t, values(do(ask("alice", "c.example"), ""), "Authorization"))
	})
}

// FX1: inside a call, as long as it goes the same way; nothing follows a redirection.
func TestCredentialsInACallDoNotFollowItElsewhere(t *testing.T) {
	ctx := context.Background()
	for _, header := range []string{asksServer, asksProxy} {
		t.Run("moved target "+header[:5], func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s, a, b := w.stack(stackIP, known), w.peer(peerIP), w.peer(otherIP)
				l := w.calls(s, a, offer(offerSDP))
				a.challenge(l.invite, header)
				l.invite = a.next("INVITE")
				l.answer(dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: answerSDP})
				require.NoError(t, l.d.WaitAnswer(ctx))
				sent := began(func() error { return l.d.SendInfo(ctx, dialog.NewBody("text/plain", []byte("x"))) })
				info := a.next("INFO")
				require.Len(t, credentialsOf(info.Message), 1)
				a.reply(info, dialogtest.Response{Code: 200})
				require.NoError(t, <-sent)
				l.ask("UPDATE", withHeaders("Contact: <sip:b@10.0.0.8:5060>"))
				a.next("200 UPDATE")
				l.hangUp(b)
				w.none(otherIP)
			})
		})
		t.Run("redirection "+header[:5], func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s, a, b := w.stack(stackIP, known), w.peer(peerIP), w.peer(otherIP)
				opts := follows(1)
				opts.Headers = []dialog.Header{{Name: "Authorization", Value: "Bearer of-a"}}
				l := w.calls(s, a, opts)
				a.challenge(l.invite, header)
				in := a.next("INVITE")
				require.Len(t, credentialsOf(in.Message), 2)
				a.reply(in, moved("<sip:b@10.0.0.8:5060>"))
				b.reply(b.next("INVITE"), dialogtest.Response{Code: 486, ToTag: "b"})
				<-l.d.Done()
				w.none(otherIP)
			})
		})
	}
}

// FX2: the peer of a call that it has placed gets no digest that it has not been
// sent before, whatever the request.
func TestAStrangerWhoCallsUsGetsNoDigest(t *testing.T) {
	ctx := context.Background()
	for _, header := range []string{asksServer, asksProxy, asksServer + `, algorithm=SHA-256, qop="auth"`} {
		bubble(t, func(t *testing.T, w *world) {
			var a asked
			s, p := w.stack(stackIP, a.config), w.peer(peerIP)
			l := w.incoming(s, p)
			for method, send := range map[string]func() error{
				"INVITE": func() error { return l.d.ReInvite(ctx, offer(offerSDP)) },
				"UPDATE": func() error { _, err := l.d.Update(ctx, nil); return err },
				"INFO":   func() error { return l.d.SendInfo(ctx, dialog.NewBody("text/plain", []byte("x"))) },
				"MESSAGE": func() error {
					return l.d.SendMessage(ctx, dialog.NewBody("text/plain", []byte("x")))
				},
				"REFER": func() error {
					require.NoError(t, l.d.Refer(ctx, uri("c", "10.0.0.3"), dialog.ReferOpts{}))
					_, err := l.d.WaitRefer(ctx)
					return err
				},
			} {
				result := began(send)
				p.challenge(p.next(method), header)
				var refused *dialog.ResponseError
				require.ErrorAs(t, <-result, &refused, method)
			}
			bye := began(func() error { return l.d.Bye(ctx, "") })
			p.challenge(p.next("BYE"), header)
			require.NoError(t, <-bye)
			<-l.d.Done()
			p.quiet("BYE", 0)
			w.none(peerIP)
			require.Zero(t, a.count(), "nobody is asked for a password")
		})
	}
}

// FX2: unless it has been sent these credentials before, or is the outbound proxy.
func TestACallerThatIsKnownGetsItsDigest(t *testing.T) {
	proxied := func(host string) func(*dialog.StackConfig) {
		return func(c *dialog.StackConfig) { c.OutboundProxy = &sip.Uri{Scheme: "sip", Host: host} }
	}
	for name, c := range map[string]struct {
		config  func(*dialog.StackConfig)
		before  string // the challenge to a REGISTER
		header  string
		expects int
	}{
		"registered":                   {known, asksServer, asksServer, 1},
		"registered, asks as a proxy":  {known, asksServer, asksProxy, 1},
		"was a proxy, asks as server":  {known, asksProxy, asksServer, 1},
		"registered for another realm": {known, `WWW-Authenticate: Digest realm="other", nonce="n1"`, asksServer, 0},
		"the outbound proxy":           {proxied(peerIP), "", asksProxy, 1},
		"the outbound proxy as server": {proxied(peerIP), "", asksServer, 1},
		"another outbound proxy":       {proxied(proxyIP), "", asksProxy, 0},
		"a stranger":                   {known, "", asksServer, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s, p := w.stack(stackIP, known, c.config), w.peer(peerIP)
				if c.before != "" {
					registered(t, s, p, c.before)
				}
				l := w.incoming(s, p)
				bye := began(func() error { return l.d.Bye(context.Background(), "") })
				p.challenge(p.next("BYE"), c.header)
				if c.expects > 0 {
					in := p.next("BYE")
					require.Len(t, credentialsOf(in.Message), c.expects)
					p.reply(in, dialogtest.Response{Code: 200})
				}
				require.NoError(t, <-bye)
				require.Len(t, w.sent(stackIP, "BYE"), 1+c.expects)
			})
		})
	}
}

// FX2: a user whose name the destination has not been sent is another one.
func TestACallerThatIsKnownGetsNoOtherUser(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var user = "alice"
		s, p := w.stack(stackIP, func(c *dialog.StackConfig) {
			c.Credentials = func(string) (string, string, bool) { return user, "secret", true }
		}), w.peer(peerIP)
		registered(t, s, p, asksServer)
		l := w.incoming(s, p)
		user = "admin"
		bye := began(func() error { return l.d.Bye(context.Background(), "") })
		p.challenge(p.next("BYE"), asksServer)
		require.NoError(t, <-bye)
		require.Empty(t, credentialsOf(w.one(stackIP, "BYE").msg))
	})
}

// FX2: a stranger behind a proxy that is known, or who puts himself before one.
func TestAStrangerOnTheWayGetsNoDigest(t *testing.T) {
	for name, c := range map[string]struct {
		routes, contact, header string
		expects                 int
	}{
		"behind the proxy":             {"<sip:10.0.0.9:5060;lr>", "<sip:x@10.0.0.66:5060>", asksServer, 0},
		"between two that are known":   {"<sip:10.0.0.9:5060;lr>, <sip:10.0.0.66:5060;lr>", "<sip:x@10.0.0.9:5060>", asksServer, 0},
		"before one that is known":     {"<sip:10.0.0.8:5060;lr>", "<sip:x@10.0.0.9:5060>", asksServer, 0},
		"as a proxy before it":         {"<sip:10.0.0.8:5060;lr>", "<sip:x@10.0.0.9:5060>", asksProxy, 0},
		"all are known":                {"<sip:10.0.0.9:5060;lr>", "<sip:x@10.0.0.9:5060>", asksServer, 1},
		"the proxy that is known asks": {"<sip:10.0.0.9:5060;lr>", "<sip:x@10.0.0.66:5060>", asksProxy, 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s, p, other := w.stack(stackIP, known), w.peer(peerIP), w.peer(otherIP)
				registered(t, s, p, asksServer)
				l := w.incoming(s, p, func(r *dialogtest.Request) {
					r.Headers = append(r.Headers, "Record-Route: "+c.routes, "Contact: "+c.contact)
				})
				bye := began(func() error { return l.d.Bye(context.Background(), "") })
				at := p
				if strings.Contains(c.routes, otherIP) {
					at = other
				}
				at.challenge(at.next("BYE"), c.header)
				if c.expects > 0 {
					at.reply(at.next("BYE"), dialogtest.Response{Code: 200})
				}
				require.NoError(t, <-bye)
				require.Len(t, w.sent(stackIP, "BYE"), 1+c.expects)
				w.none(otherIP)
			})
		})
	}
}

// FX2: nor does a referrer send us to a stranger to get it there.
func TestACallThatFollowsAREFERAnswersNoStranger(t *testing.T) {
	for _, knows := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			s, p, b := w.stack(stackIP, known), w.peer(peerIP), w.peer(otherIP)
			if knows {
				registered(t, s, b, asksServer)
			}
			calls := followsRefers(context.Background(), s, dialog.InviteOpts{})
			l := w.incoming(s, p)
			l.ask("REFER", withHeaders("Refer-To: <sip:b@10.0.0.8:5060>"))
			heard := make(chan []string, 1)
			go func() { list, _ := l.hears(); heard <- list }()
			in := b.next("INVITE")
			if knows {
				require.Len(t, credentialsOf(in.Message), 0, "another of our users")
				b.challenge(in, asksServer)
				b.reply(b.next("INVITE"), dialogtest.Response{Code: 486, ToTag: "b"})
			} else {
				b.challenge(in, asksServer)
			}
			require.Error(t, (<-calls).err)
			<-heard
			require.Len(t, w.sent(stackIP, "INVITE"), map[bool]int{false: 1, true: 2}[knows])
		})
	}
}

// FX2: the callback sees the challenge, and may say otherwise, in both directions.
func TestAuthenticateDecidesByTheWholeChallenge(t *testing.T) {
	ctx := context.Background()
	bubble(t, func(t *testing.T, w *world) {
		seen := make(chan dialog.Challenge, 10)
		s, p := w.stack(stackIP, func(c *dialog.StackConfig) {
			c.Credentials = func(string) (string, string, bool) { panic("not asked") }
			c.Authenticate = func(_ context.Context, challenge dialog.Challenge) (dialog.Credentials, bool) {
				seen <- challenge
				return dialog.Credentials{Username: "user", Password: "secret"}, challenge.Method != "OPTIONS"
			}
		}), w.peer(peerIP)
		l := w.incoming(s, p)
		bye := began(func() error { return l.d.Bye(ctx, "") })
		p.challenge(p.next("BYE"), `Proxy-Authenticate: Digest realm="provider", nonce="n", algorithm=SHA-256, qop="auth,auth-int", stale=true`)
		in := p.next("BYE")
		require.Len(t, values(in.Message, "Proxy-Authorization"), 1)
		p.reply(in, dialogtest.Response{Code: 200})
		require.NoError(t, <-bye)
		c := <-seen
		require.Equal(t, "sip:peer@10.0.0.9:5060", c.RequestURI.String())
		require.Equal(t, "sip:service@10.0.0.1:5060", c.From.URI.String())
		require.Same(t, l.d, c.Dialog)
		c.RequestURI, c.From, c.Dialog = sip.Uri{}, dialog.Address{}, nil
		require.Equal(t, dialog.Challenge{
			Realm: "provider", Proxy: true, Algorithm: "SHA-256", QOP: []string{"auth", "auth-int"}, Stale: true,
			Method: "BYE", Peer: p.Addr(), Transport: "UDP", Inbound: true,
		}, c)

		done := does(s, sip.OPTIONS, uri("", peerIP))
		p.challenge(p.next("OPTIONS"), asksServer)
		require.NoError(t, <-done)
		c = <-seen
		require.Nil(t, c.Dialog)
		require.False(t, c.Inbound || c.Referred || c.Proxy || c.Stale)
		require.True(t, c.Known, "it has been sent them")
		require.Equal(t, "MD5", c.Algorithm)
		require.Nil(t, c.QOP)
		require.Len(t, w.sent(stackIP, "OPTIONS"), 1)

		placed := w.calls(s, p, offer(offerSDP))
		p.challenge(placed.invite, asksServer)
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 486, ToTag: "x"})
		<-placed.d.Done()
		c = <-seen
		require.Same(t, placed.d, c.Dialog)
		require.False(t, c.Inbound)
	})
}

// The callback is the application's code: it may call everything, panic, end its
// goroutine, and take its time.
func TestAuthenticateIsCalledWithoutLocks(t *testing.T) {
	ctx := context.Background()
	for name, decide := range map[string]func(context.Context, dialog.Challenge) (dialog.Credentials, bool){
		"calls": func(_ context.Context, c dialog.Challenge) (dialog.Credentials, bool) {
			_, _, _ = c.Dialog.Info(), c.Dialog.Key(), c.Dialog.Close()
			return dialog.Credentials{}, true
		},
		"panics": func(context.Context, dialog.Challenge) (dialog.Credentials, bool) { panic("secret") },
		"waits": func(ctx context.Context, _ dialog.Challenge) (dialog.Credentials, bool) {
			<-ctx.Done()
			return dialog.Credentials{}, true
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s, p := w.stack(stackIP, func(c *dialog.StackConfig) { c.Authenticate = decide }), w.peer(peerIP)
				l := w.calls(s, p, offer(offerSDP))
				p.challenge(l.invite, asksServer)
				require.Error(t, l.d.WaitAnswer(ctx))
				<-l.d.Done()
				require.Len(t, w.sent(stackIP, "INVITE"), 1)
				require.Equal(t, name == "panics", s.Stats().Panics == 1)
			})
		})
	}
}

func TestLegacyDigestCanBeRefused(t *testing.T) {
	for _, refuse := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			s, p := w.stack(stackIP, known, func(c *dialog.StackConfig) { c.RefuseLegacyDigest = refuse }), w.peer(peerIP)
			l := w.calls(s, p, offer(offerSDP))
			p.challenge(l.invite, asksServer)
			if !refuse {
				p.reply(p.next("INVITE"), dialogtest.Response{Code: 486, ToTag: "x"})
			}
			var refused *dialog.ResponseError
			require.ErrorAs(t, l.d.WaitAnswer(context.Background()), &refused)
			require.Equal(t, map[bool]int{false: 486, true: 401}[refuse], refused.StatusCode)
		})
	}
}

// FX8: RFC 7616 3.4, for requests outside calls, calls, and requests in one call.
func TestNonceCountRisesAcrossRequestsChallengedAtOnce(t *testing.T) {
	const challenge = `WWW-Authenticate: Digest realm="provider", nonce="shared", qop="auth"`
	ctx := context.Background()
	for name, c := range map[string]struct {
		method string
		begin  func(s *dialog.Stack, l func() *peerCall) error
	}{
		"outside calls": {"OPTIONS", func(s *dialog.Stack, _ func() *peerCall) error {
			_, err := s.Do(ctx, sip.NewRequest(sip.OPTIONS, uri("", peerIP)))
			return err
		}},
		"calls": {"INVITE", func(s *dialog.Stack, _ func() *peerCall) error {
			d, err := s.NewInvite(ctx, uri("bob", peerIP), offer(offerSDP))
			if err == nil {
				_ = d.(*dialog.Dialog).WaitAnswer(ctx)
			}
			return err
		}},
		"in one call": {"INFO", func(_ *dialog.Stack, l func() *peerCall) error {
			_, err := l().d.Do(ctx, sip.NewRequest(sip.INFO, sip.Uri{}))
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s, p := w.stack(stackIP, known), w.peer(peerIP)
				call := func() *peerCall { return nil }
				if c.method == "INFO" {
					l := w.outgoing(s, p)
					call = func() *peerCall { return l }
				}
				var results []<-chan error
				for range 3 {
					results = append(results, began(func() error { return c.begin(s, call) }))
				}
				var in []dialogtest.Received
				for range 3 {
					in = append(in, p.next(c.method))
				}
				for _, i := range in {
					p.challenge(i, challenge)
				}
				var counts []int
				in = nil
				for range 3 {
					i := p.next(c.method)
					got, err := digest.ParseCredentials(values(i.Message, "Authorization")[0])
					require.NoError(t, err)
					counts, in = append(counts, got.Nc), append(in, i)
				}
				slices.Sort(counts) // they may overtake each other on the way
				require.Equal(t, []int{1, 2, 3}, counts)
				require.Equal(t, counts, w.counts(t, c.method))
				for _, i := range in { // all have come: a 404 ends the call
					p.reply(i, dialogtest.Response{Code: 404, ToTag: "x"})
				}
				for _, result := range results {
					require.NoError(t, <-result)
				}
				if c.method == "INFO" {
					<-call().d.Done() // 404 ends a call (RFC 5057 5.1)
				}
			})
		})
	}
}

// counts are the nonce counts of what the stack has sent, in that order.
func (w *world) counts(t *testing.T, method string) (counts []int) {
	t.Helper()
	for _, m := range w.sent(stackIP, method) {
		for _, value := range values(m.msg, "Authorization") {
			got, err := digest.ParseCredentials(value)
			require.NoError(t, err)
			counts = append(counts, got.Nc)
		}
	}
	return counts
}

// FX8: the counts rise in the order of sending, however many requests leave at once.
func TestNonceCountsRiseInTheOrderOfSending(t *testing.T) {
	const requests = 100
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP, known), w.peer(peerIP)
		registered(t, s, p, asksServer+`, qop="auth"`)
		var results []<-chan error
		for range requests {
			results = append(results, does(s, sip.REGISTER, uri("", peerIP)))
		}
		for range requests {
			p.reply(p.next("REGISTER"), dialogtest.Response{Code: 200, ToTag: "x"})
		}
		for _, result := range results {
			require.NoError(t, <-result)
		}
		counts := w.counts(t, "REGISTER")
		require.Len(t, counts, requests+1)
		require.True(t, slices.IsSorted(counts), "%v", counts)
	})
}

// A Trace that sends a request itself, and waits for it, keeps that back for a moment
// only.
func TestTraceMayWaitForARequestWithCredentials(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var s *dialog.Stack
		var nested atomic.Bool
		inner := make(chan error, 1)
		s, p := w.stack(stackIP, known, func(c *dialog.StackConfig) {
			c.Trace = func(e dialog.TraceEvent) {
				if e.Outbound && strings.Contains(string(e.Data), "nc=00000002") && nested.CompareAndSwap(false, true) {
					inner <- <-does(s, sip.REGISTER, uri("", peerIP))
				}
			}
		}), w.peer(peerIP)
		registered(t, s, p, asksServer+`, qop="auth"`)
		begin := time.Now()
		outer := does(s, sip.REGISTER, uri("", peerIP))
		for range 2 {
			p.reply(p.next("REGISTER"), dialogtest.Response{Code: 200, ToTag: "x"})
		}
		require.NoError(t, <-inner)
		require.NoError(t, <-outer)
		require.Less(t, time.Since(begin), time.Second)
	})
}

// Nothing that is logged tells the password, or what is computed of it.
func TestLogsTellNoCredentials(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var log lockedBuffer
		logger := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		s, p := w.stack(stackIP, known, func(c *dialog.StackConfig) { c.Slog = logger }), w.peer(peerIP)
		registered(t, s, p, asksServer)
		l := w.incoming(s, p)
		bye := began(func() error { return l.d.Bye(context.Background(), "") })
		p.challenge(p.next("BYE"), asksServer)
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
		require.NoError(t, <-bye)
		synctest.Wait()
		text := log.String()
		require.Contains(t, text, "credentials requested")
		for _, m := range w.sent(stackIP, "BYE") {
			for _, value := range credentialsOf(m.msg) {
				got, err := digest.ParseCredentials(value)
				require.NoError(t, err)
				require.NotContains(t, text, got.Response)
				require.NotContains(t, text, got.Nonce)
			}
		}
		require.NotContains(t, text, "secret of provider")
		c := dialog.Credentials{Username: "user", Password: "s3cret"}
		require.NotContains(t, fmt.Sprintf("%v %+v %s", c, c, c), "s3cret")
		logger.Info("x", "credentials", c)
		require.NotContains(t, log.String(), "s3cret")
	})
}

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(line)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

const challenge = `WWW-Authenticate: Digest realm="sip.example", nonce="n1", qop="auth", algorithm=SHA-256`
