package test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// The rows D9 to D11: where messages leave, and what they say of it.

// D9: requests over UDP leave by the listening socket, which is what Via says.
func TestRequestsLeaveByTheListeningSocket(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(a, p)
		l.hangUp(p)
		for _, what := range []string{"INVITE", "ACK", "BYE"} {
			m := w.one(stackIP, what)
			require.Equal(t, a.Addr(), m.from, what)
			require.True(t, strings.HasPrefix(m.value(t, "Via"), "SIP/2.0/UDP "+stackIP+":5060;branch=z9hG4bK"), m.value(t, "Via"))
			require.Equal(t, "70", m.value(t, "Max-Forwards"))
		}
		require.Equal(t, "<sip:SoftPhone@"+stackIP+":5060>", w.one(stackIP, "INVITE").value(t, "Contact"))
	})
}

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

// D9: a "tcp" stack sends by TCP, and its Contact and Via say so.
func TestTCPStackSpeaksTCP(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack(stackIP, func(c *dialog.StackConfig) { c.Transport.Protocol = "tcp" })
		p := w.peer(peerIP) // for its texts; it has a UDP socket that nothing may come to
		listener, err := w.net.Host(peerIP).Listen(context.Background(), "tcp", peerIP+":5060")
		require.NoError(t, err)
		d, err := a.NewInvite(context.Background(), uri("bob", peerIP), offer(offerSDP))
		require.NoError(t, err)
		conn, err := listener.Accept()
		require.NoError(t, err)
		s := &stream{Conn: conn, t: t, r: bufio.NewReader(conn)}
		defer func() { _ = s.Close() }()

		invite := s.read()
		require.True(t, strings.HasPrefix(invite.value(t, "Via"), "SIP/2.0/TCP "+stackIP+":5060;branch=z9hG4bK"), invite.value(t, "Via"))
		require.Equal(t, "<sip:SoftPhone@"+stackIP+":5060;transport=tcp>", invite.value(t, "Contact"))
		s.write(p.Response(request(invite.msg), dialogtest.Response{
			Code: 200, ToTag: farTag, Body: answerSDP, Headers: []string{"Contact: <sip:bob@" + peerIP + ":5060;transport=tcp>"},
		}))
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		require.Equal(t, "ACK sip:bob@"+peerIP+":5060;transport=tcp SIP/2.0", s.read().startLine())

		// The callee's side says so as well.
		a.OnIncomingDialog(func(d dialog.IDialog) {
			if err := d.Accept(context.Background()); err != nil {
				t.Error(err)
			}
		})
		text := p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:a@" + stackIP, CallID: "back"})
		s.write(strings.Replace(text, "SIP/2.0/UDP", "SIP/2.0/TCP", 1))
		for _, line := range []string{"SIP/2.0 100 Trying", "SIP/2.0 180 Ringing", "SIP/2.0 200 OK"} {
			m := s.read()
			require.Equal(t, line, m.startLine())
			if response(m.msg).StatusCode > 100 {
				require.Equal(t, "<sip:"+stackIP+":5060;transport=tcp>", strings.Replace(m.value(t, "Contact"), "a@", "", 1))
			}
		}
		ended := began(func() error { return d.Bye(context.Background(), "") })
		for {
			m := s.read()
			if describe(m.msg) == "BYE" {
				s.write(p.Response(request(m.msg), dialogtest.Response{Code: 200}))
				break
			}
		}
		require.NoError(t, <-ended)
		require.Zero(t, w.net.Stats().Sent, "datagrams")
	})
}

// D10: a stack that listens on every address tells each peer the one by which
// it is reached. This takes the operating system's sockets.
func TestContactOfAWildcardListenerIsAnAddress(t *testing.T) {
	far, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = far.Close() }()
	require.NoError(t, far.SetReadDeadline(time.Now().Add(10*time.Second)))
	next := func() (wire, net.Addr) {
		buf := make([]byte, 65535)
		n, from, err := far.ReadFrom(buf)
		require.NoError(t, err)
		msg, err := sip.ParseMessage(buf[:n])
		require.NoError(t, err)
		return wire{msg: msg, raw: string(buf[:n])}, from
	}

	s, err := dialog.NewStack(&dialog.StackConfig{Transport: &dialog.TransportConfig{Protocol: "udp", Address: "0.0.0.0"}})
	require.NoError(t, err)
	require.NoError(t, s.Start(context.Background()))
	defer func() { require.NoError(t, s.Shutdown(context.Background())) }()
	target := sip.Uri{Scheme: "sip", User: "bob", Host: "127.0.0.1", Port: far.LocalAddr().(*net.UDPAddr).Port}
	d, err := s.NewInvite(context.Background(), target, offer(offerSDP))
	require.NoError(t, err)

	invite, from := next()
	own := fmt.Sprintf("127.0.0.1:%d", s.Addr().Port())
	require.Equal(t, own, from.String())
	require.Equal(t, "<sip:SoftPhone@"+own+">", invite.value(t, "Contact"))
	require.Equal(t, "<sip:SoftPhone@127.0.0.1>;tag="+d.Key().LocalTag, invite.value(t, "From"))
	require.True(t, strings.HasPrefix(invite.value(t, "Via"), "SIP/2.0/UDP "+own+";"))
	require.NotContains(t, invite.raw, "0.0.0.0")
	res := sip.NewResponseFromRequest(request(invite.msg), 486, "Busy Here", nil)
	_, err = far.WriteTo([]byte(res.String()), from)
	require.NoError(t, err)
	require.Error(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
	ack, _ := next()
	require.Equal(t, "ACK", describe(ack.msg))
}

// D10: a public address, when one is set, is what peers are told.
func TestPublicAddressIsWhatPeersAreTold(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack(stackIP, func(c *dialog.StackConfig) {
			c.Transport.PublicAddress, c.Transport.PublicPort = "sip.example.com", 7000
		})
		w.calls(a, w.peer(peerIP), offer(offerSDP))
		invite := w.one(stackIP, "INVITE")
		require.Equal(t, "<sip:SoftPhone@sip.example.com:7000>", invite.value(t, "Contact"))
		require.True(t, strings.HasPrefix(invite.value(t, "Via"), "SIP/2.0/UDP sip.example.com:7000;"))
		require.True(t, strings.HasPrefix(invite.value(t, "From"), "<sip:SoftPhone@sip.example.com>;tag="))
	})
}

// D11: every message has Content-Length once, and it is right, also when the
// application adds its own.
func TestContentLengthIsThereOnceAndRight(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack(stackIP), w.stack("10.0.0.2")
		incoming := make(chan *dialog.Dialog, 1)
		b.OnIncomingDialog(func(d dialog.IDialog) {
			err := d.Accept(context.Background(), withSDP(answerSDP), func(res *sip.Response) {
				res.AppendHeader(sip.NewHeader("Content-Length", "3"))
			})
			if err != nil {
				t.Error(err)
			}
			incoming <- d.(*dialog.Dialog)
		})
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		caller := d.(*dialog.Dialog)
		require.NoError(t, caller.WaitAnswer(context.Background()))
		callee := <-incoming
		synctest.Wait()
		require.NoError(t, callee.ReInvite(context.Background(), offer(answerSDP)))
		require.NoError(t, caller.ReInvite(context.Background(), dialog.InviteOpts{}))
		require.NoError(t, caller.Refer(context.Background(), uri("dora", otherIP), dialog.ReferOpts{}))
		r, err := caller.WaitRefer(context.Background())
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, dialog.Progress{Status: 100, Reason: "Trying"}, r.Status())
		require.NoError(t, caller.Bye(context.Background(), "done"))
		ringing, err := a.NewInvite(context.Background(), uri("bob", otherIP), offer(offerSDP))
		require.NoError(t, err)
		require.NoError(t, ringing.Close())

		w.mu.Lock()
		defer w.mu.Unlock()
		kinds := map[string]bool{}
		for _, m := range w.log {
			kinds[describe(m.msg)] = true
			lengths := append(m.values("Content-Length"), m.values("l")...)
			require.Equal(t, []string{strconv.Itoa(len(m.body()))}, lengths, m.raw)
		}
		for _, what := range []string{"INVITE", "100 INVITE", "180 INVITE", "200 INVITE", "ACK", "REFER", "202 REFER", "NOTIFY", "200 NOTIFY", "BYE", "200 BYE"} {
			require.True(t, kinds[what], what)
		}
	})
}
