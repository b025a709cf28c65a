package dialog

import (
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/nat"
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
	at := natFlow(f)
	return p == NATAlways && !nat.IsAt(contact, at) || nat.IsUnreachable(contact, at)
}

// natFlow is what internal/nat needs to know of a flow.
func natFlow(f *transport.Flow) nat.Flow {
	return nat.Flow{Remote: f.RemoteAddr(), Transport: f.Transport()}
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
	if isOpen(f) && nat.LeadsTo(natFlow(f), nextHop) && (s.inboundConn || nat.PortAt(natFlow(f), nextHop) == f.RemoteAddr().Port()) {
		return f
	}
	if s.detour.leadsTo(nextHop) {
		return s.detour.flow
	}
	return nil
}

// isOpen reports whether a flow is a connection that is not lost.
func isOpen(f *transport.Flow) bool { return f != nil && f.Reliable() && f.Err() == nil }

// detour is the TCP connection of a request that was too long for the UDP of its next
// hop (RFC 3261 18.1.1). Later requests, and the ACK, use it too: they would overtake
// the request otherwise. It is not written to.
type detour struct {
	flow    *transport.Flow
	nextHop sip.Uri
}

// leadsTo reports whether the next hop is still that of the connection.
func (t *detour) leadsTo(nextHop sip.Uri) bool {
	return t != nil && isOpen(t.flow) && nat.IsDetour(natFlow(t.flow), t.nextHop, nextHop)
}

// noteDetour records the TCP connection of a request that was too long for the UDP of its
// next hop.
func (d *Dialog) noteDetour(e *earlyDialog, nextHop sip.Uri, f *transport.Flow) {
	if f == nil || f.Transport() != "TCP" || !sipuri.MeansUDP(nextHop) {
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
