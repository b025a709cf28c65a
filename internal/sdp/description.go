// Package sdp reads session descriptions (RFC 8866), as loosely as peers write
// them, and makes the offers and answers that follow from what an application
// wants (RFC 3264, RFC 6337). It is pure: no state, no clock, no lock.
package sdp

import (
	"errors"
	"slices"
	"strconv"
	"strings"
)

// ErrUnreadable says that a text is no session description.
var ErrUnreadable = errors.New("sdp: not a session description")

// An answer repeats each m= line, and each costs many times its text.
const (
	maxMedia     = 256
	maxMediaText = 32 << 10
)

// Description is a session description as its lines: a line that nobody here
// understands stays as it came. A Description is not changed once it is made.
type Description struct {
	// Session are the lines above the first m= line.
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
	// Kind is the media type, such as audio. Port may name a number of ports
	// too: "4000/2".
	Kind, Port, Proto string
	Formats           []string
	Lines             []Line
}

// Parse reads a text. Any line ends will do, the last line needs none, the order
// of lines does not matter but for v= and m=, lines may be missing, and unknown
// ones are kept. What cannot be read at all is ErrUnreadable: a text without v=0
// in the beginning, with something that is no line, with an m= line whose parts
// are missing, with more than 256 of them, or more than 32 KiB in them, or with neither
// o= nor m=.
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

// linesOf splits a text. Blank lines are left out.
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

// mediaOf reads an m= line. One without formats is let pass: it can be refused.
func mediaOf(value string, lines []Line) (Media, error) {
	fields := strings.Fields(value)
	if len(fields) < 3 {
		return Media{}, ErrUnreadable
	}
	return Media{Kind: fields[0], Port: fields[1], Proto: fields[2], Formats: fields[3:], Lines: slices.Clip(lines)}, nil
}

// port returns the port's number; ok is false for what is none.
func (m Media) port() (number int, ok bool) {
	first, _, _ := strings.Cut(m.Port, "/")
	number, err := strconv.Atoi(first)
	return number, err == nil && number >= 0 && number <= 65535
}

// isOpen reports whether the stream is to be used (RFC 3264 5.1, 6).
func (m Media) isOpen() bool {
	number, ok := m.port()
	return ok && number > 0
}

// isClosed reports whether the stream is not to be used; neither that nor open is
// one whose port cannot be read.
func (m Media) isClosed() bool {
	number, ok := m.port()
	return ok && number == 0
}

// refused is the m= line with port 0 (RFC 3264 6). It lists a format, as it has to.
func (m Media) refused() Media {
	formats := m.Formats
	if len(formats) == 0 {
		formats = []string{"0"}
	}
	return Media{Kind: m.Kind, Port: "0", Proto: m.Proto, Formats: formats}
}

// order is that of the lines of a section (RFC 8866 5); r= lines belong to the t=
// line before them.
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

// Bytes returns the description as it goes out: lines in the order of RFC 8866 5,
// each with CRLF.
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
