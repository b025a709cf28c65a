package wellformed

import (
	"fmt"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipheader"
)

// SetBy returns what sets a header that an application cannot add to a request; empty for
// others. header is its name, or short name, in any case.
func SetBy(header string) string {
	switch strings.ToLower(header) {
	case "from", "f":
		return "InviteOpts.From or StackConfig.From"
	case "to", "t":
		return "the URI that is called"
	case "contact", "m":
		return "InviteOpts.Contact"
	case "max-forwards":
		return "InviteOpts.MaxForwards"
	case "route":
		return "InviteOpts.Route or StackConfig.OutboundProxy"
	case "content-length", "l":
		return "the body"
	case "via", "v", "call-id", "i", "cseq", "record-route":
		return "the stack alone"
	}
	return ""
}

// SetByRefer is SetBy for the headers that only a REFER has.
func SetByRefer(header string) string {
	switch strings.ToLower(header) {
	case "refer-to", "r":
		return "the URI to refer to"
	case "refer-sub":
		return "ReferOpts.ReferSub or NoReferSub"
	}
	return SetBy(header)
}

// Request refuses a request that would not be read back unchanged.
func Request(req *sip.Request) error {
	if sipheader.Has(req, "Max-Forwards") && (req.MaxForwards() == nil || *req.MaxForwards() > MaxHops) {
		return fmt.Errorf("%s %q", "Max-Forwards", sipheader.Value(req, "Max-Forwards"))
	}
	if err := Token("method", string(req.Method)); err != nil {
		return err
	}
	if err := Text("start line", req.SipVersion); err != nil {
		return err
	}
	for _, h := range req.Headers() {
		if err := Header(h); err != nil {
			return err
		}
	}
	return Single(req.Headers())
}
