package dialog

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
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
	value := r.CallID + ";from-tag=" + r.FromTag + ";to-tag=" + r.ToTag
	if r.EarlyOnly {
		value += ";early-only"
	}
	return value
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
	value := strings.TrimSpace(header)
	if !strings.Contains(value, ";") {
		unescaped, err := url.PathUnescape(value)
		if err != nil {
			return nil, fmt.Errorf("%w: Replaces: %w", ErrMalformed, err)
		}
		value = unescaped
	}
	id, params, err := dialogName(value)
	if err != nil {
		return nil, fmt.Errorf("%w: Replaces: %w", ErrMalformed, err)
	}
	info := &ReplacesInfo{CallID: id, FromTag: params["from-tag"], ToTag: params["to-tag"]}
	_, info.EarlyOnly = params["early-only"]
	if info.CallID == "" || info.FromTag == "" || info.ToTag == "" {
		return nil, fmt.Errorf("%w: Replaces without Call-ID or a tag", ErrMalformed)
	}
	return info, nil
}

// dialogName reads a Call-ID with parameters, as in Replaces, Join and Target-Dialog. A
// parameter may occur once only (RFC 3261 7.3.1).
func dialogName(value string) (id string, params map[string]string, err error) {
	id, list := sipmsg.CutParams(value)
	if !list.Valid() {
		return "", nil, errors.New("parameters that cannot be read")
	}
	params = make(map[string]string)
	for param := range list.All() {
		name := strings.ToLower(param.Name)
		if _, twice := params[name]; twice {
			return "", nil, fmt.Errorf("%s twice", name)
		}
		params[name] = strings.TrimSpace(param.Value)
	}
	return strings.TrimSpace(id), params, nil
}

// replacesIn reads the Replaces header in a Refer-To URI; nil when there is none.
func replacesIn(uri sip.Uri) (*ReplacesInfo, error) {
	for _, kv := range uri.Headers {
		if strings.EqualFold(kv.K, "Replaces") {
			value, err := url.PathUnescape(kv.V)
			if err != nil {
				return nil, fmt.Errorf("%w: Replaces: %w", ErrMalformed, err)
			}
			return ParseReplacesHeader(value)
		}
	}
	return nil, nil
}

// escapeHeader escapes a header's value for a URI (RFC 3261 25.1, hvalue).
func escapeHeader(value string) string {
	const plain = "[]/?:+$-_.!~*'()"
	var b strings.Builder
	for i := 0; i < len(value); i++ {
		c := value[i]
		if c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.IndexByte(plain, c) >= 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}
