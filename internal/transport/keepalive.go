package transport

import "time"

// keepAliveTime is the silence after which to send the next keep-alive, 80 to
// 100 % of the configured one so that flows do not beat in step (RFC 5626 4.4);
// 0: never. The side that was dialled only answers.
func (s *stream) keepAliveTime() time.Duration {
	longest := s.layer.cfg.KeepAlive
	if s.listener != nil || longest <= 0 {
		return 0
	}
	return jittered(longest)
}

// nextPing is when to send a keep-alive or, when one is under way, to give up;
// zero: not now. It waits for the rest of a message, which stands before the
// answer (RFC 5626 4.4.1).
func (r *reader) nextPing() time.Time {
	switch {
	case r.every == 0 || !r.begun.IsZero():
		return time.Time{}
	case !r.pinged.IsZero():
		return r.pinged.Add(pongTime)
	}
	return r.active().Add(r.every)
}

// ping sends a keep-alive; false: the last one was not answered.
func (r *reader) ping(now time.Time) bool {
	if !r.pinged.IsZero() {
		r.s.layer.counters.connNoPong.Add(1)
		r.s.lose(ErrNoPong)
		return false
	}
	r.pinged, r.every = now, r.s.keepAliveTime()
	r.s.ping()
	return true
}
