package transport

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/errtext"
)

// maxTargets bounds the targets of one name.
const maxTargets = 32

// question is a look-up for one URI.
type question struct {
	kinds []kind // that can be used, in order of preference; at least one
	host  string
	port  int // 0: not said
}

// Resolve finds where a request for uri goes (RFC 3263 4), in the order of
// trying, each address once, at most maxTargets:
//   - A literal address, or a name with a port, is used as it is: A and AAAA
//     only. The host is that of the maddr parameter when there is one.
//   - Else the SRV records of the name, for the URI's transport or those we can
//     send by, each with all its addresses. NAPTR records, which come before in
//     the RFC, are left out: the standard library cannot ask for them.
//   - Else the A and AAAA records of the name, with the default port.
//
// sips goes over TLS (or WSS) only. For UDP the addresses are of the families
// that we have sockets of. It blocks on look-ups, until ctx ends. Errors:
// ErrUnsupportedTransport, ErrBadTarget (of the URI or in its SRV records),
// ErrNotFound with the resolver's error, ErrNoListener (UDP, no socket of the
// family), that of ctx.
func (l *Layer) Resolve(ctx context.Context, uri sip.Uri) ([]Target, error) {
	q, err := l.questionFor(uri)
	if err != nil {
		return nil, err
	}
	if target, ok := q.literal(); ok {
		return []Target{target}, nil
	}
	if isName(q.host, "invalid") {
		return nil, fmt.Errorf("%w: %q", ErrNotFound, q.host)
	}
	// RFC 3263 4.2: with a port there is no SRV look-up.
	if q.port == 0 && !isName(q.host, "localhost") {
		if targets, err := l.services(ctx, q); len(targets) > 0 || err != nil {
			return targets, err
		}
	}
	ips, err := l.addresses(ctx, q.kinds[0], q.host)
	if err != nil {
		return nil, err
	}
	return appendTargets(nil, q.kinds[0], ips, q.portOf(q.kinds[0]), q.host), nil
}

func (l *Layer) questionFor(uri sip.Uri) (question, error) {
	kinds, err := l.kindsFor(uri)
	if err != nil {
		return question{}, err
	}
	q := question{kinds: kinds, host: targetHost(uri), port: uri.Port}
	if q.host == "" || q.port < 0 || q.port > math.MaxUint16 {
		return question{}, fmt.Errorf("%w: %s", ErrBadTarget, uri.String())
	}
	return q, nil
}

// literal is the one target of a host that is an address.
func (q question) literal() (Target, bool) {
	ip, err := netip.ParseAddr(q.host)
	if err != nil {
		return Target{}, false
	}
	return Target{Transport: q.kinds[0].name, Addr: netip.AddrPortFrom(ip.Unmap(), q.portOf(q.kinds[0]))}, true
}

// isName reports whether host is in one of the domains that the DNS must not be
// asked about (RFC 6761 6): "invalid" is what WebSocket clients call themselves.
func isName(host, domain string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == domain || strings.HasSuffix(host, "."+domain)
}

func (q question) portOf(k kind) uint16 {
	if q.port != 0 {
		return uint16(q.port)
	}
	return uint16(k.port)
}

// targetHost is the maddr parameter or the host (RFC 3261 19.1.1), without the
// brackets the parser leaves on IPv6.
func targetHost(uri sip.Uri) string {
	host := uri.Host
	if maddr, ok := param(uri.UriParams, "maddr"); ok && maddr != "" {
		host = maddr
	}
	return strings.Trim(host, "[]")
}

// kindsFor are the transports for uri (RFC 3263 4.1).
func (l *Layer) kindsFor(uri sip.Uri) ([]kind, error) {
	secure := strings.EqualFold(uri.Scheme, "sips")
	if !secure && uri.Scheme != "" && !strings.EqualFold(uri.Scheme, "sip") {
		return nil, fmt.Errorf("%w: scheme %q", ErrUnsupportedTransport, uri.Scheme)
	}
	name, named := param(uri.UriParams, "transport")
	switch {
	case secure:
		k, err := secureKind(name)
		return []kind{k}, err
	case named && name != "":
		k, err := kindOf(name)
		return []kind{k}, err
	}
	return l.ownKinds(), nil
}

// secureKind is the transport of a sips URI (RFC 3261 26.2.2): its transport
// parameter names the transport below TLS.
func secureKind(name string) (kind, error) {
	switch strings.ToUpper(name) {
	case "", "TCP", "TLS":
		return kindOf("TLS")
	case "WS", "WSS": // RFC 7118 5.5
		return kindOf("WSS")
	}
	return kind{}, fmt.Errorf("%w: sips over %q", ErrUnsupportedTransport, name)
}

// ownKinds are the transports we can send by: with a UDP socket UDP and, as
// every element must (RFC 3261 18), TCP; and those we listen on. Without any
// socket it is what every peer should take.
func (l *Layer) ownKinds() []kind {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kinds == nil {
		l.kinds = l.kindsLocked()
	}
	return l.kinds
}

func (l *Layer) kindsLocked() []kind {
	var names []string
	if len(l.packets) > 0 || len(l.listeners) == 0 {
		names = []string{"UDP", "TCP"}
	}
	for _, ln := range l.listeners {
		if !slices.Contains(names, ln.kind.name) {
			names = append(names, ln.kind.name)
		}
	}
	kinds := make([]kind, len(names))
	for i, name := range names {
		kinds[i], _ = kindOf(name) // these are known
	}
	return kinds
}

// addresses asks for the A and AAAA records of host; it returns at least one.
func (l *Layer) addresses(ctx context.Context, k kind, host string) ([]netip.Addr, error) {
	network, err := l.family(k)
	if err != nil {
		return nil, fmt.Errorf("%w: %s %q", err, k.name, host)
	}
	ips, err := l.cfg.Resolver.LookupNetIP(ctx, network, host)
	if err != nil {
		return nil, notFound(ctx, host, err)
	}
	// Addresses that no peer can have are left out.
	ips = slices.DeleteFunc(slices.Clone(ips), func(ip netip.Addr) bool {
		return !ip.IsValid() || ip.IsUnspecified() || ip.IsMulticast()
	})
	if len(ips) == 0 {
		return nil, fmt.Errorf("%w: no address for %q", ErrNotFound, host)
	}
	if ips = l.reachable(k, ips); len(ips) == 0 {
		return nil, fmt.Errorf("%w: %s %q", ErrNoListener, k.name, host)
	}
	return ips, nil
}

// notFound is the error of a look-up; the end of ctx is not the name's fault.
func notFound(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil {
		return errtext.As(err, fmt.Errorf("lookup %s: %w", name, ctx.Err()))
	}
	return errtext.As(ErrNotFound, doing("lookup "+name, err))
}

// family is the network to ask about: for UDP that of our sockets.
func (l *Layer) family(k kind) (string, error) {
	if k.stream {
		return "ip", nil
	}
	v4, v6 := l.reaches(netip.AddrFrom4([4]byte{192, 0, 2, 1})), l.reaches(netip.MustParseAddr("2001:db8::1"))
	switch {
	case v4 && v6:
		return "ip", nil
	case v4:
		return "ip4", nil
	case v6:
		return "ip6", nil
	}
	return "", ErrNoListener
}

// reachable leaves out, for UDP, families we have no socket for.
func (l *Layer) reachable(k kind, ips []netip.Addr) []netip.Addr {
	if k.stream {
		return ips
	}
	return slices.DeleteFunc(ips, func(ip netip.Addr) bool { return !l.reaches(ip.Unmap()) })
}

func (l *Layer) reaches(peer netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.packets, func(s *packetSocket) bool { return s.fitness(peer) > 0 })
}

// appendTargets leaves out targets that are in the list already, and those beyond the bound.
func appendTargets(targets []Target, k kind, ips []netip.Addr, port uint16, name string) []Target {
	for _, ip := range ips {
		t := Target{Transport: k.name, Addr: netip.AddrPortFrom(ip.Unmap(), port), ServerName: name}
		if len(targets) < maxTargets && !slices.Contains(targets, t) {
			targets = append(targets, t)
		}
	}
	return targets
}

// param finds a parameter, whose name is not case-sensitive (RFC 3261 7.3.1).
func param(params sip.HeaderParams, name string) (string, bool) {
	for _, kv := range params {
		if strings.EqualFold(kv.K, name) {
			return kv.V, true
		}
	}
	return "", false
}
