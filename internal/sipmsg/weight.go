package sipmsg

import (
	"strings"
	"unsafe"
)

// What the structs of a message hold beside their text, for each header field, for
// each value of one that is a list, and for each parameter, with what the allocator
// and growing slices add.
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
