package registry_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/registry"
	"sipdialog.example/dialog/internal/rel100"
)

// call is a dialog of the tests; source is the last byte of its address, zero for a call of
// ours.
type call struct {
	name   string
	source byte
}

func (c *call) address() netip.Addr {
	if c.source == 0 {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte{192, 0, 2, c.source})
}

func (c *call) isCallee() bool { return c.source != 0 }

type calls = registry.Of[registry.Key, *call]

func newCalls(limits registry.Limits) *calls {
	return registry.New[registry.Key](time.Time{}, limits, registry.Traits[*call]{Source: (*call).address, IsCallee: (*call).isCallee})
}

var wide = registry.Limits{Calls: -1, Subscribed: 10, Ended: 10}

func key(id, local, remote string) registry.Key {
	return registry.Key{CallID: id, LocalTag: local, RemoteTag: remote}
}

func TestRequestsFindTheirDialogUntilItIsGone(t *testing.T) {
	r, d := newCalls(wide), &call{source: 1}
	k := key("id", "l", "r")
	found := func(want *call) {
		t.Helper()
		got, byHalf := r.Find(k)
		require.Same(t, want, got)
		require.False(t, byHalf)
	}
	found(nil)
	require.Equal(t, registry.Added, r.Add(k, d, nil))
	found(d)
	require.True(t, r.Leave(k, d))
	require.True(t, r.File(k, d, true, true))
	found(d)
	require.Equal(t, 1, r.Sizes().Releasing)
	require.True(t, r.Leaves(k, d))
	require.True(t, r.File(k, d, false, true))
	found(d)
	require.Equal(t, 1, r.Sizes().Subscribed)
	require.False(t, r.File(k, d, false, false))
	found(nil)
	require.False(t, r.Leaves(k, d))
	require.Zero(t, r.Audit())
}

// RFC 3261 12.2.2: a request of a fork that our side has not heard of finds the call by our
// half of the key, wherever that stands.
func TestTheFirstRequestOfAForkFindsTheCallOfOurInvite(t *testing.T) {
	half, first, other := key("id", "l", ""), key("id", "l", "r"), key("id", "l", "fork")
	for name, prepare := range map[string]func(r *calls, d *call){
		"no response yet": func(*calls, *call) {},
		"one fork known":  func(r *calls, d *call) { r.Rekey(d, half, first) },
		"closed before":   func(r *calls, d *call) { r.Leave(half, d); r.File(half, d, true, false) },
	} {
		t.Run(name, func(t *testing.T) {
			r, d := newCalls(wide), &call{}
			r.Add(half, d, nil)
			prepare(r, d)
			got, byHalf := r.Find(other)
			require.Same(t, d, got)
			require.True(t, byHalf)
			got, _ = r.Find(key("id", "other", "fork"))
			require.Nil(t, got)
		})
	}
}

func TestEarlierKeysFindTheCallUntilItEnds(t *testing.T) {
	r, d := newCalls(wide), &call{}
	half, full, next := key("id", "l", ""), key("id", "l", "r"), key("id", "l", "s")
	r.Add(half, d, nil)
	r.Rekey(d, half, full)
	r.Rekey(d, full, next)
	for _, k := range []registry.Key{half, full, next} {
		got, found := r.ByKey(k)
		require.True(t, found)
		require.Same(t, d, got)
	}
	_, byHalf := r.Find(full)
	require.True(t, byHalf, "an earlier fork of ours is found by half, and so only while forks may answer")
	r.Rekey(&call{}, next, full) // another's key is not touched
	require.Equal(t, 2, r.Sizes().Aliases)
	require.True(t, r.Leave(next, d))
	require.False(t, r.Leave(next, d))
	for _, k := range []registry.Key{half, full, next} {
		_, found := r.ByKey(k)
		require.False(t, found)
	}
	require.Zero(t, r.Audit())
}

// RFC 3261 12.1.1: each early dialog of a callee has its own tag.
func TestEarlyDialogsOfACalleeAreFoundByTheirKeys(t *testing.T) {
	r, d := newCalls(wide), &call{source: 1}
	first, fork := key("id", "l", "r"), key("id", "fork", "r")
	r.Add(first, d, nil)
	r.AddAlias(fork, d)
	got, byHalf := r.Find(fork)
	require.Same(t, d, got)
	require.False(t, byHalf)
	r.Rekey(d, first, fork) // it becomes the call
	got, byHalf = r.Find(first)
	require.Same(t, d, got)
	require.False(t, byHalf)
}

func TestADialogThatHasEndedKeepsItsPlaceUnderAnotherKey(t *testing.T) {
	r, d := newCalls(wide), &call{}
	half, full := key("id", "l", ""), key("id", "l", "r")
	require.Equal(t, registry.Added, r.Subscribe(half, d))
	require.True(t, r.HasSubscribed(full))
	require.False(t, r.HasSubscribed(key("id", "other", "r")))
	require.Same(t, d, r.Subscribed(half))
	r.Rekey(d, half, full)
	require.Same(t, d, r.Subscribed(full))
	require.Nil(t, r.Subscribed(half))
	r.File(full, d, true, false)
	r.Rekey(d, full, half)
	got, _ := r.Find(half)
	require.Same(t, d, got)
	require.Equal(t, registry.Sizes{Releasing: 1}, r.Sizes(), "no aliases: nothing asks for its earlier key")
}

func TestBounds(t *testing.T) {
	r := newCalls(registry.Limits{Calls: 2, PerSource: 1, Subscribed: 1, Ended: 1})
	a, b, c := &call{source: 1}, &call{source: 2}, &call{}
	require.Equal(t, registry.Added, r.Add(key("a", "", ""), a, nil))
	require.Equal(t, registry.SourceFull, r.Add(key("x", "", ""), &call{source: 1}, nil))
	require.True(t, r.HasRoom())
	require.Equal(t, registry.Added, r.Add(key("b", "", ""), b, nil))
	require.False(t, r.HasRoom())
	require.Equal(t, registry.Full, r.Add(key("c", "", ""), c, nil))
	require.Equal(t, registry.Full, r.Restore(key("c", "", ""), c))
	require.True(t, r.Leave(key("a", "", ""), a))
	require.True(t, r.File(key("a", "", ""), a, false, true))
	require.Equal(t, registry.Full, r.Subscribe(key("d", "", ""), c))
	require.True(t, r.Leave(key("b", "", ""), b))
	require.False(t, r.File(key("b", "", ""), b, false, true), "there is no room for another subscription")
	require.Zero(t, r.Audit().Sources)
	require.Equal(t, registry.Added, r.Add(key("x", "", ""), &call{source: 1}, nil), "a call that ended is not counted")
}

// RFC 3891 3: a call that replaces another is accepted at the limit.
func TestACallThatReplacesAnotherIsBeyondTheLimit(t *testing.T) {
	r := newCalls(registry.Limits{Calls: 1, Subscribed: 1, Ended: 1})
	a, b, c := &call{name: "a"}, &call{name: "b"}, &call{name: "c"}
	r.Add(key("a", "", ""), a, nil)
	require.Equal(t, registry.Added, r.Add(key("b", "", ""), b, a))
	require.Equal(t, registry.Full, r.Add(key("c", "", ""), c, a), "one waits already")
	require.Equal(t, registry.Full, r.Add(key("c", "", ""), c, b), "there are twice as many")
	require.True(t, r.Leave(key("b", "", ""), b))
	require.Zero(t, r.Sizes().Replacing)
	require.Equal(t, registry.Added, r.Add(key("c", "", ""), c, a), "the first has ended")
	require.True(t, r.Leave(key("a", "", ""), a))
	require.Zero(t, r.Sizes().Replacing)
	require.True(t, r.Leave(key("c", "", ""), c))
	require.Zero(t, r.Audit())
}

func TestACallIsRestoredOnce(t *testing.T) {
	k, half := key("id", "l", "r"), key("id", "l", "")
	for name, row := range map[string]struct {
		prepare func(r *calls, d *call)
		want    registry.Verdict
	}{
		"nothing known": {func(*calls, *call) {}, registry.Added},
		"in progress":   {func(r *calls, d *call) { r.Add(k, d, nil) }, registry.Known},
		"earlier key":   {func(r *calls, d *call) { r.Add(half, d, nil); r.AddAlias(k, d) }, registry.Known},
		"releasing":     {func(r *calls, d *call) { r.Release(k, d) }, registry.Known},
		"subscribed":    {func(r *calls, d *call) { r.Subscribe(k, d) }, registry.Known},
		"ended lately":  {func(r *calls, _ *call) { r.AddTombstone(time.Time{}, time.Minute, k, rel100.RAck{}) }, registry.Ended},
	} {
		t.Run(name, func(t *testing.T) {
			r := newCalls(wide)
			row.prepare(r, &call{})
			require.Equal(t, row.want, r.Restore(k, &call{}))
		})
	}
}

func TestHeadersMayMeanAnEarlyDialog(t *testing.T) {
	r, d := newCalls(wide), &call{}
	half, full := key("id", "l", ""), key("id", "l", "r")
	r.Add(half, d, nil)
	require.Contains(t, r.Named(full), d)
	r.Rekey(d, half, full)
	require.Contains(t, r.Named(key("id", "l", "fork")), d)
	require.Contains(t, r.Named(full), d)
	require.False(t, r.HasEnded(full))
	r.Leave(full, d)
	require.Equal(t, [3]*call{}, r.Named(full))
	r.File(full, d, true, false)
	require.True(t, r.HasEnded(full))
}

func TestWhatEndedLatelyIsRemembered(t *testing.T) {
	r, k := newCalls(wide), key("id", "l", "r")
	start := time.Time{}
	rack := rel100.RAck{RSeq: 1, CSeq: 2, Method: "INVITE"}
	r.AddTombstone(start, time.Minute, k, rack)
	got, ended := r.EndedLately(k)
	require.True(t, ended)
	require.Equal(t, rack, got)
	next, ok := r.Expire(start.Add(time.Second))
	require.True(t, ok)
	require.Equal(t, 59*time.Second, next)
	_, ok = r.Expire(start.Add(time.Minute))
	require.False(t, ok)
	require.False(t, r.HasEnded(k))
	r.AddTombstone(start, time.Minute, k, rack)
	r.ForgetEnded()
	require.Zero(t, r.Audit())
}

func TestWaitsEndWhenFewAreLeft(t *testing.T) {
	r, a, b := newCalls(wide), &call{}, &call{}
	isOver := func(w *registry.Wait) bool {
		select {
		case <-w.Few():
			return true
		default:
			return false
		}
	}
	require.True(t, isOver(r.Await(0)), "none are left")
	r.Add(key("a", "", ""), a, nil)
	r.Release(key("b", "", ""), b)
	one, none, given := r.Await(1), r.Await(0), r.Await(0)
	require.False(t, r.GiveUp(given))
	r.Leave(key("a", "", ""), a)
	r.File(key("a", "", ""), a, false, false)
	require.False(t, isOver(one), "what belongs to it may not be gone")
	r.Announce()
	require.True(t, isOver(one))
	require.True(t, r.GiveUp(one))
	require.False(t, isOver(none))
	r.File(key("b", "", ""), b, false, false)
	r.Announce()
	require.True(t, isOver(none))
	require.False(t, isOver(given))
}

func TestNoRegistryIsEmpty(t *testing.T) {
	var r *calls
	k, d := key("id", "l", "r"), &call{}
	r.Rekey(d, k, k)
	r.Release(k, d)
	r.AddAlias(k, d)
	r.ForgetEnded()
	require.False(t, r.Leave(k, d))
	require.False(t, r.Leaves(k, d))
	require.False(t, r.HasEnded(k))
	got, _ := r.Find(k)
	require.Nil(t, got)
	_, found := r.ByKey(k)
	require.False(t, found)
	require.Nil(t, r.Subscribed(k))
	require.Zero(t, r.Named(k))
	require.Empty(t, r.Open())
	require.Zero(t, r.Audit())
}

// Whatever calls do in whatever order: each stands in one set, under one key, counts agree,
// and nothing is left in the end.
func TestNothingIsLeftOfCallsInAnyOrder(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		r := newCalls(registry.Limits{Calls: 5, PerSource: 3, Subscribed: 3, Ended: 4})
		at := make(map[*call]registry.Key)
		var list []*call
		for step := range 300 {
			d := &call{name: fmt.Sprint(step), source: byte(random.IntN(4))}
			k := key(d.name, "l", "")
			var some *call
			if len(list) > 0 {
				some = list[random.IntN(len(list))]
			}
			switch op := random.IntN(8); {
			case op == 0 && r.Add(k, d, some) == registry.Added,
				op == 1 && r.Restore(k, &call{}) != registry.Added && r.Subscribe(k, d) == registry.Added:
				list, at[d] = append(list, d), k
			case some == nil:
			case op == 2:
				next := key(some.name, "l", fmt.Sprint(step))
				r.Rekey(some, at[some], next)
				at[some] = next
			case op == 3 && r.Active[at[some]] == some:
				r.AddAlias(key(some.name, d.name, ""), some)
			case op >= 4 && (r.Leave(at[some], some) || r.Leaves(at[some], some)):
				r.File(at[some], some, op == 4, op == 5)
			}
			sizes := r.Audit()
			require.Zero(t, sizes.Sources)
			require.Equal(t, r.CountOpen(), len(r.Open()))
			require.Len(t, unique(r.Open()), r.CountOpen())
			require.LessOrEqual(t, sizes.Dialogs, 10)
			require.LessOrEqual(t, sizes.Subscribed, 3)
		}
		for _, d := range list {
			if r.Leave(at[d], d) || r.Leaves(at[d], d) {
				r.File(at[d], d, false, false)
			}
		}
		for k, d := range r.Active { // restored ones, which the test does not know
			r.Leave(k, d)
		}
		require.Zero(t, r.Audit(), "seed %d", seed)
	}
}

func unique(list []*call) map[*call]bool {
	set := make(map[*call]bool)
	for _, d := range list {
		set[d] = true
	}
	return set
}
