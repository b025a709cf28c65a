package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"sipdialog.example/dialog/bench/internal/child"
)

// flood is one kind of attack. run sends until ctx ends; bound is the memory that the
// flooded process may hold meanwhile.
type flood struct {
	name  string
	bound uint64
	run   func(ctx context.Context, v *victim) error
}

func floods() []flood {
	const both = forTransactions + forAllElse
	const sdp = "Content-Type: application/sdp\r\n"
	return []flood{
		{"INVITEs without ACK", both, datagrams(1000, func(n string) request {
			return request{method: "INVITE", callID: n, headers: sdp, body: child.Session}
		})},
		{"BYEs of no call", forAllElse, datagrams(4000, func(n string) request {
			return request{method: "BYE", callID: n, toTag: ";tag=none"}
		})},
		{"OPTIONS with Call-IDs of 31 KB", both, datagrams(2000, func(n string) request {
			return request{method: "OPTIONS", callID: n + strings.Repeat("c", 31000)}
		})},
		{"silent connections", forAllElse, streams(3000, func(string) string { return "" })},
		{"half header blocks", forAllElse, streams(1000, func(n string) string {
			return request{method: "INVITE", callID: n, headers: "X: " + strings.Repeat("x", 31000)}.over("TCP", nowhere, n)
		})},
		{"half bodies", forAllElse, streams(200, func(n string) string {
			whole := request{method: "INVITE", callID: n, headers: sdp, body: strings.Repeat("x", mebibyte)}
			return strings.TrimSuffix(whole.over("TCP", nowhere, n), "x")
		})},
		{"INVITEs with 149,000 parts", both, conversations(4, func(n string) request {
			return request{
				method: "INVITE", callID: n, headers: "Content-Type: multipart/mixed; boundary=b\r\n",
				body: strings.Repeat("--b\r\n\r\n", 149000) + "--b\r\n" + sdp + "\r\n" + child.Session + "\r\n--b--\r\n",
			}
		})},
		{"INVITEs with 1 MiB of SDP", both, conversations(4, func(n string) request {
			return request{method: "INVITE", callID: n, headers: sdp, body: child.Session + strings.Repeat("a=x\r\n", 200000)}
		})},
		{"responses again and again", forAllElse, responses(2000)},
	}
}

// nowhere is the sent-by address of the senders on streams. Responses still go back on the
// stream.
const nowhere = "127.0.0.1:9"

// request is a request that is new to the flooded process.
type request struct{ method, callID, toTag, headers, body string }

// over returns the text of the request, from an address, with a branch.
func (r request) over(transport, from, branch string) string {
	return fmt.Sprintf("%s sip:b@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/%s %s;branch=z9hG4bK%s\r\nMax-Forwards: 70\r\n"+
		"From: <sip:a@127.0.0.1>;tag=a\r\nTo: <sip:b@127.0.0.1>%s\r\nCall-ID: %s\r\nCSeq: 1 %s\r\nContact: <sip:a@%s>\r\n"+
		"Content-Length: %d\r\n%s\r\n%s", r.method, transport, from, branch, r.toTag, r.callID, r.method, from, len(r.body), r.headers, r.body)
}

// paced calls send rate times a second.
func paced(ctx context.Context, rate int, send func(n int)) {
	for n, start := 0, time.Now(); ctx.Err() == nil; time.Sleep(2 * time.Millisecond) {
		for due := int(time.Since(start).Seconds() * float64(rate)); n < due && ctx.Err() == nil; n++ {
			send(n)
		}
	}
}

// sources is the number of source addresses of the datagrams.
const sources = 100

// datagrams sends requests over UDP, from many addresses, and reads no response.
func datagrams(rate int, make func(n string) request) func(context.Context, *victim) error {
	return func(ctx context.Context, v *victim) error {
		var conns []net.Conn
		for i := range sources {
			from := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 1, byte(i+1))}}
			conn, err := from.DialContext(ctx, "udp", v.udp())
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			conns = append(conns, conn)
		}
		paced(ctx, rate, func(i int) {
			conn, n := conns[i%sources], fmt.Sprint("flood", i)
			_, _ = conn.Write([]byte(make(n).over("UDP", conn.LocalAddr().String(), n)))
		})
		return nil
	}
}

// streams keeps count connections open and sends a part of a message on each. It reopens
// a connection that is closed.
func streams(count int, part func(n string) string) func(context.Context, *victim) error {
	return each(count, func(ctx context.Context, conn net.Conn, n string) {
		_, _ = conn.Write([]byte(part(n)))
		_, _ = conn.Read(make([]byte, 1)) // until either end closes it
	})
}

// conversations sends requests on count connections, each request after the response to
// the one before.
func conversations(count int, make func(n string) request) func(context.Context, *victim) error {
	return each(count, func(ctx context.Context, conn net.Conn, n string) {
		_, _ = conn.Write([]byte(make(n).over("TCP", nowhere, n)))
		_, _ = conn.Read([]byte{0})
	})
}

// again is the wait before an attacker opens another connection.
const again = 50 * time.Millisecond

// each lets count attackers connect over TCP, again and again.
func each(count int, do func(ctx context.Context, conn net.Conn, n string)) func(context.Context, *victim) error {
	return func(ctx context.Context, v *victim) error {
		var all sync.WaitGroup
		for i := range count {
			all.Go(func() {
				for round := 0; ctx.Err() == nil; round++ {
					conn, err := new(net.Dialer).DialContext(ctx, "tcp", v.tcp())
					if err == nil {
						stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
						do(ctx, conn, fmt.Sprintf("%d-%d", i, round))
						stop()
						_ = conn.Close()
					}
					time.Sleep(again)
				}
			})
		}
		all.Wait()
		return nil
	}
}

// responses lets the flooded process place a call, and repeats responses to it: first 180s
// of many forks, then one 200. The ACKs go to a peer that does not read.
func responses(rate int) func(context.Context, *victim) error {
	return func(ctx context.Context, v *victim) error {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		deaf, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer func() { _ = deaf.Close() }()
		if err := v.places(conn.LocalAddr().String()); err != nil {
			return err
		}
		invite := make([]byte, 64<<10)
		length, from, err := conn.ReadFrom(invite)
		if err != nil {
			return err
		}
		paced(ctx, rate, func(n int) {
			status, tag := "180 Ringing", fmt.Sprint("fork", n%100)
			if n > rate {
				status, tag = "200 OK", "answers"
			}
			_, _ = conn.WriteTo(response(invite[:length], status, tag, deaf.Addr().String()), from)
		})
		return nil
	}
}

// response returns a response to an INVITE, with a session.
func response(invite []byte, status, tag, contact string) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "SIP/2.0 %s\r\n", status)
	head, _, _ := strings.Cut(string(invite), "\r\n\r\n")
	for _, line := range strings.Split(head, "\r\n") {
		switch name, _, _ := strings.Cut(line, ":"); name {
		case "To":
			fmt.Fprintf(&out, "%s;tag=%s\r\n", line, tag)
		case "Via", "From", "Call-ID", "CSeq":
			fmt.Fprintf(&out, "%s\r\n", line)
		}
	}
	fmt.Fprintf(&out, "Contact: <sip:b@%s;transport=tcp>\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s",
		contact, len(child.Session), child.Session)
	return out.Bytes()
}
