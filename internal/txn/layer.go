package txn

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"runtime/debug"
	"sync/atomic"
	"time"

	"sipdialog.example/dialog/internal/deadline"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/tasks"
	"sipdialog.example/dialog/internal/transport"
)

// defaultQueueLen is Config.QueueLen's default.
const defaultQueueLen = 64

// defaultTransactions is Config.Transactions' default, defaultBytes that of
// Config.TransactionBytes.
const (
	defaultTransactions = 200000
	defaultBytes        = 256 << 20
)

// urgent is how many requests, and ACKs, that end something or are waited for may
// wait for one Call-ID beyond Config.QueueLen.
const urgent = 256

// settleTime is how long Close waits until received messages are answered. That takes
// microseconds, unless a method of User waits for something.
const settleTime = 100 * time.Millisecond

// Config configures a Layer. Transport and User are required.
type Config struct {
	Transport *transport.Layer
	User      User
	Timers    Timers
	// Timeout replaces Timers B and F, for each target; zero: 64*T1.
	Timeout time.Duration
	// QueueLen is how much work may wait for one Call-ID before other requests
	// than BYE, CANCEL, ACK and PRACK are answered 503, which may be 256 more; zero:
	// 64.
	QueueLen int
	// Transactions is how many server transactions there may be, and
	// TransactionBytes about how much they may hold, before new requests are answered
	// 503; zero: 200000, and 256 MiB. An eighth more in number, and 256, and the last
	// eighth of the bytes, are for the requests of which InCall says that they belong
	// to something that is there.
	Transactions, TransactionBytes int
	// InCall reports whether a request belongs to a call, and so is admitted beyond the
	// bound; nil admits BYE and PRACK. The rules of User hold, and it must not wait.
	InCall func(m *sipmsg.Message) bool
	// Unmatched returns the work, for the queue of its Call-ID, about a 2xx to an INVITE
	// that matches no transaction; nil means nothing. It must not wait.
	Unmatched func(m *sipmsg.Message) (work func())
	Logger    *slog.Logger // nil: silent. Never called with a lock held.
}

// User is the layer above. For one Call-ID these calls, and those of
// ClientUser, come one at a time, in the order of arrival; for different
// Call-IDs they come in parallel. No lock is held, and a panic is recovered. They must not
// wait for the peer: the next message of that Call-ID waits for them.
type User interface {
	// Request hands over a new server transaction: any method but ACK and
	// CANCEL. An INVITE outside dialogs has been answered 100.
	Request(tx *Server)
	// Ack hands over an ACK that belongs to a 2xx, or to nothing at all, and the flow
	// that it came by.
	Ack(ack *sipmsg.Message, flow *transport.Flow)
	// Cancel says that a CANCEL for tx, an INVITE without final answer, has come
	// and has been answered 200. The 487 is the user's to send.
	Cancel(tx *Server, cancel *sipmsg.Message)
	// ServerFailed says that no ACK came for a failure response (ErrTimeout),
	// or that a response for which Respond or Repeat had returned nil could not be
	// sent (ErrTransport).
	ServerFailed(tx *Server, err error)
}

// ClientUser takes the responses and the outcome of one client transaction. The rules of
// User hold.
type ClientUser interface {
	// Response hands over a provisional response (100 included), the final one,
	// and for INVITE each 2xx, also repeated and from other forks, until Timer M.
	Response(tx *Client, res *sipmsg.Message)
	// Done is called once and last. err is nil after a final response (of an INVITE
	// accepted: after Timer M), else ErrTimeout, ErrTransport, ErrCancelled or
	// ErrClosed.
	Done(tx *Client, err error)
}

// Layer is the transaction layer of one stack. Its methods may be called from
// any goroutine.
type Layer struct {
	// Set at construction.

	transport *transport.Layer
	user      User
	timers    Timers
	timeout   time.Duration
	queueLen  int
	most      int // of server transactions
	inCall    func(m *sipmsg.Message) bool
	unmatched func(m *sipmsg.Message) func()
	secret    []byte // behind the tags of our responses
	made      time.Time
	log       *slog.Logger
	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
	deadlines *deadline.Queue // of all transactions

	// These synchronise themselves.

	clients *table[*clientTx]
	servers *table[*serverTx]
	merging *table[*serverTx] // by Call-ID, From tag and CSeq
	// Records of transactions that have ended. A transaction stays in its table until its
	// record is here.
	pastClients, pastServers *over

	queues   *queues
	refusals *refusals
	held     budget      // what server transactions hold
	tasks    tasks.Group // timers at work, connections being set up
	redials  tasks.Group // those for responses to INVITEs
	counters counters
	closed   atomic.Bool
}

// New returns a layer that takes over the transport's handler. It must be
// called before the transport listens, and the layer must be closed.
func New(cfg Config) *Layer {
	timers := cfg.Timers.withDefaults()
	l := &Layer{
		transport: cfg.Transport,
		user:      cfg.User,
		timers:    timers,
		timeout:   cfg.Timeout,
		queueLen:  cfg.QueueLen,
		most:      cfg.Transactions,
		inCall:    cfg.InCall,
		unmatched: cfg.Unmatched,
		secret:    []byte(randomHex(16)),
		made:      time.Now(),
		log:       cfg.Logger,
		clients:   newTable[*clientTx](),
		servers:   newTable[*serverTx](),
		merging:   newTable[*serverTx](),
	}
	l.deadlines = deadline.New(l.tasks.Run) // counted, so that Close can wait for them
	l.pastClients, l.pastServers = newOver(l, nil), newOver(l, &l.held)
	if l.timeout <= 0 {
		l.timeout = timers.limit()
	}
	if l.queueLen <= 0 {
		l.queueLen = defaultQueueLen
	}
	if l.most <= 0 {
		l.most = defaultTransactions
	}
	l.held.most = int64(cfg.TransactionBytes)
	if l.held.most <= 0 {
		l.held.most = defaultBytes
	}
	if l.inCall == nil {
		l.inCall = endsOrAcknowledges
	}
	if l.log == nil {
		l.log = slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.Level(math.MaxInt32)}))
	}
	l.refusals = newRefusals(timers.limit())
	l.queues = newQueues(func(work task) {
		defer l.survive("call of the layer above")
		work.run()
	})
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.transport.Handle(l.receive)
	return l
}

// Close ends all transactions: clients without a final response get ErrClosed. It blocks
// until the queues are empty and nothing of this layer runs any more, so it must not be
// called from a method of User or ClientUser. It is idempotent. The transport stays open.
func (l *Layer) Close() { l.CloseBy(context.Background()) }

// CloseBy is Close that does not wait when ctx has ended, for calls of the user's, or
// of the transport's trace, that do not return.
func (l *Layer) CloseBy(ctx context.Context) {
	l.closed.Store(true)
	// Messages that have been received are still answered: a BYE may be among them.
	l.queues.waitIdle(ctx, settleTime)
	l.cancel()
	for _, tx := range l.clients.all() {
		tx.close()
	}
	for _, tx := range l.servers.all() {
		tx.close()
	}
	l.pastClients.close()
	l.pastServers.close()
	for _, group := range []*tasks.Group{&l.tasks, &l.redials} {
		group.Close()
		group.Wait(ctx)
	}
	l.queues.close(ctx)
}

// WaitRefused blocks until no response to an INVITE waits for a new connection, or ctx
// ends.
func (l *Layer) WaitRefused(ctx context.Context) { l.redials.Wait(ctx) }

// Counts has the present numbers of a layer.
type Counts struct {
	Clients int // client transactions
	Servers int // server transactions
	Queues  int // Call-IDs with work under way
	Tasks   int // timers at work, and connections being set up for the next target or again
}

// Running returns the present numbers: all zero when the timers of the last transaction
// have ended.
func (l *Layer) Running() Counts {
	return Counts{
		Clients: l.clients.len() + l.pastClients.len(),
		Servers: l.serverCount(),
		Queues:  l.queues.len(),
		Tasks:   l.tasks.Running() + l.redials.Running(),
	}
}

func (l *Layer) serverCount() int { return l.servers.len() + l.pastServers.len() }

// Held is about how many bytes the server transactions hold.
func (l *Layer) Held() int { return int(l.held.held.Load()) }

// Stats counts since the start of the layer.
type Stats struct {
	Malformed uint64 // messages refused with 400 or 505, or dropped
	Unmatched uint64 // responses that belong to no transaction
	Merged    uint64 // requests refused with 482
	Refused   uint64 // requests refused with 503 for a full queue
	// Responses counts the provisional responses, and repeated 2xx, that came faster
	// than they were handled, and were dropped.
	Responses uint64
	Panics    uint64 // panics survived
	// Retransmissions counts the messages written once more: by a timer, for a
	// message that came again, or by Repeat.
	Retransmissions uint64
}

type counters struct {
	malformed, unmatched, merged, refused, responses, panics, retransmitted atomic.Uint64
}

// Stats returns the counters. It does not block.
func (l *Layer) Stats() Stats {
	c := &l.counters
	return Stats{
		Malformed: c.malformed.Load(),
		Unmatched: c.unmatched.Load(),
		Merged:    c.merged.Load(),
		Refused:   c.refused.Load(),
		Responses: c.responses.Load(),
		Panics:    c.panics.Load(),

		Retransmissions: c.retransmitted.Load(),
	}
}

// survive, deferred, turns a panic into a count and a log line.
func (l *Layer) survive(where string) {
	if p := recover(); p != nil {
		l.counters.panics.Add(1)
		l.log.Error("panic recovered", "in", where, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	}
}
