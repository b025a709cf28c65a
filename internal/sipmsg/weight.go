package sipmsg

import (
	"strings"
	"unsafe"
)

// The bytes that the structs of a message take beside their text: for each header field,
// each value of a list, and each parameter, with the overhead of the allocator and of
// growing slices.
const (
	fieldWeight = 128
	valueWeight = 320
	paramWeight = 128
)

// Weight is about how many bytes the message holds, with its structs, once they are
// made. It is rather too high than too low.
func (m *Message) Weight() int {
	fixed := int(unsafe.Sizeof(*m) + unsafe.Sizeof(arena{}))
	text := len(m.text) + len(m.body)
	return fixed + text + text/8 + cap(m.lines)*int(unsafe.Sizeof(line{})) +
		len(m.lines)*fieldWeight + m.values()*valueWeight + min(m.semicolons(), maxHeld)*paramWeight
}

// values counts the values of the fields that are lists.
func (m *Message) values() int {
	n := 0
	for i := range m.lines {
		switch l := &m.lines[i]; l.id {
		case idVia, idContact, idRoute, idRecordRoute:
			n++
			for _, rest, more := Cut(m.value(l), ','); more; _, rest, more = Cut(rest, ',') {
				n++
			}
		}
	}
	return n
}

// semicolons counts the characters that can begin a parameter of a header field or URI.
func (m *Message) semicolons() int {
	n := 0
	for _, mark := range [...]string{";", "?", "&"} {
		n += strings.Count(m.text, mark)
	}
	return n
}
