package dialogtest

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// stream is one end of a connection.
type stream struct {
	network       *Network // the network that registers it, and whose taps see it
	host, peer    *Host
	local, remote netip.AddrPort
	seen          netip.AddrPort // local, or the public address that a NAT has given it
	dialled       bool           // owns its local port
	carried       func()         // of a NAT: unless nil, called for each write
	in, out       *pipe
	// turn holds one token during a Write, so that writes do not mix.
	turn chan struct{}
}

// newStreams returns the two ends of a connection from local to remote.
func newStreams(host, peer *Host, local, remote netip.AddrPort) (here, far *stream) {
	there, back := &pipe{window: host.network.Window}, &pipe{window: host.network.Window}
	here = &stream{host: host, peer: peer, local: local, seen: local, remote: remote, dialled: true, in: back, out: there, turn: make(chan struct{}, 1)}
	far = &stream{host: peer, peer: host, local: remote, seen: remote, remote: local, in: there, out: back, turn: make(chan struct{}, 1)}
	return here, far
}

// Read blocks until there is data, the peer has closed (io.EOF, after the
// data), the connection is closed or reset, or the read deadline comes.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.in.read(p)
	if err != nil && err != io.EOF {
		err = opError("read", "tcp", s.LocalAddr(), s.RemoteAddr(), err)
	}
	return n, err
}

// Write blocks while the peer's window is full, until all data is written, the
// connection is closed or reset, or the write deadline comes.
func (s *stream) Write(p []byte) (int, error) {
	n, err := 0, s.cut()
	if err == nil {
		s.show(p)
		if s.carried != nil {
			s.carried()
		}
		s.turn <- struct{}{}
		n, err = s.out.write(p, s.network.streamDelay(s.seen, s.remote, p))
		<-s.turn
	}
	if err != nil {
		err = opError("write", "tcp", s.LocalAddr(), s.RemoteAddr(), err)
	}
	return n, err
}

// Close ends the connection: the peer reads the remaining data and then io.EOF, and its
// writes fail with syscall.EPIPE.
func (s *stream) Close() error {
	if !s.out.closeWriter() {
		return opError("close", "tcp", s.LocalAddr(), s.RemoteAddr(), net.ErrClosed)
	}
	s.in.closeReader()
	s.network.mu.Lock()
	delete(s.network.streams, s)
	s.network.mu.Unlock()
	if s.dialled {
		s.host.unclaim(s.local)
	}
	return nil
}

// LocalAddr returns a *net.TCPAddr.
func (s *stream) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(s.local) }

// RemoteAddr returns a *net.TCPAddr.
func (s *stream) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(s.remote) }

// SetDeadline sets both deadlines.
func (s *stream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// SetReadDeadline sets the deadline of present and later reads.
func (s *stream) SetReadDeadline(t time.Time) error {
	s.in.set(func(p *pipe) { p.readDeadline = t })
	return nil
}

// SetWriteDeadline sets the deadline of present and later writes.
func (s *stream) SetWriteDeadline(t time.Time) error {
	s.out.set(func(p *pipe) { p.writeDeadline = t })
	return nil
}

// reset breaks both directions.
func (s *stream) reset() {
	s.in.reset()
	s.out.reset()
}

// sever silently loses the data in transit and all later writes: neither end gets an
// error.
func (s *stream) sever() {
	s.in.set((*pipe).sever)
	s.out.set((*pipe).sever)
}

// cut returns an error if one of the two hosts is unreachable.
func (s *stream) cut() error {
	if s.host.isCutOff() || s.peer.isCutOff() {
		return os.NewSyscallError("write", syscall.EHOSTUNREACH)
	}
	return nil
}

// show passes a Write to the taps.
func (s *stream) show(data []byte) {
	if len(s.network.tapped()) == 0 {
		return
	}
	s.network.tap(Packet{
		Time: time.Now(), Transport: "tcp", From: s.seen, To: s.remote, Data: slices.Clone(data),
	})
}

// pipe is one direction of a connection: a bounded buffer with a writer at one
// end and a reader at the other.
type pipe struct {
	window int

	mu                          sync.Mutex // guards the fields below
	buffer                      []byte
	underway                    []segment // at the end of the buffer, not arrived yet
	broken, severed             bool
	readerClosed, writerClosed  bool
	readDeadline, writeDeadline time.Time
	wake                        wake
}

// segment is the part of a buffer that has not arrived yet.
type segment struct {
	at     time.Time
	length int
}

// arrivedLocked returns how much of the buffer can be read, and when more can be; more is
// zero if all can be read.
func (p *pipe) arrivedLocked() (n int, more time.Time) {
	for len(p.underway) > 0 && expired(p.underway[0].at) {
		p.underway = p.underway[1:]
	}
	n = len(p.buffer)
	for _, s := range p.underway {
		n -= s.length
	}
	if len(p.underway) > 0 {
		more = p.underway[0].at
	}
	return n, more
}

// departLocked records that the present write arrives after a delay, and not before
// earlier writes.
func (p *pipe) departLocked(length int, delay time.Duration) {
	at := time.Now().Add(delay)
	if last := len(p.underway) - 1; last >= 0 && at.Before(p.underway[last].at) {
		at = p.underway[last].at
	}
	if delay > 0 || len(p.underway) > 0 {
		p.underway = append(p.underway, segment{at: at, length: length})
	}
}

func (p *pipe) read(b []byte) (int, error) {
	for {
		n, changed, deadline, err := p.tryRead(b)
		if changed == nil {
			return n, err
		}
		pause(changed, nil, deadline)
	}
}

// tryRead reads the data that has arrived. If there is none, it returns the channel and
// the deadline to wait for.
func (p *pipe) tryRead(b []byte) (n int, changed <-chan struct{}, deadline time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.readerClosed:
		return 0, nil, deadline, net.ErrClosed
	case expired(p.readDeadline):
		return 0, nil, deadline, os.ErrDeadlineExceeded
	case p.broken:
		return 0, nil, deadline, os.NewSyscallError("read", syscall.ECONNRESET)
	case len(b) == 0:
		return 0, nil, deadline, nil
	case p.severed:
		return 0, p.wake.wait(), p.readDeadline, nil
	}
	arrived, more := p.arrivedLocked()
	switch {
	case arrived > 0:
		n = copy(b, p.buffer[:arrived])
		p.buffer = p.buffer[n:]
		p.wake.all()
		return n, nil, deadline, nil
	case len(p.buffer) == 0 && p.writerClosed:
		return 0, nil, deadline, io.EOF
	}
	return 0, p.wake.wait(), sooner(p.readDeadline, more), nil
}

func (p *pipe) write(b []byte, delay time.Duration) (int, error) {
	written := 0
	for {
		n, changed, deadline, err := p.tryWrite(b[written:], delay)
		written += n
		if err != nil || written == len(b) {
			return written, err
		}
		if changed != nil {
			pause(changed, nil, deadline)
		}
	}
}

// tryWrite writes the data that fits. If none fits, it returns the channel and the deadline
// to wait for.
func (p *pipe) tryWrite(b []byte, delay time.Duration) (n int, changed <-chan struct{}, deadline time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.writerClosed:
		return 0, nil, deadline, net.ErrClosed
	case expired(p.writeDeadline):
		return 0, nil, deadline, os.ErrDeadlineExceeded
	case p.broken:
		return 0, nil, deadline, os.NewSyscallError("write", syscall.ECONNRESET)
	case p.readerClosed && !p.severed:
		return 0, nil, deadline, os.NewSyscallError("write", syscall.EPIPE)
	case len(p.buffer) >= p.window:
		return 0, p.wake.wait(), p.writeDeadline, nil
	}
	n = min(len(b), p.window-len(p.buffer))
	p.buffer = append(p.buffer, b[:n]...)
	p.departLocked(n, delay)
	p.wake.all()
	return n, nil, deadline, nil
}

// set changes the pipe and wakes all waiting goroutines.
func (p *pipe) set(change func(*pipe)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
	p.wake.all()
}

// closeWriter reports whether this was the first call.
func (p *pipe) closeWriter() bool {
	first := false
	p.set(func(p *pipe) { first, p.writerClosed = !p.writerClosed, true })
	return first
}

func (p *pipe) closeReader() {
	p.set(func(p *pipe) { p.readerClosed, p.buffer, p.underway = true, nil, nil })
}

// sever empties the pipe permanently. Later writes only fill its buffer.
func (p *pipe) sever() { p.severed, p.buffer, p.underway = true, nil, nil }

func (p *pipe) reset() {
	p.set(func(p *pipe) { p.broken, p.buffer, p.underway = true, nil, nil })
}
