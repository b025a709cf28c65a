package test

import (
	"context"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// stackAt returns the stack that listens at an address.
func (w *world) stackAt(addr netip.AddrPort) (*dialog.Stack, bool) {
	for _, s := range w.stacks {
		if s.Addr() == addr {
			return s, true
		}
	}
	return nil, false
}

// step is one exchange of a call, by either side.
type step struct {
	name string
	do   func(l *peerCall)
}

const heldSDP = "v=0\r\no=far 9 2 IN IP4 10.0.0.9\r\ns=-\r\nc=IN IP4 10.0.0.9\r\nt=0 0\r\nm=audio 5000 RTP/AVP 0\r\na=sendonly\r\n"

// exchange has the stack send a request, which the peer answers.
func (l *peerCall) exchange(do func(ctx context.Context) error, method string, r dialogtest.Response) {
	l.t.Helper()
	result := began(func() error { return do(context.Background()) })
	in := l.next(method)
	l.reply(in, r)
	if method == "INVITE" {
		l.next("ACK")
	}
	require.NoError(l.t, <-result)
	synctest.Wait()
}

// theirs has the peer send a request, which the stack accepts.
func (l *peerCall) theirs(method string, code int, change ...func(*dialogtest.Request)) {
	l.t.Helper()
	l.ask(method, change...)
	seq := l.seq
	require.Equal(l.t, code, l.peer.final(method).StatusCode)
	if method == "INVITE" {
		l.acknowledge(seq)
	}
	synctest.Wait()
}

func granted(body string) dialogtest.Response {
	return dialogtest.Response{Code: 200, Headers: []string{"Session-Expires: 90;refresher=uac", "Allow: INVITE, UPDATE"}, Body: body}
}

// callSteps are the exchanges of a call in progress: each of RFC 3261, 3311, 3515, 4028
// and 6086 that changes what a call is.
func callSteps() []step {
	timer := withHeaders("Supported: timer", "Session-Expires: 90;refresher=uas", "Allow: INVITE, UPDATE")
	return []step{
		{"their INFO", func(l *peerCall) { l.theirs("INFO", 200) }},
		{"our INFO", func(l *peerCall) {
			l.exchange(func(ctx context.Context) error { return l.d.SendInfo(ctx, nil) }, "INFO", dialogtest.Response{Code: 200})
		}},
		{"their hold", func(l *peerCall) { l.theirs("INVITE", 200, withBody(heldSDP), timer) }},
		{"their resume", func(l *peerCall) { l.theirs("UPDATE", 200, withBody(versioned(offerSDP, 3)), timer) }},
		{"our hold", func(l *peerCall) { l.exchange(l.d.Hold, "INVITE", granted(answerSDP)) }},
		{"our resume", func(l *peerCall) { l.exchange(l.d.Resume, "INVITE", granted(versioned(answerSDP, 2))) }},
		{"our UPDATE", func(l *peerCall) {
			l.exchange(func(ctx context.Context) error { _, err := l.d.Update(ctx, ourSession()); return err }, "UPDATE", granted(versioned(answerSDP, 3)))
		}},
		{"an UPDATE of ours that is refused", func(l *peerCall) {
			l.exchange(func(ctx context.Context) error {
				_, err := l.d.Update(ctx, dialog.NewBody("application/sdp", []byte(versioned(heldSDP, 70))))
				require.Error(l.t, err)
				return nil
			}, "UPDATE", dialogtest.Response{Code: 488})
		}},
		{"their target refresh", func(l *peerCall) { l.theirs("UPDATE", 200, timer, withHeaders("Contact: <sip:moved@10.0.0.9:5060>")) }},
		{"our refresh", func(l *peerCall) {
			time.Sleep(refreshAt)
			l.reply(l.next("UPDATE"), granted(answerSDP))
			synctest.Wait()
		}},
		{"their REFER", func(l *peerCall) {
			l.theirs("REFER", 202, withHeaders("Refer-To: <sip:carol@10.0.0.3>", "Refer-Sub: false"))
		}},
		{"our REFER", func(l *peerCall) {
			l.exchange(func(ctx context.Context) error { return refers.do(ctx, l.d) }, "REFER", dialogtest.Response{Code: 202, Headers: []string{"Refer-Sub: false"}})
		}},
	}
}

// The messages of a call are the same whenever its process is killed and another one at the
// same address continues the call: but for the CSeq numbers, in which gaps are allowed (RFC
// 3261 12.2.2).
func TestCallGoesOnWhereverItsProcessDies(t *testing.T) {
	steps := callSteps()
	for _, role := range []string{"callee", "caller"} {
		for _, end := range []string{"their BYE", "our BYE"} {
			said := func(t *testing.T, dies func(after int) bool) (said []string) {
				bubble(t, func(t *testing.T, w *world) {
					said = w.callOf(role, end, steps, dies)
				})
				return said
			}
			t.Run(role+", "+end, func(t *testing.T) {
				want := said(t, func(int) bool { return false })
				for after := range len(steps) + 1 {
					name := "after the call is established"
					if after > 0 {
						name = "after " + steps[after-1].name
					}
					t.Run(name, func(t *testing.T) {
						require.Equal(t, want, said(t, func(i int) bool { return i == after }))
					})
				}
				t.Run("after each", func(t *testing.T) {
					require.Equal(t, want, said(t, func(int) bool { return true }))
				})
			})
		}
	}
}

// callOf has a call of the peer's, or of the stack's, take all steps, and returns what the
// stack has said in it. dies says after which steps its process dies.
func (w *world) callOf(role, end string, steps []step, dies func(after int) bool) (said []string) {
	s, p := w.stack(stackIP), w.peer(peerIP)
	var l *peerCall
	if role == "callee" {
		l = w.incoming(s, p, withHeaders("Supported: timer", "Session-Expires: 90;refresher=uas", "Allow: INVITE, UPDATE"))
	} else {
		l = w.calls(s, p, offer(offerSDP))
		l.answer(granted(answerSDP))
		l.next("ACK")
		require.NoError(w.t, l.d.WaitAnswer(context.Background()))
	}
	synctest.Wait()
	for i := range len(steps) + 1 {
		if i > 0 {
			steps[i-1].do(l)
		}
		if dies(i) {
			l.restart()
		}
	}
	if end == "their BYE" {
		l.theirs("BYE", 200)
	} else {
		l.exchange(func(ctx context.Context) error { return l.d.Bye(ctx, "") }, "BYE", dialogtest.Response{Code: 200})
	}
	require.Equal(w.t, dialog.DialogStateTerminated, l.d.State())
	last := uint32(0)
	for _, m := range w.saidBy(stackIP) {
		if req, ok := m.msg.(*sip.Request); ok && req.Method != sip.ACK {
			require.Greater(w.t, req.CSeq().SeqNo, last, "a peer answers 500 to a number that was used (RFC 3261 12.2.2)")
			last = req.CSeq().SeqNo
		}
		said = append(said, l.anonymous(m.raw))
	}
	return said
}

// saidBy is all that a host has sent.
func (w *world) saidBy(ip string) (list []wire) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.log {
		if m.from.Addr().String() == ip {
			list = append(list, m)
		}
	}
	return list
}

var randomly = regexp.MustCompile(`branch=[^;\r]*|CSeq: \d+`)

// anonymous is a message without what is random in it, and without its number.
func (l *peerCall) anonymous(raw string) string {
	raw = strings.NewReplacer(l.callID, "CALL", l.stackTag, "TAG").Replace(raw)
	return randomly.ReplaceAllString(raw, "-")
}
