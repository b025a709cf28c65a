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

// Where a router, a phone behind it and a server outside live.
const (
	routerIP = "203.0.113.1"
	phoneIP  = "192.168.0.2"
	serverIP = "198.51.100.1"
)

// behind starts a stack on a host behind a router, bound to all its addresses as a
// phone is.
func (w *world) behind(r *dialogtest.NAT, ip string, change ...func(*dialog.StackConfig)) *dialog.Stack {
	w.t.Helper()
	r.Inside().Tap(w.tap)
	return w.stack(ip, append([]func(*dialog.StackConfig){func(c *dialog.StackConfig) {
		c.Network, c.Transport.Address = r.Host(ip), "0.0.0.0"
	}}, change...)...)
}

// FN1: RFC 3581 3: an INVITE over UDP is repeated while it rings, so that the router
// still knows the way back when the callee answers.
func TestACallThatRingsLongerThanTheRouterRemembersIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		phone := w.behind(w.net.NAT(routerIP, dialogtest.NATConfig{}), phoneIP)
		server := w.stack(serverIP)
		ringing := waiting(server)
		d, err := phone.NewInvite(context.Background(), uri("bob", serverIP), offer(offerSDP))
		require.NoError(t, err)
		callee := <-ringing
		time.Sleep(105 * time.Second)
		require.NoError(t, callee.Accept(context.Background(), withSDP(answerSDP)))
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		require.Len(t, times(w.sent(phoneIP, "INVITE")), 6, "one every 20 s")
		require.NoError(t, callee.Bye(context.Background(), ""))
		<-d.(*dialog.Dialog).Done()
	})
}

// FN1: a router that forgets sooner than the INVITE is repeated: the answer goes where
// the repetition comes from (RFC 3581 4).
func TestAnAnswerGoesWhereTheInviteComesFromInTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		phone := w.behind(w.net.NAT(routerIP, dialogtest.NATConfig{
			BindingTime: 5 * time.Second, RandomPorts: true, Filtering: dialogtest.AddressAndPortDependent,
		}), phoneIP)
		server := w.stack(serverIP)
		ringing := waiting(server)
		d, err := phone.NewInvite(context.Background(), uri("bob", serverIP), offer(offerSDP))
		require.NoError(t, err)
		callee := <-ringing
		time.Sleep(8 * time.Second)
		require.NoError(t, callee.Accept(context.Background(), withSDP(answerSDP)))
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		require.NoError(t, callee.Bye(context.Background(), ""))
		<-d.(*dialog.Dialog).Done()
	})
}

// phoneCase is a scripted phone behind a router, in a call with a stack outside.
type phoneCase struct {
	*peerCall
	router *dialogtest.NAT
}

var privateContact = "Contact: <sip:peer@" + phoneIP + ":5060>"

// scripted binds a scripted phone behind a router that takes another port each time.
func (w *world) scripted() (*dialogtest.NAT, *peer) {
	w.t.Helper()
	r := w.net.NAT(routerIP, dialogtest.NATConfig{RandomPorts: true, Filtering: dialogtest.AddressAndPortDependent})
	e, err := dialogtest.NewEndpoint(r.Host(phoneIP), phoneIP+":5060")
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = e.Close() })
	return r, &peer{Endpoint: e, t: w.t, ip: phoneIP}
}

// fromPhone is a call that the phone has made.
func (w *world) fromPhone(b *dialog.Stack, headers ...string) *phoneCase {
	w.t.Helper()
	r, p := w.scripted()
	return &phoneCase{w.incoming(b, p, withRport, withHeaders(append(headers, privateContact)...)), r}
}

// withRport has a request answered where it comes from (RFC 3581).
func withRport(r *dialogtest.Request) { r.Branch = "z9hG4bK" + dialog.TagGen() + ";rport" }

// seen is where the phone is seen now.
func (c *phoneCase) seen() string {
	c.t.Helper()
	public, ok := c.router.Binding(c.Addr(), c.stack)
	require.True(c.t, ok)
	return public.String()
}

// byeTo is where the stack's BYE goes.
func (c *phoneCase) byeTo() string {
	c.t.Helper()
	result := began(func() error { return c.d.Bye(context.Background(), "") })
	synctest.Wait()
	bye := c.w.last(serverIP, "BYE")
	<-result // no response
	return bye.to.String()
}

// FN2: the way to a callee behind a NAT is that of its latest response.
func TestACalleeThatAnswersByANewBindingIsReachedThere(t *testing.T) {
	for _, again := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			server := w.stack(serverIP)
			r, p := w.scripted()
			require.NoError(t, p.Send(server.Addr(), "\r\n\r\n")) // as a registered phone does
			public, _ := r.Binding(p.Addr(), server.Addr())
			d, err := server.NewInvite(context.Background(), testkit.URIOver("udp", "peer", public), offer(offerSDP))
			require.NoError(t, err)
			invite := p.next("INVITE")
			p.reply(invite, dialogtest.Response{Code: 180, ToTag: farTag, Headers: []string{privateContact}})
			ok := dialogtest.Response{Code: 200, ToTag: farTag, Headers: []string{privateContact}, Body: answerSDP}
			if again { // the first 200 comes by the old way, and the ACK to it gets lost
				p.reply(invite, ok)
				synctest.Wait()
				p.next("ACK")
			}
			r.Forget()
			p.reply(invite, ok)
			p.next("ACK")
			l := &peerCall{peer: p, w: w, d: d.(*dialog.Dialog)}
			require.NoError(t, l.d.WaitAnswer(context.Background()))
			result := began(func() error { return l.d.Bye(context.Background(), "") })
			p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
			require.NoError(t, <-result)
		})
	}
}

// FN5: what is still to be said to an INVITE follows its sender: the 200 that no ACK has
// come for, and the answer of a call that rings.
func TestAnswersFollowAPhoneToItsNewBinding(t *testing.T) {
	for _, ringing := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			b := w.stack(serverIP)
			r, p := w.scripted()
			l := w.rings(b, p, withRport, withHeaders(privateContact))
			if !ringing {
				require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
				p.next("200 INVITE")
			}
			r.Forget() // and the ACK gets lost
			l.ask("INFO", withRport)
			if ringing {
				require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
			}
			l.final = p.next("200 INVITE")
			l.acknowledge(1)
			synctest.Wait()
			require.Equal(t, (&phoneCase{l, r}).seen(), (&phoneCase{l, r}).byeTo())
		})
	}
}

// FN5: any request that is in order for its call moves the way to a peer behind a NAT;
// one that is not moves nothing.
func TestAnyRequestInOrderMovesTheWayToAPhone(t *testing.T) {
	for _, method := range []string{"INFO", "OPTIONS", "MESSAGE", "NOTIFY"} {
		t.Run(method, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				c := w.fromPhone(w.stack(serverIP))
				c.router.Forget()
				c.ask(method, withRport)
				synctest.Wait()
				require.Equal(t, c.seen(), c.byeTo())
			})
		})
	}
	spoofed := map[string]func(*dialogtest.Request){
		"old":       func(r *dialogtest.Request) { r.CSeq = 1 },
		"other tag": func(r *dialogtest.Request) { r.FromTag = "guessed" },
	}
	for name, change := range spoofed {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				c, thief := w.fromPhone(w.stack(serverIP)), w.peer(otherIP)
				require.NoError(t, thief.Send(c.stack, thief.Request(c.made("INFO", change))))
				thief.nextAny()
				require.Equal(t, c.seen(), c.byeTo())
			})
		})
	}
}

func TestThePolicyKeepsTheWayToAPhone(t *testing.T) {
	for policy, moves := range map[dialog.MovePolicy][2]bool{
		dialog.MoveInOrder:     {true, true},
		dialog.MoveSameAddress: {true, false},
		dialog.MoveNever:       {false, false},
	} {
		for i, ip := range []string{publicIP, otherIP} {
			bubble(t, func(t *testing.T, w *world) {
				b := w.stack(stackIP, func(c *dialog.StackConfig) { c.MoveFlow = policy })
				l, moved := w.incoming(b, w.viaNAT(publicIP, 31337), withHeaders(privateContact)), w.viaNAT(ip, 4711)
				require.NoError(t, moved.Send(l.stack, moved.Request(l.made("OPTIONS"))))
				moved.next("200 OPTIONS")
				want := l.Addr()
				if moves[i] {
					want = moved.Addr()
				}
				require.Equal(t, want, l.ends().to)
			})
		}
	}
	_, err := dialog.NewStack(&dialog.StackConfig{MoveFlow: 7})
	require.ErrorIs(t, err, dialog.ErrInvalidArgument)
}

// FN4: requests to a silent phone do not go to its private address, which here belongs to
// another host; FN6: nor by TCP to its router, however long the request is.
func TestAPhoneThatIsSilentIsNotLookedForElsewhere(t *testing.T) {
	for _, size := range []int{10, 3000} {
		bubble(t, func(t *testing.T, w *world) {
			server := w.stack(serverIP, func(c *dialog.StackConfig) { c.TxTimeout = 10 * time.Second })
			c := w.fromPhone(server)
			c.router.Forget()
			began := time.Now()
			err := c.d.SendInfo(context.Background(), dialog.NewBody("text/plain", make([]byte, size)))
			require.ErrorIs(t, err, dialog.ErrTimeout)
			require.Equal(t, 10*time.Second, time.Since(began))
			<-c.d.Done()
			require.Equal(t, dialog.PartyTimeout, c.d.Cause().By)
			for _, m := range w.sent(serverIP, "INFO") {
				require.Equal(t, routerIP, m.to.Addr().String())
			}
		})
	}
}

// okTo is a 200 that repeats what it has to.
func okTo(req *sip.Request) string {
	lines := []string{"SIP/2.0 200 OK"}
	for _, name := range []string{"Via", "From", "To", "Call-ID", "CSeq"} {
		lines = append(lines, req.GetHeader(name).String())
	}
	return strings.Join(append(lines, "Content-Length: 0"), "\r\n") + "\r\n\r\n"
}

// FN5: what the application is still deciding is answered where the peer is by then, and
// the call stays there.
func TestTheAnswerToAReInviteFollowsThePhone(t *testing.T) {
	for _, method := range []string{"INVITE", "UPDATE"} {
		t.Run(method, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				c := w.fromPhone(w.stack(serverIP))
				decide := make(chan struct{})
				c.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
					<-decide
					return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
				})
				c.ask(method, withRport, withHeaders(privateContact), withBody(offerSDP))
				seq := c.seq
				synctest.Wait()
				c.router.Forget()
				c.ask("INFO", withRport, withHeaders(privateContact))
				c.next("200 INFO")
				close(decide)
				c.next("200 " + method)
				require.Equal(t, c.seen(), c.d.Flow().Remote().String())
				if method == "INVITE" {
					c.acknowledge(seq)
				}
				synctest.Wait()
				require.Equal(t, c.seen(), c.byeTo())
			})
		})
	}
}
