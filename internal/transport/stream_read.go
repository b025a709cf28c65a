package transport

import (
	"errors"
	"io"
	"os"
	"time"
)

// reader is the state of one read loop.
type reader struct {
	// Set at construction.
	s  *stream
	in *inbound
	f  source

	held  int       // bytes that are counted in s.in
	ahead bool      // a message has been read since
	heard bool      // something has been read
	begun time.Time // when the message that is incomplete began; zero: none
	quiet time.Time // when something last arrived

	every  time.Duration // the silence until the next keep-alive; 0: none are sent
	pinged time.Time     // when the keep-alive was sent that is not answered; zero: none
}

func (s *stream) readLoop() {
	defer close(s.deaf)
	defer s.layer.holdings.gone(&s.in)
	in := s.layer.newInbound()
	r := &reader{s: s, in: in, f: s.source, quiet: time.Now(), every: s.keepAliveTime()}
	for r.read() {
	}
}

// read takes one read's worth; false ends the loop. It never writes: see the
// package comment.
func (r *reader) read() bool {
	if r.held > 0 && !r.s.layer.holdings.wait(&r.s.in) {
		return false
	}
	_ = r.s.conn.SetReadDeadline(r.deadline()) // an error shows in the read
	space := r.f.space()
	r.hold()
	n, err := r.s.conn.Read(space)
	r.f.fed(n)
	if n > 0 {
		r.quiet, r.heard = time.Now(), true
		r.s.hear(r.quiet)
		if !r.frames() {
			return false
		}
	}
	switch {
	case err == nil:
		return true
	case errors.Is(err, os.ErrDeadlineExceeded):
		return r.timeout()
	case errors.Is(err, io.EOF):
		// The peer may have closed one direction only: it gets the queue.
		r.s.finish(lossOf(r.s.key.addr, err), flushTime)
	default:
		r.s.lose(lossOf(r.s.key.addr, err))
	}
	return false
}

// hold counts the bytes that the connection holds while it waits for more.
func (r *reader) hold() {
	held := r.f.held()
	if held != r.held {
		r.s.layer.holdings.add(&r.s.in, held-r.held)
		r.held = held
	}
	if held > 0 && r.ahead {
		r.s.layer.holdings.ahead(&r.s.in)
	}
	r.ahead = false
}

// frames handles the frames that have arrived; false ends the loop.
func (r *reader) frames() bool {
	for {
		fr, ok := r.f.next()
		if !ok {
			break
		}
		if !fr.inside {
			r.begun, r.ahead = time.Time{}, true
		}
		if !r.handle(fr) {
			return false
		}
	}
	switch {
	case !r.f.begun():
		r.begun = time.Time{}
	case r.begun.IsZero():
		r.begun = r.quiet
	}
	return true
}

// handle reports false when the stream cannot be read any further.
func (r *reader) handle(fr frame) bool {
	switch {
	case fr.ping != nil:
		r.s.layer.counters.keepAlives.Add(1)
		if fr.pong {
			r.pinged = time.Time{}
		}
		return r.s.enqueue(*fr.ping) == nil
	case fr.pong:
		r.pinged = time.Time{}
		r.s.hearPong(r.quiet)
	case fr.whole:
		r.deliver(fr)
	}
	switch {
	case fr.ended:
		r.s.code.Store(uint32(fr.code))
		r.s.finish(lossOf(r.s.key.addr, io.EOF), flushTime)
		return false
	case fr.lost:
		// RFC 3261 18.3, after the 400 that may be queued.
		r.s.code.Store(uint32(fr.code))
		r.s.layer.counters.connUnframed.Add(1)
		r.s.finish(ErrFraming, flushTime)
		return false
	}
	return true
}

// deliver survives a handler's panic: it costs that message only.
func (r *reader) deliver(fr frame) {
	defer r.s.layer.survive("message")
	r.in.deliver(fr.message, fr.raw, r.s.flow)
}

// deadline is when the loop must look again though nothing arrives.
func (r *reader) deadline() time.Time {
	end, ping := r.end(), r.nextPing()
	if end.IsZero() || !ping.IsZero() && ping.Before(end) {
		return ping
	}
	return end
}

// end: a message that has begun must be complete in PartialTimeout, which
// counts from its first byte so that single bytes do not extend it; between
// messages IdleTimeout counts, in both directions, unless the
// connection is held: then it is checked again; before any message, SilenceTimeout.
func (r *reader) end() time.Time {
	if !r.begun.IsZero() {
		return deadline(r.begun, r.s.layer.limits.PartialTimeout)
	}
	if r.silent() {
		return deadline(r.quiet, r.s.layer.limits.SilenceTimeout)
	}
	if r.s.flow.Held() {
		return deadline(time.Now(), r.s.layer.limits.IdleTimeout)
	}
	return deadline(r.active(), r.s.layer.limits.IdleTimeout)
}

// silent reports whether the peer has opened the connection and nothing was sent on it in
// either direction: the cheapest way to use up Limits.Connections.
func (r *reader) silent() bool {
	return !r.heard && r.s.listener != nil && !r.s.written.known() && r.s.layer.limits.SilenceTimeout >= 0
}

// active is when something was last read or written.
func (r *reader) active() time.Time {
	if wrote := r.s.written.time(r.s.layer.began); wrote.After(r.quiet) {
		return wrote
	}
	return r.quiet
}

// timeout ends a stream whose deadline has passed, unless writing has moved it.
func (r *reader) timeout() bool {
	now := time.Now()
	if ping := r.nextPing(); !ping.IsZero() && !now.Before(ping) {
		return r.ping(now)
	}
	if end := r.end(); end.IsZero() || now.Before(end) {
		return true
	}
	if !r.begun.IsZero() {
		r.s.layer.counters.connPartial.Add(1)
		r.s.lose(ErrFraming)
		return false
	}
	if r.silent() {
		r.s.layer.counters.connSilent.Add(1)
	} else {
		r.s.layer.counters.connIdle.Add(1)
	}
	r.s.finish(ErrIdle, flushTime)
	return false
}
