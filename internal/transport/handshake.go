package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

var errPanicked = errors.New("a function of the configuration panicked")

// link is a connection that is set up.
type link struct {
	raw  net.Conn  // the socket
	tls  *tls.Conn // over raw; nil: plain
	conn net.Conn  // for reading and writing
}

// serverSide does the handshakes of an accepted connection. It blocks no longer
// than Limits.HandshakeTimeout, and ends with the layer.
func (l *Layer) serverSide(k kind, raw net.Conn, config ListenConfig) (ready link, err error) {
	ready = link{raw: raw, conn: raw}
	ctx, cancel := l.within(l.limits.HandshakeTimeout)
	defer cancel()
	err = l.during(l.ctx, raw, l.limits.HandshakeTimeout, func() error {
		if k.secure {
			if err := ready.secure(tls.Server(raw, config.TLS)); err != nil {
				return err
			}
		}
		if k.frames {
			return ready.acceptWS(func(r *http.Request) bool { return config.admits(ctx, r) })
		}
		return nil
	})
	return ready, err
}

// clientSide does the handshakes of a connection we dialled. It blocks no
// longer than Limits.HandshakeTimeout, and ends with the dial.
func (l *Layer) clientSide(d *dial, raw net.Conn) (ready link, err error) {
	ready = link{raw: raw, conn: raw}
	err = l.during(d.ctx, raw, l.limits.HandshakeTimeout, func() error {
		if d.kind.secure {
			if err := ready.secure(tls.Client(raw, l.clientTLS(d.kind, d.key.serverName))); err != nil {
				return err
			}
		}
		if d.kind.frames {
			return ready.requestWS(d, l.webSocketServer(d))
		}
		return nil
	})
	return ready, err
}

// clientTLS is the configuration for a server that must be name.
func (l *Layer) clientTLS(k kind, name string) *tls.Config {
	config := &tls.Config{}
	if l.cfg.TLS != nil {
		config = l.cfg.TLS.Clone()
	}
	config.ServerName = name
	return withHTTP(k, config)
}

// withHTTP has WebSockets agree on HTTP/1.1, which the upgrade needs.
func withHTTP(k kind, config *tls.Config) *tls.Config {
	if !k.frames {
		return config
	}
	config = config.Clone()
	config.NextProtos = []string{"http/1.1"}
	return config
}

func (r *link) secure(conn *tls.Conn) error {
	if err := conn.Handshake(); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrTLS, r.raw.RemoteAddr(), err)
	}
	r.tls, r.conn = conn, conn
	return nil
}

// during runs f, which reads and writes conn, for at most limit and until ctx
// ends.
func (l *Layer) during(ctx context.Context, conn net.Conn, limit time.Duration, f func() error) error {
	_ = conn.SetDeadline(deadline(time.Now(), limit))
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		_ = conn.SetDeadline(time.Unix(1, 0)) // long ago: reads and writes of f end now
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
