package test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

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
func TestShutdownInHasteCountsWhatIsLeft(t *testing.T) {
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
		require.NotEmpty(t, value(refused, "Retry-After"))
		l.acknowledge(1)
		p.invites(s)
		require.Equal(t, value(refused, "Retry-After"), value(p.next("503 INVITE").Message, "Retry-After"))
		established.reply(established.next("BYE"), dialogtest.Response{Code: 200})
		require.NoError(t, <-down)
	})
}
