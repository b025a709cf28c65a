package dialog

import "bytes"

// maxParts bounds the parts of a multipart body that are looked at: a peer needs
// two or three, and a body of 1 MiB has room for 100,000.
const maxParts = 64

// bodyParts returns the parts of a multipart body, byte for byte: they may be
// signed (RFC 2046 5.1.1). What follows the first maxParts is left out, and so is
// a part that no delimiter ends. It reads the body once and copies nothing.
func bodyParts(body []byte, boundary string) [][]byte {
	delimiter := []byte("--" + boundary)
	var parts [][]byte
	start := -1 // of the part that is read; none yet
	for from := 0; len(parts) < maxParts; {
		at, next, last := nextDelimiter(body, from, delimiter)
		if at < 0 {
			break
		}
		if start >= 0 {
			parts = append(parts, body[start:at])
		}
		if last {
			break
		}
		start, from = next, next
	}
	return parts
}

// nextDelimiter finds a delimiter line from there on. The line end before it belongs
// to it: at is where that begins, next is where the line after it does. last says
// that it is the closing delimiter.
func nextDelimiter(body []byte, from int, delimiter []byte) (at, next int, last bool) {
	for begin := from; ; begin++ {
		found := bytes.Index(body[begin:], delimiter)
		if found < 0 {
			return -1, 0, false
		}
		begin += found
		at := begin
		if begin > 0 {
			if !bytes.HasSuffix(body[from:begin], []byte("\r\n")) {
				continue // in the midst of a line
			}
			at -= len("\r\n")
		}
		rest, last := bytes.CutPrefix(body[begin+len(delimiter):], []byte("--"))
		rest = bytes.TrimLeft(rest, " \t") // transport padding
		switch {
		case len(rest) == 0:
			return at, len(body), last
		case bytes.HasPrefix(rest, []byte("\r\n")):
			return at, len(body) - len(rest) + len("\r\n"), last
		}
	}
}
