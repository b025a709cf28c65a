//go:build !linux

package transport

import (
	"net"
	"time"
)

// limitUnacknowledged does nothing where the kernel has no such limit.
func limitUnacknowledged(net.Conn, time.Duration) {}
