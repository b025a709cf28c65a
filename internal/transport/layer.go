package transport

import (
	"context"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/tasks"
)

// flushTime is how long Close lets streams write their queues.
const flushTime = time.Second

// unacknowledgedTime is how long the kernel may wait for the acknowledgement of what was
// written, which it repeats.
const unacknowledgedTime = 30 * time.Second

// Layer owns all sockets of one stack. Its methods may be called on any
// goroutine.
type Layer struct {
	// Set at construction.
	cfg     Config
	limits  Limits
	network Network
	log     *slog.Logger
	seed    maphash.Seed // of the To tags of stateless answers
	ctx     context.Context
	cancel  context.CancelFunc // ends dials and pauses
	began   time.Time          // the time that each instant counts from

	mu sync.Mutex // guards the fields below; taken before any stream's mutex
	// handler is nil until Handle: messages that arrive are dropped.
	handler   Handler
	closed    bool
	packets   []*packetSocket
	listeners []*listener
	kinds     []kind                  // see ownKinds; nil when they must be looked up again
	bound     []bound                 // both, in order; is appended to only
	streams   map[streamKey][]*stream // live ones
	dials     map[streamKey]*dial
	capacity  capacity

	// Synchronised by themselves.
	counters counters
	holdings holdings
	routes   routeCache
	failures failures
	keeper   keeper
	publics  publics
	tasks    tasks.Group
	warnings warnings // set at construction
}

// New returns a layer without any socket. It must be closed.
func New(cfg Config) *Layer {
	l := &Layer{
		cfg:      cfg,
		limits:   cfg.Limits.withDefaults(),
		network:  cfg.Network,
		log:      cfg.Logger,
		seed:     maphash.MakeSeed(),
		streams:  make(map[streamKey][]*stream),
		dials:    make(map[streamKey]*dial),
		capacity: newCapacity(),
		began:    time.Now(),

		warnings: newWarnings(),
	}
	l.keeper.layer, l.keeper.every = l, cfg.FlowKeepAlive
	l.holdings.most = l.limits.StreamBytes
	if l.network == nil {
		l.network = osNetwork{}
	}
	if l.log == nil {
		l.log = slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.Level(math.MaxInt32)}))
	}
	if l.cfg.Resolver == nil {
		l.cfg.Resolver = resolverOf(l.network)
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// resolverOf is who knows the names of a network: a network in memory itself, so
// that it never asks the machine's resolver.
func resolverOf(n Network) Resolver {
	if own, ok := n.(Resolver); ok {
		return own
	}
	return &net.Resolver{PreferGo: true}
}

// Handle sets the handler of arriving messages. Call it before Listen and
// Connect: a read loop keeps the handler it started with.
func (l *Layer) Handle(h Handler) {
	l.mu.Lock()
	l.handler = h
	l.mu.Unlock()
}

// Limits returns the limits in force, defaults filled in.
func (l *Layer) Limits() Limits { return l.limits }

// Listen opens one more socket and reads from it until Close. It binds before
// it returns, with the address bound. Errors: that of binding,
// ErrUnsupportedTransport, ErrTLS (no certificates given), ErrClosed.
func (l *Layer) Listen(ctx context.Context, lc ListenConfig) (netip.AddrPort, error) {
	k, err := kindOf(lc.Transport)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if k.secure && lc.TLS == nil {
		return netip.AddrPort{}, fmt.Errorf("%w: no TLS configuration for a listener", ErrTLS)
	}
	if k.secure {
		lc.TLS = withHTTP(k, lc.TLS)
	}
	if k.stream {
		return l.listenStream(ctx, k, lc)
	}
	return l.listenPacket(ctx, k, lc)
}

// Close closes all sockets and returns when every goroutine of the layer has
// ended. Streams get up to a second to write their queues. It is idempotent,
// and must not be called from a handler, trace hook or watcher, for which it
// would wait.
func (l *Layer) Close() error {
	l.CloseBy(context.Background(), context.Background())
	return nil
}

// CloseBy is Close whose streams write no longer than until flush ends, and which does
// not wait when end has, for functions of the user's that do not return.
func (l *Layer) CloseBy(flush, end context.Context) {
	streams := l.shut()
	defer context.AfterFunc(flush, func() {
		l.tasks.Run(func() {
			for _, s := range streams {
				s.lose(ErrClosed)
			}
		})
	})()
	l.tasks.Wait(end)
	l.tasks.Close()
	// A watcher registered meanwhile may have started one more.
	l.tasks.Wait(end)
}

// shut closes all sockets, and returns the streams, which may still have something
// to write.
func (l *Layer) shut() []*stream {
	l.mu.Lock()
	l.closed = true
	packets, listeners := l.packets, l.listeners
	l.packets, l.listeners, l.kinds = nil, nil, nil
	streams := l.streamsLocked()
	l.mu.Unlock()

	l.cancel()
	l.keeper.close()
	for _, ln := range listeners {
		_ = ln.ln.Close()
	}
	for _, s := range streams {
		s.finish(ErrClosed, flushTime)
	}
	for _, p := range packets {
		_ = p.conn.Close()
	}
	return streams
}

func (l *Layer) streamsNow() []*stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.streamsLocked()
}

func (l *Layer) streamsLocked() (all []*stream) {
	for _, s := range l.streams {
		all = append(all, s...)
	}
	return all
}

// handlerNow is the handler for a read loop that starts.
func (l *Layer) handlerNow() Handler {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.handler == nil {
		return func(*sipmsg.Message, *Flow) {}
	}
	return l.handler
}

// addStream makes a connection, for which there is a place already, known and has it
// read. ln is where it was accepted, nil when it was dialled. On error the connection
// is closed and its place given back.
func (l *Layer) addStream(k kind, ready link, key streamKey, ln *listener) (*stream, error) {
	limitUnacknowledged(ready.raw, unacknowledgedTime)
	s := newStream(l, k, ready, key, ln)
	l.mu.Lock()
	if l.closed {
		l.freeLocked(s)
		l.mu.Unlock()
		_ = ready.raw.Close()
		return nil, ErrClosed
	}
	l.streams[key] = append(l.streams[key], s)
	l.mu.Unlock()

	if !l.tasks.GoLean(s.readLoop) {
		s.lose(ErrClosed)
		return nil, ErrClosed
	}
	return s, nil
}

// dropStream forgets a stream that is lost.
func (l *Layer) dropStream(s *stream) {
	l.holdings.end(&s.in)
	l.holdings.end(&s.out)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.freeLocked(s)
	rest := slices.DeleteFunc(l.streams[s.key], func(o *stream) bool { return o == s })
	if len(rest) == 0 {
		delete(l.streams, s.key)
		return
	}
	l.streams[s.key] = rest
}

// freeLocked gives a stream's place back.
func (l *Layer) freeLocked(s *stream) {
	if s.listener == nil {
		l.capacity.dialled--
		return
	}
	l.capacity.leaveLocked(Source(s.key.addr.Addr()))
}

// trace calls the trace hook, if there is one, and survives it.
func (l *Layer) trace(outbound bool, f *Flow, data []byte) {
	if l.cfg.Trace == nil {
		return
	}
	defer l.survive("trace hook")
	l.cfg.Trace(Event{
		Outbound: outbound, Transport: f.Transport(),
		Local: f.LocalAddr(), Remote: f.RemoteAddr(),
		Data: data, Time: time.Now(),
	})
}

// survive, deferred, turns a panic into a count and a log line.
func (l *Layer) survive(where string) {
	if p := recover(); p != nil {
		l.counters.panics.Add(1)
		l.log.Error("transport: panic recovered", "in", where, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	}
}

// pause waits d on a timer; false when the layer closes meanwhile.
func (l *Layer) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// nextPause doubles the pause after an error, between 5 ms and 1 s.
func nextPause(last time.Duration) time.Duration {
	return min(max(2*last, 5*time.Millisecond), time.Second)
}
