package dialog

import (
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
)

// targetsOf are the URIs that an INVITE names for later requests. A client of RFC
// 2543, whose branch has no magic cookie, may have no Contact: its From is the
// target then (RFC 4475 3.4.1).
func targetsOf(invite *sipmsg.Message) []sip.Uri {
	if hasHeader(invite, "Contact") {
		return contacts(invite)
	}
	from := nameAddrIn(invite, "From").uri
	if strings.HasPrefix(invite.Via.Branch(), sip.RFC3261BranchMagicCookie) || !isTarget(from) {
		return nil
	}
	return []sip.Uri{from}
}

// refreshTargetLocked takes over the target that a 2xx to a re-INVITE or UPDATE,
// or such a request itself, names (RFC 3261 12.2.1.2, 12.2.2), and what else it
// says of the peer.
func (d *Dialog) refreshTargetLocked(msg message) {
	msg = learnable(msg)
	if targets := contacts(msg); len(targets) > 0 {
		d.remoteTarget = targets[0]
	}
	d.learnPackagesLocked(msg)
	d.learnIdentityLocked(msg)
}

// largeText is the size of header fields from which on they are not kept for the sake
// of a few of them.
const largeText = 4 << 10

// learnable is a message, or of a large one the fields that a dialog learns from: what
// is kept of them keeps the whole text.
func learnable(msg message) message {
	m, isText := msg.(*sipmsg.Message)
	if full, ok := msg.(sip.Message); ok {
		m = sipmsg.Of(full)
	}
	if m == nil || len(m.Text()) < largeText {
		return msg
	}
	excerpt := m.Excerpt("From", "Contact", "Recv-Info", "P-Asserted-Identity", "Privacy")
	if isText {
		return excerpt
	}
	return excerpt.NewSIP()
}

// answeredAtLocked is refreshTargetLocked for the 2xx to a request of ours that
// went to target. Where the peer has moved since by a request of its own, a 2xx
// that names the old target left before that: who can send a request moves by it,
// not by a response (RFC 6141 4.8).
func (d *Dialog) answeredAtLocked(target sip.Uri, res *sip.Response) {
	now := d.remoteTarget
	d.refreshTargetLocked(res)
	if !sameURI(now, target) && sameURI(d.remoteTarget, target) {
		d.remoteTarget = now
	}
}
