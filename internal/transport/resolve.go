package transport

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// Resolve finds where a request for uri goes: its maddr or host, a literal
// address without any look-up, else A and AAAA records, all of them in the
// resolver's order; its transport parameter, else UDP (the first listener's
// transport when we have no UDP socket); its port, else the transport's
// default. It blocks on the look-up, until ctx ends. Errors:
// ErrUnsupportedTransport (also for sips and foreign schemes), ErrBadTarget,
// and the resolver's.
func (l *Layer) Resolve(ctx context.Context, uri sip.Uri) ([]Target, error) {
	k, err := l.kindFor(uri)
	if err != nil {
		return nil, err
	}
	port := uri.Port
	if port == 0 {
		port = k.port
	}
	host := targetHost(uri)
	if host == "" || port < 0 || port > math.MaxUint16 {
		return nil, fmt.Errorf("%w: %s", ErrBadTarget, uri.String())
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return []Target{{Transport: k.name, Addr: netip.AddrPortFrom(ip.Unmap(), uint16(port))}}, nil
	}
	ips, err := l.cfg.Resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("transport: resolve %q: %w", host, err)
	}
	targets := l.targets(k, ips, uint16(port), host)
	if len(targets) == 0 {
		return nil, fmt.Errorf("%w: no address for %q", ErrBadTarget, host)
	}
	return targets, nil
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

// kindFor is the transport for uri (RFC 3263 4.1, without NAPTR and SRV).
func (l *Layer) kindFor(uri sip.Uri) (kind, error) {
	switch strings.ToLower(uri.Scheme) {
	case "", "sip":
	default:
		return kind{}, fmt.Errorf("%w: scheme %q", ErrUnsupportedTransport, uri.Scheme)
	}
	if name, ok := param(uri.UriParams, "transport"); ok && name != "" {
		return kindOf(name)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.packets) == 0 && len(l.listeners) > 0 {
		return l.listeners[0].kind, nil
	}
	return kindOf("UDP")
}

// targets leaves out repeated addresses and, for UDP, families we have no
// socket for, unless nothing would be left.
func (l *Layer) targets(k kind, ips []netip.Addr, port uint16, name string) []Target {
	var all, reachable []Target
	for _, ip := range ips {
		t := Target{Transport: k.name, Addr: netip.AddrPortFrom(ip.Unmap(), port), ServerName: name}
		if !ip.IsValid() || slices.Contains(all, t) {
			continue
		}
		all = append(all, t)
		if k.stream || l.reaches(t.Addr.Addr()) {
			reachable = append(reachable, t)
		}
	}
	if len(reachable) == 0 {
		return all
	}
	return reachable
}

func (l *Layer) reaches(peer netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.packets, func(s *packetSocket) bool { return s.fitness(peer) > 0 })
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
