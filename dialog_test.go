package dialog_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// A call from its INVITE to its BYE: what is on the wire, and what both ends are told.
// The rules, one by one, are tested in folder test.
func TestCallFromEndToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := dialogtest.NewNetwork()
		defer network.Close()
		var wire list
		network.Tap(func(p dialogtest.Packet) {
			if msg, err := sip.ParseMessage(p.Data); err == nil {
				wire.add(p.From.Addr().String() + " " + testkit.Describe(msg))
			}
		})
		a, b := started(t, network.Host("10.0.0.1"), "10.0.0.1"), started(t, network.Host("10.0.0.2"), "10.0.0.2")

		incoming := make(chan *dialog.Dialog, 1)
		var atA, atB list
		b.OnIncomingDialog(func(d dialog.IDialog) {
			d.OnStateChange(atB.addState)
			incoming <- d.(*dialog.Dialog)
		})
		d, err := a.NewInvite(context.Background(), sip.Uri{Scheme: "sip", User: "bob", Host: "10.0.0.2", Port: 5060}, dialog.InviteOpts{
			Body:  dialog.NewBody("application/sdp", []byte(testkit.OfferSDP)),
			Setup: func(d *dialog.Dialog) { d.OnStateChange(atA.addState) },
		})
		require.NoError(t, err)
		caller, callee := d.(*dialog.Dialog), <-incoming
		synctest.Wait()
		require.Equal(t, dialog.DialogStateRinging, caller.State())
		require.Equal(t, dialog.DialogStateRinging, callee.State())

		require.NoError(t, callee.Accept(context.Background(), dialog.WithBody(dialog.NewBody("application/sdp", []byte(testkit.AnswerSDP)))))
		require.NoError(t, caller.WaitAnswer(context.Background()))
		synctest.Wait()
		require.Equal(t, dialog.DialogStateEstablished, caller.State())

		require.NoError(t, callee.Bye(context.Background(), "done"))
		synctest.Wait()
		require.Equal(t, dialog.DialogStateTerminated, caller.State())
		require.Equal(t, []string{"Trying", "Ringing", "Established", "Terminated"}, atA.all())
		require.Equal(t, []string{"Established", "Terminated"}, atB.all())
		require.Equal(t, []string{
			"10.0.0.1 INVITE", "10.0.0.2 100 INVITE", "10.0.0.2 180 INVITE", "10.0.0.2 200 INVITE",
			"10.0.0.1 ACK", "10.0.0.2 BYE", "10.0.0.1 200 BYE",
		}, wire.all())
		require.Equal(t, "remote BYE done", caller.Cause().String())
		require.Equal(t, "local BYE done", callee.Cause().String())
		for _, s := range []*dialog.Stack{a, b} {
			require.NoError(t, s.Shutdown(context.Background()))
			require.Zero(t, testkit.Held(s))
		}
	})
}

func started(t *testing.T, host *dialogtest.Host, ip string) *dialog.Stack {
	t.Helper()
	s, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: ip, Port: 5060},
		Network:   host,
		Resolver:  testkit.NoNames(),
	})
	require.NoError(t, err)
	require.NoError(t, s.Start(context.Background()))
	return s
}

// list is what was said, or told.
type list struct {
	mu    sync.Mutex // guards the field below
	items []string
}

func (l *list) add(item string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.items = append(l.items, item)
}

func (l *list) addState(s dialog.DialogState) { l.add(s.String()) }

func (l *list) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.items...)
}
