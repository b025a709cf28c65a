package dialog

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"unicode/utf8"
)

// Snapshots as JSON: one object without objects in it, whose names are sorted, so that a
// snapshot is the same text whoever has read and written it. A field that has its zero
// value is left out. Texts that are not UTF-8, which JSON cannot have, are a list of one
// string in base64.

// snapshotField is one field: its name, how it is written, and read.
type snapshotField struct {
	name  string
	write func(s *Snapshot, to []byte) []byte // nothing for a zero value
	read  func(s *Snapshot, from json.RawMessage) error
}

// snapshotFields are the fields, sorted by their names. It is not written to.
var snapshotFields = [...]snapshotField{
	bytesField("a", func(s *Snapshot) *[]byte { return &s.AppData }),
	textField("c", func(s *Snapshot) *string { return &s.Contact }),
	numberField("e", func(s *Snapshot) *int64 { return &s.Established }),
	numberField("f", func(s *Snapshot) *uint64 { return &s.Fence }),
	flagField("fd", func(s *Snapshot) *bool { return &s.FlowDialled }),
	flagField("fi", func(s *Snapshot) *bool { return &s.FlowInbound }),
	addressField("fl", func(s *Snapshot) *netip.AddrPort { return &s.FlowLocal }),
	flagField("fn", func(s *Snapshot) *bool { return &s.FlowNAT }),
	flagField("fo", func(s *Snapshot) *bool { return &s.FlowNamed }),
	addressField("fr", func(s *Snapshot) *netip.AddrPort { return &s.FlowRemote }),
	textField("fs", func(s *Snapshot) *string { return &s.FlowServer }),
	textField("ft", func(s *Snapshot) *string { return &s.FlowTransport }),
	textField("i", func(s *Snapshot) *string { return &s.CallID }),
	textField("ln", func(s *Snapshot) *string { return &s.LocalName }),
	numberField("ls", func(s *Snapshot) *uint32 { return &s.SeqTop }),
	textField("lt", func(s *Snapshot) *string { return &s.LocalTag }),
	textField("lu", func(s *Snapshot) *string { return &s.LocalURI }),
	listField("p", func(s *Snapshot) *[]string { return &s.PeerPackages }),
	flagField("pu", func(s *Snapshot) *bool { return &s.PeerUpdates }),
	flagField("rf", func(s *Snapshot) *bool { return &s.IsReferral }),
	flagField("rk", func(s *Snapshot) *bool { return &s.RemoteSeqKnown }),
	textField("rn", func(s *Snapshot) *string { return &s.RemoteName }),
	listField("rr", func(s *Snapshot) *[]string { return &s.RouteSet }),
	numberField("rs", func(s *Snapshot) *uint32 { return &s.RemoteSeq }),
	textField("rt", func(s *Snapshot) *string { return &s.RemoteTag }),
	textField("ru", func(s *Snapshot) *string { return &s.RemoteURI }),
	bytesField("s", func(s *Snapshot) *[]byte { return &s.Session }),
	flagField("sa", func(s *Snapshot) *bool { return &s.SessionAgreed }),
	bytesField("sl", func(s *Snapshot) *[]byte { return &s.SessionLast }),
	bytesField("ss", func(s *Snapshot) *[]byte { return &s.SessionSpare }),
	textField("st", func(s *Snapshot) *string { return &s.SessionType }),
	numberField("sv", func(s *Snapshot) *uint64 { return &s.SessionVersion }),
	bytesField("sw", func(s *Snapshot) *[]byte { return &s.SessionWanted }),
	flagField("sx", func(s *Snapshot) *bool { return &s.Secure }),
	textField("t", func(s *Snapshot) *string { return &s.RemoteTarget }),
	numberField("te", func(s *Snapshot) *int64 { return &s.TimerEnds }),
	numberField("ti", func(s *Snapshot) *int64 { return &s.TimerInterval }),
	numberField("tm", func(s *Snapshot) *int64 { return &s.TimerMinSE }),
	flagField("to", func(s *Snapshot) *bool { return &s.TimerOurs }),
	flagField("u", func(s *Snapshot) *bool { return &s.IsUAC }),
	flagField("ua", func(s *Snapshot) *bool { return &s.AwaitsACK }),
	numberField("v", func(s *Snapshot) *int { return &s.Version }),
}

// MarshalJSON writes the snapshot, with the fields that it was read with and this package
// does not know. It does not fail.
func (s Snapshot) MarshalJSON() ([]byte, error) { return s.text(), nil }

func (s *Snapshot) text() []byte {
	w := snapshotWriter{text: append(make([]byte, 0, 1024), '{'), unknown: slices.Sorted(maps.Keys(s.unknown)), s: s}
	for _, f := range snapshotFields {
		w.unknownBefore(f.name)
		if !s.isLater() {
			w.add(f.name, func(to []byte) []byte { return f.write(s, to) })
		}
	}
	w.unknownBefore("")
	return append(w.text, '}')
}

// isLater reports whether the snapshot was read from one of a later version, of which
// nothing is known: all of its fields are as they were written.
func (s *Snapshot) isLater() bool { return s.Version > SnapshotVersion && s.unknown != nil }

// snapshotWriter writes one snapshot.
type snapshotWriter struct {
	s       *Snapshot
	text    []byte
	unknown []string // those that are not written yet, sorted
}

// add writes a field, unless its value is nothing.
func (w *snapshotWriter) add(name string, value func(to []byte) []byte) {
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

// unknownBefore writes the fields that are not known and come before that name; all that
// are left for none.
func (w *snapshotWriter) unknownBefore(name string) {
	for len(w.unknown) > 0 && (name == "" || w.unknown[0] < name) {
		raw := w.s.unknown[w.unknown[0]]
		w.add(w.unknown[0], func(to []byte) []byte { return append(to, raw...) })
		w.unknown = w.unknown[1:]
	}
}

// UnmarshalJSON reads what MarshalJSON has written. Of a later version it reads nothing but
// that.
//
// Errors: ErrInvalidArgument (it is no snapshot).
func (s *Snapshot) UnmarshalJSON(text []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil || fields == nil {
		return invalid("snapshot: %v", err)
	}
	*s = Snapshot{}
	if raw, ok := fields["v"]; ok {
		if err := json.Unmarshal(raw, &s.Version); err != nil {
			return invalid("snapshot: version %s", raw)
		}
	}
	if s.Version <= SnapshotVersion {
		if err := s.readFields(fields); err != nil {
			return err
		}
	}
	return s.keep(fields)
}

// readFields reads the fields that are known, and takes them off the list.
func (s *Snapshot) readFields(fields map[string]json.RawMessage) error {
	for _, f := range snapshotFields {
		raw, ok := fields[f.name]
		if !ok {
			continue
		}
		if err := f.read(s, raw); err != nil {
			return invalid("snapshot: field %q: %v", f.name, err)
		}
		delete(fields, f.name)
	}
	return nil
}

// keep keeps the fields that are not known, as MarshalJSON writes values.
func (s *Snapshot) keep(fields map[string]json.RawMessage) error {
	if len(fields) == 0 {
		return nil
	}
	s.unknown = make(map[string]json.RawMessage, len(fields))
	for name, raw := range fields {
		var compact, escaped bytes.Buffer
		if err := json.Compact(&compact, raw); err != nil {
			return invalid("snapshot: field %q: %v", name, err)
		}
		json.HTMLEscape(&escaped, compact.Bytes())
		s.unknown[name] = escaped.Bytes()
	}
	return nil
}

func textField(name string, of func(*Snapshot) *string) snapshotField {
	return snapshotField{name,
		func(s *Snapshot, to []byte) []byte { return appendNonEmpty(to, *of(s)) },
		func(s *Snapshot, from json.RawMessage) (err error) {
			*of(s), err = readText(from)
			return err
		},
	}
}

func bytesField(name string, of func(*Snapshot) *[]byte) snapshotField {
	return snapshotField{name,
		func(s *Snapshot, to []byte) []byte { return appendNonEmpty(to, string(*of(s))) },
		func(s *Snapshot, from json.RawMessage) error {
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

// listField is one whose empty list is not the same as none.
func listField(name string, of func(*Snapshot) *[]string) snapshotField {
	return snapshotField{name,
		func(s *Snapshot, to []byte) []byte {
			if *of(s) == nil {
				return to
			}
			to = append(to, '[')
			for i, text := range *of(s) {
				if i > 0 {
					to = append(to, ',')
				}
				to = appendText(to, text)
			}
			return append(to, ']')
		},
		func(s *Snapshot, from json.RawMessage) error {
			var list []json.RawMessage
			if err := json.Unmarshal(from, &list); err != nil || list == nil {
				return fmt.Errorf("%s is no list", from)
			}
			texts := make([]string, len(list))
			for i, raw := range list {
				var err error
				if texts[i], err = readText(raw); err != nil {
					return err
				}
			}
			*of(s) = texts
			return nil
		},
	}
}

func flagField(name string, of func(*Snapshot) *bool) snapshotField {
	return snapshotField{name,
		func(s *Snapshot, to []byte) []byte {
			if !*of(s) {
				return to
			}
			return append(to, "true"...)
		},
		func(s *Snapshot, from json.RawMessage) error { return json.Unmarshal(from, of(s)) },
	}
}

func numberField[T int | int64 | uint32 | uint64](name string, of func(*Snapshot) *T) snapshotField {
	return snapshotField{name,
		func(s *Snapshot, to []byte) []byte {
			switch number := *of(s); {
			case number == 0:
				return to
			case number < 0:
				return strconv.AppendInt(to, int64(number), 10)
			default:
				return strconv.AppendUint(to, uint64(number), 10)
			}
		},
		func(s *Snapshot, from json.RawMessage) error { return json.Unmarshal(from, of(s)) },
	}
}

func addressField(name string, of func(*Snapshot) *netip.AddrPort) snapshotField {
	return snapshotField{name,
		func(s *Snapshot, to []byte) []byte {
			if !of(s).IsValid() {
				return to
			}
			return appendText(to, of(s).String())
		},
		func(s *Snapshot, from json.RawMessage) error {
			text, err := readText(from)
			if err == nil {
				*of(s), err = netip.ParseAddrPort(text)
			}
			return err
		},
	}
}

// appendText writes a text as encoding/json does.
func appendText(to []byte, text string) []byte {
	if !utf8.ValidString(text) {
		to = append(to, `["`...)
		to = base64.StdEncoding.AppendEncode(to, []byte(text))
		return append(to, `"]`...)
	}
	to = append(to, '"')
	done := 0
	for i, r := range text {
		escape := escapeOf(r)
		if escape == "" {
			continue
		}
		to = append(append(to, text[done:i]...), escape...)
		done = i + utf8.RuneLen(r)
	}
	return append(append(to, text[done:]...), '"')
}

// escapeOf is how a character is written in a string; empty for one that stands for itself.
func escapeOf(r rune) string {
	switch {
	case r == '"':
		return `\"`
	case r == '\\':
		return `\\`
	case r == '\r':
		return `\r`
	case r == '\n':
		return `\n`
	case r < ' ', r == '<', r == '>', r == '&', r == '\u2028', r == '\u2029':
		return fmt.Sprintf(`\u%04x`, r)
	}
	return ""
}

// readText reads what appendText has written.
func readText(from json.RawMessage) (text string, err error) {
	if bytes.HasPrefix(from, []byte("[")) {
		var list [][]byte
		if err := json.Unmarshal(from, &list); err != nil || len(list) != 1 {
			return "", fmt.Errorf("%s is no text", from)
		}
		return string(list[0]), nil
	}
	if !bytes.HasPrefix(from, []byte(`"`)) {
		return "", fmt.Errorf("%s is no text", from)
	}
	err = json.Unmarshal(from, &text)
	return text, err
}
