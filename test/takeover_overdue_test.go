package test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
	"sipdialog.example/dialog/store/memory"
)

// sweep is the longest time from the moment at which a session is due until another process
// refreshes it: the pause between two sweeps, and the spread of refreshes.
const sweep = 7500*time.Millisecond + 2*time.Second

// withTimer makes a call of either role with a session timer, which we refresh or the peer.
func (w *world) withTimer(s *dialog.Stack, p *peer, role string, interval time.Duration, ours bool) *peerCall {
	w.t.Helper()
	by := "uac"
	if ours == (role == "callee") {
		by = "uas"
	}
	timer := fmt.Sprintf("Session-Expires: %d;refresher=%s", int(interval.Seconds()), by)
	if role == "callee" {
		return w.incoming(s, p, withHeaders("Supported: timer", timer, "Allow: INVITE, UPDATE"))
	}
	l := w.outgoing(s, p, timer, "Require: timer", "Allow: INVITE, UPDATE")
	l.next("ACK")
	return l
}

// grants answers an UPDATE of the stack's for that interval.
func grants(interval time.Duration) dialogtest.Response {
	return dialogtest.Response{Code: 200, Headers: []string{fmt.Sprintf("Session-Expires: %d;refresher=uac", int(interval.Seconds())), "Allow: INVITE, UPDATE"}}
}

// Another process refreshes a session whose process has died, whichever side the refresher
// was, and whenever the process died: after an eighth of the interval, or shortly before its
// end. It continues to do so.
func TestOverdueSessionIsRefreshedByAnotherProcess(t *testing.T) {
	for _, interval := range []time.Duration{90 * time.Second, 30 * time.Minute} {
		expires := interval - min(32*time.Second, interval/3) // RFC 4028 10
		for _, role := range []string{"callee", "caller"} {
			for _, ours := range []bool{true, false} {
				due := expires - 10*time.Second
				if ours {
					due = min(due, interval/2+interval/8)
				}
				for _, dies := range []time.Duration{0, interval / 4, interval/2 - time.Second} {
					t.Run(fmt.Sprintf("%v, %s, ours %v, dies after %v", interval, role, ours, dies), func(t *testing.T) {
						bubble(t, func(t *testing.T, w *world) {
							store := memory.New()
							s, k := w.process(stackIP, store)
							other, _ := w.process(otherIP, store)
							taken := restoring(other)
							p := w.peer(peerIP)
							l := w.withTimer(s, p, role, interval, ours)
							began := time.Now()
							time.Sleep(dies)
							w.kill(s, k)
							time.Sleep(due - dies - time.Second)
							require.Empty(t, other.Dialogs(), "nobody was late yet")
							in := p.next("UPDATE")
							require.Equal(t, otherIP, in.From.Addr().String())
							require.GreaterOrEqual(t, time.Since(began), due)
							require.LessOrEqual(t, time.Since(began), min(due+sweep, expires))
							p.reply(in, grants(interval))
							l.takenOver(taken, "")
							time.Sleep(interval/2 - time.Second)
							p.reply(p.next("UPDATE"), grants(interval))
							synctest.Wait()
							require.Equal(t, dialog.DialogStateEstablished, l.d.State())
							require.Len(t, taken.all(), 1, "nobody takes it from an owner that refreshes")
							hangUp(t, l.d, p)
							require.Zero(t, store.Len())
						})
					})
				}
			}
		}
	}
}

// All processes are down for most of the interval, and then one is back, at the same
// address: what is overdue is refreshed at once; else the peer finds the call.
func TestAllProcessesAreDown(t *testing.T) {
	const interval = 30 * time.Minute
	for _, role := range []string{"callee", "caller"} {
		for _, ours := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, ours %v", role, ours), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					store := memory.New()
					s, k := w.process(stackIP, store)
					p := w.peer(peerIP)
					l := w.withTimer(s, p, role, interval, ours)
					w.kill(s, k)
					time.Sleep(interval * 9 / 10)
					s, _ = w.process(stackIP, store)
					if ours {
						began := time.Now()
						p.reply(p.next("UPDATE"), grants(interval))
						require.LessOrEqual(t, time.Since(began), 2*time.Second)
					} else {
						l.theirs("UPDATE", 200, withHeaders("Supported: timer", fmt.Sprintf("Session-Expires: %d;refresher=uac", int(interval.Seconds()))))
					}
					synctest.Wait()
					time.Sleep(interval / 3)
					l.d = oneCall(t, s)
					require.Equal(t, dialog.DialogStateEstablished, l.d.State())
					hangUp(t, l.d, p)
				})
			})
		}
	}
	t.Run("beyond the interval", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			store := memory.New()
			s, k := w.process(stackIP, store)
			p := w.peer(peerIP)
			l := w.withTimer(s, p, "callee", interval, false)
			w.kill(s, k)
			time.Sleep(2 * interval)
			s, _ = w.process(stackIP, store)
			p.reply(p.next("UPDATE"), grants(interval))
			synctest.Wait()
			l.d = oneCall(t, s)
			hangUp(t, l.d, p)
		})
	})
}

// The refresh proves that the call is alive. A peer that knows it no longer, or says nothing,
// ends it.
func TestOverdueSessionWhosePeerHasGoneEnds(t *testing.T) {
	for name, answer := range map[string]func(p *peer){
		"481": func(p *peer) {
			p.reply(p.next("UPDATE"), dialogtest.Response{Code: 481})
			p.reply(p.next("BYE"), dialogtest.Response{Code: 481})
		},
		"408": func(p *peer) {
			p.reply(p.next("UPDATE"), dialogtest.Response{Code: 408})
			p.reply(p.next("BYE"), dialogtest.Response{Code: 481})
		},
		"nothing": func(p *peer) {
			p.next("UPDATE")
			p.next("BYE")
			time.Sleep(64 * time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				store := memory.New()
				s, k := w.process(stackIP, store)
				p := w.peer(peerIP)
				w.withTimer(s, p, "callee", 90*time.Second, true)
				w.kill(s, k)
				s, _ = w.process(stackIP, store)
				answer(p)
				synctest.Wait()
				require.Empty(t, s.Dialogs())
				require.Zero(t, store.Len())
			})
		})
	}
}

// Of several processes one takes each overdue call, and nothing is done twice. What is held
// between sweeps is a timer.
func TestEachOverdueCallIsTakenOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const calls = 40
		store := memory.New()
		s, k := w.process(stackIP, store)
		var others []*dialog.Stack
		var links []*link
		for i := range 3 {
			o, link := w.process(fmt.Sprintf("10.0.1.%d", i+1), store)
			others, links = append(others, o), append(links, link)
		}
		p := w.peer(peerIP)
		for i := range calls {
			w.incoming(s, p, withHeaders("Supported: timer", "Session-Expires: 90;refresher=uas", "Allow: INVITE, UPDATE"),
				func(r *dialogtest.Request) { r.CallID = fmt.Sprint("overdue-", i) })
		}
		require.Equal(t, calls, store.Len())
		w.kill(s, k)
		w.answersAll(p, "UPDATE", grants(90*time.Second))
		time.Sleep(59 * time.Second)
		synctest.Wait()
		total, sent := 0, 0
		for i, o := range others {
			total += len(o.Dialogs())
			sent += len(w.sent(o.Addr().Addr().String(), "UPDATE"))
			require.Zero(t, testkit.Held(o).Tasks)
			require.NotZero(t, links[i].calls("DueIf"))
			require.Less(t, links[i].calls("DueIf"), 59*10/25, "a sweep each 5 s")
		}
		require.Equal(t, calls, total)
		require.Equal(t, calls, sent)
		time.Sleep(5 * time.Minute)
		for i, o := range others {
			require.NoError(t, o.Shutdown(context.Background()))
			before := links[i].calls("DueIf")
			time.Sleep(time.Minute)
			require.Equal(t, before, links[i].calls("DueIf"), "nothing is left of it")
		}
		w.stacks = nil
		require.Zero(t, store.Len())
	})
}

// answersAll has a peer answer each request of a kind, and any BYE, until the end.
func (w *world) answersAll(p *peer, method string, r dialogtest.Response) {
	go func() {
		for {
			in, err := p.Recv(context.Background())
			if err != nil {
				return
			}
			switch testkit.Describe(in.Message) {
			case method:
				_ = p.Reply(in, r)
			case "BYE":
				_ = p.Reply(in, dialogtest.Response{Code: 200})
			}
		}
	}()
}

// A call that is here, and that others have had since, is old here: its CSeq numbers are below
// theirs, so that the peer would refuse all it sends, its BYE too. What the Store has goes on.
func TestOverdueCallThatOthersHadMeanwhileIsRestored(t *testing.T) {
	for _, others := range []int{0, 2} {
		bubble(t, func(t *testing.T, w *world) {
			store := newFaultyStore()
			s, p := w.stack(stackIP, keeping(store)), w.peer(peerIP)
			restored := make(chan *dialog.Dialog, 2)
			s.OnRestored(func(d *dialog.Dialog, _ dialog.Takeover) { restored <- d })
			l := w.incoming(s, p)
			r := store.latest()
			for range others {
				taken, err := store.kept.Take(context.Background(), r.Key, "other")
				require.NoError(t, err)
				r = taken
			}
			r.Due = time.Now()
			require.NoError(t, store.kept.Save(context.Background(), r))
			time.Sleep(10 * time.Second) // a sweep
			if others == 0 {
				require.Empty(t, restored)
				require.Equal(t, dialog.DialogStateEstablished, l.d.State())
				return
			}
			require.Len(t, restored, 1)
			require.Equal(t, dialog.PartyMoved, l.d.Cause().By)
			again := <-restored
			ended := began(func() error { return again.SendInfo(context.Background(), nil) })
			got := p.next("INFO")
			require.Greater(t, got.Message.(*sip.Request).CSeq().SeqNo, uint32(200))
			p.reply(got, dialogtest.Response{Code: 200})
			require.NoError(t, <-ended)
		})
	}
}

// A session that is due within an eighth of its interval is refreshed at once by the process
// that it is handed over to, though its own time for that has not come.
func TestSessionThatIsDueSoonIsRefreshedWhenHandedOver(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		store := memory.New()
		s, _ := w.process(stackIP, store)
		p := w.peer(peerIP)
		w.withTimer(s, p, "callee", 90*time.Second, true)
		time.Sleep(40 * time.Second) // its refresh is at 45 s, and another process would look at 50 s
		require.NoError(t, s.HandOver(context.Background()))
		began := time.Now()
		other, _ := w.process(otherIP, store)
		in := p.next("UPDATE")
		require.Equal(t, otherIP, in.From.Addr().String())
		require.LessOrEqual(t, time.Since(began), 2*time.Second)
		p.reply(in, grants(90*time.Second))
		synctest.Wait()
		hangUp(t, oneCall(t, other), p)
	})
}

// A process takes 200 overdue calls at once, ten times a second, until none is left: many of
// them do not swamp it.
func TestOverdueCallsAreTakenInBatches(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const calls, batch, pause = 1100, 200, 100 * time.Millisecond
		ctx, store := context.Background(), memory.New()
		s, k := w.process(stackIP, store)
		p := w.peer(peerIP)
		l := w.withTimer(s, p, "callee", 30*time.Minute, true)
		w.kill(s, k)
		r, err := store.Take(ctx, dialog.NewStoreKey(l.callID, l.stackTag), "gone")
		require.NoError(t, err)
		require.NoError(t, store.Drop(ctx, r.Key, r.Fence, 0))
		text := string(r.Data)
		for i := range calls {
			id := fmt.Sprint("overdue-", i)
			r.Key, r.Data, r.Due = dialog.NewStoreKey(id, l.stackTag), []byte(strings.ReplaceAll(text, l.callID, id)), time.Now()
			require.NoError(t, store.Save(ctx, r))
		}
		w.hush(true)
		w.answersAll(p, "UPDATE", grants(30*time.Minute))
		other, _ := w.process(otherIP, store, func(c *dialog.StackConfig) { c.MaxDialogs = 2 * calls })
		time.Sleep(pause / 2)
		for taken := batch; taken < calls; taken += batch {
			synctest.Wait()
			require.Equal(t, taken, len(other.Dialogs()))
			time.Sleep(pause)
		}
		synctest.Wait()
		require.Equal(t, calls, len(other.Dialogs()))
	})
}
