package bridge

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
)

// forks are the early dialogs of the second call as the caller has them: each has a To tag
// of its own there (RFC 3261 12.1.1). The first is the one that the caller's call begins
// with, the others are named by dialog.WithFork.
type forks struct {
	mu   sync.Mutex // guards the fields below
	list []*fork
}

// fork is an early dialog of the callee's.
type fork struct {
	tag  string // the callee's
	name string // of dialog.WithFork; empty for the first
	// ended is true once it has ended. A 2xx may follow: then the caller gets another one.
	ended bool
	// answer is the session description in a reliable response.
	answer dialog.Body
}

// of returns the early dialog of a tag of the callee's.
func (f *forks) of(tag string) *fork {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, known := range f.list {
		if known.tag == tag && !known.ended {
			return known
		}
	}
	made := &fork{tag: tag}
	if len(f.list) > 0 {
		made.name = fmt.Sprint(tag, " ", len(f.list))
	}
	f.list = append(f.list, made)
	return made
}

// find returns an early dialog that has not ended; nil if there is none.
func (f *forks) find(is func(*fork) bool) *fork {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, known := range f.list {
		if is(known) && !known.ended {
			return known
		}
	}
	return nil
}

func tagged(tag string) func(*fork) bool { return func(f *fork) bool { return f.tag == tag } }

func named(name string) func(*fork) bool { return func(f *fork) bool { return f.name == name } }

func (f *forks) end(one *fork) {
	f.mu.Lock()
	defer f.mu.Unlock()
	one.ended = true
}

// answered records the session description in a response, if it is reliable.
func (f *forks) answered(one *fork, res *sip.Response) {
	session := sessionOf(res)
	if session == nil || !isReliable(res) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	one.answer = session
}

func (f *forks) answerOf(one *fork) dialog.Body {
	f.mu.Lock()
	defer f.mu.Unlock()
	return one.answer
}

// option puts a response of ours into the early dialog.
func (f *fork) option() []dialog.ResponseOpt {
	if f.name == "" {
		return nil
	}
	return []dialog.ResponseOpt{dialog.WithFork(f.name)}
}

// lists reports whether a header that lists options has one of them.
func lists(msg sip.Message, header, option string) bool {
	return slices.ContainsFunc(dialog.HeaderText(msg, header), func(value string) bool {
		return slices.ContainsFunc(strings.Split(value, ","), func(tag string) bool {
			return strings.EqualFold(strings.TrimSpace(tag), option)
		})
	})
}

// takesReliable reports whether a caller takes reliable provisional responses (RFC 3262 3).
func takesReliable(invite *sip.Request) bool {
	return lists(invite, "Supported", "100rel") || lists(invite, "Require", "100rel")
}
