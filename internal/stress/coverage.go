package stress

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"sort"
	"strings"
	"sync"
	"time"

	"sipdialog.example/dialog"
)

// coverage counts what a run has exercised. What is expected and never
// happens fails the run: a stress test that has stopped stressing something
// must not pass.
type coverage struct {
	// unknown are the methods that no operation calls. It is settled before the
	// first round.
	unknown map[string]bool

	mu     sync.Mutex // guards the fields below
	counts map[string]int
}

// newCoverage expects every exported method of the three types, called from
// outside and from inside callbacks, and what the lists name.
func newCoverage(lists ...[]string) *coverage {
	c := &coverage{unknown: make(map[string]bool), counts: make(map[string]int)}
	for _, typ := range []reflect.Type{
		reflect.TypeFor[*dialog.Dialog](), reflect.TypeFor[*dialog.Stack](), reflect.TypeFor[*dialog.ReferSubscription](),
	} {
		for i := range typ.NumMethod() {
			name := typ.Elem().Name() + "." + typ.Method(i).Name
			c.unknown[name] = true
			c.counts["call: "+name] = 0
			c.counts["inside a callback: "+name] = 0
		}
	}
	for _, list := range lists {
		for _, name := range list {
			c.counts[name] = 0
		}
	}
	return c
}

// knows notes that an operation calls a method.
func (c *coverage) knows(name string) { delete(c.unknown, name) }

func (c *coverage) hit(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[name]++
}

// missing returns what is expected and has not happened.
func (c *coverage) missing() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for name, n := range c.counts {
		if n == 0 {
			list = append(list, name)
		}
	}
	sort.Strings(list)
	return list
}

// String is the table of all counts.
func (c *coverage) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := make([]string, 0, len(c.counts))
	for name := range c.counts {
		names = append(names, name)
	}
	sort.Strings(names)
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "%8d  %s\n", c.counts[name], name)
	}
	return b.String()
}

// dice is a source of chance that many goroutines share.
type dice struct {
	mu     sync.Mutex // guards random
	random *rand.Rand
}

func newDice(seed uint64) *dice { return &dice{random: rand.New(rand.NewPCG(seed, seed))} }

// child has its own fortune, for one actor.
func (d *dice) child() *dice {
	d.mu.Lock()
	defer d.mu.Unlock()
	return newDice(d.random.Uint64())
}

func (d *dice) intn(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.random.IntN(n)
}

// chance is true in percent of all cases.
func (d *dice) chance(percent int) bool { return d.intn(100) < percent }

func (d *dice) upTo(limit time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Duration(d.random.Int64N(int64(limit) + 1))
}

// pause sleeps, on the bubble's clock, for up to limit.
func (d *dice) pause(limit time.Duration) { time.Sleep(d.upTo(limit)) }

func pick[T any](d *dice, list []T) T { return list[d.intn(len(list))] }
