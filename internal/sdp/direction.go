package sdp

import (
	"slices"
	"strings"
)

// Direction is the direction of media, as seen from the side that describes it.
type Direction uint8

const (
	// Sends and Receives are the bits of a Direction.
	Sends Direction = 1 << iota
	Receives

	Inactive Direction = 0
	SendRecv           = Sends | Receives
)

// String returns the attribute's name.
func (d Direction) String() string {
	switch d {
	case Sends:
		return "sendonly"
	case Receives:
		return "recvonly"
	case SendRecv:
		return "sendrecv"
	default:
		return "inactive"
	}
}

// mirrored returns the direction as seen from the other side (RFC 3264 6.1).
func (d Direction) mirrored() Direction {
	switch d {
	case Sends:
		return Receives
	case Receives:
		return Sends
	default:
		return d
	}
}

// directionOf returns the direction that a line sets.
func directionOf(l Line) (d Direction, ok bool) {
	if l.Type != 'a' {
		return 0, false
	}
	name := strings.TrimSpace(l.Value)
	for _, d := range []Direction{Inactive, Sends, Receives, SendRecv} {
		if strings.EqualFold(name, d.String()) {
			return d, true
		}
	}
	return 0, false
}

func isDirection(l Line) bool {
	_, ok := directionOf(l)
	return ok
}

// Direction returns the direction of a stream. If the stream has none, it is the
// session's, and without that sendrecv (RFC 8866 6.7).
func (d *Description) Direction(m Media) Direction {
	for _, lines := range [][]Line{m.Lines, d.Session} {
		if at := slices.IndexFunc(lines, isDirection); at >= 0 {
			direction, _ := directionOf(lines[at])
			return direction
		}
	}
	return SendRecv
}

// with returns the stream with the direction as its only one.
func (m Media) with(direction Direction) Media {
	at := slices.IndexFunc(m.Lines, isDirection)
	if at < 0 {
		at = len(m.Lines)
	}
	m.Lines = slices.DeleteFunc(slices.Clone(m.Lines), isDirection)
	m.Lines = slices.Insert(m.Lines, at, Line{'a', direction.String()})
	return m
}

// WithDirections returns the description with the directions of its streams changed.
func (d *Description) WithDirections(change func(Direction) Direction) *Description {
	changed := &Description{Session: slices.DeleteFunc(slices.Clone(d.Session), isDirection)}
	for _, m := range d.Media {
		if m.isOpen() {
			m = m.with(change(d.Direction(m)))
		}
		changed.Media = append(changed.Media, m)
	}
	return changed
}
