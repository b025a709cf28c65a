package capability

import (
	"slices"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/dialogname"
	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/rel100"
	"sipdialog.example/dialog/internal/sessiontimer"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// Rules are the settings of a stack that say what it understands.
type Rules struct {
	// NoReliable is true when reliable provisional responses are not used (RFC 3262),
	// NeedsReliable when every call has to use them.
	NoReliable, NeedsReliable bool
	// Join and TargetDialog say whether the extensions of these names are announced (RFC
	// 3911, RFC 4538).
	Join, TargetDialog bool
	// Bodies are the types of bodies that are accepted; empty accepts all.
	Bodies []string
	Timer  sessiontimer.Policy
}

// Supported is the Supported header (RFC 3261 20.37, 4488, 7614, 4028, 3891, 3262, 3911,
// 4538).
func (r Rules) Supported() string {
	tags := "norefersub, nosub, timer, replaces"
	if !r.NoReliable {
		tags += ", " + rel100.Tag
	}
	if r.Join {
		tags += ", join"
	}
	if r.TargetDialog {
		tags += ", tdialog"
	}
	return tags
}

// unsupported returns those of the tags that we do not know.
func (r Rules) unsupported(required []string) []string {
	if len(required) == 0 {
		return nil
	}
	known := strings.Split(r.Supported(), ", ")
	return slices.DeleteFunc(required, func(tag string) bool { return sipheader.ContainsFold(known, tag) })
}

// Accept is the Accept header: bodies that are accepted, at least.
func (r Rules) Accept() string {
	if len(r.Bodies) > 0 {
		return strings.Join(r.Bodies, ", ")
	}
	return offeranswer.TypeSDP
}

// Refusal is the response to a request that is refused. An empty Reason is the status's
// own; Header says what would be accepted, and is nil for some.
type Refusal struct {
	Status int
	Reason string
	Header sip.Header
}

// Refuse returns the refusal of a request, or nil.
func (r Rules) Refuse(req *sipmsg.Message) *Refusal {
	switch req.Scheme() {
	case "sip", "sips", "":
	default:
		return &Refusal{Status: sip.StatusRequestedRangeNotSatisfiable, Reason: "Unsupported URI Scheme"}
	}
	if unknown := r.unsupported(sipheader.Listed(req, "Require")); len(unknown) > 0 {
		return &Refusal{Status: sip.StatusBadExtension, Header: sip.NewHeader("Unsupported", strings.Join(unknown, ", "))}
	}
	if _, _, _, err := dialogname.InInvite(req); err != nil {
		return malformed("Bad Replaces or Join")
	}
	isInvite := req.Method == sip.INVITE
	switch {
	case !isInvite && req.Method != sip.UPDATE:
		return nil
	case isInvite && !sipheader.HasTarget(req):
		return malformed("Exactly one Contact required")
	case isInvite && !sipheader.ReadsRoutes(req):
		return malformed("Malformed Record-Route")
	case r.Timer.Refuses(req):
		return &Refusal{
			Status: sessiontimer.StatusTooSmall, Reason: "Session Interval Too Small",
			Header: sip.NewHeader("Min-SE", sipmsg.FormatSeconds(r.Timer.Smallest())),
		}
	case isInvite && r.NeedsReliable && sipheader.ToTag(req) == "" && !rel100.Allows(req): // RFC 3261 21.4.16
		return &Refusal{Status: sip.StatusExtensionRequired, Header: sip.NewHeader("Require", rel100.Tag)}
	}
	if wanted := r.wantedInstead(req); wanted != nil && !offeranswer.IsOptional(offeranswer.Whole(req)) {
		return &Refusal{Status: sip.StatusUnsupportedMediaType, Header: wanted}
	}
	return refuseAccept(req)
}

func malformed(reason string) *Refusal { return &Refusal{Status: sip.StatusBadRequest, Reason: reason} }

// wantedInstead returns the header that names an acceptable body, or nil when the body
// is acceptable.
func (r Rules) wantedInstead(req *sipmsg.Message) sip.Header {
	if len(req.Body()) == 0 {
		return nil
	}
	if encoding := sipheader.Value(req, "Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return sip.NewHeader("Accept-Encoding", "identity")
	}
	if len(r.Bodies) > 0 && !offeranswer.Accepts(r.Bodies, offeranswer.Whole(req)) {
		return sip.NewHeader("Accept", strings.Join(r.Bodies, ", "))
	}
	return nil
}

// TakesBody reports whether a request has a body that is not ignored: one that we do not
// accept is, when it is optional (RFC 3261 8.2.3).
func (r Rules) TakesBody(req *sipmsg.Message) bool {
	return len(req.Body()) > 0 && r.wantedInstead(req) == nil
}

// HasOffer reports whether an INVITE or UPDATE has a session description that is not
// ignored.
func (r Rules) HasOffer(req *sipmsg.Message) bool {
	_, found := offeranswer.SessionIn(req)
	return found && r.TakesBody(req)
}

// refuseAccept refuses an offer that could not be answered: Accept says which bodies the
// response may have, and an SDP answer is not among them (RFC 3261 20.1, 21.4.7). Without
// Accept it is.
func refuseAccept(req *sipmsg.Message) *Refusal {
	if !sipheader.Has(req, "Accept") || slices.ContainsFunc(sipheader.Listed(req, "Accept"), offeranswer.CoversSDP) {
		return nil
	}
	if _, isSDP := offeranswer.SDPIn(req); !isSDP {
		return nil
	}
	return &Refusal{
		Status: sip.StatusNotAcceptable,
		Header: sip.NewHeader("Warning", sipheader.Warning(399, "an answer in SDP is not accepted")),
	}
}
