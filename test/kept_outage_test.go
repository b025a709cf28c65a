package test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

// load places calls from a to b at a steady rate, each of which lasts for a while, and notes
// how long they took to be set up.
type load struct {
	mu     sync.Mutex // guards the fields below
	setups []time.Duration
	ended  map[string]int // by cause
	failed []error
}

func (l *load) call(a *dialog.Stack, to sip.Uri, lasts time.Duration) {
	ctx, began := context.Background(), time.Now()
	d, err := a.NewInvite(ctx, to, offer(offerSDP))
	if err == nil {
		err = d.(*dialog.Dialog).WaitAnswer(ctx)
	}
	took := time.Since(began)
	if err == nil {
		time.Sleep(lasts)
		err = d.(*dialog.Dialog).Bye(ctx, "")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed = append(l.failed, err)
		return
	}
	l.setups = append(l.setups, took)
	l.ended[d.(*dialog.Dialog).Cause().By.String()]++
}

// The store is down for a minute while calls come and go: none fails or ends by it, the
// set-up takes no longer than the StoreTimeout more, and once the store is back it soon has
// the calls that there are, and no other.
func TestStoreIsDownUnderLoad(t *testing.T) {
	const lasts, timeout = 3 * time.Second, 250 * time.Millisecond
	refuses := func(context.Context, string) error { return errChaos }
	for name, c := range map[string]struct {
		fault func(context.Context, string) error
		rate  time.Duration // calls a second
	}{
		"refuses":         {refuses, 20},
		"silent":          {silent, 200},
		"prompt, refuses": {refuses, 20},
		"prompt, silent":  {silent, 20},
	} {
		fault, rate := c.fault, c.rate
		bubble(t, func(t *testing.T, w *world) {
			store := newFaultyStore()
			a, b := w.stack(otherIP), w.stack(stackIP, keeping(promptIf(strings.HasPrefix(name, "prompt"), store)))
			b.OnIncomingDialog(func(d dialog.IDialog) { _ = d.Accept(context.Background(), withSDP(answerSDP)) })
			w.hush(true)
			l, calls := &load{ended: map[string]int{}}, sync.WaitGroup{}
			runs := func(during time.Duration) {
				for range during / (time.Second / rate) {
					calls.Go(func() { l.call(a, uri("bob", stackIP), lasts) })
					time.Sleep(time.Second / rate)
				}
			}
			runs(10 * time.Second)
			synctest.Wait()
			require.Equal(t, len(b.Dialogs())+int(b.Stats().Unwritten), store.Len(), name)
			store.fails(fault)
			runs(time.Minute)
			require.NotZero(t, b.Stats().Unsaved)
			store.fails(nil)
			runs(10 * time.Second)
			synctest.Wait()
			require.Equal(t, len(b.Dialogs())+int(b.Stats().Unwritten), store.Len(), name)
			calls.Wait()
			time.Sleep(time.Second)
			require.Empty(t, l.failed)
			require.Equal(t, map[string]int{"local": 80 * int(rate)}, l.ended)
			slices.Sort(l.setups)
			t.Log(name, "median", l.setups[len(l.setups)/2], "longest", l.setups[len(l.setups)-1])
			require.Less(t, l.setups[len(l.setups)*99/100], timeout)
			require.Zero(t, store.Len())
			require.Zero(t, b.Stats().Unwritten)
		})
	}
}
