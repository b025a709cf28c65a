package dialog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/auth"
	"sipdialog.example/dialog/internal/budget"
	"sipdialog.example/dialog/internal/deadline"
	"sipdialog.example/dialog/internal/extension"
	"sipdialog.example/dialog/internal/journal"
	"sipdialog.example/dialog/internal/lockstat"
	"sipdialog.example/dialog/internal/mailbox"
	"sipdialog.example/dialog/internal/outgoing"
	"sipdialog.example/dialog/internal/rate"
	"sipdialog.example/dialog/internal/registry"
	"sipdialog.example/dialog/internal/storewriter"
	"sipdialog.example/dialog/internal/tasks"
	"sipdialog.example/dialog/internal/transport"
	"sipdialog.example/dialog/internal/txn"
	"sipdialog.example/dialog/internal/unconfirmed"
)

// Stack places and receives calls on its listening sockets. [NewStack] makes it,
// [Stack.Start] starts it, and [Stack.Shutdown] ends it; it does not restart. Every
// method may be called from any goroutine and from inside any callback.
type Stack struct {
	// Set at construction.

	config    *StackConfig
	journal   *journal.Journal
	log       *slog.Logger // into journal
	admission rate.Admission
	// made is what times are counted from that there are many of.
	made time.Time
	// allowHeader and supportedHeader stand in most messages, goDeliver
	// and runCallback are deliveries.Go and application.
	allowHeader, supportedHeader sip.Header
	goDeliver                    func(func()) bool
	runCallback                  func(func())
	// unconfirmed and callBytes synchronise themselves.
	unconfirmed *unconfirmed.Calls[*Dialog]
	callBytes   *budget.Budget
	// deadlines are the timers of all dialogs; what they call is counted in tasks.
	deadlines *deadline.Queue
	// verifier is nil without MoveCredentials.
	verifier *auth.Verifier
	// writers writes the calls to the Store, under the name owner; nil without a Store.
	writers *storewriter.Group
	owner   string
	// takeovers is what goes on with the calls of others; nil without a Store.
	takeovers *takeovers
	// base ends when the layers below are closed, and with it every wait for the
	// network.
	base       context.Context
	cancelBase context.CancelFunc

	// mutex guards the fields below. It comes before any Dialog.mutex.
	mutex     lockstat.RWMutex
	state     stackState
	callbacks StackCallbacks
	handlers  handlerMap
	// client is the transaction layer; nil means not started.
	client transactionLayer
	// layer and sockets are the transaction and transport layers themselves, for Stats and the end.
	layer     *txn.Layer
	sockets   *transport.Layer
	addresses []netip.AddrPort
	// unwatch stops following the context of Start.
	unwatch func() bool
	// registry finds dialogs; dialogs are its calls in progress. The timer is that of its
	// tombstones, and nil while there are none.
	registry       *registry.Of[DialogKey, *Dialog]
	dialogs        map[DialogKey]*Dialog
	tombstoneTimer *deadline.Func
	// started is closed when the latest Start is over; nil before the first.
	started <-chan struct{}
	// draining is true once new calls of peers are refused.
	draining bool
	// stopped is closed when Shutdown is over; stopErr is its result.
	stopped chan struct{}
	stopErr error
	// untold and unanswered count the calls that ended, while Shutdown was at work,
	// without their peer knowing, or having said so.
	untold, unanswered int

	// The fields below are safe for concurrent use: our goroutines, those of them that
	// write a BYE or a last NOTIFY, those that call the application for a decision, those
	// that deliver notifications, the running functions of the application, and the
	// challenges of requests outside calls. lostFlows tells OnFlowLost.

	tasks       tasks.Group
	byes        tasks.Group
	calls       tasks.Group
	deliveries  tasks.Group
	running     tasks.Group // is never closed
	stopping    tasks.Group // likewise: the one that Shutdown may leave behind
	credentials auth.Cache
	counters    counters
	decisions   sync.Map // of *decision: those that are open
	lostFlows   mailbox.Mailbox
	parts       extension.Parts
	// handingOver is true once HandOver was called.
	handingOver atomic.Bool
	defaults    atomic.Pointer[callDefaults]
}

type stackState int

const (
	stackNew stackState = iota
	stackStarting
	stackServing
	stackStopping
	stackStopped
)

// errNotMade refuses a Stack that is not NewStack's.
var errNotMade = fmt.Errorf("%w: stack not made by NewStack", ErrInvalidArgument)

// NewStack returns a stack that is not started. A nil config means the defaults. The
// config is copied and not changed.
//
// Errors: ErrInvalidArgument (the transport does not validate).
func NewStack(config *StackConfig) (stack *Stack, err error) {
	defer naming("NewStack", &err)
	own := &StackConfig{}
	if config != nil {
		*own = *config
		if config.Transport != nil {
			copied := *config.Transport
			own.Transport = &copied
		}
	}
	own.Listeners, own.AcceptBodies = slices.Clone(own.Listeners), slices.Clone(own.AcceptBodies)
	for _, tc := range own.listeners() {
		tc.WebSocket = tc.WebSocket.clone()
	}
	own.InfoPackages, own.IdentityFrom = slices.Clone(own.InfoPackages), slices.Clone(own.IdentityFrom)
	if err := own.validate(); err != nil {
		return nil, err
	}
	records := journal.New(own.logHandler())
	s := &Stack{
		config:    own,
		journal:   records,
		log:       records.Logger(),
		admission: rate.NewAdmission(own.Limits.InviteRate, own.Limits.InviteRatePerSource),

		unconfirmed: newUnconfirmed(own),
		callBytes:   budget.New(own.callBytes()),
		made:        time.Now().Add(-1), // no age is zero

		registry: newRegistry(own),
		stopped:  make(chan struct{}),
	}
	s.dialogs = s.registry.Active
	s.deadlines = deadline.New(s.tasks.Run)
	s.allowHeader, s.supportedHeader = own.allow(nil), sip.NewHeader("Supported", own.rules().Supported())
	s.goDeliver, s.runCallback = s.deliveries.Go, s.application
	s.lostFlows.Go, s.lostFlows.Run = s.goDeliver, s.runCallback
	s.lostFlows.Panicked = func(value any, stack []byte) { s.logPanic(s.log, "OnFlowLost", value, stack) }
	s.base, s.cancelBase = context.WithCancel(context.Background())
	s.writers, s.takeovers = s.newStoreWriters(), newTakeovers(own)
	s.mutex.Stats = &s.counters.stackLock
	if own.MoveCredentials != nil {
		s.verifier = auth.NewVerifier()
	}
	return s, nil
}

// Start binds the configured addresses and serves them in the background. It returns
// when the sockets are bound, or with the error of the bind; after an error it may be
// called again. The end of ctx begins Shutdown, with the grace time.
//
// Errors: ErrAlreadyStarted, ErrShutdown, ErrUnsupportedTransport, ErrTransport wrapping
// the operating system's, that of ctx.
func (s *Stack) Start(ctx context.Context) (err error) {
	defer naming("Start", &err)
	if ctx == nil {
		return errNilContext("Start")
	}
	started, err := s.begin()
	if err != nil {
		return err
	}
	defer close(started)
	if err := s.open(ctx); err != nil {
		s.startFailed()
		return err
	}
	s.watchStore()
	unwatch := context.AfterFunc(ctx, s.shutdownInGrace)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.unwatch = unwatch
	if s.state != stackServing {
		unwatch() // shut down meanwhile
	}
	return nil
}

// startFailed lets Start be called again.
func (s *Stack) startFailed() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.state == stackStarting {
		s.state = stackNew
	}
}

// begin returns a channel that is closed at the end of Start. Shutdown waits for it,
// since it closes what Start has opened.
func (s *Stack) begin() (chan<- struct{}, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	switch {
	case s.config == nil:
		return nil, errNotMade
	case s.state == stackNew:
		s.state = stackStarting
		started := make(chan struct{})
		s.started = started
		return started, nil
	case s.state >= stackStopping:
		return nil, ErrShutdown
	default:
		return nil, ErrAlreadyStarted
	}
}

// open builds the transaction and transport layers and binds.
func (s *Stack) open(ctx context.Context) error {
	sockets := transport.New(transport.Config{
		Network: s.config.Network, Resolver: s.config.resolver(), Logger: s.log, Trace: s.tracer(),
		Limits: s.config.transportLimits(), TLS: s.config.clientTLS(), KeepAlive: s.config.KeepAlive,
		LearnPublic: s.config.LearnPublicAddress, FlowKeepAlive: orDefault(s.config.FlowKeepAlive, defaultKeepAlive),
		WebSockets: s.config.webSocketServers(), FollowMaddr: s.config.FollowMaddr, Lost: s.flowLost,
	})
	timers := s.config.timers()
	layer := txn.New(txn.Config{
		Transport: sockets, User: stackUser{s}, Logger: s.log, Timeout: s.config.TxTimeout,
		Timers:   txn.Timers{T1: timers.T1, T2: timers.T2, T4: timers.T4},
		QueueLen: orDefault(s.config.Limits.PendingPerCall, defaultPendingPerCall), Transactions: s.config.Limits.Transactions,
		TransactionBytes: s.config.Limits.TransactionBytes, InCall: s.inCall, Unmatched: s.unmatched,
	})
	// A message that arrives before the state changes finds a stack that is starting: it
	// is refused without a wait.
	addresses, err := s.listen(ctx, sockets)
	if err == nil && s.serve(layer, sockets, addresses) {
		return nil
	}
	layer.Close()
	_ = sockets.Close()
	if err == nil {
		return ErrShutdown
	}
	return err
}

// listen binds every configured address, in order.
func (s *Stack) listen(ctx context.Context, sockets *transport.Layer) ([]netip.AddrPort, error) {
	var addresses []netip.AddrPort
	for _, tc := range s.config.listeners() {
		address, err := sockets.Listen(ctx, transport.ListenConfig{
			Transport: strings.ToLower(tc.Protocol), Address: tc.GetListenAddress(), TLS: tc.TLSConfig,
			PublicHost: strings.Trim(tc.PublicAddress, "[]"), PublicPort: tc.PublicPort,
			ViaHost: strings.Trim(tc.ViaAddress, "[]"), ViaPort: tc.ViaPort,
			Origins: tc.WebSocket.origins(), CheckOrigin: s.checkOrigin(tc.WebSocket),
		})
		switch {
		case errors.Is(err, transport.ErrUnsupportedTransport):
			return nil, fmt.Errorf("%w: %s", ErrUnsupportedTransport, tc.Protocol)
		case err != nil:
			return nil, transportError(err)
		}
		addresses = append(addresses, address)
	}
	return addresses, nil
}

// serve takes the layers into use, unless Shutdown came first.
func (s *Stack) serve(layer *txn.Layer, sockets *transport.Layer, addresses []netip.AddrPort) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.state != stackStarting {
		return false
	}
	s.client, s.layer, s.sockets = txnLayer{layer, s.journal}, layer, sockets
	s.addresses, s.state = addresses, stackServing
	return true
}

func (s *Stack) tracer() func(transport.Event) {
	trace := s.config.Trace
	if trace == nil {
		return nil
	}
	return func(e transport.Event) {
		s.application(func() {
			value, returned := tasks.Apart(func() {
				trace(TraceEvent{Time: e.Time, Outbound: e.Outbound, Transport: e.Transport, Local: e.Local, Remote: e.Remote, Data: e.Data})
			})
			if !returned {
				s.logPanic(s.log, "Trace", value, nil)
			}
		})
	}
}

// Addr returns the address that the stack listens on, the first of several; it is not
// valid before Start. For a configured port of 0 it has the free port that was chosen.
func (s *Stack) Addr() netip.AddrPort {
	if addresses := s.Addrs(); len(addresses) > 0 {
		return addresses[0]
	}
	return netip.AddrPort{}
}

// Addrs returns all addresses that the stack listens on: Transport's, then those of
// Listeners, in order.
func (s *Stack) Addrs() []netip.AddrPort {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	return slices.Clone(s.addresses)
}

// OnIncomingDialog sets the callback for incoming calls; nil refuses them with 480. The
// callback runs on its own goroutine, with no lock held, after the INVITE has got 100 and
// 180, and may block: Accept and Reject may be called in it or later. If it panics before
// the call is answered, the caller gets 500.
func (s *Stack) OnIncomingDialog(callback func(IDialog)) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.callbacks.OnIncomingDialog = callback
}

// OnCall is OnIncomingDialog for a callback that gets the *Dialog itself. Each replaces the
// function of the other. The callback runs on its own goroutine and may block, until the call
// has ended, too: Shutdown ends the call first, and then waits for the callback.
func (s *Stack) OnCall(callback func(*Dialog)) {
	if callback == nil {
		s.OnIncomingDialog(nil)
		return
	}
	s.OnIncomingDialog(func(call IDialog) { callback(call.(*Dialog)) })
}

// OnIncomingRefer sets the callback for REFERs inside a call. It runs on its own
// goroutine after the REFER has got 202, and may block. OnReferRequest decides whether to
// accept a REFER. This callback executes it: with [Dialog.FollowRefer], or in another
// way, after which it reports the outcome with [ReferSubscription.SendNotify]. The call
// may have ended by then. If no callback is set, a REFER gets 202 and is then
// declined by a NOTIFY of 603, which ends its subscription.
func (s *Stack) OnIncomingRefer(callback func(dialog IDialog, referTo sip.Uri, replaces *ReplacesInfo)) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.callbacks.OnIncomingRefer = callback
}

// OnReferRequest sets the function that decides the REFERs of all calls that have none of
// their own ([Dialog.OnRefer]) before their response; nil accepts all. OnIncomingRefer runs
// after an accepted REFER, unless the function has called [ReferRequest.OnAccepted]. See
// [ReferHandler].
func (s *Stack) OnReferRequest(handler ReferHandler) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.callbacks.OnReferRequest = handler
}

func (s *Stack) callbacksNow() StackCallbacks {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	return s.callbacks
}

// Extend is for other packages of this module: what it returns has types of no other's.
func (s *Stack) Extend(_ extension.Key, part extension.Part) (host extension.Host, err error) {
	if _, err := s.transactions(); err != nil {
		return host, err
	}
	if !s.parts.Add(part) {
		return host, ErrShutdown
	}
	box := &mailbox.Mailbox{Go: s.goDeliver, Run: s.runCallback}
	box.Panicked = func(value any, stack []byte) { s.logPanic(s.log, fmt.Sprintf("callback of %T", part), value, stack) }
	return extension.Host{
		Go: s.tasks.Go, Timers: s.timers(), Callbacks: box, Route: outgoing.Route(nil, s.firstHop(nil)),
		Check: checkRequestOutside, Leave: func() { s.parts.Remove(part) },
	}, nil
}

// adopt gives a new dialog its mailbox.
func (s *Stack) adopt(d *Dialog) *Dialog {
	d.mutex.Stats = &s.counters.dialogLocks
	d.mailbox.Go, d.mailbox.Run = s.goDeliver, s.runCallback
	d.mailbox.Panicked = func(value any, stack []byte) { s.logPanic(d.log(), "notification", value, stack) }
	d.holds.Belong(s.callBytes)
	return d
}

// age is how old the stack is, and never zero. A dialog may have none.
func (s *Stack) age() time.Duration { return time.Since(s.birth()) }

func (s *Stack) birth() (at time.Time) {
	if s != nil {
		at = s.made
	}
	return at
}

// application runs a callback of the application, and counts it while it runs.
func (s *Stack) application(f func()) { s.running.Run(f) }

// callbacksRunning counts the callbacks of the application that run.
func (s *Stack) callbacksRunning() int { return s.calls.Running() + s.running.Running() }

// transactions returns the transaction layer, or the reason why there is none.
func (s *Stack) transactions() (transactionLayer, error) {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	if s.client != nil {
		return s.client, nil
	}
	return nil, s.notReadyLocked()
}

func (s *Stack) notReadyLocked() error {
	if s.state >= stackStopping {
		return ErrShutdown
	}
	return ErrNotStarted
}

func (s *Stack) ready() error {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	return s.readyLocked()
}

// readyLocked returns an error when new calls are not accepted.
func (s *Stack) readyLocked() error {
	if s.state == stackServing && s.client != nil {
		return nil
	}
	return s.notReadyLocked()
}
