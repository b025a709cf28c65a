package transport

import (
	"bytes"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
)

const (
	crlf     = "\r\n"
	endBlock = "\r\n\r\n"
)

// inbound handles the messages that a read loop finds. One read loop
// uses it.
type inbound struct {
	// Set at construction.
	layer   *Layer
	handler Handler
}

func (l *Layer) newInbound() *inbound {
	return &inbound{layer: l, handler: l.handlerNow()}
}

// datagram takes one datagram: one message (RFC 3261 18.3), or line ends only,
// which some clients send as keep-alives.
func (in *inbound) datagram(data []byte, flow *Flow) {
	defer in.layer.survive("message")
	rest := bytes.TrimLeft(data, crlf)
	if len(rest) == 0 {
		return
	}
	m, _ := decodeWhole(rest, in.layer.limits)
	in.deliver(m, data, flow)
}

func badRequest(reason string) *sipmsg.Fault {
	return &sipmsg.Fault{Code: sip.StatusBadRequest, Reason: reason}
}

// decodeWhole decodes a copy of what is known to be one message, as a datagram
// is. The body is all the rest when there is no Content-Length; what is beyond the
// length is discarded (RFC 3261 18.3), and too little is an error. A response can
// do without a length that can be read.
func decodeWhole(data []byte, limits Limits) (m *sipmsg.Message, beyond int) {
	head, body, ended := sipmsg.CutHead(bytes.Clone(data))
	m = sipmsg.Decode(head, limits.Headers)
	if m == nil {
		return nil, 0
	}
	switch {
	case !ended:
		m.Fail(badRequest("Header Block Without End"))
	case len(head) > limits.HeaderBytes:
		m.Fail(badRequest("Header Block Too Large"))
	case m.LengthFault != nil && m.IsRequest():
		m.Fail(m.LengthFault)
	case m.LengthFault != nil || m.Length < 0:
	case m.Length > len(body):
		m.Fail(badRequest("Content-Length Beyond the Message"))
	default:
		body, beyond = body[:m.Length], len(body)-m.Length
	}
	if len(body) > limits.BodyBytes {
		m.Fail(tooLarge())
	}
	if m.Fault == nil {
		m.SetBody(body)
	}
	return m, beyond
}

func tooLarge() *sipmsg.Fault {
	return &sipmsg.Fault{Code: sip.StatusRequestEntityTooLarge, Reason: "Request Entity Too Large"}
}

// deliver hands a whole message up, or answers its fault. m is nil
// for data that is not SIP.
func (in *inbound) deliver(m *sipmsg.Message, raw []byte, flow *Flow) {
	in.layer.trace(false, flow, raw)
	if m == nil {
		in.drop(flow, "no SIP message")
		return
	}
	m.Arrived(flow.Transport(), flow.remote)
	switch {
	case m.Fault == nil:
		in.layer.counters.messagesIn.Add(1)
		in.handler(m, flow)
	case m.IsRequest():
		in.refuse(m, flow)
	default:
		in.drop(flow, m.Fault.Reason)
	}
}

// refuse answers a malformed request without state; never an ACK (RFC 3261 17),
// and only where there is a Via to answer to.
func (in *inbound) refuse(m *sipmsg.Message, flow *Flow) {
	if m.Method == sip.ACK || !m.HasVia() {
		in.drop(flow, m.Fault.Reason)
		return
	}
	if err := in.layer.replyToSource(flow, m).Send(in.layer.refusal(m)); err != nil {
		in.drop(flow, m.Fault.Reason)
		return
	}
	in.layer.counters.answered400.Add(1)
	in.layer.log.Debug("transport: malformed request refused", "remote", flow.remote, "reason", m.Fault.Reason)
}

// drop counts. The log line is for debugging and holds nothing of the message:
// anyone can send garbage.
func (in *inbound) drop(flow *Flow, reason string) {
	in.layer.counters.malformed.Add(1)
	in.layer.log.Debug("transport: message dropped", "remote", flow.remote, "reason", reason)
}
