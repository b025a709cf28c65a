package flatjson

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

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
			return "", fmt.Errorf("%s is not a string", from)
		}
		return string(list[0]), nil
	}
	if !bytes.HasPrefix(from, []byte(`"`)) {
		return "", fmt.Errorf("%s is not a string", from)
	}
	err = json.Unmarshal(from, &text)
	return text, err
}
