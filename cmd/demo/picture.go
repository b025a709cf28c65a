package main

import (
	"os"
	"regexp"
	"strings"
	"time"

	"sipdialog.example/dialog/ladder"
)

// reliable finds the numbers of reliable responses, which begin at random (RFC 3262 3).
var reliable = regexp.MustCompile(`(?m)^(RSeq|RAck): \d+`)

// draw draws the run into a file.
func (s *scene) draw(file string) error {
	var svg strings.Builder
	if _, err := s.picture().WriteSVG(&svg); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(svg.String()), 0o644)
}

// picture has the messages and notes of the run without the details that differ from run
// to run: retransmissions, the first number of reliable responses, and the order of notes
// among the messages of one step, which then has its notes at its end, in the order of the
// script. The run was as the script says, or there is no picture.
func (s *scene) picture() *ladder.Ladder {
	r := s.record
	r.mu.Lock()
	defer r.mu.Unlock()
	l, at, sent := ladder.New(r.participants...), time.Time{}, r.flowEvents
	for _, next := range s.steps() {
		l.Heading(at, next.name)
		for _, m := range sent[:len(next.flow)] {
			l.Message(at, m.from, m.to, reliable.ReplaceAll(m.data, []byte("$1: 1")))
		}
		sent = sent[len(next.flow):]
		for _, note := range next.notes {
			who, text, _ := strings.Cut(note, " ")
			l.Note(at, who, text)
		}
	}
	return l
}
