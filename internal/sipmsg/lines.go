package sipmsg

import (
	"bytes"
	"strings"
	"unsafe"
)

// Plain returns a header block whose lines end with CRLF, and none of which
// goes on in the next (RFC 3261 7.3.1): the block itself, or a copy. A block
// whose first line ends with a bare LF is taken to have such line ends
// throughout, as many implementations do; in any other a bare LF is no line
// end.
func Plain(block []byte) []byte {
	if first := bytes.IndexByte(block, '\n'); first < 0 {
		return block
	} else if first == 0 || block[first-1] != '\r' {
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

// unfolded joins lines by single spaces. The one behind the start line cannot
// go on anything.
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

// text is bytes that nobody writes to any more.
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
