// Package errtext builds error texts of one line without repetition. errors.Is and
// errors.As find every error in them.
package errtext

import "strings"

// As marks err with kind: errors.Is finds kind in the result, whose text is that of err.
func As(kind, err error) error { return &marked{kind, err} }

type marked struct{ kind, err error }

func (m *marked) Error() string   { return m.err.Error() }
func (m *marked) Unwrap() []error { return []error{m.kind, m.err} }

// Line joins failures in one line, in their order. It returns nil for none, and a single
// error unchanged. The text leaves out repetitions.
func Line(failures ...error) error {
	switch len(failures) {
	case 0:
		return nil
	case 1:
		return failures[0]
	}
	return line(failures)
}

type line []error

func (l line) Unwrap() []error { return l }

func (l line) Error() string {
	var texts []string
	seen := make(map[string]bool)
	for _, err := range l {
		if text := err.Error(); !seen[text] {
			seen[text] = true
			texts = append(texts, text)
		}
	}
	return strings.Join(texts, "; ")
}
