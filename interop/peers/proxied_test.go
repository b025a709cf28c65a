//go:build interop && linux

package peers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/kamailio"
	"sipdialog.example/dialog/register"
)

// passage is a feature that is tried through a proxy.
type passage struct {
	*scene
	proxy        *proxy
	over, result string
}

var (
	all     = []string{"udp", "tcp", "tls", "ws", "wss"}
	onlyUDP = all[:1]
)

var proxied = []struct {
	name string
	over []string
	run  func(*passage)
}{
	{"registration with digest, refreshed, queried, removed", all, registers},
	{"package register: kept, lost with the connection, renewed, called back", all[1:], staysRegistered},
	{"calls of two customers, INVITE with digest, Record-Route", all, customersCall},
	{"hold and resume from both sides", all, customersHold},
	{"CANCEL through the proxy", all, customerCancels},
	{"fork to three bindings: one answers, the others are cancelled", all, forkToOne},
	{"fork: all refuse", onlyUDP, forkToNone},
	{"fork: two answer at once", onlyUDP, forkToTwo},
	{"blind transfer through the proxy", onlyUDP, customersTransfer},
	{"attended transfer through the proxy", onlyUDP, customersConsult},
	{"the proxy is killed and started anew inside a call", all[:3], proxyRestarts},
	{"the same, one customer with a WebSocket", all[3:], proxyForgets},
	{"SRV: the first server is dead", all[:2], failsOver},
	{"a phone of baresip's, registered, calls and is called", all[:3], registersBaresip},
	{"a phone of linphone's, registered, calls and is called", all[:3], registersLinphone},
	{"a phone of Janus's, registered, calls and is called", all[:2], registersJanus},
}

// customer starts a stack that registers with the proxy.
func (c *passage) customer(host int, user string, change ...func(*dialog.StackConfig)) *station {
	c.t.Helper()
	st := c.station(host, user, listening(c.over), append(change, c.secure, c.proxy.customer(user, listening(c.over)), c.proxy.customer(user, c.over))...)
	c.registered(st, user, 600)
	return st
}

// registered registers a user for some seconds, and returns the 200.
func (c *passage) registered(st *station, user string, seconds int) *sip.Response {
	c.t.Helper()
	contact := sip.Uri{Scheme: "sip", User: user, UriParams: over(c.over)}
	return c.register(st, user, &sip.ContactHeader{Address: contact}, sip.NewHeader("Expires", fmt.Sprint(seconds)))
}

// register sends a REGISTER with these headers.
func (c *passage) register(st *station, user string, headers ...sip.Header) (res *sip.Response) {
	c.t.Helper()
	req := sip.NewRequest(sip.REGISTER, sip.Uri{Scheme: "sip", Host: c.proxy.ip})
	req.AppendHeader(&sip.FromHeader{Address: c.proxy.record(user), Params: sip.NewParams()})
	for _, h := range headers {
		req.AppendHeader(h)
	}
	c.try("registering", func(ctx context.Context) (err error) {
		for { // on a busy machine a connection may take longer than the library waits
			res, err = st.Do(ctx, req)
			if !errors.Is(err, dialog.ErrTransport) || ctx.Err() != nil {
				return err
			}
		}
	})
	require.Equal(c.t, 200, res.StatusCode, res.String())
	return res
}

func registers(c *passage) {
	st := c.customer(aliceHost, "alice")
	c.got("401 REGISTER")
	require.Contains(c.t, value(c.registered(st, "alice", 700), "Contact"), "alice@")
	require.Len(c.t, c.register(st, "alice").GetHeaders("Contact"), 1, "the refresh makes no second binding")
	require.Empty(c.t, c.registered(st, "alice", 0).GetHeaders("Contact"))
}

// staysRegistered lets package register notice that the proxy is gone, and has forgotten it.
func staysRegistered(c *passage) {
	alice := c.station(aliceHost, "alice", listening(c.over), c.secure, pinging,
		c.proxy.customer("alice", listening(c.over)), c.proxy.customer("alice", c.over))
	registered := make(chan struct{}, 100)
	registration, err := register.Start(alice.Stack, register.Options{
		Record: dialog.Address{URI: c.proxy.record("alice")}, RetryBase: time.Second, RetryMax: 2 * time.Second,
		OnState: func(status register.Status) {
			c.note("alice", status.State.String())
			if status.State == register.Registered {
				registered <- struct{}{}
			}
		},
	})
	require.NoError(c.t, err)
	c.waits(registered)
	c.proxy.restart()
	c.waits(registered)
	caller, callee := c.connected(c.customer(carolHost, "bob"), alice)
	c.try("hanging up", caller.Hangup)
	ended(c.t, callee, dialog.PartyRemote)
	c.try("taking the registration back", registration.Close)
}

// waits waits for a registration.
func (c *passage) waits(registered <-chan struct{}) {
	c.t.Helper()
	select {
	case <-registered:
	case <-time.After(soon):
		require.FailNow(c.t, "not registered")
	}
}

// connected lets a customer call another, which answers.
func (c *passage) connected(from, to *station) (caller, callee *dialog.Dialog) {
	c.t.Helper()
	caller = from.invite(c.proxy.record(to.name), dialog.InviteOpts{Body: from.session()})
	callee = to.rung()
	c.try("accepting", func(ctx context.Context) error { return callee.Accept(ctx, dialog.WithBody(to.session())) })
	c.try("being answered", caller.WaitAnswer)
	to.established(callee)
	return caller, callee
}

func customersCall(c *passage) {
	alice, bob := c.customer(aliceHost, "alice"), c.customer(carolHost, "bob")
	caller, callee := c.connected(alice, bob)
	require.NotEmpty(c.t, caller.Info().RouteSet, "the proxy stays in the call")
	c.try("hanging up", caller.Hangup)
	ended(c.t, callee, dialog.PartyRemote)
	caller, callee = c.connected(bob, alice)
	c.try("hanging up", callee.Hangup)
	ended(c.t, caller, dialog.PartyRemote)
}

func customersHold(c *passage) {
	caller, callee := c.connected(c.customer(aliceHost, "alice"), c.customer(carolHost, "bob"))
	c.talk(caller, callee)
	c.try("hanging up", callee.Hangup)
	ended(c.t, caller, dialog.PartyRemote)
}

// talk lets each end of a call hold and resume it.
func (c *passage) talk(ends ...*dialog.Dialog) {
	c.t.Helper()
	for _, d := range ends {
		c.try("holding", d.Hold)
		c.try("resuming", d.Resume)
	}
}

func customerCancels(c *passage) {
	alice, bob := c.customer(aliceHost, "alice"), c.customer(carolHost, "bob")
	caller := alice.invite(c.proxy.record("bob"), dialog.InviteOpts{Body: alice.session()})
	callee := bob.rung()
	c.got("180 INVITE", func(msg sip.Message) bool { return msg.CallID().Value() == caller.Key().CallID })
	c.try("hanging up", caller.Hangup)
	ended(c.t, callee, dialog.PartyRemote)
	require.Equal(c.t, "CANCEL", callee.Cause().Method)
}

// branches starts three stacks of one user, who is called, and waits until the caller hears
// all of them ring: Kamailio does not cancel a branch whose 180 comes with another's 200.
func (c *passage) branches() (caller *dialog.Dialog, phones []*station, ringing []*dialog.Dialog) {
	c.t.Helper()
	alice := c.customer(aliceHost, "alice")
	for host := carolHost; host < carolHost+3; host++ {
		phones = append(phones, c.customer(host, "bob"))
	}
	caller = alice.invite(c.proxy.record("bob"), dialog.InviteOpts{Body: alice.session()})
	for _, phone := range phones {
		ringing = append(ringing, phone.rung())
	}
	c.until("all three ring", func() bool {
		return c.countLocked("180 INVITE", func(m message) bool { return !m.sent && m.station == alice.name }) == len(phones)
	})
	return caller, phones, ringing
}

func forkToOne(c *passage) {
	caller, phones, ringing := c.branches()
	c.try("accepting", func(ctx context.Context) error {
		return ringing[1].Accept(ctx, dialog.WithBody(phones[1].session()))
	})
	c.try("being answered", caller.WaitAnswer)
	ended(c.t, ringing[0], dialog.PartyRemote)
	ended(c.t, ringing[2], dialog.PartyRemote)
	c.talk(caller, ringing[1])
	c.try("hanging up", ringing[1].Hangup)
	ended(c.t, caller, dialog.PartyRemote)
}

func forkToNone(c *passage) {
	caller, _, ringing := c.branches()
	for i, code := range []int{480, 486, 404} {
		c.try("refusing", func(ctx context.Context) error { return ringing[i].Reject(ctx, code, "") })
	}
	ended(c.t, caller, dialog.PartyRemote)
	require.Contains(c.t, []int{404, 480, 486}, caller.Cause().Status)
	c.result = fmt.Sprintf("%s: of 480, 486 and 404 the caller gets %d", works, caller.Cause().Status)
}

func forkToTwo(c *passage) {
	caller, phones, ringing := c.branches()
	var accepting sync.WaitGroup
	for _, i := range []int{0, 2} {
		accepting.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), soon)
			defer cancel()
			_ = ringing[i].Accept(ctx, dialog.WithBody(phones[i].session())) // the CANCEL may be faster
		})
	}
	accepting.Wait()
	c.try("being answered", caller.WaitAnswer)
	ended(c.t, ringing[1], dialog.PartyRemote)
	c.until("one of the two goes on", func() bool {
		return ringing[0].State() == dialog.DialogStateTerminated != (ringing[2].State() == dialog.DialogStateTerminated)
	})
	c.try("hanging up", caller.Hangup)
	ended(c.t, ringing[0], dialog.PartyRemote)
	ended(c.t, ringing[2], dialog.PartyRemote)
}

func customersTransfer(c *passage) {
	alice, bob, carol := c.customer(aliceHost, "alice"), c.customer(carolHost, "bob"), c.customer(carolHost+1, "carol")
	followed := bob.refers(c.scene)
	caller, _ := c.connected(alice, bob)
	c.try("referring", func(ctx context.Context) error {
		return caller.Refer(ctx, c.proxy.record("carol"), dialog.ReferOpts{})
	})
	target := carol.rung()
	c.try("accepting", func(ctx context.Context) error { return target.Accept(ctx, dialog.WithBody(carol.session())) })
	second := c.follows(followed)
	require.Equal(c.t, 200, c.outcome(caller))
	c.try("hanging up", caller.Hangup)
	c.talk(second, target)
	c.try("hanging up", second.Hangup)
	ended(c.t, target, dialog.PartyRemote)
}

func customersConsult(c *passage) {
	alice, bob, carol := c.customer(aliceHost, "alice"), c.customer(carolHost, "bob"), c.customer(carolHost+1, "carol")
	followed := bob.refers(c.scene)
	caller, _ := c.connected(alice, bob)
	c.try("holding", caller.Hold)
	consultation, there := c.connected(alice, carol)
	c.try("referring", func(ctx context.Context) error {
		return caller.ReferReplace(ctx, consultation, dialog.ReferOpts{})
	})
	target := carol.rung()
	require.Equal(c.t, there, target.Replaces())
	c.try("accepting", func(ctx context.Context) error { return target.Accept(ctx, dialog.WithBody(carol.session())) })
	second := c.follows(followed)
	require.Equal(c.t, 200, c.outcome(caller))
	ended(c.t, consultation, dialog.PartyRemote)
	c.try("hanging up", caller.Hangup)
	c.talk(second, target)
	c.try("hanging up", second.Hangup)
}

// pinging lets a stack notice that a connection is lost.
func pinging(config *dialog.StackConfig) { config.KeepAlive = 2 * time.Second }

func proxyRestarts(c *passage) {
	alice, bob := c.customer(aliceHost, "alice", pinging), c.customer(carolHost, "bob", pinging)
	caller, callee := c.connected(alice, bob)
	c.proxy.restart()
	for _, d := range []*dialog.Dialog{caller, callee} {
		c.try("a request after the restart", func(ctx context.Context) error { return d.SendInfo(ctx, nil) })
	}
	c.talk(caller, callee)
	c.try("hanging up", caller.Hangup)
	ended(c.t, callee, dialog.PartyRemote)
	c.again(alice, bob)
}

// again registers two customers anew with a proxy that has forgotten them. They call each
// other.
func (c *passage) again(alice, bob *station) {
	c.t.Helper()
	c.registered(alice, alice.name, 600)
	c.registered(bob, bob.name, 600)
	caller, callee := c.connected(bob, alice)
	c.try("hanging up", callee.Hangup)
	ended(c.t, caller, dialog.PartyRemote)
}

// proxyForgets lets a proxy lose the connection of one customer. A WebSocket client accepts no
// connections: its next re-INVITE tells the proxy, and the other customer, its new address.
func proxyForgets(c *passage) {
	alice := c.customer(aliceHost, "alice", pinging)
	plain := *c
	plain.over = "udp"
	bob := plain.customer(carolHost, "bob")
	caller, callee := c.connected(alice, bob)
	c.proxy.restart()
	c.talk(caller, callee)
	c.try("hanging up", callee.Hangup)
	ended(c.t, caller, dialog.PartyRemote)
	c.registered(alice, "alice", 600)
	plain.registered(bob, "bob", 600)
	caller, callee = c.connected(bob, alice)
	c.try("hanging up", callee.Hangup)
	ended(c.t, caller, dialog.PartyRemote)
}

// failsOver registers and calls by a name with two servers, of which the first does not
// answer.
func failsOver(c *passage) {
	dead, service := c.address(carolHost+5, "dead"), "_sip._"+c.over+".proxy.example."
	names := nameServer(c.t, []dns.RR{
		&dns.SRV{Hdr: header(service, dns.TypeSRV), Priority: 1, Port: 5060, Target: "one.proxy.example."},
		&dns.SRV{Hdr: header(service, dns.TypeSRV), Priority: 2, Port: 5060, Target: "two.proxy.example."},
		&dns.A{Hdr: header("one.proxy.example.", dns.TypeA), A: net.ParseIP(dead)},
		&dns.A{Hdr: header("two.proxy.example.", dns.TypeA), A: net.ParseIP(c.proxy.ip)},
	})
	named := func(config *dialog.StackConfig) {
		config.Resolver = names
		config.TxTimeout = 5 * time.Second // after which a silent server is dead
		config.OutboundProxy = &sip.Uri{Scheme: "sip", Host: "proxy.example", UriParams: append(over(c.over), sip.HeaderParams{{K: "lr"}}...)}
	}
	bob := c.customer(carolHost, "bob")
	alice := c.station(aliceHost, "alice", c.over, c.secure, c.proxy.customer("alice", c.over), named)
	c.registered(alice, "alice", 600)
	caller, callee := c.connected(alice, bob)
	c.talk(caller, callee)
	c.try("hanging up", caller.Hangup)
	ended(c.t, callee, dialog.PartyRemote)
}

// customerPhone is a phone that can be bob, a customer of the proxy.
type customerPhone interface {
	phone
	// call calls by an address of record.
	call(record string)
}

// phoneRegisters lets a phone that shares no code with the library be the other customer.
// start returns it when it is registered.
func phoneRegisters(c *passage, start func() customerPhone) {
	c.t.Helper()
	alice, phone := c.customer(aliceHost, "alice"), start()
	d := alice.invite(c.proxy.record("bob"), dialog.InviteOpts{Body: alice.session()})
	phone.rings()
	phone.answer()
	c.try("being answered", d.WaitAnswer)
	c.talk(d)
	phone.hangup()
	ended(c.t, d, dialog.PartyRemote)

	uri := c.proxy.record("alice")
	phone.call(uri.String())
	d = alice.rung()
	c.try("accepting", func(ctx context.Context) error { return d.Accept(ctx, dialog.WithBody(alice.session())) })
	alice.established(d)
	phone.hold()
	hold, _ := c.got("INVITE", func(req sip.Message) bool { return body("a=sendonly")(req) || body("a=inactive")(req) })
	c.got("ACK", func(ack sip.Message) bool { return ack.CSeq().SeqNo == hold.CSeq().SeqNo })
	phone.resume()
	c.got("ACK", func(ack sip.Message) bool { return ack.CSeq().SeqNo > hold.CSeq().SeqNo })
	c.try("hanging up", d.Hangup)
}

func registersBaresip(c *passage) {
	needs(c, "baresip")
	account := fmt.Sprintf("<sip:bob@%s>;auth_user=bob;auth_pass=bob;regint=60;answermode=manual;outbound=\"sip:%[1]s:%[2]d;transport=%[3]s\"",
		c.proxy.ip, kamailio.Port(c.over), c.over)
	phoneRegisters(c, func() customerPhone {
		phone := baresips(c.scene, peerHost, c.over, account)
		phone.event("REGISTER_OK")
		return phone
	})
}

func registersLinphone(c *passage) {
	needs(c, "linphonec")
	phoneRegisters(c, func() customerPhone {
		proxy := c.proxy.uri("", c.over)
		return linphoneCustomer(c.scene, c.over, "bob", c.proxy.ip, proxy, "reg_route=<"+proxy.String()+";lr>")
	})
}

func registersJanus(c *passage) {
	needs(c, "janus")
	proxy := c.proxy.uri("", c.over)
	phoneRegisters(c, func() customerPhone {
		return startJanus(c.t).phone(c.scene, c.over, "sip:bob@"+c.proxy.ip, "bob", proxy.String())
	})
}

// needs skips what needs a program that is not there.
func needs(c *passage, program string) {
	if _, err := exec.LookPath(program); err != nil {
		c.t.Skip(program + " is not installed")
	}
}
