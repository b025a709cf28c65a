package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

var errPanicked = errors.New("transport: a function of the configuration panicked")

// link is a connection that is set up: the socket, and what messages are read
// from and written to.
type link struct {
	raw  net.Conn
	conn net.Conn
}

// addHandshake reserves a place for one more handshake of a client.
func (l *Layer) addHandshake() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.handshakes >= l.limits.Handshakes {
		return false
	}
	l.handshakes++
	return true
}

func (l *Layer) endHandshake() {
	l.mu.Lock()
	l.handshakes--
	l.mu.Unlock()
}

// serverSide does the handshakes of an accepted connection. It blocks no longer
// than Limits.HandshakeTimeout, and ends with the layer.
func (l *Layer) serverSide(k kind, raw net.Conn, config *tls.Config) (ready link, err error) {
	ready = link{raw: raw, conn: raw}
	err = l.during(l.ctx, raw, l.limits.HandshakeTimeout, func() error {
		return ready.secure(tls.Server(raw, config))
	})
	return ready, err
}

// clientSide does the handshakes of a connection we dialled. It blocks no
// longer than Limits.HandshakeTimeout, and ends with the dial.
func (l *Layer) clientSide(d *dial, raw net.Conn) (ready link, err error) {
	ready = link{raw: raw, conn: raw}
	err = l.during(d.ctx, raw, l.limits.HandshakeTimeout, func() error {
		return ready.secure(tls.Client(raw, l.clientTLS(d.key.serverName)))
	})
	return ready, err
}

// clientTLS is the configuration for a server that must be name.
func (l *Layer) clientTLS(name string) *tls.Config {
	config := &tls.Config{}
	if l.cfg.TLS != nil {
		config = l.cfg.TLS.Clone()
	}
	config.ServerName = name
	return config
}

func (r *link) secure(conn *tls.Conn) error {
	if err := conn.Handshake(); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrTLS, r.raw.RemoteAddr(), err)
	}
	r.conn = conn
	return nil
}

// during runs f, which reads and writes conn, for at most limit and until ctx
// ends.
func (l *Layer) during(ctx context.Context, conn net.Conn, limit time.Duration, f func() error) error {
	_ = conn.SetDeadline(deadline(time.Now(), limit))
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		_ = conn.SetDeadline(time.Unix(1, 0)) // long ago: what f does ends now
	})
	err := l.guarded(f)
	if !stop() {
		<-ended
		return ctx.Err()
	}
	_ = conn.SetDeadline(time.Time{})
	return err
}

// guarded turns a panic, such as of a tls.Config's functions, into an error.
func (l *Layer) guarded(f func() error) (err error) {
	err = errPanicked
	defer l.survive("handshake")
	return f()
}
