package dialogtest

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
)

// Endpoint is a scripted SIP peer on a datagram socket. It sends only the messages
// of the test: no retransmissions and no automatic responses.
type Endpoint struct {
	socket *packetConn
	// made counts the requests, for their branches.
	made atomic.Int64
}

// Received is a message that an [Endpoint] has received.
type Received struct {
	Message sip.Message
	From    netip.AddrPort
	Data    []byte // unchanged
}

// Request returns the message as a request, nil if it is a response.
func (r Received) Request() *sip.Request {
	req, _ := r.Message.(*sip.Request)
	return req
}

// Response returns the message as a response, nil if it is a request.
func (r Received) Response() *sip.Response {
	res, _ := r.Message.(*sip.Response)
	return res
}

// NewEndpoint binds an endpoint as [Host.ListenPacket] does, with its errors.
func NewEndpoint(h *Host, address string) (*Endpoint, error) {
	socket, err := h.bindPacket("udp", address)
	if err != nil {
		return nil, opError("listen", "udp", nil, nil, err)
	}
	return &Endpoint{socket: socket}, nil
}

// Addr returns the address that the endpoint is bound to.
func (e *Endpoint) Addr() netip.AddrPort { return e.socket.address() }

// Recv blocks until a message arrives, ctx ends or the endpoint is closed. A datagram
// that does not parse is returned with the parser's error.
func (e *Endpoint) Recv(ctx context.Context) (Received, error) {
	p, err := e.socket.receive(ctx)
	if err != nil {
		return Received{}, err
	}
	r := Received{From: p.From, Data: p.Data}
	m, err := sipmsg.Parse(p.Data)
	if err != nil {
		return r, fmt.Errorf("parse datagram from %s: %w", p.From, err)
	}
	r.Message = m.SIP()
	return r, nil
}

// Send writes text as one datagram and does not block. Line ends may be LF or
// CRLF; CRLF is sent. All other text is sent unchanged.
func (e *Endpoint) Send(to netip.AddrPort, text string) error {
	_, err := e.socket.sendTo([]byte(crlf(text)), to)
	return err
}

// Reply sends the response that [Endpoint.Response] makes to the source of the
// request. It fails if in is not a request.
func (e *Endpoint) Reply(in Received, r Response) error {
	req := in.Request()
	if req == nil {
		return fmt.Errorf("reply to a message that is not a request: %.40q", in.Data)
	}
	return e.Send(in.From, e.Response(req, r))
}

// Close frees the port and ends Recv with net.ErrClosed.
func (e *Endpoint) Close() error { return e.socket.Close() }
