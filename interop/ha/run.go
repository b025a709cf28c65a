package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"sipdialog.example/dialog/internal/program"
)

// plan is a run: how long calls are placed, what happens meanwhile, and what must come out.
type plan struct {
	name  string
	store bool
	lasts time.Duration
	talk  time.Duration // of each call; zero: talkTime
	// act is what happens to the nodes.
	act   func(ctx context.Context, t *trial) error
	judge func(*result) error
}

func plans() []plan {
	return []plan{
		{name: "kill", store: true, lasts: 20 * time.Second, act: killOne, judge: func(r *result) error {
			return errors.Join(r.nothingLost(), r.farewell())
		}},
		{name: "restart", store: true, lasts: 13 * time.Second, talk: longTalk, act: restart, judge: func(r *result) error {
			return errors.Join(r.nothingLost(), r.farewell())
		}},
		{name: "deploy", store: true, lasts: 30 * time.Second, act: deploy, judge: func(r *result) error {
			return errors.Join(r.nothingLost(), r.allSetUp(), r.farewell())
		}},
		// The last one, in the time that the tombstones of the others need.
		{name: "control", lasts: 14 * time.Second, act: killOne, judge: func(r *result) error {
			if r.outcome.gone <= 400 {
				return fmt.Errorf("%d calls got 481: without a store more than 400 should be lost", r.outcome.gone)
			}
			return nil
		}},
	}
}

// killOne kills the first node in the middle of its calls.
func killOne(ctx context.Context, t *trial) error {
	if err := pause(ctx, 10*time.Second); err != nil {
		return err
	}
	t.goes(nodeAddresses[0])
	t.nodes[0].Kill()
	t.dead = nodeAddresses[0]
	t.killed = append(t.killed, nodeName(0))
	return nil
}

// restart kills one node after the other, and starts it anew. Meanwhile the front gives up on
// some requests to it, and has their calls answered by another one, but it does not yet take
// the node for down: what comes after the answer must not go to the node.
func restart(ctx context.Context, t *trial) error {
	for i := range t.nodes {
		if err := pause(ctx, 2*time.Second); err != nil {
			return err
		}
		t.goes(nodeAddresses[i])
		t.nodes[i].Kill()
		t.killed = append(t.killed, nodeName(i))
		if err := pause(ctx, 1700*time.Millisecond); err != nil {
			return err
		}
		if err := t.startNode(i); err != nil {
			return err
		}
		if err := t.awaitUp(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// deploy replaces one node after the other.
func deploy(ctx context.Context, t *trial) error {
	for i := range t.nodes {
		if err := pause(ctx, 3*time.Second); err != nil {
			return err
		}
		t.goes(nodeAddresses[i])
		if err := stop(t.nodes[i], 25*time.Second); err != nil {
			return err
		}
		if err := t.startNode(i); err != nil {
			return err
		}
		if err := t.awaitUp(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// awaitUp waits until the front does not take a node for down: before the next one goes.
func (t *trial) awaitUp(ctx context.Context, i int) error {
	for t.front.isDown(nodeAddresses[i]) {
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	t.isBack(nodeAddresses[i])
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// bench is what all runs share: a folder and the Redis server.
type bench struct {
	folder, self, socket string
	redis                *program.Program
	databases            int
	quiet                map[int]quiet // by database
}

func newBench() (*bench, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for _, tool := range []string{"kamailio", "redis-server", "sipp"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("%w: make ha installs it", err)
		}
	}
	folder, err := os.MkdirTemp("", "ha")
	if err != nil {
		return nil, err
	}
	b := &bench{folder: folder, self: self, socket: filepath.Join(folder, "redis"), quiet: make(map[int]quiet)}
	b.redis, err = start(folder, nil, "redis-server", "--port", "0", "--unixsocket", b.socket, "--save", "", "--appendonly", "no", "--dir", folder)
	if err != nil {
		b.close()
		return nil, err
	}
	for range 50 {
		if _, err = os.Stat(b.socket); err == nil {
			return b, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	b.close()
	return nil, err
}

func (b *bench) close() {
	b.redis.Kill()
	_ = os.RemoveAll(b.folder)
}

// quiet is the end of a run with a store.
type quiet struct {
	at time.Time
	// killed are the processes whose calls may be left, and unset is how many at most: a
	// process that is killed between the save of a call and its 200 leaves a call that the
	// caller does not have. Its session ends it.
	killed []string
	unset  int
	// passed is how many requests the front has sent to another node since one that was well was
	// too slow: both may have answered an INVITE, and the caller has one of the calls.
	passed int
}

// keysGone is the time after which no key of an ended call may be left.
const keysGone = 40 * time.Second

// checkKeys waits until the tombstones of all runs have expired.
func (b *bench) checkKeys(ctx context.Context) error {
	var failed error
	var all leftCalls
	for database, q := range b.quiet {
		if err := pause(ctx, time.Until(q.at.Add(keysGone))); err != nil {
			return err
		}
		client := redis.NewClient(&redis.Options{Network: "unix", Addr: b.socket, DB: database})
		left, err := q.left(ctx, client)
		_ = client.Close()
		all.unset, all.passed = all.unset+left.unset, all.passed+left.passed
		failed = errors.Join(failed, err)
	}
	if failed == nil && len(b.quiet) > 0 {
		fmt.Printf("%v after the last call no key is left, but of %d calls that were saved by the process that was killed before its 200, and %d that two processes have answered\n", keysGone, all.unset, all.passed)
	}
	return failed
}

// leftCalls are the calls that are left: of the node that was killed, and of others.
type leftCalls struct{ unset, passed int }

// left counts the calls that are left, and fails if there is one that should not be.
func (q quiet) left(ctx context.Context, client *redis.Client) (n leftCalls, err error) {
	keys, err := client.Keys(ctx, "*").Result()
	if err != nil {
		return n, err
	}
	for _, key := range keys {
		if strings.HasSuffix(key, ":due") {
			continue
		}
		call, err := client.HGetAll(ctx, key).Result()
		switch {
		case err != nil:
			return n, err
		case len(call) == 0:
			continue // it has just expired
		}
		if name, _, _ := strings.Cut(call["o"], "."); slices.Contains(q.killed, name) {
			n.unset++
		} else {
			n.passed++
		}
		if n.unset > q.unset || n.passed > q.passed {
			return n, fmt.Errorf("a key is left %v after the last call: %s of %s: %s", keysGone, key, call["o"], call["b"])
		}
	}
	return n, nil
}

// trial is a run in progress.
type trial struct {
	bench    *bench
	plan     plan
	folder   string
	database int
	nodes    [len(nodeAddresses)]*program.Program
	front    *front
	load     *load
	dead     string   // the address of a node that was killed, and is not started anew
	killed   []string // the names of all that were

	mu        sync.Mutex           // guards the fields below
	absences  map[string][]absence // of each node
	unsaved   int                  // calls whose Save was not answered in time, at any node
	farewells []string
}

// result is what came out of a run.
type result struct {
	outcome   outcome
	events    []event
	farewells []string
	errors    []string // of sipp
	unsaved   int
	doubt     error // void if something went wrong
}

// try makes one run.
func (b *bench) try(ctx context.Context, p plan) (r *result, err error) {
	folder, err := os.MkdirTemp(b.folder, p.name)
	if err != nil {
		return nil, err
	}
	t := &trial{bench: b, plan: p, folder: folder, absences: make(map[string][]absence)}
	if p.store {
		b.databases++
		t.database = b.databases
	}
	defer t.close()
	out, err := t.run(ctx)
	void, doubt := t.precondition()
	if err != nil {
		return nil, cmp.Or(void, doubt, err) // it may have failed for that reason
	}
	if void != nil {
		return nil, void
	}
	if p.store {
		b.quiet[t.database] = quiet{
			at: time.Now(), killed: t.killed, unset: out.calls - out.confirmed,
			passed: len(t.front.suspects(silent, t.isWell)),
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return &result{outcome: out, events: t.front.said(), farewells: t.farewells, errors: t.load.errors(), unsaved: t.unsaved, doubt: doubt}, nil
}

// run starts everything, does what the plan says, and waits until all calls and nodes have
// ended.
func (t *trial) run(ctx context.Context) (out outcome, err error) {
	for i := range nodeAddresses {
		if err := t.startNode(i); err != nil {
			return out, err
		}
	}
	if t.front, err = startFront(ctx, t.folder); err != nil {
		return out, err
	}
	if t.load, err = startLoad(t.folder, t.plan.lasts, cmp.Or(t.plan.talk, talkTime)); err != nil {
		return out, err
	}
	if err := t.plan.act(ctx, t); err != nil {
		return out, err
	}
	patience, cancel := context.WithTimeout(ctx, t.plan.lasts+t.plan.talk+60*time.Second)
	defer cancel()
	if out, err = t.load.wait(patience); err != nil {
		return out, err
	}
	return out, t.stopNodes()
}

// stopNodes stops all nodes that live, at once: there is no load any more.
func (t *trial) stopNodes() error {
	errs := make([]error, len(t.nodes))
	var all sync.WaitGroup
	for i, n := range t.nodes {
		if nodeAddresses[i] != t.dead {
			t.goes(nodeAddresses[i])
			all.Go(func() { errs[i] = stop(n, 25*time.Second) })
		}
	}
	all.Wait()
	return errors.Join(errs...)
}

// startNode starts the node with that number, and waits until it listens.
func (t *trial) startNode(i int) error {
	args := []string{"node", "-name", nodeName(i), "-address", nodeAddresses[i], "-public", frontAddress}
	if t.plan.store {
		args = append(args, "-redis", t.bench.socket, "-database", strconv.Itoa(t.database))
	}
	ready := make(chan struct{})
	n, err := start(t.folder, func(line string) {
		switch {
		case line == "ready":
			close(ready)
		case line == unsavedLine:
			t.mu.Lock()
			defer t.mu.Unlock()
			t.unsaved++
		case strings.HasPrefix(line, "{"):
			t.mu.Lock()
			defer t.mu.Unlock()
			t.farewells = append(t.farewells, line)
		}
	}, t.bench.self, args...)
	if err != nil {
		return err
	}
	t.nodes[i] = n
	select {
	case <-ready:
		return nil
	case <-n.Done():
		return fmt.Errorf("node %d has ended:\n%s", i+1, n.Said())
	case <-time.After(10 * time.Second):
		return fmt.Errorf("node %d does not start:\n%s", i+1, n.Said())
	}
}

func nodeName(i int) string { return "n" + strconv.Itoa(i+1) }

// absence is the time from when a node was stopped until the front saw it again; zero: it did
// not.
type absence struct{ from, until time.Time }

// has reports whether the front may say at that time that the node is not there. Of a
// request that it has sent before the end it speaks later.
func (a absence) has(at time.Time) bool {
	const later = 3 * time.Second
	return !at.Before(a.from) && (a.until.IsZero() || at.Before(a.until.Add(later)))
}

// goes notes that a node is stopped.
func (t *trial) goes(address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.absences[address] = append(t.absences[address], absence{from: time.Now()})
}

// isBack notes that the front has seen a node again.
func (t *trial) isBack(address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := t.absences[address]
	list[len(list)-1].until = time.Now()
}

// isWell reports whether the front should have seen a node at that time.
func (t *trial) isWell(address string, at time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !slices.ContainsFunc(t.absences[address], func(a absence) bool { return a.has(at) })
}

// precondition checks that the front saw all nodes that were well, and that the calls were
// placed in time: else the machine was too busy, and the run is void. If a node that was well
// did not answer a request in time, or the store was too slow for one, there is doubt: the
// run is void if something went wrong.
func (t *trial) precondition() (void, doubt error) {
	if t.front == nil || t.load == nil {
		return nil, nil
	}
	void = cmp.Or(lostSight(t.front.suspects(down, t.isWell)), t.load.inTime())
	doubt = lostSight(t.front.suspects(silent, t.isWell))
	t.mu.Lock()
	defer t.mu.Unlock()
	if doubt == nil && t.unsaved > 0 {
		doubt = fmt.Errorf("%w: the store was too slow for %d responses", errVoid, t.unsaved)
	}
	return void, doubt
}

func (t *trial) close() {
	if t.load != nil {
		t.load.process.Kill()
	}
	if t.front != nil {
		t.front.process.Kill()
	}
	for _, n := range t.nodes {
		n.Kill()
	}
}

func (r *result) nothingLost() error {
	if n := r.outcome.lost(); n != 0 || r.outcome.confirmed == 0 {
		return fmt.Errorf("%d of %d confirmed calls were lost", n, r.outcome.confirmed)
	}
	return nil
}

func (r *result) allSetUp() error {
	if n := r.outcome.calls - r.outcome.confirmed; n != 0 {
		return fmt.Errorf("%d of %d calls were not set up", n, r.outcome.calls)
	}
	return nil
}

// sum adds a count of all nodes that could say farewell.
func (r *result) sum(count func(farewell) int) (sum int) {
	for _, line := range r.farewells {
		var f farewell
		if json.Unmarshal([]byte(line), &f) == nil {
			sum += count(f)
		}
	}
	return sum
}

func (r *result) restored() int { return r.sum(func(f farewell) int { return int(f.Restored) }) }
func (r *result) moved() int    { return r.sum(func(f farewell) int { return int(f.Moved) }) }

// farewell checks what the nodes have said in the end.
func (r *result) farewell() error {
	bad := r.sum(func(f farewell) int {
		if f.Error != "" {
			return 1
		}
		return f.Left + f.Goroutines + int(f.Panics)
	})
	if bad > 0 {
		return errors.New("a node failed: an error, a panic, or a call or goroutine left")
	}
	return nil
}
