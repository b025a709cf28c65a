// Package siptext handles SIP messages as text, for tests. It writes random valid
// messages by the grammar of RFC 3261 25.1, and checks which text a response repeats.
// It shares no code with the packages that it tests.
package siptext

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Message is a message split into its lines.
type Message struct {
	Start  string
	Fields []Field
	Body   []byte
}

// Field is a header field. Name is the long form in lower case. Value is the unchanged
// text with its folds, without white space around it.
type Field struct{ Name, Value string }

// longNames are the compact forms of RFC 3261 7.3.3 and of later headers.
var longNames = map[string]string{
	"c": "content-type", "e": "content-encoding", "f": "from", "i": "call-id", "k": "supported", "l": "content-length",
	"m": "contact", "s": "subject", "t": "to", "v": "via", "r": "refer-to", "o": "event", "u": "allow-events", "x": "session-expires",
}

// space has the characters of white space and folds.
const space = " \t\r\n"

var errNoEnd = errors.New("no empty line after the headers")

// Read returns the first message of data, and the rest. Without a Content-Length the
// message's body extends to the end of data.
func Read(data []byte) (m Message, rest []byte, err error) {
	head, rest, ended := bytes.Cut(data, []byte("\r\n\r\n"))
	if !ended {
		return Message{}, nil, errNoEnd
	}
	lines := strings.Split(string(head), "\r\n")
	m.Start = lines[0]
	for _, line := range joined(lines[1:]) {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return Message{}, nil, fmt.Errorf("no colon in %q", line)
		}
		m.Fields = append(m.Fields, Field{longName(name), trim(value)})
	}
	length := len(rest)
	if text := m.Value("content-length"); text != "" {
		if length, err = strconv.Atoi(text); err != nil || length < 0 || length > len(rest) {
			return Message{}, nil, fmt.Errorf("Content-Length %q, %d octets came", text, len(rest))
		}
	}
	m.Body = rest[:length]
	return m, rest[length:], nil
}

// joined appends continuation lines, with their line ends, to the lines that they
// continue.
func joined(lines []string) []string {
	var list []string
	for _, line := range lines {
		if len(list) > 0 && line != "" && strings.IndexByte(" \t", line[0]) >= 0 {
			list[len(list)-1] += "\r\n" + line
		} else {
			list = append(list, line)
		}
	}
	return list
}

func longName(name string) string {
	name = strings.ToLower(trim(name))
	if long, ok := longNames[name]; ok {
		return long
	}
	return name
}

// Bytes returns the text of the message, with long names in lower case.
func (m Message) Bytes() []byte {
	var b bytes.Buffer
	b.WriteString(m.Start + "\r\n")
	for _, f := range m.Fields {
		b.WriteString(f.Name + ": " + f.Value + "\r\n")
	}
	b.WriteString("\r\n")
	b.Write(m.Body)
	return b.Bytes()
}

// Status returns the code of a response, 0 for a request.
func (m Message) Status() int {
	version, rest, _ := strings.Cut(m.Start, " ")
	if !strings.EqualFold(version, "SIP/2.0") {
		return 0
	}
	code, _, _ := strings.Cut(rest, " ")
	status, _ := strconv.Atoi(code)
	return status
}

// Method returns the method of a request, "" for a response.
func (m Message) Method() string {
	if m.Status() != 0 {
		return ""
	}
	method, _, _ := strings.Cut(m.Start, " ")
	return method
}

// RequestURI returns the Request-URI of a request.
func (m Message) RequestURI() string {
	_, rest, _ := strings.Cut(m.Start, " ")
	uri, _, _ := strings.Cut(rest, " ")
	return uri
}

// Value returns the value of the first field with a name, given in the long form and in
// lower case.
func (m Message) Value(name string) string {
	for _, f := range m.Fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// List returns the values of all fields with a name, with lists split at their commas.
func (m Message) List(name string) []string {
	var list []string
	for _, f := range m.Fields {
		if f.Name == name {
			list = append(list, Split(f.Value, ',')...)
		}
	}
	return list
}

var fold = regexp.MustCompile("[ \t]*(?:\r\n[ \t]+)+")

// Same reports whether answered is equal to asked, letter by letter. A fold may have
// become any white space (RFC 3261 7.3.1).
func Same(asked, answered string) bool {
	if !strings.Contains(asked, "\r") {
		return asked == answered
	}
	for i, part := range fold.Split(asked, -1) {
		if i > 0 {
			after := strings.TrimLeft(answered, space)
			if len(after) == len(answered) {
				return false
			}
			answered = after
		}
		rest, ok := strings.CutPrefix(answered, part)
		if !ok {
			return false
		}
		answered = rest
	}
	return answered == ""
}

// Split splits text at each separator outside quoted strings and angle brackets, and
// trims the parts.
func Split(text string, separator byte) []string {
	var list []string
	quoted, bracketed, start := false, false, 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '<':
			bracketed = true
		case c == '>':
			bracketed = false
		case c == separator && !bracketed:
			list = append(list, trim(text[start:i]))
			start = i + 1
		}
	}
	return append(list, trim(text[start:]))
}

func trim(text string) string { return strings.Trim(text, space) }

// Param returns the value of a parameter of a header value, quotes included, and
// reports whether it is present.
func Param(value, name string) (string, bool) {
	for _, part := range Split(value, ';')[1:] {
		n, v, _ := strings.Cut(part, "=")
		if strings.EqualFold(trim(n), name) {
			return trim(v), true
		}
	}
	return "", false
}

// Without returns value without the parameters of these names.
func Without(value string, names ...string) string {
	parts := Split(value, ';')
	kept := parts[:1]
	for _, part := range parts[1:] {
		n, _, _ := strings.Cut(part, "=")
		if !isOneOf(trim(n), names) {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, ";")
}

func isOneOf(name string, names []string) bool {
	for _, n := range names {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

// URI returns the text of the URI in an address: between angle brackets, or up to the
// first parameter.
func URI(address string) string {
	quoted := false
	for i := 0; i < len(address); i++ {
		switch c := address[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == '<' && !quoted:
			uri, _, _ := strings.Cut(address[i+1:], ">")
			return trim(uri)
		}
	}
	uri, _, _ := strings.Cut(address, ";")
	return trim(uri)
}
