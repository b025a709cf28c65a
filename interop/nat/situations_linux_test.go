package nat

import (
	"testing"
	"time"
)

// The phone's call rings longer than the router remembers: its INVITE is repeated in
// time.
func TestACallRingsLongerThanTheBindingOfTheCaller(t *testing.T) {
	w := newWorld(t)
	p := w.serve().phone(w.router(25), "alice", "udp")
	c := p.calls(35 * time.Second)
	c.talk()
	c.end(c.server)
}

// A router that forgets sooner than anybody can repeat: the answer is repeated, and goes
// where the INVITE comes from in the end.
func TestACallRingsMuchLongerThanTheBindingOfTheCaller(t *testing.T) {
	w := newWorld(t)
	p := w.serve().phone(w.router(hasty), "alice", "udp")
	c := p.calls(8 * time.Second)
	c.talk()
	c.end(c.server)
}

// The router forgets a call's binding: the next request of the phone's shows the way.
func TestABindingIsForgottenInACall(t *testing.T) {
	w := newWorld(t)
	p := w.serve().phone(w.router(linux), "alice", "udp")
	c := p.calls(0)
	for range 3 {
		p.forget()
		c.phoneSpeaks()
		c.talk()
	}
	p.forget()
	c.end(c.phone)
}
