package transport

import (
	"bytes"

	"github.com/emiago/sipgo/sip"
)

// inbound is what a read loop does with the messages it finds. One read loop
// uses it.
type inbound struct {
	// Set at construction.
	layer   *Layer
	handler Handler
	dec     *decoder
}

func (l *Layer) newInbound() *inbound {
	return &inbound{layer: l, handler: l.handlerNow(), dec: l.newDecoder()}
}

// datagram takes one datagram: one message (RFC 3261 18.3), or line ends only,
// which some clients send as keep-alives.
func (in *inbound) datagram(data []byte, flow *Flow) {
	defer in.layer.survive("message from " + flow.Transport())
	rest := bytes.TrimLeft(data, crlf)
	if len(rest) == 0 {
		return
	}
	block, body, ended := bytes.Cut(rest, []byte(endBlock))
	p := in.dec.decode(block)
	switch {
	case !ended:
		p.fail(bad("Header Block Without End"))
	case len(block) > in.layer.limits.HeaderBytes:
		p.fail(bad("Header Block Too Large"))
	}
	in.datagramBody(&p, body)
	in.deliver(&p, data, flow)
}

// datagramBody cuts the body (RFC 3261 18.3): without Content-Length it is all
// the rest; what is beyond the length is discarded; too little is an error.
func (in *inbound) datagramBody(p *parsed, rest []byte) {
	switch {
	case p.msg == nil || p.fault != nil:
		return
	case p.length > len(rest):
		p.fail(bad("Content-Length Beyond the Datagram"))
		return
	case p.length >= 0:
		rest = rest[:p.length]
	}
	if len(rest) > in.layer.limits.BodyBytes {
		p.fail(&fault{code: sip.StatusRequestEntityTooLarge, reason: "Request Entity Too Large"})
		return
	}
	p.setBody(rest)
}

// deliver hands a whole message up, or answers what is wrong with it.
func (in *inbound) deliver(p *parsed, raw []byte, flow *Flow) {
	in.layer.trace(false, flow, raw)
	if p.msg == nil {
		in.drop(flow, "no SIP message")
		return
	}
	p.msg.SetTransport(flow.Transport())
	p.msg.SetSource(flow.remote.String())
	req, isRequest := p.msg.(*sip.Request)
	if isRequest {
		markVia(req.Via(), flow.remote)
	}
	switch {
	case p.fault == nil:
		in.layer.counters.messagesIn.Add(1)
		in.handler(p.msg, flow)
	case isRequest:
		in.refuse(req, p.fault, flow)
	default:
		in.drop(flow, p.fault.reason)
	}
}

// refuse answers a malformed request without state; never an ACK (RFC 3261 17),
// and only where there is a Via to answer to.
func (in *inbound) refuse(req *sip.Request, f *fault, flow *Flow) {
	via := req.Via()
	if req.Method == sip.ACK || via == nil {
		in.drop(flow, f.reason)
		return
	}
	res := in.layer.refusal(req, f)
	if err := in.layer.Reply(flow, via).Send(Encode(res)); err != nil {
		in.drop(flow, f.reason)
		return
	}
	in.layer.counters.answered400.Add(1)
	in.layer.log.Debug("transport: malformed request refused", "remote", flow.remote, "reason", f.reason)
}

// drop counts. The log line is for debugging and holds nothing of the message:
// anyone can send garbage.
func (in *inbound) drop(flow *Flow, reason string) {
	in.layer.counters.malformed.Add(1)
	in.layer.log.Debug("transport: message dropped", "remote", flow.remote, "reason", reason)
}
