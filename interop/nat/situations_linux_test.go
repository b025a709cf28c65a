package nat

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

// The phone's call rings longer than its binding lasts: the INVITE is repeated in time.
func TestACallRingsLongerThanTheBindingOfTheCaller(t *testing.T) {
	w := newWorld(t)
	p := w.serve().phone(w.router(25), "alice", "udp")
	c := p.calls(35 * time.Second)
	c.talk()
	c.end(c.server)
}

// The binding expires sooner than the INVITE is repeated: the 200 is repeated, and goes
// to the source of the latest copy of the INVITE.
func TestACallRingsMuchLongerThanTheBindingOfTheCaller(t *testing.T) {
	w := newWorld(t)
	p := w.serve().phone(w.router(hasty), "alice", "udp")
	c := p.calls(8 * time.Second)
	c.talk()
	c.end(c.server)
}

// A called phone rings longer than its binding lasts: its 200 comes from a new binding,
// and all later requests go there.
func TestACallRingsLongerThanTheBindingOfTheCallee(t *testing.T) {
	w := newWorld(t)
	s := w.serve()
	p := s.phone(w.router(hasty), "alice", "udp")
	c := s.calls(p, 8*time.Second)
	c.talk()
	c.end(c.server)
}

// over runs a test over each of the transports, in a call by the phone and in one by the
// server.
func over(t *testing.T, transports []string, test func(t *testing.T, p *phone, c *call), change ...func(*dialog.StackConfig)) {
	t.Parallel()
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			for caller, calls := range map[string]func(p *phone) *call{
				"phone":  func(p *phone) *call { return p.calls(0) },
				"server": func(p *phone) *call { return p.server.calls(p, 0) },
			} {
				t.Run(caller, func(t *testing.T) {
					w := newWorld(t)
					p := w.serve().phone(w.router(linux), "alice", transport, change...)
					test(t, p, calls(p))
				})
			}
		})
	}
}

// The router forgets all bindings during a call: the next request of the phone comes from
// a new port or a new connection, which later requests use.
func TestBindingsAreForgottenInACall(t *testing.T) {
	over(t, transports, func(_ *testing.T, p *phone, c *call) {
		for range 3 {
			p.forget()
			c.phoneSpeaks()
			c.talk()
		}
		p.forget()
		c.end(c.phone)
	})
}

// A connection is cut silently during a call: keep-alives detect that, and the next
// request opens a new one.
func TestConnectionsAreCutInACall(t *testing.T) {
	over(t, streams, func(t *testing.T, p *phone, c *call) {
		p.cut()
		require.Eventually(t, func() bool { return p.Stats().Connections == 0 }, 2*soon, soon/100, "the connection looks alive")
		c.phoneSpeaks()
		c.talk()
		c.end(c.server)
	}, func(config *dialog.StackConfig) { config.KeepAlive = 3 * time.Second })
}

// A phone that sends no keep-alives notices the loss by the first request without a
// response. The next request uses a new connection.
func TestConnectionsAreCutInACallWithoutKeepAlives(t *testing.T) {
	over(t, streams, func(t *testing.T, p *phone, c *call) {
		p.cut()
		ctx, cancel := context.WithTimeout(context.Background(), 2*soon)
		defer cancel()
		require.ErrorIs(t, c.phone.SendMessage(ctx, nil), dialog.ErrTimeout)
		c.phoneSpeaks()
		c.talk()
		c.end(c.server)
	}, func(config *dialog.StackConfig) { config.TxTimeout = soon / 2 })
}

// The phone gets another address during a call, and sends it in a re-INVITE.
func TestAPhoneMovesInACall(t *testing.T) {
	over(t, transports, func(t *testing.T, p *phone, c *call) {
		p.move()
		p.NetworkChanged()
		if p.transport != "udp" {
			require.Eventually(t, func() bool { return p.Stats().Connections == 0 }, 2*soon, soon/100, "the connection looks alive")
		}
		within(t, soon, "saying so", c.phone.Hold)
		if p.transport == "udp" || p.transport == "tcp" { // others listen elsewhere, or nowhere
			require.Equal(t, newIP, c.server.Info().RemoteTarget.Host)
		}
		c.talk()
		c.end(c.server)
	}, func(config *dialog.StackConfig) { config.KeepAlive = 3 * time.Second })
}

// Two phones behind two routers have the same private address, and their calls do not mix.
func TestTwoPhonesHaveTheSameContact(t *testing.T) {
	t.Parallel()
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			w := newWorld(t)
			s := w.serve()
			alice, bob := s.phone(w.router(linux), "alice", transport), s.phone(w.router(linux), "bob", transport)
			a, b := s.calls(alice, 0), s.calls(bob, 0)
			a.talk()
			b.talk()
			a.end(a.server)
			b.talk()
			b.end(b.server)
		})
	}
}
