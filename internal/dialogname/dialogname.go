// Package dialogname reads and writes the names of dialogs in headers: Replaces (RFC
// 3891 6.1), Join (RFC 3911 7.1) and Target-Dialog (RFC 4538 3).
package dialogname

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
)

// Replaces is the value of a Replaces or a Join. ToTag is the tag of the side that
// receives the header.
type Replaces struct {
	CallID, FromTag, ToTag string
	EarlyOnly              bool
}

// String returns the value as it is written.
func (r Replaces) String() string {
	value := r.CallID + ";from-tag=" + r.FromTag + ";to-tag=" + r.ToTag
	if r.EarlyOnly {
		value += ";early-only"
	}
	return value
}

// ParseReplaces reads the value of a Replaces, plain or, from a Refer-To URI, escaped.
// Call-ID and exactly one of each tag are needed; unknown parameters are skipped.
func ParseReplaces(value string) (Replaces, error) {
	value = strings.TrimSpace(value)
	if !strings.Contains(value, ";") {
		plain, err := url.PathUnescape(value)
		if err != nil {
			return Replaces{}, err
		}
		value = plain
	}
	id, params, err := parse(value)
	if err != nil {
		return Replaces{}, err
	}
	r := Replaces{CallID: id, FromTag: params["from-tag"], ToTag: params["to-tag"]}
	_, r.EarlyOnly = params["early-only"]
	return r, needed(r.CallID, r.FromTag, r.ToTag)
}

// ReplacesIn returns the value of the Replaces header in a URI; found is false when
// there is none.
func ReplacesIn(uri sip.Uri) (value string, found bool, err error) {
	for _, kv := range uri.Headers {
		if strings.EqualFold(kv.K, "Replaces") {
			value, err = url.PathUnescape(kv.V)
			return value, true, err
		}
	}
	return "", false, nil
}

// TargetDialog is the value of a Target-Dialog: the tags are those of the side that
// receives the header.
type TargetDialog struct{ CallID, LocalTag, RemoteTag string }

// String returns the value as it is written.
func (t TargetDialog) String() string {
	return t.CallID + ";local-tag=" + t.LocalTag + ";remote-tag=" + t.RemoteTag
}

// ParseTargetDialog reads the value of a Target-Dialog, which has a Call-ID and exactly
// one of each tag.
func ParseTargetDialog(value string) (TargetDialog, error) {
	id, params, err := parse(value)
	if err != nil {
		return TargetDialog{}, err
	}
	t := TargetDialog{CallID: id, LocalTag: params["local-tag"], RemoteTag: params["remote-tag"]}
	return t, needed(t.CallID, t.LocalTag, t.RemoteTag)
}

func needed(parts ...string) error {
	for _, part := range parts {
		if part == "" {
			return errors.New("Call-ID or tag missing")
		}
	}
	return nil
}

// parse reads a Call-ID with parameters. A parameter may occur once only (RFC 3261
// 7.3.1).
func parse(value string) (id string, params map[string]string, err error) {
	id, list := sipmsg.CutParams(value)
	if !list.Valid() {
		return "", nil, errors.New("malformed parameters")
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
