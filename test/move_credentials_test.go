package test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/icholy/digest"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testcert"
	"sipdialog.example/dialog/internal/testkit"
)

const homeRealm = "home.example"

// alicesPhone is what a server knows of the peer of each call.
func alicesPhone(context.Context, *dialog.Dialog) (string, dialog.Credentials, bool) {
	return homeRealm, dialog.Credentials{Username: "alice", Password: "secret"}, true
}

// byCredentials has calls move by credentials only.
func byCredentials(c *dialog.StackConfig) {
	c.MoveFlow, c.MoveCredentials = dialog.MoveNever, alicesPhone
}

// hasPassword gives a phone credentials for the realm.
func hasPassword(password string) func(*dialog.StackConfig) {
	return func(c *dialog.StackConfig) {
		c.Credentials = func(realm string) (string, string, bool) { return "alice", password, realm == homeRealm }
	}
}

// guardedCall is a call of a scripted phone behind a router with a server that asks for
// credentials.
type guardedCall struct {
	*phoneCase
	server *dialog.Stack
	thief  *peer
	infos  atomic.Int32 // that were handled
}

func (w *world) guardedCall(change ...func(*dialog.StackConfig)) *guardedCall {
	w.t.Helper()
	g := &guardedCall{server: w.stack(serverIP, append([]func(*dialog.StackConfig){byCredentials}, change...)...), thief: w.peer(otherIP)}
	g.phoneCase = w.fromPhone(g.server)
	require.NoError(w.t, g.d.OnRequest("INFO", func(context.Context, *sip.Request) dialog.Answer {
		g.infos.Add(1)
		return dialog.Answer{}
	}))
	return g
}

// says has a peer send a request in the call, with the phone's next CSeq, and returns the
// response.
func (g *guardedCall) says(who *peer, method string, change ...func(*dialogtest.Request)) *sip.Response {
	g.t.Helper()
	require.NoError(g.t, who.Send(g.stack, who.Request(g.made(method, append([]func(*dialogtest.Request){withRport}, change...)...))))
	res := response(who.nextAny().Message)
	if method == "INVITE" && res.StatusCode == 100 {
		res = response(who.nextAny().Message)
	}
	return res
}

// login answers challenges.
type login struct {
	realm, user, password string
	algorithm             string
	count                 int
	legacy                bool // without qop
}

func alices() login {
	return login{realm: homeRealm, user: "alice", password: "secret", algorithm: "SHA-256", count: 1}
}

// authorization is the header that answers a 401.
func (l login) authorization(t *testing.T, method, uri string, res *sip.Response) func(*dialogtest.Request) {
	t.Helper()
	require.Equal(t, 401, res.StatusCode, res.String())
	c := &digest.Challenge{Realm: l.realm, Nonce: challengeIn(t, res).Nonce, Algorithm: l.algorithm, QOP: []string{"auth"}}
	if l.legacy {
		c.QOP = nil
	}
	cred, err := digest.Digest(c, digest.Options{Method: method, URI: uri, Username: l.user, Password: l.password, Count: l.count})
	require.NoError(t, err)
	return withHeaders("Authorization: " + cred.String())
}

// challengeIn reads the challenges of a 401, which are alike but for the algorithm.
func challengeIn(t *testing.T, res *sip.Response) *digest.Challenge {
	t.Helper()
	list := values(res, "WWW-Authenticate")
	require.Len(t, list, 2, res.String())
	var read []*digest.Challenge
	for i, algorithm := range []string{"SHA-256", "MD5"} {
		c, err := digest.ParseChallenge(list[i])
		require.NoError(t, err)
		require.Equal(t, algorithm, c.Algorithm)
		require.Equal(t, []string{"auth"}, c.QOP)
		read = append(read, c)
	}
	require.Equal(t, read[0].Nonce, read[1].Nonce)
	return read[0]
}

// staysAt checks that requests go where they went, and that the peer's are in order.
func (g *guardedCall) staysAt(want string) {
	g.t.Helper()
	res := g.says(g.peer, "MESSAGE")
	require.NotEqual(g.t, 500, res.StatusCode, "its CSeq is that of the peer's next request")
	require.Equal(g.t, want, g.byeTo())
}

// A phone of this package's that knows its password moves its call, over each transport,
// and notices nothing.
func TestAPhoneMovesItsCallByItsCredentials(t *testing.T) {
	for _, transport := range testkit.AllTransports() {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				ca, router := testcert.New(t), w.net.NAT(routerIP, dialogtest.NATConfig{RandomPorts: true, Filtering: dialogtest.AddressAndPortDependent})
				server := w.site(serverIP, transport, ca, byCredentials)
				phone := w.site(phoneIP, transport, ca, hasPassword("secret"), func(c *dialog.StackConfig) {
					c.Network, c.Transport.Address = router.Host(phoneIP), "0.0.0.0"
				})
				calls := server.takes(t)
				d, err := phone.NewInvite(context.Background(), server.uri("bob"), offer(offerSDP))
				require.NoError(t, err)
				call := d.(*dialog.Dialog)
				require.NoError(t, call.WaitAnswer(context.Background()))
				callee := <-calls
				for _, wait := range []time.Duration{0, 0, 2 * time.Minute} {
					time.Sleep(wait)
					before := callee.Flow()
					router.Forget()
					router.Host(phoneIP).BreakStreams()
					synctest.Wait()
					require.NoError(t, call.SendInfo(context.Background(), nil))
					require.False(t, before.Equal(callee.Flow()))
					require.NoError(t, callee.SendInfo(context.Background(), nil))
				}
				require.Equal(t, 2, len(server.messages(true, "401 INFO")), "at first, and when the nonce is old")
				require.NoError(t, call.ReInvite(context.Background(), offer(offerSDP)))
				require.Empty(t, server.messages(true, "401 INVITE"), "it has not moved")
				require.NoError(t, callee.Bye(context.Background(), ""))
				<-call.Done()
			})
		})
	}
}

// So does one that was called: it answers the realm that it has registered with, there.
func TestACalledPhoneMovesItsCallByItsCredentials(t *testing.T) {
	for _, transport := range []string{"udp", "tcp"} {
		bubble(t, func(t *testing.T, w *world) {
			ca, router := testcert.New(t), w.net.NAT(routerIP, dialogtest.NATConfig{RandomPorts: true, Filtering: dialogtest.AddressAndPortDependent})
			server := w.site(serverIP, transport, ca, byCredentials)
			phone := w.site(phoneIP, transport, ca, hasPassword("secret"), func(c *dialog.StackConfig) {
				c.Network, c.Transport.Address = router.Host(phoneIP), "0.0.0.0"
			})
			flows := make(chan *dialog.Flow, 1)
			require.NoError(t, server.OnRequest("REGISTER", func(ctx context.Context, req *sip.Request) dialog.Answer {
				if len(req.GetHeaders("Authorization")) == 0 {
					return dialog.Answer{Status: 401, Headers: []dialog.Header{{Name: "WWW-Authenticate", Value: `Digest realm="` + homeRealm + `", nonce="n"`}}}
				}
				flows <- dialog.FlowFrom(ctx)
				return dialog.Answer{}
			}))
			_, err := phone.Do(context.Background(), sip.NewRequest(sip.REGISTER, server.uri("")))
			require.NoError(t, err)
			calls, opts := phone.takes(t), offer(offerSDP)
			opts.Flow = <-flows
			d, err := server.NewInvite(context.Background(), uri("phone", phoneIP), opts)
			require.NoError(t, err)
			require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
			callee := <-calls
			router.Forget()
			router.Host(phoneIP).BreakStreams()
			synctest.Wait()
			require.NoError(t, callee.SendInfo(context.Background(), nil))
			require.Equal(t, 1, len(server.messages(true, "401 INFO")))
			require.NoError(t, d.Bye(context.Background(), ""))
			<-callee.Done()
		})
	}
}

// A party that knows the call, but not the password, moves nothing, changes nothing, and does
// not use up the peer's CSeq numbers.
func TestARequestWithoutCredentialsDoesNotMoveTheCall(t *testing.T) {
	for _, method := range []string{"INFO", "OPTIONS", "MESSAGE", "NOTIFY", "REFER", "SUBSCRIBE", "PRACK", "UPDATE", "INVITE"} {
		t.Run(method, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				g := w.guardedCall()
				want, told := g.seen(), 0
				g.d.OnBody(func(dialog.Body) { told++ })
				res := g.says(g.thief, method, withBody(offerSDP), func(r *dialogtest.Request) { r.CSeq = 1<<31 - 1 })
				require.False(t, challengeIn(t, res).Stale)
				if method == "INVITE" {
					r := g.made("ACK", func(r *dialogtest.Request) { r.CSeq = 1<<31 - 1 })
					require.NoError(t, g.thief.Send(g.stack, g.thief.Request(r)))
				}
				synctest.Wait()
				require.Zero(t, g.infos.Load())
				require.Zero(t, told)
				g.staysAt(want)
			})
		})
	}
}

// A BYE moves nothing, and whoever has lost its password must be rid of its call (RFC
// 3261 15); CANCEL and ACK cannot be asked for credentials (22.1).
func TestRequestsThatCannotBeChallengedTakeEffect(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		g := w.guardedCall()
		require.Equal(t, 200, g.says(g.thief, "BYE").StatusCode)
		synctest.Wait()
		require.Equal(t, dialog.DialogStateTerminated, g.d.State())
	})
	bubble(t, func(t *testing.T, w *world) {
		server, thief := w.stack(serverIP, byCredentials), w.peer(otherIP)
		_, p := w.scripted()
		l := w.rings(server, p, withRport, withHeaders(privateContact))
		require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
		l.final = l.next("200 INVITE")
		ack := l.made("ACK", withHeaders(privateContact))
		ack.CSeq = 1
		require.NoError(t, thief.Send(l.stack, thief.Request(ack)))
		synctest.Wait()
		l.quiet("200 INVITE", time.Minute) // it has been acknowledged
		require.NotEqual(t, otherIP, l.d.Flow().Remote().Addr().String())
		go func() { _ = l.d.Close() }()
		thief.quiet("BYE", time.Minute)
	})
}

// RFC 7616 3.4: credentials count only for a challenge of ours for this call.
func TestWrongCredentialsDoNotMoveTheCall(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*login)
		stale  bool
	}{
		"password":  {func(l *login) { l.password = "guess" }, false},
		"user":      {func(l *login) { l.user = "bob" }, false},
		"realm":     {func(l *login) { l.realm = "elsewhere" }, false},
		"algorithm": {func(l *login) { l.algorithm = "SHA-512" }, false},
		"no qop":    {func(l *login) { l.legacy = true }, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				g := w.guardedCall()
				want, wrong := g.seen(), alices()
				c.change(&wrong)
				first := g.says(g.thief, "INFO")
				again := g.says(g.thief, "INFO", wrong.authorization(t, "INFO", g.target, first))
				require.Equal(t, c.stale, challengeIn(t, again).Stale)
				require.NotEqual(t, challengeIn(t, first).Nonce, challengeIn(t, again).Nonce)
				require.Zero(t, g.infos.Load())
				g.staysAt(want)
			})
		})
	}
}

// So it is with a phone of this package's: it is told, and its call goes on.
func TestAPhoneWithAWrongPasswordKeepsItsCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		router := w.net.NAT(routerIP, dialogtest.NATConfig{RandomPorts: true})
		phone := w.behind(router, phoneIP, hasPassword("guess"))
		server := w.stack(serverIP, byCredentials)
		call, callee := w.established(phone, server)
		before := callee.Flow()
		router.Forget()
		var refused *dialog.ResponseError
		require.ErrorAs(t, call.SendInfo(context.Background(), nil), &refused)
		require.Equal(t, 401, refused.StatusCode)
		require.True(t, before.Equal(callee.Flow()))
		require.Equal(t, dialog.DialogStateEstablished, call.State())
		require.NoError(t, call.Bye(context.Background(), ""), "it gets rid of the call all the same")
		synctest.Wait()
		require.Equal(t, dialog.DialogStateTerminated, callee.State())
	})
}

// RFC 7616 3.3: who knows the password, but answers an old nonce, one of another call or
// one that was used, is asked once more, and says so only then.
func TestANonceIsGoodOnceAndForAMinute(t *testing.T) {
	for name, c := range map[string]struct {
		wait  time.Duration
		again bool // with what was used
		stale bool
	}{
		"at once": {0, false, false}, "in time": {time.Minute, false, false}, "too late": {time.Minute + time.Second, false, true},
		"again": {0, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				g := w.guardedCall()
				from := g.peer
				if c.again {
					from = g.thief
				} else {
					g.router.Forget()
				}
				res := g.says(from, "INFO")
				time.Sleep(c.wait)
				answer := alices().authorization(t, "INFO", g.target, res)
				if c.again { // the phone has answered, and the thief has read it
					require.Equal(t, 200, g.says(w.viaNAT(publicIP, 4711), "INFO", answer, withHeaders(privateContact)).StatusCode)
				}
				handled := g.infos.Load()
				res = g.says(from, "INFO", answer)
				if c.stale {
					require.True(t, challengeIn(t, res).Stale)
					require.Equal(t, handled, g.infos.Load())
					second := alices()
					second.algorithm = "MD5"
					res = g.says(from, "INFO", second.authorization(t, "INFO", g.target, res))
				}
				require.Equal(t, 200, res.StatusCode)
				require.Equal(t, handled+1, g.infos.Load())
				if !c.again {
					g.staysAt(g.seen())
				}
			})
		})
	}
}

// A nonce is used more than once as its counts rise; an older one is not used any more.
func TestTheUsesOfANonceAreCounted(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		g := w.guardedCall()
		old, res := g.says(g.thief, "INFO"), g.says(g.thief, "INFO")
		move := func(challenge *sip.Response, count, status int) {
			t.Helper()
			l := alices()
			l.count = count
			g.router.Forget()
			res := g.says(g.peer, "INFO", l.authorization(t, "INFO", g.target, challenge))
			require.Equal(t, status, res.StatusCode)
			if status == 401 {
				require.True(t, challengeIn(t, res).Stale)
			}
		}
		move(res, 1, 200)
		move(res, 3, 200)
		move(res, 2, 401)
		move(old, 9, 401)
		move(res, 4, 200)
		g.staysAt(g.seen())
	})
}

func TestANonceOfAnotherCallProvesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		g := w.guardedCall()
		l := w.incoming(g.server, w.viaNAT(publicIP, 4711), withRport, withHeaders(privateContact), func(r *dialogtest.Request) { r.CallID = "another" })
		thief := &guardedCall{phoneCase: &phoneCase{peerCall: l}}
		res := thief.says(g.thief, "INFO")
		require.True(t, challengeIn(t, g.says(g.thief, "INFO", alices().authorization(t, "INFO", g.target, res))).Stale)
		require.Zero(t, g.infos.Load())
		_ = l.d.Close()
	})
}

// A re-INVITE or UPDATE moves the call by its Contact, too, whoever the peer is, and
// whatever source it is sent from.
func TestATargetIsGuardedAsAFlowIs(t *testing.T) {
	for _, method := range []string{"INVITE", "UPDATE"} {
		for name, natted := range map[string]bool{"behind a NAT": true, "public": false} {
			t.Run(method+" "+name, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					server := w.stack(serverIP, byCredentials)
					contact := "Contact: <sip:peer@" + publicIP + ":31337>"
					if natted {
						contact = privateContact
					}
					p, elsewhere := w.viaNAT(publicIP, 31337), "Contact: <sip:peer@"+otherIP+">"
					g := &guardedCall{phoneCase: &phoneCase{peerCall: w.incoming(server, p, withRport, withHeaders(contact))}, server: server}
					res := g.says(p, method, withHeaders(elsewhere))
					require.NotEqual(t, otherIP, g.d.Info().RemoteTarget.Host)
					if method == "INVITE" {
						g.acknowledge(g.seq)
					}
					res = g.says(p, method, withHeaders(elsewhere), alices().authorization(t, method, g.target, res))
					require.Equal(t, 200, res.StatusCode)
					if method == "INVITE" {
						g.acknowledge(g.seq)
					}
					synctest.Wait()
					require.Equal(t, otherIP, g.d.Info().RemoteTarget.Host)
					res = g.says(p, method, withHeaders(elsewhere))
					require.Equal(t, 200, res.StatusCode, "it changes nothing")
					if method == "INVITE" {
						g.acknowledge(g.seq)
					}
					go func() { _ = g.d.Close() }()
					synctest.Wait()
				})
			})
		}
	}
}

// So it is when it says that it comes by a proxy: the Contact would be looked for then.
func TestAReInviteByAnUnknownProxyIsChallenged(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		g := w.guardedCall()
		want := g.seen()
		res := g.says(g.thief, "UPDATE", withHeaders("Via: SIP/2.0/UDP "+otherIP+";branch=z9hG4bK-proxy", privateContact))
		require.False(t, challengeIn(t, res).Stale)
		g.staysAt(want)
	})
}

// MoveSameAddress needs no credentials within the router's address.
func TestCredentialsAreNotAskedWhereThePolicyPermitsTheMove(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		g := w.guardedCall(func(c *dialog.StackConfig) { c.MoveFlow = dialog.MoveSameAddress })
		g.router.Forget()
		require.Equal(t, 200, g.says(g.peer, "INFO").StatusCode)
		require.Equal(t, 401, g.says(g.thief, "INFO").StatusCode)
		g.staysAt(g.seen())
	})
	_, err := dialog.NewStack(&dialog.StackConfig{MoveCredentials: alicesPhone})
	require.ErrorIs(t, err, dialog.ErrInvalidArgument)
}

// A peer without credentials is not asked, nor is the application more than once: its
// requests are handled as MoveFlow alone says, in their order.
func TestAPeerWithoutCredentialsIsNotChallenged(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		asked := 0
		g := w.guardedCall(func(c *dialog.StackConfig) {
			c.MoveCredentials = func(_ context.Context, d *dialog.Dialog) (string, dialog.Credentials, bool) {
				asked++
				time.Sleep(time.Second)
				_, _ = d.State(), d.Info()
				return "", dialog.Credentials{}, false
			}
		})
		want := g.seen()
		for range 3 {
			require.NoError(t, g.thief.Send(g.stack, g.thief.Request(g.made("INFO", withRport))))
		}
		for i := range uint32(3) {
			res := response(g.thief.next("200 INFO").Message)
			require.Equal(t, g.seq-2+i, res.CSeq().SeqNo)
		}
		require.EqualValues(t, 3, g.infos.Load())
		require.Equal(t, 1, asked)
		g.staysAt(want)
	})
}

// An application that does not say in time, or panics, or says what cannot be written,
// costs the request, not the call.
func TestAnApplicationThatDoesNotSayWhoThePeerIs(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		ask    func(ctx context.Context) string
	}{
		"panics":   {500, func(context.Context) string { panic("as a test") }},
		"too late": {504, func(ctx context.Context) string { <-ctx.Done(); return homeRealm }},
		"line":     {500, func(context.Context) string { return "a\r\nX: y" }},
	} {
		for _, method := range []string{"INFO", "INVITE"} {
			t.Run(name+" "+method, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					g := w.guardedCall(func(config *dialog.StackConfig) {
						config.MoveCredentials = func(ctx context.Context, _ *dialog.Dialog) (string, dialog.Credentials, bool) {
							realm := c.ask(ctx)
							return realm, dialog.Credentials{Username: "alice", Password: "secret"}, true
						}
					})
					want := g.seen()
					require.Equal(t, c.status, g.says(g.thief, method).StatusCode)
					g.staysAt(want)
				})
			})
		}
	}
}

// The end of the stack answers what waits for the application.
func TestShutdownEndsRequestsThatAwaitCredentials(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		g := w.guardedCall(func(c *dialog.StackConfig) {
			c.MoveCredentials = func(ctx context.Context, _ *dialog.Dialog) (string, dialog.Credentials, bool) {
				<-ctx.Done()
				return "", dialog.Credentials{}, false
			}
		})
		require.NoError(t, g.thief.Send(g.stack, g.thief.Request(g.made("INFO"))))
		synctest.Wait()
		done := began(func() error { return g.server.Shutdown(context.Background()) })
		g.reply(g.next("BYE"), dialogtest.Response{Code: 200})
		require.NoError(t, <-done)
		require.True(t, strings.HasPrefix(testkit.Describe(g.thief.nextAny().Message), "50"))
	})
}
