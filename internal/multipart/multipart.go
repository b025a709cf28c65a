// Package multipart splits multipart bodies (RFC 2046 5.1) as SIP uses them (RFC 5621).
// It copies only data that it has to decode, and its work is bounded.
package multipart

import (
	"bytes"
	"encoding/base64"
	"io"
	"iter"
	"mime/quotedprintable"
	"strings"

	"sipdialog.example/dialog/internal/sipmsg"
)

// Parts and headers beyond these bounds are ignored. maxParts counts the parts of a body
// and the parts in them: a peer needs two or three, while 1 MiB can hold 100,000.
// maxDepth bounds their nesting, maxHeader the length of a header.
const (
	maxParts  = 64
	maxDepth  = 8
	maxHeader = 4 << 10
)

// Part is a body, or a part of a body that has no parts itself.
type Part struct {
	// Type is the value of Content-Type, Disposition that of Content-Disposition,
	// Encoding that of Content-Encoding; each may be empty.
	Type, Disposition, Encoding string
	// Data is the content without its transfer encoding, unless it cannot be decoded.
	// Offset is its place in the whole body, -1 if it had to be decoded.
	Data   []byte
	Offset int
	// Alternative is true for a part of a multipart/alternative. The last supported
	// part of these is used (RFC 2046 5.1.4).
	Alternative bool
}

// IsMultipart reports whether a content type is a multipart type.
func IsMultipart(contentType string) bool {
	t := mediaType(contentType)
	return len(t) > len("multipart/") && strings.EqualFold(t[:len("multipart/")], "multipart/")
}

// Parts returns the parts of a body that have no parts themselves, in their order. If
// the type of the body is not multipart, it returns the body itself. An unknown multipart
// subtype is handled as multipart/mixed (RFC 5621 4.2).
func Parts(whole Part) []Part {
	r := reader{left: maxParts}
	r.read(whole, 0)
	return r.parts
}

type reader struct {
	parts []Part
	left  int
}

func (r *reader) read(p Part, depth int) {
	if !IsMultipart(p.Type) {
		r.parts = append(r.parts, p)
		return
	}
	boundary := Param(p.Type, "boundary")
	if boundary == "" || depth == maxDepth {
		return
	}
	alternative := p.Alternative || strings.EqualFold(mediaType(p.Type), "multipart/alternative")
	for from, to := range split(p.Data, boundary, true) {
		if r.left--; r.left < 0 {
			return
		}
		part := parse(p.Data[from:to])
		part.Alternative = alternative
		switch {
		case p.Offset < 0:
			part.Offset = -1
		case part.Offset >= 0:
			part.Offset += p.Offset + from
		}
		r.read(part, depth+1)
	}
}

// Split returns the parts of a body, byte for byte and with their headers, since they may
// be signed (RFC 2046 5.1.1). It leaves out a part without a delimiter at its end. It reads
// the body once and copies nothing.
func Split(body []byte, boundary string) [][]byte {
	var parts [][]byte
	for from, to := range split(body, boundary, false) {
		if parts = append(parts, body[from:to]); len(parts) == maxParts {
			break
		}
	}
	return parts
}

// split yields the begin and end of each part. The line end before a delimiter belongs to
// the delimiter (RFC 2046 5.1.1). If unended is true, the last part may end with the body.
func split(data []byte, boundary string, unended bool) iter.Seq2[int, int] {
	return func(yield func(from, to int) bool) {
		from := -1
		for {
			begin, end, last := delimiter(data, max(from, 0), boundary)
			if begin < 0 {
				break
			}
			if from >= 0 && !yield(from, max(from, begin)) || last {
				return
			}
			from = end
		}
		if unended && from >= 0 && from < len(data) {
			yield(from, len(data))
		}
	}
}

// delimiter finds the next delimiter from an offset on. It returns where the line end
// before the delimiter begins, and where the delimiter's line ends; last is true for the
// closing delimiter.
func delimiter(data []byte, at int, boundary string) (begin, end int, last bool) {
	mark := []byte("--" + boundary)
	for {
		found := bytes.Index(data[at:], mark)
		if found < 0 {
			return -1, 0, false
		}
		begin = at + found
		at = begin + len(mark)
		if begin > 0 && data[begin-1] != '\n' {
			continue
		}
		line, _, _ := bytes.Cut(data[at:], []byte("\n"))
		rest := bytes.TrimRight(line, " \t\r")
		if last = string(rest) == "--"; !last && len(rest) > 0 {
			continue
		}
		return beforeLineEnd(data, begin), min(at+len(line)+1, len(data)), last
	}
}

// beforeLineEnd returns where the line end before an offset begins.
func beforeLineEnd(data []byte, at int) int {
	if at > 0 && data[at-1] == '\n' {
		at--
		if at > 0 && data[at-1] == '\r' {
			at--
		}
	}
	return at
}

// parse reads the header of a part, and decodes its content.
func parse(text []byte) Part {
	var p Part
	encoding, rest, name := "", text, ""
	for len(rest) > 0 {
		line, after, _ := bytes.Cut(rest, []byte("\n"))
		rest = after
		line = bytes.TrimRight(line, "\r")
		if len(line) == 0 {
			break
		}
		value := string(line)
		if line[0] != ' ' && line[0] != '\t' { // else a continuation line
			name, value, _ = strings.Cut(value, ":")
		}
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "content-type":
			p.Type = joined(p.Type, value)
		case "content-disposition":
			p.Disposition = joined(p.Disposition, value)
		case "content-encoding":
			p.Encoding = joined(p.Encoding, value)
		case "content-transfer-encoding":
			encoding = joined(encoding, value)
		}
	}
	p.Offset = len(text) - len(rest)
	p.Data = decoded(rest, encoding)
	if !isPlain(encoding) {
		p.Offset = -1
	}
	return p
}

func joined(value, more string) string {
	if len(value)+len(more) > maxHeader {
		return value
	}
	return strings.TrimSpace(value + " " + strings.TrimSpace(more))
}

// isPlain reports whether a transfer encoding changes nothing (RFC 2045 6.2).
func isPlain(encoding string) bool {
	switch strings.ToLower(encoding) {
	case "", "7bit", "8bit", "binary":
		return true
	}
	return false
}

// decoded removes a transfer encoding (RFC 2045 6.7, 6.8). It returns the data unchanged
// if the encoding is unknown, or the data malformed.
func decoded(data []byte, encoding string) []byte {
	var content io.Reader
	switch {
	case isPlain(encoding):
		return data
	case strings.EqualFold(encoding, "base64"):
		content = base64.NewDecoder(base64.StdEncoding, bytes.NewReader(data))
	case strings.EqualFold(encoding, "quoted-printable"):
		content = quotedprintable.NewReader(bytes.NewReader(data))
	default:
		return data
	}
	plain, err := io.ReadAll(content)
	if err != nil {
		return data
	}
	return plain
}

func mediaType(contentType string) string { return sipmsg.Bare(contentType) }

// Param returns a parameter of a header value, such as the boundary of a
// Content-Type; it may be quoted.
func Param(value, name string) string {
	_, params := sipmsg.CutParams(value)
	return params.Text(name)
}
