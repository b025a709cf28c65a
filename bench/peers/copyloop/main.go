// Command copyloop answers calls by copying header lines: no transactions, no
// dialogs, one goroutine. It measures the cost of the sockets alone.
package main

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"sipdialog.example/dialog/bench/internal/child"
)

func main() {
	if err := child.Serve(start); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "copyloop:", err)
		os.Exit(1)
	}
}

func start() (string, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return "", err
	}
	_ = conn.SetReadBuffer(child.ReadBuffer)
	l := &loop{conn: conn, contact: "Contact: <sip:" + conn.LocalAddr().String() + ">\r\n"}
	go l.run()
	return conn.LocalAddr().String(), nil
}

type loop struct {
	conn    *net.UDPConn
	contact string
	in, out []byte
}

func (l *loop) run() {
	l.in = make([]byte, 65535)
	for {
		n, from, err := l.conn.ReadFromUDPAddrPort(l.in)
		if err != nil {
			return
		}
		switch request := l.in[:n]; {
		case bytes.HasPrefix(request, []byte("INVITE ")):
			l.answer(request, from, "180 Ringing", ";tag=loop", l.contact, "")
			l.answer(request, from, "200 OK", ";tag=loop", l.contact+"Content-Type: application/sdp\r\n", child.Session)
		case bytes.HasPrefix(request, []byte("BYE ")):
			l.answer(request, from, "200 OK", "", "", "")
		}
	}
}

var repeated = []string{"\r\nVia: ", "\r\nFrom: ", "\r\nTo: ", "\r\nCall-ID: ", "\r\nCSeq: "}

// answer repeats only the first line of each header, since sipp sends one Via.
func (l *loop) answer(request []byte, to netip.AddrPort, status, tag, headers, body string) {
	l.out = append(append(l.out[:0], "SIP/2.0 "...), status...)
	for _, name := range repeated {
		at := bytes.Index(request, []byte(name))
		if at < 0 {
			return
		}
		line := request[at : at+2+bytes.IndexByte(request[at+2:], '\r')]
		l.out = append(l.out, line...)
		if name == "\r\nTo: " {
			l.out = append(l.out, tag...)
		}
	}
	l.out = append(append(l.out, "\r\n"...), headers...)
	l.out = append(l.out, "Content-Length: "...)
	l.out = strconv.AppendInt(l.out, int64(len(body)), 10)
	l.out = append(append(l.out, "\r\n\r\n"...), body...)
	_, _ = l.conn.WriteToUDPAddrPort(l.out, to)
}
