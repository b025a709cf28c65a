package txn

import (
	"log/slog"
	"sync/atomic"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
)

// sipVersion is the only version there is.
const sipVersion = "SIP/2.0"

// receive takes each message from the read loops.
func (l *Layer) receive(m *sipmsg.Message, flow *transport.Flow) {
	defer l.survive("message")
	switch {
	case l.closed.Load():
	case m.IsRequest():
		l.receiveRequest(m, flow)
	default:
		l.receiveResponse(m, flow)
	}
}

// logBadInput counts and logs a message that is not delivered, without its contents.
func (l *Layer) logBadInput(m *sipmsg.Message, flow *transport.Flow, count *atomic.Uint64, reason string) {
	count.Add(1)
	if !l.log.Enabled(l.ctx, slog.LevelDebug) {
		return
	}
	method := m.Method
	if method == "" {
		method = m.CSeqMethod
	}
	l.log.Debug("bad input", "peer", flow.RemoteAddr(), "method", method, "call_id", m.CallID, "reason", reason)
}

func (l *Layer) receiveRequest(m *sipmsg.Message, flow *transport.Flow) {
	if code, reason := checkRequest(m); code != 0 {
		l.refuse(m, flow, code, reason)
		return
	}
	var buffer [160]byte
	k, id, old := appendServerKey(buffer[:0], m)
	switch m.Method {
	case sip.ACK:
		l.receiveAck(m, flow, k, old)
	case sip.CANCEL:
		l.receiveCancel(m, flow, string(k[:id]))
	default:
		l.receiveNew(m, flow, k)
	}
}

func (l *Layer) receiveResponse(m *sipmsg.Message, flow *transport.Flow) {
	if reason := checkResponse(m); reason != "" {
		l.logBadInput(m, flow, &l.counters.malformed, reason)
		return
	}
	// RFC 3261 17.1.3, by the branch and the method in CSeq.
	var buffer [160]byte
	k := appendClientKey(buffer[:0], m.Via.Branch(), m.CSeqMethod)
	tx, ok := l.clients.find(k)
	if !ok {
		if !l.responsePast(k, m) && !l.wanted(m) {
			l.logBadInput(m, flow, &l.counters.unmatched, "Unmatched Response") // RFC 6026 8.9
		}
		return
	}
	tx.flow.Learn(&m.Via)
	tx.heardBy(flow)
	tx.receive(m)
}

// wanted hands over a 2xx to an INVITE of which there is no transaction, and reports whether
// the layer above wants it: the process that has sent the INVITE may have died.
func (l *Layer) wanted(m *sipmsg.Message) bool {
	if l.unmatched == nil || m.CSeqMethod != sip.INVITE || !m.IsSuccess() {
		return false
	}
	work := l.unmatched(m)
	return work != nil && l.queues.push(m.CallID, l.queueLen, work)
}

// checkRequest returns the status that refuses a request without the headers that the
// layers above need (RFC 3261 8.1.1, 16.3), or 0.
func checkRequest(m *sipmsg.Message) (code int, reason string) {
	switch missing := missingField(m); {
	case missing != "":
		return sip.StatusBadRequest, "Missing " + missing
	case !sipmsg.EqualFold(m.Version, sipVersion):
		return sip.StatusVersionNotSupported, "Version Not Supported"
	case m.Method != m.CSeqMethod:
		return sip.StatusBadRequest, "CSeq Method Mismatch"
	}
	return 0, ""
}

// checkResponse returns why a response is dropped, or an empty text. A response with more
// than one Via was misrouted (RFC 3261 8.1.3.3).
func checkResponse(m *sipmsg.Message) (reason string) {
	switch missing := missingField(m); {
	case missing != "":
		return "Missing " + missing
	case !sipmsg.EqualFold(m.Version, sipVersion):
		return "Version Not Supported"
	case m.Vias > 1:
		return "Several Via"
	}
	return ""
}

// missingField names a header field without which there is no transaction.
func missingField(m *sipmsg.Message) string {
	switch {
	case !m.HasVia():
		return "Via"
	case m.CSeqMethod == "":
		return "CSeq"
	case m.CallID == "":
		return "Call-ID"
	case !m.HasFrom:
		return "From"
	case !m.HasTo:
		return "To"
	}
	return ""
}

// refuse answers a malformed request without state (RFC 3261 8.2.7). An ACK is
// never answered; without a Via there is nowhere to send to.
func (l *Layer) refuse(m *sipmsg.Message, flow *transport.Flow, code int, reason string) {
	l.logBadInput(m, flow, &l.counters.malformed, reason)
	if !m.HasVia() || m.Method == sip.ACK {
		return
	}
	// When it is lost, that is as good as dropping the request.
	_ = l.transport.Reply(flow, m).Send(m.Reply(&sipmsg.Reply{Code: code, Reason: reason, Tag: newTag()}))
}
