package test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"
)

// stream is a scripted TCP peer's connection.
type stream struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

// read returns the next message.
func (s *stream) read() wire {
	s.t.Helper()
	var b strings.Builder
	length := 0
	for {
		line, err := s.r.ReadString('\n')
		require.NoError(s.t, err)
		b.WriteString(line)
		if value, ok := strings.CutPrefix(line, "Content-Length:"); ok {
			length, err = strconv.Atoi(strings.TrimSpace(value))
			require.NoError(s.t, err)
		}
		if line == "\r\n" {
			break
		}
	}
	content := make([]byte, length)
	_, err := io.ReadFull(s.r, content)
	require.NoError(s.t, err)
	b.Write(content)
	msg, err := sip.ParseMessage([]byte(b.String()))
	require.NoError(s.t, err)
	return wire{msg: msg, raw: b.String()}
}

func (s *stream) write(text string) {
	s.t.Helper()
	_, err := s.Write([]byte(text))
	require.NoError(s.t, err)
}

// textPeer is a peer that writes and reads bytes: nothing parses them.
type textPeer struct {
	t    *testing.T
	conn net.PacketConn
}

func (w *world) textPeer(ip string) *textPeer {
	w.t.Helper()
	conn, err := w.net.Host(ip).ListenPacket(context.Background(), "udp", ip+":5060")
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = conn.Close() })
	return &textPeer{t: w.t, conn: conn}
}

// write sends one datagram as it is.
func (p *textPeer) write(to netip.AddrPort, data string) {
	p.t.Helper()
	_, err := p.conn.WriteTo([]byte(data), net.UDPAddrFromAddrPort(to))
	require.NoError(p.t, err)
}

// send sends a message of lines, without a body.
func (p *textPeer) send(to netip.AddrPort, lines ...string) {
	p.t.Helper()
	p.write(to, strings.Join(lines, "\r\n")+"\r\n\r\n")
}

// next returns the next message whose first line begins so, skipping others;
// "" when none comes for a minute.
func (p *textPeer) next(start string) string {
	p.t.Helper()
	require.NoError(p.t, p.conn.SetReadDeadline(time.Now().Add(time.Minute)))
	buf := make([]byte, 1<<16)
	for {
		n, _, err := p.conn.ReadFrom(buf)
		if err != nil {
			return ""
		}
		if text := string(buf[:n]); strings.HasPrefix(text, start) {
			return text
		}
	}
}

// fieldsOf returns the field values of that name in a message, as they stand
// there.
func fieldsOf(message, name string) []string {
	head, _, _ := strings.Cut(message, "\r\n\r\n")
	var values []string
	for _, line := range strings.Split(head, "\r\n") {
		if value, found := strings.CutPrefix(line, name+": "); found {
			values = append(values, value)
		}
	}
	return values
}

func fieldOf(t *testing.T, message, name string) string {
	t.Helper()
	values := fieldsOf(message, name)
	require.Len(t, values, 1, "%s in %q", name, message)
	return values[0]
}

// tagIn is the tag of a From or To.
func tagIn(value string) string {
	_, tag, _ := strings.Cut(value, ";tag=")
	tag, _, _ = strings.Cut(tag, ";")
	return tag
}

// rawOptions is a request as it may stand on a stream.
func rawOptions(length int, headers ...string) string {
	return strings.Join(append([]string{
		"OPTIONS sip:b@10.0.0.2 SIP/2.0", "Via: SIP/2.0/TCP 192.0.2.99:5099;branch=z9hG4bK1;received=192.0.2.98", "Max-Forwards: 70",
		"From: <sip:a@a>;tag=1", "To: <sip:b@b>", "Call-ID: raw", "CSeq: 1 OPTIONS", fmt.Sprint("Content-Length: ", length),
	}, headers...), "\r\n") + "\r\n\r\n"
}
