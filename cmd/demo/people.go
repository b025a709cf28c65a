package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
)

// person is one participant: a stack and what arrives at it.
type person struct {
	name   string
	stack  *dialog.Stack
	record *record
	// calls and refers pass incoming calls and REFERs to the step that waits for them.
	calls  chan *call
	refers chan transfer
	// sessions counts the session descriptions. Only the scene's goroutine uses it.
	sessions int
}

// transfer is a REFER that arrived.
type transfer struct {
	dialog dialog.IDialog
	to     sip.Uri
}

// newPerson starts a stack on a free port of the loopback interface. If session is not
// zero, its calls ask for a session timer of that interval (RFC 4028).
func newPerson(ctx context.Context, name string, session time.Duration, r *record, logger *slog.Logger) (*person, error) {
	config := &dialog.StackConfig{
		Transport:      &dialog.TransportConfig{Protocol: "udp", Address: "127.0.0.1"},
		UserAgent:      name,
		SessionExpires: session,
		Trace:          r.trace(name),
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
	// The end of Start's context would shut the stack down, but the scene does that.
	if err := stack.Start(context.WithoutCancel(ctx)); err != nil {
		return nil, err
	}
	r.meet(name, stack.Addr())
	return p, nil
}

// uri returns the URI of the person.
func (p *person) uri() sip.Uri {
	addr := p.stack.Addr()
	return sip.Uri{Scheme: "sip", User: p.name, Host: addr.Addr().String(), Port: int(addr.Port())}
}

// call places a call and follows it.
func (p *person) call(ctx context.Context, to sip.Uri) (*call, error) {
	d, err := p.stack.NewInvite(ctx, to, dialog.InviteOpts{Body: p.session()})
	if err != nil {
		return nil, err
	}
	return p.follow(d), nil
}

// session describes one audio stream, each time with a new session number (RFC 8866
// 5.2).
func (p *person) session() dialog.Body {
	p.sessions++
	return dialog.NewBody("application/sdp", fmt.Appendf(nil, "v=0\r\no=%s %d 1 IN IP4 127.0.0.1\r\ns=-\r\n"+
		"c=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\na=sendrecv\r\n", p.name, p.sessions))
}

// call is a call whose states are recorded.
type call struct {
	*dialog.Dialog
	owner *person

	mu   sync.Mutex // guards the fields below
	last dialog.DialogState
}

// follow records the states of a call, and the media direction of the peer.
func (p *person) follow(d dialog.IDialog) *call {
	c := &call{Dialog: d.(*dialog.Dialog), owner: p}
	if c.IsUAC() {
		c.entered(dialog.DialogStateTrying) // as NewInvite left it
	}
	c.OnStateChange(c.entered)
	// OnStateChange does not report states from before its registration.
	c.entered(c.State())
	c.OnBody(func(b dialog.Body) { c.note("peer's media " + direction(string(b.Data()))) })
	return c
}

// note records a remark. "outgoing" or "incoming" distinguishes bob's two calls.
func (c *call) note(text string) {
	if c.IsUAC() {
		c.owner.record.note(c.owner.name, "outgoing: "+text)
	} else {
		c.owner.record.note(c.owner.name, "incoming: "+text)
	}
}

// entered records a state once. States only move forward.
func (c *call) entered(state dialog.DialogState) {
	c.mu.Lock()
	known := state <= c.last
	c.last = max(c.last, state)
	c.mu.Unlock()
	if !known {
		c.note(state.String())
	}
}

// ended checks the cause of the end of a call.
func (c *call) ended(by dialog.Party) error {
	if cause := c.Cause(); cause.By != by || cause.Method != "BYE" {
		return fmt.Errorf("%s's call ended by %q, not by a %s BYE", c.owner.name, cause, by)
	}
	return nil
}

// direction returns the direction of the only stream of a session; empty without one.
func direction(sdp string) string {
	for _, line := range strings.Fields(sdp) {
		switch line {
		case "a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive":
			return strings.TrimPrefix(line, "a=")
		}
	}
	return ""
}
