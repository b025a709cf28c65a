package transport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"

	"sipdialog.example/dialog/internal/errtext"
)

// stream is one connection: a read loop, and a bounded queue whose one writer exists
// while there is something to write.
type stream struct {
	// Set at construction.
	layer *Layer
	kind  kind
	link
	key      streamKey
	local    netip.AddrPort
	listener *listener     // nil: we dialled
	invalid  string        // our sent-by on a WebSocket that we dialled
	flow     *Flow         // the one flow of this connection
	source   source        // finds messages in the bytes read
	in, out  holding       // the bytes that wait for a message's rest, and to be written
	done     chan struct{} // closed when the connection is lost
	deaf     chan struct{} // closed when the read loop has ended

	mu sync.Mutex // guards the fields below
	// err is why nothing more can be sent; nil while the stream is open.
	err error
	// closing is set once the connection is lost, after err.
	closing bool
	// queue waits to be written; writing is true while a goroutine does it.
	queue    []item
	writing  bool
	flushBy  time.Time // nothing is written later than this; zero: no such bound
	watchers []watcher // in the order of registration
	watched  uint64    // the last watcher's number
	telling  bool      // a goroutine calls the watchers

	// code is what a WebSocket is closed with, when not for a reason of ours;
	// synchronised by itself.
	code atomic.Uint32

	// holders is how many calls and registrations need the connection; synchronised by
	// itself.
	holders atomic.Int32

	// neededBy is until when registrations need the connection.
	neededBy instant

	// public is from where the peer sees us, once it has said so; synchronised by itself.
	public atomic.Pointer[netip.AddrPort]

	liveness

	// written is when the last write ended; synchronised by itself.
	written instant
}

// item is one entry of the queue.
type item struct {
	data  []byte
	op    ws.OpCode // of a WebSocket's control frame; zero: a message
	quiet bool      // a keep-alive: not traced, not counted
	last  bool      // no data: the connection ends here
}

type watcher struct {
	id   uint64
	lost func(error)
}

func newStream(l *Layer, k kind, ready link, key streamKey, ln *listener) *stream {
	s := &stream{
		layer: l, kind: k, link: ready, key: key, listener: ln,
		local: addrPort(ready.raw.LocalAddr()),
		done:  make(chan struct{}),
		deaf:  make(chan struct{}),
	}
	s.source = newFramer(l.limits)
	if k.frames {
		s.source = newWSFramer(l.limits, ln == nil)
	}
	if k.frames && ln == nil {
		s.invalid = invalidHost()
	}
	s.in.owner, s.out.owner = s, s
	s.flow = &Flow{layer: l, stream: s, remote: key.addr}
	return s
}

func (s *stream) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// send queues one message; it never blocks.
func (s *stream) send(data []byte) error { return s.enqueue(item{data: data}) }

func (s *stream) enqueue(it item) error {
	s.mu.Lock()
	if err := s.err; err != nil {
		s.mu.Unlock()
		if errors.Is(err, ErrClosed) {
			return ErrClosed
		}
		return errtext.As(ErrClosed, err)
	}
	queued, begin := s.offerLocked(it)
	s.mu.Unlock()
	if !queued {
		s.layer.counters.connSlow.Add(1)
		s.lose(ErrSlow)
		return ErrSlow
	}
	s.layer.holdings.add(&s.out, len(it.data))
	s.write(begin)
	return nil
}

// offerLocked never blocks: a full queue means that the peer does not read. begin is
// true if no write is in progress.
func (s *stream) offerLocked(it item) (queued, begin bool) {
	if len(s.queue) >= s.layer.limits.StreamQueue {
		return false, false
	}
	s.queue = append(s.queue, it)
	begin = !s.writing
	s.writing = true
	return true, begin
}

// write starts the writer, if it has to begin.
func (s *stream) write(begin bool) {
	if begin && !s.layer.tasks.GoLean(s.writeLoop) {
		s.lose(ErrClosed)
	}
}

// finish refuses further messages and lets the writer write the queue,
// for at most limit; then the connection is lost with err.
func (s *stream) finish(err error, limit time.Duration) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	queued, begin := s.offerLocked(item{last: true})
	s.flushBy = time.Now().Add(limit)
	_ = s.raw.SetWriteDeadline(s.flushBy) // for a write under way; does not block
	s.mu.Unlock()
	if !queued {
		s.lose(err)
	}
	s.write(begin)
}

// lose ends the connection at once and calls the watchers. The first error
// given to finish or lose counts.
func (s *stream) lose(err error) {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return
	}
	s.closing = true
	if s.err == nil {
		s.err = err
	}
	err = s.err
	s.stopInquiryLocked()
	s.mu.Unlock()

	needed := s.isNeeded()
	close(s.done)
	_ = s.raw.Close() // not TLS's Close, which may wait for a peer that does not read
	s.layer.dropStream(s)
	s.layer.log.Debug("transport: connection lost", "transport", s.kind.name, "remote", s.key.addr, "error", err)
	s.tell()
	if lost := s.layer.cfg.Lost; lost != nil && needed {
		lost(s.flow, err)
	}
}

// isNeeded reports whether a call or a registration needs the connection.
func (s *stream) isNeeded() bool {
	return s.holders.Load() > 0 || s.neededBy.known() && time.Now().Before(s.neededBy.time(s.layer.began))
}

// writeLoop is the only writer of the connection.
func (s *stream) writeLoop() {
	for it, ok := s.nextItem(); ok; it, ok = s.nextItem() {
		if it.last {
			s.goodbye()
			s.lose(ErrClosed) // finish has set the error that counts
			return
		}
		if !s.writeItem(it) {
			return
		}
		s.layer.holdings.add(&s.out, -len(it.data))
	}
}

// nextItem takes the next item out; false ends the writer.
func (s *stream) nextItem() (it item, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 || s.closing {
		s.queue, s.writing = nil, false
		return item{}, false
	}
	it = s.queue[0]
	s.queue[0] = item{}
	s.queue = s.queue[1:]
	return it, true
}

// writeItem reports false when the connection is lost: any error ends it, since
// half a message may have been written.
func (s *stream) writeItem(it item) bool {
	if !it.quiet {
		s.layer.trace(true, s.flow, it.data) // before: see packetSocket.write
	}
	s.setWriteDeadline()
	_, err := s.conn.Write(s.wire(it))
	s.clearWriteDeadline()
	if err != nil {
		s.layer.counters.writeErrors.Add(1)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.layer.counters.connSlow.Add(1)
			err = ErrSlow
		}
		s.lose(doing(fmt.Sprint("write to ", s.key.addr), err))
		return false
	}
	s.written.set(time.Now(), s.layer.began)
	if !it.quiet {
		s.layer.counters.messagesOut.Add(1)
	}
	return true
}

func (s *stream) setWriteDeadline() {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := deadline(time.Now(), s.layer.limits.WriteTimeout)
	if !s.flushBy.IsZero() && (d.IsZero() || s.flushBy.Before(d)) {
		d = s.flushBy
	}
	_ = s.raw.SetWriteDeadline(d) // an error shows in the write
}

// clearWriteDeadline is for TLS, which also writes on its own, such as the
// answer to a key update: the deadline of a message long gone would break the
// connection.
func (s *stream) clearWriteDeadline() {
	if s.tls == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flushBy.IsZero() {
		_ = s.raw.SetWriteDeadline(time.Time{})
	}
}

// wire has the bytes of an item that are written.
func (s *stream) wire(it item) []byte {
	if !s.kind.frames {
		return it.data
	}
	op := it.op
	if op == 0 {
		op = messageOp(it.data)
	}
	return wsFrame(op, it.data, s.listener == nil)
}

// goodbye ends what is layered on the socket after the last message, no later
// than finish has allowed.
func (s *stream) goodbye() {
	if !s.kind.frames && s.tls == nil {
		return
	}
	s.mu.Lock()
	end := s.flushBy
	s.mu.Unlock()
	if s.kind.frames {
		s.closeWS(end)
	}
	if s.tls != nil {
		// CloseWrite takes five seconds of its own for a peer that does not read.
		end := time.AfterFunc(time.Until(end), func() { _ = s.raw.Close() })
		defer end.Stop()
		_ = s.tls.CloseWrite()
	}
}

func (s *stream) watch(lost func(error)) (cancel func()) {
	s.mu.Lock()
	s.watched++
	id := s.watched
	s.watchers = append(s.watchers, watcher{id: id, lost: lost})
	closing := s.closing
	s.mu.Unlock()
	if closing {
		s.tell()
	}
	return func() { s.unwatch(id) }
}

func (s *stream) unwatch(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, w := range s.watchers {
		if w.id == id {
			s.watchers = append(s.watchers[:i], s.watchers[i+1:]...)
			return
		}
	}
}

// tell calls the watchers on one goroutine, unless that runs already.
func (s *stream) tell() {
	s.mu.Lock()
	start := !s.telling && len(s.watchers) > 0
	s.telling = s.telling || start
	s.mu.Unlock()
	if start {
		// Refused only when the layer has closed for good: then there is no waiter.
		s.layer.tasks.Go(s.callWatchers)
	}
}

// callWatchers takes them one at a time, so that each can be cancelled until
// its own call.
func (s *stream) callWatchers() {
	for {
		s.mu.Lock()
		if len(s.watchers) == 0 {
			s.watchers, s.telling = nil, false
			s.mu.Unlock()
			return
		}
		w, err := s.watchers[0], s.err
		s.watchers = s.watchers[1:]
		s.mu.Unlock()
		s.call(w, err)
	}
}

func (s *stream) call(w watcher, err error) {
	defer s.layer.survive("watcher of a connection")
	w.lost(err)
}

// lossOf names the error of a read for the watchers.
func lossOf(remote netip.AddrPort, err error) error {
	var op *net.OpError
	switch {
	case errors.Is(err, io.EOF):
		return errtext.As(err, fmt.Errorf("connection closed by %s", remote))
	case errors.As(err, &op) && op.Op == "remote error":
		// With TLS 1.3 a client learns after its handshake only that the server
		// refuses its certificate.
		return fmt.Errorf("%w: %s: %w", ErrTLS, remote, err)
	}
	return doing(fmt.Sprint("read from ", remote), err)
}
