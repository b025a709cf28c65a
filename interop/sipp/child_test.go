package main

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestATakenPortIsToldFromAFailure(t *testing.T) {
	if _, err := exec.LookPath("sipp"); err != nil {
		t.Skip("sipp is not installed; make interop-sipp installs it")
	}
	taken, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()

	c := testCase{scenario: "call_out.xml", protocol: "udp", calls: 1}
	text, err := scenarios.ReadFile("scenarios/" + c.scenario)
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, scenarioFile), text, 0o600))
	sipp, err := runSipp(context.Background(), c, dir, taken.LocalAddr().(*net.UDPAddr).Port, "")
	require.NoError(t, err)
	require.ErrorIs(t, sipp.wait(), errPortTaken)
}
