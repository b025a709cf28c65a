package test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testcert"
	"sipdialog.example/dialog/internal/testkit"
)

const dnsIP = "10.0.0.53"

// nameServer is a DNS server in the network of a test.
type nameServer struct {
	mu      sync.Mutex // guards the fields below
	records map[dns.Question][]dns.RR
	silent  bool
}

// nameServer serves records, each in a zone file's notation. A name of which no
// record is there does not exist.
func (w *world) nameServer(records ...string) *nameServer {
	w.t.Helper()
	s := &nameServer{records: make(map[dns.Question][]dns.RR)}
	for _, line := range records {
		rr, err := dns.NewRR(line)
		require.NoError(w.t, err)
		q := dns.Question{Name: rr.Header().Name, Qtype: rr.Header().Rrtype, Qclass: dns.ClassINET}
		s.records[q] = append(s.records[q], rr)
	}
	socket, err := w.net.Host(dnsIP).ListenPacket(context.Background(), "udp", dnsIP+":53")
	require.NoError(w.t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, dns.MaxMsgSize)
		for {
			n, from, err := socket.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if answer := s.answer(buf[:n]); answer != nil {
				_, _ = socket.WriteTo(answer, from)
			}
		}
	}()
	w.t.Cleanup(func() { _ = socket.Close(); <-ended })
	return s
}

// answer returns nothing to what it does not understand, or when it is silent.
func (s *nameServer) answer(data []byte) []byte {
	query, res := new(dns.Msg), new(dns.Msg)
	if query.Unpack(data) != nil || len(query.Question) != 1 {
		return nil
	}
	res.SetReply(query)
	s.mu.Lock()
	defer s.mu.Unlock()
	q := query.Question[0]
	q.Name = strings.ToLower(q.Name)
	res.Answer = s.records[q]
	if alias := s.records[dns.Question{Name: q.Name, Qtype: dns.TypeCNAME, Qclass: q.Qclass}]; len(res.Answer) == 0 {
		res.Answer = alias
	}
	if len(res.Answer) == 0 {
		res.Rcode = dns.RcodeNameError
	}
	if s.silent {
		return nil
	}
	packed, _ := res.Pack()
	return packed
}

func (s *nameServer) fallSilent(silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = silent
}

// resolves has a stack ask the name server of the test.
func (w *world) resolves(ip string) func(*dialog.StackConfig) {
	return func(c *dialog.StackConfig) {
		c.Resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := w.net.Host(ip).DialContext(ctx, "udp", dnsIP+":53")
			if err == nil {
				// A question whose caller's context has ended is left under way.
				w.t.Cleanup(func() { _ = conn.Close() })
			}
			return conn, err
		}}
	}
}

// named is a target that is found by its name.
func named(host, transport string) sip.Uri {
	uri := sip.Uri{Scheme: "sip", User: "bob", Host: host, UriParams: sip.NewParams()}
	if transport != "" {
		uri.UriParams.Add("transport", transport)
	}
	return uri
}

var threeServers = []string{
	"_sip._udp.example.test. 60 IN SRV 10 0 5060 one.test.",
	"_sip._udp.example.test. 60 IN SRV 20 0 5060 two.test.",
	"_sip._udp.example.test. 60 IN SRV 30 0 5060 three.test.",
	"_sip._tcp.example.test. 60 IN SRV 10 0 5060 one.test.",
	"_sip._tcp.example.test. 60 IN SRV 20 0 5060 two.test.",
	"_sip._tcp.example.test. 60 IN SRV 30 0 5060 three.test.",
	"one.test. 60 IN A 10.0.1.1",
	"two.test. 60 IN A 10.0.1.2",
	"three.test. 60 IN A 10.0.1.3",
}

// RFC 3263 4.3: a server that says 503, and one that says nothing, is given up
// for the next: the same INVITE by another transaction. The call is that with
// the server that took it.
func TestCallGoesToTheNextServerOn503AndOnSilence(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.nameServer(threeServers...)
		a := w.stack("10.0.0.1", w.resolves("10.0.0.1"))
		busy, silent, good := w.peer("10.0.1.1"), w.peer("10.0.1.2"), w.peer("10.0.1.3")
		start := time.Now()
		d, err := a.NewInvite(context.Background(), named("example.test", "udp"), offer(offerSDP))
		require.NoError(t, err)

		first := busy.next("INVITE")
		busy.reply(first, dialogtest.Response{Code: 503, ToTag: "x"})
		require.Equal(t, testkit.BranchOf(first.Message), testkit.BranchOf(busy.next("ACK").Message))
		second := silent.next("INVITE")
		require.Zero(t, time.Since(start))
		third := good.next("INVITE") // 64*T1 later
		require.Equal(t, 32*time.Second, time.Since(start))
		for _, other := range []dialogtest.Received{second, third} {
			require.Equal(t, first.Request().From().Value(), other.Request().From().Value())
			require.Equal(t, callIDOf(first), callIDOf(other))
			require.Equal(t, cseqOf(first.Message), cseqOf(other.Message))
			require.Equal(t, "sip:bob@example.test;transport=udp", other.Request().Recipient.String())
			require.NotEqual(t, testkit.BranchOf(first.Message), testkit.BranchOf(other.Message))
		}
		good.reply(third, dialogtest.Response{Code: 200, ToTag: "b", Body: answerSDP})
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		good.next("ACK")
		require.Equal(t, "10.0.1.3", d.(*dialog.Dialog).Info().RemoteTarget.Host)
		result := began(func() error { return d.Bye(context.Background(), "") })
		good.reply(good.next("BYE"), dialogtest.Response{Code: 200})
		require.NoError(t, <-result)
	})
}

func callIDOf(in dialogtest.Received) string { return in.Message.CallID().Value() }

// RFC 3263 4.3: a refused connection leads to the next server, as a timeout does.
func TestCallGoesToTheNextServerWhenRefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.nameServer(threeServers...)
		a := w.site("10.0.0.1", "tcp", nil, w.resolves("10.0.0.1"))
		w.net.Host("10.0.1.1") // refuses
		w.net.Host("10.0.1.2").Unreachable(true)
		far := w.element("10.0.1.3", "tcp", nil, nil)
		start := time.Now()
		d, err := a.NewInvite(context.Background(), named("example.test", "tcp"), offer(offerSDP))
		require.NoError(t, err)
		far.reply(far.next("INVITE"), 200, answerSDP)
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		require.Zero(t, time.Since(start))
		dialled, _ := a.host.connections()
		require.Equal(t, 1, dialled)
	})
}

// When every server fails the call ends with what the last one said.
func TestCallEndsWhenEveryServerFails(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.nameServer(threeServers...)
		a := w.stack("10.0.0.1", w.resolves("10.0.0.1"))
		d, err := a.NewInvite(context.Background(), named("example.test", "udp"), offer(offerSDP))
		require.NoError(t, err)
		for _, p := range []*peer{w.peer("10.0.1.1"), w.peer("10.0.1.2"), w.peer("10.0.1.3")} {
			p.reply(p.next("INVITE"), dialogtest.Response{Code: 503, ToTag: p.ip})
		}
		var refused *dialog.ResponseError
		require.ErrorAs(t, d.(*dialog.Dialog).WaitAnswer(context.Background()), &refused)
		require.Equal(t, 503, refused.StatusCode)

		tcp := w.site("10.0.0.2", "tcp", nil, w.resolves("10.0.0.2"))
		require.Error(t, tcp.refused(t, named("example.test", "tcp")))
	})
}

// RFC 2782: of equal priorities the weights decide, and both are there when one
// fails.
func TestWeightsShareTheCalls(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.nameServer("_sip._udp.shared.test. 60 IN SRV 1 60000 5060 one.test.", "_sip._udp.shared.test. 60 IN SRV 1 1 5060 two.test.",
			"one.test. 60 IN A 10.0.1.1", "two.test. 60 IN A 10.0.1.2")
		a := w.stack("10.0.0.1", w.resolves("10.0.0.1"))
		heavy, light := w.peer("10.0.1.1"), w.peer("10.0.1.2")
		stop, stopLight := heavy.answers(always(503)), light.answers(always(200))
		defer stop()
		defer stopLight()
		for range 20 {
			res, err := a.Do(context.Background(), sip.NewRequest(sip.OPTIONS, named("shared.test", "udp")))
			require.NoError(t, err)
			require.Equal(t, 200, res.StatusCode)
		}
		require.Greater(t, len(w.sent("10.0.1.1", "503 OPTIONS")), 15)
		require.Len(t, w.sent("10.0.1.2", "200 OPTIONS"), 20)
	})
}

// DNS that fails, or lies, is a typed error, and leaves nothing behind.
func TestCallToANameThatLeadsNowhereIsAnError(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.nameServer(
			"_sip._udp.port.test. 60 IN SRV 1 1 0 one.test.",
			"_sip._udp.refuses.test. 60 IN SRV 0 0 0 .",
			"refuses.test. 60 IN A 10.0.1.1",
			"_sip._udp.dangling.test. 60 IN SRV 1 1 5060 nowhere.test.",
			"_sip._udp.self.test. 60 IN SRV 1 1 5060 self.test.",
			"circle.test. 60 IN CNAME circle2.test.",
			"circle2.test. 60 IN CNAME circle.test.",
			"zero.test. 60 IN A 0.0.0.0",
			"group.test. 60 IN A 224.0.1.75",
			"six.test. 60 IN AAAA fd00::1",
			"one.test. 60 IN A 10.0.1.1",
		)
		a := w.stack("10.0.0.1", w.resolves("10.0.0.1"))
		for _, host := range []string{
			"port.test", "refuses.test", "dangling.test", "self.test", "circle.test", "zero.test", "group.test",
			"six.test", "nowhere.test", "bad..name", "client.invalid",
		} {
			start := time.Now()
			_, err := a.NewInvite(context.Background(), named(host, "udp"), offer(offerSDP))
			require.ErrorIs(t, err, dialog.ErrTransport, host)
			require.Zero(t, time.Since(start), host)
			_, err = a.Do(context.Background(), sip.NewRequest(sip.OPTIONS, named(host, "udp")))
			require.ErrorIs(t, err, dialog.ErrTransport, host)
		}
		s.fallSilent(true)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := a.NewInvite(ctx, named("one.test", "udp"), offer(offerSDP))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(start))
		_, err = a.NewInvite(context.Background(), named("one.test", "udp"), offer(offerSDP))
		require.ErrorIs(t, err, dialog.ErrTransport)
		require.Less(t, time.Since(start), 2*time.Minute, "the resolver gives up")
		require.Empty(t, a.Dialogs())

		s.fallSilent(false)
		p := w.peer("10.0.1.1")
		_, err = a.NewInvite(context.Background(), named("one.test", "udp"), offer(offerSDP))
		require.NoError(t, err)
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 486, ToTag: "x"})
		p.next("ACK")
		synctest.Wait()
	})
}

// Names in Contact and Record-Route are looked up for each request: the ACK and
// the BYE go to where they lead.
func TestNamesInContactAndRouteAreLookedUp(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.nameServer("bob.test. 60 IN A 10.0.1.2", "proxy.test. 60 IN A 10.0.0.7",
			"_sip._udp.cluster.test. 60 IN SRV 1 1 5070 proxy.test.")
		a := w.stack(stackIP, w.resolves(stackIP))
		p, bob, proxy := w.peer(peerIP), w.peer("10.0.1.2"), w.peer(proxyIP)

		direct := w.calls(a, p, offer(offerSDP))
		direct.answer(dialogtest.Response{Code: 200, Body: answerSDP, Headers: []string{"Contact: <sip:bob@bob.test>"}})
		require.Equal(t, "sip:bob@bob.test", bob.next("ACK").Request().Recipient.String())
		require.NoError(t, direct.d.WaitAnswer(context.Background()))
		require.NotEmpty(t, direct.hangUp(bob).raw)

		routed := w.calls(a, p, offer(offerSDP))
		routed.answer(dialogtest.Response{Code: 200, ToTag: "routed", Body: answerSDP, Headers: []string{
			"Record-Route: <sip:proxy.test:5060;lr>", "Contact: <sip:bob@nowhere.test>",
		}})
		ack := proxy.next("ACK")
		require.Equal(t, "sip:bob@nowhere.test", ack.Request().Recipient.String())
		require.Equal(t, "<sip:proxy.test:5060;lr>", testkit.Value(ack.Message, "Route"))
		require.NoError(t, routed.d.WaitAnswer(context.Background()))

		// A name that is gone costs the request, not the call.
		s.mu.Lock()
		gone := s.records
		s.records = nil
		s.mu.Unlock()
		err := routed.d.ReInvite(context.Background(), offer(offerSDP))
		require.ErrorIs(t, err, dialog.ErrTransport)
		require.Equal(t, dialog.DialogStateEstablished, routed.d.State())
		s.mu.Lock()
		s.records = gone
		s.mu.Unlock()
		result := began(func() error { return routed.d.Bye(context.Background(), "") })
		proxy.reply(proxy.next("BYE"), dialogtest.Response{Code: 200})
		require.NoError(t, <-result)
	})
}

// A certificate must be for the name that was called, whatever the DNS makes of
// it (RFC 3263 4.1), and requests inside the call stay on that connection.
func TestTLSVerifiesTheNameThatWasCalled(t *testing.T) {
	ca := testcert.New(t)
	for name, works := range map[string]bool{"good.test": true, "evil.test": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.nameServer("_sips._tcp."+name+". 60 IN SRV 1 1 5061 host.good.test.", "host.good.test. 60 IN A 10.0.0.2")
				a := w.site("10.0.0.1", "tls", ca, w.resolves("10.0.0.1"))
				b := w.site("10.0.0.2", "tls", ca, func(c *dialog.StackConfig) { c.Transport.TLSConfig = ca.Server("good.test") })
				target := sip.Uri{Scheme: "sips", User: "bob", Host: name}
				if !works {
					require.ErrorIs(t, a.refused(t, target), errTLS)
					return
				}
				a.follows(t)
				b.follows(t)
				caller, callee := a.call(t, target, b.takes(t))
				converse(t, caller, callee, true)
				dialled, accepted := a.host.connections()
				require.Equal(t, [2]int{1, 0}, [2]int{dialled, accepted})
			})
		})
	}
}

// FA10: the machine's resolver was asked, which a bubble's clock waited for.
func TestNamesAreThoseOfTheNetwork(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP, func(c *dialog.StackConfig) { c.Resolver = nil }), w.peer(peerIP)
		w.net.Name("pbx.example.test", peerIP)
		w.net.Service("sip", "udp", "example.test", net.SRV{Target: "pbx.example.test.", Port: 5060})
		for _, host := range []string{"pbx.example.test", "example.test"} {
			d, err := a.NewInvite(context.Background(), sip.Uri{Scheme: "sip", User: "bob", Host: host}, offer(offerSDP))
			require.NoError(t, err)
			p.reply(p.next("INVITE"), dialogtest.Response{Code: 486, ToTag: farTag})
			require.Error(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
			p.next("ACK")
		}
		for _, host := range []string{"example.com", "localhost", "nobody.test"} {
			_, err := a.NewInvite(context.Background(), sip.Uri{Scheme: "sip", User: "bob", Host: host}, offer(offerSDP))
			require.ErrorIs(t, err, dialog.ErrTransport)
			var unknown *net.DNSError
			require.ErrorAs(t, err, &unknown)
			require.True(t, unknown.IsNotFound)
		}
	})
}
