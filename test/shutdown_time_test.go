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

// nowhere is a Contact where nobody answers, nor refuses.
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
						d.OnStateChange(func(dialog.DialogState) {})
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
func TestShutdownOwnsUpToAFarEndThatWasKilled(t *testing.T) {
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

// ringsTCP has the peer call by TCP, and nobody answers.
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
func TestShutdownEndsWithItsContextWhateverTheApplicationDoes(t *testing.T) {
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
