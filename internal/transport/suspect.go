package transport

import (
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
)

// A connection can die without a word: a router forgets it, or a host goes away. TCP
// retransmits for a quarter of an hour before it reports that. So a connection by
// which nothing comes is asked whether it lives, and other ways are preferred meanwhile.

// pongTime is how long the answer to a keep-alive may take (RFC 5626 4.4.1).
const pongTime = 10 * time.Second

// trust says whether a connection is believed to live.
type trust int32

const (
	trusted trust = iota
	asked         // a keep-alive awaits its answer
	suspect       // likewise; and other ways are preferred
)

// liveness records whether a connection is alive. Its zero value trusts.
type liveness struct {
	heard   instant      // when something was last received
	pinged  instant      // when a keep-alive of ours was last sent
	answers atomic.Bool  // the peer has answered one
	trust   atomic.Int32 // a trust; is written with the stream's mutex held

	// The stream's mutex guards the fields below.

	verdict *time.Timer // ends the connection; nil while it need not show anything
	inquiry uint64      // counts verdicts, so that one that was stopped knows
}

// Doubt says that a message sent by the flow has had no effect for so long. When
// nothing else was received on its connection since either, the connection is suspect,
// until something is: it is pinged, and lost when that shows nothing in ten seconds.
// Messages that can go by another connection should. It does not block.
func (f *Flow) Doubt(silence time.Duration) {
	if f.stream != nil {
		f.stream.doubt(silence, true)
	}
}

// Suspect reports whether the flow's connection may be dead.
func (f *Flow) Suspect() bool { return f.stream != nil && f.stream.isSuspect() }

// Dialled reports whether the flow is a connection that we have opened, so that another
// one can be.
func (f *Flow) Dialled() bool { return f.stream != nil && f.stream.listener == nil }

// Target is where a connection that we have opened leads.
func (f *Flow) Target() Target {
	key := f.stream.key
	return Target{Transport: key.transport, Addr: key.addr, ServerName: key.serverName}
}

func (s *stream) isSuspect() bool { return trust(s.trust.Load()) == suspect }

// mustAnswer reports whether the peer is known to answer keep-alives: each end of a
// WebSocket does (RFC 6455 5.5.2), and who has once.
func (s *stream) mustAnswer() bool { return s.kind.frames || s.answers.Load() }

// doubt makes the connection suspect unless something was received within silence. fatal:
// it is lost when it does not answer, also when the peer may not know how to.
func (s *stream) doubt(silence time.Duration, fatal bool) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	before := trust(s.trust.Load())
	s.trust.Store(int32(suspect)) // before the look at heard, see hear
	if s.heardWithin(silence) {
		s.trust.Store(int32(before)) // who doubts it for another reason still does
		s.mu.Unlock()
		return
	}
	if fatal || s.mustAnswer() {
		s.inquireLocked()
	}
	s.mu.Unlock()
	if before == trusted {
		s.ping()
	}
}

// ask pings a connection that is trusted. A peer that knows how to answer has to.
func (s *stream) ask() {
	s.mu.Lock()
	if s.err != nil || trust(s.trust.Load()) != trusted {
		s.mu.Unlock()
		return
	}
	if s.mustAnswer() {
		s.trust.Store(int32(asked))
		s.inquireLocked()
	}
	s.mu.Unlock()
	s.ping()
}

// hearPong notes that the peer knows keep-alives. What comes later than an answer may is
// none: some clients send single line ends of their own.
func (s *stream) hearPong(at time.Time) {
	if at.Sub(s.pinged.time(s.layer.began)) <= pongTime {
		s.answers.Store(true)
	}
}

func (s *stream) heardWithin(silence time.Duration) bool {
	return s.heard.known() && time.Since(s.heard.time(s.layer.began)) < silence
}

// inquireLocked gives the connection time to show that it lives, unless it has that
// already.
func (s *stream) inquireLocked() {
	if s.verdict != nil {
		return
	}
	s.inquiry++
	inquiry := s.inquiry
	s.verdict = time.AfterFunc(pongTime, func() {
		// Counted, so that Close can wait for it.
		s.layer.tasks.Run(func() { s.convict(inquiry) })
	})
}

func (s *stream) convict(inquiry uint64) {
	s.mu.Lock()
	stale := s.inquiry != inquiry || trust(s.trust.Load()) == trusted
	s.mu.Unlock()
	if !stale {
		s.layer.counters.connNoPong.Add(1)
		s.lose(ErrNoPong)
	}
}

// hear notes that something was received, which clears the connection: here after it was
// noted, in doubt before it is looked for, so that one of the two sees the other.
func (s *stream) hear(at time.Time) {
	s.heard.set(at, s.layer.began)
	if trust(s.trust.Load()) == trusted {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acquitLocked()
}

func (s *stream) acquitLocked() {
	s.trust.Store(int32(trusted))
	s.stopInquiryLocked()
}

func (s *stream) stopInquiryLocked() {
	s.inquiry++
	if s.verdict != nil {
		s.verdict.Stop()
		s.verdict = nil
	}
}

// ping sends a keep-alive: a double CRLF (RFC 5626 4.4.1), or a WebSocket's (RFC 7118 6).
func (s *stream) ping() {
	s.pinged.set(time.Now(), s.layer.began)
	s.source.expectPong()
	it := item{data: []byte(endBlock), quiet: true}
	if s.kind.frames {
		it = item{op: ws.OpPing, quiet: true}
	}
	_ = s.enqueue(it) // when it cannot be, the connection is lost
}
