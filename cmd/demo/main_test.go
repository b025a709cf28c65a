package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sipdialog.example/dialog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDemo_goes_as_it_should(t *testing.T) {
	var out, log strings.Builder
	require.Zero(t, demo(context.Background(), nil, &out, &log), out.String())
	require.Empty(t, log.String())

	lines := strings.Split(out.String(), "\n")
	require.Equal(t, []string{"alice", "bob", "carol"}, strings.Fields(lines[12]))
	require.Equal(t, "OK: 35 messages and 25 notes, all as expected", lines[len(lines)-2])
	last := 0
	for _, part := range []string{
		"INVITE 1, SDP sendrecv, Session-Expires 90", "180 Ringing (INVITE 1)",
		"183 Session Progress (INVITE 1), SDP sendrecv, RSeq ", "PRACK 2, RAck ", " 1 INVITE", "200 OK (PRACK 2)",
		"200 OK (INVITE 1), Session-Expires 90", "ACK 1",
		"INVITE 3, SDP sendonly", "200 OK (INVITE 3), SDP recvonly", "ACK 3",
		"INVITE 4, SDP sendrecv", "200 OK (INVITE 4), SDP sendrecv", "ACK 4",
		"UPDATE 5, Session-Expires 90", "200 OK (UPDATE 5), Session-Expires 90",
		"REFER 6", "202 Accepted (REFER 6)", "NOTIFY 1, 100 Trying", "asked to call carol", "180 Ringing (INVITE 1)",
		"NOTIFY 2, 180 Ringing", "transfer: 180 Ringing", "ACK 1", "NOTIFY 3, 200 OK", "transfer: 200 OK",
		"BYE 7", "200 OK (BYE 7)", "BYE 1", "200 OK (BYE 1)", "OK: ",
	} {
		at := strings.Index(out.String()[last:], part)
		require.GreaterOrEqual(t, at, 0, "%s is missing, or comes too early, in\n%s", part, out.String())
		last += at + len(part)
	}
}

func TestDemo_shows_the_logs_when_asked(t *testing.T) {
	var out strings.Builder
	require.Zero(t, demo(context.Background(), []string{"-v"}, &out, io.Discard), out.String())
	require.Equal(t, 2, demo(context.Background(), []string{"-x"}, io.Discard, io.Discard))
}

// The picture in README is that of this demo: make demo-draw draws it anew.
func TestDemo_draws_the_picture_of_the_documentation(t *testing.T) {
	file := filepath.Join(t.TempDir(), "demo.svg")
	var out strings.Builder
	require.Zero(t, demo(context.Background(), []string{"-svg", file}, &out, io.Discard), out.String())
	drawn, err := os.ReadFile(file)
	require.NoError(t, err)
	shown, err := os.ReadFile("../../docs/demo.svg")
	require.NoError(t, err)
	require.Equal(t, string(shown), string(drawn), "docs/demo.svg is old: make demo-draw")
}

func TestDemo_names_the_step_that_failed(t *testing.T) {
	ctx := context.Background()
	s, err := openScene(ctx, nil)
	require.NoError(t, err)
	s.bob.stack.OnIncomingDialog(func(d dialog.IDialog) {
		call := s.bob.follow(d)
		_ = d.Reject(ctx, 486, "")
		s.bob.calls <- call
	})
	err = s.play(ctx, s.steps(), io.Discard)
	require.ErrorContains(t, err, "step 1, alice calls bob, whose phone rings: the ")
	require.NoError(t, s.close(ctx))
	require.Contains(t, s.record.ladder(), "486 Busy Here (INVITE 1)")
}

func TestDemo_fails_when_the_183_is_not_reliable(t *testing.T) {
	ctx := context.Background()
	s, err := openScene(ctx, nil)
	require.NoError(t, err)
	steps := s.steps()
	steps[1].do = func(ctx context.Context) error {
		return s.bobsCall.Provisional(ctx, 183, "")
	}
	err = s.play(ctx, steps, io.Discard)
	require.ErrorContains(t, err, "but are [bob>alice 183 INVITE]")
	require.NoError(t, s.close(ctx))
}

func TestDescribe_names_what_the_steps_check(t *testing.T) {
	for message, want := range map[string]string{
		"SIP/2.0 183 Session Progress\r\nCSeq: 1 INVITE\r\nRSeq: 7\r\nContent-Length: 12\r\n\r\na=sendonly\r\n": "183 INVITE sendonly reliable",
		"UPDATE sip:bob@x SIP/2.0\r\nSession-Expires: 90;refresher=uac\r\n\r\n":                                 "UPDATE 90;refresher=uac",
		"NOTIFY sip:bob@x SIP/2.0\r\nContent-Length: 17\r\n\r\nSIP/2.0 200 OK\r\n\r\n":                          "NOTIFY 200",
		"ACK sip:bob@x SIP/2.0\r\n\r\n": "ACK",
		"":                              "unreadable",
	} {
		require.Equal(t, want, describe([]byte(message)))
	}
}

func TestDemo_fails_when_its_time_is_up(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out strings.Builder
	require.Equal(t, 1, demo(ctx, nil, &out, io.Discard))
	require.Contains(t, out.String(), "FAILED: ")
	require.Contains(t, out.String(), "context canceled")
}

func TestRecord_knows_what_a_step_must_bring(t *testing.T) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	ring, answer := []string{"a>b INVITE", "b>a 180 INVITE"}, []string{"b>a 200 INVITE"}
	tests := map[string]struct {
		flow, notes []string
		err         string
	}{
		"all of it":           {ring, []string{"b y", "a x"}, ""},
		"a message missing":   {ring[:1], []string{"a x", "b y"}, "context canceled; the messages should be"},
		"a note missing":      {ring, []string{"a x"}, "context canceled; the notes should be"},
		"another order":       {[]string{ring[1], ring[0]}, []string{"a x", "b y"}, "the messages should be"},
		"a message too many":  {append(ring, answer...), []string{"a x", "b y"}, "the messages should be"},
		"a note too many":     {ring, []string{"a x", "b y", "b y"}, "the notes should be"},
		"another note":        {ring, []string{"a x", "b z"}, "the notes should be"},
		"another message yet": {answer, nil, "the messages should be"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRecord()
			r.flow, r.notes = test.flow, test.notes
			err := r.expect(ended, ring, []string{"a x", "b y"})
			if test.err == "" {
				require.NoError(t, err)
				require.NoError(t, r.nothingMore())
				return
			}
			require.ErrorContains(t, err, test.err)
		})
	}
}
