package dialog

import (
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
)

// targetsOf are the targets that an INVITE gives for later requests. A client of RFC
// 2543, whose branch has no magic cookie, may have no Contact: its From is the target
// then (RFC 4475 3.4.1).
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

// countTargets counts targetsOf, and makes no list.
func countTargets(invite *sipmsg.Message) (n int) {
	if !hasHeader(invite, "Contact") {
		return len(targetsOf(invite))
	}
	invite.Each("Contact", func(value string) {
		if a, err := sipmsg.ParseAddress(value); err == nil && namesTarget(a.URI) {
			n++
		}
	})
	return n
}

// namesTarget is isTarget for the text of a URI.
func namesTarget(text string) bool {
	uri, err := sipmsg.ParseURI(text)
	return err == nil && uri.IsSIP() && uri.Host != "*"
}

// refreshTargetLocked sets the target from a re-INVITE or UPDATE, or a 2xx to one (RFC
// 3261 12.2.1.2, 12.2.2), and the peer's identity and packages.
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

// learnable is a message, or of a large one the fields that a dialog learns from: a
// dialog that keeps a part of a message keeps its whole text.
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

// answeredAtLocked is refreshTargetLocked for the 2xx to a request of ours that was
// sent to target. Where a request of the peer's has moved the target since, a 2xx with
// the old target left before that: a peer that can send a request moves by it, not by a
// response (RFC 6141 4.8).
func (d *Dialog) answeredAtLocked(target sip.Uri, res *sip.Response) {
	now := d.remoteTarget
	d.refreshTargetLocked(res)
	if !sameURI(now, target) && sameURI(d.remoteTarget, target) {
		d.remoteTarget = now
	}
}
