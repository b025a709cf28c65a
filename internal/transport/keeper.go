package transport

import (
	"math/rand/v2"
	"sync"
	"time"
)

// streamKeepAlive is the longest silence on a TCP or TLS connection that is held (RFC 5626
// 4.4.1). A WebSocket is kept as a flow of UDP is: the proxies before a
// server of HTTP close connections that are silent for a minute.
const streamKeepAlive = 120 * time.Second

// sweepPause is the least time between two looks at the flows that are held.
const sweepPause = time.Second

// keeper keeps the flows open that calls and registrations need, by one timer for all,
// which runs while there are any.
type keeper struct {
	// Set at construction.

	layer *Layer
	every time.Duration // the longest silence; 0: no keep-alives

	mu     sync.Mutex // guards the fields below; comes before the mutexes of streams
	held   map[keepKey]*kept
	timer  *time.Timer // nil while nothing is held
	at     time.Time   // when it fires
	closed bool
}

// keepKey is one flow.
type keepKey struct {
	publicKey
	stream *stream
}

// kept is a flow that is held: by a number of holders, or until a time.
type kept struct {
	flow  *Flow
	needs int
	until time.Time
	due   time.Time // the next keep-alive
	// longest is the silence that the peer permits; zero: it does not say.
	longest time.Duration
}

func (f *Flow) keepKey() keepKey {
	if f.stream != nil {
		return keepKey{stream: f.stream}
	}
	return keepKey{publicKey: publicKey{f.socket, f.remote}}
}

// HoldFor is Hold for so long, or for as long as another call of it says: a registration
// needs the flow.
func (f *Flow) HoldFor(span time.Duration) {
	if f.stream != nil {
		f.stream.neededFor(span)
	}
	f.layer.keeper.change(f, func(k *kept, now time.Time) {
		if until := now.Add(span); until.After(k.until) {
			k.until = until
		}
	})
}

// neededFor says that a registration needs the connection for so long.
func (s *stream) neededFor(span time.Duration) {
	s.mu.Lock() // two registrations may say so at once
	defer s.mu.Unlock()
	if until := time.Now().Add(span); !s.neededBy.known() || until.After(s.neededBy.time(s.layer.began)) {
		s.neededBy.set(until, s.layer.began)
	}
}

// HoldAnswered is Hold for a flow whose peer has said that it answers keep-alives on a
// connection (RFC 5626 4.4), and wants them after this silence at the latest; zero: it
// does not say.
func (f *Flow) HoldAnswered(longest time.Duration) {
	if f.stream != nil {
		f.stream.answers.Store(true)
	}
	f.Hold()
	f.layer.keeper.change(f, func(h *kept, now time.Time) {
		if longest > 0 && (h.longest == 0 || longest < h.longest) {
			h.longest = longest
			h.due = now.Add(jittered(f.layer.keeper.silence(h)))
		}
	})
}

func (k *keeper) hold(f *Flow)    { k.change(f, func(h *kept, _ time.Time) { h.needs++ }) }
func (k *keeper) release(f *Flow) { k.change(f, func(h *kept, _ time.Time) { h.needs-- }) }

// change notes that more or fewer need a flow.
func (k *keeper) change(f *Flow, change func(*kept, time.Time)) {
	if k.every <= 0 {
		return
	}
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	key := f.keepKey()
	h := k.held[key]
	if h == nil {
		h = &kept{flow: f}
		h.due = now.Add(jittered(k.silence(h)))
	}
	change(h, now)
	if !h.isNeeded(now) {
		if delete(k.held, key); len(k.held) == 0 {
			k.stopLocked()
		}
		return
	}
	if k.held == nil {
		k.held = make(map[keepKey]*kept)
	}
	k.held[key] = h
	k.wakeLocked(h.due, now)
}

func (h *kept) isNeeded(now time.Time) bool { return h.needs > 0 || now.Before(h.until) }

// silence is the longest on a flow.
func (k *keeper) silence(h *kept) time.Duration {
	longest := k.every
	if s := h.flow.stream; s != nil && !s.kind.frames {
		longest = max(longest, streamKeepAlive)
	}
	if h.longest > 0 {
		longest = min(longest, h.longest)
	}
	return longest
}

// jittered is 80 to 100 % of an interval, so that flows do not beat in step (RFC 5626
// 4.4).
func jittered(longest time.Duration) time.Duration { return longest - rand.N(longest/5+1) }

// wakeLocked has sweep come no later than then.
func (k *keeper) wakeLocked(due, now time.Time) {
	if k.timer != nil && !due.Before(k.at) {
		return
	}
	k.at = due
	if earliest := now.Add(sweepPause); due.Before(earliest) {
		k.at = earliest
	}
	if k.timer == nil {
		k.timer = time.AfterFunc(k.at.Sub(now), k.sweep)
		return
	}
	k.timer.Reset(k.at.Sub(now))
}

// sweep sends the keep-alives that are due.
func (k *keeper) sweep() {
	// Counted, so that Close can wait for it.
	k.layer.tasks.Run(func() {
		for _, f := range k.due(time.Now()) {
			f.keepAlive()
		}
	})
}

// due takes the flows whose keep-alive is due, and sees to it that sweep comes again.
func (k *keeper) due(now time.Time) (flows []*Flow) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stopLocked() // one that change has set since
	var next time.Time
	for key, h := range k.held {
		if !h.isNeeded(now) || h.flow.Err() != nil {
			delete(k.held, key)
			continue
		}
		if last := h.flow.lastActive(); last.Add(k.silence(h) * 4 / 5).After(h.due) {
			h.due = last.Add(jittered(k.silence(h)))
		}
		if !now.Before(h.due) {
			flows = append(flows, h.flow)
			h.due = now.Add(jittered(k.silence(h)))
		}
		if next.IsZero() || h.due.Before(next) {
			next = h.due
		}
	}
	if !next.IsZero() && !k.closed {
		k.wakeLocked(next, now)
	}
	return flows
}

// close ends all keep-alives.
func (k *keeper) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed, k.held = true, nil
	k.stopLocked()
}

func (k *keeper) stopLocked() {
	if k.timer != nil {
		k.timer.Stop()
		k.timer = nil
	}
}

// lastActive is when something was last read or written; for UDP that is not recorded.
func (f *Flow) lastActive() time.Time {
	s := f.stream
	if s == nil {
		return time.Time{}
	}
	wrote, heard := s.written.time(s.layer.began), s.heard.time(s.layer.began)
	if wrote.After(heard) {
		return wrote
	}
	return heard
}

// keepAlive sends a keep-alive: on UDP a datagram of line ends, which gets no answer.
// RFC 5626 4.4.2 requires STUN there, but only to peers that announce support for it; line
// ends alone are not a SIP message.
func (f *Flow) keepAlive() {
	if f.stream != nil {
		if f.stream.keepAliveTime() == 0 { // else the read loop asks
			f.stream.ask()
		}
		return
	}
	if err := f.socket.writeTo([]byte(endBlock), f); err != nil {
		f.layer.counters.writeErrors.Add(1)
	}
}
