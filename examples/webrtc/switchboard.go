package main

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/bridge"
)

// switchboard joins the calls of browsers and of the telephone.
type switchboard struct {
	bridge *bridge.Bridge
	phone  sip.Uri

	mu       sync.Mutex // guards browsers
	browsers map[string]browser
}

// browser is where a browser is called: its Contact has no address, so its connection counts.
type browser struct {
	contact sip.Uri
	flow    *dialog.Flow
	release func()
}

func newSwitchboard(ctx context.Context, stack *dialog.Stack, phone sip.Uri, out io.Writer) {
	b := &switchboard{bridge: bridge.New(stack, bridge.Options{}), phone: phone, browsers: make(map[string]browser)}
	_ = stack.OnRequest("REGISTER", b.register) // fails for methods of calls only
	stack.OnCall(func(call *dialog.Dialog) {
		_, err := b.join(ctx, call)
		_, _ = fmt.Fprintln(out, call.Info().Remote.URI.User, "calls", call.Request().Recipient.User, err)
	})
}

// register keeps the browser's flow with its Contact. Anybody may register here: a service
// asks for a password, or looks at the cookie of the page (WebSocketConfig.CheckOrigin).
func (b *switchboard) register(ctx context.Context, req *sip.Request) dialog.Answer {
	name, contact, flow := req.To().Address.User, req.Contact(), dialog.FlowFrom(ctx)
	if contact == nil {
		return dialog.Answer{Status: 400, Reason: "Contact is missing"}
	}
	if leaves(req) {
		b.forget(name, flow)
		return dialog.Answer{}
	}
	release := flow.Hold() // keeps the connection open
	stop := flow.OnLost(func(error) { b.forget(name, flow) })
	b.mu.Lock()
	defer b.mu.Unlock()
	if old, registered := b.browsers[name]; registered {
		old.release()
	}
	b.browsers[name] = browser{*contact.Address.Clone(), flow, func() { stop(); release() }}
	return dialog.Answer{Headers: []dialog.Header{{Name: "Contact", Value: contact.Value() + ";expires=600"}}}
}

// leaves says whether a REGISTER ends a registration (RFC 3261 10.2.2).
func leaves(req *sip.Request) bool {
	expires, has := req.Contact().Params.Get("expires")
	if header := req.GetHeader("Expires"); !has && header != nil {
		expires = header.Value()
	}
	return expires == "0"
}

// forget drops a browser, unless it has registered on another connection since.
func (b *switchboard) forget(name string, flow *dialog.Flow) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if old, registered := b.browsers[name]; registered && old.flow.Equal(flow) {
		old.release()
		delete(b.browsers, name)
	}
}

// join calls a browser that has the name, or else the telephone. Sessions pass as they are.
func (b *switchboard) join(ctx context.Context, call *dialog.Dialog) (*bridge.Call, error) {
	b.mu.Lock()
	called, known := b.browsers[call.Request().Recipient.User]
	b.mu.Unlock()
	if known {
		return b.bridge.Join(ctx, call, called.contact, dialog.InviteOpts{Flow: called.flow})
	}
	return b.bridge.Join(ctx, call, b.phone, dialog.InviteOpts{})
}
