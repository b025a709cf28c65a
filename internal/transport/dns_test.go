package transport

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

// nameServer is a DNS server on loopback.
type nameServer struct {
	resolver *net.Resolver

	mu      sync.Mutex // guards the fields below
	records map[dns.Question][]dns.RR
	asked   []string
}

// startDNS serves records, each in a zone file's notation. A name of which no
// record is there does not exist; silent ones get no answer.
func startDNS(t *testing.T, records ...string) *nameServer {
	t.Helper()
	s := &nameServer{records: map[dns.Question][]dns.RR{}}
	for _, line := range records {
		rr, err := dns.NewRR(line)
		require.NoError(t, err)
		q := dns.Question{Name: rr.Header().Name, Qtype: rr.Header().Rrtype, Qclass: dns.ClassINET}
		s.records[q] = append(s.records[q], rr)
	}
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	streams, err := net.Listen("tcp", "127.0.0.1:0") // another port: the same need not be free
	require.NoError(t, err)
	addresses := map[string]string{"udp": packets.LocalAddr().String(), "tcp": streams.Addr().String()}
	for _, server := range []*dns.Server{{PacketConn: packets, Handler: s}, {Listener: streams, Handler: s}} {
		serving, done := make(chan struct{}), make(chan struct{})
		server.NotifyStartedFunc = func() { close(serving) }
		go func() {
			defer close(done)
			_ = server.ActivateAndServe()
		}()
		<-serving
		t.Cleanup(func() {
			_ = server.Shutdown()
			<-done
		})
	}
	s.resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network[:3], addresses[network[:3]])
		if err == nil {
			// net.Resolver leaves a question under way when its caller's
			// context ends: it would wait five seconds more.
			t.Cleanup(func() { _ = conn.Close() })
		}
		return conn, err
	}}
	return s
}

func (s *nameServer) ServeDNS(w dns.ResponseWriter, req *dns.Msg) {
	q := req.Question[0]
	s.mu.Lock()
	answers := s.records[q]
	if len(answers) == 0 {
		answers = s.records[dns.Question{Name: q.Name, Qtype: dns.TypeCNAME, Qclass: q.Qclass}]
	}
	s.asked = append(s.asked, dns.TypeToString[q.Qtype]+" "+q.Name)
	s.mu.Unlock()
	if q.Name == "silent.test." || q.Name == "_sip._udp.silent.test." {
		return
	}
	res := new(dns.Msg)
	res.SetReply(req)
	res.Answer = answers
	if len(answers) == 0 {
		res.Rcode = dns.RcodeNameError
	}
	if q.Name == "broken.test." {
		res.Rcode = dns.RcodeServerFailure
	}
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		res.Truncate(dns.MinMsgSize)
	}
	_ = w.WriteMsg(res)
}

func (s *nameServer) questions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

// places are targets in short.
func places(targets []Target) (short []string) {
	for _, t := range targets {
		short = append(short, t.Transport+" "+t.Addr.String()+" "+t.ServerName)
	}
	return short
}

func TestDNS_finds_services_in_the_order_of_their_priority(t *testing.T) {
	server := startDNS(t,
		"_sip._udp.example.test. 60 IN SRV 20 0 5062 two.test.",
		"_sip._udp.example.test. 60 IN SRV 10 0 5061 one.test.",
		"_sip._tcp.example.test. 60 IN SRV 5 0 5063 one.test.",
		"_sips._tcp.example.test. 60 IN SRV 5 0 5064 two.test.",
		"one.test. 60 IN A 192.0.2.1",
		"one.test. 60 IN A 192.0.2.11",
		"one.test. 60 IN AAAA 2001:db8::1",
		"two.test. 60 IN A 192.0.2.2",
		"example.test. 60 IN A 192.0.2.9",
	)
	l, _ := startLayer(t, Config{Resolver: server.resolver})
	listen(t, l, "udp", "127.0.0.1:0")
	for uri, want := range map[string][]string{
		"sip:example.test;transport=udp": {
			"UDP 192.0.2.1:5061 example.test", "UDP 192.0.2.11:5061 example.test", "UDP 192.0.2.2:5062 example.test",
		},
		"sip:example.test;transport=tls":  {"TLS 192.0.2.2:5064 example.test"},
		"sips:example.test":               {"TLS 192.0.2.2:5064 example.test"},
		"sips:example.test;transport=tcp": {"TLS 192.0.2.2:5064 example.test"},
		// With a port, or without records, the name itself.
		"sip:example.test:5080":      {"UDP 192.0.2.9:5080 example.test"},
		"sips:example.test:5080":     {"TLS 192.0.2.9:5080 example.test"},
		"sip:two.test;transport=tcp": {"TCP 192.0.2.2:5060 two.test"},
		"sips:two.test":              {"TLS 192.0.2.2:5061 two.test"},
	} {
		targets, err := resolve(t, l, uri)
		require.NoError(t, err, uri)
		require.Equal(t, want, places(targets), uri)
	}

	// Without a transport: all that we can send by.
	targets, err := resolve(t, l, "sip:example.test")
	require.NoError(t, err)
	require.Len(t, targets, 6)
	require.Equal(t, "UDP 192.0.2.1:5061 example.test", places(targets)[0])
	require.Equal(t, "TCP", targets[5].Transport)
}

func TestDNS_orders_equal_priorities_by_weight(t *testing.T) {
	server := startDNS(t,
		"_sip._tcp.example.test. 60 IN SRV 1 60000 5061 one.test.",
		"_sip._tcp.example.test. 60 IN SRV 1 1 5062 one.test.",
		"one.test. 60 IN A 192.0.2.1",
	)
	l, _ := startLayer(t, Config{Resolver: server.resolver})
	heavy := 0
	for range 20 {
		targets, err := resolve(t, l, "sip:example.test;transport=tcp")
		require.NoError(t, err)
		require.Len(t, targets, 2, "both are there for failover")
		if targets[0].Addr.Port() == 5061 {
			heavy++
		}
	}
	require.Greater(t, heavy, 15)
}

func TestDNS_asks_for_the_families_of_our_sockets(t *testing.T) {
	server := startDNS(t, "both.test. 60 IN A 192.0.2.1", "both.test. 60 IN AAAA 2001:db8::1", "new.test. 60 IN AAAA 2001:db8::1")
	for address, want := range map[string]string{
		"127.0.0.1:0": "UDP 192.0.2.1:5060 both.test",
		"[::1]:0":     "UDP [2001:db8::1]:5060 both.test",
	} {
		l, _ := startLayer(t, Config{Resolver: server.resolver})
		listen(t, l, "udp", address)
		targets, err := resolve(t, l, "sip:both.test;transport=udp")
		require.NoError(t, err)
		require.Equal(t, []string{want}, places(targets))
	}
	l, _ := startLayer(t, Config{Resolver: server.resolver})
	_, err := resolve(t, l, "sip:both.test;transport=udp")
	require.ErrorIs(t, err, ErrNoListener)
	listen(t, l, "udp", "127.0.0.1:0")
	server.questions()
	_, err = resolve(t, l, "sip:new.test;transport=udp")
	require.ErrorIs(t, err, ErrNotFound)
	for _, question := range server.questions() {
		require.NotContains(t, question, "AAAA")
	}
	targets, err := resolve(t, l, "sip:new.test;transport=tcp")
	require.NoError(t, err)
	require.Equal(t, []string{"TCP [2001:db8::1]:5060 new.test"}, places(targets))
}

func TestDNS_that_fails_or_lies_is_a_typed_error(t *testing.T) {
	records := []string{
		"_sip._udp.port.test. 60 IN SRV 1 1 0 one.test.",
		"_sip._udp.refuses.test. 60 IN SRV 0 0 0 .",
		"refuses.test. 60 IN A 192.0.2.1",
		"_sip._udp.dangling.test. 60 IN SRV 1 1 5060 nowhere.test.",
		"_sip._udp.self.test. 60 IN SRV 1 1 5060 self.test.",
		"_sip._udp.circle.test. 60 IN CNAME _sip._udp.circle2.test.",
		"_sip._udp.circle2.test. 60 IN CNAME _sip._udp.circle.test.",
		"circle.test. 60 IN CNAME circle2.test.",
		"circle2.test. 60 IN CNAME circle.test.",
		"zero.test. 60 IN A 0.0.0.0",
		"group.test. 60 IN A 224.0.1.75",
		"one.test. 60 IN A 192.0.2.1",
	}
	for i := range 300 {
		records = append(records, fmt.Sprintf("many.test. 60 IN A 10.0.%d.%d", i/250, i%250+1),
			fmt.Sprintf("_sip._tcp.many.test. 60 IN SRV 1 1 %d one.test.", 1000+i))
	}
	server := startDNS(t, records...)
	l, _ := startLayer(t, Config{Resolver: server.resolver})
	listen(t, l, "udp", "127.0.0.1:0")
	for host, want := range map[string]error{
		"port.test": ErrBadTarget, "refuses.test": ErrNotFound, "dangling.test": ErrNotFound, "self.test": ErrNotFound,
		"circle.test": ErrNotFound, "zero.test": ErrNotFound, "group.test": ErrNotFound, "nowhere.test": ErrNotFound,
		"broken.test": ErrNotFound, "bad..name": ErrNotFound,
	} {
		targets, err := l.Resolve(context.Background(), uriOf(host, "udp"))
		require.ErrorIs(t, err, want, host)
		require.Empty(t, targets, host)
	}
	targets, err := l.Resolve(context.Background(), uriOf("many.test", "udp"))
	require.NoError(t, err)
	require.Len(t, targets, maxTargets)
	targets, err = l.Resolve(context.Background(), uriOf("many.test", "tcp"))
	require.NoError(t, err)
	require.Len(t, targets, maxRecords)
}

func TestDNS_that_is_silent_ends_with_the_context(t *testing.T) {
	server := startDNS(t)
	l, _ := startLayer(t, Config{Resolver: server.resolver})
	listen(t, l, "udp", "127.0.0.1:0")
	for _, uri := range []string{"sip:silent.test", "sip:silent.test:5060"} {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		_, err := l.Resolve(ctx, parseURI(t, uri))
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, ErrNotFound)
	}
}

// srvZone is a resolver that knows services too.
type srvZone struct {
	zone
	services map[string][]*net.SRV
}

func (z srvZone) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	records := z.services["_"+service+"._"+proto+"."+name]
	if records == nil {
		return "", nil, errNoSuchName
	}
	return name, records, nil
}

func TestResolve_takes_what_is_usable_of_the_records(t *testing.T) {
	var thousands []*net.SRV
	for i := range 5000 {
		thousands = append(thousands, &net.SRV{Target: "one.test", Port: uint16(i), Priority: uint16(5000 - i)})
	}
	l, _ := startLayer(t, Config{Resolver: srvZone{
		zone: zone{"one.test": {netip.MustParseAddr("192.0.2.1")}},
		services: map[string][]*net.SRV{
			"_sip._tcp.some.test": {
				nil, {Target: "", Port: 1}, {Target: ".", Port: 2}, {Target: "nowhere.test", Port: 3},
				{Target: "one.test", Port: 5, Priority: 9}, {Target: "one.test", Port: 4, Priority: 8}, {Target: "one.test", Port: 4, Priority: 10},
			},
			"_sip._tcp.many.test": thousands,
		},
	}})
	listen(t, l, "tcp", "127.0.0.1:0")
	targets, err := resolve(t, l, "sip:some.test")
	require.NoError(t, err)
	require.Equal(t, []string{"TCP 192.0.2.1:4 some.test", "TCP 192.0.2.1:5 some.test"}, places(targets))

	targets, err = resolve(t, l, "sip:many.test")
	require.NoError(t, err)
	require.Len(t, targets, maxRecords)
	require.EqualValues(t, 4999, targets[0].Addr.Port(), "the lowest priority first")
}
