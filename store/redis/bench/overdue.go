package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"sipdialog.example/dialog"
	store "sipdialog.example/dialog/store/redis"
)

// measureOverdue fills a server with calls whose sessions are all overdue, as if no process
// had run for a while, and starts one. Their peer answers each refresh.
func measureOverdue(ctx context.Context, r *server, n int) error {
	sample, _, err := sampleSnapshots(ctx)
	if err != nil {
		return err
	}
	p, err := newPeer()
	if err != nil {
		return err
	}
	defer p.close()
	client := r.client()
	defer func() { _ = client.Close() }()
	kept := store.New(client, nil)
	empty := stat(ctx, client, "memory", "used_memory:")
	if err := fill(ctx, kept, sample, p.address(), n); err != nil {
		return err
	}
	fmt.Printf("%d calls, all overdue: a record is %.0f bytes of the server, and a Save %.1f µs of its time\n", n,
		(stat(ctx, client, "memory", "used_memory:")-empty)/float64(n), stat(ctx, client, "commandstats", "cmdstat_evalsha:", "usec_per_call="))
	stack, err := newStack(kept)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := stack.Start(ctx); err != nil {
		return err
	}
	fmt.Printf("%6s %10s %10s %10s %12s\n", "s", "restored", "refreshed", "dialogs", "store errors")
	for second := 1; ; second++ {
		time.Sleep(time.Until(began.Add(time.Duration(second) * time.Second)))
		stats := stack.Stats()
		fmt.Printf("%6d %10d %10d %10d %12d\n", second, stats.TakenOver, p.answered.Load(), stats.Dialogs, stats.StoreErrors)
		if int(p.answered.Load()) >= n && int(stats.TakenOver) >= n && stats.Unwritten == 0 || second == 120 {
			break
		}
	}
	again, err := kept.Due(ctx, time.Now(), "nobody", 10)
	if err != nil {
		return err
	}
	fmt.Printf("%d calls are due afterwards\n", len(again))
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_ = stack.Shutdown(ended) // the calls stay in the server, which ends too
	return nil
}

// fill saves calls whose refresh was ours, and is late, each with a peer at that address.
func fill(ctx context.Context, kept *store.Store, s *dialog.Snapshot, peer netip.AddrPort, n int) error {
	now := time.Now()
	s.RemoteTarget, s.FlowRemote, s.RouteSet = "sip:peer@"+peer.String(), peer, nil
	s.PeerUpdates, s.TimerInterval, s.TimerOurs = true, 1800, true
	s.TimerEnds, s.Established = now.Add(5*time.Minute).UnixMilli(), now.Add(-25*time.Minute).UnixMilli()
	s.Fence = 1
	for i := range n {
		rename(s, i)
		text, err := json.Marshal(s)
		if err != nil {
			return err
		}
		err = kept.Save(ctx, dialog.Record{
			Key: dialog.NewStoreKey(s.CallID, s.LocalTag), Fence: 1, Owner: "gone", Data: text,
			Due: now.Add(-time.Minute), Expires: now.Add(time.Hour),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// stat reads a number of INFO: what follows after all names, one behind the other.
func stat(ctx context.Context, client *redis.Client, section string, names ...string) float64 {
	text := client.Info(ctx, section).Val()
	for _, name := range names {
		_, text, _ = strings.Cut(text, name)
	}
	end := strings.IndexFunc(text, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	value, err := strconv.ParseFloat(text[:max(end, 0)], 64)
	if err != nil {
		return math.NaN()
	}
	return value
}

// peer answers every request 200.
type peer struct {
	conn     *net.UDPConn
	answered atomic.Int64
	done     chan struct{}
}

func newPeer() (*peer, error) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	_ = conn.SetReadBuffer(8 << 20)
	p := &peer{conn: conn, done: make(chan struct{})}
	go p.answer()
	return p, nil
}

func (p *peer) address() netip.AddrPort { return p.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

func (p *peer) close() {
	_ = p.conn.Close()
	<-p.done
}

func (p *peer) answer() {
	defer close(p.done)
	buffer := make([]byte, 65536)
	seen := make(map[string]bool)
	for {
		n, from, err := p.conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return
		}
		request := string(buffer[:n])
		if method, _, _ := strings.Cut(request, " "); method != "UPDATE" && method != "OPTIONS" && method != "BYE" {
			continue
		}
		var answer bytes.Buffer
		answer.WriteString("SIP/2.0 200 OK\r\n")
		for _, line := range strings.Split(request, "\r\n") {
			switch name, value, _ := strings.Cut(line, ":"); strings.ToLower(name) {
			case "call-id":
				if !seen[value] && strings.HasPrefix(request, "UPDATE") {
					seen[value] = true
					p.answered.Add(1)
				}
				fallthrough
			case "via", "from", "to", "cseq", "session-expires":
				answer.WriteString(line + "\r\n")
			}
		}
		fmt.Fprintf(&answer, "Contact: <sip:peer@%s>\r\nContent-Length: 0\r\n\r\n", p.address())
		_, _ = p.conn.WriteToUDPAddrPort(answer.Bytes(), from)
	}
}
