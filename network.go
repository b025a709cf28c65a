package dialog

import (
	"net/netip"
)

// PublicAddr returns our address and port as the peer sees them: those in received and
// rport of our Via in its latest response to a request of ours (RFC 3261 18.2.1, RFC
// 3581 4), over UDP, else by the connection to that address and port. Behind a NAT they
// are not our own, and many NATs use others for each peer. ok is false for a peer that
// has had no request, or does not send them. It does not block.
func (s *Stack) PublicAddr(peer netip.AddrPort) (seen netip.AddrPort, ok bool) {
	if sockets := s.socketsNow(); sockets != nil {
		return sockets.Public(peer)
	}
	return seen, false
}

// NetworkChanged says that the host's addresses or routes may have changed. Call it
// when the operating system reports that. Learnt addresses are forgotten, so that all
// later messages have the present ones, and no open connection is trusted: each is
// pinged, and replaced by another where that is possible, until a message arrives by
// it. No request is sent: a call needs a re-INVITE to tell its peer the new address.
// Without NetworkChanged the address in an INVITE, re-INVITE, UPDATE, SUBSCRIBE,
// NOTIFY, REFER or REGISTER is at most a second old, that in any other request at most
// a minute. It does not block.
func (s *Stack) NetworkChanged() {
	if sockets := s.socketsNow(); sockets != nil {
		sockets.Changed()
	}
}
