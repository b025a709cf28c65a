package dialog_test

import (
	"context"
	"net"
	"testing"

	"go.uber.org/goleak"
)

// TestMain also makes package net read the configuration of its resolvers: what
// it keeps of that belongs to whoever asks first, which must not be a bubble.
func TestMain(m *testing.M) {
	_, _ = noNames().LookupHost(context.Background(), "nobody.invalid.")
	goleak.VerifyTestMain(m)
}

// noNames is a resolver that knows no name, and asks nobody.
func noNames() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, net.ErrClosed
	}}
}
