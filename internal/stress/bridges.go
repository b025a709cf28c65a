package stress

import (
	"context"
	"errors"
	"slices"
	"time"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/bridge"
)

// Bridges: stacks that join incoming calls to other peers, which misbehave as much as the
// callers do, while the bridges' own applications use both calls at random.

// bridgeUDP and bridgeTCP are the hosts of the bridges.
const (
	bridgeUDP = "10.0.0.20"
	bridgeTCP = "10.0.0.21"
)

func isBridge(ip string) bool { return ip == bridgeUDP || ip == bridgeTCP }

// pair is two calls that are joined.
type pair struct{ in, out *dialog.Dialog }

func expectedBridges() []string {
	return []string{
		"bridge: joined", "bridge: linked", "bridge: refused", "bridge: given up", "bridge: hung up",
		"bridge: too many hops or a loop", "bridge: ended on both sides",
		"bridge: REFER", "bridge: REFER followed",
	}
}

// newBridge makes a bridge that treats REFERs in every way.
func (n *node) newBridge() *bridge.Bridge {
	return bridge.New(n.stack, bridge.Options{
		Refer: func(*dialog.ReferRequest) bridge.ReferPolicy {
			n.round.cover.hit("bridge: REFER")
			return pick(n.dice, []bridge.ReferPolicy{bridge.ReferRefused, bridge.ReferRelayed, bridge.ReferFollowed, bridge.ReferFollowed})
		},
		Followed: func(_, now *bridge.Call) {
			n.round.cover.hit("bridge: REFER followed")
			n.observe(now.Out())
			n.pairUp(now.In(), now.Out())
		},
	})
}

// joins is OnIncomingDialog of a bridge.
func (n *node) joins(d dialog.IDialog) {
	a, in := n.application(true), d.(*dialog.Dialog)
	n.observe(in)
	ctx, cancel := a.patience()
	defer cancel()
	opts := dialog.InviteOpts{Setup: func(out *dialog.Dialog) {
		n.observe(out)
		n.pairUp(in, out)
	}}
	call, err := n.bridge.Join(ctx, in, a.target(), opts)
	a.check(err)
	var refused *dialog.ResponseError
	switch {
	case err == nil:
		n.round.cover.hit("bridge: joined")
		n.useBridged(a, call)
	case errors.Is(err, bridge.ErrLoop), errors.Is(err, bridge.ErrHops):
		n.round.cover.hit("bridge: too many hops or a loop")
	case errors.As(err, &refused):
		n.round.cover.hit("bridge: refused")
	case ctx.Err() != nil:
		n.round.cover.hit("bridge: given up")
	}
}

// patience is a context that mostly does not end.
func (a *application) patience() (context.Context, context.CancelFunc) {
	if a.dice.chance(20) {
		return context.WithTimeout(context.Background(), a.dice.upTo(30*time.Second))
	}
	return context.WithCancel(context.Background())
}

// useBridged hangs up some bridged calls, and joins some to another.
func (n *node) useBridged(a *application, call *bridge.Call) {
	switch {
	case a.dice.chance(20):
		n.round.goes(func() {
			a.dice.pause(20 * time.Second)
			a.check(call.Hangup(context.Background(), dialog.ByeOpts{}))
			n.round.cover.hit("bridge: hung up")
		})
	case a.dice.chance(10):
		if other := n.dialog(a.dice); other != nil {
			n.bridge.Link(call.In(), other)
			n.pairUp(call.In(), other)
			n.round.cover.hit("bridge: linked")
		}
	}
}

// observe is watch for a call whose callbacks are the bridge's.
func (n *node) observe(d *dialog.Dialog) {
	w := &watched{d: d}
	d.OnStateChange(w.changed)
	w.live = d.State() != dialog.DialogStateTerminated
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls = append(n.calls, w)
}

func (n *node) pairUp(in, out *dialog.Dialog) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pairs = slices.DeleteFunc(n.pairs, func(p pair) bool { // they go on with others
		return p.in == in || p.in == out || p.out == in || p.out == out
	})
	n.pairs = append(n.pairs, pair{in, out})
}

// endsTogether is how much longer the second of two joined calls may live: until the
// callbacks that ran before have returned, the ACK has come that a BYE waits for (RFC 3261
// 15), and the BYE has timed out.
const endsTogether = 4 * time.Minute

// checkPairs: a bridged call ends on both sides.
func (n *node) checkPairs() {
	for _, p := range n.pairs {
		one, two := endOf(p.in), endOf(p.out)
		if one.IsZero() || two.IsZero() {
			n.round.errorf(p.in.Key().CallID, "%s: one of two joined calls has not ended: %v, %v\n%s", n.ip, one, two, n.round.story(p.out.Key().CallID))
			continue
		}
		if gap := one.Sub(two).Abs(); gap > endsTogether {
			n.round.errorf(p.in.Key().CallID, "%s: one of two joined calls ends %v after the other\n%s", n.ip, gap, n.round.story(p.out.Key().CallID))
		}
		n.round.cover.hit("bridge: ended on both sides")
	}
}

// endOf is when a call has ended; zero if it has not.
func endOf(d *dialog.Dialog) time.Time {
	for _, h := range d.Info().History {
		if h.State == dialog.DialogStateTerminated {
			return h.At
		}
	}
	return time.Time{}
}
