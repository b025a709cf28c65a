package program

import (
	"strings"
	"sync"
)

// output is what a program has said so far.
type output struct {
	line func(string)

	mu      sync.Mutex // guards the fields below
	text    strings.Builder
	begun   string        // of a line whose end has not come
	changed chan struct{} // closed at the next output; nil while nobody waits
}

// Write is called by one goroutine.
func (o *output) Write(p []byte) (int, error) {
	for _, line := range o.add(string(p)) {
		o.line(line)
	}
	return len(p), nil
}

// add appends to the output, and returns the lines that are complete now, if they are
// wanted.
func (o *output) add(text string) (lines []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.WriteString(text)
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
	if o.line == nil {
		return nil
	}
	lines = strings.Split(o.begun+text, "\n")
	o.begun = lines[len(lines)-1]
	return lines[:len(lines)-1]
}

// read returns all output, and a channel that is closed at the next.
func (o *output) read() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed == nil {
		o.changed = make(chan struct{})
	}
	return o.text.String(), o.changed
}
