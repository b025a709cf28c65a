package sdp

import (
	"slices"
	"strings"
)

// Wanted is what an application wants of a session, stream by stream: what it once
// said itself, whatever the peer has made of it since (RFC 6337 5.1). nil is an
// application that has said nothing. A Wanted is not changed once it is made.
type Wanted struct {
	Description
	// spare are streams whose slots others have got: an offer may bring them back.
	spare []Media
}

// Offered returns what is wanted after an offer of the application's: what that
// says, and nothing that it leaves out of a stream. A stream that makes way for one
// of another kind, as audio for a fax, stays in reserve; one with port 0 is given up.
func (w *Wanted) Offered(ours *Description) *Wanted {
	next := &Wanted{Description: *ours}
	if w == nil {
		return next
	}
	for i, m := range w.Media {
		if i >= len(ours.Media) || ours.Media[i].isOpen() && !sameKind(m, ours.Media[i]) {
			next.keep(w, m)
		}
	}
	for _, m := range w.spare {
		next.keep(w, m)
	}
	return next
}

// Answered returns what is wanted after an answer of the application's. That can say
// no more than the offer has asked: directions and streams that the offer had not are
// wanted as before, and so are formats, of which an answer often lists but one.
func (w *Wanted) Answered(ours, offer *Description) *Wanted {
	if w == nil {
		w = &Wanted{}
	}
	next := &Wanted{Description: Description{Session: slices.DeleteFunc(slices.Clone(ours.Session), isDirection)}}
	streams, place := w.place(offer.Media, func(stream, line Media) bool { return sameKind(stream, line) })
	for i, m := range ours.Media {
		offered, before := Media{}, Media{}
		if i < len(offer.Media) {
			offered = offer.Media[i]
			if place[i] >= 0 {
				before = w.alone(streams[place[i]], ours)
			}
		}
		switch {
		case m.isOpen():
			m = m.with(wantedDirection(ours.Direction(m), offer.Direction(offered), w.directionOr(before)))
			m = m.andFormatsOf(before)
		case offered.isClosed() && before.isOpen():
			m = before
		}
		next.Media = append(next.Media, m)
	}
	for j, m := range streams {
		switch {
		case slices.Contains(place, j):
		case j >= len(ours.Media) && j < len(w.Media):
			next.Media = append(next.Media, w.alone(m, ours))
		default:
			next.keep(w, m)
		}
	}
	return next
}

// wantedDirection is the direction that is wanted: what an answer says where the
// offer left it the choice, what was wanted before where not (RFC 6337 5.3).
func wantedDirection(answered, offered, before Direction) Direction {
	choice := offered.mirrored()
	return answered&choice | before&^choice
}

// directionOr is the direction of a stream, or of one that was never said.
func (w *Wanted) directionOr(m Media) Direction {
	if !m.isOpen() {
		return SendRecv
	}
	return w.Direction(m)
}

// keep puts an open stream of before's in reserve, unless there is one of its kind.
func (w *Wanted) keep(before *Wanted, m Media) {
	is := func(other Media) bool { return other.isOpen() && sameKind(other, m) }
	if m.isOpen() && !slices.ContainsFunc(w.Media, is) && !slices.ContainsFunc(w.spare, is) {
		w.spare = append(w.spare, before.alone(m, &w.Description))
	}
}

// alone returns a stream as it has to be written under the session lines of another
// description to say the same.
func (w *Wanted) alone(m Media, under *Description) Media {
	m = m.with(w.Direction(m))
	mine, theirs := slices.IndexFunc(w.Session, isType('c')), slices.IndexFunc(under.Session, isType('c'))
	if mine < 0 || slices.ContainsFunc(m.Lines, isType('c')) || theirs >= 0 && under.Session[theirs] == w.Session[mine] {
		return m
	}
	m.Lines = slices.Insert(m.Lines, 0, w.Session[mine]) // m has lines of its own from here on
	return m
}

// sameKind reports whether two streams are of the same media and transport.
func sameKind(a, b Media) bool {
	return strings.EqualFold(a.Kind, b.Kind) && strings.EqualFold(a.Proto, b.Proto)
}

// place finds a stream for each line, -1 where there is none: that of its own slot
// first, then one that has nothing to do in its slot. It returns all streams, those
// in reserve last.
func (w *Wanted) place(lines []Media, fits func(stream, line Media) bool) (streams []Media, place []int) {
	streams = slices.Concat(w.Media, w.spare)
	used := make([]bool, len(streams))
	place = make([]int, len(lines))
	for i, line := range lines {
		place[i] = -1
		if i < len(w.Media) && fits(streams[i], line) {
			place[i], used[i] = i, true
		}
	}
	for i, line := range lines {
		for j := 0; place[i] < 0 && j < len(streams); j++ {
			if !used[j] && fits(streams[j], line) {
				place[i], used[j] = j, true
			}
		}
	}
	return streams, place
}

// Offer is what is wanted as an offer that follows what stands, which may be nil.
// Each stream that stands keeps its place; a slot that nobody wants is refused (RFC
// 3264 8).
func (w *Wanted) Offer(stands *Description) *Description {
	var lines []Media
	if stands != nil {
		lines = stands.Media
	}
	streams, place := w.place(lines, func(stream, line Media) bool {
		return line.isOpen() && sameKind(stream, line) && stream.Port == line.Port
	})
	offer := &Description{Session: w.Session}
	for i, line := range lines {
		if place[i] < 0 && i < len(w.Media) && !slices.Contains(place, i) {
			place[i] = i
		}
		if place[i] < 0 || !streams[place[i]].isOpen() {
			offer.Media = append(offer.Media, line.refused())
			continue
		}
		offer.Media = append(offer.Media, streams[place[i]])
	}
	for j := len(lines); j < len(w.Media); j++ {
		if w.Media[j].isOpen() && !slices.Contains(place, j) {
			offer.Media = append(offer.Media, w.Media[j])
		}
	}
	return offer
}

// Same reports whether two descriptions say the same session, whatever their
// versions, their times, and how they write it.
func Same(a, b *Description) bool {
	if !slices.Equal(a.said(a.Session), b.said(b.Session)) {
		return false
	}
	return slices.EqualFunc(a.Media, b.Media, func(m, n Media) bool {
		if m.isClosed() && n.isClosed() {
			return sameKind(m, n)
		}
		return sameKind(m, n) && m.Port == n.Port && slices.Equal(m.Formats, n.Formats) &&
			a.Direction(m) == b.Direction(n) && slices.Equal(a.said(m.Lines), b.said(n.Lines))
	})
}

// said are the lines that say what a session is, in order.
func (d *Description) said(lines []Line) []Line {
	var said []Line
	for _, l := range lines {
		switch {
		case strings.IndexByte("trz", l.Type) >= 0, isDirection(l):
		case l.Type == 'o':
			said = append(said, Line{'o', string(WithVersion([]byte("o="+l.Value), 0))})
		default:
			said = append(said, l)
		}
	}
	slices.SortStableFunc(said, func(a, b Line) int { return rank(a) - rank(b) })
	return said
}
