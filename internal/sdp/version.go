package sdp

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// The version in the o= line rises with each change of a session (RFC 3264 8, RFC
// 6337 5.2.5). The functions that take a text also work if the rest of the text cannot
// be read.

// Version returns the version in the o= line of a text; ok is false if it has no
// version that is a number.
func Version(text []byte) (version uint64, ok bool) {
	from, to := versionAt(text)
	version, err := strconv.ParseUint(string(text[from:to]), 10, 64)
	return version, err == nil
}

// WithVersion returns a text with another version in its o= line, and otherwise the same
// byte for byte. It returns the text itself if it has no such line.
func WithVersion(text []byte, version uint64) []byte {
	from, to := versionAt(text)
	if from == to {
		return text
	}
	return slices.Concat(text[:from], strconv.AppendUint(nil, version, 10), text[to:])
}

// SameContent reports whether two texts differ at most in the version of the o= line and
// in their line ends.
func SameContent(a, b []byte) bool {
	return slices.Equal(contentOf(a), contentOf(b))
}

func contentOf(text []byte) []string {
	return strings.FieldsFunc(string(WithVersion(text, 0)), isLineEnd)
}

// SameOrigin reports whether the o= lines of two texts differ at most in the version, which
// is so if one of them has none.
func SameOrigin(a, b []byte) bool {
	return bytes.Equal(originOf(a), originOf(b)) || len(originOf(a)) == 0 || len(originOf(b)) == 0
}

// WithOriginOf returns a text with the o= line of another, version included, and otherwise
// the same byte for byte.
func WithOriginOf(text, other []byte) []byte {
	from, to := originAt(text)
	first, last := originAt(other)
	return slices.Concat(text[:from], other[first:last], text[to:])
}

func originOf(text []byte) []byte {
	text = WithVersion(text, 0)
	from, to := originAt(text)
	return text[from:to]
}

// versionAt returns the begin and end of the version; both are equal if there is none.
func versionAt(text []byte) (from, to int) {
	begin, end := originAt(text)
	from, to = versionIn(text[begin:end])
	return begin + from, begin + to
}

// originAt returns the begin and end of the value of the o= line; both are equal if there is
// none.
func originAt(text []byte) (from, to int) {
	for begin := 0; begin < len(text); {
		line := text[begin:]
		if end := bytes.IndexFunc(line, isLineEnd); end >= 0 {
			line = line[:end]
		}
		if value, found := bytes.CutPrefix(line, []byte("o=")); found {
			return begin + len("o="), begin + len("o=") + len(value)
		}
		begin += len(line) + 1
	}
	return 0, 0
}

// versionIn returns the begin and end of the version in the value of an o= line: the
// third of six fields. It counts from the last field, so that a user name may contain a
// space.
func versionIn(value []byte) (from, to int) {
	fields := 0
	for range bytes.FieldsSeq(value) {
		fields++
	}
	version := max(2, fields-4)
	if version >= fields {
		return 0, 0
	}
	for field := range bytes.FieldsSeq(value) {
		from = to + bytes.Index(value[to:], field)
		to = from + len(field)
		if version--; version < 0 {
			break
		}
	}
	return from, to
}

// WithVersion returns the description with another version.
func (d *Description) WithVersion(version uint64) *Description {
	lines := slices.Clone(d.Session)
	for i, l := range lines {
		if l.Type == 'o' {
			lines[i].Value = string(WithVersion([]byte("o="+l.Value), version)[len("o="):])
		}
	}
	return &Description{Session: lines, Media: d.Media}
}
