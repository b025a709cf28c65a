package main

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	if isServer() {
		os.Exit(serverMain())
	}
	os.Exit(m.Run())
}

func TestCallOutlivesItsProcess(t *testing.T) {
	var out strings.Builder
	if status := demo(context.Background(), true, &out); status != 0 {
		t.Fatalf("status %d:\n%s", status, out.String())
	}
	last := 0
	for _, part := range []string{
		"INVITE 1, SDP sendrecv", "200 OK (INVITE 1)", "ACK 1", "kill -9", "same address, same file",
		"UPDATE 2", "200 OK (UPDATE 2)", "has the call",
		"INVITE 10001, SDP sendonly", "200 OK (INVITE 10001), SDP recvonly", "INVITE 10002, SDP sendrecv",
		"BYE 10003", "200 OK (BYE 10003)", "OK: 17 messages",
	} {
		at := strings.Index(out.String()[last:], part)
		if at < 0 {
			t.Fatalf("%s is missing, or comes too early, in\n%s", part, out.String())
		}
		last += at + len(part)
	}
}

// Without a file the new process does not know the call, and the demo says so.
func TestDemoFailsWithoutAStore(t *testing.T) {
	var out strings.Builder
	if status := demo(context.Background(), false, &out); status != 1 {
		t.Fatalf("status %d:\n%s", status, out.String())
	}
	for _, part := range []string{"FAILED: step 5, bob refreshes the session", "481 "} {
		if !strings.Contains(out.String(), part) {
			t.Fatalf("%s is missing in\n%s", part, out.String())
		}
	}
}

func TestDemoFailsWhenItsTimeIsUp(t *testing.T) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if status := demo(ended, true, io.Discard); status != 1 {
		t.Fatalf("status %d", status)
	}
}
