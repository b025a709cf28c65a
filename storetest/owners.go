package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"sipdialog.example/dialog"
)

// manyOwners has owners that save, take, check and claim a few calls at random, at once.
// Each fence is given to one of them, and the highest is the one that counts.
func manyOwners(h *harness) {
	const owners, calls, steps = 6, 3, 40
	game := &game{harness: h, holders: make(map[dialog.StoreKey]map[uint64]string)}
	keys := make([]dialog.StoreKey, calls)
	for i := range keys {
		r := h.saved("call")
		keys[i] = r.Key
		game.holders[r.Key] = map[uint64]string{1: "a"}
	}
	h.atOnce(owners, func(i int) error {
		p := &player{game: game, name: fmt.Sprint("owner ", i), held: make(map[dialog.StoreKey]dialog.Record)}
		for range steps {
			if err := p.step(keys[rand.IntN(calls)]); err != nil {
				return err
			}
		}
		return nil
	})
	for key, holders := range game.holders {
		highest := uint64(0)
		for fence := range holders {
			highest = max(highest, fence)
		}
		if got := h.take(key, "last"); got.Fence != highest+1 {
			h.Fatalf("fence %d after %d", got.Fence, highest)
		}
	}
}

// game is what all owners know.
type game struct {
	*harness
	mu      sync.Mutex // guards holders
	holders map[dialog.StoreKey]map[uint64]string
}

// given notes that an owner has got a fence.
func (g *game) given(r dialog.Record) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if other, twice := g.holders[r.Key][r.Fence]; twice {
		return fmt.Errorf("fence %d was given to %q and to %q", r.Fence, other, r.Owner)
	}
	g.holders[r.Key][r.Fence] = r.Owner
	return nil
}

// highest is the highest fence that was given so far.
func (g *game) highest(key dialog.StoreKey) (highest uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for fence := range g.holders[key] {
		highest = max(highest, fence)
	}
	return highest
}

// player is one of the owners.
type player struct {
	*game
	name string
	held map[dialog.StoreKey]dialog.Record
}

func (p *player) step(key dialog.StoreKey) error {
	r, holds := p.held[key]
	switch choice := rand.IntN(10); {
	case !holds || choice == 0:
		taken, err := p.Take(p.ctx, key, p.name)
		if err != nil {
			return err
		}
		return p.got(taken)
	case choice == 1:
		list, err := p.Due(p.ctx, time.Now(), p.name, 2)
		for _, r := range list {
			if err := p.got(r); err != nil {
				return err
			}
		}
		return err
	case choice < 6:
		r.Data = []byte(p.name)
		r.Due = time.Now().Add(time.Duration(rand.IntN(3)-1) * time.Minute)
		return p.still(r, p.Save(p.ctx, r))
	default:
		return p.still(r, p.Check(p.ctx, key, r.Fence))
	}
}

func (p *player) got(r dialog.Record) error {
	if before := p.held[r.Key].Fence; r.Fence <= before || r.Owner != p.name {
		return fmt.Errorf("fence %d of %q after %d of %q", r.Fence, r.Owner, before, p.name)
	}
	p.held[r.Key] = r
	return p.given(r)
}

// still reads the result of a Save or Check: it fails only where there is a higher fence.
// Another owner may not have noted yet that it was given that.
func (p *player) still(r dialog.Record, err error) error {
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, dialog.ErrMoved):
		return err
	}
	delete(p.held, r.Key)
	if !comes(func() bool { return p.highest(r.Key) > r.Fence }) {
		return fmt.Errorf("fence %d has moved, and nobody has a higher one", r.Fence)
	}
	return nil
}
