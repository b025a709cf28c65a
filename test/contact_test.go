package test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testcert"
	"sipdialog.example/dialog/internal/testkit"
)

// contactsAsked has the stack send a re-INVITE, an UPDATE or a REFER, which
// the peer takes, and returns their Contacts.
func (l *peerCall) contactsAsked(methods ...string) []string {
	l.t.Helper()
	var contacts []string
	for _, method := range methods {
		done := began(func() error {
			switch method {
			case "INVITE":
				return l.d.ReInvite(context.Background(), offer(offerSDP))
			case "UPDATE":
				_, err := l.d.Update(context.Background(), nil)
				return err
			default:
				return l.d.Refer(context.Background(), uri("carol", otherIP), dialog.ReferOpts{NoReferSub: true})
			}
		})
		req := l.next(method)
		contacts = append(contacts, testkit.Value(req.Message, "Contact"))
		r := dialogtest.Response{Code: 200, Headers: []string{"Refer-Sub: false"}}
		if method == "INVITE" {
			r.Body = answerSDP
		}
		l.reply(req, r)
		require.NoError(l.t, <-done)
	}
	synctest.Wait()
	return contacts
}

// contactsAnswered has the peer send requests, and returns the Contacts of the answers.
func (l *peerCall) contactsAnswered(methods ...string) []string {
	l.t.Helper()
	var contacts []string
	for _, method := range methods {
		switch method {
		case "INVITE":
			l.ask(method, withBody(offerSDP))
		case "REFER":
			l.ask(method, withHeaders("Refer-To: <sip:carol@"+otherIP+">", "Refer-Sub: false"))
		default:
			l.ask(method)
		}
		contacts = append(contacts, testkit.Value(l.peer.final(method), "Contact"))
		if method == "INVITE" {
			l.acknowledge(l.seq)
		}
	}
	return contacts
}

func repeated(value string, times int) []string {
	list := make([]string, times)
	for i := range list {
		list[i] = value
	}
	return list
}

// FD6. RFC 6141 4.5: where the application says that it is, it is in all that follows.
func TestContactSetInAcceptIsOursFromThereOn(t *testing.T) {
	mine := sip.Uri{Scheme: "sip", User: "line1", Host: stackIP, Port: 5060, UriParams: sip.HeaderParams{{K: "x", V: "y"}}}
	const wanted = "<sip:line1@" + stackIP + ":5060;x=y>"
	for name, c := range map[string]struct {
		opt  dialog.ResponseOpt
		want string
	}{
		"appended":          {func(res *sip.Response) { res.AppendHeader(&sip.ContactHeader{Address: mine}) }, wanted},
		"appended, plain":   {func(res *sip.Response) { res.AppendHeader(sip.NewHeader("contact", wanted)) }, wanted},
		"appended, compact": {func(res *sip.Response) { res.AppendHeader(sip.NewHeader("m", wanted)) }, wanted},
		"prepended":         {func(res *sip.Response) { res.PrependHeader(&sip.ContactHeader{Address: mine}) }, wanted},
		"replaced":          {func(res *sip.Response) { res.ReplaceHeader(&sip.ContactHeader{Address: mine}) }, wanted},
		"removed, then added": {func(res *sip.Response) {
			res.RemoveHeader("Contact")
			res.AppendHeader(&sip.ContactHeader{Address: mine})
		}, wanted},
		"changed":            {func(res *sip.Response) { res.Contact().Address = mine }, wanted},
		"WithContacts":       {dialog.WithContacts(mine), wanted},
		"WithHeader":         {dialog.WithHeader("Contact", wanted), wanted},
		"with parameters":    {dialog.WithHeader("m", `"Line 1" <sip:line1@`+stackIP+`>;+sip.instance="<urn:uuid:1>"`), `"Line 1" <sip:line1@` + stackIP + `>;+sip.instance="<urn:uuid:1>"`},
		"not at all":         {func(*sip.Response) {}, "<sip:service@" + stackIP + ":5060>"},
		"removed":            {func(res *sip.Response) { res.RemoveHeader("Contact") }, "<sip:service@" + stackIP + ":5060>"},
		"the same once more": {func(res *sip.Response) { res.AppendHeader(sip.HeaderClone(res.Contact())) }, "<sip:service@" + stackIP + ":5060>"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := w.peer(peerIP)
				l := w.rings(w.stack(stackIP), p)
				require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP), c.opt))
				require.Equal(t, []string{c.want}, values(p.next("200 INVITE").Message, "Contact"))
				l.acknowledge(1)
				synctest.Wait()
				require.Equal(t, repeated(c.want, 4), l.contactsAnswered("INVITE", "UPDATE", "REFER", "INVITE"))
				require.Equal(t, repeated(c.want, 3), l.contactsAsked("INVITE", "UPDATE", "REFER"))
				l.hangUp(p)
			})
		})
	}
}

func TestContactSetInAProvisionalIsOursFromThereOn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.rings(w.stack(stackIP), p)
		const wanted = "<sip:line1@" + stackIP + ":5060>"
		require.NoError(t, l.d.Provisional(context.Background(), 183, "", dialog.WithHeader("Contact", wanted)))
		require.Equal(t, []string{wanted}, values(p.next("183 INVITE").Message, "Contact"))
		require.NoError(t, l.d.Provisional(context.Background(), 182, ""))
		require.Equal(t, []string{wanted}, values(p.next("182 INVITE").Message, "Contact"))
		l.accepted()
		require.Equal(t, []string{wanted}, values(l.final.Message, "Contact"))
		require.Equal(t, repeated(wanted, 3), l.contactsAnswered("INVITE", "UPDATE", "REFER"))
		l.hangUp(p)
	})
}

func TestContactOfInviteOptsIsOursFromThereOn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		mine := uri("line1", stackIP)
		opts := offer(offerSDP)
		opts.Contact = &mine
		l := w.calls(w.stack(stackIP), p, opts)
		const wanted = "<sip:line1@" + stackIP + ":5060>"
		require.Equal(t, wanted, testkit.Value(l.invite.Message, "Contact"))
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		synctest.Wait()
		require.Equal(t, repeated(wanted, 3), l.contactsAnswered("INVITE", "UPDATE", "REFER"))
		require.Equal(t, repeated(wanted, 3), l.contactsAsked("INVITE", "UPDATE", "REFER"))

		// RFC 6141 4.4: a re-INVITE moves it.
		moved := uri("line2", stackIP)
		opts.Contact = &moved
		done := began(func() error { return l.d.ReInvite(context.Background(), opts) })
		re := p.next("INVITE")
		const then = "<sip:line2@" + stackIP + ":5060>"
		require.Equal(t, then, testkit.Value(re.Message, "Contact"))
		p.reply(re, dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, <-done)
		require.Equal(t, repeated(then, 2), l.contactsAnswered("INVITE", "UPDATE"))
		l.hangUp(p)
	})
}

// A Contact that cannot be a target is refused before anything is sent, and the call can still
// be answered.
func TestContactThatIsNoTargetIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.rings(w.stack(stackIP), p)
		for _, bad := range []dialog.ResponseOpt{
			dialog.WithContacts(uri("a", stackIP), uri("b", stackIP)), dialog.WithHeader("Contact", "<sip:a@h>, <sip:b@h>"),
			dialog.WithHeader("Contact", "*"), dialog.WithHeader("Contact", "<sip:a@h>, <tel:+431>"), dialog.WithHeader("Contact", "<tel:+431>"), dialog.WithHeader("Contact", "<"),
		} {
			require.ErrorIs(t, l.d.Accept(context.Background(), withSDP(answerSDP), bad), dialog.ErrInvalidArgument)
			require.ErrorIs(t, l.d.Provisional(context.Background(), 183, "", bad), dialog.ErrInvalidArgument)
		}
		l.accepted()
		require.Equal(t, "<sip:service@"+stackIP+":5060>", testkit.Value(l.final.Message, "Contact"))
		l.hangUp(p)
	})
}

// A redirection names others: what it says is not ours.
func TestContactsOfARedirectionAreManyAndAny(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.rings(w.stack(stackIP), p)
		require.NoError(t, l.d.RejectWith(context.Background(), 302, "", dialog.WithContacts(uri("a", otherIP), uri("b", otherIP)), dialog.WithHeader("X-Why", "moved")))
		require.Len(t, values(p.final("INVITE"), "Contact"), 2)
	})
}

// FD7. RFC 3261 12.1.1, RFC 7118 5.2: what is called as sip: answers as sip:, and says
// over what.
func TestContactOfASIPCallIsASIPURI(t *testing.T) {
	ca := testcert.New(t)
	for transport, want := range map[string]string{"udp": "", "tcp": ";transport=tcp", "tls": ";transport=tls", "ws": ";transport=ws", "wss": ";transport=ws"} {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b := w.site("10.0.0.1", transport, ca), w.site("10.0.0.2", transport, ca)
				a.follows(t)
				b.follows(t)
				target := b.uri("bob")
				target.Scheme = "sip"
				caller, callee := a.call(t, target, b.takes(t))
				require.NoError(t, callee.ReInvite(context.Background(), offer(offerSDP)))
				_, err := caller.Update(context.Background(), nil)
				require.NoError(t, err)
				converse(t, caller, callee, true)
				checked := 0
				for _, s := range []*site{a, b} {
					for _, m := range s.messages(true, "") {
						contact := testkit.Value(m.msg, "Contact")
						if contact == "" {
							continue
						}
						checked++
						require.True(t, strings.HasPrefix(contact, "<sip:"), "%s", m.Data)
						require.True(t, strings.HasSuffix(contact, want+">"), "%s", m.Data)
						require.Equal(t, want != "", strings.Contains(contact, "transport="), "%s", m.Data)
					}
				}
				require.Greater(t, checked, 10)
			})
		})
	}
}

// Where the far side asks for TLS on each hop our Contact has to be a SIPS URI.
func TestContactIsASIPSURIWhereTheRFCAsksForIt(t *testing.T) {
	const secure, plain = "<sips:", "<sip:"
	for name, c := range map[string]struct {
		uri     string
		headers []string
		want    string
	}{
		"Request-URI":            {"sips:service@" + stackIP, nil, secure},
		"Contact":                {"sip:service@" + stackIP, []string{"Contact: <sips:p@" + peerIP + ">"}, secure},
		"top Record-Route":       {"sip:service@" + stackIP, []string{"Record-Route: <sips:" + peerIP + ";lr>, <sip:" + otherIP + ";lr>"}, secure},
		"lower Record-Route":     {"sip:service@" + stackIP, []string{"Record-Route: <sip:" + peerIP + ";lr>, <sips:" + otherIP + ";lr>"}, plain},
		"To and From only":       {"sip:service@" + stackIP, []string{"Referred-By: <sips:boss@" + otherIP + ">"}, plain},
		"nothing":                {"sip:service@" + stackIP, nil, plain},
		"a call by a proxy":      {"sip:service@" + stackIP, []string{"Record-Route: <sip:" + peerIP + ";transport=tls;lr>"}, plain},
		"Request-URI by a proxy": {"sips:service@" + stackIP, []string{"Record-Route: <sip:" + peerIP + ";lr>"}, secure},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := w.peer(peerIP)
				l := w.incoming(w.stack(stackIP), p, withHeaders(c.headers...), func(r *dialogtest.Request) { r.URI = c.uri })
				for _, what := range []string{"180 INVITE", "200 INVITE"} {
					require.Equal(t, c.want+"service@"+stackIP+":5060>", w.last(stackIP, what).value(t, "Contact"), what)
				}
				l.target = "sip:service@" + stackIP
				require.Equal(t, repeated(c.want+"service@"+stackIP+":5060>", 1), l.contactsAnswered("UPDATE"))
				l.ask("BYE")
				<-l.d.Done()
			})
		})
	}
}

// RFC 3261 8.1.1.8: the Request-URI and the top Route say it for our own calls.
func TestContactOfOurCallIsASIPSURIWhereItGoesToOne(t *testing.T) {
	ca := testcert.New(t)
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.site("10.0.0.1", "tls", ca), w.site("10.0.0.2", "tls", ca)
		caller, callee := a.call(t, b.uri("bob"), b.takes(t))
		require.Equal(t, "<sips:SoftPhone@10.0.0.1:5061;transport=tls>", testkit.Value(a.messages(true, "INVITE")[0].msg, "Contact"))
		require.Equal(t, "<sips:bob@10.0.0.2:5061;transport=tls>", testkit.Value(b.messages(true, "200 INVITE")[0].msg, "Contact"))
		converse0(t, caller, callee)
	})
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.site("10.0.0.1", "tls", ca), w.site("10.0.0.2", "tls", ca)
		target, route := b.uri("bob"), b.uri("")
		target.Scheme = "sip"
		route.UriParams.Add("lr", "")
		caller, callee := a.call(t, target, b.takes(t), route)
		require.Equal(t, "<sips:SoftPhone@10.0.0.1:5061;transport=tls>", testkit.Value(a.messages(true, "INVITE")[0].msg, "Contact"))
		converse0(t, caller, callee)
	})
	// Behind a proxy that ends the TLS, the listener for TLS is named.
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		s := w.stack(stackIP, func(c *dialog.StackConfig) {
			c.Listeners = []dialog.TransportConfig{{Protocol: "tls", Address: stackIP, Port: 5061, TLSConfig: ca.Server(stackIP)}}
		})
		l := w.incoming(s, p, func(r *dialogtest.Request) { r.URI = "sips:service@" + stackIP })
		require.Equal(t, "<sips:service@"+stackIP+":5061;transport=tls>", testkit.Value(l.final.Message, "Contact"))
		l.hangUp(p)
	})
}

// converse0 hangs up, and no more.
func converse0(t *testing.T, caller, callee *dialog.Dialog) {
	t.Helper()
	require.NoError(t, callee.Bye(context.Background(), ""))
	<-caller.Done()
}

// FD4. RFC 3515 2.2, RFC 3261 12.1.1, RFC 6665: the 2xx that a handler gives has our
// Contact where the method wants one; what the application sets goes before.
func TestAnswersOfHandlersHaveOurContactWhereTheMethodWantsOne(t *testing.T) {
	const ours, theirs = "<sip:b@10.0.0.2:5060>", "<sip:me@192.0.2.1>"
	cases := []struct {
		method string
		answer dialog.Answer
		want   []string
	}{
		{"REFER", dialog.Answer{}, []string{ours}},
		{"REFER", dialog.Answer{Status: 202}, []string{ours}},
		{"REFER", dialog.Answer{Status: 603}, nil},
		{"SUBSCRIBE", dialog.Answer{Headers: []dialog.Header{{Name: "Expires", Value: "60"}}}, []string{ours}},
		{"SUBSCRIBE", dialog.Answer{Headers: []dialog.Header{{Name: "Contact", Value: theirs}}}, []string{theirs}},
		{"SUBSCRIBE", dialog.Answer{Headers: []dialog.Header{{Name: "m", Value: theirs}}}, []string{theirs}},
		{"SUBSCRIBE", dialog.Answer{Status: 489}, nil},
		{"NOTIFY", dialog.Answer{}, []string{ours}},
		{"REGISTER", dialog.Answer{}, nil},
		{"REGISTER", dialog.Answer{Headers: []dialog.Header{{Name: "Contact", Value: theirs + ";expires=60"}, {Name: "contact", Value: ours + ";expires=9"}}}, []string{theirs + ";expires=60", ours + ";expires=9"}},
		{"MESSAGE", dialog.Answer{}, nil},
		{"OPTIONS", dialog.Answer{Status: 302, Headers: []dialog.Header{{Name: "Contact", Value: theirs}}}, []string{theirs}},
		{"OPTIONS", dialog.Answer{}, nil},
		{"PUBLISH", dialog.Answer{}, nil},
		{"DANCE", dialog.Answer{}, nil},
	}
	for _, c := range cases {
		bubble(t, func(t *testing.T, w *world) {
			b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
			require.NoError(t, b.OnRequest(c.method, func(context.Context, *sip.Request) dialog.Answer { return c.answer }))
			res := p.ask(b, dialogtest.Request{Method: c.method, URI: "sip:b@10.0.0.2", Headers: []string{"Event: presence"}})
			require.Equal(t, c.want, values(res, "Contact"), "%s %+v", c.method, c.answer)
		})
	}
}

func TestAnswersOfHandlersInsideACallHaveOurContact(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		for _, method := range []string{"SUBSCRIBE", "NOTIFY", "MESSAGE", "INFO"} {
			require.NoError(t, d.OnRequest(method, func(context.Context, *sip.Request) dialog.Answer { return dialog.Answer{} }))
		}
		ask := func(method string, seq uint32) []string {
			return values(p.ask(b, inside(method, seq, "Event: presence")), "Contact")
		}
		require.Equal(t, []string{"<sip:b@10.0.0.2:5060>"}, ask("SUBSCRIBE", 11))
		require.Equal(t, []string{"<sip:b@10.0.0.2:5060>"}, ask("NOTIFY", 12))
		require.Empty(t, ask("MESSAGE", 13))
		require.Empty(t, ask("INFO", 14))

		b.OnReferRequest(func(context.Context, *dialog.ReferRequest) dialog.Answer {
			return dialog.Answer{Headers: []dialog.Header{{Name: "Contact", Value: "<sip:me@192.0.2.1>"}}}
		})
		res := p.ask(b, inside("REFER", 15, "Refer-To: <sip:c@10.0.0.3>", "Refer-Sub: false"))
		require.Equal(t, []string{"<sip:me@192.0.2.1>"}, values(res, "Contact"))
		hangUp(t, d, p)
	})
}

// The NOTIFYs of a REFER of ours are answered so too, and the first makes a dialog.
func TestAnswersToNotifyHaveOurContact(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		done := began(func() error {
			r, err := a.Refer(context.Background(), uri("phone", peerIP), uri("carol", otherIP), dialog.ReferOpts{})
			if err == nil {
				_, err = r.Wait(context.Background())
			}
			return err
		})
		refer := p.next("REFER")
		res := p.ask(a, dialogtest.Request{
			Method: "NOTIFY", URI: "sip:a@" + stackIP, FromTag: farTag, ToTag: testkit.FromTag(refer.Message), CallID: refer.Request().CallID().Value(),
			Headers: []string{"Event: refer", "Subscription-State: terminated;reason=noresource", "Content-Type: message/sipfrag"}, Body: "SIP/2.0 200 OK",
		})
		require.Equal(t, 200, res.StatusCode)
		require.Equal(t, testkit.Value(refer.Message, "Contact"), testkit.Value(res, "Contact"))
		p.reply(refer, dialogtest.Response{Code: 202, ToTag: farTag})
		require.NoError(t, <-done)
	})
}

// RFC 3261 8.1.1.8: a SUBSCRIBE that has no Contact could not be answered by a NOTIFY.
func TestDoAddsAContactToDialogFormingRequests(t *testing.T) {
	for method, want := range map[sip.RequestMethod]string{
		sip.SUBSCRIBE: "<sip:SoftPhone@" + stackIP + ":5060>", sip.REFER: "<sip:SoftPhone@" + stackIP + ":5060>",
		sip.MESSAGE: "", sip.REGISTER: "", sip.OPTIONS: "",
	} {
		bubble(t, func(t *testing.T, w *world) {
			a, p := w.stack(stackIP), w.peer(peerIP)
			done := began(func() error {
				_, err := a.Do(context.Background(), sip.NewRequest(method, uri("x", peerIP)))
				return err
			})
			req := p.next(string(method))
			require.Equal(t, want, testkit.Value(req.Message, "Contact"))
			p.reply(req, dialogtest.Response{Code: 200, ToTag: farTag})
			require.NoError(t, <-done)
		})
	}
}

// multihomed is a machine that listens on one address, and whose kernel connects
// from another.
type multihomed struct {
	*dialogtest.Host
	kernel *dialogtest.Host
}

func (m multihomed) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return m.kernel.DialContext(ctx, network, address)
}

// multihomedFrom can connect from each of the two.
type multihomedFrom struct{ multihomed }

func (m multihomedFrom) DialFrom(ctx context.Context, network, local, address string) (net.Conn, error) {
	for _, h := range []*dialogtest.Host{m.Host, m.kernel} {
		if h.Addr().String() == local {
			return h.DialContext(ctx, network, address)
		}
	}
	return nil, net.ErrClosed
}

// FD19: the connection came from an address that the peer did not know, and the Contact named
// a port without a listener.
func TestConnectionsComeFromWhereTheContactLeads(t *testing.T) {
	const kernelIP = "10.0.0.2"
	for name, c := range map[string]struct {
		listens []dialog.TransportConfig
		over    string
		body    string
		from    bool   // the network can be told
		source  string // of the connection
		contact string
	}{
		"TCP": {
			listens: []dialog.TransportConfig{{Protocol: "tcp", Address: stackIP, Port: 5070}}, over: "tcp",
			from: true, source: stackIP, contact: "<sip:SoftPhone@" + stackIP + ":5070;transport=tcp>",
		},
		"the network cannot be told": {
			listens: []dialog.TransportConfig{{Protocol: "tcp", Address: stackIP, Port: 5070}}, over: "tcp",
			source: kernelIP, contact: "<sip:SoftPhone@" + stackIP + ":5070;transport=tcp>",
		},
		"a second listener": {
			listens: []dialog.TransportConfig{{Protocol: "udp", Address: stackIP, Port: 5060}, {Protocol: "tcp", Address: stackIP, Port: 5070}}, over: "tcp",
			from: true, source: stackIP, contact: "<sip:SoftPhone@" + stackIP + ":5070;transport=tcp>",
		},
		"too long for UDP": {
			listens: []dialog.TransportConfig{{Protocol: "udp", Address: stackIP, Port: 5080}}, over: "", body: longSDP,
			source: kernelIP, contact: "<sip:SoftPhone@" + stackIP + ":5080>",
		},
		"too long for UDP, from there": {
			listens: []dialog.TransportConfig{{Protocol: "udp", Address: stackIP, Port: 5080}}, over: "", body: longSDP,
			from: true, source: stackIP, contact: "<sip:SoftPhone@" + stackIP + ":5080>",
		},
		"public address": {
			listens: []dialog.TransportConfig{{Protocol: "tcp", Address: stackIP, Port: 5070, PublicAddress: publicIP, PublicPort: 7000}}, over: "tcp",
			source: kernelIP, contact: "<sip:SoftPhone@" + publicIP + ":7000;transport=tcp>",
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				machine := multihomed{Host: w.net.Host(stackIP), kernel: w.net.Host(kernelIP)}
				a, p := w.stack(stackIP, func(cfg *dialog.StackConfig) {
					cfg.Network = machine
					if c.from {
						cfg.Network = multihomedFrom{machine}
					}
					cfg.Transport, cfg.Listeners = &c.listens[0], c.listens[1:]
				}), w.peer(peerIP)
				opened := w.accepts(p.Addr().String())
				target := uri("bob", peerIP)
				if c.over != "" {
					target.UriParams.Add("transport", c.over)
				}
				body := offerSDP
				if c.body != "" {
					body = c.body
				}
				d, err := a.NewInvite(context.Background(), target, offer(body))
				require.NoError(t, err)
				conn := <-opened
				invite := conn.next("INVITE")
				require.Equal(t, c.source, strings.Split(conn.RemoteAddr().String(), ":")[0])
				require.Equal(t, c.contact, invite.value(t, "Contact"))
				conn.write(p.Response(request(invite.msg), dialogtest.Response{Code: 486, ToTag: farTag}))
				require.Error(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
				conn.next("ACK")
			})
		})
	}
}

// FD19: so it is in what is said on the connection later, by either side.
func TestContactOnAConnectionOfOursNamesTheListener(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ca := testcert.New(t)
		near, far := w.site(stackIP, "tls", ca, func(c *dialog.StackConfig) {
			c.Network = multihomed{Host: w.net.Host(stackIP), kernel: w.net.Host("10.0.0.2")}
		}), w.site(peerIP, "tls", ca)
		caller, callee := near.call(t, far.uri("bob"), far.takes(t))
		require.NoError(t, callee.ReInvite(context.Background(), offer(offerSDP)))
		_, err := caller.Update(context.Background(), nil)
		require.NoError(t, err)
		for _, what := range []string{"INVITE", "200 INVITE", "UPDATE"} {
			require.Contains(t, near.contact(t, what), "@"+stackIP+":5061", what)
		}
		require.NoError(t, caller.Bye(context.Background(), ""))
	})
}

// D10: a stack that listens on every address tells each peer the one by which
// it is reached. This takes the operating system's sockets.
func TestContactOfAWildcardListenerIsAnAddress(t *testing.T) {
	far, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = far.Close() }()
	require.NoError(t, far.SetReadDeadline(time.Now().Add(10*time.Second)))
	next := func() (wire, net.Addr) {
		buf := make([]byte, 65535)
		n, from, err := far.ReadFrom(buf)
		require.NoError(t, err)
		msg, err := sip.ParseMessage(buf[:n])
		require.NoError(t, err)
		return wire{msg: msg, raw: string(buf[:n])}, from
	}

	s, err := dialog.NewStack(&dialog.StackConfig{Transport: &dialog.TransportConfig{Protocol: "udp", Address: "0.0.0.0"}})
	require.NoError(t, err)
	require.NoError(t, s.Start(context.Background()))
	defer func() { require.NoError(t, s.Shutdown(context.Background())) }()
	target := sip.Uri{Scheme: "sip", User: "bob", Host: "127.0.0.1", Port: far.LocalAddr().(*net.UDPAddr).Port}
	d, err := s.NewInvite(context.Background(), target, offer(offerSDP))
	require.NoError(t, err)

	invite, from := next()
	own := fmt.Sprintf("127.0.0.1:%d", s.Addr().Port())
	require.Equal(t, own, from.String())
	require.Equal(t, "<sip:SoftPhone@"+own+">", invite.value(t, "Contact"))
	require.Equal(t, "<sip:SoftPhone@127.0.0.1>;tag="+d.Key().LocalTag, invite.value(t, "From"))
	require.True(t, strings.HasPrefix(invite.value(t, "Via"), "SIP/2.0/UDP "+own+";"))
	require.NotContains(t, invite.raw, "0.0.0.0")
	res := sip.NewResponseFromRequest(request(invite.msg), 486, "Busy Here", nil)
	_, err = far.WriteTo([]byte(res.String()), from)
	require.NoError(t, err)
	require.Error(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
	ack, _ := next()
	require.Equal(t, "ACK", testkit.Describe(ack.msg))
}

// D10: a public address, when one is set, is what peers are told.
func TestPublicAddressIsSentToPeers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack(stackIP, func(c *dialog.StackConfig) {
			c.Transport.PublicAddress, c.Transport.PublicPort = "sip.example.com", 7000
		})
		w.calls(a, w.peer(peerIP), offer(offerSDP))
		invite := w.one(stackIP, "INVITE")
		require.Equal(t, "<sip:SoftPhone@sip.example.com:7000>", invite.value(t, "Contact"))
		require.True(t, strings.HasPrefix(invite.value(t, "Via"), "SIP/2.0/UDP sip.example.com:7000;"))
		require.True(t, strings.HasPrefix(invite.value(t, "From"), "<sip:SoftPhone@sip.example.com>;tag="))
	})
}

// The Contact of a call was the caller's own variable.
func TestContactOfACallIsACopy(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		mine, opts := uri("me", "10.1.1.1"), offer(offerSDP)
		opts.Contact = &mine
		l := w.calls(w.stack(stackIP), w.peer(peerIP), opts)
		mine.User = "changed"
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		require.NoError(t, l.d.Refer(context.Background(), uri("c", "10.0.0.5"), dialog.ReferOpts{}))
		require.Equal(t, "sip:me@10.1.1.1:5060", contactOf(l.next("REFER").Message))
	})
}

// An INVITE whose Contact leads nowhere was offered to the application.
func TestInviteWithoutAUsableContactIsNotOffered(t *testing.T) {
	for _, contact := range []string{"*", "<tel:+123>", "<sip:>", "<mailto:a@b>"} {
		t.Run(contact, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				var offered atomic.Int32
				b.OnIncomingDialog(func(d dialog.IDialog) { offered.Add(1); _ = d.Accept(context.Background()) })
				w.say(p, b, p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:x@" + stackIP, Headers: []string{"Contact: " + contact}}))
				synctest.Wait()
				require.Zero(t, offered.Load())
				require.Empty(t, w.sent(stackIP, "200 INVITE"))
				require.Empty(t, b.Dialogs())
			})
		})
	}
}

func TestRingingWithoutAContact(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		l.responds(l.invite, dialogtest.Response{Code: 180, ToTag: farTag}, "Contact")
		synctest.Wait()
		require.Equal(t, dialog.DialogStateRinging, l.d.State())
		require.Equal(t, "bob", l.d.Info().RemoteTarget.User)
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		require.Equal(t, "peer", l.d.Info().RemoteTarget.User)
		l.stands(p)
	})
}
