package transport

import (
	"errors"
	"fmt"
	"net"
)

// doing says what has failed, unless the error says so itself.
func doing(what string, err error) error {
	var op *net.OpError
	var lookup *net.DNSError
	if errors.As(err, &op) && op.Addr != nil || errors.As(err, &lookup) || errors.Is(err, ErrTLS) || errors.Is(err, ErrWebSocket) {
		return err
	}
	return fmt.Errorf("%s: %w", what, err)
}
