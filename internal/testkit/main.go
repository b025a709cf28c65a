// Package testkit has the code that the tests of several packages share.
package testkit

import (
	"context"
	"net"
	"testing"

	"go.uber.org/goleak"
)

// Main is a package's TestMain: no goroutine may be left. It also lets package net read the
// configuration of its resolvers: package net keeps it for the first caller, which must not
// be a bubble.
func Main(m *testing.M) {
	_, _ = NoNames().LookupHost(context.Background(), "nobody.invalid.")
	goleak.VerifyTestMain(m)
}

// NoNames returns a resolver that knows no name, and sends no query.
func NoNames() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, net.ErrClosed
	}}
}
