package dialog

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/transport"
	"sipdialog.example/dialog/internal/txn"
)

func (d *Dialog) keyLocked() DialogKey {
	return DialogKey{CallID: d.callID, LocalTag: d.localTag, RemoteTag: d.remoteTag}
}

// config returns the stack's configuration, or the defaults.
func (d *Dialog) config() *StackConfig { return d.stack.settings() }

// transactionLayer returns the transaction layer, or the reason why there is none.
func (d *Dialog) transactionLayer() (transactionLayer, error) {
	if d.stack == nil {
		return nil, ErrNotStarted
	}
	return d.stack.transactions()
}

// background runs f on a counted goroutine, or here when there is no stack or it has
// ended: f then finds no transaction layer and returns at once.
func (d *Dialog) background(f func()) {
	if d.stack == nil || !d.stack.tasks.Go(f) {
		f()
	}
}

// after is time.AfterFunc for a function that is counted while it runs, and
// does not run once the stack has ended.
func (d *Dialog) after(wait time.Duration, f func()) *time.Timer {
	if d.stack == nil {
		return time.AfterFunc(wait, f)
	}
	return time.AfterFunc(wait, func() { d.stack.tasks.Run(f) })
}

// onTime is after for a method of the dialog: it needs no memory but the timer's while
// it waits.
func (d *Dialog) onTime(wait time.Duration, method func(*Dialog)) *time.Timer {
	return time.AfterFunc(wait, func() {
		if d.stack == nil {
			method(d)
			return
		}
		d.stack.tasks.Run(func() { method(d) })
	})
}

// baseContext is the context of background work: it ends with the transaction layer.
func (d *Dialog) baseContext() context.Context {
	if d.stack == nil || d.stack.base == nil {
		return context.Background()
	}
	return d.stack.base
}

// spawnBye sends the BYE on a counted goroutine.
func (d *Dialog) spawnBye() { d.finalGoodbye(d.sendBye) }

// finalGoodbye is background for a function that writes the last message of a call or a
// subscription: Shutdown waits for it also after the end of its context.
func (d *Dialog) finalGoodbye(f func()) {
	if d.stack == nil || !d.stack.byes.Go(f) {
		f()
	}
}

// source is the address that the INVITE came from; invalid for a call of ours.
func (d *Dialog) source() netip.Addr { return d.arrived.Source() }

// lockBoth takes the stack's mutex and the dialog's, in that order.
func (d *Dialog) lockBoth() (unlock bothLocked) {
	if d.stack != nil {
		d.stack.mutex.Lock()
	}
	d.mutex.Lock()
	return bothLocked{d}
}

type bothLocked struct{ d *Dialog }

func (b bothLocked) unlock() {
	b.d.mutex.Unlock()
	if b.d.stack != nil {
		b.d.stack.mutex.Unlock()
	}
}

// learnLocked sets target and route set from a response that makes or confirms the
// dialog (RFC 3261 12.1.2, 13.2.2.4).
func (d *Dialog) learnLocked(res *sip.Response) {
	if targets := contacts(res); len(targets) > 0 {
		d.remoteTarget = targets[0]
	}
	d.learnPackagesLocked(res)
	d.routeSet = recordRoutes(res)
	slices.Reverse(d.routeSet)
}

// nextRequestLocked builds the next request of the dialog: reading and raising
// the CSeq is one critical section.
func (d *Dialog) nextRequestLocked(method sip.RequestMethod) *sip.Request {
	d.localSeq++
	return d.requestLocked(method, d.localSeq)
}

// requestLocked builds a request inside the dialog (RFC 3261 12.2.1.1).
func (d *Dialog) requestLocked(method sip.RequestMethod, seq uint32) *sip.Request {
	target, routes := d.pathLocked()
	req := sip.NewRequest(method, target)
	for _, route := range routes {
		req.AppendHeader(&sip.RouteHeader{Address: route})
	}
	req.AppendHeader(d.local.nameAddr().from(d.localTag))
	req.AppendHeader(d.remote.nameAddr().to(d.remoteTag))
	id := sip.CallIDHeader(d.callID)
	req.AppendHeader(&id)
	req.AppendHeader(&sip.CSeqHeader{SeqNo: seq, MethodName: method})
	hops := sip.MaxForwardsHeader(70)
	req.AppendHeader(&hops)
	if agent := d.config().userAgent(); agent != "" {
		req.AppendHeader(sip.NewHeader("User-Agent", agent))
	}
	return req
}

// pathLocked returns the Request-URI and the Route headers (RFC 3261 12.2.1.1). When
// the first hop is a strict router it is the Request-URI, and the target ends the
// route.
func (d *Dialog) pathLocked() (target sip.Uri, routes []sip.Uri) {
	target = *d.remoteTarget.Clone()
	target.Headers = nil
	for _, route := range d.routeSet {
		routes = append(routes, *route.Clone())
	}
	if len(routes) == 0 || isLoose(routes[0]) {
		return target, routes
	}
	first := routes[0]
	first.Headers = nil
	removeParam(&first.UriParams, "method")
	return first, append(routes[1:], target)
}

// hopLocked is the next hop of requests: the first route, else the target (RFC 3261
// 8.1.2).
func (d *Dialog) hopLocked() sip.Uri {
	if len(d.routeSet) > 0 {
		return *d.routeSet[0].Clone()
	}
	return *d.remoteTarget.Clone()
}

// optionsLocked returns the options with which requests of this dialog are sent.
func (d *Dialog) optionsLocked() txn.RequestOptions {
	opt := txn.RequestOptions{Flow: d.flowLocked(), NextHop: d.hopLocked(), Prepare: d.prepare}
	if opt.Flow != nil && opt.Flow == d.natFlowLocked() {
		opt.FlowOnly, opt.NoStream = d.flowNamed || isUnreachable(d.remoteTarget, opt.Flow), true
		opt.Reopen = !d.flowNamed
	}
	return opt
}

// prepare fills in the headers that depend on the address by which the peer reaches us:
// the Contact of requests that make or refresh a dialog, and the host in the From of a
// first INVITE.
func (d *Dialog) prepare(req *sip.Request, local transport.Local) {
	switch req.Method {
	case sip.INVITE, sip.UPDATE, sip.REFER, sip.NOTIFY, sip.SUBSCRIBE:
	default:
		return
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if toTag(req) != "" {
		d.timer.NoteMinSE(minSE(req))
	} else if isSIPS(req.Recipient) {
		d.secure = true
	}
	if caller := d.local.nameAddr(); caller.uri.Host == "" {
		caller.uri.Host = bracketed(local.Host)
		d.local = caller.party()
		if from := req.From(); from != nil {
			from.Address = *caller.uri.Clone()
		}
	}
	removeHeaders(req, "Contact")
	req.AppendHeader(d.contactLocked(local))
}

// keepBodyLocked gives a body to the callbacks, or keeps it for the first that is
// registered.
func (d *Dialog) keepBodyLocked(body *SimpleBody) {
	if body == nil || d.state == DialogStateTerminated {
		return
	}
	if len(d.bodyCallbacks) == 0 {
		d.putAsideLocked(body)
		return
	}
	bytes := sizeOfBody(body)
	calls := make([]func(), len(d.bodyCallbacks))
	for i, callback := range d.bodyCallbacks {
		calls[i] = func() {
			defer d.holds.add(-bytes)
			callback(body)
		}
	}
	if !d.holds.take(bytes * len(calls)) {
		d.stack.counters.bodies.Add(1)
		return
	}
	if !d.mailbox.Offer(calls...) && d.stack != nil {
		d.holds.add(-bytes * len(calls))
		d.stack.counters.bodies.Add(1)
	}
}

// keepOfferLocked is keepBodyLocked for an offer that Accept may answer.
func (d *Dialog) keepOfferLocked(offer *SimpleBody) {
	if offer != nil {
		d.keepBodyLocked(offer)
		d.keptOffer = true
	}
}

// dropOfferLocked forgets an offer that was kept: it has been answered, and callbacks
// registered from now on get later bodies only.
func (d *Dialog) dropOfferLocked() {
	if d.keptOffer {
		d.dropAsideLocked()
		d.keptOffer = false
	}
}

// lastDelivery returns a channel that is closed when Terminated has been delivered; nil
// when there is nothing to wait for.
func (d *Dialog) lastDelivery() <-chan struct{} {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.closed
}

// stopRingingLocked stops the timers and watches of an unanswered call, and drops the
// INVITE that they hold.
func (d *Dialog) stopRingingLocked() {
	stopTimer(d.limit)
	stopTimer(d.refresh)
	if d.unwatch != nil {
		d.unwatch()
	}
	d.limit, d.refresh, d.unwatch = nil, nil, nil
}

func stopTimer(t *time.Timer) {
	if t != nil {
		t.Stop()
	}
}
