package sdp

import (
	"slices"
	"strings"
)

// Wanted is the session that an application wants, stream by stream. It follows from the
// application's own SDP, and answers of the peer do not reduce it (RFC 6337 5.1). nil means
// that the application has sent no SDP. A Wanted is immutable.
type Wanted struct {
	Description
	// spare has streams whose m= lines other streams have taken: a later offer may
	// bring them back.
	spare []Media
	// AnyNumber says that answers use the payload types of the offer: the application has
	// named its codecs, and not their numbers. Otherwise a codec under another number is
	// not the application's.
	AnyNumber bool
}

// Offered returns the wanted session after an offer of the application: each stream is as
// in the offer. A stream that another kind of stream replaces, as a fax replaces audio, is
// kept in spare. A stream with port 0 is dropped.
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

// Answered returns the wanted session after an answer of the application. An answer
// cannot contain more than its offer, so directions and streams that the offer did not have
// are still wanted. So are formats, as an answer often lists only one.
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

// wantedDirection returns the wanted direction: each bit is that of the answer if the
// offer left a choice, else that of the earlier wanted direction (RFC 6337 5.3).
func wantedDirection(answered, offered, before Direction) Direction {
	choice := offered.mirrored()
	return answered&choice | before&^choice
}

// directionOr returns the direction of a stream, sendrecv if there is no such stream.
func (w *Wanted) directionOr(m Media) Direction {
	if !m.isOpen() {
		return SendRecv
	}
	return w.Direction(m)
}

// keep puts an open stream of before into spare, unless there is a stream of its kind.
func (w *Wanted) keep(before *Wanted, m Media) {
	is := func(other Media) bool { return other.isOpen() && sameKind(other, m) }
	if m.isOpen() && !slices.ContainsFunc(w.Media, is) && !slices.ContainsFunc(w.spare, is) {
		w.spare = append(w.spare, before.alone(m, &w.Description))
	}
}

// alone returns a stream with the same meaning under the session lines of another
// description.
func (w *Wanted) alone(m Media, under *Description) Media {
	m = m.with(w.Direction(m))
	mine, theirs := slices.IndexFunc(w.Session, isType('c')), slices.IndexFunc(under.Session, isType('c'))
	if mine < 0 || slices.ContainsFunc(m.Lines, isType('c')) || theirs >= 0 && under.Session[theirs] == w.Session[mine] {
		return m
	}
	m.Lines = slices.Insert(m.Lines, 0, w.Session[mine]) // m.with has copied the lines
	return m
}

// sameKind reports whether two streams have the same media type and transport.
func sameKind(a, b Media) bool {
	return strings.EqualFold(a.Kind, b.Kind) && strings.EqualFold(a.Proto, b.Proto)
}

// place finds a stream for each line: first the stream of the line's own index, then any
// stream that is not used. It returns all streams, the spare ones last, and for each line
// the index of its stream, or -1.
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

// Offer returns an offer of the wanted session that follows the current description, which
// may be nil. Each current stream keeps its m= line. A line without a wanted stream gets
// port 0 (RFC 3264 8).
func (w *Wanted) Offer(current *Description) *Description {
	var lines []Media
	if current != nil {
		lines = current.Media
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

// Same reports whether two descriptions describe the same session. It ignores versions,
// times, the order of line types, and whether a direction belongs to the session or a
// stream.
func Same(a, b *Description) bool {
	if !slices.Equal(a.content(a.Session), b.content(b.Session)) {
		return false
	}
	return slices.EqualFunc(a.Media, b.Media, func(m, n Media) bool {
		if m.isClosed() && n.isClosed() {
			return sameKind(m, n)
		}
		return sameKind(m, n) && m.Port == n.Port && slices.Equal(m.Formats, n.Formats) &&
			a.Direction(m) == b.Direction(n) && slices.Equal(a.content(m.Lines), b.content(n.Lines))
	})
}

// content returns the lines that describe a session, sorted, without times and directions.
func (d *Description) content(lines []Line) []Line {
	var content []Line
	for _, l := range lines {
		switch {
		case strings.IndexByte("trz", l.Type) >= 0, isDirection(l):
		case l.Type == 'o':
			content = append(content, Line{'o', string(WithVersion([]byte("o="+l.Value), 0))})
		default:
			content = append(content, l)
		}
	}
	slices.SortStableFunc(content, func(a, b Line) int { return rank(a) - rank(b) })
	return content
}

// Spare returns a description that has the streams which are in no slot; nil without any.
func (w *Wanted) Spare() *Description {
	if len(w.spare) == 0 {
		return nil
	}
	return &Description{Session: w.Session, Media: w.spare}
}

// WithSpare returns what is wanted with the streams of a description in reserve.
func (w *Wanted) WithSpare(spare *Description) *Wanted {
	next := *w
	next.spare = spare.Media
	return &next
}
