package dialog

import (
	"fmt"

	"github.com/emiago/sipgo/sip"
)

// ParseTargetDialog reads the value of a Target-Dialog header (RFC 4538 3): the call to
// which a request outside it belongs, as its receiver knows it.
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

// TargetDialog returns the call in progress that a request names by its Target-Dialog
// header. Only the elements on the path of that call's messages know its name, so that
// the sender may be trusted as far as they are (RFC 4538 4). A header that names no
// call counts as none. It is meant for handlers of requests outside calls
// (Stack.OnRequest), and for incoming calls (Dialog.Request). It never blocks.
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
