package dialogtest

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// directory holds the names of a network. Hosts behind its routers resolve them too.
type directory struct {
	mu       sync.Mutex // guards the fields below; the last mutex in the lock order
	names    map[string][]netip.Addr
	services map[string][]net.SRV
}

func newDirectory() *directory {
	return &directory{names: make(map[string][]netip.Addr), services: make(map[string][]net.SRV)}
}

// Name sets the IP addresses of a name, in this order. They replace its earlier
// addresses; without ips the name is removed. The addresses need not be hosts of the
// network. Names are not case-sensitive, and a dot at their end is ignored. Name panics
// if one of ips is not an IP address.
func (n *Network) Name(name string, ips ...string) {
	addrs := make([]netip.Addr, len(ips))
	for i, ip := range ips {
		addrs[i] = netip.MustParseAddr(ip).Unmap()
	}
	n.directory.mu.Lock()
	n.directory.names[canonical(name)] = addrs
	n.directory.mu.Unlock()
}

// Service sets the SRV records of a service, such as "sip", "udp" and "example.com".
// They replace its earlier records; without records the service is removed.
func (n *Network) Service(service, proto, name string, records ...net.SRV) {
	n.directory.mu.Lock()
	n.directory.services[serviceName(service, proto, name)] = slices.Clone(records)
	n.directory.mu.Unlock()
}

// LookupNetIP returns the addresses that [Network.Name] has given to a name, like the
// method of net.Resolver. It uses only the names of this network. For an unknown name,
// and on an unreachable host, it returns a *net.DNSError. A stack whose network is a
// Host resolves names with it.
func (h *Host) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	if err := h.ask(ctx, host); err != nil {
		return nil, err
	}
	known := h.network.directory
	known.mu.Lock()
	defer known.mu.Unlock()
	var found []netip.Addr
	for _, ip := range known.names[canonical(host)] {
		if network == "ip" || ip.Is4() == (network == "ip4") {
			found = append(found, ip)
		}
	}
	if len(found) == 0 {
		return nil, unknown(host)
	}
	return found, nil
}

// LookupSRV returns the records that [Network.Service] has set, sorted by priority.
// Records of one priority keep their order: weights are ignored. Errors are as for
// LookupNetIP.
func (h *Host) LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error) {
	full := serviceName(service, proto, name)
	if err := h.ask(ctx, full); err != nil {
		return "", nil, err
	}
	known := h.network.directory
	known.mu.Lock()
	defer known.mu.Unlock()
	records := known.services[full]
	if len(records) == 0 {
		return "", nil, unknown(full)
	}
	list := make([]*net.SRV, len(records))
	for i := range records {
		record := records[i]
		list[i] = &record
	}
	slices.SortStableFunc(list, func(a, b *net.SRV) int { return cmp.Compare(a.Priority, b.Priority) })
	return full + ".", list, nil
}

// ask returns the error for a host that cannot look up a name.
func (h *Host) ask(ctx context.Context, name string) error {
	h.network.mu.Lock()
	defer h.network.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case h.network.closed:
		return &net.DNSError{UnwrapErr: net.ErrClosed, Err: net.ErrClosed.Error(), Name: name}
	case h.unreachable:
		return &net.DNSError{Err: "host is unreachable", Name: name, IsTemporary: true}
	}
	return nil
}

// unknown returns the error for a name that does not exist.
func unknown(name string) error {
	return &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// serviceName returns the name of SRV records (RFC 2782). As in net.Resolver, without
// service and proto it returns name itself.
func serviceName(service, proto, name string) string {
	if service == "" && proto == "" {
		return canonical(name)
	}
	return canonical("_" + service + "._" + proto + "." + name)
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
