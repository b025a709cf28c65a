package test

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/registry"
	"sipdialog.example/dialog/internal/testhook"
	"sipdialog.example/dialog/internal/testkit"
)

// An idle call runs nothing. A timer that fires starts a goroutine, whether or not it finds
// work, and so does all other code of the package; goroutines are numbered, so the test can
// tell whether any started, however short it was.

// beginnings counts the goroutines that begin.
type beginnings struct{ last int }

// countBeginnings has the runtime number goroutines one by one: there is one
// processor only, and the collector of garbage begins none.
func countBeginnings(t *testing.T) *beginnings {
	processors, percent := runtime.GOMAXPROCS(1), debug.SetGCPercent(-1)
	t.Cleanup(func() {
		runtime.GOMAXPROCS(processors)
		debug.SetGCPercent(percent)
	})
	runtime.GC()
	b := &beginnings{}
	for range 2 * 16 { // a processor takes 16 numbers at a time: others may have taken some in between
		b.since()
	}
	return b
}

// newGoroutine begins a goroutine and returns its number.
func newGoroutine() int {
	number := make(chan int)
	go func() {
		var id int
		_, _ = fmt.Fscanf(bytes.NewReader(debug.Stack()), "goroutine %d ", &id)
		number <- id
	}()
	return <-number
}

// since returns how many have begun since the last call.
func (b *beginnings) since() int {
	last := b.last
	b.last = newGoroutine()
	return b.last - last - 1
}

// attended is a world in which whatever runs must have a reason.
type attended struct {
	*world
	begun *beginnings
}

// attended makes a world attended, from now on.
func (w *world) attended() *attended { return &attended{world: w, begun: countBeginnings(w.t)} }

// passes lets time pass, and fails for each second in which code of the package ran although
// no message was sent and no state of a stack changed: a timer that was not stopped.
func (w *attended) passes(span time.Duration) {
	w.t.Helper()
	synctest.Wait()
	for second := range int(span / time.Second) {
		held, said := w.held(), w.said()
		w.begun.since()
		time.Sleep(time.Second)
		synctest.Wait()
		if ran := w.begun.since(); ran > 0 && said == w.said() && slices.Equal(held, w.held()) {
			w.t.Errorf("in second %d of %v: %d timers have fired to no purpose", second, span, ran)
		}
	}
}

// rests lets the transactions end, and then an hour pass in which nothing runs.
func (w *attended) rests() {
	w.t.Helper()
	w.passes(5 * time.Minute)
	w.begun.since()
	time.Sleep(time.Hour)
	synctest.Wait()
	require.Zero(w.t, w.begun.since(), "timers that have fired in an hour")
}

// said is how many messages were sent so far.
func (w *attended) said() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.log)
}

// held is what each stack holds.
func (w *attended) held() (list []testhook.Held) {
	for _, s := range w.stacks {
		list = append(list, testkit.Held(s))
	}
	return list
}

// pasts make established calls in which nothing happens, each with a past of its own.
var pasts = map[string]func(t *testing.T, w *attended){
	"answered at once": func(t *testing.T, w *attended) {
		w.established(w.stack(stackIP), w.stack(otherIP))
	},
	"rang for a while": func(t *testing.T, w *attended) {
		w.answeredAfter(w.stack(stackIP), w.stack(otherIP), 100*time.Second)
	},
	"rang reliably": func(t *testing.T, w *attended) {
		reliably := reliability(dialog.ReliableRequired)
		w.answeredAfter(w.stack(stackIP, reliably), w.stack(otherIP, reliably), 170*time.Second)
	},
	"a transfer whose subscription ended without a reason": func(t *testing.T, w *attended) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		result := waits(l.refers())
		require.Equal(t, 200, l.notifies("2", "active;expires=60", "SIP/2.0 100 Trying"))
		require.Equal(t, 200, l.notifies("2", "terminated", "SIP/2.0 180 Ringing"))
		w.passes(time.Minute) // the refresh would have been in its middle
		<-result
	},
	"a provisional response that no PRACK came for": func(t *testing.T, w *attended) {
		p := w.peer(peerIP)
		l := w.rings(w.stack(stackIP), p, withHeaders(demands))
		w.passes(2 * time.Second)
		require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
		p.next("200 INVITE")
		l.acknowledge(1)
	},
	"an ACK that was late": func(t *testing.T, w *attended) {
		p := w.peer(peerIP)
		l := w.rings(w.stack(stackIP), p)
		require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
		w.passes(5 * time.Second)
		l.acknowledge(1)
	},
	"re-INVITEs": func(t *testing.T, w *attended) {
		caller, callee := w.established(w.stack(stackIP), w.stack(otherIP))
		require.NoError(t, caller.ReInvite(context.Background(), offer(offerSDP)))
		require.NoError(t, callee.ReInvite(context.Background(), offer(answerSDP)))
		require.NoError(t, caller.Hold(context.Background()))
	},
	"a re-INVITE that was refused": func(t *testing.T, w *attended) {
		p := w.peer(peerIP)
		l := w.outgoing(w.stack(stackIP), p)
		refused := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
		in := p.next("INVITE")
		w.passes(5 * time.Second)
		p.reply(in, dialogtest.Response{Code: 488})
		require.Error(t, <-refused)
	},
	"a re-INVITE that was cancelled": func(t *testing.T, w *attended) {
		p := w.peer(peerIP)
		l := w.outgoing(w.stack(stackIP), p)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		given := began(func() error { return l.d.ReInvite(ctx, offer(offerSDP)) })
		in := p.next("INVITE")
		p.reply(in, dialogtest.Response{Code: 100})
		p.reply(p.next("CANCEL"), dialogtest.Response{Code: 200})
		p.reply(in, dialogtest.Response{Code: 487})
		require.ErrorIs(t, <-given, context.DeadlineExceeded)
	},
	"a re-INVITE that crossed ours": func(t *testing.T, w *attended) {
		p := w.peer(peerIP)
		l := w.outgoing(w.stack(stackIP), p)
		again := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 491})
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, <-again)
	},
	"offers decided by the application": func(t *testing.T, w *attended) {
		caller, callee := w.established(w.stack(stackIP), w.stack(otherIP))
		callee.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
			return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
		})
		require.NoError(t, caller.ReInvite(context.Background(), offer(offerSDP)))
		_, err := caller.Update(context.Background(), dialog.NewBody("application/sdp", []byte(offerSDP)))
		require.NoError(t, err)
	},
	"requests answered by the application": func(t *testing.T, w *attended) {
		caller, callee := w.established(w.stack(stackIP), w.stack(otherIP))
		require.NoError(t, callee.OnRequest("INFO", func(context.Context, *sip.Request) dialog.Answer { return dialog.Answer{Status: 200} }))
		require.NoError(t, caller.SendInfo(context.Background(), dialog.NewBody("text/plain", []byte("x"))))
	},
	"a session timer that the peer has ended": func(t *testing.T, w *attended) {
		p := w.peer(peerIP)
		_, made := w.timed(w.stack(stackIP), p, "1800;refresher=uas")
		w.passes(10 * time.Second)
		w.say(p, w.stacks[0], p.Request(made("UPDATE", 11)))
		p.next("200 UPDATE")
	},
	"forks of which one was chosen": func(t *testing.T, w *attended) {
		opts := offer(offerSDP)
		opts.Choose = func(info dialog.ForkInfo) bool { time.Sleep(time.Second); return info.RemoteTag == "B" }
		f := w.forks(opts)
		f.says("A", 180, "")
		f.says("A", 200, answerSDP)
		f.says("B", 200, answerSDP)
		f.at["A"].reply(f.at["A"].next("BYE"), dialogtest.Response{Code: 200})
		require.NoError(t, f.d.WaitAnswer(context.Background()))
	},
	"one that it replaces": func(t *testing.T, w *attended) {
		s, p, other := w.stack(stackIP, authorizing(func(context.Context, dialog.TakeoverRequest) dialog.Answer {
			return dialog.Answer{}
		})), w.peer(peerIP), w.peer(otherIP)
		old := w.incoming(s, p)
		calls := waiting(s)
		w.passes(3 * time.Second) // so that not all transactions end together
		other.invites(s, "Replaces: "+old.naming())
		w.passes(5 * time.Second)
		require.NoError(t, (<-calls).Accept(context.Background(), withSDP(answerSDP)))
		other.acknowledges(s, other.final("INVITE"))
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
	},
	"a transfer that is over": func(t *testing.T, w *attended) {
		a, b, c := w.stack(stackIP), w.stack(otherIP), w.stack(peerIP)
		caller, callee := w.established(a, b)
		c.OnIncomingDialog(func(d dialog.IDialog) { _ = d.Accept(context.Background(), withSDP(answerSDP)) })
		followsRefers(context.Background(), b, offer(offerSDP))
		require.NoError(t, caller.Refer(context.Background(), uri("carol", peerIP), dialog.ReferOpts{}))
		transfer, err := caller.WaitRefer(context.Background())
		require.NoError(t, err)
		<-transfer.Done()
		require.NoError(t, callee.Bye(context.Background(), ""))
	},
	"a transfer that nobody waits for any more": func(t *testing.T, w *attended) {
		r := w.outgoing(w.stack(stackIP), w.peer(peerIP)).refers()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, err := r.Wait(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	},
	"a transfer whose outcome is known before it is over": func(t *testing.T, w *attended) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		result := waits(l.refers())
		w.passes(5 * time.Second)
		require.Equal(t, 200, l.notifies("2", "active;expires=100", "SIP/2.0 200 OK\r\n"))
		require.Equal(t, 200, (<-result).Status)
	},
}

// answeredAfter makes a call that rings for a while.
func (w *attended) answeredAfter(a, b *dialog.Stack, span time.Duration) {
	w.t.Helper()
	calls := waiting(b)
	d, err := a.NewInvite(context.Background(), uri("bob", b.Addr().Addr().String()), offer(offerSDP))
	require.NoError(w.t, err)
	call := <-calls
	w.passes(span)
	require.NoError(w.t, call.Accept(context.Background(), withSDP(answerSDP)))
	require.NoError(w.t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
}

// FT9: an established call in which nothing happens has no timer, and no goroutine.
func TestNothingRunsForACallInWhichNothingHappens(t *testing.T) {
	for name, past := range pasts {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				attended := w.attended()
				past(t, attended)
				attended.rests()
				for _, left := range attended.held() {
					require.Equal(t, testhook.Held{Sizes: registry.Sizes{Dialogs: left.Dialogs, Aliases: left.Aliases}}, left)
				}
			})
		})
	}
}

// withTimers makes a call that a session timer watches.
func (w *attended) withTimers() (caller, callee *dialog.Dialog) {
	w.t.Helper()
	return w.established(w.stack(stackIP, lasting(30*time.Minute)), w.stack(otherIP))
}

// waysToEnd are ways in which calls end.
var waysToEnd = map[string]func(t *testing.T, w *attended){
	"BYE": func(t *testing.T, w *attended) {
		caller, _ := w.withTimers()
		w.passes(10 * time.Second)
		require.NoError(t, caller.Bye(context.Background(), ""))
	},
	"a BYE of the peer's, before its ACK": func(t *testing.T, w *attended) {
		l := w.rings(w.stack(stackIP), w.peer(peerIP))
		require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
		w.passes(10 * time.Second)
		l.ask("BYE")
	},
	"no ACK": func(t *testing.T, w *attended) {
		p := w.peer(peerIP)
		l := w.rings(w.stack(stackIP), p)
		require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
		w.passes(40 * time.Second)
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
	},
	"a refusal": func(t *testing.T, w *attended) {
		l := w.alerting(w.stack(stackIP), w.peer(peerIP))
		w.passes(10 * time.Second)
		l.answer(dialogtest.Response{Code: 486})
	},
	"a refusal of ours": func(t *testing.T, w *attended) {
		l := w.rings(w.stack(stackIP), w.peer(peerIP), withHeaders(demands))
		w.passes(10 * time.Second)
		require.NoError(t, l.d.Reject(context.Background(), 486, ""))
		l.acknowledge(1)
	},
	"a CANCEL": func(t *testing.T, w *attended) {
		p := w.peer(peerIP)
		l := w.alerting(w.stack(stackIP), p)
		w.passes(10 * time.Second)
		require.NoError(t, l.d.Close())
		p.reply(p.next("CANCEL"), dialogtest.Response{Code: 200})
		l.answer(dialogtest.Response{Code: 487})
	},
	"a CANCEL of the peer's": func(t *testing.T, w *attended) {
		l := w.rings(w.stack(stackIP), w.peer(peerIP))
		w.passes(10 * time.Second)
		l.cancels()
		l.acknowledge(1)
	},
	"Close, with a transfer under way": func(t *testing.T, w *attended) {
		caller, callee := w.withTimers()
		require.NoError(t, caller.Refer(context.Background(), uri("carol", peerIP), dialog.ReferOpts{}))
		w.passes(10 * time.Second)
		require.NoError(t, caller.Close())
		require.NoError(t, callee.Close())
	},
	"Close, with a re-INVITE under way": func(t *testing.T, w *attended) {
		p := w.peer(peerIP)
		l := w.outgoing(w.stack(stackIP), p)
		given := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
		in := p.next("INVITE")
		p.reply(in, dialogtest.Response{Code: 100})
		w.passes(10 * time.Second)
		l.over()
		require.ErrorIs(t, <-given, dialog.ErrTerminated)
		p.reply(p.next("CANCEL"), dialogtest.Response{Code: 200})
		p.reply(in, dialogtest.Response{Code: 487})
	},
	"a decision that did not come": func(t *testing.T, w *attended) {
		caller, callee := w.withTimers()
		require.NoError(t, callee.OnRequest("INFO", func(ctx context.Context, _ *sip.Request) dialog.Answer {
			<-ctx.Done()
			return dialog.Answer{Status: 200}
		}))
		asked := began(func() error { return caller.SendInfo(context.Background(), dialog.NewBody("text/plain", []byte("x"))) })
		synctest.Wait()
		require.NoError(t, callee.Bye(context.Background(), ""))
		require.Error(t, <-asked)
	},
}

// FT3, FT9: nothing is left of a call that has ended: no count of its source, no
// timer.
func TestNothingRunsForACallThatHasEnded(t *testing.T) {
	for name, end := range waysToEnd {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				attended := w.attended()
				end(t, attended)
				attended.rests()
				for _, left := range attended.held() {
					require.Zero(t, left)
				}
			})
		})
	}
}

// FT9: Shutdown leaves no timer, whatever there was: calls of which something
// happened just before, have ended just before, or have just begun.
func TestNothingRunsAfterShutdown(t *testing.T) {
	states := map[string]func(t *testing.T, w *attended){
		"ringing": func(t *testing.T, w *attended) {
			w.rings(w.stack(stackIP), w.peer(peerIP), withHeaders(demands))
		},
		"calling": func(t *testing.T, w *attended) { w.alerting(w.stack(stackIP), w.peer(peerIP)) },
		"no ACK": func(t *testing.T, w *attended) {
			l := w.rings(w.stack(stackIP), w.peer(peerIP))
			require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
		},
	}
	for _, table := range []map[string]func(t *testing.T, w *attended){pasts, waysToEnd} {
		for name, state := range table {
			states[name] = state
		}
	}
	for name, state := range states {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				attended := w.attended()
				state(t, attended)
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				for _, s := range w.stacks {
					_ = s.Shutdown(ctx) // the scripted peers do not answer
				}
				w.stacks = nil
				cancel()
				attended.rests()
			})
		})
	}
}

// FT9: the watch over the connection of an incoming call over a WebSocket ends with the 2xx: a
// later loss of the connection has no effect until the next request.
func TestNothingRunsWhenTheConnectionOfAnAnsweredCallIsLost(t *testing.T) {
	for _, answered := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			a, b := w.site(stackIP, "ws", nil), w.site(peerIP, "ws", nil)
			calls := waiting(b.Stack)
			d, err := a.NewInvite(context.Background(), b.uri("bob"), offer(offerSDP))
			require.NoError(t, err)
			call := <-calls
			if answered {
				require.NoError(t, call.Accept(context.Background(), withSDP(answerSDP)))
				require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
			}
			synctest.Wait()
			begun := countBeginnings(t)
			w.net.BreakStreams()
			synctest.Wait()
			require.Equal(t, answered, begun.since() == 0)
		})
	}
}
