package dialog

import (
	"slices"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/rel100"
	"sipdialog.example/dialog/internal/sipmsg"
)

// Reliability says whether provisional responses are sent so that they cannot be
// lost: the option 100rel, with PRACK (RFC 3262).
type Reliability int

const (
	// ReliableSupported, the default: our calls say that we know it, and
	// either side may use it.
	ReliableSupported Reliability = iota
	// ReliableOff: neither offered nor taken. A call that requires it gets 420,
	// and PRACK 405.
	ReliableOff
	// ReliableRequired: our calls require it, and a call whose caller does not
	// know it gets 421.
	ReliableRequired
)

// allowed is the Allow header: every method that is understood (RFC 3261 20.5),
// SUBSCRIBE for the event refer (RFC 6665 4.1.1).
func (c *StackConfig) allowed() string {
	const methods = "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, REFER, SUBSCRIBE, NOTIFY, INFO"
	if c.Reliable == ReliableOff {
		return methods
	}
	return methods + ", PRACK"
}

// supported is the Supported header (RFC 3261 20.37, 4488, 7614, 4028, 3891,
// 3262, 3911, 4538).
func (c *StackConfig) supported() string {
	tags := "norefersub, nosub, timer, replaces"
	if c.Reliable != ReliableOff {
		tags += ", " + rel100.Tag
	}
	if c.AuthorizeJoin != nil {
		tags += ", join"
	}
	if c.TargetDialog {
		tags += ", tdialog"
	}
	return tags
}

// unsupported returns those of the tags that we do not know.
func (c *StackConfig) unsupported(required []string) []string {
	if len(required) == 0 {
		return nil
	}
	known := strings.Split(c.supported(), ", ")
	return slices.DeleteFunc(required, func(tag string) bool { return containsFold(known, tag) })
}

// requireReliable adds to an INVITE that begins a call what the configuration
// insists on (RFC 3262 4).
func (c *StackConfig) requireReliable(invite *sip.Request) {
	if c.Reliable == ReliableRequired {
		invite.AppendHeader(sip.NewHeader("Require", rel100.Tag))
	}
}

// inspectReliable refuses a call whose caller does not know what we insist on
// (RFC 3261 21.4.16).
func (s *Stack) inspectReliable(tx serverTx, invite *sipmsg.Message) *sip.Response {
	if s.config.Reliable != ReliableRequired || toTag(invite) != "" || knowsReliable(invite) {
		return nil
	}
	res := tx.NewResponse(sip.StatusExtensionRequired, "")
	res.AppendHeader(sip.NewHeader("Require", rel100.Tag))
	return res
}

func requiresReliable(msg message) bool { return lists(msg, "Require", rel100.Tag) }

// knowsReliable reports whether an INVITE allows reliable provisional responses
// (RFC 3262 3).
func knowsReliable(invite *sipmsg.Message) bool {
	return requiresReliable(invite) || lists(invite, "Supported", rel100.Tag)
}

// rackOf reads the RAck header; ok is false when there is none, or more than
// one, or it cannot be read.
func rackOf(prack *sipmsg.Message) (ack rel100.RAck, ok bool) {
	if !isAlone(prack, "RAck") {
		return rel100.RAck{}, false
	}
	return rel100.ParseRAck(headerValue(prack, "RAck"))
}
