package dialogname

import (
	"errors"
	"fmt"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// InInvite reads the Replaces or Join header of a request; found is false when there is
// none. An INVITE that begins a call may have one value of one of them; anything else is
// an error (RFC 3891 3, 6.1; RFC 3911 4).
func InInvite(req *sipmsg.Message) (name Replaces, join, found bool, err error) {
	if !sipheader.Has(req, "Replaces") && !sipheader.Has(req, "Join") {
		return Replaces{}, false, false, nil
	}
	headers := append(sipheader.AllNamed(req, "Replaces"), sipheader.AllNamed(req, "Join")...)
	switch {
	case len(headers) > 1:
		return Replaces{}, false, false, errors.New("more than one Replaces or Join")
	case req.Method != sip.INVITE || sipheader.ToTag(req) != "":
		return Replaces{}, false, false, errors.New("Replaces or Join in a request that is not an initial INVITE")
	}
	value := headers[0].Value()
	// Neither a Call-ID nor a tag has a comma (RFC 3261 25.1): there are two
	// values. Escaped, as in a URI, it means nothing here.
	if strings.Contains(value, ",") || !strings.Contains(value, ";") {
		return Replaces{}, false, false, fmt.Errorf("malformed %s: %q", headers[0].Name(), value)
	}
	if name, err = ParseReplaces(value); err != nil {
		return Replaces{}, false, false, err
	}
	return name, strings.EqualFold(headers[0].Name(), "Join"), true, nil
}

// Tags returns the tags that a tag stands for: zero also means no tag, as with peers
// of RFC 2543 (RFC 3891 6.1).
func Tags(tag string) []string {
	if tag == "0" {
		return []string{"0", ""}
	}
	return []string{tag}
}
