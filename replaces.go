package dialog

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/emiago/sipgo/sip"
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

// ParseReplacesHeader reads a Replaces header's value, as it stands in a
// header or, escaped, in a Refer-To URI. Call-ID and exactly one of each tag
// are needed; parameters it does not know are skipped.
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
	id, params, _ := strings.Cut(value, ";")
	info := &ReplacesInfo{CallID: strings.TrimSpace(id)}
	for _, param := range strings.Split(params, ";") {
		if err := info.set(param); err != nil {
			return nil, err
		}
	}
	if info.CallID == "" || info.FromTag == "" || info.ToTag == "" {
		return nil, fmt.Errorf("%w: Replaces without Call-ID or a tag", ErrMalformed)
	}
	return info, nil
}

func (r *ReplacesInfo) set(param string) error {
	name, value, _ := strings.Cut(param, "=")
	value = strings.TrimSpace(value)
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "from-tag":
		return setOnce(&r.FromTag, value)
	case "to-tag":
		return setOnce(&r.ToTag, value)
	case "early-only":
		r.EarlyOnly = true
	}
	return nil
}

func setOnce(field *string, value string) error {
	if *field != "" {
		return fmt.Errorf("%w: Replaces with two tags of a kind", ErrMalformed)
	}
	*field = value
	return nil
}

// replacesIn returns what the Replaces header in a Refer-To URI names, or nil
// when there is none.
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

// splitFlags mends a URI that sipgo parsed with headers after a parameter
// without a value: it takes "lr?Replaces=x" for the parameter's name.
func splitFlags(uri sip.Uri) sip.Uri {
	clean := *uri.Clone()
	for i, kv := range clean.UriParams {
		clean.UriParams[i].K, _, _ = strings.Cut(kv.K, "?")
	}
	return clean
}
