package invite

import "slices"

// Forks are the early dialogs E of one INVITE of ours, and the calls F of the forks that are
// released after another has made the call. A proxy may fork the INVITE: each To tag in a
// 101 to 199 makes an early dialog (RFC 3261 12.1.2, 13.2.2.1). The call sends in the current
// one: the oldest that has not ended, and after the first 2xx the one that has answered.
// The zero value has none.
type Forks[E Member, F any] struct {
	list    []E
	current E
	// former are the tags of the early dialogs of an INVITE that was refused, before it
	// was sent again.
	former []string
	// won is true once a 2xx has made the call; winner is its To tag.
	won    bool
	winner string
	// released are the calls of further forks, by To tag, for as long as their 2xx may be
	// repeated: each is released once only.
	released map[string]F
}

// WonBy returns the Forks of an INVITE that has made a call with one peer alone.
func WonBy[E Member, F any](tag string) Forks[E, F] { return Forks[E, F]{won: true, winner: tag} }

// All returns the early dialogs in the order of their first messages.
func (s *Forks[E, F]) All() []E { return s.list }

// Current returns the early dialog in which the call sends; the zero value for none.
func (s *Forks[E, F]) Current() E { return s.current }

// Won reports whether a 2xx has made the call.
func (s *Forks[E, F]) Won() bool { return s.won }

// Find returns the early dialog of a To tag; the zero value for none.
func (s *Forks[E, F]) Find(tag string) (e E) {
	for _, e := range s.list {
		if e.base().Tag == tag {
			return e
		}
	}
	return e
}

// Add adds the early dialog of a new To tag.
func (s *Forks[E, F]) Add(e E) { s.list = append(s.list, e) }

// Belonging says which early dialog a message belongs to.
type Belonging uint8

const (
	// Nowhere: to none. A response is ignored, a request gets 481.
	Nowhere Belonging = iota
	// Outside: a response that makes no early dialog; it only says that the call rings.
	Outside
	// Begins: to one that it makes, which is to be added.
	Begins
	// Known: to the one that is returned.
	Known
)

// Response is what a provisional response says of its early dialog.
type Response struct {
	Tag      string
	Status   int
	Reliable bool
}

// Provisional returns the early dialog of a 101 to 199. It is too late after the 2xx, and
// after the end of its early dialog; a reliable one is still acknowledged after a 199.
func (s *Forks[E, F]) Provisional(r Response) (E, Belonging) {
	var none E
	e, terminated := s.Find(r.Tag), r.Status == StatusTerminated
	switch {
	case s.won:
		return none, Nowhere // may be discarded (RFC 3262 4)
	case e != none:
		return known(e, !e.base().closed && (r.Reliable || !e.base().ended))
	case terminated && (!r.Reliable || r.Tag == "" || s.isFull()):
		return none, Nowhere // RFC 6228 4: discarded
	case r.Tag == "" || s.isFull():
		return none, Outside
	default:
		return none, Begins
	}
}

// Request returns the early dialog of a request of the peer, until a 2xx has made the call. A
// request that overtakes the response that makes its early dialog makes it itself.
func (s *Forks[E, F]) Request(tag string, isBye bool) (E, Belonging) {
	var none E
	e := s.Find(tag)
	switch {
	case e != none:
		return known(e, !e.base().closed && (isBye || !e.base().ended))
	case s.isFull() || slices.Contains(s.former, tag):
		return none, Nowhere
	default:
		return none, Begins
	}
}

func known[E any](e E, yes bool) (E, Belonging) {
	if yes {
		return e, Known
	}
	var none E
	return none, Nowhere
}

func (s *Forks[E, F]) isFull() bool { return len(s.list) >= MaxForks }

// Rang makes an early dialog current if no older one is left.
func (s *Forks[E, F]) Rang(e E, out []Effect[E]) []Effect[E] {
	var none E
	if s.current != none && !s.current.base().ended || e.base().ended {
		return out
	}
	return s.selected(e, out)
}

func (s *Forks[E, F]) selected(e E, out []Effect[E]) []Effect[E] {
	if s.current == e {
		return out
	}
	s.current = e
	return append(out, Effect[E]{Select, e})
}

// End ends an early dialog after a 199, while the INVITE continues. It touches neither the
// other ones nor the call (RFC 6228 4), which sends in the oldest that is left.
func (s *Forks[E, F]) End(e E, out []Effect[E]) []Effect[E] {
	e.base().ended = true
	if s.current == e {
		if at := slices.IndexFunc(s.list, lives); at >= 0 {
			out = s.selected(s.list[at], out)
		}
	}
	return append(out, Effect[E]{End, e})
}

func lives[E Member](e E) bool { return e.base().Lives() }

// Close ends an early dialog for good: the peer has hung up, or it is released.
func (s *Forks[E, F]) Close(e E, out []Effect[E]) []Effect[E] {
	out = s.End(e, out)
	e.base().closed = true
	return append(out, Effect[E]{Close, e})
}

// Failed closes the early dialog in which a request has failed. It reports true, and closes
// nothing, when that ends the call: no other one is left, or this one is the call (RFC 5057
// 5.1, 5.2).
func (s *Forks[E, F]) Failed(e E, out []Effect[E]) (effects []Effect[E], endsCall bool) {
	others := func(other E) bool { return other != e && lives(other) }
	switch {
	case e.base().ended:
		return out, false
	case s.won || !slices.ContainsFunc(s.list, others):
		return out, true
	default:
		return s.Close(e, out), false
	}
}

// Success says which 2xx arrives (RFC 3261 13.2.2.4).
type Success uint8

const (
	// First: it makes the call, unless the application chooses another.
	First Success = iota
	// Repeated: that of the call again. It gets the same ACK.
	Repeated
	// Further: that of another fork, which is released by ACK and BYE.
	Further
	// HungUp: that of an early dialog which has ended. It is released likewise.
	HungUp
)

// Success returns which 2xx has that To tag. cleared is true if the call has ended meanwhile.
func (s *Forks[E, F]) Success(tag string, cleared bool) Success {
	var none E
	_, released := s.released[tag]
	switch e := s.Find(tag); {
	case s.won && tag == s.winner:
		return Repeated
	case s.won || released || cleared:
		return Further
	case e != none && e.base().closed:
		return HungUp
	default:
		return First
	}
}

// Win makes an early dialog the call, by its 2xx, and closes all others.
func (s *Forks[E, F]) Win(e E, out []Effect[E]) []Effect[E] {
	s.won, s.winner, e.base().ended = true, e.base().Tag, false
	return s.closeBut(e, s.selected(e, out))
}

// CloseAll closes all early dialogs but the one that is the call, after a refusal (RFC 3261
// 13.2.2.3) or the end of the call. They are remembered as long as their 2xx may still come.
func (s *Forks[E, F]) CloseAll(out []Effect[E]) []Effect[E] {
	var none E
	return s.closeBut(none, out)
}

func (s *Forks[E, F]) closeBut(winner E, out []Effect[E]) []Effect[E] {
	for _, e := range s.list {
		b := e.base()
		if e == winner || b.closed {
			continue
		}
		b.closed = true
		out = append(out, Effect[E]{Close, e})
		if !b.ended {
			b.ended = true
			out = append(out, Effect[E]{End, e})
		}
	}
	return out
}

// Restart forgets the early dialogs of an INVITE that is sent again: requests in them get 481
// from here on.
func (s *Forks[E, F]) Restart() {
	for _, e := range s.list {
		s.former = append(s.former, e.base().Tag)
	}
	var none E
	s.list, s.current = nil, none
}

// Over forgets all but the winner: no response can come any more.
func (s *Forks[E, F]) Over() { *s = Forks[E, F]{won: s.won, winner: s.winner} }

// Released returns the call of a further fork. ok is false for a new one, which isFull bars
// from being released: no proxy makes so many, and each is kept for 64*T1. Its peer gets no
// ACK, and ends the call (RFC 3261 13.3.1.4).
func (s *Forks[E, F]) Released(tag string) (fork F, ok, isFull bool) {
	fork, ok = s.released[tag]
	return fork, ok, len(s.released) >= MaxForks
}

// Release keeps the call of a further fork.
func (s *Forks[E, F]) Release(tag string, fork F) {
	if s.released == nil {
		s.released = make(map[string]F)
	}
	s.released[tag] = fork
}
