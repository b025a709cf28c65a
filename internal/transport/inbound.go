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
	p := in.dec.whole(rest, in.layer.limits)
	in.deliver(&p, data, flow)
}

// whole decodes what is known to be one message, as a datagram is. The body is
// all the rest when there is no Content-Length; what is beyond the length is
// discarded (RFC 3261 18.3), and too little is an error.
func (d *decoder) whole(data []byte, limits Limits) parsed {
	block, rest, ended := bytes.Cut(data, []byte(endBlock))
	p := d.decode(block)
	switch {
	case !ended:
		p.fail(bad("Header Block Without End"))
	case len(block) > limits.HeaderBytes:
		p.fail(bad("Header Block Too Large"))
	case p.length > len(rest):
		p.fail(bad("Content-Length Beyond the Message"))
	case p.length >= 0:
		p.beyond = len(rest) - p.length
		rest = rest[:p.length]
	}
	switch {
	case p.msg == nil || p.fault != nil:
	case len(rest) > limits.BodyBytes:
		p.fail(&fault{code: sip.StatusRequestEntityTooLarge, reason: "Request Entity Too Large"})
	default:
		p.setBody(rest)
	}
	return p
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
