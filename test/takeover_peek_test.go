package test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/store/memory"
)

// cannotGoOn are processes that cannot go on with a call of another one.
var cannotGoOn = map[string]func(*dialog.StackConfig){
	"an older version": func(c *dialog.StackConfig) {
		c.Seal = func(data []byte) ([]byte, error) { return data, nil }
		c.Open = func(data []byte) ([]byte, error) {
			return []byte(strings.Replace(string(data), `"v":1`, `"v":2`, 1)), nil
		}
	},
	"another key": func(c *dialog.StackConfig) {
		c.Seal = func(data []byte) ([]byte, error) { return data, nil }
		c.Open = func([]byte) ([]byte, error) { return nil, errors.New("unknown key") }
	},
	"no snapshot": func(c *dialog.StackConfig) {
		c.Seal = func(data []byte) ([]byte, error) { return data, nil }
		c.Open = func([]byte) ([]byte, error) { return []byte("\x00garbage"), nil }
	},
	"a filter": func(c *dialog.StackConfig) {
		c.TakeoverFilter = func(*dialog.Snapshot) bool { return false }
	},
}

// A request that reaches a process which cannot go on with its call leaves the call to its
// owner: it goes on there.
func TestCallStaysWithItsOwnerIfAnotherProcessCannotUseIt(t *testing.T) {
	for name, change := range cannotGoOn {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				store := memory.New()
				l, _ := w.keptCall("callee", store)
				owner := l.stack
				other, k := w.process(otherIP, store, change)
				for range 3 {
					l.stack = other.Addr()
					for _, method := range []string{"INFO", "INVITE", "BYE"} {
						refusedForNow(t, l.answerTo(method))
					}
					l.stack = owner
					l.theirs("INFO", 200)
					time.Sleep(40 * time.Second) // what the Store has said is old, here and there
				}
				require.Zero(t, k.calls("Take"))
				require.Equal(t, dialog.DialogStateEstablished, l.d.State())
				hangUp(t, l.d, l.peer) // it asks the Store before
				require.Equal(t, dialog.PartyLocal, l.d.Cause().By)
				require.Zero(t, store.Len())
			})
		})
	}
}

// An overdue call stays, too: with an owner that the Store could not reach for a while, and
// for another process which can go on with it, whatever stands before it.
func TestOverdueCallStaysForWhoCanUseIt(t *testing.T) {
	for name, change := range cannotGoOn {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				store := memory.New()
				s, k := w.process(stackIP, store)
				p := w.peer(peerIP)
				l := w.withTimer(s, p, "callee", 30*time.Minute, false)
				other, k2 := w.process(otherIP, store, change)
				k.cut()
				// The peer refreshes, and the Store does not learn it: the record is overdue.
				for range 2 {
					time.Sleep(14 * time.Minute)
					require.Equal(t, 200, l.answerTo("UPDATE", withHeaders("Supported: timer", "Session-Expires: 1800;refresher=uac")).StatusCode)
				}
				time.Sleep(5 * time.Minute)
				require.Empty(t, other.Dialogs())
				k.meets(nil)
				time.Sleep(time.Minute)
				require.Equal(t, dialog.DialogStateEstablished, l.d.State())
				l.theirs("INFO", 200)
				require.NotZero(t, k2.calls("DueIf"))

				// Its owner dies: a process that can go on with it does.
				w.kill(s, k)
				time.Sleep(24 * time.Minute)
				able, _ := w.process(stackIP, store)
				time.Sleep(sweep)
				p.reply(p.next("UPDATE"), grants(30*time.Minute))
				hangUp(t, oneCall(t, able), p)
			})
		})
	}
}

// With a Store that does not show records the owner loses the call, and the next request of
// the peer brings it back.
func TestCallComesBackFromAStoreThatShowsNothing(t *testing.T) {
	for name, change := range cannotGoOn {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				store := memory.New()
				l, _ := w.keptCall("callee", store)
				first, owner := l.d, l.stack
				other := w.stack(otherIP, func(c *dialog.StackConfig) { c.Store = struct{ dialog.Store }{store} }, change)
				l.stack = other.Addr()
				refusedForNow(t, l.answerTo("INFO"))
				<-first.Done()
				require.Equal(t, dialog.PartyMoved, first.Cause().By)
				l.stack = owner
				s, _ := w.stackAt(owner)
				l.theirs("INFO", 200)
				hangUp(t, oneCall(t, s), l.peer)
			})
		})
	}
}
