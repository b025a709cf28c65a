package transport

import (
	"hash/maphash"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// markVia writes into a request's top Via where it came from (RFC 3261 18.2.1,
// RFC 3581 4). What the peer itself claims there is replaced: answers would
// follow it.
func markVia(via *sip.ViaHeader, source netip.AddrPort) {
	if via == nil {
		return
	}
	ip := source.Addr().WithZone("")
	_, rport := via.Params.Get("rport")
	if rport {
		via.Params.Add("rport", strconv.Itoa(int(source.Port())))
	}
	sentBy, err := netip.ParseAddr(strings.Trim(via.Host, "[]"))
	if rport || err != nil || sentBy.Unmap() != ip {
		via.Params.Add("received", ip.String())
		return
	}
	via.Params.Remove("received")
}

// Reply returns where a response to a request goes that came by flow with the
// top Via via: on a stream the same connection; on UDP, always from the same
// socket, for rport back to the source (RFC 3581 4), else to the source's address
// and the sent-by port (RFC 3261 18.2.2). A nil via means back to the source. It
// does not block.
//
// A maddr parameter, which would come first, is heeded only where Config.FollowMaddr
// says so: whoever writes it has us send our responses, and their repetitions, to
// anybody.
func (l *Layer) Reply(flow *Flow, via *sip.ViaHeader) *Flow {
	if flow.stream != nil || via == nil {
		return flow
	}
	port := sentByPort(via, flow.socket.kind)
	if addr, ok := maddrOf(via); ok && l.cfg.FollowMaddr && flow.socket.fitness(addr) > 0 {
		return flow.to(netip.AddrPortFrom(addr, port))
	}
	if via.Params.Has("rport") {
		return flow
	}
	return flow.to(netip.AddrPortFrom(flow.remote.Addr(), port))
}

// maddrOf is the address that a Via asks responses to be sent to, if it names one.
func maddrOf(via *sip.ViaHeader) (netip.Addr, bool) {
	maddr, _ := via.Params.Get("maddr")
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
func (l *Layer) ReplyTarget(flow *Flow, via *sip.ViaHeader) (Target, bool) {
	if flow.stream == nil || flow.stream.kind.frames || via == nil {
		return Target{}, false
	}
	k := flow.stream.kind
	target := Target{Transport: k.name, Addr: netip.AddrPortFrom(flow.remote.Addr(), sentByPort(via, k))}
	if _, err := netip.ParseAddr(strings.Trim(via.Host, "[]")); k.secure && err != nil {
		target.ServerName = via.Host // the certificate must be the sent-by's
	}
	return target, true
}

func sentByPort(via *sip.ViaHeader, k kind) uint16 {
	if via.Port > 0 && via.Port <= math.MaxUint16 {
		return uint16(via.Port)
	}
	return uint16(k.port)
}

// refusal builds the stateless answer to a request that does not parse
// (RFC 3261 8.2.6), from whatever of its headers is there.
func (l *Layer) refusal(req *sip.Request, f *fault) *sip.Response {
	res := sip.NewResponse(f.code, f.reason)
	for _, name := range []string{"Via", "From", "To", "Call-ID", "CSeq"} {
		for _, h := range req.GetHeaders(name) {
			res.AppendHeader(sip.HeaderClone(h))
		}
	}
	if to, ok := res.GetHeader("To").(*sip.ToHeader); ok && !to.Params.Has("tag") {
		to.Params.Add("tag", l.statelessTag(req))
	}
	none := sip.ContentLengthHeader(0)
	res.AppendHeader(&none)
	return res
}

// statelessTag is the same for each repetition of a request (RFC 3261 8.2.7).
func (l *Layer) statelessTag(req *sip.Request) string {
	var h maphash.Hash
	h.SetSeed(l.seed)
	for _, name := range []string{"Via", "From", "Call-ID", "CSeq"} {
		if field := req.GetHeader(name); field != nil {
			_, _ = h.WriteString(field.Value())
		}
		_ = h.WriteByte('\n')
	}
	return strconv.FormatUint(h.Sum64(), 16)
}
