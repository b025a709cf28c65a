package transport

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/gobwas/ws"
)

const (
	// subprotocol is the one that both ends must agree on (RFC 7118 4).
	subprotocol = "sip"
	// maxUpgrade bounds the HTTP header of a WebSocket handshake.
	maxUpgrade = 8 << 10
)

var errNoSubprotocol = errors.New("the server does not accept the subprotocol sip")

// acceptWS is the server's side of the opening handshake (RFC 6455 4.2), for
// any path. A client that does not offer the subprotocol, or that is not admitted,
// is refused before the connection changes its protocol.
func (r *link) acceptWS(admits func(*http.Request) bool) error {
	head, early, err := readUpgrade(r.conn)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrWebSocket, r.raw.RemoteAddr(), err)
	}
	offered := false
	upgrader := ws.Upgrader{
		ReadBufferSize: maxUpgrade, // the longest line
		Protocol: func(name []byte) bool {
			offered = offered || string(name) == subprotocol
			return string(name) == subprotocol
		},
		OnBeforeUpgrade: func() (ws.HandshakeHeader, error) {
			req, err := r.upgradeRequest(head)
			switch {
			case err != nil:
				return nil, reject(http.StatusBadRequest, "malformed request")
			case !admits(req):
				return nil, reject(http.StatusForbidden, "origin not allowed")
			case !offered:
				return nil, reject(http.StatusBadRequest, "subprotocol sip required")
			}
			return nil, nil
		},
	}
	_, err = upgrader.Upgrade(readWriter{bytes.NewReader(head), r.conn})
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrWebSocket, r.raw.RemoteAddr(), err)
	}
	r.conn = withEarly(r.conn, early)
	return nil
}

func reject(status int, reason string) error {
	return ws.RejectConnectionError(ws.RejectionStatus(status), ws.RejectionReason(reason))
}

// requestWS is the client's side (RFC 6455 4.1).
func (r *link) requestWS(d *dial, server WebSocketServer) error {
	dialer := ws.Dialer{Protocols: server.protocols(), Header: ws.HandshakeHeaderHTTP(server.Header)}
	limited := io.LimitReader(r.conn, maxUpgrade)
	place := *server.URL
	place.Host = d.httpHost()
	early, agreed, err := dialer.Upgrade(readWriter{limited, r.conn}, &place)
	if err == nil && agreed.Protocol == "" {
		err = errNoSubprotocol
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrWebSocket, r.raw.RemoteAddr(), err)
	}
	if early != nil { // frames that came with the answer
		b, _ := early.Peek(early.Buffered())
		r.conn = withEarly(r.conn, bytes.Clone(b))
		ws.PutReader(early)
	}
	return nil
}

// httpHost is the Host of the request: the name that was resolved, else the
// address.
func (d *dial) httpHost() string {
	host, port := d.key.serverName, int(d.key.addr.Port())
	if host == "" {
		host = d.key.addr.Addr().WithZone("").String()
	}
	if port != d.kind.port {
		return net.JoinHostPort(host, strconv.Itoa(port))
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is6() {
		return "[" + host + "]"
	}
	return host
}

type readWriter struct {
	io.Reader
	io.Writer
}

// readUpgrade reads an HTTP header. early has the bytes that came after it.
func readUpgrade(conn net.Conn) (head, early []byte, err error) {
	buf := make([]byte, 0, maxUpgrade)
	for {
		n, err := conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if end := bytes.Index(buf, []byte(endBlock)); end >= 0 {
			end += len(endBlock)
			return buf[:end], buf[end:], nil
		}
		if err != nil {
			return nil, nil, err
		}
		if len(buf) == cap(buf) {
			_, _ = io.WriteString(conn, "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			return nil, nil, ws.ErrMalformedRequest
		}
	}
}

// earlyConn first returns the bytes that a handshake has read too many.
type earlyConn struct {
	net.Conn
	early []byte // read loop only
}

func withEarly(conn net.Conn, early []byte) net.Conn {
	if len(early) == 0 {
		return conn
	}
	return &earlyConn{Conn: conn, early: early}
}

func (c *earlyConn) Read(p []byte) (int, error) {
	if len(c.early) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.early)
	if c.early = c.early[n:]; len(c.early) == 0 {
		c.early = nil // the whole header's buffer
	}
	return n, nil
}

// closeWS is our part of the closing handshake (RFC 6455 7.1): a Close frame
// and, when the peer has not sent its own, waiting for that until end.
func (s *stream) closeWS(end time.Time) {
	code := ws.StatusCode(s.code.Load())
	if code == 0 {
		code = ws.StatusGoingAway
	}
	s.setWriteDeadline()
	if _, err := s.conn.Write(wsFrame(ws.OpClose, ws.NewCloseFrameBody(code, ""), s.listener == nil)); err != nil {
		return
	}
	wait := time.NewTimer(time.Until(end))
	defer wait.Stop()
	select {
	case <-s.deaf:
	case <-s.done:
	case <-wait.C:
	}
}

// invalidHost is our sent-by on a WebSocket that we dialled (RFC 7118 5).
func invalidHost() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:]) + ".invalid"
}
