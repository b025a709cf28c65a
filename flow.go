package dialog

import (
	"net/netip"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/transport"
)

// NATPolicy says when requests inside a call, if no route is recorded, go where
// the peer's messages come from rather than to its Contact: a peer behind a NAT
// may not know how it is reached.
type NATPolicy int

const (
	// NATAuto: when the Contact has a private address and the messages come
	// from one that is not (and, for an incoming call, by no proxy).
	NATAuto NATPolicy = iota
	// NATNever: never: RFC 3261 12.2.1.1 to the letter.
	NATNever
	// NATAlways: whenever the two differ.
	NATAlways
)

// hides reports whether a peer with that Contact is to be found at its source.
func (p NATPolicy) hides(contact sip.Uri, source netip.Addr) bool {
	if p == NATNever || !source.IsValid() {
		return false
	}
	address, ok := literal(contact.Host)
	if !ok || address == source {
		return false
	}
	return p == NATAlways || address.IsPrivate() && !source.IsPrivate() && !source.IsLoopback()
}

// literal reads a URI's host as an IP address.
func literal(host string) (netip.Addr, bool) {
	address, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return address.Unmap(), err == nil
}

// cameByLocked notes the way that an INVITE of the peer's came by, whose Contact
// is the target by now.
func (d *Dialog) cameByLocked(tx serverTx) {
	req := tx.Request()
	d.flow, d.called = tx.Flow(), true
	d.behindNAT = isAlone(req, "Via") && d.config().NAT.hides(d.remoteTarget, sourceOf(req.Source()))
}

// flowLocked is the flow by which requests go to the peer, while it lasts: that
// of a WebSocket always, since nothing else leads to a browser (RFC 7118 5);
// that of a peer behind a NAT; and a connection to the next hop, rather than a
// second one beside it, or a datagram that overtakes what was sent by it.
func (d *Dialog) flowLocked() *transport.Flow {
	f := d.flow
	if isWebSocket(f) || f != nil && d.behindNAT && len(d.routeSet) == 0 {
		return f
	}
	hop := d.hopLocked()
	if isOpen(f) && leadsTo(f, hop) && (d.called || portAt(f, hop) == f.RemoteAddr().Port()) {
		return f
	}
	if d.detour.leadsTo(hop) {
		return d.detour.flow
	}
	return nil
}

// isOpen reports whether a flow is a connection that is not lost.
func isOpen(f *transport.Flow) bool { return f != nil && f.Reliable() && f.Err() == nil }

// portOf is the port that a URI names.
func portOf(hop sip.Uri) uint16 {
	switch {
	case hop.Port != 0:
		return uint16(hop.Port)
	case isSIPS(hop), strings.EqualFold(transportOf(hop), "tls"):
		return defaultTLSPort
	}
	return defaultPort
}

// portAt is the port that a URI means when a flow leads there.
func portAt(f *transport.Flow, hop sip.Uri) uint16 {
	if hop.Port == 0 && f.Transport() == "TLS" {
		return defaultTLSPort
	}
	return portOf(hop)
}

// leadsTo reports whether a connection ends at the host that a URI names, and the
// URI does not ask for another transport: many a peer that calls by TCP or TLS
// names none, and means what it has called by. The port that a peer connects from
// says nothing.
func leadsTo(f *transport.Flow, hop sip.Uri) bool {
	switch name := transportOf(hop); {
	case isSIPS(hop) && f.Transport() != "TLS":
		return false
	case !isSIPS(hop) && name != "" && !strings.EqualFold(name, f.Transport()):
		return false
	}
	address, ok := literal(hostOf(hop))
	return ok && address == f.RemoteAddr().Addr().Unmap()
}

// transportOf is the transport parameter of a URI.
func transportOf(uri sip.Uri) string {
	name, _ := findParam(uri.UriParams, "transport")
	return name
}

// hostOf is where a URI leads: its maddr parameter, or its host (RFC 3261 19.1.1).
func hostOf(uri sip.Uri) string {
	if maddr, ok := findParam(uri.UriParams, "maddr"); ok && maddr != "" {
		return maddr
	}
	return uri.Host
}

// detour is the TCP connection that a request went by whose next hop means UDP,
// because of its size (RFC 3261 18.1.1). What follows it goes there too: it would
// overtake the request otherwise, or the ACK would.
type detour struct {
	flow *transport.Flow
	hop  sip.Uri
}

// leadsTo reports whether the next hop is still the one that the connection goes to.
func (t detour) leadsTo(hop sip.Uri) bool {
	if !isOpen(t.flow) || !meansUDP(hop) {
		return false
	}
	remote := t.flow.RemoteAddr()
	if address, ok := literal(hostOf(hop)); ok {
		return address == remote.Addr().Unmap() && portAt(t.flow, hop) == remote.Port()
	}
	return strings.EqualFold(hostOf(hop), hostOf(t.hop)) && hop.Port == t.hop.Port
}

// meansUDP reports whether a request for a URI goes by UDP unless it is too long.
func meansUDP(uri sip.Uri) bool {
	name := transportOf(uri)
	return !isSIPS(uri) && (name == "" || strings.EqualFold(name, "udp"))
}

// wentBy notes the flow that a request of the dialog's has left by; its next hop
// was hop.
func (d *Dialog) wentBy(e *earlyDialog, hop sip.Uri, f *transport.Flow) {
	if f == nil || f.Transport() != "TCP" || !meansUDP(hop) {
		return
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.inForkLocked(e, func() { d.detour = detour{flow: f, hop: hop} })
}

// isWebSocket reports whether nothing but this connection may lead to the peer.
func isWebSocket(f *transport.Flow) bool {
	return f != nil && strings.HasPrefix(f.Transport(), "WS")
}

// reconnected notes by which WebSocket the peer of a lost one has come back,
// whatever it asks: nothing else leads to it (RFC 7118 5).
func (d *Dialog) reconnected(tx serverTx) {
	f := tx.Flow()
	if !isWebSocket(f) {
		return
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if isWebSocket(d.flow) && d.flow.Err() != nil {
		d.flow = f
	}
}

// watchCaller ends an unanswered call with the WebSocket that it came by: no
// answer can get to its client any more (RFC 7118 5). That to a TCP client goes
// by a new connection (RFC 3261 18.2.2).
func (d *Dialog) watchCaller(tx serverTx) {
	flow := tx.Flow()
	if !isWebSocket(flow) {
		return
	}
	unwatch := flow.Watch(func(err error) {
		d.background(func() {
			d.giveUp(&ending{cause: Cause{By: PartyTransport, Method: "INVITE", Err: transportError(err)}})
		})
	})
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.offered != tx { // answered meanwhile
		unwatch()
		return
	}
	d.unwatch = unwatch
}
