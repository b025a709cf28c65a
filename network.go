package dialog

import (
	"net/netip"
)

// PublicAddr returns the address and port that peer sees when we send to it, as its
// latest response to a request of ours has said in received and rport of our Via (RFC
// 3261 18.2.1, RFC 3581 4): over UDP, else by the connection to that address and port.
// Behind a NAT that is not our own, and another one for each peer, with many a NAT. It
// is false for who has not been sent a request, or does not say. It does not block.
func (s *Stack) PublicAddr(peer netip.AddrPort) (seen netip.AddrPort, ok bool) {
	if sockets := s.socketsNow(); sockets != nil {
		return sockets.Public(peer)
	}
	return seen, false
}

// NetworkChanged says that the host's addresses or routes may have changed, for those
// who are told so by the operating system: what has been learnt of them is forgotten, so
// that all that is sent from now on says where we are, and no connection is trusted that
// was open before: each is pinged, and replaced by another one where that is possible,
// until something comes by it. No request is sent: a call whose peer is to know our new
// address needs a re-INVITE. Without it an INVITE,
// re-INVITE, UPDATE, SUBSCRIBE, NOTIFY, REFER or REGISTER says where we were a second
// ago at worst, any other request where we were a minute ago. It does not block.
func (s *Stack) NetworkChanged() {
	if sockets := s.socketsNow(); sockets != nil {
		sockets.Changed()
	}
}
