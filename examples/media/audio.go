package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/pion/rtp"

	"sipdialog.example/dialog"
)

// PCMU has 8000 samples a second, each a byte; a packet has those of 20 ms (RFC 3551 4.5.14).
const (
	rate    = 8000
	frame   = 20 * time.Millisecond
	samples = 160
)

// audio is the RTP of one call (RFC 3550).
type audio struct {
	conn *net.UDPConn
	peer netip.AddrPort
	next rtp.Packet
}

// openAudio opens a socket on the interface by which the peer is reached.
func openAudio(peer netip.AddrPort) (*audio, error) {
	local, err := sourceTo(peer.Addr())
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0)))
	if err != nil {
		return nil, err
	}
	first := rtp.NewRandomSequencer()
	return &audio{conn: conn, peer: peer, next: rtp.Packet{Header: rtp.Header{
		Version: 2, Marker: true, SequenceNumber: first.NextSequenceNumber(), SSRC: uint32(time.Now().UnixNano()),
	}}}, nil
}

// sourceTo returns our address as that peer sees it. Nothing is sent.
func sourceTo(peer netip.Addr) (netip.Addr, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(peer, 9)))
	if err != nil {
		return netip.Addr{}, err
	}
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	return local.Unmap(), conn.Close()
}

// session describes this audio: PCMU, both ways.
func (a *audio) session() dialog.Body {
	local := a.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	return dialog.NewBody("application/sdp", fmt.Appendf(nil,
		"v=0\r\no=- 1 1 IN IP4 %[1]s\r\ns=-\r\nc=IN IP4 %[1]s\r\nt=0 0\r\nm=audio %[2]d RTP/AVP 0\r\na=sendrecv\r\n",
		local.Addr().Unmap(), local.Port()))
}

// send sends a packet. Sequence number and time continue from the one before.
func (a *audio) send(payload []byte) error {
	a.next.Payload = payload
	data, err := a.next.Marshal()
	if err != nil {
		return err
	}
	a.next.Marker = false
	a.next.SequenceNumber++
	a.next.Timestamp += uint32(len(payload))
	_, err = a.conn.WriteToUDPAddrPort(data, a.peer)
	return err
}

// receive returns the payload of the next packet of the peer. It fails after close, and
// after ten seconds without one.
func (a *audio) receive() ([]byte, error) {
	buffer := make([]byte, 1500)
	for {
		if err := a.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return nil, err
		}
		n, from, err := a.conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return nil, err
		}
		var p rtp.Packet
		if netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) != a.peer || p.Unmarshal(buffer[:n]) != nil || p.PayloadType != 0 {
			continue // not of this call
		}
		return p.Payload, nil
	}
}

func (a *audio) close() { _ = a.conn.Close() }

// audioOf returns where a session wants its PCMU.
func audioOf(session []byte) (netip.AddrPort, error) {
	var host netip.Addr
	for _, line := range strings.Split(string(session), "\n") {
		words := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "c=IN IP") && len(words) == 3:
			host, _ = netip.ParseAddr(words[2])
		case strings.HasPrefix(line, "m=audio ") && len(words) > 3:
			port, err := strconv.ParseUint(words[1], 10, 16)
			for _, codec := range words[3:] {
				if err == nil && port > 0 && codec == "0" && host.IsValid() {
					return netip.AddrPortFrom(host, uint16(port)), nil
				}
			}
		}
	}
	return netip.AddrPort{}, errors.New("the session has no PCMU")
}

// tone returns samples of a tone of 440 Hz in PCMU, from the sample number first on.
func tone(first, count int) []byte {
	out := make([]byte, count)
	for i := range out {
		out[i] = muLaw(int(8000 * math.Sin(2*math.Pi*440*float64(first+i)/rate)))
	}
	return out
}

// muLaw encodes a sample of 16 bits (ITU-T G.711): sign, the number of the segment, and four
// bits in it, all inverted.
func muLaw(sample int) byte {
	const bias, most = 132, 32635
	sign := 0
	if sample < 0 {
		sign, sample = 0x80, -sample
	}
	sample = min(sample, most) + bias
	segment := 7
	for bit := 0x4000; sample&bit == 0; bit >>= 1 {
		segment--
	}
	return ^byte(sign | segment<<4 | sample>>(segment+3)&0x0f)
}
