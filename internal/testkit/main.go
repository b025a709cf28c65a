// Package testkit is what the tests of several packages share.
package testkit

import (
	"context"
	"net"
	"testing"

	"go.uber.org/goleak"
)

// Main is a package's TestMain: no goroutine may be left. It also makes package net read
// the configuration of its resolvers: what it keeps of that belongs to whoever asks
// first, which must not be a bubble.
func Main(m *testing.M) {
	_, _ = NoNames().LookupHost(context.Background(), "nobody.invalid.")
	goleak.VerifyTestMain(m)
}

// NoNames is a resolver that knows no name, and asks nobody.
func NoNames() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, net.ErrClosed
	}}
}
