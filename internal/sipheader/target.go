package sipheader

import (
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/sipuri"
)

// Targets returns the URIs that an INVITE gives for later requests. A client of RFC 2543,
// whose branch has no magic cookie, may have no Contact: its From is the target then (RFC
// 4475 3.4.1).
func Targets(invite *sipmsg.Message) []sip.Uri {
	if Has(invite, "Contact") {
		return Contacts(invite)
	}
	from := NameAddrOf(invite, "From").URI
	if strings.HasPrefix(invite.Via.Branch(), sip.RFC3261BranchMagicCookie) || !sipuri.IsTarget(from) {
		return nil
	}
	return []sip.Uri{from}
}

// CountTargets counts Targets, and makes no list.
func CountTargets(invite *sipmsg.Message) (n int) {
	if !Has(invite, "Contact") {
		return len(Targets(invite))
	}
	invite.Each("Contact", func(value string) {
		if a, err := sipmsg.ParseAddress(value); err == nil && namesTarget(a.URI) {
			n++
		}
	})
	return n
}

// namesTarget is sipuri.IsTarget for the text of a URI.
func namesTarget(text string) bool {
	uri, err := sipmsg.ParseURI(text)
	return err == nil && uri.IsSIP() && uri.Host != "*"
}

// HasTarget reports whether an INVITE has the one Contact that is the target of a dialog
// (RFC 3261 8.1.1.8). Inside a dialog it may be missing, although it should not (RFC 3261
// 12.2.1.1): the target then stays.
func HasTarget(invite *sipmsg.Message) bool {
	number := CountContacts(invite)
	if number == 0 && ToTag(invite) != "" {
		return true
	}
	return number <= 1 && CountTargets(invite) == 1
}

// largeText is the size of header fields from which on they are not kept for the sake
// of a few of them.
const largeText = 4 << 10

// Excerpt returns a message, or of a large one the named fields: who keeps a part of a
// message keeps its whole text.
func Excerpt(msg Message, names ...string) Message {
	m, isText := msg.(*sipmsg.Message)
	if full, ok := msg.(sip.Message); ok {
		m = sipmsg.Of(full)
	}
	if m == nil || len(m.Text()) < largeText {
		return msg
	}
	excerpt := m.Excerpt(names...)
	if isText {
		return excerpt
	}
	return excerpt.NewSIP()
}
