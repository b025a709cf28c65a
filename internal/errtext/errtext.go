// Package errtext makes errors that read well: one line, in which nothing is said
// twice, and in which errors.Is and errors.As find all that there is.
package errtext

import "strings"

// As marks err: errors.Is finds kind in it, while its text says no more than err's
// does.
func As(kind, err error) error { return &marked{kind, err} }

type marked struct{ kind, err error }

func (m *marked) Error() string   { return m.err.Error() }
func (m *marked) Unwrap() []error { return []error{m.kind, m.err} }

// Line joins what failed one after the other, in one line: nil for nothing, and one
// error as it is. What reads as one before is left out of the text.
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
	said := make(map[string]bool)
	for _, err := range l {
		if text := err.Error(); !said[text] {
			said[text] = true
			texts = append(texts, text)
		}
	}
	return strings.Join(texts, "; ")
}
