package dialog

import (
	"net/netip"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/sipuri"
	"sipdialog.example/dialog/internal/transport"
)

// NATPolicy sets when a request inside a call, without a recorded route, goes to the
// source of the peer's messages instead of to its Contact: a peer behind a NAT may not
// know the address at which it is reached.
type NATPolicy int

const (
	// NATAuto: if the address in the Contact has a narrower scope than the source of
	// the messages (and an incoming call has passed no proxy): that of a host, a link
	// (169.254/16, fe80::/10), a site (RFC 1918, RFC 4193), or a provider's network
	// (RFC 6598); or if the Contact has a name without hosts (RFC 7118 5).
	NATAuto NATPolicy = iota
	// NATNever: never, as RFC 3261 12.2.1.1 requires.
	NATNever
	// NATAlways: if the two addresses differ, over UDP also if only the ports differ, or
	// if the Contact has a name.
	NATAlways
)

// hides reports whether a peer with that Contact is reached by the flow instead.
func (p NATPolicy) hides(contact sip.Uri, f *transport.Flow) bool {
	if p == NATNever || f == nil {
		return false
	}
	return p == NATAlways && !isAt(contact, f) || isUnreachable(contact, f)
}

// isAt reports whether a URI has the address of a flow's peer. The port of an inbound
// connection is of no account.
func isAt(contact sip.Uri, f *transport.Flow) bool {
	address, ok := literal(contact.Host)
	return ok && address == f.RemoteAddr().Addr().Unmap() && (f.Reliable() || portOf(contact) == f.RemoteAddr().Port())
}

// isUnreachable reports whether a Contact cannot be reached from the network in which
// the flow's peer is.
func isUnreachable(contact sip.Uri, f *transport.Flow) bool {
	address, ok := literal(contact.Host)
	if !ok {
		return isNobodys(contact.Host)
	}
	return scopeOf(address) > scopeOf(f.RemoteAddr().Addr().Unmap())
}

// scope is the range within which an address names one host, the widest first.
type scope int

const (
	scopeInternet scope = iota
	scopeProvider       // RFC 6598
	scopeSite           // RFC 1918, RFC 4193
	scopeLink
	scopeHost
)

func scopeOf(a netip.Addr) scope {
	switch {
	case a.IsLoopback(), a.IsUnspecified():
		return scopeHost
	case a.IsLinkLocalUnicast():
		return scopeLink
	case a.IsPrivate():
		return scopeSite
	case a.Is4() && a.As4()[0] == 100 && a.As4()[1]&0xc0 == 64: // 100.64.0.0/10
		return scopeProvider
	}
	return scopeInternet
}

// isNobodys reports whether a name is in a domain that has no hosts (RFC 6761 6.4).
func isNobodys(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "invalid" || strings.HasSuffix(host, ".invalid")
}

// literal reads a URI's host as an IP address.
func literal(host string) (netip.Addr, bool) {
	address, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return address.Unmap(), err == nil
}

// learnFlowLocked records the flow of an INVITE or UPDATE of the peer, whose Contact is
// the target by now.
func (s *dialogState) learnFlowLocked(req *sipmsg.Message, f *transport.Flow) {
	s.flow, s.inboundConn = f, true
	s.nat = req.Vias == 1 && s.d.config().NAT.hides(s.Target(), s.flow)
	s.d.keepLocked()
}

// keepLocked keeps the present flow of the call open, and releases the one before. The
// flow is a connection, or over UDP a path through a NAT, the peer's or ours.
func (d *Dialog) keepLocked() {
	s := d.currentLocked()
	f := s.flow
	if f.Same(d.kept) || d.state == DialogStateTerminated {
		return
	}
	d.dropFlowLocked()
	if f != nil && (f.Reliable() || s.nat || f.Translated()) {
		f.Hold()
		d.kept = f
	}
}

// dropFlowLocked releases the flow that is kept open.
func (d *Dialog) dropFlowLocked() {
	if d.kept != nil {
		d.kept.Release()
		d.kept = nil
	}
}

// natFlowLocked is the flow of a peer behind a NAT that is reached by it only, or the
// one that the application has named; else nil.
func (s *dialogState) natFlowLocked() *transport.Flow {
	if isWebSocket(s.flow) || s.flowNamed || s.flow != nil && s.nat && len(s.RouteSet()) == 0 {
		return s.flow
	}
	return nil
}

// flowLocked is the flow by which requests go to the peer, while it is open. That is
// always the flow of a WebSocket, the only one to a browser (RFC 7118 5); that of a
// peer behind a NAT; and a connection to the next hop, so that no second connection,
// and no datagram, overtakes earlier messages (RFC 5626 5.3).
func (s *dialogState) flowLocked() *transport.Flow {
	if f := s.natFlowLocked(); f != nil {
		return f
	}
	f := s.flow
	nextHop := s.Hop()
	if isOpen(f) && leadsTo(f, nextHop) && (s.inboundConn || portAt(f, nextHop) == f.RemoteAddr().Port()) {
		return f
	}
	if s.detour.leadsTo(nextHop) {
		return s.detour.flow
	}
	return nil
}

// isOpen reports whether a flow is a connection that is not lost.
func isOpen(f *transport.Flow) bool { return f != nil && f.Reliable() && f.Err() == nil }

// portOf is the port that a URI names.
func portOf(uri sip.Uri) uint16 {
	switch {
	case uri.Port != 0:
		return uint16(uri.Port)
	case sipuri.IsSIPS(uri), strings.EqualFold(transportOf(uri), "tls"):
		return defaultTLSPort
	}
	return defaultPort
}

// portAt is the port of a URI to which a flow leads.
func portAt(f *transport.Flow, uri sip.Uri) uint16 {
	if uri.Port == 0 && f.Transport() == "TLS" {
		return defaultTLSPort
	}
	return portOf(uri)
}

// leadsTo reports whether a connection ends at the host of a URI, and the URI does not
// ask for another transport: many peers call by TCP or TLS with a Contact that names no
// transport. The source port of the peer is of no account.
func leadsTo(f *transport.Flow, nextHop sip.Uri) bool {
	switch name := transportOf(nextHop); {
	case sipuri.IsSIPS(nextHop) && f.Transport() != "TLS":
		return false
	case !sipuri.IsSIPS(nextHop) && name != "" && !strings.EqualFold(name, f.Transport()):
		return false
	}
	address, ok := literal(hostOf(nextHop))
	return ok && address == f.RemoteAddr().Addr().Unmap()
}

// transportOf is the transport parameter of a URI.
func transportOf(uri sip.Uri) string {
	name, _ := sipuri.Param(uri.UriParams, "transport")
	return name
}

// hostOf is the destination of a URI: its maddr parameter, or its host (RFC 3261
// 19.1.1).
func hostOf(uri sip.Uri) string {
	if maddr, ok := sipuri.Param(uri.UriParams, "maddr"); ok && maddr != "" {
		return maddr
	}
	return uri.Host
}

// detour is the TCP connection of a request that was too long for the UDP of its next
// hop (RFC 3261 18.1.1). Later requests, and the ACK, use it too: they would overtake
// the request otherwise. It is not written to.
type detour struct {
	flow    *transport.Flow
	nextHop sip.Uri
}

// leadsTo reports whether the next hop is still that of the connection.
func (t *detour) leadsTo(nextHop sip.Uri) bool {
	if t == nil || !isOpen(t.flow) || !meansUDP(nextHop) {
		return false
	}
	remote := t.flow.RemoteAddr()
	if address, ok := literal(hostOf(nextHop)); ok {
		return address == remote.Addr().Unmap() && portAt(t.flow, nextHop) == remote.Port()
	}
	return strings.EqualFold(hostOf(nextHop), hostOf(t.nextHop)) && nextHop.Port == t.nextHop.Port
}

// meansUDP reports whether a request for a URI goes by UDP unless it is too long.
func meansUDP(uri sip.Uri) bool {
	name := transportOf(uri)
	return !sipuri.IsSIPS(uri) && (name == "" || strings.EqualFold(name, "udp"))
}

// noteDetour records the TCP connection of a request that was too long for the UDP of its
// next hop.
func (d *Dialog) noteDetour(e *earlyDialog, nextHop sip.Uri, f *transport.Flow) {
	if f == nil || f.Transport() != "TCP" || !meansUDP(nextHop) {
		return
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.stateOfLocked(e).detour = &detour{flow: f, nextHop: nextHop}
}

// isWebSocket reports whether the peer can be reached by this connection only.
func isWebSocket(f *transport.Flow) bool {
	return f != nil && strings.HasPrefix(f.Transport(), "WS")
}

func isEncrypted(f *transport.Flow) bool { return f != nil && f.Encrypted() }

// watchCaller ends an unanswered call when its WebSocket is lost: no response can reach
// its client any more (RFC 7118 5). The response to a TCP client goes by a new
// connection (RFC 3261 18.2.2).
func (d *Dialog) watchCaller(tx serverTx) {
	flow := tx.Flow()
	if !isWebSocket(flow) {
		return
	}
	unwatch := flow.Watch(func(err error) {
		d.background(func() {
			d.hangupUnanswered(&ending{cause: Cause{By: PartyTransport, Method: "INVITE", Err: transportError(err)}})
		})
	})
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.incoming.tx != tx { // answered meanwhile
		unwatch()
		return
	}
	d.ringing.unwatch = unwatch
}
