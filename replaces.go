package dialog

import (
	"fmt"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/dialogname"
)

// ReplacesInfo names a dialog as a Replaces header does (RFC 3891 6.1): ToTag
// is the tag of the side that receives the header, FromTag its peer's.
type ReplacesInfo struct {
	CallID, FromTag, ToTag string
	// EarlyOnly asks to replace the dialog only while it is early.
	EarlyOnly bool
}

// BuildReplacesHeader returns the header's value; empty for nil.
func (r *ReplacesInfo) BuildReplacesHeader() string {
	if r == nil {
		return ""
	}
	return dialogname.Replaces(*r).String()
}

// ReplacesOf returns the name of a call for its peer, for an INVITE that replaces the
// call there (InviteOpts.Replaces), or joins it. It is nil while the peer's tag is not
// known, and for a nil call.
func ReplacesOf(d IDialog) *ReplacesInfo {
	if own, ok := d.(*Dialog); d == nil || (ok && own == nil) {
		return nil
	}
	key := d.Key()
	if key.CallID == "" || key.LocalTag == "" || key.RemoteTag == "" {
		return nil
	}
	// RFC 3891 3: the tags as the side has them that is asked; our tag is its
	// remote one.
	return &ReplacesInfo{CallID: key.CallID, FromTag: key.LocalTag, ToTag: key.RemoteTag}
}

// ParseReplacesHeader reads the value of a Replaces header, plain or, from a Refer-To
// URI, escaped. Call-ID and exactly one of each tag are needed; unknown parameters are
// skipped.
//
// Errors: ErrMalformed.
func ParseReplacesHeader(header string) (*ReplacesInfo, error) {
	read, err := dialogname.ParseReplaces(header)
	if err != nil {
		return nil, fmt.Errorf("%w: Replaces: %w", ErrMalformed, err)
	}
	info := ReplacesInfo(read)
	return &info, nil
}

// replacesIn reads the Replaces header in a Refer-To URI; nil when there is none.
func replacesIn(uri sip.Uri) (*ReplacesInfo, error) {
	value, found, err := dialogname.ReplacesIn(uri)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: Replaces: %w", ErrMalformed, err)
	case !found:
		return nil, nil
	}
	return ParseReplacesHeader(value)
}
