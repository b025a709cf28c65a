package sipmsg

import (
	"bytes"
	"strings"
	"unsafe"
)

// CutHead cuts a message that is all there is at its empty line. head is start
// line and header fields; ended is false when there is no such line. A message
// whose first line ends with a bare LF is taken to have such line ends
// throughout, as many implementations do.
func CutHead(data []byte) (head, body []byte, ended bool) {
	if !hasBareLF(data) {
		return bytes.Cut(data, []byte(crlf+crlf))
	}
	for end := 0; end < len(data); end++ {
		rest := data[end:]
		switch {
		case bytes.HasPrefix(rest, []byte("\n\n")):
			return data[:end], rest[2:], true
		case bytes.HasPrefix(rest, []byte("\n\r\n")):
			return bytes.TrimSuffix(data[:end], []byte("\r")), rest[3:], true
		}
	}
	return data, nil, false
}

// hasBareLF reports whether the first line ends so.
func hasBareLF(data []byte) bool {
	first := bytes.IndexByte(data, '\n')
	return first == 0 || first > 0 && data[first-1] != '\r'
}

// plain returns a header block with CRLF at the end of each line and without folded lines
// (RFC 3261 7.3.1): the block itself, or a copy.
func plain(block []byte) []byte {
	if hasBareLF(block) {
		block = withCRLF(block)
	}
	return unfolded(block)
}

func withCRLF(block []byte) []byte {
	plain := make([]byte, 0, len(block)+bytes.Count(block, []byte("\n")))
	for more := true; more; {
		var line []byte
		line, block, more = bytes.Cut(block, []byte("\n"))
		plain = append(plain, bytes.TrimSuffix(line, []byte("\r"))...)
		if more {
			plain = append(plain, crlf...)
		}
	}
	return plain
}

// unfolded joins folded lines by single spaces. The line after the start line cannot continue
// another.
func unfolded(block []byte) []byte {
	if !bytes.Contains(block, []byte("\n ")) && !bytes.Contains(block, []byte("\n\t")) {
		return block
	}
	line, rest, _ := bytes.Cut(block, []byte(crlf))
	plain := append(make([]byte, 0, len(block)), line...)
	for first := true; len(rest) > 0; first = false {
		line, rest, _ = bytes.Cut(rest, []byte(crlf))
		if first || len(line) == 0 || !isSpace(line[0]) {
			plain = append(append(plain, crlf...), line...)
			continue
		}
		plain = append(append(bytes.TrimRight(plain, lws), ' '), bytes.Trim(line, lws)...)
	}
	return plain
}

// text is b as a string. b must not change any more.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// cutLine takes the first line off.
func cutLine(block string) (line, rest string) {
	line, rest, _ = strings.Cut(block, crlf)
	return line, rest
}

// hasLineEnd reports a bare CR or LF, which a lenient peer would take for the
// start of another header.
func hasLineEnd(line string) bool {
	return strings.IndexByte(line, '\r') >= 0 || strings.IndexByte(line, '\n') >= 0
}
