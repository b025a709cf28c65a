package test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
	"sipdialog.example/dialog/store/memory"
)

// clock is a Store as a process sees it whose clock is ahead, or behind, of all others. With
// relative the Store has a clock of its own, and times are sent to it as differences, as Redis
// is; otherwise it takes the times as they are.
type clock struct {
	dialog.Store
	t        *testing.T
	ahead    time.Duration
	relative bool
}

// shifted is a record whose times are those of another clock.
func (c *clock) shifted(r dialog.Record, by time.Duration) dialog.Record {
	if !c.relative {
		for _, at := range []*time.Time{&r.Due, &r.Expires} {
			if !at.IsZero() {
				*at = at.Add(by)
			}
		}
	}
	snapshot := new(dialog.Snapshot)
	require.NoError(c.t, json.Unmarshal(r.Data, snapshot))
	snapshot.Established += by.Milliseconds()
	if snapshot.TimerEnds != 0 {
		snapshot.TimerEnds += by.Milliseconds()
	}
	text, err := json.Marshal(snapshot)
	require.NoError(c.t, err)
	r.Data = text
	return r
}

func (c *clock) Save(ctx context.Context, r dialog.Record) error {
	return c.Store.Save(ctx, c.shifted(r, c.ahead))
}

func (c *clock) Take(ctx context.Context, key dialog.StoreKey, owner string) (dialog.Record, error) {
	r, err := c.Store.Take(ctx, key, owner)
	if err == nil {
		r = c.shifted(r, -c.ahead)
	}
	return r, err
}

func (c *clock) Due(ctx context.Context, before time.Time, owner string, n int) ([]dialog.Record, error) {
	if !c.relative {
		before = before.Add(c.ahead)
	}
	list, err := c.Store.Due(ctx, before, owner, n)
	for i := range list {
		list[i] = c.shifted(list[i], -c.ahead)
	}
	return list, err
}

// within is next with another limit.
func (p *peer) within(what string, limit time.Duration) dialogtest.Received {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for {
		got, err := p.Recv(ctx)
		require.NoError(p.t, err, "waiting for %s", what)
		if testkit.Describe(got.Message) == what {
			return got
		}
	}
}

// clocksThatDiffer are the clocks under which no call may end: with a Store that has a clock of
// its own any, else those that differ by less than an eighth of the interval.
func clocksThatDiffer(t *testing.T, test func(t *testing.T, interval time.Duration, relative bool, ahead time.Duration)) {
	for _, c := range []struct {
		interval time.Duration
		relative bool
		ahead    []time.Duration
	}{
		{30 * time.Minute, true, []time.Duration{10 * time.Minute, -10 * time.Minute}},
		{90 * time.Second, true, []time.Duration{10 * time.Minute, -10 * time.Minute}},
		{30 * time.Minute, false, []time.Duration{3 * time.Minute, -3 * time.Minute}},
		{90 * time.Second, false, []time.Duration{4 * time.Second, -4 * time.Second}},
	} {
		for _, ahead := range c.ahead {
			t.Run(fmt.Sprintf("%v, relative %v, ahead %v", c.interval, c.relative, ahead), func(t *testing.T) {
				test(t, c.interval, c.relative, ahead)
			})
		}
	}
}

// A difference of clocks neither moves a call from a living process nor ends it.
func TestClocksThatDifferLeaveLiveCallsAlone(t *testing.T) {
	clocksThatDiffer(t, func(t *testing.T, interval time.Duration, relative bool, ahead time.Duration) {
		for _, ours := range []bool{true, false} {
			bubble(t, func(t *testing.T, w *world) {
				store := memory.New()
				s, _ := w.process(stackIP, store)
				other := w.stack(otherIP, func(c *dialog.StackConfig) { c.Store = &clock{store, t, ahead, relative} })
				taken := restoring(other)
				p := w.peer(peerIP)
				l := w.withTimer(s, p, "callee", interval, ours)
				if ours {
					w.answersAll(p, "UPDATE", grants(interval))
				}
				for range 12 {
					time.Sleep(interval / 2)
					if !ours {
						l.theirs("UPDATE", 200, withHeaders("Supported: timer", fmt.Sprintf("Session-Expires: %d;refresher=uac", int(interval.Seconds()))))
					}
				}
				require.Empty(t, taken.all())
				require.Equal(t, dialog.DialogStateEstablished, l.d.State())
				require.Equal(t, l.d, oneCall(t, s))
				require.NoError(t, l.d.Close())
				synctest.Wait()
				require.Empty(t, w.sent(otherIP, "BYE"))
			})
		}
	})
}

// A process whose clock differs goes on with a call, by a request or since it is overdue, and
// refreshes it before its peer's clock ends the session; or does not end it before that.
func TestClocksThatDifferEndNoCallThatIsTakenOver(t *testing.T) {
	clocksThatDiffer(t, func(t *testing.T, interval time.Duration, relative bool, ahead time.Duration) {
		for _, ours := range []bool{true, false} {
			for _, byRequest := range []bool{true, false} {
				late := interval - min(32*time.Second, interval/3) - 20*time.Second // the peer refreshes as late as it may
				if !relative && !ours {
					if late = interval / 2; !byRequest {
						continue // its lateness is noticed by the clock of who looks for it
					}
				}
				bubble(t, func(t *testing.T, w *world) {
					store := memory.New()
					s, k := w.process(stackIP, store)
					other := w.stack(otherIP, func(c *dialog.StackConfig) { c.Store = &clock{store, t, ahead, relative} })
					p := w.peer(peerIP)
					began := time.Now()
					l := w.withTimer(s, p, "callee", interval, ours)
					w.kill(s, k)
					l.stack = other.Addr()
					if byRequest {
						l.theirs("INFO", 200)
						l.d = oneCall(t, other)
					}
					if byRequest && !ours {
						time.Sleep(late)
						l.theirs("UPDATE", 200, withHeaders("Supported: timer", fmt.Sprintf("Session-Expires: %d;refresher=uac", int(interval.Seconds()))))
					} else {
						in := p.within("UPDATE", interval)
						require.Less(t, time.Since(began), interval)
						require.Equal(t, otherIP, in.From.Addr().String())
						p.reply(in, grants(interval))
						synctest.Wait()
						l.d = oneCall(t, other)
					}
					require.Equal(t, dialog.DialogStateEstablished, l.d.State())
					hangUp(t, l.d, p)
					require.Zero(t, store.Len())
				})
			}
		}
	})
}
