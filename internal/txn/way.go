package txn

import (
	"context"
	"errors"

	"sipdialog.example/dialog/internal/errtext"
	"sipdialog.example/dialog/internal/transport"
)

// errNowhere says that no place is left to send a request to.
var errNowhere = errors.New("nowhere to send it to")

// way is where one request can go: by its preferred flow, then to what its next
// hop resolves to, in that order. It has no lock: it is in the hands of the one who
// sends, and afterwards of the one whom the failure of that attempt puts in charge.
type way struct {
	opt      RequestOptions
	tried    int  // how many places have been taken off
	resolved bool // NextHop has been, or cannot be
	// answered says that the preferred flow did lead to its peer, or that nobody
	// is there: in either case the same address once more is no other target.
	answered bool
	targets  []transport.Target // not tried yet
}

func newWay(opt RequestOptions) *way {
	return &way{opt: opt, resolved: opt.FlowOnly && opt.Flow != nil}
}

// more reports whether there may be another place to try.
func (w *way) more() bool {
	return w.opt.Flow != nil && w.tried == 0 || !w.resolved || len(w.targets) > 0
}

// next takes the next place off and returns a flow to it; errNowhere after the
// last one.
func (l *Layer) next(ctx context.Context, w *way) (*transport.Flow, error) {
	if w.opt.Flow != nil && w.tried == 0 {
		w.tried++
		return w.opt.Flow, nil
	}
	if err := l.resolve(ctx, w); err != nil {
		return nil, errtext.As(errNowhere, err)
	}
	if len(w.targets) == 0 {
		return nil, errNowhere
	}
	target := w.targets[0]
	w.targets = w.targets[1:]
	w.tried++
	return l.transport.Connect(ctx, target)
}

// resolve looks the next hop up, once.
func (l *Layer) resolve(ctx context.Context, w *way) error {
	if w.resolved {
		return nil
	}
	w.resolved = true
	targets, err := l.transport.Resolve(ctx, w.opt.NextHop)
	for _, t := range targets {
		if !w.answered || !leadsTo(w.opt.Flow, t) {
			w.targets = append(w.targets, t)
		}
	}
	return err
}

// leadsTo compares hosts only: a connection that the peer made comes from a port
// that is not the one it listens on.
func leadsTo(flow *transport.Flow, t transport.Target) bool {
	return flow != nil && t.Transport == flow.Transport() && t.Addr.Addr() == flow.RemoteAddr().Addr()
}
