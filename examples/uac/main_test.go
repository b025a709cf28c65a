package main

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sipdialog.example/dialog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peer starts a stack on the loopback interface and returns its URI.
func peer(t *testing.T, incoming func(dialog.IDialog)) string {
	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: "127.0.0.1"},
	})
	require.NoError(t, err)
	stack.OnIncomingDialog(incoming)
	require.NoError(t, stack.Start(context.Background()))
	t.Cleanup(func() { require.NoError(t, stack.Shutdown(context.Background())) })
	return "sip:bob@" + stack.Addr().String()
}

func TestRun_calls_and_hangs_up(t *testing.T) {
	ended := make(chan dialog.DialogState, 2)
	to := peer(t, func(call dialog.IDialog) {
		call.OnStateChange(func(state dialog.DialogState) { ended <- state })
		if err := call.Accept(context.Background()); err != nil {
			t.Errorf("accept: %v", err)
		}
	})
	var out strings.Builder
	require.NoError(t, run(context.Background(), []string{"-to", to, "-for", "1ms"}, &out))
	require.Contains(t, out.String(), "Established\nTerminated\n")
	require.Equal(t, dialog.DialogStateEstablished, <-ended)
	require.Equal(t, dialog.DialogStateTerminated, <-ended)
}

func TestRun_gives_up_when_interrupted(t *testing.T) {
	ctx, interrupt := context.WithTimeout(context.Background(), 30*time.Second)
	defer interrupt()
	ended := make(chan dialog.Cause, 1)
	to := peer(t, func(call dialog.IDialog) {
		call.OnStateChange(func(dialog.DialogState) { ended <- call.(*dialog.Dialog).Cause() })
		interrupt()
	})
	require.ErrorIs(t, run(ctx, []string{"-to", to}, io.Discard), context.Canceled)
	require.Equal(t, "CANCEL", (<-ended).Method)
}

func TestRun_says_what_is_wrong(t *testing.T) {
	to := peer(t, func(call dialog.IDialog) { _ = call.Reject(context.Background(), 486, "") })
	var refused *dialog.ResponseError
	require.ErrorAs(t, run(context.Background(), []string{"-to", to}, io.Discard), &refused)
	require.Equal(t, 486, refused.StatusCode)
	require.ErrorContains(t, run(context.Background(), []string{"-to", "bob"}, io.Discard), "-to bob")
	require.ErrorContains(t, run(context.Background(), []string{"-listen", "here"}, io.Discard), "-listen")
	require.ErrorIs(t, run(context.Background(), []string{"-transport", "pigeon"}, io.Discard), dialog.ErrInvalidArgument)
}
