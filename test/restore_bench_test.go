package test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

// BenchmarkRestore reads and restores a call with a session description, a timer and a
// route, and BenchmarkSnapshot writes one.
func BenchmarkRestore(b *testing.B) {
	s := quietStack(b)
	texts := make([][]byte, b.N)
	for i := range texts {
		texts[i] = []byte(fmt.Sprintf(benchSnapshot, i))
	}
	b.ReportAllocs()
	for _, text := range texts[:b.N] {
		restoreText(b, s, text)
	}
}

func BenchmarkSnapshot(b *testing.B) {
	d := restoreText(b, quietStack(b), []byte(fmt.Sprintf(benchSnapshot, 0)))
	b.ReportAllocs()
	for b.Loop() {
		snapshot, err := d.Snapshot()
		require.NoError(b, err)
		_, err = json.Marshal(snapshot)
		require.NoError(b, err)
	}
}

// quietStack is a stack on a free port that leaves its calls as they are.
func quietStack(b *testing.B) *dialog.Stack {
	s, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: "127.0.0.1"}, MaxDialogs: -1,
	})
	require.NoError(b, err)
	require.NoError(b, s.Start(context.Background()))
	b.Cleanup(func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Shutdown(ended)
	})
	return s
}

func restoreText(b *testing.B, s *dialog.Stack, text []byte) *dialog.Dialog {
	snapshot := new(dialog.Snapshot)
	require.NoError(b, json.Unmarshal(text, snapshot))
	d, err := s.Restore(context.Background(), snapshot)
	require.NoError(b, err)
	return d
}

const benchSnapshot = `{"e":1701337600000,"fi":true,"fl":"127.0.0.1:5060","fr":"127.0.0.1:9","ft":"UDP","i":"bench-%d","ls":100,` +
	`"lt":"5a1f","lu":"sip:service@127.0.0.1","pu":true,"rk":true,"rn":"Far","rr":["sip:127.0.0.1:9;lr"],"rs":1,"rt":"far","ru":"sip:caller@127.0.0.1",` +
	`"s":"v=0\r\no=bob 7 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 5000 RTP/AVP 0\r\na=sendrecv\r\n","sa":true,` +
	`"t":"sip:peer@127.0.0.1:9","te":4102444800000,"ti":1800,"v":1}`
