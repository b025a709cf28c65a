package transport

import (
	"hash/maphash"
	"net/netip"
	"strconv"
	"strings"

	"sipdialog.example/dialog/internal/sipmsg"
)

// Reply returns the flow for a response to the request m that arrived on flow: on a stream the
// same connection; on UDP, always from the same socket, for rport back to the source (RFC 3581
// 4), else to the source's address and the sent-by port (RFC 3261 18.2.2). It does not block.
//
// A maddr parameter, which would come first, is followed only with Config.FollowMaddr:
// otherwise a sender could direct our responses, and their repetitions, to any address.
func (l *Layer) Reply(flow *Flow, m *sipmsg.Message) *Flow {
	if addr, ok := maddrOf(m); ok && l.cfg.FollowMaddr && flow.stream == nil && flow.socket.fitness(addr) > 0 {
		return flow.to(netip.AddrPortFrom(addr, sentByPort(&m.Via, flow.socket.kind)))
	}
	return l.replyToSource(flow, m)
}

// replyToSource is Reply for a request that is not to be believed: it goes to no
// other address than it came from.
func (l *Layer) replyToSource(flow *Flow, m *sipmsg.Message) *Flow {
	if _, rport := m.Via.Params.Get("rport"); rport || flow.stream != nil || !m.HasVia() {
		return flow
	}
	return flow.to(netip.AddrPortFrom(flow.remote.Addr(), sentByPort(&m.Via, flow.socket.kind)))
}

// maddrOf is the address that a request asks responses to be sent to, if it names
// one.
func maddrOf(m *sipmsg.Message) (netip.Addr, bool) {
	maddr, found := m.Via.Params.Get("maddr")
	if !found {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(strings.Trim(maddr, "[]"))
	return addr.Unmap(), err == nil && !addr.IsUnspecified()
}

// to is another peer of the same UDP socket.
func (f *Flow) to(peer netip.AddrPort) *Flow {
	if f.remote == peer {
		return f
	}
	return &Flow{layer: f.layer, socket: f.socket, remote: peer}
}

// ReplyTarget returns where to connect for a response once the request's
// stream is lost: the address it came from, which is what "received" says or
// the sent-by, and the sent-by port (RFC 3261 18.2.2). It reports false for
// UDP, which is never lost, for WebSockets, whose clients cannot be connected
// to (RFC 7118 5), and without a Via.
func (l *Layer) ReplyTarget(flow *Flow, m *sipmsg.Message) (Target, bool) {
	if flow.stream == nil || flow.stream.kind.frames || !m.HasVia() {
		return Target{}, false
	}
	via := &m.Via
	k := flow.stream.kind
	target := Target{Transport: k.name, Addr: netip.AddrPortFrom(flow.remote.Addr(), sentByPort(via, k))}
	if _, err := netip.ParseAddr(via.Host); k.secure && err != nil {
		target.ServerName = via.Host // the certificate must be the sent-by's
	}
	return target, true
}

func sentByPort(via *sipmsg.SentBy, k kind) uint16 {
	if via.Port > 0 {
		return uint16(via.Port)
	}
	return uint16(k.port)
}

// refusal is the stateless answer to a request that does not parse (RFC 3261
// 8.2.6), from whatever of its headers is there.
func (l *Layer) refusal(m *sipmsg.Message) []byte {
	return m.Reply(&sipmsg.Reply{Code: m.Fault.Code, Reason: m.Fault.Reason, Tag: l.statelessTag(m)})
}

// statelessTag is the same for each repetition of a request (RFC 3261 8.2.7).
func (l *Layer) statelessTag(m *sipmsg.Message) string {
	var h maphash.Hash
	h.SetSeed(l.seed)
	for _, name := range []string{"Via", "From", "Call-ID", "CSeq"} {
		value, _ := m.Value(name)
		_, _ = h.WriteString(value)
		_ = h.WriteByte('\n')
	}
	return strconv.FormatUint(h.Sum64(), 16)
}
