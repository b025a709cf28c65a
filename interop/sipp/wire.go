package main

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// message is one SIP message in sipp's log.
type message struct {
	at       time.Time
	received bool // by sipp: the library sent it
	text     string
}

// logEntry matches the two lines that sipp writes above a message.
var logEntry = regexp.MustCompile(`(?m)^-{20,} (\d{4}-\d\d-\d\d[ \t]+\d\d:\d\d:\d\d\.\d+)\n\w+ message (sent|received) [^\n]*\n\n`)

// readLog reads a file that sipp -trace_msg wrote.
func readLog(path string) ([]message, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	entries := logEntry.FindAllStringSubmatchIndex(string(data), -1)
	var log []message
	for i, e := range entries {
		end := len(data)
		if i+1 < len(entries) {
			end = entries[i+1][0]
		}
		stamp := strings.Join(strings.Fields(string(data[e[2]:e[3]])), " ")
		at, err := time.Parse("2006-01-02 15:04:05.999999", stamp)
		if err != nil {
			return nil, err
		}
		m := message{at: at, received: string(data[e[4]:e[5]]) == "received", text: string(data[e[1]:end])}
		if !m.received || strings.TrimSpace(m.text) != "" { // else a keep-alive
			log = append(log, m)
		}
	}
	return log, nil
}

// parts splits a message. sipp ends its log entries with an extra line end.
func (m message) parts() (startLine string, headers []string, body string) {
	head, body, _ := strings.Cut(m.text, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	return lines[0], lines[1:], strings.TrimSuffix(body, "\n")
}

// values returns the values of a header, one for each line it has.
func (m message) values(name string) []string {
	var values []string
	_, headers, _ := m.parts()
	for _, line := range headers {
		key, value, _ := strings.Cut(line, ":")
		if strings.EqualFold(strings.TrimSpace(key), name) {
			values = append(values, strings.TrimSpace(value))
		}
	}
	return values
}

// wellFormed checks the rules for every message of every case.
func (m message) wellFormed() error {
	startLine, _, body := m.parts()
	once := []string{"From", "To", "Call-ID", "CSeq", "Content-Length"}
	if !strings.HasPrefix(startLine, "SIP/2.0 ") {
		once = append(once, "Max-Forwards")
	}
	for _, name := range once {
		if n := len(m.values(name)); n != 1 {
			return fmt.Errorf("%d %s headers", n, name)
		}
	}
	if len(m.values("Via")) == 0 {
		return fmt.Errorf("no Via header")
	}
	if length := m.values("Content-Length")[0]; length != strconv.Itoa(len(body)) {
		return fmt.Errorf("Content-Length %s, but the body has %d bytes", length, len(body))
	}
	if strings.Contains(m.text, "0.0.0.0") {
		return fmt.Errorf("the address 0.0.0.0")
	}
	return nil
}

// repeatsUntilBye checks a 200 to an INVITE that is never acknowledged: it is repeated
// after T1, then after twice the last interval up to T2, until a BYE at 64*T1 (RFC 3261
// 13.3.1.4).
func repeatsUntilBye(t1, t2 time.Duration) func([]message) error {
	return func(log []message) error {
		answers, byes := answersAndByes(log)
		if len(byes) != 1 || len(answers) == 0 {
			return fmt.Errorf("sipp got %d 200s and %d BYEs", len(answers), len(byes))
		}
		due := repetitions(t1, t2)
		if n := len(answers) - 1; n < len(due)-1 || n > len(due) {
			return fmt.Errorf("the 200 was repeated %d times, expected %d", n, len(due))
		}
		for i, answer := range answers[1:] {
			if answer.text != answers[0].text {
				return fmt.Errorf("repetition %d of the 200 differs:\n%s", i+1, indent(answer.text))
			}
			if err := onTime(answer.at.Sub(answers[0].at), due[i]); err != nil {
				return fmt.Errorf("repetition %d of the 200: %w", i+1, err)
			}
		}
		if err := onTime(byes[0].at.Sub(answers[0].at), 64*t1); err != nil {
			return fmt.Errorf("BYE: %w", err)
		}
		return nil
	}
}

func answersAndByes(log []message) (answers, byes []message) {
	for _, m := range log {
		startLine, _, _ := m.parts()
		switch {
		case !m.received:
		case strings.HasPrefix(startLine, "SIP/2.0 200 "):
			answers = append(answers, m)
		case strings.HasPrefix(startLine, "BYE "):
			byes = append(byes, m)
		}
	}
	return answers, byes
}

// repetitions returns the times of the repetitions, counted from the first 200.
func repetitions(t1, t2 time.Duration) []time.Duration {
	var due []time.Duration
	interval := t1
	for at := t1; at < 64*t1; at += interval {
		due = append(due, at)
		interval = min(2*interval, t2)
	}
	return due
}

// onTime compares a time with the due time. It allows for a busy machine, and for sipp's
// clock, which ticks every few milliseconds.
func onTime(got, due time.Duration) error {
	if got < due-30*time.Millisecond || got > due+time.Second {
		return fmt.Errorf("came after %s, due after %s", got, due)
	}
	return nil
}
