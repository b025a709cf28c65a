package nat

import (
	"testing"

	"sipdialog.example/dialog"
)

// times of UDP bindings, in seconds.
const (
	hasty = 5
	linux = 30 // without a reply
)

var (
	transports = []string{"udp", "tcp", "tls", "ws", "wss"}
	streams    = transports[1:]
)

func TestCallsBothWays(t *testing.T) {
	t.Parallel()
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			w := newWorld(t)
			p := w.serve().phone(w.router(linux), "alice", transport)
			for _, by := range []func(*call) *dialog.Dialog{(*call).phoneEnd, (*call).serverEnd} {
				for _, c := range []*call{p.calls(0), p.server.calls(p, 0)} {
					c.talk()
					c.end(by(c))
				}
			}
		})
	}
}
