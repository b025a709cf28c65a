package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// maxDatagram is the size of one read; no UDP payload is longer.
const maxDatagram = 65535

// receiveBuffer is asked of the kernel (which may give less), so that a burst
// survives while the one read loop is busy.
const receiveBuffer = 4 << 20

// packetSocket is one UDP socket of ours.
type packetSocket struct {
	// Set at construction.
	layer *Layer
	kind  kind
	conn  net.PacketConn
	udp   *net.UDPConn // conn, when it is the operating system's: no allocation per address
	local netip.AddrPort
	// config is the argument of Listen.
	config ListenConfig
	number uint32 // in Layer.packets

	// closed is set when the read loop ends; synchronised by itself.
	closed atomic.Bool
}

func (l *Layer) listenPacket(ctx context.Context, k kind, lc ListenConfig) (netip.AddrPort, error) {
	conn, err := l.network.ListenPacket(ctx, k.network, lc.Address)
	if err != nil {
		return netip.AddrPort{}, doing(fmt.Sprint("listen ", k.name, " ", lc.Address), err)
	}
	s := &packetSocket{layer: l, kind: k, conn: conn, local: addrPort(conn.LocalAddr()), config: lc}
	if udp, ok := conn.(*net.UDPConn); ok {
		s.udp = udp
		if err := udp.SetReadBuffer(receiveBuffer); err != nil {
			// A smaller one serves as well.
			l.log.Debug("transport: receive buffer not set", "local", s.local, "bytes", receiveBuffer, "error", err)
		}
	}
	if !l.addPacket(s) {
		_ = conn.Close()
		return netip.AddrPort{}, ErrClosed
	}
	if !l.tasks.Go(s.readLoop) {
		_ = conn.Close()
		return netip.AddrPort{}, ErrClosed
	}
	return s.local, nil
}

func (l *Layer) addPacket(s *packetSocket) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	s.number = uint32(len(l.packets))
	l.packets, l.kinds = append(l.packets, s), nil
	l.bound = append(l.bound, bound{s.kind, s.local, s.config})
	return true
}

// readLoop ends when the socket is closed. Other errors do not end it; a pause
// keeps a broken socket from spinning.
func (s *packetSocket) readLoop() {
	defer s.closed.Store(true)
	in := s.layer.newInbound()
	buf := make([]byte, maxDatagram)
	var peers recent
	var wait time.Duration
	for {
		n, from, err := s.read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			wait = nextPause(wait)
			s.layer.counters.readErrors.Add(1)
			s.layer.warn(s.layer.warnings.read, "read failed", "local", s.local, "error", err)
			if !s.layer.pause(wait) {
				return
			}
			continue
		}
		wait = 0
		flow := peers.flow(s, from)
		if !from.IsValid() {
			in.drop(flow, "no source address")
			continue
		}
		in.datagram(buf[:n], flow)
	}
}

func (s *packetSocket) read(buf []byte) (int, netip.AddrPort, error) {
	if s.udp != nil {
		n, from, err := s.udp.ReadFromUDPAddrPort(buf)
		return n, unmap(from), err
	}
	n, from, err := s.conn.ReadFrom(buf)
	if err != nil {
		return n, netip.AddrPort{}, err
	}
	return n, addrPort(from), nil
}

// write sends one datagram at once. It is traced before, since the answer can
// be here before the write returns.
func (s *packetSocket) write(f *Flow, data []byte) error {
	s.layer.trace(true, f, data)
	if err := s.writeTo(data, f); err != nil {
		s.layer.counters.writeErrors.Add(1)
		if errors.Is(err, net.ErrClosed) {
			return ErrClosed
		}
		return doing(fmt.Sprint("send to ", f.remote), err)
	}
	s.layer.counters.messagesOut.Add(1)
	return nil
}

func (s *packetSocket) writeTo(data []byte, f *Flow) error {
	if s.udp != nil {
		_, err := s.udp.WriteToUDPAddrPort(data, f.remote)
		return err
	}
	peer := f.peer
	if peer == nil {
		peer = net.UDPAddrFromAddrPort(f.remote)
	}
	_, err := s.conn.WriteTo(data, peer)
	return err
}

// recent are the flows of the peers that a read loop heard last. A proxy sends most
// of what a server gets.
type recent struct {
	flows [16]*Flow
	next  int
}

func (r *recent) flow(s *packetSocket, peer netip.AddrPort) *Flow {
	for _, f := range r.flows {
		if f != nil && f.remote == peer {
			return f
		}
	}
	f := &Flow{layer: s.layer, socket: s, remote: peer}
	if s.udp == nil {
		f.peer = net.UDPAddrFromAddrPort(peer)
	}
	r.flows[r.next] = f
	r.next = (r.next + 1) % len(r.flows)
	return f
}

func (s *packetSocket) failure() error {
	if s.closed.Load() {
		return ErrClosed
	}
	return nil
}

// fitness says how well the socket serves peer: 0 not at all.
func (s *packetSocket) fitness(peer netip.Addr) int {
	own := s.local.Addr()
	switch {
	case own == netip.IPv6Unspecified() && peer.Is4():
		return 1 // dual-stack
	case own.Is4() != peer.Is4():
		return 0
	case !own.IsUnspecified() && own.IsLoopback() != peer.IsLoopback():
		return 1 // the kernel may refuse it; better than none
	}
	return 2
}
