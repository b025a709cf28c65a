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

// versionAt returns the begin and end of the version; both are equal if there is none.
func versionAt(text []byte) (from, to int) {
	for begin := 0; begin < len(text); {
		line := text[begin:]
		if end := bytes.IndexFunc(line, isLineEnd); end >= 0 {
			line = line[:end]
		}
		if value, found := bytes.CutPrefix(line, []byte("o=")); found {
			from, to = versionIn(value)
			return begin + len("o=") + from, begin + len("o=") + to
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
