// Package flatjson writes and reads a struct as one JSON object without objects in it,
// whose names are sorted, so that a value has only one text. A field that has its zero value is left out. Texts that are not UTF-8, which JSON
// cannot have, are a list of one string in base64.
package flatjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
)

// Field is one field of a struct S: its name, how it is written, and read.
type Field[S any] struct {
	Name  string
	write func(s *S, to []byte) []byte // nothing for a zero value
	read  func(s *S, from json.RawMessage) error
}

// Unknown has the fields of a text that its reader does not know, as Write writes them.
type Unknown map[string]json.RawMessage

// Write writes the fields, which are sorted by their names, and those that are not known.
func Write[S any](s *S, fields []Field[S], unknown Unknown) []byte {
	w := writer{text: append(make([]byte, 0, 1024), '{'), unknown: unknown, names: slices.Sorted(maps.Keys(unknown))}
	for _, f := range fields {
		w.unknownBefore(f.Name)
		w.add(f.Name, func(to []byte) []byte { return f.write(s, to) })
	}
	w.unknownBefore("")
	return append(w.text, '}')
}

type writer struct {
	text    []byte
	unknown Unknown
	names   []string // of those that are not written yet, sorted
}

// add writes a field, unless its value is nothing.
func (w *writer) add(name string, value func(to []byte) []byte) {
	mark := len(w.text)
	if mark > 1 {
		w.text = append(w.text, ',')
	}
	w.text = append(appendText(w.text, name), ':')
	begin := len(w.text)
	if w.text = value(w.text); len(w.text) == begin {
		w.text = w.text[:mark]
	}
}

// unknownBefore writes the unknown fields that come before that name; with an empty name
// all that are left.
func (w *writer) unknownBefore(name string) {
	for len(w.names) > 0 && (name == "" || w.names[0] < name) {
		raw := w.unknown[w.names[0]]
		w.add(w.names[0], func(to []byte) []byte { return append(to, raw...) })
		w.names = w.names[1:]
	}
}

// Parse reads an object.
func Parse(text []byte) (Unknown, error) {
	var object Unknown
	if err := json.Unmarshal(text, &object); err != nil {
		return nil, err
	}
	if object == nil {
		return nil, fmt.Errorf("%s is not an object", text)
	}
	return object, nil
}

// Read reads the fields that are known, and takes them off the list.
func Read[S any](s *S, fields []Field[S], from Unknown) error {
	for _, f := range fields {
		raw, ok := from[f.Name]
		if !ok {
			continue
		}
		if err := f.read(s, raw); err != nil {
			return fmt.Errorf("field %q: %w", f.Name, err)
		}
		delete(from, f.Name)
	}
	return nil
}

// Kept returns the fields as Write writes values; nil if there are none.
func (u Unknown) Kept() (Unknown, error) {
	if len(u) == 0 {
		return nil, nil
	}
	kept := make(Unknown, len(u))
	for name, raw := range u {
		var compact, escaped bytes.Buffer
		if err := json.Compact(&compact, raw); err != nil {
			return nil, fmt.Errorf("field %q: %w", name, err)
		}
		json.HTMLEscape(&escaped, compact.Bytes())
		kept[name] = escaped.Bytes()
	}
	return kept, nil
}

// Text is a field that is a string.
func Text[S any](name string, of func(*S) *string) Field[S] {
	return Field[S]{name,
		func(s *S, to []byte) []byte { return appendNonEmpty(to, *of(s)) },
		func(s *S, from json.RawMessage) (err error) {
			*of(s), err = readText(from)
			return err
		},
	}
}

// Bytes is a field that is a text of bytes.
func Bytes[S any](name string, of func(*S) *[]byte) Field[S] {
	return Field[S]{name,
		func(s *S, to []byte) []byte { return appendNonEmpty(to, string(*of(s))) },
		func(s *S, from json.RawMessage) error {
			text, err := readText(from)
			*of(s) = []byte(text)
			return err
		},
	}
}

func appendNonEmpty(to []byte, text string) []byte {
	if text == "" {
		return to
	}
	return appendText(to, text)
}

// List is a field whose empty list is not the same as none.
func List[S any](name string, of func(*S) *[]string) Field[S] {
	return Field[S]{name,
		func(s *S, to []byte) []byte { return appendList(to, *of(s)) },
		func(s *S, from json.RawMessage) (err error) {
			list, err := readList(from)
			if err == nil {
				*of(s) = list
			}
			return err
		},
	}
}

func appendList(to []byte, list []string) []byte {
	if list == nil {
		return to
	}
	to = append(to, '[')
	for i, text := range list {
		if i > 0 {
			to = append(to, ',')
		}
		to = appendText(to, text)
	}
	return append(to, ']')
}

func readList(from json.RawMessage) ([]string, error) {
	var list []json.RawMessage
	if err := json.Unmarshal(from, &list); err != nil || list == nil {
		return nil, fmt.Errorf("%s is not an array", from)
	}
	texts := make([]string, len(list))
	for i, raw := range list {
		var err error
		if texts[i], err = readText(raw); err != nil {
			return nil, err
		}
	}
	return texts, nil
}

// Flag is a field that is true or left out.
func Flag[S any](name string, of func(*S) *bool) Field[S] {
	return Field[S]{name,
		func(s *S, to []byte) []byte {
			if !*of(s) {
				return to
			}
			return append(to, "true"...)
		},
		func(s *S, from json.RawMessage) error { return json.Unmarshal(from, of(s)) },
	}
}

// Number is a field that is a whole number.
func Number[S any, T int | int64 | uint32 | uint64](name string, of func(*S) *T) Field[S] {
	return Field[S]{name,
		func(s *S, to []byte) []byte {
			switch number := *of(s); {
			case number == 0:
				return to
			case number < 0:
				return strconv.AppendInt(to, int64(number), 10)
			default:
				return strconv.AppendUint(to, uint64(number), 10)
			}
		},
		func(s *S, from json.RawMessage) error { return json.Unmarshal(from, of(s)) },
	}
}

// Address is a field that is an address and a port.
func Address[S any](name string, of func(*S) *netip.AddrPort) Field[S] {
	return Field[S]{name,
		func(s *S, to []byte) []byte {
			if !of(s).IsValid() {
				return to
			}
			return appendText(to, of(s).String())
		},
		func(s *S, from json.RawMessage) error {
			text, err := readText(from)
			if err == nil {
				*of(s), err = netip.ParseAddrPort(text)
			}
			return err
		},
	}
}
