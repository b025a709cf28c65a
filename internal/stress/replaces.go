package stress

import (
	"context"
	"net/netip"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// Replaces and Join, right and wrong, from stacks and from the scripted peer.

// expectedTakeovers is what a run has to have seen of them.
func expectedTakeovers() []string {
	return []string{
		"script: calls with Replaces", "script: calls with Replaces of nothing", "script: calls with Replaces while early",
		"script: calls with Replaces twice", "script: calls with Replaces and Join", "script: calls with Join",
		"callback: replacement asked", "callback: replacement refused", "callback: replacement not decided", "cause: replaced",
		"script: asks INFO with Replaces", "sent: 603 INVITE", "sent: 403 INVITE", "sent: 400 INFO",
	}
}

// replaces has an INVITE name a call of this stack, to the peer of that call or to another
// one.
func (a *application) replaces(target sip.Uri, opts dialog.InviteOpts) (sip.Uri, dialog.InviteOpts) {
	d := a.node.dialog(a.dice)
	info := dialog.ReplacesOf(d)
	if info == nil {
		return target, opts
	}
	info.EarlyOnly = a.dice.chance(15)
	if a.dice.chance(80) {
		target = d.Info().RemoteTarget
	}
	if a.dice.chance(70) {
		opts.Replaces = info
	} else {
		opts.Join = info
	}
	if a.dice.chance(5) {
		opts.Replaces = opts.Join // nil, or both
	}
	if a.dice.chance(30) {
		opts.Require = []string{"replaces"}
	}
	return target, opts
}

// authorize is AuthorizeReplaces and AuthorizeJoin: every way to decide.
func (n *node) authorize(ctx context.Context, r dialog.TakeoverRequest) dialog.Answer {
	n.round.cover.hit("callback: replacement asked")
	a := n.application(true)
	_ = r.FromPeer()
	a.misbehave(r.Call)
	switch k := a.dice.intn(20); {
	case k == 0:
		n.round.cover.hit("callback: replacement not decided")
		<-ctx.Done()
	case k < 4:
		n.round.cover.hit("callback: replacement refused")
		return dialog.Answer{Status: pick(a.dice, []int{403, 401, 100})}
	}
	return dialog.Answer{}
}

// namedCall is a call between the peer and a stack, as the peer knows it.
type namedCall struct {
	stack            netip.AddrPort
	id, mine, theirs string
}

// remember notes a call that a later INVITE may name.
func (c *chaos) remember(in dialogtest.Received, mine, theirs string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.named = append(c.named, namedCall{in.From, in.Message.CallID().Value(), mine, theirs})
}

// naming is the value of Replaces for one of the latest calls with a stack, or for a call
// that does not exist.
func (c *chaos) naming(to netip.AddrPort) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	call := namedCall{id: "nothing", mine: "a", theirs: "b"}
	for _, n := range c.named {
		if n.stack == to && (call.mine == "a" || c.dice.chance(60)) {
			call = n
		}
	}
	return call.id + ";from-tag=" + call.mine + ";to-tag=" + call.theirs
}

// takeoverScripts are the ways to call with the name of another call; give
// sends the INVITE with header lines.
func (c *chaos) takeoverScripts(to netip.AddrPort, give func(headers ...string) func()) []script {
	return []script{
		{"with Replaces", give("Replaces: " + c.naming(to))},
		{"with Replaces", give("Replaces: "+c.naming(to), "Require: replaces")},
		{"with Replaces", give("Replaces: "+c.naming(to), "Referred-By: <sip:stress@"+chaosIP+">")},
		{"with Replaces of nothing", give("Replaces: x;from-tag=a;to-tag=b")},
		{"with Replaces while early", give("Replaces: " + c.naming(to) + ";early-only")},
		{"with Replaces twice", give("Replaces: "+c.naming(to), "Replaces: "+c.naming(to))},
		{"with Replaces and Join", give("Replaces: "+c.naming(to), "Join: "+c.naming(to))},
		{"with Join", give("Join: " + c.naming(to))},
	}
}
