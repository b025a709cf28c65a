package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const ruler = "-----------------------------------------------"

func TestALogOfSippsIsReadMessageByMessage(t *testing.T) {
	path := filepath.Join(t.TempDir(), messageLog)
	text := ruler + " 2026-11-22 23:23:14.000100\nUDP message received [4] bytes :\n\n\r\n\r\n\n" +
		ruler + " 2026-11-22\t23:23:14.250100\nTCP message received [60] bytes :\n\nBYE sip:a@b SIP/2.0\r\nVia: x\r\nvia: y\r\nContent-Length: 2\r\n\r\nhi\n" +
		ruler + " 2026-11-22 23:23:14.500100\nUDP message sent (40 bytes):\n\nSIP/2.0 200 OK\r\n\r\n\n"
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))

	log, err := readLog(path)
	require.NoError(t, err)
	require.Len(t, log, 2, "the keep-alive is no message")

	startLine, _, body := log[0].parts()
	require.Equal(t, "BYE sip:a@b SIP/2.0", startLine)
	require.Equal(t, "hi", body)
	require.True(t, log[0].received)
	require.Equal(t, []string{"x", "y"}, log[0].values("Via"))
	require.False(t, log[1].received)
	require.Equal(t, 250*time.Millisecond, log[1].at.Sub(log[0].at))
}

func TestAMessageIsWellFormedOrTheFaultIsNamed(t *testing.T) {
	good := "BYE sip:a@b SIP/2.0\r\nVia: v\r\nFrom: f\r\nTo: t\r\nCall-ID: c\r\nCSeq: 2 BYE\r\nMax-Forwards: 70\r\nContent-Length: 2\r\n\r\nhi\n"
	require.NoError(t, message{text: good}.wellFormed())
	for _, fault := range []struct{ old, replacement, says string }{
		{"To: t\r\n", "", "0 To headers"},
		{"CSeq: 2 BYE\r\n", "CSeq: 2 BYE\r\nCSeq: 3 BYE\r\n", "2 CSeq headers"},
		{"Via: v\r\n", "", "no Via"},
		{"Max-Forwards: 70\r\n", "", "0 Max-Forwards headers"},
		{"Content-Length: 2", "Content-Length: 3", "the body has 2 bytes"},
		{"f\r\n", "<sip:0.0.0.0>\r\n", "0.0.0.0"},
	} {
		bad := strings.Replace(good, fault.old, fault.replacement, 1)
		require.ErrorContains(t, message{text: bad}.wellFormed(), fault.says)
	}
}

func TestRepetitionsAreDueFromT1ToT2UntilSixtyFourT1(t *testing.T) {
	var due []float64
	for _, at := range repetitions(500*time.Millisecond, 4*time.Second) {
		due = append(due, at.Seconds())
	}
	require.Equal(t, []float64{0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5}, due)
}
