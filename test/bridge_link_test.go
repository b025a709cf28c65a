package test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/bridge"
	"sipdialog.example/dialog/dialogtest"
)

// describedAs is a session description with that o= line.
func describedAs(sdp, user string, session, version int) string {
	_, rest, _ := strings.Cut(sdp, "\r\ns=")
	return fmt.Sprintf("v=0\r\no=%s %d %d IN IP4 10.0.0.1\r\ns=%s", user, session, version, rest)
}

// linked is two calls with sessions of their own, which are joined: each side was offered a
// session by us, under an o= line of its own.
func linked(t *testing.T, w *world) (one, two *peerCall, call *bridge.Call) {
	t.Helper()
	a := w.stack(stackIP)
	one, two = w.calls(a, w.peer(peerIP), offer(describedAs(offerSDP, "first", 100, 7))), w.calls(a, w.peer(otherIP), offer(describedAs(offerSDP, "second", 200, 3)))
	for _, l := range []*peerCall{one, two} {
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		l.next("ACK")
	}
	call = bridge.New(a, bridge.Options{}).Link(one.d, two.d)
	synctest.Wait()
	return one, two, call
}

// RFC 3264 8: calls that are joined once they have sessions go on under the o= lines that
// their peers know, with a version that goes up.
func TestBridgeLinksCallsUnderTheirOwnOrigins(t *testing.T) {
	whole := func(sdp string) string {
		return "--x\r\nContent-Type: application/sdp\r\n\r\n" + sdp + "\r\n--x\r\nContent-Type: text/plain\r\n\r\nmore\r\n--x--\r\n"
	}
	for name, row := range map[string]struct{ method, offer, contentType, want string }{
		"INVITE":            {"INVITE", describedAs(held(offerSDP), "alice", 1, 5000), "application/sdp", describedAs(held(offerSDP), "second", 200, 4)},
		"UPDATE":            {"UPDATE", describedAs(held(offerSDP), "alice", 1, 1), "application/sdp", describedAs(held(offerSDP), "second", 200, 4)},
		"one part of it":    {"INVITE", whole(describedAs(held(offerSDP), "alice", 1, 5000)), "multipart/mixed;boundary=x", whole(describedAs(held(offerSDP), "second", 200, 4))},
		"cannot be read":    {"INVITE", "v=0\r\no=alice 1 1 IN IP4 h\r\nm=audio\r\n\x00", "application/sdp", "v=0\r\no=alice 1 1 IN IP4 h\r\nm=audio\r\n\x00"},
		"no o= line at all": {"INVITE", "v=0\r\ns=-\r\nm=audio 5 RTP/AVP 0\r\n", "application/sdp", "v=0\r\ns=-\r\nm=audio 5 RTP/AVP 0\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				one, two, _ := linked(t, w)
				one.ask(row.method, withHeaders("Content-Type: "+row.contentType), withBody(row.offer))
				got := two.next(row.method)
				require.Equal(t, row.want, body(got))
				two.reply(got, dialogtest.Response{Code: 200, ToTag: farTag, Body: describedAs(held(answerSDP), "bob", 9, 77)})
				require.Equal(t, describedAs(held(answerSDP), "first", 100, 8), body(one.next("200 "+row.method)))
				if row.method == "INVITE" {
					one.acknowledge(one.seq)
					two.next("ACK")
				}
				one.ask("BYE")
				two.reply(two.next("BYE"), dialogtest.Response{Code: 200, ToTag: farTag})
				synctest.Wait()
			})
		})
	}
}

// A call that has ended before it is joined ends the other, whichever it is.
func TestBridgeLinksACallThatHasEnded(t *testing.T) {
	for _, first := range []bool{true, false} {
		bubble(t, func(t *testing.T, w *world) {
			a := w.stack(stackIP)
			one, two := w.outgoing(a, w.peer(peerIP)), w.outgoing(a, w.peer(otherIP))
			one.ask("BYE")
			one.next("200 BYE")
			synctest.Wait()
			calls := []*dialog.Dialog{one.d, two.d}
			if !first {
				calls = []*dialog.Dialog{two.d, one.d}
			}
			bridge.New(a, bridge.Options{}).Link(calls[0], calls[1])
			two.reply(two.next("BYE"), dialogtest.Response{Code: 200, ToTag: farTag})
			synctest.Wait()
			require.Equal(t, dialog.DialogStateTerminated, two.d.State())
		})
	}
}

// A callback of the application that does not return keeps no call: the end of one still ends
// the other.
func TestBridgedCallEndsWhileACallbackBlocks(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack(stackIP)
		one, two := w.outgoing(a, w.peer(peerIP)), w.outgoing(a, w.peer(otherIP))
		blocks := make(chan struct{})
		defer close(blocks)
		one.d.OnStateChange(func(dialog.DialogState) { <-blocks })
		bridge.New(a, bridge.Options{}).Link(one.d, two.d)
		one.ask("BYE")
		one.next("200 BYE")
		two.reply(two.next("BYE"), dialogtest.Response{Code: 200, ToTag: farTag})
		synctest.Wait()
		require.Equal(t, dialog.DialogStateTerminated, two.d.State())
	})
}

// Nor does one keep the caller from the callee's answer, or refusal.
func TestBridgePassesTheAnswerWhileACallbackBlocks(t *testing.T) {
	for code, want := range map[int]string{200: "200 INVITE", 486: "486 INVITE"} {
		bubble(t, func(t *testing.T, w *world) {
			blocks := make(chan struct{})
			defer close(blocks)
			a := w.stack(stackIP, func(c *dialog.StackConfig) { c.NoAutoRinging = true })
			b := bridge.New(a, bridge.Options{})
			callee := w.peer(otherIP)
			a.OnCall(func(in *dialog.Dialog) {
				_, _ = b.Join(context.Background(), in, sip.Uri{Scheme: "sip", User: "callee", Host: otherIP, Port: 5060}, dialog.InviteOpts{
					Setup: func(out *dialog.Dialog) { out.OnFork(func(dialog.ForkInfo) { <-blocks }) },
				})
			})
			caller := w.peer(peerIP)
			require.NoError(t, caller.Send(a.Addr(), caller.Request(dialogtest.Request{Method: "INVITE", URI: "sip:callee@" + stackIP, FromTag: farTag, CSeq: 1, Body: offerSDP})))
			invite := callee.next("INVITE")
			callee.reply(invite, dialogtest.Response{Code: 180, ToTag: farTag})
			caller.next("180 INVITE")
			callee.reply(invite, dialogtest.Response{Code: code, ToTag: farTag, Body: answerSDP})
			caller.next(want)
		})
	}
}
