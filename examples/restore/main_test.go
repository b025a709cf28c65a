package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sipdialog.example/dialog"
)

// asProgram is set for the process that is killed: the callee's URI, a space, the folder.
const asProgram = "RESTORE_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if task := os.Getenv(asProgram); task != "" {
		if err := program(task); err != nil {
			fmt.Println(err)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// program places a call, writes it into a file, and waits to be killed.
func program(task string) error {
	target, folder, _ := strings.Cut(task, " ")
	ctx := context.Background()
	stack, err := dialog.NewStack(&dialog.StackConfig{Transport: &dialog.TransportConfig{Protocol: "udp", Address: "127.0.0.1"}})
	if err != nil {
		return err
	}
	if err := stack.Start(ctx); err != nil {
		return err
	}
	var callee sip.Uri
	if err := sip.ParseUri(target, &callee); err != nil {
		return err
	}
	placed, err := stack.NewInvite(ctx, callee, dialog.InviteOpts{})
	if err != nil {
		return err
	}
	call := placed.(*dialog.Dialog)
	if err := call.WaitAnswer(ctx); err != nil {
		return err
	}
	snapshot, err := call.Snapshot()
	if err != nil {
		return err
	}
	text, err := json.Marshal(snapshot)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "call.json"), text, 0o600); err != nil {
		return err
	}
	fmt.Println("called from", stack.Addr())
	select {}
}

// A program is killed in a call; its callee gets the BYE all the same.
func TestRun_hangs_up_what_a_crash_has_left(t *testing.T) {
	ctx := context.Background()
	callee, err := dialog.NewStack(&dialog.StackConfig{Transport: &dialog.TransportConfig{Protocol: "udp", Address: "127.0.0.1"}})
	require.NoError(t, err)
	calls := make(chan *dialog.Dialog, 1)
	callee.OnIncomingDialog(func(d dialog.IDialog) {
		_ = d.Accept(ctx)
		calls <- d.(*dialog.Dialog)
	})
	require.NoError(t, callee.Start(ctx))
	t.Cleanup(func() { require.NoError(t, callee.Shutdown(ctx)) })

	folder := t.TempDir()
	killed := exec.Command(os.Args[0])
	killed.Env = append(os.Environ(), fmt.Sprintf("%s=sip:bob@%s %s", asProgram, callee.Addr(), folder))
	out, err := killed.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, killed.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, killed.Process.Kill())
	_ = killed.Wait()
	require.NoError(t, err)
	addr, found := strings.CutPrefix(strings.TrimSpace(line), "called from ")
	require.True(t, found, line)

	call := <-calls
	require.Equal(t, dialog.DialogStateEstablished, call.State())
	require.NoError(t, run(ctx, netip.MustParseAddrPort(addr), folder))
	<-call.Done()
	require.Equal(t, "remote BYE server restarted", call.Cause().String())
	left, err := filepath.Glob(filepath.Join(folder, "*"))
	require.NoError(t, err)
	require.Empty(t, left)
}
