// Package stress tries everything at once, at random, on stacks over every transport. The
// stress test of the root runs it.
package stress

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/tasks"
	"sipdialog.example/dialog/internal/testcert"
	"sipdialog.example/dialog/internal/testkit"
)

// The hosts of a round.
const (
	udpOne   = "10.0.0.1"
	udpTwo   = "10.0.0.2"
	tcpOne   = "10.0.0.3"
	tcpTwo   = "10.0.0.4"
	wsOne    = "10.0.0.6"
	wsTwo    = "10.0.0.7"
	tlsOne   = "10.0.0.10"
	tlsTwo   = "10.0.0.11"
	wssOne   = "fd00::11"
	wssTwo   = "fd00::12"
	lostIP   = "10.0.0.5" // loses its sockets on the way
	chaosIP  = "10.0.0.9"
	ghostIP  = "10.0.0.66" // repeats and forges what others sent
	nobodyIP = "10.0.0.200"

	strangerIP   = "10.0.0.77" // connects, and says nothing good
	strangerIPv6 = "fd00::77"
)

// hostsOf are the hosts whose stacks have a transport, and can call each other.
func hostsOf(transport string) []string {
	switch transport {
	case "tcp":
		return []string{tcpOne, tcpTwo, bridgeTCP}
	case "tls":
		return []string{tlsOne, tlsTwo}
	case "ws":
		return []string{wsOne, wsTwo}
	case "wss":
		return []string{wssOne, wssTwo}
	}
	return []string{udpOne, udpTwo, lostIP, bridgeUDP}
}

// streamHosts are those whose stacks have connections.
func streamHosts() []string {
	var list []string
	for _, transport := range testkit.AllTransports()[1:] {
		list = append(list, hostsOf(transport)...)
	}
	return list
}

// roundsEnough is how many rounds try everything, as good as surely.
const roundsEnough = 30

// The ways for a round to end.
const (
	inPeace = iota
	byShutdown
	inHaste
)

// Run runs rounds until the time is over, and each thing that is expected has occurred:
// on stacks of every transport, two of them with IPv6, one of each behind a router, and against a
// scripted peer, goroutines and callbacks call every method at random while messages,
// timers and faults come as they may. Then it reads from the sockets and the callbacks
// whether anything went wrong. The seed decides what is tried, not how the goroutines
// interleave; 0 takes one at random.
func Run(t *testing.T, seed uint64, duration time.Duration) {
	t.Helper()
	if seed == 0 {
		seed = rand.Uint64N(1 << 40)
	}
	fmt.Printf("stress: -stress.seed=%d -stress.duration=%v\n", seed, duration)

	cover := newCoverage(expectedWire(), expectedTimers(), expectedFaults(), expectedCallbacks(), expectedErrors(), expectedScript(), expectedTakeovers(), expectedBridges())
	for _, op := range operations() {
		cover.knows(op.name)
	}
	require.Empty(t, cover.unknown, "methods that operations does not call")
	ca := testcert.New(t)
	began := time.Now()
	rounds := 0
	for !t.Failed() {
		stressRound(t, cover, ca, seed+uint64(rounds), rounds%3)
		rounds++
		spent := time.Since(began)
		// A busy machine gets more time to try everything at least once.
		if spent > duration && (len(cover.missing()) == 0 || rounds > roundsEnough && spent > duration+90*time.Second) {
			break
		}
	}
	t.Logf("%d rounds in %v\n%s", rounds, time.Since(began), cover)
	if !t.Failed() {
		require.Empty(t, cover.missing(), "did not occur")
	}
}

// stressRound is one round. A round that hangs, on a mutex for example, which
// a fake clock cannot tell from work, is ended by a real one.
func stressRound(t *testing.T, cover *coverage, ca *testcert.Authority, seed uint64, end int) {
	hang := time.AfterFunc(3*time.Minute, func() {
		panic(fmt.Sprintf("stress: a round hangs: -stress.seed=%d", seed))
	})
	defer hang.Stop()
	t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { newRound(t, cover, ca, seed, end).run() })
	})
}

// round is a small world that lives for some minutes of its own clock.
type round struct {
	// Set at construction.

	t         *testing.T
	seed      uint64
	end       int // which of the three ways to end
	cover     *coverage
	ca        *testcert.Authority // of the certificates
	dice      *dice
	net       *dialogtest.Network
	nodes     []*node
	phones    []*phoneNode
	chaos     *chaos
	ops       []operation
	newInvite operation
	reInvite  operation
	shutdown  operation

	archive archive
	ending  atomic.Bool
	work    tasks.Group // callbacks, which run at any time, add to it
	told    sync.Map    // kinds of failures
}

func newRound(t *testing.T, cover *coverage, ca *testcert.Authority, seed uint64, end int) *round {
	r := &round{t: t, seed: seed, end: end, cover: cover, ca: ca, dice: newDice(seed), net: dialogtest.NewNetwork(), ops: operations()}
	for _, op := range r.ops {
		switch op.name {
		case "Stack.NewInvite":
			r.newInvite = op
		case "Dialog.ReInvite":
			r.reInvite = op
		case "Stack.Shutdown":
			r.shutdown = op
		}
	}
	r.net.Tap(r.archive.keep)
	for _, transport := range testkit.AllTransports() {
		for _, ip := range hostsOf(transport) {
			r.nodes = append(r.nodes, r.newNode(ip, transport))
		}
	}
	for i, transport := range testkit.AllTransports() {
		p := r.newPhone(transport, i+1)
		r.phones, r.nodes = append(r.phones, p), append(r.nodes, p.node)
	}
	r.chaos = r.newChaos()
	return r
}

// goes runs f on a goroutine that the round waits for, unless the round is over.
func (r *round) goes(f func()) { r.work.Go(f) }

// errorf reports a broken promise, once of a kind, with the messages of the call it is about.
func (r *round) errorf(callID, format string, args ...any) {
	r.t.Fail()
	if _, told := r.told.LoadOrStore(format, true); told {
		return // one of a kind is enough to read
	}
	r.t.Errorf("-stress.seed=%d: %s\n%s", r.seed, fmt.Sprintf(format, args...), r.story(callID))
}

func (r *round) run() {
	quit := make(chan struct{})
	faults := r.startFaults(quit)
	r.chaos.start()
	var workers sync.WaitGroup
	for _, n := range r.nodes {
		for range n.workers() {
			workers.Add(1)
			go func() { defer workers.Done(); n.work(60) }()
		}
	}
	if r.end == inPeace {
		workers.Wait()
	} else {
		r.dice.pause(2 * time.Minute) // in the middle of it all
	}
	r.ending.Store(true)
	close(quit)
	faults.Wait()
	switch r.end {
	case inPeace:
		r.endInPeace()
	case byShutdown:
		r.endByShutdown()
	default:
		r.endInHaste()
	}
	workers.Wait()
	r.work.CloseIdle(context.Background())
	for _, n := range r.nodes {
		n.cancel()
		n.checkEmpty("after Shutdown")
		n.checkCalls()
		n.checkPairs()
	}
	for _, p := range r.phones {
		p.countCalls()
	}
	r.chaos.stop()
	r.net.Close()
	r.check()
}

// endInPeace hangs up everywhere and waits: all registries must be empty
// before anybody calls Shutdown.
func (r *round) endInPeace() {
	time.Sleep(r.dice.upTo(6 * time.Minute)) // long-lived calls: their timers
	r.work.Wait(context.Background())
	r.chaos.stop()
	for range 2 { // callbacks may have made further calls meanwhile
		for _, n := range r.nodes {
			n.hangUp()
		}
		time.Sleep(10 * time.Minute)
	}
	for _, n := range r.nodes {
		n.checkEmpty("when all calls had ended")
	}
	r.shutdownAll(30 * time.Minute)
}

// endByShutdown shuts everything down while it is at work.
func (r *round) endByShutdown() { r.shutdownAll(30 * time.Minute) }

// endInHaste shuts everything down with no time left, by the end of Start's
// context, or from inside a callback.
func (r *round) endInHaste() {
	for _, n := range r.nodes {
		switch r.dice.intn(3) {
		case 0:
			n.cancel()
		case 1:
			r.goes(func() { n.hastily() })
		}
	}
	r.shutdownAll(time.Second)
	time.Sleep(10 * time.Minute) // callbacks that Shutdown did not wait for
}

// noticed is how long a connection may be cut before that is noticed, in a call in which
// nothing is said (StackConfig.FlowKeepAlive).
const noticed = 3 * time.Minute

func (r *round) shutdownAll(limit time.Duration) {
	began := time.Now()
	var all sync.WaitGroup
	for _, n := range r.nodes {
		for range 2 {
			all.Add(1)
			go func() {
				defer all.Done()
				ctx, cancel := context.WithTimeout(context.Background(), limit)
				defer cancel()
				n.shutdown(ctx)
			}()
		}
	}
	all.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	for _, n := range r.nodes {
		n.shutdown(ctx) // waits for a shutdown that is in progress
		// A BYE whose connection or socket is lost then is not confirmed.
		lost := n.ip == lostIP || n.tap.lostBetween(began.Add(-noticed), n.down)
		if limit > time.Minute && !testkit.OnlyUnreachable(n.downErr, lost) {
			r.errorf("", "%s: Shutdown with time enough: %v", n.ip, n.downErr)
		}
	}
}

// startFaults breaks the network in every way until quit.
func (r *round) startFaults(quit <-chan struct{}) *sync.WaitGroup {
	var running sync.WaitGroup
	for _, f := range []func(*dice){r.cutHost, r.loseDatagrams, r.breakStreams, r.breakWrites, r.intrude, r.replay, r.forge, r.forget, r.movePhone} {
		d := r.dice.child()
		running.Add(1)
		go func() {
			defer running.Done()
			for {
				select {
				case <-quit:
					return
				case <-time.After(d.upTo(20 * time.Second)):
					f(d)
				}
			}
		}()
	}
	lost := r.dice.upTo(time.Minute)
	r.goes(func() {
		time.Sleep(lost)
		r.cover.hit("fault: socket lost")
		r.nodes[2].tap.loseSockets()
	})
	return &running
}

func (r *round) cutHost(d *dice) {
	if d.chance(50) {
		return
	}
	r.cover.hit("fault: host unreachable")
	host := r.net.Host(pick(d, append(streamHosts(), udpOne, udpTwo, chaosIP)))
	host.Unreachable(true)
	d.pause(3 * time.Second)
	host.Unreachable(false)
}

func (r *round) loseDatagrams(d *dice) {
	r.cover.hit("fault: lossy network")
	r.net.SetPolicy(dialogtest.Lossy(r.seed, 0.15, 0.15, 400*time.Millisecond))
	d.pause(20 * time.Second)
	r.net.SetPolicy(nil)
}

func (r *round) breakStreams(d *dice) {
	if d.chance(30) {
		r.cover.hit("fault: all streams broken")
		r.net.BreakStreams()
		return
	}
	transport := pick(d, testkit.AllTransports()[1:])
	r.cover.hit("fault: streams broken, " + transport)
	r.net.Host(pick(d, hostsOf(transport))).BreakStreams()
}

func (r *round) breakWrites(d *dice) {
	pick(d, r.nodes).tap.breakWrites(1 + d.intn(3))
}

var ghost = netip.MustParseAddrPort(ghostIP + ":5060")

func (r *round) endpoint(ip string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), 5060)
}
