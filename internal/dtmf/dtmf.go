// Package dtmf reads and writes the bodies of an INFO that reports a key: the forms
// application/dtmf-relay and application/dtmf that gateways support (RFC 6086 2: a legacy
// usage, which no RFC defines).
package dtmf

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The content types of the two forms.
const (
	TypeRelay = "application/dtmf-relay"
	TypePlain = "application/dtmf"
)

// digits are the digits by their event number (RFC 4733 3.2).
const digits = "0123456789*#ABCD"

// Key is a pressed key; Duration is zero if the body has none.
type Key struct {
	Digit    rune
	Duration time.Duration
}

// Digit returns the upper case of a digit; ok is false if r is not a digit.
func Digit(r rune) (digit rune, ok bool) {
	if r >= 'a' && r <= 'd' {
		r += 'A' - 'a'
	}
	return r, strings.ContainsRune(digits, r)
}

// Relay returns the body of a key in the form of TypeRelay, its duration in whole
// milliseconds.
func Relay(k Key) []byte {
	return fmt.Appendf(nil, "Signal=%c\r\nDuration=%d\r\n", k.Digit, k.Duration.Milliseconds())
}

// Reader returns the function that reads bodies of a media type; nil if that type reports
// no key.
func Reader(mediaType string) func(body string) (Key, bool) {
	switch strings.ToLower(mediaType) {
	case TypeRelay:
		return readRelay
	case TypePlain:
		return readPlain
	}
	return nil
}

// readRelay reads lines of name=value. It skips unknown names.
func readRelay(body string) (key Key, ok bool) {
	for _, line := range strings.FieldsFunc(body, func(r rune) bool { return r == '\r' || r == '\n' }) {
		name, value, _ := strings.Cut(line, "=")
		switch value = strings.TrimSpace(value); strings.ToLower(strings.TrimSpace(name)) {
		case "signal":
			var signal Key
			if signal, ok = readPlain(value); !ok {
				return Key{}, false
			}
			key.Digit = signal.Digit
		case "duration":
			milliseconds, err := strconv.ParseUint(value, 10, 31)
			if err != nil {
				return Key{}, false
			}
			key.Duration = time.Duration(milliseconds) * time.Millisecond
		}
	}
	return key, ok
}

// readPlain reads a digit, or the number of its event from 10 on.
func readPlain(body string) (Key, bool) {
	body = strings.TrimSpace(body)
	if number, err := strconv.Atoi(body); err == nil && len(body) == 2 && number >= 10 && number < len(digits) {
		return Key{Digit: rune(digits[number])}, true
	}
	if len(body) != 1 {
		return Key{}, false
	}
	digit, ok := Digit(rune(body[0]))
	if !ok {
		return Key{}, false
	}
	return Key{Digit: digit}, true
}
