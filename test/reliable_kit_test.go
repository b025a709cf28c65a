package test

import (
	"context"
	"fmt"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

const (
	demands = "Require: 100rel"
	knows   = "Supported: 100rel"
)

// withoutBody returns a change that leaves a request without a body.
func withoutBody(r *dialogtest.Request) { r.Body = "" }

// progress has the application send a provisional response.
func (l *peerCall) progress(code int, opts ...dialog.ResponseOpt) {
	l.t.Helper()
	require.NoError(l.t, l.d.Provisional(context.Background(), code, "", opts...))
}

// rackFor is the RAck that acknowledges a response.
func rackFor(res sip.Message) string {
	return fmt.Sprintf("RAck: %d %d INVITE", testkit.RSeq(res), res.CSeq().SeqNo)
}

// prack acknowledges a provisional response and returns the text of the PRACK.
func (l *peerCall) prack(res sip.Message, change ...func(*dialogtest.Request)) string {
	l.t.Helper()
	return l.ask("PRACK", append(change, withHeaders(rackFor(res)))...)
}

// pracked is prack that waits for the 200, which it returns.
func (l *peerCall) pracked(res sip.Message, change ...func(*dialogtest.Request)) *sip.Response {
	l.t.Helper()
	l.prack(res, change...)
	return response(l.next("200 PRACK").Message)
}

// cancels sends the peer's CANCEL of its INVITE.
func (l *peerCall) cancels() {
	l.t.Helper()
	r := l.made("CANCEL")
	l.seq--
	r.CSeq, r.ToTag, r.URI = 1, "", l.stackURI
	r.Branch = branchIn(l.inviteText)
	require.NoError(l.t, l.Send(l.stack, l.Request(r)))
}

func branchIn(text string) string {
	msg, err := sip.ParseMessage([]byte(text))
	if err != nil {
		return ""
	}
	return testkit.BranchOf(msg)
}

// settled checks that the stack holds nothing any more, some time after.
func (l *peerCall) settled(s *dialog.Stack) {
	l.t.Helper()
	time.Sleep(70 * time.Second)
	synctest.Wait()
	require.Zero(l.t, testkit.Held(s))
}
