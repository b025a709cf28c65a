package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

// streamKey is the key that connections are found by. serverName is the name
// that the peer has proved, or empty: a connection verified for one
// name must not be used for another (RFC 3261 26.3.1).
type streamKey struct {
	transport  string
	addr       netip.AddrPort
	serverName string
}

// isLiteral reports whether no name was asked for but the address.
func (k streamKey) isLiteral() bool { return k.serverName == k.addr.Addr().WithZone("").String() }

// errDialTimeout is the error of a dial that took longer than Limits.DialTimeout.
var errDialTimeout = errors.New("connection not established in time")

// dial is one connection being set up, shared by all who ask for its target.
type dial struct {
	// Set at construction.
	key    streamKey
	kind   kind
	began  time.Time
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{} // closed after stream and err are set

	stream *stream
	err    error

	waiters int // guarded by Layer.mu
}

// Connect returns a flow to t. UDP takes a listening socket of ours of that
// address family and does not block; a stream is a live connection to that
// address, dialled or accepted, else a new one: it blocks until that is set
// up, ctx ends or Limits.DialTimeout passes. Callers who ask for one address at
// once share one dial; those who ask soon after it has failed (Limits.DialPause) get
// its error at once. Errors: ErrNoListener, ErrTooManyConnections,
// ErrUnsupportedTransport, ErrBadTarget, ErrClosed, ctx's, and that of the dial.
func (l *Layer) Connect(ctx context.Context, t Target) (*Flow, error) {
	k, err := kindOf(t.Transport)
	if err != nil {
		return nil, err
	}
	addr := unmap(t.Addr)
	if !addr.IsValid() || addr.Addr().IsUnspecified() || addr.Port() == 0 {
		return nil, fmt.Errorf("%w: %s", ErrBadTarget, t.Addr)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !k.stream {
		return l.packetFlow(addr)
	}
	return l.streamFlow(ctx, k, streamKey{transport: k.name, addr: addr, serverName: serverName(k, t)})
}

// Ready returns a flow to uri if that takes neither a look-up nor a dial: to a
// literal address over UDP, or by a connection that lives. It does not block.
func (l *Layer) Ready(uri sip.Uri) (*Flow, bool) {
	q, err := l.questionFor(uri)
	if err != nil {
		return nil, false
	}
	target, ok := q.literal()
	if !ok {
		return nil, false
	}
	return l.ReadyTarget(target)
}

// ReadyTarget is Ready for a resolved target.
func (l *Layer) ReadyTarget(t Target) (*Flow, bool) {
	k, err := kindOf(t.Transport)
	if err != nil {
		return nil, false
	}
	addr := unmap(t.Addr)
	if !k.stream {
		flow, err := l.packetFlow(addr)
		return flow, err == nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	live := l.liveLocked(k, streamKey{transport: k.name, addr: addr, serverName: serverName(k, t)})
	if live == nil {
		return nil, false
	}
	return live.flow, true
}

// serverName is the name that the certificate of t must have: the one that was
// resolved, else the literal address. A WebSocket asks for its host, without a
// proof.
func serverName(k kind, t Target) string {
	switch {
	case !k.shakes():
		return ""
	case t.ServerName != "":
		return strings.ToLower(strings.TrimSuffix(t.ServerName, "."))
	case k.secure:
		return unmap(t.Addr).Addr().WithZone("").String()
	}
	return ""
}

// packetFlow chooses the socket that fits the peer best; of equals the first.
func (l *Layer) packetFlow(peer netip.AddrPort) (*Flow, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	var best *packetSocket
	for _, s := range l.packets {
		fit := s.fitness(peer.Addr())
		if fit > 0 && (best == nil || fit > best.fitness(peer.Addr())) {
			best = s
		}
	}
	if best == nil {
		return nil, fmt.Errorf("%w: UDP %s", ErrNoListener, peer)
	}
	return &Flow{layer: l, socket: best, remote: peer}, nil
}

func (l *Layer) streamFlow(ctx context.Context, k kind, key streamKey) (*Flow, error) {
	live, d, err := l.joinDial(k, key)
	if err != nil {
		return nil, err
	}
	if live != nil {
		return live.flow, nil
	}
	select {
	case <-d.done:
	case <-ctx.Done():
		l.leaveDial(d)
		return nil, doing(fmt.Sprint("dial ", key.transport, " ", key.addr), ctx.Err())
	}
	if d.err != nil {
		return nil, d.err
	}
	return d.stream.flow, nil
}

// joinDial returns a live connection, or the dial to wait for; it starts one
// when there is none.
func (l *Layer) joinDial(k kind, key streamKey) (*stream, *dial, error) {
	l.mu.Lock()
	if live := l.liveLocked(k, key); live != nil {
		l.mu.Unlock()
		return live, nil, nil
	}
	if d := l.dials[key]; d != nil {
		d.waiters++
		l.mu.Unlock()
		return nil, d, nil
	}
	now := time.Now()
	err := l.failures.get(key, now)
	if err == nil {
		err = l.dialLocked()
	}
	if err != nil {
		l.mu.Unlock()
		return nil, nil, err
	}
	d := &dial{key: key, kind: k, began: now, done: make(chan struct{}), waiters: 1}
	d.ctx, d.cancel = l.within(l.limits.DialTimeout)
	l.dials[key] = d
	l.mu.Unlock()

	if !l.tasks.Go(func() { l.run(d) }) {
		l.leaveDialled()
		l.finishDial(d, nil, ErrClosed)
	}
	return nil, d, nil
}

// liveLocked is a connection that leads to key. One that its peer has opened has
// proved no name; but who asks for an address and the port that it comes from asks
// for it (RFC 5626 5.3), unless that is where servers listen: their certificate is
// not to be got round.
func (l *Layer) liveLocked(k kind, key streamKey) *stream {
	if live := usable(l.streams[key]); live != nil {
		return live
	}
	if !key.isLiteral() || key.addr.Port() == uint16(k.port) {
		return nil
	}
	return usable(l.streams[streamKey{transport: key.transport, addr: key.addr}])
}

// usable is the youngest connection that takes messages, but for one that may be dead
// and can be replaced.
func usable(streams []*stream) *stream {
	for i := len(streams) - 1; i >= 0; i-- {
		if s := streams[i]; s.failure() == nil && !(s.isSuspect() && s.listener == nil) {
			return streams[i]
		}
	}
	return nil
}

// within is a context that ends with the layer, and after limit unless that is
// negative.
func (l *Layer) within(limit time.Duration) (context.Context, context.CancelFunc) {
	if limit < 0 {
		return context.WithCancel(l.ctx)
	}
	return context.WithTimeout(l.ctx, limit)
}

// leaveDial cancels a dial without waiters. It is forgotten at once, so that the next
// request does not join a dial that is being cancelled.
func (l *Layer) leaveDial(d *dial) {
	l.mu.Lock()
	d.waiters--
	last := d.waiters == 0
	if last && l.dials[d.key] == d {
		delete(l.dials, d.key)
	}
	l.mu.Unlock()
	if last {
		d.cancel()
	}
}

func (l *Layer) run(d *dial) {
	ready, err := l.dialLink(d)
	if err != nil {
		l.leaveDialled()
		l.finishDial(d, nil, l.dialFailed(d, err))
		return
	}
	l.failures.drop(d.key)
	s, err := l.addStream(d.kind, ready, d.key, nil)
	l.finishDial(d, s, err)
}

// dialFailed names the error of a dial, and remembers it for the destination, unless
// the dial was given up, or the network has changed since it began.
func (l *Layer) dialFailed(d *dial, err error) error {
	switch {
	case l.ctx.Err() != nil:
		err = ErrClosed
	case d.ctx.Err() != nil: // not that of a caller, who may wait longer
		err = errDialTimeout
	}
	err = doing(fmt.Sprint("dial ", d.key.transport, " ", d.key.addr), err)
	l.mu.Lock()
	defer l.mu.Unlock()
	if pause := l.limits.DialPause; pause >= 0 && l.dials[d.key] == d {
		l.failures.put(d.key, err, d.began, time.Now(), pause)
	}
	return err
}

// forgetDials forgets the dials in progress: later requests share neither them nor their
// connections.
func (l *Layer) forgetDials() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.dials)
	l.failures.forget()
}

// dialLink connects and does the handshakes.
func (l *Layer) dialLink(d *dial) (link, error) {
	conn, err := l.connect(d)
	if err != nil || !d.kind.shakes() {
		return link{raw: conn, conn: conn}, err
	}
	ready, err := l.clientSide(d, conn)
	if err != nil {
		l.counters.handshakesFailed.Add(1)
		_ = conn.Close()
	}
	return ready, err
}

// connect leaves from an address that we listen on, where it can: peers that know us
// by our address know us so.
func (l *Layer) connect(d *dial) (net.Conn, error) {
	address := d.key.addr.String()
	if n, ok := l.network.(DialFromer); ok {
		if own := l.leaveFrom(d.kind, d.key.addr); own.IsValid() {
			return n.DialFrom(d.ctx, d.kind.network, own.String(), address)
		}
	}
	return l.network.DialContext(d.ctx, d.kind.network, address)
}

func (l *Layer) finishDial(d *dial, s *stream, err error) {
	d.cancel()
	d.stream, d.err = s, err
	l.mu.Lock()
	if l.dials[d.key] == d {
		delete(l.dials, d.key)
	}
	l.mu.Unlock()
	close(d.done)
}
