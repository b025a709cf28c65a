package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
)

// person is one participant: a stack and what arrives at it.
type person struct {
	name   string
	stack  *dialog.Stack
	record *record
	// calls and refers hand what arrives to the step that waits for it.
	calls  chan *call
	refers chan transfer
	// version counts the sessions described. Only the scene's goroutine does.
	version int
}

// transfer is a REFER that arrived.
type transfer struct {
	dialog dialog.IDialog
	to     sip.Uri
}

// newPerson starts a stack on a free port of the loopback interface.
func newPerson(ctx context.Context, name string, r *record, logger *slog.Logger) (*person, error) {
	config := &dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: "127.0.0.1"},
		UserAgent: name,
		Trace:     r.trace(name),
	}
	if logger != nil {
		config.Slog = logger.With("stack", name)
	}
	stack, err := dialog.NewStack(config)
	if err != nil {
		return nil, err
	}
	p := &person{name: name, stack: stack, record: r, calls: make(chan *call, 1), refers: make(chan transfer, 1)}
	stack.OnIncomingDialog(func(d dialog.IDialog) { p.calls <- p.follow(d) })
	stack.OnIncomingRefer(func(d dialog.IDialog, to sip.Uri, _ *dialog.ReplacesInfo) { p.refers <- transfer{d, to} })
	// The end of Start's context would shut the stack down: the scene does that.
	if err := stack.Start(context.WithoutCancel(ctx)); err != nil {
		return nil, err
	}
	r.meet(name, stack.Addr())
	return p, nil
}

// uri is where the person can be called.
func (p *person) uri() sip.Uri {
	addr := p.stack.Addr()
	return sip.Uri{Scheme: "sip", User: p.name, Host: addr.Addr().String(), Port: int(addr.Port())}
}

// call places a call and follows it.
func (p *person) call(ctx context.Context, to sip.Uri) (*call, error) {
	d, err := p.stack.NewInvite(ctx, to, p.offer("sendrecv"))
	if err != nil {
		return nil, err
	}
	return p.follow(d), nil
}

// offer is a session of the person's to offer.
func (p *person) offer(direction string) dialog.InviteOpts {
	return dialog.InviteOpts{Body: dialog.NewBody("application/sdp", []byte(p.session(direction)))}
}

// session describes one audio stream. A later session of the same call has a
// higher version (RFC 3264 8).
func (p *person) session(direction string) string {
	p.version++
	return fmt.Sprintf("v=0\r\no=%s 1 %d IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"+
		"m=audio 40000 RTP/AVP 0\r\na=%s\r\n", p.name, p.version, direction)
}

// accept answers a call with the person's session.
func (p *person) accept(ctx context.Context, c *call) error {
	return c.Accept(ctx, func(res *sip.Response) {
		res.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
		res.SetBody([]byte(p.session("sendrecv")))
	})
}

// call is a call whose changes are noted.
type call struct {
	*dialog.Dialog
	owner *person

	mu   sync.Mutex // guards the fields below
	last dialog.DialogState
}

// follow notes the states of a call, and the media that the far end wants.
func (p *person) follow(d dialog.IDialog) *call {
	c := &call{Dialog: d.(*dialog.Dialog), owner: p}
	if c.IsUAC() {
		c.entered(dialog.DialogStateTrying) // as NewInvite left it
	}
	c.OnStateChange(c.entered)
	// What came before there was a callback is not told again.
	c.entered(c.State())
	c.OnBody(func(b dialog.Body) { c.note("peer's media " + direction(string(b.Data()))) })
	return c
}

// note tells bob's two calls apart by who made them.
func (c *call) note(text string) {
	if c.IsUAC() {
		c.owner.record.note(c.owner.name, "outgoing: "+text)
	} else {
		c.owner.record.note(c.owner.name, "incoming: "+text)
	}
}

// entered notes a state, unless it is known. States only go forward.
func (c *call) entered(state dialog.DialogState) {
	c.mu.Lock()
	known := state <= c.last
	c.last = max(c.last, state)
	c.mu.Unlock()
	if !known {
		c.note(state.String())
	}
}

// ended checks why a call is over.
func (c *call) ended(by dialog.Party) error {
	if cause := c.Cause(); cause.By != by || cause.Method != "BYE" {
		return fmt.Errorf("%s's call ended by %q, not by a %s BYE", c.owner.name, cause, by)
	}
	return nil
}

// direction reads that of the one stream in a session; empty without one.
func direction(sdp string) string {
	for _, line := range strings.Fields(sdp) {
		switch line {
		case "a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive":
			return strings.TrimPrefix(line, "a=")
		}
	}
	return ""
}
