package txn

import (
	"context"
	"errors"

	"sipdialog.example/dialog/internal/errtext"
	"sipdialog.example/dialog/internal/transport"
)

// errNoDestination says that no target is left.
var errNoDestination = errors.New("no destination")

// route is the list of targets of one request: its preferred flow, then the addresses of
// its next hop, in that order. It has no lock: only the goroutine that sends uses it, and
// after a failure only the one that handles the failure.
type route struct {
	opt      RequestOptions
	tried    int  // how many places have been taken off
	flowed   bool // the preferred flow has been
	reopened bool // another connection to where that leads has been
	resolved bool // NextHop has been, or cannot be
	// answered says that the preferred flow reached its peer, or that the peer is gone: in
	// either case the same address is not tried again as another target.
	answered bool
	targets  []transport.Target // not tried yet
}

func newRoute(opt RequestOptions) *route {
	return &route{opt: opt, resolved: opt.FlowOnly && opt.Flow != nil}
}

// more reports whether there may be another place to try.
func (w *route) more() bool {
	return w.hasFlow() || w.reopens() || !w.resolved || len(w.targets) > 0
}

// hasFlow reports whether the preferred flow is left.
func (w *route) hasFlow() bool { return w.opt.Flow != nil && !w.flowed && !w.answered }

// reopens reports whether another connection to the peer of the preferred flow is tried
// first, since that flow may be lost: the next hop may have no address, and for a WebSocket
// does not say whether TLS is needed (RFC 7118 5).
func (w *route) reopens() bool {
	f := w.opt.Flow
	return f != nil && w.opt.Reopen && f.Dialled() && !w.reopened && !w.answered && (f.Suspect() || f.Err() != nil)
}

// avoids reports whether the preferred flow is tried last: its connection may be dead,
// and its peer can be connected to.
func (o *RequestOptions) avoids() bool {
	return o.Flow.Suspect() && (o.Reopen && o.Flow.Dialled() || !o.NoStream)
}

// next removes the next target and returns a flow to it; errNoDestination after the
// last one.
func (l *Layer) next(ctx context.Context, w *route) (*transport.Flow, error) {
	if w.reopens() {
		w.reopened = true
		w.tried++
		return l.transport.Connect(ctx, w.opt.Flow.Target())
	}
	if w.hasFlow() && !w.opt.avoids() {
		return w.flow(), nil
	}
	err := l.resolve(ctx, w)
	switch {
	case len(w.targets) > 0:
	case w.hasFlow():
		return w.flow(), nil
	case err != nil:
		return nil, errtext.As(errNoDestination, err)
	default:
		return nil, errNoDestination
	}
	target := w.targets[0]
	w.targets = w.targets[1:]
	w.tried++
	return l.transport.Connect(ctx, target)
}

// flow takes the preferred flow off.
func (w *route) flow() *transport.Flow {
	w.tried++
	w.flowed = true
	return w.opt.Flow
}

// resolve looks the next hop up, once.
func (l *Layer) resolve(ctx context.Context, w *route) error {
	if w.resolved {
		return nil
	}
	w.resolved = true
	targets, err := l.transport.Resolve(ctx, w.opt.NextHop)
	for _, t := range targets {
		if !leadsTo(w.opt.Flow, t) || !w.answered && t.Transport == w.opt.Flow.Transport() {
			w.targets = append(w.targets, t)
		}
	}
	return err
}

// leadsTo compares hosts only: a connection that the peer made comes from a port
// that is not the one it listens on. A WebSocket over TLS is named as one without (RFC
// 7118 5), which is none that may take its place.
func leadsTo(flow *transport.Flow, t transport.Target) bool {
	if flow == nil || t.Addr.Addr() != flow.RemoteAddr().Addr() {
		return false
	}
	return t.Transport == flow.Transport() || t.Transport == "WS" && flow.Transport() == "WSS"
}
