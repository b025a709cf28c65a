package test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// crowd is how many calls are in each state when the stack is shut down.
const crowd = 100

// shutdownCase brings a stack's calls into one state. The counts are what
// Shutdown has to own up to when it has no time and the peer says nothing.
type shutdownCase struct {
	name string
	far  func(f *scriptedPeer)
	// begin makes the calls; afterwards all of them are in the state.
	begin func(t *testing.T, s *dialog.Stack, f *scriptedPeer)
	// unreleased: RFC 3261 9.1 and 15 forbade to tell the peer. unanswered: it
	// was told and has not answered.
	unreleased, unanswered int
	// told is the message that each peer has heard even so.
	told string
	// patience is the least that a Shutdown with time takes.
	patience time.Duration
}

var (
	ringing = dialogtest.Response{Code: 180, ToTag: "far"}
	takes   = dialogtest.Response{Code: 200, ToTag: "far", Body: answerSDP}
	hears   = dialogtest.Response{Code: 100}
)

func shutdownCases() []shutdownCase {
	return []shutdownCase{
		{
			name: "Trying, and nothing heard", begin: placeCalls, unreleased: crowd, patience: 32 * time.Second,
		},
		{
			name: "Trying, and 100 heard", begin: placeCalls, unanswered: crowd, told: "CANCEL",
			far: func(f *scriptedPeer) { f.invite = []dialogtest.Response{hears} },
		},
		{
			name: "Ringing there", begin: placeCalls, unanswered: crowd, told: "CANCEL",
			far: func(f *scriptedPeer) { f.invite = []dialogtest.Response{ringing} },
		},
		{
			name: "Ringing here", told: "503 INVITE",
			begin: func(t *testing.T, s *dialog.Stack, f *scriptedPeer) {
				s.OnIncomingDialog(func(dialog.IDialog) {})
				f.calls(s, crowd)
			},
		},
		{
			name: "before the peer's ACK", unreleased: crowd, told: "200 INVITE", patience: 32 * time.Second,
			far: func(f *scriptedPeer) { f.noAck = true },
			begin: func(t *testing.T, s *dialog.Stack, f *scriptedPeer) {
				s.OnIncomingDialog(func(d dialog.IDialog) { _ = d.Accept(context.Background(), withSDP(answerSDP)) })
				f.calls(s, crowd)
			},
		},
		{
			name: "before our ACK", unanswered: crowd, told: "BYE",
			far:   func(f *scriptedPeer) { f.invite = []dialogtest.Response{ringing} },
			begin: func(t *testing.T, s *dialog.Stack, f *scriptedPeer) { decideForEver(t, s, f) },
		},
		{
			name: "Established", begin: establish, unanswered: crowd, told: "BYE",
			far: func(f *scriptedPeer) { f.invite = []dialogtest.Response{ringing, takes} },
		},
		{
			name: "re-INVITE pending there", unanswered: crowd, told: "BYE",
			far: func(f *scriptedPeer) { f.invite, f.again = []dialogtest.Response{takes}, []dialogtest.Response{hears} },
			begin: func(t *testing.T, s *dialog.Stack, f *scriptedPeer) {
				establish(t, s, f)
				for _, d := range s.Dialogs() {
					go func() { _ = d.ReInvite(context.Background(), offer(offerSDP)) }()
				}
			},
		},
		{
			name: "re-INVITE pending here", unanswered: crowd, told: "BYE",
			far:   func(f *scriptedPeer) { f.invite = []dialogtest.Response{takes} },
			begin: reinviteForEver,
		},
		{
			name: "REFER pending", unanswered: crowd, told: "BYE",
			far: func(f *scriptedPeer) { f.invite = []dialogtest.Response{takes} },
			begin: func(t *testing.T, s *dialog.Stack, f *scriptedPeer) {
				establish(t, s, f)
				for _, d := range s.Dialogs() {
					require.NoError(t, d.SendRefer(context.Background(), uri("carol", "10.0.0.7"), nil))
					go func() { _, _ = d.WaitRefer(context.Background()) }()
				}
			},
		},
	}
}

func placeCalls(t *testing.T, s *dialog.Stack, f *scriptedPeer) {
	for range crowd {
		_, err := s.NewInvite(context.Background(), uri("far", f.ip), offer(offerSDP))
		require.NoError(t, err)
	}
}

func establish(t *testing.T, s *dialog.Stack, f *scriptedPeer) {
	placeCalls(t, s, f)
	for _, d := range s.Dialogs() {
		require.NoError(t, d.WaitAnswer(context.Background()))
	}
}

// decideForEver makes calls without an offer; the one in the 200 is never
// answered by the application.
func decideForEver(t *testing.T, s *dialog.Stack, f *scriptedPeer) {
	for range crowd {
		d, err := s.NewInvite(context.Background(), uri("far", f.ip), dialog.InviteOpts{})
		require.NoError(t, err)
		d.(*dialog.Dialog).OnOffer(untilTheEnd)
	}
	synctest.Wait()
	f.mu.Lock()
	var open []dialogtest.Received
	for _, in := range f.invites {
		open = append(open, in)
	}
	f.mu.Unlock()
	for _, in := range open {
		f.say(in, takes)
	}
}

func untilTheEnd(ctx context.Context, _ dialog.Body) (dialog.Body, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// reinviteForEver has the peer send re-INVITEs that the application never
// decides.
func reinviteForEver(t *testing.T, s *dialog.Stack, f *scriptedPeer) {
	establish(t, s, f)
	for _, d := range s.Dialogs() {
		d.OnOffer(untilTheEnd)
		key := d.Key()
		require.NoError(t, f.Send(s.Addr(), f.Request(dialogtest.Request{
			Method: "INVITE", URI: "sip:stack@" + s.Addr().String(), CallID: key.CallID, FromTag: "far", ToTag: key.LocalTag, CSeq: 7, Body: offerSDP,
		})))
	}
}

// shutdownWorld is one case, ready to be shut down.
func shutdownWorld(t *testing.T, c shutdownCase, test func(t *testing.T, w *world, s *dialog.Stack, f *scriptedPeer)) {
	t.Run(c.name, func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			s, f := w.stack("10.0.0.1"), w.scriptedPeer("10.0.0.9")
			defer f.close()
			w.stacks = nil // shut down by the test
			if c.far != nil {
				c.far(f)
			}
			c.begin(t, s, f)
			synctest.Wait()
			require.Len(t, s.Dialogs(), crowd)
			test(t, w, s, f)
		})
	})
}

// With a context beyond 64*T1 Shutdown leaves nothing behind, on either side,
// whatever the calls were about to do.
func TestShutdownWithTimeLeavesNoCallHalfOpen(t *testing.T) {
	for _, c := range shutdownCases() {
		shutdownWorld(t, c, func(t *testing.T, w *world, s *dialog.Stack, f *scriptedPeer) {
			calls := s.Dialogs()
			ctx, cancel := context.WithTimeout(context.Background(), 80*time.Second)
			defer cancel()
			began := time.Now()
			require.NoError(t, s.Shutdown(ctx))
			require.GreaterOrEqual(t, time.Since(began), c.patience-time.Second)
			synctest.Wait()
			require.Empty(t, f.halfOpen())
			require.Zero(t, testkit.Held(s))
			for _, d := range calls {
				require.Equal(t, dialog.DialogStateTerminated, d.State())
				require.Equal(t, dialog.PartyShutdown, d.Cause().By)
			}
		})
	}
}

// With no time Shutdown says what may be told, and counts exactly the rest.
func TestShutdownWithoutTimeCountsTheCallsLeft(t *testing.T) {
	for _, c := range shutdownCases() {
		shutdownWorld(t, c, func(t *testing.T, w *world, s *dialog.Stack, f *scriptedPeer) {
			f.silence()
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			began := time.Now()
			err := s.Shutdown(ctx)
			require.Zero(t, time.Since(began))
			synctest.Wait()
			if c.unreleased+c.unanswered == 0 {
				require.NoError(t, err)
			} else {
				var left *dialog.ShutdownError
				require.ErrorAs(t, err, &left)
				require.ErrorIs(t, err, context.Canceled)
				require.Equal(t, c.unreleased, left.Unreleased, "unreleased")
				require.Equal(t, c.unanswered, left.Unanswered, "unanswered")
			}
			if c.told != "" {
				f.mu.Lock()
				defer f.mu.Unlock()
				require.Len(t, f.heard, crowd)
				for id, heard := range f.heard {
					require.True(t, heard[c.told], "%s has heard %v", id, heard)
				}
			}
			require.Zero(t, testkit.Held(s))
		})
	}
}

func TestShutdownInsideACallbackIsOneThatDoesNotReturn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		caller, _ := w.established(a, b)
		w.stacks = w.stacks[1:]
		result := make(chan error, 1)
		states := watch(caller)
		caller.OnStateChange(func(dialog.DialogState) { result <- a.Shutdown(context.Background()) })
		began := time.Now()
		require.NoError(t, caller.Close())
		var left *dialog.ShutdownError
		require.ErrorAs(t, <-result, &left)
		require.Equal(t, dialog.ShutdownError{Callbacks: 1}, *left)
		require.Equal(t, 5*time.Second, time.Since(began), "the grace time")
		require.Equal(t, []dialog.DialogState{dialog.DialogStateTerminated}, states.seen())
		synctest.Wait()
		require.Zero(t, testkit.Held(a))
		require.Len(t, w.sent("10.0.0.2", "200 BYE"), 1)
	})
}

func TestShutdownsAtOnceHaveOneResult(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, f := w.stack("10.0.0.1"), w.scriptedPeer("10.0.0.9")
		defer f.close()
		w.stacks = nil
		f.invite = []dialogtest.Response{takes}
		establish(t, a, f)
		f.silence()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		results := make(chan error, 20)
		go func() { results <- a.Shutdown(ctx) }()
		synctest.Wait()
		for range 19 {
			go func() { results <- a.Shutdown(context.Background()) }()
		}
		first := <-results
		require.Error(t, first)
		for range 19 {
			require.Equal(t, first, <-results)
		}
		require.Equal(t, first, a.Shutdown(context.Background()))
		impatient, stop := context.WithCancel(context.Background())
		stop()
		require.Error(t, a.Shutdown(impatient))
	})
}

func TestShutdownBeforeStart(t *testing.T) {
	s, err := dialog.NewStack(nil)
	require.NoError(t, err)
	require.NoError(t, s.Shutdown(context.Background()))
	require.ErrorIs(t, s.Start(context.Background()), dialog.ErrShutdown)
	require.NoError(t, s.Shutdown(context.Background()))
	_, err = s.NewInvite(context.Background(), uri("bob", "10.0.0.2"), dialog.InviteOpts{})
	require.ErrorIs(t, err, dialog.ErrShutdown)
}

func TestShutdownWithoutAContext(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack("10.0.0.1")
		var none context.Context
		require.ErrorIs(t, a.Shutdown(none), dialog.ErrInvalidArgument)
		_, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err, "nothing was shut down")
	})
}

// A callback that never returns costs the grace time, or less when the context
// is shorter; everything else is over by then.
func TestShutdownLeavesACallbackThatNeverReturns(t *testing.T) {
	for limit, cost := range map[time.Duration]time.Duration{time.Hour: 5 * time.Second, time.Second: time.Second} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
				leave := make(chan struct{})
				defer close(leave)
				b.OnIncomingDialog(func(d dialog.IDialog) {
					_ = d.Accept(context.Background(), withSDP(answerSDP))
					<-leave
				})
				d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
				require.NoError(t, err)
				require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
				synctest.Wait()
				w.stacks = w.stacks[:1]
				ctx, cancel := context.WithTimeout(context.Background(), limit)
				defer cancel()
				began := time.Now()
				var left *dialog.ShutdownError
				require.ErrorAs(t, b.Shutdown(ctx), &left)
				require.Equal(t, cost, time.Since(began))
				require.Equal(t, 1, left.Callbacks)
				require.Zero(t, left.Unanswered+left.Unreleased)
				require.Equal(t, dialog.DialogStateTerminated, d.State())
				socket, err := w.net.Host("10.0.0.2").ListenPacket(context.Background(), "udp", "10.0.0.2:5060")
				require.NoError(t, err, "the port is free")
				require.NoError(t, socket.Close())
			})
		})
	}
}

// While a stack shuts down it takes no call and makes none, and still answers.
func TestAStackThatShutsDownTakesNoCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, f := w.stack("10.0.0.1"), w.scriptedPeer("10.0.0.9")
		defer f.close()
		f.invite = []dialogtest.Response{hears}
		a.OnIncomingDialog(func(dialog.IDialog) { t.Error("a call was offered") })
		placeCalls(t, a, f)
		synctest.Wait()
		f.silence()
		done := make(chan error, 1)
		go func() { done <- a.Shutdown(context.Background()) }()
		synctest.Wait()
		_, err := a.NewInvite(context.Background(), uri("far", "10.0.0.9"), offer(offerSDP))
		require.ErrorIs(t, err, dialog.ErrShutdown)
		p := w.peer("10.0.0.8")
		require.NoError(t, p.Send(a.Addr(), p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:a@10.0.0.1", Body: offerSDP})))
		require.NotNil(t, p.next("503 INVITE").Response().GetHeader("Retry-After"))
		require.NoError(t, <-done, "each CANCEL was given 64*T1")
	})
}

// FT7: the 503 of a stack that shuts down says when to try again (RFC 3261 21.5.4), to
// a call that rings as to one that comes meanwhile.
func TestShutdownSaysWhenToTryAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP), w.peer(peerIP)
		established := w.incoming(s, w.peer(otherIP)) // keeps the stack from being over at once
		l := w.rings(s, p)
		down := began(func() error { return s.Shutdown(context.Background()) })
		refused := p.next("503 INVITE").Message
		require.NotEmpty(t, testkit.Value(refused, "Retry-After"))
		l.acknowledge(1)
		p.invites(s)
		require.Equal(t, testkit.Value(refused, "Retry-After"), testkit.Value(p.next("503 INVITE").Message, "Retry-After"))
		established.reply(established.next("BYE"), dialogtest.Response{Code: 200})
		require.NoError(t, <-down)
	})
}

// many is more calls than Shutdown ends at once, unanswered how many BYEs it leaves so.
const many, unanswered = 1700, 1000

func manyCalls(t *testing.T, test func(w *world, s *dialog.Stack, f *scriptedPeer)) {
	bubble(t, func(t *testing.T, w *world) {
		s, f := w.stack("10.0.0.1", func(c *dialog.StackConfig) { c.MaxDialogs = -1 }), w.scriptedPeer("10.0.0.9")
		defer f.close()
		w.stacks = nil // shut down by the test
		f.invite = []dialogtest.Response{takes}
		for range many {
			d, err := s.NewInvite(context.Background(), uri("far", f.ip), offer(offerSDP))
			require.NoError(t, err)
			require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		}
		synctest.Wait()
		f.silence()
		test(w, s, f)
	})
}

// RFC 3261 17.1.2.2 repeats a BYE after T1: the next calls end when the answers to
// those before have come, or once the peers have had half of that time.
// FA9: docs/concurrency.md (Shutdown) has the figures.
func TestShutdownOfManyCallsLetsThePeersKeepUp(t *testing.T) {
	manyCalls(t, func(w *world, s *dialog.Stack, f *scriptedPeer) {
		began, done := time.Now(), make(chan error, 1)
		go func() { done <- s.Shutdown(context.Background()) }()
		synctest.Wait()
		byes := w.sent("10.0.0.1", "BYE")
		require.Len(t, byes, unanswered)
		for _, bye := range byes[:800] {
			require.NoError(t, f.Reply(dialogtest.Received{From: bye.from, Message: bye.msg}, dialogtest.Response{Code: 200}))
		}
		synctest.Wait()
		require.Len(t, w.sent("10.0.0.1", "BYE"), unanswered+500, "200 have not been answered")
		require.Zero(t, time.Since(began))
		time.Sleep(250 * time.Millisecond)
		synctest.Wait()
		require.Len(t, w.sent("10.0.0.1", "BYE"), many)
		require.NoError(t, <-done, "each BYE was given 64*T1")
		require.Zero(t, testkit.Held(s))
	})
}

func TestShutdownOfManyCallsInHasteTellsAll(t *testing.T) {
	manyCalls(t, func(w *world, s *dialog.Stack, f *scriptedPeer) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(ctx) }()
		synctest.Wait()
		cancel()
		began := time.Now()
		var left *dialog.ShutdownError
		require.ErrorAs(t, <-done, &left)
		require.Zero(t, time.Since(began))
		require.Equal(t, many, left.Unanswered)
		require.Zero(t, left.Unreleased)
		require.Len(t, w.sent("10.0.0.1", "BYE"), many)
	})
}

// overtime is what Shutdown may take longer than its context.
const overtime = 100 * time.Millisecond

// downIn shuts a stack down within a time, and returns what is left.
func (w *world) downIn(s *dialog.Stack, limit time.Duration) dialog.ShutdownError {
	w.t.Helper()
	w.stacks = nil
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	began := time.Now()
	err := s.Shutdown(ctx)
	require.LessOrEqual(w.t, time.Since(began), limit+overtime)
	if err == nil {
		return dialog.ShutdownError{}
	}
	var left *dialog.ShutdownError
	require.ErrorAs(w.t, err, &left)
	return *left
}

// nowhere is a Contact that neither answers nor refuses connections.
func nowhere(transport string) string {
	return "Contact: <sip:peer@10.9.9.9:5099;transport=" + transport + ">"
}

// FD16: Shutdown waited for the grace time, or longer, for what could not be sent.
func TestShutdownWithABlackHoledContactEndsWithItsContext(t *testing.T) {
	for name, call := range map[string]func(w *world, s *dialog.Stack){
		"a BYE": func(w *world, s *dialog.Stack) {
			w.established1(s, nowhere("tcp"))
		},
		"a BYE over TLS": func(w *world, s *dialog.Stack) {
			w.established1(s, nowhere("tls"))
		},
		"a BYE to a WebSocket": func(w *world, s *dialog.Stack) {
			w.established1(s, nowhere("ws"))
		},
		"a request before the BYE": func(w *world, s *dialog.Stack) {
			l := w.established1(s, nowhere("tcp"))
			go func() { _ = l.d.SendInfo(context.Background(), nil) }()
		},
		"a NOTIFY": func(w *world, s *dialog.Stack) {
			s.OnIncomingRefer(func(dialog.IDialog, sip.Uri, *dialog.ReplacesInfo) {})
			l := w.established1(s, nowhere("tcp"))
			l.ask("REFER", withHeaders("Refer-To: <sip:c@"+otherIP+">"))
		},
		"the callee's BYE": func(w *world, s *dialog.Stack) {
			w.incoming(s, w.peer(peerIP), withHeaders(nowhere("tcp")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, limit := range []time.Duration{0, time.Second} {
				bubble(t, func(t *testing.T, w *world) {
					s := w.stack(stackIP)
					call(w, s)
					synctest.Wait()
					for _, d := range s.Dialogs() {
						d.OnStateChange(func(dialog.DialogState) { time.Sleep(10 * time.Millisecond) }) // the writes have used up their time
						d.OnBody(func(dialog.Body) {})
					}
					left := w.downIn(s, limit)
					require.Equal(t, [3]int{1, 0, 0}, [3]int{left.Unreleased, left.Unanswered, left.Callbacks})
					require.ErrorIs(t, left.Cause, context.DeadlineExceeded)
					synctest.Wait()
					require.Zero(t, testkit.Held(s))
				})
			}
		})
	}
}

// established1 is an outgoing call whose 2xx has a header.
func (w *world) established1(s *dialog.Stack, header string) *peerCall {
	w.t.Helper()
	l := w.calls(s, w.peer(peerIP), offer(offerSDP))
	l.answer(dialogtest.Response{Code: 200, Headers: []string{header}, Body: answerSDP})
	synctest.Wait()
	l.tag, l.seq = farTag, 1
	return l
}

// FD16: nil is for those only of which everybody was told.
func TestShutdownOwnsUpToAPeerThatWasKilled(t *testing.T) {
	toTCP := func(w *world, s *dialog.Stack) *streamCall {
		return w.outgoingTCP(s, w.peer(peerIP), "Contact: <sip:peer@"+peerIP+":5070;transport=tcp>")
	}
	for name, c := range map[string]struct {
		kill  func(w *world, s *dialog.Stack)
		limit time.Duration
		left  [2]int // unreleased, unanswered
	}{
		"its port is closed": {func(w *world, s *dialog.Stack) { toTCP(w, s); w.net.BreakStreams() }, time.Minute, [2]int{1, 0}},
		"its host is gone": {func(w *world, s *dialog.Stack) {
			toTCP(w, s)
			w.net.BreakStreams()
			w.net.Host(peerIP).Unreachable(true)
		}, time.Minute, [2]int{1, 0}},
		"it does not read": {func(w *world, s *dialog.Stack) {
			l := w.incomingTCP(s, w.peer(peerIP), withHeaders("Contact: <sip:peer@"+peerIP+":5070;transport=tcp>"))
			for range 3 {
				go func() {
					_ = l.d.SendInfo(context.Background(), dialog.NewBody("text/plain", bytes.Repeat([]byte("x"), 60<<10)))
				}()
			}
			synctest.Wait()
		}, time.Second, [2]int{0, 1}},
		"silent":                  {func(w *world, s *dialog.Stack) { w.outgoing(s, w.peer(peerIP)) }, time.Minute, [2]int{}},
		"silent, and little time": {func(w *world, s *dialog.Stack) { w.outgoing(s, w.peer(peerIP)) }, time.Second, [2]int{0, 1}},
		"silent while it rings":   {func(w *world, s *dialog.Stack) { w.alerting(s, w.peer(peerIP)) }, time.Second, [2]int{0, 1}},
		"its connection breaks with the BYE on it": {func(w *world, s *dialog.Stack) {
			l := w.incomingTCP(s, w.peer(peerIP), withHeaders("Contact: <sip:peer@"+peerIP+":5070;transport=tcp>"))
			go func() { l.conn.next("BYE"); w.net.BreakStreams() }()
		}, time.Minute, [2]int{0, 1}},
		"its call rings here": {func(w *world, s *dialog.Stack) {
			w.ringsTCP(s)
			w.net.BreakStreams()
		}, time.Minute, [2]int{1, 0}},
		"its call rings here, its host is gone": {func(w *world, s *dialog.Stack) {
			w.ringsTCP(s)
			w.net.BreakStreams()
			w.net.Host(peerIP).Unreachable(true)
		}, time.Second, [2]int{1, 0}},
		"it never was there": {func(w *world, s *dialog.Stack) { w.calls(s, w.peer(peerIP), offer(offerSDP)) }, time.Minute, [2]int{}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s := w.stack(stackIP, alsoTCP)
				c.kill(w, s)
				synctest.Wait()
				left := w.downIn(s, c.limit)
				require.Equal(t, c.left, [2]int{left.Unreleased, left.Unanswered})
				require.Zero(t, left.Callbacks)
				synctest.Wait()
				require.Zero(t, testkit.Held(s))
			})
		})
	}
}

// ringsTCP has the peer call by TCP, without an answer.
func (w *world) ringsTCP(s *dialog.Stack) {
	w.t.Helper()
	p, calls := w.peer(peerIP), waiting(s)
	conn, err := w.net.Host(peerIP).DialContext(context.Background(), "tcp", s.Addr().String())
	require.NoError(w.t, err)
	_, err = conn.Write([]byte(overTCP(p.Request(dialogtest.Request{
		Method: "INVITE", URI: "sip:service@" + stackIP, FromTag: farTag, CSeq: 1, Body: offerSDP,
	}))))
	require.NoError(w.t, err)
	<-calls
	synctest.Wait() // until the 180 is written: a call whose 180 cannot be written ends at once
}

// FD16: the deliveries of Terminated that had only begun were counted as callbacks
// that do not return.
func TestShutdownInHasteCountsTheCallbacksThatRun(t *testing.T) {
	for _, blocked := range []int{0, 3} {
		t.Run(fmt.Sprint(blocked), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s, f := w.stack(stackIP), w.scriptedPeer(peerIP)
				defer f.close()
				f.invite = []dialogtest.Response{takes}
				establish(t, s, f)
				f.silence()
				leave := make(chan struct{})
				told := make(chan dialog.DialogState, crowd)
				for i, d := range s.Dialogs() {
					d.OnStateChange(func(state dialog.DialogState) {
						if i < blocked {
							<-leave
						}
						told <- state
					})
				}
				left := w.downIn(s, 0)
				require.Equal(t, [3]int{0, crowd, blocked}, [3]int{left.Unreleased, left.Unanswered, left.Callbacks})
				close(leave)
				synctest.Wait()
				require.Len(t, told, crowd, "told of their ends all the same")
				require.Zero(t, testkit.Held(s))
			})
		})
	}
}

// FD16: whatever it is of the application's that does not return.
func TestShutdownEndsWithItsContextDespiteBlockedCallbacks(t *testing.T) {
	for name, c := range map[string]struct {
		traced string
		call   func(w *world, s *dialog.Stack)
	}{
		"a BYE":    {"BYE", func(w *world, s *dialog.Stack) { w.outgoing(s, w.peer(peerIP)) }},
		"a CANCEL": {"CANCEL", func(w *world, s *dialog.Stack) { w.alerting(s, w.peer(peerIP)) }},
		"a 503":    {"SIP/2.0 503", func(w *world, s *dialog.Stack) { w.rings(s, w.peer(peerIP)) }},
		"what arrives": {"OPTIONS", func(w *world, s *dialog.Stack) {
			p := w.peer(peerIP)
			require.NoError(w.t, p.Send(s.Addr(), p.Request(dialogtest.Request{Method: "OPTIONS", URI: "sip:" + stackIP, FromTag: "x"})))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, limit := range []time.Duration{0, time.Second} {
				bubble(t, func(t *testing.T, w *world) {
					until := make(chan struct{})
					let := sync.OnceFunc(func() { close(until) })
					defer let()
					var blocked atomic.Bool
					s := w.stack(stackIP, func(cfg *dialog.StackConfig) {
						cfg.Trace = func(e dialog.TraceEvent) {
							if bytes.HasPrefix(e.Data, []byte(c.traced)) && blocked.CompareAndSwap(false, true) {
								<-until
							}
						}
					})
					c.call(w, s)
					synctest.Wait()
					left := w.downIn(s, limit)
					require.Equal(t, 1, left.Callbacks)
					socket, err := w.net.Host(stackIP).ListenPacket(context.Background(), "udp", stackIP+":5060")
					require.NoError(t, err, "the port is free")
					require.NoError(t, socket.Close())
					let()
					synctest.Wait()
					require.Zero(t, testkit.Held(s).Tasks)
				})
			}
		})
	}
}

// FD16: a peer that has hung up knows, though its BYE is being answered while Shutdown
// gives the call up.
func TestShutdownCountsNoCallThatItsPeerHasEnded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		held := make(chan struct{})
		b := w.stack(stackIP, func(c *dialog.StackConfig) {
			c.Trace = func(e dialog.TraceEvent) {
				if e.Outbound && strings.Contains(string(e.Data), "200 OK\r\n") && strings.Contains(string(e.Data), " BYE\r\n") {
					<-held
				}
			}
		})
		p := w.peer(peerIP)
		_, inside := w.called(b, p, answerSDP)
		require.NoError(t, p.Send(b.Addr(), p.Request(inside("BYE", 11))))
		synctest.Wait()
		left := w.downIn(b, time.Second)
		close(held)
		require.Zero(t, left.Unreleased)
		require.Zero(t, left.Unanswered)
	})
}
