package test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/bridge"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// joined is a bridge between two scripted peers: the caller at peerIP and the callee at
// otherIP.
type joined struct {
	t *testing.T
	w *world
	b *dialog.Stack
	// caller and callee are the calls as their peers see them. calleeReq is the INVITE to
	// the callee.
	caller, callee *peerCall
	// done has the outcome of Join.
	done chan joinResult
	ctx  context.Context
	stop context.CancelFunc
}

type joinResult struct {
	call *bridge.Call
	err  error
}

// bridging has a caller send an INVITE to a bridge, which does the same to a callee.
func bridging(t *testing.T, w *world, o bridge.Options, change ...func(*dialogtest.Request)) *joined {
	t.Helper()
	j := bridgeOf(t, w, o)
	j.invite(change...)
	j.callee.invite = j.callee.next("INVITE")
	req := j.callee.invite.Request()
	j.callee.callID, j.callee.stackTag, j.callee.target = req.CallID().Value(), testkit.FromTag(req), contactOf(req)
	j.callee.stackURI, j.callee.peerURI = req.From().Address.String(), req.To().Address.String()
	return j
}

// bridgeOf starts a bridge that calls the callee for every call.
func bridgeOf(t *testing.T, w *world, o bridge.Options, change ...func(*dialog.StackConfig)) *joined {
	t.Helper()
	b := w.stack(stackIP, append(change, func(c *dialog.StackConfig) { c.NoAutoRinging = true })...)
	j := &joined{t: t, w: w, b: b, done: make(chan joinResult, 10)}
	j.ctx, j.stop = context.WithCancel(context.Background())
	t.Cleanup(j.stop)
	join := bridge.New(b, o)
	b.OnIncomingDialog(func(d dialog.IDialog) {
		call, err := join.Join(j.ctx, d.(*dialog.Dialog), uri("bob", otherIP), dialog.InviteOpts{})
		j.done <- joinResult{call, err}
	})
	at := b.Addr()
	j.caller = &peerCall{peer: w.peer(peerIP), w: w, stack: at, tag: farTag, callID: "the-caller", stackURI: "sip:service@" + at.String(), peerURI: "sip:caller@10.0.0.9:5060"}
	j.callee = &peerCall{peer: w.peer(otherIP), w: w, stack: at, tag: farTag}
	return j
}

// invite sends the caller's INVITE.
func (j *joined) invite(change ...func(*dialogtest.Request)) {
	j.t.Helper()
	l := j.caller
	l.seq = 1
	r := dialogtest.Request{Method: "INVITE", URI: l.stackURI, From: l.peerURI, FromTag: l.tag, CallID: l.callID, CSeq: 1, Body: offerSDP}
	for _, c := range change {
		c(&r)
	}
	l.inviteText = ownHops(l.Request(r))
	require.NoError(j.t, l.Send(l.stack, l.inviteText))
}

// gets is the caller's next response to its INVITE, which sets its end of the dialog.
func (j *joined) gets(what string) dialogtest.Received {
	j.t.Helper()
	got := j.caller.next(what)
	res := got.Response()
	j.caller.stackTag = testkit.ToTag(res)
	if res.StatusCode < 300 {
		j.caller.target = contactOf(res)
	}
	return got
}

// established is bridging with the call answered and acknowledged on both sides.
func established(t *testing.T, w *world, o bridge.Options, change ...func(*dialogtest.Request)) *joined {
	t.Helper()
	j := bridging(t, w, o, change...)
	j.callee.answer(dialogtest.Response{Code: 200, Body: answerSDP})
	j.gets("200 INVITE")
	j.caller.acknowledge(1)
	j.callee.next("ACK")
	synctest.Wait()
	return j
}

// outcome waits for Join.
func (j *joined) outcome() (*bridge.Call, error) {
	j.t.Helper()
	select {
	case r := <-j.done:
		return r.call, r.err
	case <-time.After(5 * time.Minute):
		j.t.Fatal("Join has not returned")
		return nil, nil
	}
}

// over checks that nothing is left of the two calls.
func (j *joined) over() {
	j.t.Helper()
	time.Sleep(time.Minute)
	synctest.Wait()
	require.Empty(j.t, j.b.Dialogs())
	goroutinesAtMost(j.t, 100)
}

// hangsUp ends the call from one side.
func (j *joined) hangsUp(from, other *peerCall) {
	j.t.Helper()
	from.ask("BYE")
	from.next("200 BYE")
	other.reply(other.next("BYE"), dialogtest.Response{Code: 200})
	j.over()
}

// second is the next version of a session, held.
func second(sdp string) string { return versioned(held(sdp), 2) }

// ownHops drops the Max-Forwards that requests are given, if the test has set another.
func ownHops(text string) string {
	if strings.Count(text, "Max-Forwards: ") > 1 {
		return strings.Replace(text, "Max-Forwards: 70\r\n", "", 1)
	}
	return text
}

// askOwn is ask for a request with a Max-Forwards of its own.
func (l *peerCall) askOwn(method string, change ...func(*dialogtest.Request)) {
	l.t.Helper()
	require.NoError(l.t, l.Send(l.stack, ownHops(l.Request(l.made(method, change...)))))
}
