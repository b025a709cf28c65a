package main

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sipdialog.example/dialog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// party starts a stack on the loopback interface that answers every call, and
// returns its URI and the calls.
func party(t *testing.T, user string) (*dialog.Stack, string, <-chan *dialog.Dialog) {
	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: "127.0.0.1"},
	})
	require.NoError(t, err)
	calls := make(chan *dialog.Dialog, 3)
	stack.OnIncomingDialog(func(call dialog.IDialog) {
		calls <- call.(*dialog.Dialog) // before Accept, after which another call may arrive
		answer := dialog.NewBody("application/sdp", []byte(session))
		if err := call.Accept(context.Background(), dialog.WithBody(answer)); err != nil {
			t.Errorf("accept: %v", err)
		}
	})
	require.NoError(t, stack.Start(context.Background()))
	t.Cleanup(func() { require.NoError(t, stack.Shutdown(context.Background())) })
	return stack, "sip:" + user + "@" + stack.Addr().String(), calls
}

func TestRun_connects_the_two(t *testing.T) {
	bob, who, bobs := party(t, "bob")
	_, to, carols := party(t, "carol")
	followed := make(chan *dialog.Dialog, 1)
	bob.OnIncomingRefer(func(call dialog.IDialog, to sip.Uri, _ *dialog.ReplacesInfo) {
		offer := dialog.InviteOpts{Body: dialog.NewBody("application/sdp", []byte(session))}
		next, err := call.(*dialog.Dialog).FollowRefer(context.Background(), to, offer)
		if err != nil {
			t.Errorf("follow: %v", err)
		}
		followed <- next
	})
	require.NoError(t, run(context.Background(), who, to))
	consultation, _ := <-carols, <-carols
	for _, over := range []*dialog.Dialog{<-bobs, consultation} {
		<-over.Done()
	}
	require.Equal(t, "replaced", consultation.Cause().Reason)
	require.Equal(t, dialog.DialogStateEstablished, (<-followed).State())
}

func TestRun_says_what_is_wrong(t *testing.T) {
	bob, who, _ := party(t, "bob")
	carol, to, _ := party(t, "carol")
	require.ErrorContains(t, run(context.Background(), "bob", to), "bob: ")
	bob.OnReferRequest(func(context.Context, *dialog.ReferRequest) dialog.Answer { return dialog.Answer{Status: 603} })
	var refused *dialog.ResponseError
	require.ErrorAs(t, run(context.Background(), who, to), &refused)
	require.Equal(t, 603, refused.StatusCode)

	bob.OnReferRequest(nil)
	bob.OnIncomingRefer(func(call dialog.IDialog, _ sip.Uri, _ *dialog.ReplacesInfo) {
		for _, refer := range call.(*dialog.Dialog).GetAllReferSubscriptions() {
			_ = refer.SendNotify(context.Background(), 486, "Busy Here")
		}
	})
	require.ErrorContains(t, run(context.Background(), who, to), "called "+to+": 486 Busy Here")

	carol.OnIncomingDialog(nil)
	require.ErrorContains(t, run(context.Background(), who, to), to+": ")
}

func TestExample_is_short(t *testing.T) {
	source, err := os.ReadFile("main.go")
	require.NoError(t, err)
	require.Less(t, strings.Count(string(source), "\n"), 80)
}
