package test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

func reliability(r dialog.Reliability) func(*dialog.StackConfig) {
	return func(c *dialog.StackConfig) { c.Reliable = r }
}

// RFC 3262 4: what our INVITEs and answers say of it.
func TestReliabilityIsAnnouncedAsConfigured(t *testing.T) {
	for _, c := range []struct {
		set               dialog.Reliability
		supported, allow  string
		require, reinvite []string
	}{
		{dialog.ReliableSupported, "norefersub, nosub, timer, replaces, 100rel, 199", "INFO, PRACK", nil, nil},
		{dialog.ReliableOff, "norefersub, nosub, timer, replaces, 199", "NOTIFY, INFO", nil, nil},
		{dialog.ReliableRequired, "norefersub, nosub, timer, replaces, 100rel, 199", "INFO, PRACK", []string{"100rel"}, nil},
	} {
		bubble(t, func(t *testing.T, w *world) {
			a, p := w.stack(stackIP, reliability(c.set)), w.peer(peerIP)
			l := w.outgoing(a, p)
			invite := w.one(stackIP, "INVITE")
			require.Equal(t, c.supported, invite.value(t, "Supported"))
			require.Regexp(t, c.allow+"$", invite.value(t, "Allow"))
			require.Equal(t, c.require, invite.values("Require"))

			// Only the INVITE that begins a call insists.
			done := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
			p.reply(p.next("INVITE"), dialogtest.Response{Code: 200, Body: answerSDP})
			require.NoError(t, <-done)
			synctest.Wait()
			require.Equal(t, c.reinvite, w.last(stackIP, "INVITE").values("Require"))
			l.hangUp(p)
		})
	}
}

// RFC 3261 21.4.16, RFC 3262 3: 421 where we insist, 420 where we refuse.
func TestCallersThatDoNotKnowWhatTheStackInsistsOn(t *testing.T) {
	for _, c := range []struct {
		name          string
		set           dialog.Reliability
		headers       []string
		status        int
		header, value string
	}{
		{"required, nothing said", dialog.ReliableRequired, nil, 421, "Require", "100rel"},
		{"required, another tag", dialog.ReliableRequired, []string{"Supported: timer"}, 421, "Require", "100rel"},
		{"required, supported", dialog.ReliableRequired, []string{"Supported: timer, 100Rel"}, 180, "", ""},
		{"required, compact form", dialog.ReliableRequired, []string{"k: 100rel"}, 180, "", ""},
		{"required, required", dialog.ReliableRequired, []string{"Require: 100rel"}, 180, "", ""},
		{"supported, required", dialog.ReliableSupported, []string{"Require: 100rel"}, 180, "", ""},
		{"off, required", dialog.ReliableOff, []string{"Require: 100rel"}, 420, "Unsupported", "100rel"},
		{"off, supported", dialog.ReliableOff, []string{"Supported: 100rel"}, 180, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack("10.0.0.2", reliability(c.set)), w.peer("10.0.0.9")
				b.OnIncomingDialog(func(dialog.IDialog) {})
				require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{
					Method: "INVITE", URI: "sip:b@10.0.0.2", Headers: append(c.headers, contactOfPeer), Body: offerSDP,
				})))
				p.next("100 INVITE")
				res := response(p.nextAny().Message)
				require.Equal(t, c.status, res.StatusCode)
				if c.header != "" {
					require.Equal(t, c.value, value(res, c.header))
				}
			})
		})
	}
}

// In the off mode PRACK is a method we know but do not serve.
func TestPRACKIsRefusedWhereItIsOff(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2", reliability(dialog.ReliableOff)), w.peer("10.0.0.9")
		_, inside := w.called(b, p, answerSDP)
		res := p.ask(b, inside("PRACK", 11, "RAck: 1 10 INVITE"))
		require.Equal(t, 405, res.StatusCode)
		require.NotContains(t, value(res, "Allow"), "PRACK")
		require.Equal(t, 405, p.ask(b, dialogtest.Request{Method: "PRACK", URI: "sip:b@10.0.0.2", CallID: "other"}).StatusCode)
		require.Equal(t, 200, p.ask(b, inside("BYE", 12)).StatusCode)
	})
}

func TestReliabilityOutOfRangeIsRefused(t *testing.T) {
	_, err := dialog.NewStack(&dialog.StackConfig{Reliable: 3})
	require.ErrorIs(t, err, dialog.ErrInvalidArgument)
}
