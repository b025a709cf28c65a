package ladder

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// maxLabel bounds the text of a message on one line.
const maxLabel = 72

// keepAlive is the label of a keep-alive (RFC 5626 3.5.1). Keep-alives are not marked as
// repeats, since all of them are equal.
const keepAlive = "keep-alive"

// describe returns the label of one message.
func describe(data []byte) string {
	if len(bytes.TrimSpace(data)) == 0 {
		return keepAlive
	}
	head, body, _ := bytes.Cut(data, []byte("\r\n\r\n"))
	lines := strings.Split(string(head), "\r\n")
	label, ok := start(lines[0], header(lines, "CSeq"))
	if !ok {
		return fmt.Sprintf("%d bytes", len(data))
	}
	switch kind := strings.ToLower(header(lines, "Content-Type") + header(lines, "c")); {
	case strings.Contains(kind, "application/sdp"):
		label += ", SDP " + strings.Join(directions(string(body)), "+")
	case strings.Contains(kind, "message/sipfrag") && reported(string(body)) != "":
		label += ", " + reported(string(body))
	}
	return printable(label + agreed(lines))
}

// agreed returns the headers of a message about reliable responses (RFC 3262) and the
// session interval in seconds (RFC 4028).
func agreed(lines []string) (label string) {
	for _, name := range []string{"RSeq", "RAck", "Session-Expires"} {
		if value, _, _ := strings.Cut(header(lines, name), ";"); value != "" {
			label += ", " + name + " " + value
		}
	}
	return label
}

// reported returns the status that a NOTIFY reports (RFC 3515 2.4.5).
func reported(fragment string) string {
	line, _, _ := strings.Cut(fragment, "\n")
	return strings.TrimSpace(strings.TrimPrefix(line, "SIP/2.0 "))
}

// start describes a start line (RFC 3261 7.1, 7.2).
func start(line, cseq string) (label string, ok bool) {
	number, method, _ := strings.Cut(cseq, " ")
	if status, found := strings.CutPrefix(line, "SIP/2.0 "); found {
		return fmt.Sprintf("%s (%s %s)", status, strings.TrimSpace(method), number), true
	}
	words := strings.Fields(line)
	if len(words) != 3 || words[2] != "SIP/2.0" {
		return "", false
	}
	return strings.TrimSpace(words[0] + " " + number), true
}

// header returns the value of the first header line with this name.
func header(lines []string, name string) string {
	for _, line := range lines[1:] {
		got, value, _ := strings.Cut(line, ":")
		if strings.EqualFold(strings.TrimSpace(got), name) {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// directions returns the direction of each media description: its own attribute, else
// the session's, else sendrecv (RFC 8866 6.7). If all are equal, it returns one. A
// stream with port zero is "off" (RFC 3264 6).
func directions(sdp string) []string {
	session, media := "sendrecv", []string(nil)
	for _, line := range strings.Split(sdp, "\n") {
		line = strings.TrimRight(line, "\r")
		switch attribute := strings.TrimPrefix(line, "a="); {
		case strings.HasPrefix(line, "m="):
			media = append(media, opening(line, session))
		case !isDirection(line):
		case len(media) == 0:
			session = attribute
		case media[len(media)-1] != "off":
			media[len(media)-1] = attribute
		}
	}
	if len(media) == 0 {
		return []string{session}
	}
	if compact := slices.Compact(slices.Clone(media)); len(compact) == 1 {
		return compact
	}
	return media
}

// opening returns the direction of a stream before its attributes are read.
func opening(line, session string) string {
	if words := strings.Fields(line); len(words) > 1 && words[1] == "0" {
		return "off"
	}
	return session
}

func isDirection(line string) bool {
	switch line {
	case "a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive":
		return true
	}
	return false
}

// printable makes text safe for a terminal and short enough for a line.
func printable(text string) string {
	runes := []rune(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text))
	if len(runes) > maxLabel {
		runes = append(runes[:maxLabel-3], []rune("...")...)
	}
	return string(runes)
}
