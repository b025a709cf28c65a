package dialogstate

import (
	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipuri"
)

// Refresh moves the target to the first of targets, the Contact of an accepted
// re-INVITE or UPDATE of the peer's, of a 2xx to one of ours, or of a reliable
// provisional response (RFC 3261 12.2.1.2, 12.2.2; RFC 6141 4.3). Without a Contact the
// target stays. The route set never changes by it.
func (s *State) Refresh(targets []sip.Uri) {
	if len(targets) > 0 {
		s.target = targets[0]
	}
}

// RefreshBy is Refresh for a response to a request of ours that was sent to sentTo.
// Where a request of the peer's has moved the target since, a response with the old
// target left before that: a peer that can send a request moves by it, not by a response
// (RFC 6141 4.8).
func (s *State) RefreshBy(targets []sip.Uri, sentTo sip.Uri) {
	now := s.target
	s.Refresh(targets)
	if !sipuri.Same(now, sentTo) && sipuri.Same(s.target, sentTo) {
		s.target = now
	}
}
