package txn

import (
	"log/slog"
	"strings"
	"sync/atomic"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/transport"
)

// sipVersion is the only version there is.
const sipVersion = "SIP/2.0"

// receive takes each message from the read loops.
func (l *Layer) receive(msg sip.Message, flow *transport.Flow) {
	defer l.survive("message")
	if l.closed.Load() {
		return
	}
	switch m := msg.(type) {
	case *sip.Request:
		l.receiveRequest(m, flow)
	case *sip.Response:
		l.receiveResponse(m, flow)
	}
}

// turnDown notes input that goes no further: once, without its contents.
func (l *Layer) turnDown(msg sip.Message, flow *transport.Flow, count *atomic.Uint64, reason string) {
	count.Add(1)
	if !l.log.Enabled(l.ctx, slog.LevelDebug) {
		return
	}
	var method sip.RequestMethod
	var callID string
	if cseq := msg.CSeq(); cseq != nil {
		method = cseq.MethodName
	}
	if req, ok := msg.(*sip.Request); ok {
		method = req.Method
	}
	if id := msg.CallID(); id != nil {
		callID = id.Value()
	}
	l.log.Debug("txn: bad input", "remote", flow.RemoteAddr(), "method", method, "call_id", callID, "reason", reason)
}

func (l *Layer) receiveRequest(req *sip.Request, flow *transport.Flow) {
	if code, reason := checkRequest(req); code != 0 {
		l.refuse(req, flow, code, reason)
		return
	}
	id, old := requestID(req)
	switch k := serverKey(id, req.Method); req.Method {
	case sip.ACK:
		l.receiveAck(req, k, old)
	case sip.CANCEL:
		l.receiveCancel(req, flow, id)
	default:
		l.receiveNew(req, flow, k)
	}
}

func (l *Layer) receiveResponse(res *sip.Response, flow *transport.Flow) {
	if reason := checkResponse(res); reason != "" {
		l.turnDown(res, flow, &l.counters.malformed, reason)
		return
	}
	// RFC 3261 17.1.3, by the branch and the method in CSeq.
	branch, _ := res.Via().Params.Get("branch")
	tx, ok := l.clients.get(clientKey(branch, res.CSeq().MethodName))
	if !ok {
		l.turnDown(res, flow, &l.counters.unmatched, "Unmatched Response") // RFC 6026 8.9
		return
	}
	tx.receive(res)
}

// checkRequest returns the status that refuses a request which lacks what
// the layers above rely on (RFC 3261 8.1.1, 16.3), or 0.
func checkRequest(req *sip.Request) (code int, reason string) {
	missing := missingHeader(req)
	switch {
	case req.Via() == nil:
		return sip.StatusBadRequest, "Missing Via"
	case missing != "":
		return sip.StatusBadRequest, "Missing " + missing
	case !strings.EqualFold(req.SipVersion, sipVersion):
		return sip.StatusVersionNotSupported, "Version Not Supported"
	case req.Method != req.CSeq().MethodName:
		return sip.StatusBadRequest, "CSeq Method Mismatch"
	}
	return 0, ""
}

// checkResponse returns why a response is dropped, or nothing. One with more than
// one Via was meant for somebody else (RFC 3261 8.1.3.3).
func checkResponse(res *sip.Response) (reason string) {
	missing := missingHeader(res)
	switch {
	case res.Via() == nil:
		return "Missing Via"
	case missing != "":
		return "Missing " + missing
	case !strings.EqualFold(res.SipVersion, sipVersion):
		return "Version Not Supported"
	case countVias(res) > 1:
		return "Several Via"
	case res.StatusCode < 100 || res.StatusCode > 699:
		return "Status Out Of Range"
	}
	return ""
}

func countVias(res *sip.Response) int {
	n := 0
	for _, h := range res.Headers() {
		if _, ok := h.(*sip.ViaHeader); ok {
			n++
		}
	}
	return n
}

// missingHeader names a header other than Via without which there is no
// transaction. All of them are touched: sipgo's getters may parse at the first call, and
// later on others read the message too.
func missingHeader(msg sip.Message) string {
	missing := ""
	if cseq := msg.CSeq(); cseq == nil || cseq.MethodName == "" {
		missing = "CSeq"
	}
	if id := msg.CallID(); id == nil || *id == "" {
		missing = "Call-ID"
	}
	if msg.From() == nil {
		missing = "From"
	}
	if msg.To() == nil {
		missing = "To"
	}
	return missing
}

// refuse answers a malformed request without state (RFC 3261 8.2.7). An ACK is
// never answered; without a Via there is nowhere to send to.
func (l *Layer) refuse(req *sip.Request, flow *transport.Flow, code int, reason string) {
	l.turnDown(req, flow, &l.counters.malformed, reason)
	via := req.Via()
	if via == nil || req.Method == sip.ACK {
		return
	}
	res := respond(req, code, reason, newTag())
	// When it is lost, that is as good as dropping the request.
	_ = l.transport.Reply(flow, via).Send(transport.Encode(res))
}
