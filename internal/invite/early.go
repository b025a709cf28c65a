// Package invite decides what becomes of the messages that set up a call (RFC 3261 13): which
// early dialog a response or request belongs to, which 2xx makes the call, and when a 2xx and
// its ACK are repeated. It is pure: no clock, lock, socket, goroutine or callback. A method takes an
// input, changes the state, and returns or appends effects, which the caller carries out in
// their order. Nothing in it is safe for concurrent use.
package invite

// MaxForks bounds the early dialogs of one INVITE, the 2xx among which the application
// chooses, and the forks that are released after a 2xx.
const MaxForks = 64

// StatusTerminated says that an early dialog has ended (RFC 6228).
const StatusTerminated = 199

// Early is one early dialog of an INVITE, that of a To tag (RFC 3261 12.1). Its state:
//
//	made by a request, which has overtaken the response
//	live: a response has set target and route set
//	ended, by a 199: it may still answer (RFC 6228 4), and still gets PRACKs
//	closed: no message belongs to it any more
//
// It is embedded in what the caller keeps of an early dialog, which so is a [Member].
type Early struct {
	// Tag is the To tag.
	Tag                   string
	status                int32
	learnt, ended, closed bool
}

// Member is an early dialog of the caller's: a pointer to a struct that embeds Early.
type Member interface {
	comparable
	base() *Early
}

func (e *Early) base() *Early { return e }

// Live returns the early dialog of a response of our own, with that To tag.
func Live(tag string) Early { return Early{Tag: tag, learnt: true} }

// Status returns the status of the latest response; zero before the first.
func (e *Early) Status() int { return int(e.status) }

// Lives reports whether a response has made the early dialog, and it has not ended.
func (e *Early) Lives() bool { return e.learnt && !e.ended }

// Ended reports whether it has ended: by a BYE, a 199, a failed PRACK, or the 2xx of another
// one.
func (e *Early) Ended() bool { return e.ended }

// Lesson is what a response of the peer sets in its early dialog.
type Lesson uint8

const (
	// LearnAll: target and route set (RFC 3261 12.1.2, 13.2.2.4).
	LearnAll Lesson = iota
	// LearnTarget: the target alone (RFC 6141 4.3).
	LearnTarget
	// LearnIdentity: neither.
	LearnIdentity
)

// Hear records a provisional response that was accepted. A second one refreshes the target
// only if it is reliable.
func (e *Early) Hear(status int, reliable bool) Lesson {
	e.status = int32(status)
	switch {
	case !e.learnt:
		e.learnt = true
		return LearnAll
	case reliable:
		return LearnTarget
	default:
		return LearnIdentity
	}
}

// HearSuccess records the 2xx: target and route set are those of the 2xx.
func (e *Early) HearSuccess(status int) Lesson {
	e.status, e.learnt = int32(status), true
	return LearnAll
}

// Effect is what follows for one early dialog.
type Effect[E any] struct {
	Kind  EffectKind
	Early E
}

// EffectKind is one of the constants below.
type EffectKind uint8

const (
	// Select: the call sends in this early dialog from here on.
	Select EffectKind = iota
	// End: it has ended. The application is told, and what is open in it is refused.
	End
	// Close: no message belongs to it any more.
	Close
)
