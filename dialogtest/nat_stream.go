package dialogtest

import (
	"net/netip"
	"sync"
	"time"
)

// natStream is a connection through a NAT.
type natStream struct {
	nat       *NAT
	here, far *stream

	mu   sync.Mutex // guards the field below
	used time.Time
}

// connect dials from inside: the peer sees the public address.
func (r *NAT) connect(h *Host, remote netip.AddrPort) (*stream, error) {
	if remote.Addr() == r.public { // no hairpin
		return nil, r.drop()
	}
	public := netip.AddrPortFrom(r.public, r.takePort())
	return r.outer.connectFrom(dialler{host: h, public: public, nat: r}, remote)
}

// drop counts a dropped attempt.
func (r *NAT) drop() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropped++
	return errNoHost
}

func (r *NAT) takePort() uint16 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.freeLocked(0)
}

// carry begins to translate a connection.
func (r *NAT) carry(here, far *stream) {
	s := &natStream{nat: r, here: here, far: far, used: time.Now()}
	here.carried, far.carried = s.carried, s.carried
	r.mu.Lock()
	r.streams[s] = struct{}{}
	r.mu.Unlock()
}

// carried is called for each write. After too long a silence this write and all later
// ones are lost.
func (s *natStream) carried() {
	s.mu.Lock()
	silence := time.Since(s.used)
	s.used = time.Now()
	s.mu.Unlock()
	if limit := s.nat.config.StreamTime; limit > 0 && silence >= limit {
		s.nat.mu.Lock()
		delete(s.nat.streams, s)
		s.nat.mu.Unlock()
		s.sever()
	}
}

// sever cuts both directions silently.
func (s *natStream) sever() {
	s.here.sever()
	s.far.sever()
}
