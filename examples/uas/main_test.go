package main

import (
	"bufio"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sipdialog.example/dialog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs the machine and returns its URI, and a function that ends it.
func start(t *testing.T, args ...string) (machine sip.Uri, end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	read, write := io.Pipe()
	result := make(chan error, 1)
	go func() { result <- run(ctx, append([]string{"-listen", "127.0.0.1:0"}, args...), write) }()
	lines := bufio.NewReader(read)
	line, err := lines.ReadString('\n')
	require.NoError(t, err)
	addr, found := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	require.True(t, found, line)
	require.NoError(t, sip.ParseUri("sip:machine@"+addr, &machine))
	drained := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, lines)
		close(drained)
	}()
	return machine, func() {
		cancel()
		require.NoError(t, <-result)
		_ = write.Close()
		<-drained
	}
}

// call lets a new stack call the machine, and waits for the answer.
func call(t *testing.T, machine sip.Uri) *dialog.Dialog {
	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: "127.0.0.1"},
	})
	require.NoError(t, err)
	require.NoError(t, stack.Start(context.Background()))
	t.Cleanup(func() { require.NoError(t, stack.Shutdown(context.Background())) })
	placed, err := stack.NewInvite(context.Background(), machine, dialog.InviteOpts{})
	require.NoError(t, err)
	d := placed.(*dialog.Dialog)
	require.NoError(t, d.WaitAnswer(context.Background()))
	return d
}

func TestRun_answers_and_hangs_up(t *testing.T) {
	machine, end := start(t, "-for", "1ms")
	d := call(t, machine)
	<-d.Done()
	require.Equal(t, "remote BYE time is up", d.Cause().String())
	end()
}

func TestRun_hangs_up_when_interrupted(t *testing.T) {
	machine, end := start(t)
	d := call(t, machine)
	end()
	<-d.Done()
	require.Equal(t, dialog.PartyRemote, d.Cause().By)
}

func TestRun_says_what_is_wrong(t *testing.T) {
	require.ErrorContains(t, run(context.Background(), []string{"-listen", "here"}, io.Discard), "-listen")
	require.ErrorIs(t, run(context.Background(), []string{"-transport", "pigeon"}, io.Discard), dialog.ErrInvalidArgument)
}
