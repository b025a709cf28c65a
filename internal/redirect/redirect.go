// Package redirect keeps the targets of a request: the first one, and those of 3xx
// responses, the best first (RFC 3261 8.1.3.4).
package redirect

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipuri"
)

// Contact is a Contact of a response: its URI and the parameters of the header.
type Contact struct {
	URI    sip.Uri
	Params sip.HeaderParams
}

// Targets are the targets of one request. A nil *Targets has no other.
type Targets struct {
	// left is how many more may be tried.
	left int
	// known are all targets so far: none is added twice. next are those not tried yet,
	// the best first. current is the one that is tried.
	known, next []sip.Uri
	current     sip.Uri
}

// New returns the targets of a request that is sent to target, and then to at most
// limit others.
func New(limit int, target sip.Uri) *Targets {
	return &Targets{left: limit, known: []sip.Uri{target}, current: target}
}

// MayGoOn reports whether another target may be tried, if there is one.
func (t *Targets) MayGoOn() bool { return t != nil && t.left > 0 }

// Next takes the next target; false when there is none.
func (t *Targets) Next() (target sip.Uri, found bool) {
	if !t.MayGoOn() || len(t.next) == 0 {
		return sip.Uri{}, false
	}
	t.current, t.next = t.next[0], t.next[1:]
	t.left--
	return t.current, true
}

// Learn takes a final response with its Contacts. Those of a 3xx come before the others:
// they replace the target that named them. After a 6xx there are no others.
func (t *Targets) Learn(status int, contacts []Contact) {
	switch {
	case status >= 600:
		t.next = nil // RFC 3261 21.6: no other target would succeed
		return
	case status < 300 || status > sip.StatusMovedTemporarily:
		return
	}
	var named []sip.Uri
	for _, target := range ByRank(contacts) {
		sipuri.RemoveParam(&target.UriParams, "method")
		target.Headers = nil
		if t.mayTry(target) {
			t.known, named = append(t.known, target), append(named, target)
		}
	}
	t.next = append(named, t.next...)
	t.next = t.next[:min(len(t.next), max(t.left, 0))]
}

// mayTry reports whether a target is new, and does not lead from a SIPS URI to another.
func (t *Targets) mayTry(target sip.Uri) bool {
	if sipuri.IsSIPS(t.current) && !sipuri.IsSIPS(target) {
		return false
	}
	return !slices.ContainsFunc(t.known, func(known sip.Uri) bool { return sipuri.Same(known, target) })
}

// ByRank returns the URIs that can be a target, the one of the highest q first (RFC 3261
// 20.10). A target without q has 1; those of equal q keep their order.
func ByRank(contacts []Contact) []sip.Uri {
	list := slices.Clone(contacts)
	slices.SortStableFunc(list, func(a, b Contact) int { return cmp.Compare(rank(b.Params), rank(a.Params)) })
	var uris []sip.Uri
	for _, c := range list {
		if sipuri.IsTarget(c.URI) {
			uris = append(uris, c.URI)
		}
	}
	return uris
}

// rank reads a q parameter, from 0 to 1; 1 when it is missing or cannot be read.
func rank(params sip.HeaderParams) float64 {
	value, _ := sipuri.Param(params, "q")
	q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	if err != nil || !(q >= 0 && q <= 1) {
		return 1
	}
	return q
}
