package test

import (
	"context"
	"regexp"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// askBare is ask without the Contact that the peer's requests are given.
func (l *peerCall) askBare(method string, change ...func(*dialogtest.Request)) {
	l.t.Helper()
	text := regexp.MustCompile("(?m)^Contact: .*\n").ReplaceAllString(l.Request(l.made(method, change...)), "")
	require.NoError(l.t, l.Send(l.stack, text))
}

// FD1. RFC 3261 12.2.1.1, 12.2.2: a target refresh request should have a Contact,
// and where it has none there is nothing to refresh.
func TestReInviteWithoutContactKeepsTheTarget(t *testing.T) {
	const moved = "Contact: <sip:moved@" + otherIP + ":5060>"
	for name, made := range map[string]func(w *world, p *peer) *peerCall{
		"callee": func(w *world, p *peer) *peerCall { return w.incoming(w.stack(stackIP), p) },
		"caller": func(w *world, p *peer) *peerCall { return w.outgoing(w.stack(stackIP), p) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p, other := w.peer(peerIP), w.peer(otherIP)
				l := made(w, p)
				before := l.d.Info().RemoteTarget

				l.askBare("INVITE", withBody(offerSDP))
				require.Equal(t, 200, l.peer.final("INVITE").StatusCode)
				l.acknowledge(l.seq)
				l.askBare("UPDATE")
				require.Equal(t, 200, l.peer.final("UPDATE").StatusCode)
				synctest.Wait()
				require.Equal(t, before, l.d.Info().RemoteTarget)

				// One that has a Contact moves it, and the next without leaves it there.
				l.ask("INVITE", withHeaders(moved), withBody(offerSDP))
				require.Equal(t, 200, l.peer.final("INVITE").StatusCode)
				l.acknowledge(l.seq)
				l.askBare("INVITE")
				require.Equal(t, 200, l.peer.final("INVITE").StatusCode)
				l.acknowledge(l.seq)
				synctest.Wait()
				require.Equal(t, "BYE sip:moved@"+otherIP+":5060 SIP/2.0", l.hangUp(other).startLine())
			})
		})
	}
}

// What a Contact says counts when there is one: inside a dialog too it is one
// SIP URI.
func TestReInviteWithABadContactGets400(t *testing.T) {
	for _, bad := range []string{
		"Contact: <sip:a@10.0.0.9>, <sip:b@10.0.0.8>", "Contact: <tel:+431234>", "Contact: *",
	} {
		bubble(t, func(t *testing.T, w *world) {
			p := w.peer(peerIP)
			l := w.incoming(w.stack(stackIP), p)
			l.ask("INVITE", withHeaders(bad), withBody(offerSDP))
			require.Equal(t, 400, l.peer.final("INVITE").StatusCode, bad)
			l.hangUp(p)
		})
	}
}

// A 2xx of the peer's without a Contact does not move the target either.
func TestAnswerWithoutContactKeepsTheTarget(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.outgoing(w.stack(stackIP), p)
		before := l.d.Info().RemoteTarget
		done := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
		re := p.next("INVITE")
		bare := regexp.MustCompile("(?m)^Contact: .*\n").ReplaceAllString(
			p.Response(re.Request(), dialogtest.Response{Code: 200, Body: answerSDP}), "")
		require.NoError(t, p.Send(l.stack, bare))
		require.NoError(t, <-done)
		p.next("ACK")
		require.Equal(t, before, l.d.Info().RemoteTarget)
		l.hangUp(p)
	})
}

// FD2. RFC 3261 12.2.2 refuses a CSeq that is lower than the last one.
func TestByeMayRepeatTheLastCSeq(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		require.Equal(t, 200, p.ask(b, inside("INFO", 11)).StatusCode)
		require.Equal(t, 500, p.ask(b, inside("OPTIONS", 11)).StatusCode, "another method does not")
		require.Equal(t, 500, p.ask(b, inside("BYE", 10)).StatusCode, "a lower one is refused")
		require.Equal(t, dialog.DialogStateEstablished, d.State())
		require.Equal(t, 200, p.ask(b, inside("BYE", 11)).StatusCode)
		<-d.Done()
		require.Equal(t, dialog.PartyRemote, d.Cause().By)
		require.Equal(t, "BYE", d.Cause().Method)
	})
}

// Right after the INVITE, and while that is not answered.
func TestByeMayRepeatTheCSeqOfTheInvite(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.rings(w.stack(stackIP), p)
		l.ask("BYE", func(r *dialogtest.Request) { r.CSeq = 1 })
		require.Equal(t, 200, l.peer.final("BYE").StatusCode)
		require.Equal(t, 487, l.peer.final("INVITE").StatusCode)
		<-l.d.Done()
	})
}
