package test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/store/memory"
)

// deployment is a process that is replaced, and the one that gets its calls.
type deployment struct {
	*world
	store    *memory.Store
	old, new *dialog.Stack
	link     *link
}

func (w *world) deployment(change ...func(*dialog.StackConfig)) *deployment {
	p := &deployment{world: w, store: memory.New()}
	p.old, p.link = w.process(stackIP, p.store, change...)
	p.new, _ = w.process(otherIP, p.store, change...)
	return p
}

// ends lets the old process hand over within that time, and end. No call must hear of it.
func (p *deployment) ends(limit time.Duration) error {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err := p.old.HandOver(ctx)
	require.NoError(p.t, p.old.Shutdown(context.Background()))
	return err
}

// goesOn checks that the new process has a call, and ends it.
func (p *deployment) goesOn(l *peerCall) {
	p.t.Helper()
	l.stack = p.new.Addr()
	l.ask("INFO")
	require.Equal(p.t, 200, l.peer.final("INFO").StatusCode)
	l.ask("BYE")
	require.Equal(p.t, 200, l.peer.final("BYE").StatusCode)
}

// No peer hears of a deployment: calls at rest are the other process's at once.
func TestHandOverGivesCallsToAnotherProcess(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.deployment()
		calls := []*peerCall{w.incoming(p.old, w.peer("10.0.0.21")), w.outgoing(p.old, w.peer("10.0.0.22"))}
		seen := watch(calls[0].d)
		began := time.Now()
		require.NoError(t, p.ends(time.Minute))
		require.Less(t, time.Since(began), time.Second)
		require.Empty(t, w.sent(stackIP, "BYE"))
		require.Equal(t, []dialog.DialogState{dialog.DialogStateTerminated}, seen.seen())
		for _, l := range calls {
			require.Equal(t, dialog.PartyMoved, l.d.Cause().By)
			require.ErrorIs(t, l.d.Cause().Err, dialog.ErrMoved)
			require.ErrorIs(t, l.d.Hold(context.Background()), dialog.ErrTerminated)
			p.goesOn(l)
		}
		require.EqualValues(t, 2, p.old.Stats().Ended[dialog.PartyMoved])
	})
}

// No request is needed: a call that was handed over is due, and not refreshed before its time.
func TestCallsHandedOverAreTakenWithoutARequest(t *testing.T) {
	for name, interval := range map[string]time.Duration{"with a session timer": 30 * time.Minute, "without": 0} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := w.deployment(func(c *dialog.StackConfig) { c.SessionExpires = interval })
				restored := restoring(p.new)
				l := w.incoming(p.old, w.peer(peerIP))
				require.NoError(t, p.ends(time.Minute))
				time.Sleep(15 * time.Second)
				l.takenOver(restored, "")
				require.Empty(t, w.sent(otherIP, "INVITE"))
				require.Empty(t, w.sent(otherIP, "UPDATE"))
				p.goesOn(l)
			})
		})
	}
}

// A call that was handed over is taken once, and by another process: the old process does not
// search, and the new one saves the call, so that it is not due again.
func TestCallsHandedOverAreTakenOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const calls = 10
		p := w.deployment()
		third, _ := w.process("10.0.0.4", p.store)
		peer := w.peer(peerIP)
		for i := range calls {
			w.incoming(p.old, peer, func(r *dialogtest.Request) { r.CallID = fmt.Sprint("handed-", i) })
		}
		require.NoError(t, p.old.HandOver(context.Background()))
		time.Sleep(5 * time.Minute)
		require.Zero(t, p.old.Stats().TakenOver)
		require.EqualValues(t, calls, p.new.Stats().TakenOver+third.Stats().TakenOver)
		require.Equal(t, calls, len(p.new.Dialogs())+len(third.Dialogs()))
		w.answersAll(peer, "", dialogtest.Response{})
		for _, s := range []*dialog.Stack{p.new, third} {
			for _, d := range s.Dialogs() {
				require.NoError(t, d.Close())
			}
		}
		time.Sleep(time.Second)
		require.Zero(t, p.store.Len())
	})
}

// Calls in setup, and exchanges in progress, are finished first.
func TestHandOverWaitsForExchangesInProgress(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.deployment()
		caller := w.peer("10.0.0.30")
		ringing, placed := w.rings(p.old, w.peer("10.0.0.21")), w.alerting(p.old, w.peer("10.0.0.22"))
		busy := w.incoming(p.old, w.peer("10.0.0.23"))
		again := began(func() error { return busy.d.ReInvite(context.Background(), offer(versioned(offerSDP, 2))) })
		reinvite := busy.next("INVITE")
		ended := began(func() error { return p.ends(time.Hour) })
		time.Sleep(10 * time.Second)
		require.Empty(t, ended)
		caller.refuses(p.old, another("new"))

		require.NoError(t, ringing.d.Accept(context.Background(), withSDP(answerSDP)))
		ringing.final = ringing.next("200 INVITE")
		time.Sleep(time.Second)
		require.Equal(t, dialog.DialogStateEstablished, ringing.d.State(), "its ACK has not come yet")
		ringing.acknowledge(1)
		placed.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		time.Sleep(time.Second)
		require.Empty(t, ended)
		busy.reply(reinvite, dialogtest.Response{Code: 200, ToTag: farTag, Body: answerSDP})
		require.NoError(t, <-again)
		require.NoError(t, <-ended)
		require.Empty(t, w.sent(stackIP, "BYE"))
		for _, l := range []*peerCall{ringing, placed, busy} {
			p.goesOn(l)
		}
	})
}

// When the time is over, established calls are saved as they are; others are ended.
func TestHandOverSavesBusyCallsAtTheEndOfItsTime(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.deployment()
		busy, ringing := w.incoming(p.old, w.peer("10.0.0.21")), w.rings(p.old, w.peer("10.0.0.22"))
		again := began(func() error { return busy.d.ReInvite(context.Background(), offer(versioned(offerSDP, 2))) })
		busy.next("INVITE")
		err := p.ends(10 * time.Second)
		var left *dialog.DrainError
		require.ErrorAs(t, err, &left)
		require.Equal(t, 1, left.Calls)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Error(t, <-again)
		require.Equal(t, 503, ringing.peer.final("INVITE").StatusCode)
		require.Empty(t, w.sent(stackIP, "BYE"))
		p.goesOn(busy)
	})
}

// A request may still come to the old process: it takes the call back, and lets go of it.
func TestARequestForACallHandedOverIsServed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.deployment()
		l := w.incoming(p.old, w.peer(peerIP))
		require.NoError(t, p.old.HandOver(context.Background()))
		l.ask("INFO")
		require.Equal(t, 200, l.peer.final("INFO").StatusCode)
		require.Len(t, p.old.Dialogs(), 1)
		time.Sleep(time.Minute)
		require.NoError(t, p.old.HandOver(context.Background()), "once more")
		l.ask("INFO")
		require.Equal(t, 200, l.peer.final("INFO").StatusCode)
		require.NoError(t, p.old.Shutdown(context.Background()))
		require.Empty(t, w.sent(stackIP, "BYE"))
		p.goesOn(l)
	})
}

// Calls that the Store did not accept are ended: no other process could continue them.
func TestCallsThatTheStoreRefusesAreEndedByShutdown(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.deployment()
		l := w.incoming(p.old, w.peer(peerIP))
		p.link.cut()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		var left *dialog.DrainError
		require.ErrorAs(t, p.old.HandOver(ctx), &left)
		require.Equal(t, 1, left.Calls)
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		shut := began(func() error { return p.old.Shutdown(context.Background()) })
		l.reply(l.next("BYE"), dialogtest.Response{Code: 200})
		require.NoError(t, <-shut)
	})
}

func TestHandOverNeedsAStoreAndARunningStack(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		require.ErrorIs(t, w.stack(stackIP).HandOver(context.Background()), dialog.ErrInvalidArgument)
		s, err := dialog.NewStack(&dialog.StackConfig{Store: memory.New()})
		require.NoError(t, err)
		require.ErrorIs(t, s.HandOver(context.Background()), dialog.ErrNotStarted)
		var none context.Context
		require.ErrorIs(t, s.HandOver(none), dialog.ErrInvalidArgument)
		require.NoError(t, s.Shutdown(context.Background()))
		require.ErrorIs(t, s.HandOver(context.Background()), dialog.ErrShutdown)
	})
}

// Any event may cross HandOver: a call ends on both sides, or continues in the other process.
func TestHandOverMayCrossEverything(t *testing.T) {
	for name, crosses := range map[string]func(p *deployment, l *peerCall){
		"BYE of the peer": func(_ *deployment, l *peerCall) { _ = l.Send(l.stack, l.Request(l.made("BYE"))) },
		"re-INVITE": func(_ *deployment, l *peerCall) {
			_ = l.Send(l.stack, l.Request(l.made("INVITE", withBody(versioned(offerSDP, 2)))))
		},
		"INFO":     func(_ *deployment, l *peerCall) { _ = l.Send(l.stack, l.Request(l.made("INFO"))) },
		"Bye":      func(_ *deployment, l *peerCall) { _ = l.d.Bye(context.Background(), "") },
		"ReInvite": func(_ *deployment, l *peerCall) { _ = l.d.ReInvite(context.Background(), dialog.InviteOpts{}) },
		"HandOver": func(p *deployment, _ *peerCall) { _ = p.old.HandOver(context.Background()) },
		"Shutdown": func(p *deployment, _ *peerCall) { _ = p.old.Shutdown(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			for range 30 {
				bubble(t, func(t *testing.T, w *world) {
					p := w.deployment()
					l := w.incoming(p.old, w.peer(peerIP))
					stop := l.answers(func(req *sip.Request) int { return 200 })
					atOnce(2, func(i int) {
						if i == 0 {
							_ = p.old.HandOver(context.Background())
							return
						}
						crosses(p, l)
					})
					time.Sleep(40 * time.Second)
					require.NoError(t, p.old.Shutdown(context.Background()))
					time.Sleep(40 * time.Second)
					stop()
					told := len(w.sent(stackIP, "BYE"))+len(w.sent(stackIP, "200 BYE")) > 0
					if told {
						require.Empty(t, p.new.Dialogs(), "the call has ended")
						return
					}
					require.Len(t, p.new.Dialogs(), 1, "the call goes on: %v", w.flow())
					if name == "re-INVITE" {
						require.NotEmpty(t, w.sent(stackIP, "200 INVITE"))
					}
					p.goesOn(l)
				})
			}
		})
	}
}

// Fields of a later version stay in a record, whichever process has the call meanwhile.
func TestARollingDeployKeepsFieldsOfALaterVersion(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const added = `"zz":{"b":[1,2,{"a":"\u003c\u0026\u003e"}],"a":1.50}`
		p := w.deployment()
		l := w.incoming(p.old, w.peer(peerIP))
		key := dialog.NewStoreKey(l.callID, l.stackTag)
		require.NoError(t, p.old.HandOver(context.Background()))
		r, err := p.store.Take(context.Background(), key, "a later version")
		require.NoError(t, err)
		r.Data = []byte(strings.TrimSuffix(string(r.Data), "}") + "," + added + "}")
		require.NoError(t, p.store.Save(context.Background(), r))

		l.ask("INFO")
		require.Equal(t, 200, l.peer.final("INFO").StatusCode)
		require.NoError(t, p.old.HandOver(context.Background()))
		r, err = p.store.Take(context.Background(), key, "a later version")
		require.NoError(t, err)
		require.Contains(t, string(r.Data), ","+added+"}")
		require.NoError(t, p.store.Save(context.Background(), r))
		p.goesOn(l)
	})
}

// A process is replaced under load: every call goes on, and each request is answered.
func TestADeployUnderLoadLosesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.deployment()
		var calls []*peerCall
		for i := range 60 {
			l := w.rings(p.old, w.peer(fmt.Sprintf("10.0.1.%d", i+1)))
			calls = append(calls, l)
			if i%3 > 0 {
				l.accepted()
			}
		}
		asking, cancel := context.WithCancel(context.Background())
		asked := make(chan error, len(calls))
		for i, l := range calls {
			go func() {
				if i%3 == 0 {
					time.Sleep(time.Duration(i*50) * time.Millisecond)
					err := l.d.Accept(context.Background(), withSDP(answerSDP))
					l.final = l.next("200 INVITE")
					l.acknowledge(1)
					asked <- err
					return
				}
				var err error
				for n := 0; asking.Err() == nil && err == nil; n++ {
					_ = l.Send(l.stack, l.Request(l.made("INFO")))
					if code := l.peer.final("INFO").StatusCode; code != 200 {
						err = errors.New(fmt.Sprint("INFO got ", code))
					}
					time.Sleep(time.Duration(30+i) * time.Millisecond)
				}
				asked <- err
			}()
		}
		time.Sleep(time.Second)
		ended := began(func() error { return p.old.HandOver(context.Background()) })
		time.Sleep(10 * time.Second)
		cancel()
		for range calls {
			require.NoError(t, <-asked)
		}
		require.NoError(t, <-ended)
		require.NoError(t, p.old.Shutdown(context.Background()))
		require.Empty(t, w.sent(stackIP, "BYE"))
		for _, l := range calls {
			p.goesOn(l)
		}
	})
}
