package stress

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/bridge"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// node is one stack of a round, its sockets, and the calls its application
// knows.
type node struct {
	// Set at construction.

	round    *round
	ip       string
	protocol string
	tap      *socketTap
	stack    *dialog.Stack
	dice     *dice
	reliable dialog.Reliability
	cancel   context.CancelFunc // ends the context of Start
	bridge   *bridge.Bridge     // of those that have one

	mu     sync.Mutex // guards the fields below
	calls  []*watched
	refers []*dialog.ReferSubscription
	pairs  []pair
	// down is when the first Shutdown returned.
	down    time.Time
	downErr error
}

// watched is a call and the states that a callback of ours saw.
type watched struct {
	d *dialog.Dialog
	// live is true when the call had not ended after the callback was
	// registered: then the callback must see its end.
	live bool

	mu     sync.Mutex // guards the fields below
	states []dialog.DialogState
}

func (r *round) newNode(ip, protocol string) *node {
	return r.newNodeAt(r.net.Host(ip), ip, ip, protocol)
}

// newNodeAt starts a stack on a host, bound to an address of its; ip is its name.
func (r *round) newNodeAt(host *dialogtest.Host, ip, address, protocol string) *node {
	n := &node{round: r, ip: ip, protocol: protocol, dice: r.dice.child()}
	n.tap = &socketTap{host: host, cover: r.cover, opaque: testkit.IsWS(protocol) || testkit.IsSecure(protocol)}
	n.reliable = pick(n.dice, []dialog.Reliability{0, 0, 0, 0, dialog.ReliableOff, dialog.ReliableRequired})
	limit := 120
	if ip == udpTwo {
		limit = 15 // few enough to be reached
	}
	config := &dialog.StackConfig{
		Transport:      &dialog.TransportConfig{Protocol: protocol, Address: address, Port: 5060},
		Network:        n.tap,
		Resolver:       testkit.NoNames(), // a damaged Contact may name anything
		MaxDialogs:     limit,
		RingingLimit:   90 * time.Second,
		InfoPackages:   []string{"stress"},
		SessionExpires: n.sessionInterval(),
		Reliable:       n.reliable,
		// Callbacks block for seconds here; none may be given up.
		GraceTime: 10 * time.Minute,
		Trace:     n.trace,
		// Some leave it to the library, and cannot mix.
		AuthorizeReplaces: n.authorize,
		AuthorizeJoin:     n.authorize,

		LearnPublicAddress: r.dice.chance(50),
		NoAutoRinging:      isBridge(ip),
	}
	if ip == udpOne {
		config.AuthorizeReplaces, config.AuthorizeJoin = nil, nil
	}
	if testkit.IsSecure(protocol) {
		config.Transport.TLSConfig, config.TLS = r.ca.Server(ip), r.ca.Client()
	}
	stack, err := dialog.NewStack(config)
	require.NoError(r.t, err)
	n.stack = stack
	if isBridge(ip) {
		n.bridge = n.newBridge()
	}
	stack.OnIncomingDialog(n.incoming)
	stack.OnIncomingRefer(n.incomingRefer)
	stack.OnReferRequest(n.referRequest)
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	require.NoError(r.t, stack.Start(ctx))
	return n
}

// workers is how many goroutines of the application's a node has: there are
// more nodes with connections.
func (n *node) workers() int {
	if n.protocol == "udp" {
		return 10
	}
	return 5
}

// trace is Trace. It notes what the taps cannot read.
func (n *node) trace(e dialog.TraceEvent) {
	n.round.cover.hit("callback: trace")
	if n.tap.opaque {
		n.round.cover.hit("callback: trace of " + n.protocol)
		n.tap.note(e.Data, e.Outbound, false, net.TCPAddrFromAddrPort(e.Remote), e.Local.String()+e.Remote.String())
	}
}

func (n *node) application(inside bool) *application {
	return &application{round: n.round, node: n, dice: n.dice.child(), inside: inside}
}

// watch takes a call in, and registers callbacks that record and misbehave.
func (n *node) watch(d *dialog.Dialog, a *application) {
	w := &watched{d: d}
	d.OnStateChange(w.changed)
	w.live = d.State() != dialog.DialogStateTerminated
	n.mu.Lock()
	n.calls = append(n.calls, w)
	n.mu.Unlock()
	n.round.cover.hit("calls")
	if a.dice.chance(70) {
		d.OnStateChange(func(dialog.DialogState) { a.misbehave(d) })
	}
	if a.dice.chance(50) {
		d.OnBody(func(dialog.Body) { a.misbehave(d) })
	}
	if a.dice.chance(60) {
		d.OnOffer(a.offerHandler(d))
	}
}

func (w *watched) changed(s dialog.DialogState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states = append(w.states, s)
}

// incoming is OnIncomingDialog: every way to treat a call.
func (n *node) incoming(d dialog.IDialog) {
	if n.bridge != nil {
		n.joins(d)
		return
	}
	a := n.application(true)
	call := d.(*dialog.Dialog)
	n.watch(call, a)
	ctx := context.Background()
	if a.dice.chance(40) { // reliably, where the caller knows that
		a.check(call.Provisional(ctx, 183, "", answered()))
	}
	switch k := a.dice.intn(20); {
	case k < 8:
		a.check(call.Accept(ctx, answered()))
	case k < 12:
		n.round.goes(func() {
			a.dice.pause(3 * time.Second)
			a.check(call.Accept(ctx, answered()))
		})
	case k == 12:
		a.check(call.Accept(ctx)) // no answer to the offer
	case k == 13:
		a.check(call.Reject(ctx, sip.StatusBusyHere, ""))
	case k == 14: // only one of them can decide
		for _, decide := range []func() error{
			func() error { return call.Accept(ctx, answered()) }, func() error { return call.Reject(ctx, 486, "") },
			func() error { return call.Accept(ctx) }, func() error { return call.Reject(ctx, 603, "") },
		} {
			n.round.goes(func() { a.check(decide()) })
		}
	case k == 15:
		a.check(call.Accept(ctx, func(*sip.Response) { panic("option") }))
		a.check(call.Accept(ctx, answered()))
	case k == 16:
		n.round.cover.hit("callback: nobody answers")
	default:
		a.misbehave(call)
	}
}

// referRequest is OnReferRequest: accepted, refused, or not decided in time.
func (n *node) referRequest(ctx context.Context, refer *dialog.ReferRequest) dialog.Answer {
	n.round.cover.hit("callback: REFER decided")
	a := n.application(true)
	n.keepRefer(refer.Subscription)
	switch a.dice.intn(10) {
	case 0:
		return dialog.Answer{Status: 603}
	case 1:
		<-ctx.Done()
	case 2:
		a.misbehave(refer.Dialog)
	case 3:
		refer.OnAccepted(func() { a.misbehave(refer.Dialog) })
	}
	return dialog.Answer{}
}

// incomingRefer is OnIncomingRefer.
func (n *node) incomingRefer(d dialog.IDialog, referTo sip.Uri, _ *dialog.ReplacesInfo) {
	n.round.cover.hit("callback: REFER")
	a := n.application(true)
	call := d.(*dialog.Dialog)
	if a.dice.chance(40) {
		ctx, cancel := a.context()
		defer cancel()
		next, err := call.FollowRefer(ctx, referTo, a.offer())
		a.check(err)
		a.follows(next)
		return
	}
	for _, r := range call.GetAllReferSubscriptions() {
		n.keepRefer(r)
		if a.dice.chance(30) {
			a.check(r.SendNotify(context.Background(), 180, "Ringing"))
			a.check(r.SendNotify(context.Background(), 200, "OK"))
		}
	}
	a.misbehave(call)
}

// dialog returns one of the calls, a late one more likely than an early one;
// nil when there is none.
func (n *node) dialog(d *dice) *dialog.Dialog {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.calls) == 0 {
		return nil
	}
	back := min(d.intn(len(n.calls)), d.intn(len(n.calls)))
	return n.calls[len(n.calls)-1-back].d
}

func (n *node) keepRefer(r *dialog.ReferSubscription) {
	if r == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !slices.Contains(n.refers, r) {
		n.refers = append(n.refers, r)
	}
}

// refer returns one of the subscriptions, or nil.
func (n *node) refer(d *dice) *dialog.ReferSubscription {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.refers) == 0 {
		return nil
	}
	back := min(d.intn(len(n.refers)), d.intn(len(n.refers)))
	return n.refers[len(n.refers)-1-back]
}

func (n *node) known() []*watched {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.calls)
}

// work performs operations at random, some of them without waiting for the
// one before.
func (n *node) work(steps int) {
	a := n.application(false)
	for range steps {
		a.dice.pause(2 * time.Second)
		op, d := pick(a.dice, n.round.ops), n.dialog(a.dice)
		switch {
		case d == nil || a.dice.chance(12):
			op = n.round.newInvite
		case a.dice.chance(8):
			op = n.round.reInvite
		}
		if a.dice.chance(60) {
			n.round.goes(func() { a.perform(op, d) })
		} else {
			a.perform(op, d)
		}
	}
}

// hangUp ends all calls, in every way there is.
func (n *node) hangUp() {
	a := n.application(false)
	var all sync.WaitGroup
	for _, w := range n.known() {
		if w.d.State() == dialog.DialogStateTerminated {
			continue
		}
		end := pick(a.dice, []func(){
			func() { a.check(w.d.Hangup(context.Background())) },
			func() { a.check(w.d.Close()) },
			func() {
				a.check(w.d.Bye(context.Background(), "end"))
				a.check(w.d.Close())
			},
		})
		all.Add(1)
		go func() { defer all.Done(); end() }()
	}
	all.Wait()
}

// shutdown ends the stack, and notes when and how the first call that waited
// to the end returned.
func (n *node) shutdown(ctx context.Context) {
	n.round.cover.hit("call: Stack.Shutdown")
	err := n.stack.Shutdown(ctx)
	var incomplete *dialog.ShutdownError
	if err != nil && !errors.As(err, &incomplete) && !errors.Is(err, ctx.Err()) {
		n.round.errorf("", "%s: Shutdown: %v", n.ip, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down.IsZero() && (err == nil || incomplete != nil) {
		n.down, n.downErr = time.Now(), err
	}
}

// hastily shuts the stack down from inside a callback of one of its calls.
func (n *node) hastily() {
	for _, w := range n.known() {
		if w.d.State() == dialog.DialogStateTerminated {
			continue
		}
		w.d.OnStateChange(func(dialog.DialogState) {
			n.application(true).perform(n.round.shutdown, w.d)
		})
		_ = w.d.Close()
		return
	}
}
