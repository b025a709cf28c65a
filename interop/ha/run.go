package main

import (
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
)

// plan is a run: how long calls are placed, what happens meanwhile, and what must come out.
type plan struct {
	name  string
	store bool
	lasts time.Duration
	// act is what happens to the nodes.
	act   func(ctx context.Context, t *trial) error
	judge func(*result) error
}

func plans() []plan {
	return []plan{
		{name: "control", lasts: 14 * time.Second, act: killOne, judge: func(r *result) error {
			if r.outcome.gone <= 400 {
				return fmt.Errorf("%d calls got 481: without a store more than 400 should be lost", r.outcome.gone)
			}
			return nil
		}},
		{name: "kill", store: true, lasts: 20 * time.Second, act: killOne, judge: func(r *result) error {
			return errors.Join(r.nothingLost(), r.farewell())
		}},
		{name: "deploy", store: true, lasts: 30 * time.Second, act: deploy, judge: func(r *result) error {
			return errors.Join(r.nothingLost(), r.allSetUp(), r.farewell())
		}},
	}
}

// killOne kills the first node in the middle of its calls.
func killOne(ctx context.Context, t *trial) error {
	if err := pause(ctx, 10*time.Second); err != nil {
		return err
	}
	t.nodes[0].kill()
	t.killed = nodeAddresses[0]
	return nil
}

// deploy replaces one node after the other.
func deploy(ctx context.Context, t *trial) error {
	for i := range t.nodes {
		if err := pause(ctx, 3*time.Second); err != nil {
			return err
		}
		t.replaces(nodeAddresses[i])
		if err := t.nodes[i].stop(25 * time.Second); err != nil {
			return err
		}
		if err := t.startNode(i); err != nil {
			return err
		}
		// The front has to see it again before the next one goes.
		for t.front.isDown(nodeAddresses[i]) {
			if err := pause(ctx, 100*time.Millisecond); err != nil {
				return err
			}
		}
	}
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
	redis                *process
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
	b.redis, err = start(folder, func(string) {}, "redis-server", "--port", "0", "--unixsocket", b.socket, "--save", "", "--appendonly", "no", "--dir", folder)
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
	b.redis.kill()
	_ = os.RemoveAll(b.folder)
}

// quiet is the end of a run with a store.
type quiet struct {
	at time.Time
	// killed begins the owner of the calls that may be left, and unset is how many at most: a
	// process that is killed between the save of a call and its 200 leaves a call that the
	// caller does not have. Its session ends it.
	killed string
	unset  int
}

// keysGone is the time after which no key of an ended call may be left.
const keysGone = 40 * time.Second

// checkKeys waits until the tombstones of all runs have expired.
func (b *bench) checkKeys(ctx context.Context) error {
	var failed error
	unset := 0
	for database, q := range b.quiet {
		if err := pause(ctx, time.Until(q.at.Add(keysGone))); err != nil {
			return err
		}
		client := redis.NewClient(&redis.Options{Network: "unix", Addr: b.socket, DB: database})
		n, err := q.left(ctx, client)
		_ = client.Close()
		failed, unset = errors.Join(failed, err), unset+n
	}
	if failed == nil && len(b.quiet) > 0 {
		fmt.Printf("%v after the last call no key is left, but of %d calls that were saved by the process that was killed before its 200\n", keysGone, unset)
	}
	return failed
}

// left counts the calls that are left, and fails if there is one that should not be.
func (q quiet) left(ctx context.Context, client *redis.Client) (unset int, err error) {
	keys, err := client.Keys(ctx, "*").Result()
	if err != nil {
		return 0, err
	}
	for _, key := range keys {
		if strings.HasSuffix(key, ":due") {
			continue
		}
		call, err := client.HGetAll(ctx, key).Result()
		if err != nil {
			return 0, err
		}
		if unset++; unset > q.unset || q.killed == "" || !strings.HasPrefix(call["o"], q.killed) {
			return unset, fmt.Errorf("a key is left %v after the last call: %s of %s: %s", keysGone, key, call["o"], call["b"])
		}
	}
	return unset, nil
}

// trial is a run in progress.
type trial struct {
	bench    *bench
	plan     plan
	folder   string
	database int
	nodes    [len(nodeAddresses)]*process
	front    *front
	load     *load
	killed   string

	mu        sync.Mutex // guards the fields below
	replaced  map[string]bool
	farewells []string
}

// result is what came out of a run.
type result struct {
	outcome   outcome
	events    []string
	farewells []string
}

// try makes one run.
func (b *bench) try(ctx context.Context, p plan) (r *result, err error) {
	folder, err := os.MkdirTemp(b.folder, p.name)
	if err != nil {
		return nil, err
	}
	t := &trial{bench: b, plan: p, folder: folder, replaced: make(map[string]bool)}
	if p.store {
		b.databases++
		t.database = b.databases
	}
	defer t.close()
	for i := range nodeAddresses {
		if err := t.startNode(i); err != nil {
			return nil, err
		}
	}
	if t.front, err = startFront(folder); err != nil {
		return nil, err
	}
	if t.load, err = startLoad(folder, p.lasts); err != nil {
		return nil, err
	}
	if err := p.act(ctx, t); err != nil {
		return nil, err
	}
	patience, cancel := context.WithTimeout(ctx, p.lasts+60*time.Second)
	defer cancel()
	out, err := t.load.wait(patience)
	if err != nil {
		return nil, err
	}
	if err := t.precondition(); err != nil {
		return nil, err
	}
	for i, n := range t.nodes {
		if nodeAddresses[i] == t.killed {
			continue
		}
		if err := n.stop(25 * time.Second); err != nil {
			return nil, err
		}
	}
	if p.store {
		b.quiet[t.database] = quiet{at: time.Now(), killed: t.killedName(), unset: out.calls - out.confirmed}
	}
	t.front.mu.Lock()
	defer t.front.mu.Unlock()
	return &result{outcome: out, events: t.front.events, farewells: t.farewells}, nil
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
	case <-n.done:
		return fmt.Errorf("node %d has ended:%s", i+1, n.said())
	case <-time.After(10 * time.Second):
		return fmt.Errorf("node %d does not start:%s", i+1, n.said())
	}
}

// killedName begins the owner of the node that was killed; empty for none.
func (t *trial) killedName() string {
	if t.killed == "" {
		return ""
	}
	return nodeName(slices.Index(nodeAddresses[:], t.killed)) + "."
}

func nodeName(i int) string { return "n" + strconv.Itoa(i+1) }

// replaces notes that the front may see a node as down.
func (t *trial) replaces(address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.replaced[address] = true
}

// precondition checks that the front saw all nodes that were well.
func (t *trial) precondition() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, address := range nodeAddresses {
		if address == t.killed || t.replaced[address] {
			continue
		}
		if err := t.front.suspects(address); err != nil {
			return err
		}
	}
	return nil
}

func (t *trial) close() {
	if t.load != nil {
		t.load.process.kill()
	}
	if t.front != nil {
		t.front.process.kill()
	}
	for _, n := range t.nodes {
		n.kill()
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
func (r *result) unsaved() int  { return r.sum(func(f farewell) int { return int(f.Unsaved) }) }

// farewell checks what the nodes have said in the end.
func (r *result) farewell() error {
	bad := r.sum(func(f farewell) int {
		if f.Error != "" {
			return 1
		}
		return f.Left + f.Goroutines + int(f.Panics)
	})
	if bad > 0 {
		return errors.New("a node did not end well: an error, or a call, a goroutine, or a panic")
	}
	return nil
}
