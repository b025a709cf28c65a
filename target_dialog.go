package dialog

import (
	"fmt"

	"github.com/emiago/sipgo/sip"
)

// ParseTargetDialog reads the value of a Target-Dialog header (RFC 4538 3): the
// call that a request outside it is about, named as its receiver knows it.
//
// Errors: ErrMalformed (no Call-ID, or not one tag of each kind).
func ParseTargetDialog(header string) (DialogKey, error) {
	id, params, err := dialogName(header)
	if err != nil {
		return DialogKey{}, fmt.Errorf("%w: Target-Dialog: %w", ErrMalformed, err)
	}
	key := DialogKey{CallID: id, LocalTag: params["local-tag"], RemoteTag: params["remote-tag"]}
	if key.CallID == "" || key.LocalTag == "" || key.RemoteTag == "" {
		return DialogKey{}, fmt.Errorf("%w: Target-Dialog without Call-ID or a tag", ErrMalformed)
	}
	return key, nil
}

// TargetDialog returns the call in progress that a request names by its
// Target-Dialog header, if it has one: its sender knows what only those know
// whom that call's messages passed, and may be trusted as far as they are (RFC
// 4538 4). A header that names no call is as good as none. It is meant for
// handlers of requests outside calls (Stack.OnRequest), and for calls that
// arrive (Dialog.Request). It never blocks.
func (s *Stack) TargetDialog(req *sip.Request) (*Dialog, bool) {
	if req == nil {
		return nil, false
	}
	headers := headersNamed(req, "Target-Dialog")
	if len(headers) != 1 {
		return nil, false // RFC 4538 7: one value
	}
	key, err := ParseTargetDialog(headers[0].Value())
	if err != nil {
		return nil, false
	}
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	d, ok := s.dialogs[key]
	return d, ok
}
