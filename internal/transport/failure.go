package transport

import (
	"errors"
	"fmt"
	"net"
)

// doing adds to an error the action that failed, unless it names it itself.
func doing(what string, err error) error {
	var op *net.OpError
	var lookup *net.DNSError
	if errors.As(err, &op) && op.Addr != nil || errors.As(err, &lookup) || errors.Is(err, ErrTLS) || errors.Is(err, ErrWebSocket) {
		return err
	}
	return fmt.Errorf("%s: %w", what, err)
}
