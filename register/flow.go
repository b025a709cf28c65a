package register

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/deadline"
	"sipdialog.example/dialog/internal/redirect"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// flow is the registration by one way: through one of the proxies, or the only one. It has
// one Call-ID, in which the CSeq rises (RFC 3261 10.2), and one REGISTER at a time.
type flow struct {
	// Set at construction.

	r           *Registration
	index       int
	route       []sip.Uri
	callID, tag string

	// The fields up to the next blank line belong to the one REGISTER that is under way.

	cseq uint32
	// registrar is the Request-URI: that of the options, or where it has redirected us.
	registrar sip.Uri
	// least is the shortest expiry that the registrar accepts, as far as is known.
	least time.Duration
	// plain is true once a proxy has said that it does not support RFC 5626.
	plain bool

	// The mutex of the registration guards the fields below.

	status Status
	// idle is closed while no REGISTER is under way; again is true if another must follow
	// it.
	idle  chan struct{}
	busy  bool
	again bool
	// timer fires at due, for the next REGISTER. began is when the last one began.
	timer      *deadline.Func
	due, began time.Time
	// failures counts those in a row. since is when the present success began.
	failures int
	since    time.Time
	// by is the flow of the last success; pinned, unless nil, carries the next REGISTER.
	// drop releases by.
	by, pinned *dialog.Flow
	drop       func()
	// bound are the contacts that may be bound, until boundUntil.
	bound      []sip.Uri
	boundUntil time.Time
	// tried is true once there is an outcome.
	tried bool
}

func newFlow(r *Registration, index int, route []sip.Uri) *flow {
	f := &flow{r: r, index: index, route: route, callID: rand.Text(), tag: dialog.TagGen(), registrar: r.opts.Registrar, idle: make(chan struct{})}
	close(f.idle)
	f.status = Status{State: Registering, Proxy: index}
	return f
}

// wakeLocked has the flow register in so long, or after the REGISTER that is under way.
func (f *flow) wakeLocked(wait time.Duration) {
	switch {
	case f.r.closing:
		return
	case f.busy:
		f.again = true
		return
	}
	now := time.Now()
	if !f.began.IsZero() {
		wait = max(wait, f.began.Add(leastPause).Sub(now))
	}
	f.due = now.Add(wait)
	if f.timer == nil {
		f.timer = f.r.host.Timers.AfterFunc(wait, f.run)
		return
	}
	f.timer.Reset(wait)
}

// run is one try, on the goroutine of the timer.
func (f *flow) run() {
	if !f.begin() {
		return
	}
	got := f.try(f.r.ctx, max(f.r.opts.Expires, f.least))
	var said reply
	if got.succeeded() && got.sent != nil {
		said = readReply(got.res, got.sent)
		f.removeStale(said)
	}
	f.finish(got, said)
}

// begin reports whether a REGISTER is due; the flow is then busy until finish.
func (f *flow) begin() bool {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	now := time.Now()
	if f.r.closing || f.busy || now.Before(f.due) {
		return false
	}
	f.busy, f.began, f.idle = true, now, make(chan struct{})
	if f.status.State != Registered || now.After(f.status.Until) {
		s := f.leftLocked(Registering)
		s.Err = f.status.Err
		f.changeLocked(s)
	}
	return true
}

// leftLocked is a state in which what was bound before may be bound still.
func (f *flow) leftLocked(state State) Status {
	s := Status{State: state}
	if now := time.Now(); now.Before(f.status.Until) {
		s.Contacts, s.Expires, s.Until = f.status.Contacts, f.status.Expires, f.status.Until
		s.ServiceRoute, s.Path = f.status.ServiceRoute, f.status.Path
	}
	return s
}

// changeLocked enters a state, and reports it to the application.
func (f *flow) changeLocked(s Status) {
	s.Proxy = f.index
	f.status = s
	if told := f.r.opts.OnState; told != nil {
		f.r.host.Callbacks.Push(func() { told(s) })
	}
}

// try registers for so long, or takes back: with what a registrar may ask for before it
// answers. A flow that is lost is replaced once, an expiry raised thrice, and as many
// redirections followed as the options allow.
func (f *flow) try(ctx context.Context, expires time.Duration) result {
	next := redirect.New(max(0, f.r.opts.Redirects), f.registrar)
	by, raised := f.pinnedNow(), 0
	for {
		got := f.send(ctx, f.request(f.registrar, expires, f.contactsFor(expires)), by)
		switch status := got.status(); {
		case got.succeeded():
			return got
		case by != nil && errors.Is(got.err, dialog.ErrFlowLost):
			by = nil
			continue
		case status == sip.StatusIntervalToBrief && expires > 0 && raised < maxRaises:
			if least := minExpires(got.res); least > expires {
				expires, f.least, raised = least, least, raised+1
				continue
			}
		case status == statusFirstHopLacksOutbound && f.outbound() && len(f.r.opts.Proxies) < 2: // RFC 5626 4.2.1
			f.plain = true
			continue
		}
		if got.res != nil {
			next.Learn(got.status(), targets(got.res))
		}
		target, found := next.Next()
		if !found || ctx.Err() != nil {
			f.registrar = f.r.opts.Registrar
			return got
		}
		f.registrar, by = target, nil
	}
}

const (
	// maxRaises bounds how often the expiry is raised in one try.
	maxRaises = 3
	// statusFirstHopLacksOutbound is that of RFC 5626 11.6.
	statusFirstHopLacksOutbound = 439
)

// minExpires is what a 423 asks for (RFC 3261 10.2.8).
func minExpires(res *sip.Response) time.Duration {
	least, _ := sipmsg.Seconds(sipheader.Value(res, "Min-Expires"))
	return least
}

func (f *flow) pinnedNow() *dialog.Flow {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	return f.pinned
}

// contactsFor are those of the options, or, to take them back, those that are bound.
func (f *flow) contactsFor(expires time.Duration) []*sip.ContactHeader {
	list := f.contacts()
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	if expires > 0 || len(f.bound) != len(list) {
		return list
	}
	for i, uri := range f.bound {
		list[i].Address = *uri.Clone()
	}
	return list
}

// send sends one REGISTER, with the next CSeq.
func (f *flow) send(ctx context.Context, req *sip.Request, by *dialog.Flow) (got result) {
	req.AppendHeader(&sip.CSeqHeader{SeqNo: f.cseq + 1, MethodName: sip.REGISTER})
	got.at = time.Now()
	got.res, got.by, got.err = f.r.stack.DoWith(ctx, req, dialog.DoOpts{Flow: by, Sent: func(sent *sip.Request) { got.sent = sent }})
	if got.sent != nil {
		f.cseq = got.sent.CSeq().SeqNo // challenges may have raised it
	}
	f.noteBound(got, req)
	return got
}

// noteBound notes which contacts may be bound from now on, and until when: also after a
// REGISTER that was not answered.
func (f *flow) noteBound(got result, req *sip.Request) {
	asked, _ := sipmsg.Seconds(sipheader.Value(req, "Expires"))
	if got.sent == nil || asked == 0 || got.res != nil && !got.succeeded() {
		return
	}
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	f.bound = nil
	for _, c := range sipheader.AddressesOf(got.sent, "Contact") {
		f.bound = append(f.bound, c.URI)
	}
	until := got.at.Add(asked)
	if got.succeeded() {
		until = got.at.Add(readReply(got.res, got.sent).expires)
	}
	if until.After(f.boundUntil) || got.succeeded() {
		f.boundUntil = until
	}
}

// removeStale removes the binding of an address that is no longer ours (RFC 3261 10.2.2). If
// that fails, the binding expires by itself.
func (f *flow) removeStale(said reply) {
	f.r.mu.Lock()
	stale := said.stale(f.status.Contacts)
	f.r.mu.Unlock()
	if len(stale) == 0 || said.outbound {
		return // RFC 5626 6: the registrar has replaced it
	}
	var contacts []*sip.ContactHeader
	for _, uri := range stale {
		contacts = append(contacts, &sip.ContactHeader{Address: uri})
	}
	f.send(f.r.ctx, f.request(f.registrar, 0, contacts), nil)
}

// finish ends a try.
func (f *flow) finish(got result, said reply) {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	f.busy = false
	close(f.idle)
	if f.r.over {
		return
	}
	if said.expires >= leastPause {
		f.succeededLocked(got, said)
	} else {
		f.failedLocked(failureOf(got))
	}
	f.settleLocked()
	if f.again {
		f.again = false
		f.wakeLocked(0)
	}
}

// failureOf is why a REGISTER has not bound us.
func failureOf(got result) error {
	switch {
	case got.err != nil:
		return got.err
	case got.succeeded():
		return ErrNotBound
	}
	return refusal(got.res)
}

// succeededLocked enters Registered.
func (f *flow) succeededLocked(got result, said reply) {
	if f.since.IsZero() || !f.by.Equal(got.by) {
		f.since = got.at
	}
	f.keepLocked(got.by, said)
	f.changeLocked(Status{
		State: Registered, Contacts: said.bound, Expires: said.expires, Until: got.at.Add(said.expires),
		ServiceRoute: said.serviceRoute, Path: said.path, Outbound: f.outbound() && said.outbound, Flow: got.by,
		PublicGRUU: said.public, TemporaryGRUU: said.temporary,
	})
	f.wakeLocked(refreshIn(said.expires))
	if err := got.by.Err(); err != nil {
		f.lostLocked(err) // meanwhile
	}
}

// keepLocked keeps the flow of a registration, and watches it. Over UDP that is the
// stack's part (StackConfig.FlowKeepAlive), unless the registrar relies on it.
func (f *flow) keepLocked(by *dialog.Flow, said reply) {
	f.dropLocked()
	f.by, f.pinned = by, by
	release := func() {}
	switch {
	case f.outbound() && said.outbound:
		release = by.HoldAnswered(said.flowTimer)
	case by.Transport() != "UDP":
		release = by.Hold()
	}
	stop := by.OnLost(func(err error) { f.lost(by, err) })
	f.drop = func() { stop(); release() }
}

func (f *flow) dropLocked() {
	if f.drop != nil {
		f.drop()
	}
	f.by, f.pinned, f.drop = nil, nil, nil
}

// failedLocked enters Failed, and waits before the next try. The connection stays: it may
// carry that (RFC 5626 4.2.2); but it need not, as its server may be what is wrong.
func (f *flow) failedLocked(err error) {
	f.pinned = nil
	wait := f.nextTryLocked()
	var refused *dialog.ResponseError
	if errors.As(err, &refused) {
		wait = max(wait, min(refused.RetryAfter, longestRetryAfter))
	}
	s := f.leftLocked(Failed)
	if refused != nil || errors.Is(err, ErrNotBound) { // RFC 3608 6.1
		s.ServiceRoute, s.Path = nil, nil
	}
	s.Err, s.RetryIn = err, wait
	f.changeLocked(s)
	f.since = time.Time{}
	f.wakeLocked(wait)
}

// nextTryLocked counts a failure, and returns the time to wait. A success that has lasted
// ends the row of failures before it.
func (f *flow) nextTryLocked() time.Duration {
	if f.provenLocked() {
		f.failures = 0
	}
	f.failures++
	base := f.r.opts.RetryBase
	if f.r.othersLocked(f) {
		base *= otherFactor
	}
	return max(leastPause, backOff(f.failures, base, f.r.opts.RetryMax))
}

// provenLocked reports whether the registration has lasted, so that its end is not that of a
// registrar which ends every registration.
func (f *flow) provenLocked() bool {
	return !f.since.IsZero() && time.Since(f.since) >= f.r.opts.RetryBase
}

// othersLocked reports whether another flow is registered.
func (r *Registration) othersLocked(f *flow) bool {
	for _, other := range r.flows {
		if other != f && other.status.State == Registered {
			return true
		}
	}
	return false
}

// lost is called when the connection of a registration is lost.
func (f *flow) lost(by *dialog.Flow, err error) {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	if f.r.closing || f.busy || !by.Equal(f.by) { // a REGISTER that is under way finds out itself
		return
	}
	f.lostLocked(err)
}

// lostLocked has the flow register again: at once if the connection has lasted, else after the
// back-off (RFC 5626 4.5).
func (f *flow) lostLocked(err error) {
	f.dropLocked()
	wait := time.Duration(0)
	if f.provenLocked() {
		f.failures = 0
	} else {
		wait = f.nextTryLocked()
	}
	s := f.leftLocked(Failed)
	s.Err, s.RetryIn = err, wait
	f.changeLocked(s)
	f.since = time.Time{}
	f.wakeLocked(wait)
}

// settleLocked ends Wait.
func (f *flow) settleLocked() {
	f.tried = true
	settled := f.status.State == Registered
	if !settled {
		settled = true
		for _, other := range f.r.flows {
			settled = settled && other.tried
		}
	}
	select {
	case <-f.r.settled:
	default:
		if settled {
			close(f.r.settled)
		}
	}
}

// takeBack waits for the REGISTER that is under way, and takes back what may be bound.
func (f *flow) takeBack(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(f.r.ctx, cancel)()
	f.r.mu.Lock()
	idle := f.idle
	f.r.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
		return f.ended(ctx)
	}
	f.r.mu.Lock()
	bound := time.Now().Before(f.boundUntil)
	f.r.mu.Unlock()
	if !bound {
		return nil
	}
	got := f.try(ctx, 0)
	switch {
	case got.err != nil && ctx.Err() != nil:
		return f.ended(ctx)
	case got.err != nil:
		return got.err
	case !got.succeeded():
		return refusal(got.res)
	case len(readReply(got.res, got.sent).bound) > 0:
		return ErrStillBound
	}
	return nil
}

// ended is why there is no time any more.
func (f *flow) ended(ctx context.Context) error {
	if f.r.ctx.Err() != nil {
		return dialog.ErrShutdown
	}
	return fmt.Errorf("register: %w", ctx.Err())
}
