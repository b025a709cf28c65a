// Package sdp reads session descriptions (RFC 8866), even if peers do not follow the
// grammar strictly, and builds offers and answers for the session that an application
// wants (RFC 3264, RFC 6337). It is pure: no state, no clock, no lock.
package sdp

import (
	"errors"
	"slices"
	"strconv"
	"strings"
)

// ErrUnreadable means that a text is not a session description.
var ErrUnreadable = errors.New("sdp: not a session description")

// The bounds of m= lines: an answer repeats each, and each needs many times the memory of
// its text.
const (
	maxMedia     = 256
	maxMediaText = 32 << 10
)

// Description is a session description as a list of lines: an unknown line is kept
// unchanged. A Description is immutable.
type Description struct {
	// Session has the lines above the first m= line.
	Session []Line
	Media   []Media
}

// Line is one line, such as a=sendrecv.
type Line struct {
	Type  byte
	Value string
}

// Media is an m= line, and the lines below it.
type Media struct {
	// Kind is the media type, such as audio. Port may include a number of ports:
	// "4000/2".
	Kind, Port, Proto string
	Formats           []string
	Lines             []Line
}

// Parse reads a text. It accepts any line ends, and a last line without one. Apart from v=
// and m= the order of lines does not matter; lines may be missing, and unknown ones are
// kept. It returns ErrUnreadable for a text that does not begin with v=0, has a malformed
// line, an m= line with missing parts, more than 256 m= lines, or more than 32 KiB in them,
// or has neither o= nor m=.
func Parse(text []byte) (*Description, error) {
	lines, err := linesOf(text)
	if err != nil {
		return nil, err
	}
	if len(lines) == 0 || lines[0].Type != 'v' || strings.TrimSpace(lines[0].Value) != "0" {
		return nil, ErrUnreadable
	}
	d := new(Description)
	begin, bytes := len(lines), 0
	for i := len(lines) - 1; i >= 0; i-- {
		if lines[i].Type != 'm' {
			continue
		}
		if bytes += len(lines[i].Value); len(d.Media) == maxMedia || bytes > maxMediaText {
			return nil, ErrUnreadable
		}
		media, err := mediaOf(lines[i].Value, lines[i+1:begin])
		if err != nil {
			return nil, err
		}
		d.Media = append(d.Media, media)
		begin = i
	}
	slices.Reverse(d.Media)
	d.Session = lines[:begin:begin]
	if len(d.Media) == 0 && !slices.ContainsFunc(d.Session, isType('o')) {
		return nil, ErrUnreadable
	}
	return d, nil
}

// linesOf splits a text into lines. It leaves out blank lines.
func linesOf(text []byte) ([]Line, error) {
	raw := strings.FieldsFunc(strings.TrimPrefix(string(text), "\ufeff"), isLineEnd)
	lines := make([]Line, 0, len(raw))
	for _, line := range raw {
		line = strings.TrimRight(strings.TrimLeft(line, " \t"), "\x00")
		switch {
		case strings.TrimSpace(line) == "":
		case len(line) < 2 || line[1] != '=' || !isLetter(line[0]):
			return nil, ErrUnreadable
		default:
			lines = append(lines, Line{line[0], line[2:]})
		}
	}
	return lines, nil
}

func isLineEnd(r rune) bool { return r == '\r' || r == '\n' }

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func isType(t byte) func(Line) bool { return func(l Line) bool { return l.Type == t } }

// mediaOf reads an m= line. It accepts a line without formats, which can be refused.
func mediaOf(value string, lines []Line) (Media, error) {
	fields := strings.Fields(value)
	if len(fields) < 3 {
		return Media{}, ErrUnreadable
	}
	return Media{Kind: fields[0], Port: fields[1], Proto: fields[2], Formats: fields[3:], Lines: slices.Clip(lines)}, nil
}

// port returns the port number; ok is false if it is not a port number.
func (m Media) port() (number int, ok bool) {
	first, _, _ := strings.Cut(m.Port, "/")
	number, err := strconv.Atoi(first)
	return number, err == nil && number >= 0 && number <= 65535
}

// isOpen reports whether the port is not zero: the stream is used (RFC 3264 5.1, 6).
func (m Media) isOpen() bool {
	number, ok := m.port()
	return ok && number > 0
}

// isClosed reports whether the port is zero: the stream is not used. A stream whose port
// cannot be read is neither open nor closed.
func (m Media) isClosed() bool {
	number, ok := m.port()
	return ok && number == 0
}

// refused returns the m= line with port 0 (RFC 3264 6). It lists at least one format, as
// the grammar requires.
func (m Media) refused() Media {
	formats := m.Formats
	if len(formats) == 0 {
		formats = []string{"0"}
	}
	return Media{Kind: m.Kind, Port: "0", Proto: m.Proto, Formats: formats}
}

// order is the order of lines in a section (RFC 8866 5). r= lines belong to the t= line
// before them.
const order = "vosiuepcbtzka"

func rank(l Line) int {
	if l.Type == 'r' {
		return strings.IndexByte(order, 't')
	}
	if at := strings.IndexByte(order, l.Type); at >= 0 {
		return at
	}
	return len(order)
}

// Bytes returns the text of the description: lines in the order of RFC 8866 5, each with
// CRLF.
func (d *Description) Bytes() []byte {
	var text []byte
	text = appendLines(text, d.Session)
	for _, m := range d.Media {
		text = append(text, "m="+m.Kind+" "+m.Port+" "+m.Proto+" "+strings.Join(m.Formats, " ")+"\r\n"...)
		text = appendLines(text, m.Lines)
	}
	return text
}

func appendLines(text []byte, lines []Line) []byte {
	byRank := func(a, b Line) int { return rank(a) - rank(b) }
	if !slices.IsSortedFunc(lines, byRank) {
		lines = slices.Clone(lines)
		slices.SortStableFunc(lines, byRank)
	}
	for _, l := range lines {
		text = append(append(append(text, l.Type, '='), l.Value...), "\r\n"...)
	}
	return text
}
