package stress

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// phoneNode is a node behind a router of its own.
type phoneNode struct {
	*node
	router *dialogtest.NAT
	inside string // pattern of its addresses
	moves  int    // how often it got another; for movePhone alone
}

// newPhone starts one, the nth, with the version of IP of those that it calls. All of one
// version have the same address at first.
func (r *round) newPhone(transport string, n int) *phoneNode {
	public, inside, all := fmt.Sprintf("203.0.113.%d", n), "192.168.0.%d", "0.0.0.0"
	if r.seed%2 == 1 {
		inside = "100.64.0.%d" // of a carrier's router (RFC 6598)
	}
	if strings.Contains(hostsOf(transport)[0], ":") {
		public, inside, all = fmt.Sprintf("2001:db8::%d", n), "fd01::%d", "::"
	}
	router := r.net.NAT(public, dialogtest.NATConfig{
		RandomPorts: true, Filtering: dialogtest.AddressAndPortDependent, Seed: r.seed,
		BindingTime: 30*time.Second + r.dice.upTo(time.Minute),
	})
	return &phoneNode{node: r.newNodeAt(router.Host(fmt.Sprintf(inside, 2)), public, all, transport), router: router, inside: inside}
}

// forget has a router lose its bindings, and its connections without a notice to either end.
func (r *round) forget(d *dice) {
	p := pick(d, r.phones)
	if p.protocol == "udp" {
		r.cover.hit("fault: bindings forgotten")
	} else {
		r.cover.hit("fault: connections cut silently, over " + p.protocol)
	}
	p.router.Forget()
	p.lose()
}

// movePhone gives a phone another address, with or without a notice to its stack.
func (r *round) movePhone(d *dice) {
	p := pick(d, r.phones)
	r.cover.hit("fault: a phone moves, over " + p.protocol)
	p.moves++
	p.tap.host.Move(fmt.Sprintf(p.inside, 3+p.moves%200))
	p.lose()
	if d.chance(50) {
		p.stack.NetworkChanged()
	}
}

// countCalls counts the phone's calls that were answered.
func (p *phoneNode) countCalls() {
	for _, w := range p.known() {
		w.mu.Lock()
		if slices.Contains(w.states, dialog.DialogStateEstablished) {
			p.round.cover.hit("calls of a phone, over " + p.protocol)
		}
		w.mu.Unlock()
	}
}

// lose notes that connections are lost, at both ends.
func (p *phoneNode) lose() {
	if p.protocol == "udp" {
		return
	}
	for _, n := range p.round.nodes {
		if n.protocol == p.protocol {
			n.tap.lost()
		}
	}
}
