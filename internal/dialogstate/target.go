package dialogstate

import (
	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipuri"
)

// Refresh sets the target to the first of targets, the Contact of an accepted re-INVITE or
// UPDATE of the peer, of a 2xx to one of ours, or of a reliable provisional response (RFC
// 3261 12.2.1.2, 12.2.2; RFC 6141 4.3). Without a Contact the target does not change. The
// route set never changes.
func (s *State) Refresh(targets []sip.Uri) {
	if len(targets) > 0 {
		s.target = targets[0]
	}
}

// RefreshBy is Refresh for a response to a request of ours that was sent to sentTo. If a
// request of the peer has refreshed the target since, a response with the old target was
// sent before that request: a peer that can send a request refreshes its target with it,
// not with a response (RFC 6141 4.8).
func (s *State) RefreshBy(targets []sip.Uri, sentTo sip.Uri) {
	now := s.target
	s.Refresh(targets)
	if !sipuri.Same(now, sentTo) && sipuri.Same(s.target, sentTo) {
		s.target = now
	}
}
