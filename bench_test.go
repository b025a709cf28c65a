package dialog_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// benchSession is a session of a usual size.
const benchSession = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n" +
	"m=audio 4000 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n" +
	"a=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"

// BenchmarkCall is a whole call between two stacks, one after the other: INVITE,
// 100, 180, 200, ACK, BYE, 200. Both ends, and the network, are in the figures.
func BenchmarkCall(b *testing.B) {
	b.Run("memory", func(b *testing.B) {
		network := dialogtest.NewNetwork()
		defer network.Close()
		benchCalls(b, benchStack(b, "10.0.0.1", network), benchStack(b, "10.0.0.2", network))
	})
	b.Run("loopback", func(b *testing.B) {
		benchCalls(b, benchStack(b, "127.0.0.1", nil), benchStack(b, "127.0.0.1", nil))
	})
}

// benchStack starts a stack on a host of the network, or on the machine's own.
func benchStack(b *testing.B, ip string, network *dialogtest.Network) *dialog.Stack {
	b.Helper()
	config := &dialog.StackConfig{
		Transport:  &dialog.TransportConfig{Protocol: "udp", Address: ip},
		MaxDialogs: -1,
	}
	if network != nil {
		config.Network = network.Host(ip)
	}
	s, err := dialog.NewStack(config)
	require.NoError(b, err)
	require.NoError(b, s.Start(context.Background()))
	return s
}

func benchCalls(b *testing.B, a, z *dialog.Stack) {
	ctx := context.Background()
	defer func() {
		require.NoError(b, a.Shutdown(ctx))
		require.NoError(b, z.Shutdown(ctx))
	}()
	z.OnIncomingDialog(func(d dialog.IDialog) {
		if err := d.Accept(ctx, benchAnswer); err != nil {
			b.Error(err)
		}
	})
	target := sip.Uri{Scheme: "sip", User: "z", Host: z.Addr().Addr().String(), Port: int(z.Addr().Port())}
	opts := dialog.InviteOpts{Body: dialog.NewBody("application/sdp", []byte(benchSession))}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		d, err := a.NewInvite(ctx, target, opts)
		require.NoError(b, err)
		require.NoError(b, d.(*dialog.Dialog).WaitAnswer(ctx))
		require.NoError(b, d.Bye(ctx, ""))
	}
	b.StopTimer()
}

func benchAnswer(ok *sip.Response) {
	ok.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	ok.SetBody([]byte(benchSession))
}

// hotKeys is how many calls are looked up over and over, however many there are.
const hotKeys = 1000

// BenchmarkDialogByKey looks calls up from all processors at once: the same 1,000
// calls, and any of all. The bare map has no lock and no one who writes.
func BenchmarkDialogByKey(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		s, keys := enrolled(b, n)
		find := func(key dialog.DialogKey) bool {
			_, ok := s.DialogByKey(key)
			return ok
		}
		b.Run(fmt.Sprintf("hot/dialogs=%d", n), func(b *testing.B) { benchLookup(b, shuffled(keys)[:min(n, hotKeys)], find) })
		b.Run(fmt.Sprintf("random/dialogs=%d", n), func(b *testing.B) { benchLookup(b, shuffled(keys), find) })
		bare := bareMap(s, keys)
		b.Run(fmt.Sprintf("bare-map/dialogs=%d", n), func(b *testing.B) {
			benchLookup(b, shuffled(keys), func(key dialog.DialogKey) bool { return bare[key] != nil })
		})
	}
}

// BenchmarkState reads the state of calls from all processors at once.
func BenchmarkState(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		s, keys := enrolled(b, n)
		dialogs := make([]*dialog.Dialog, min(n, hotKeys))
		for i := range dialogs {
			dialogs[i], _ = s.DialogByKey(keys[i])
		}
		b.Run(fmt.Sprintf("dialogs=%d", n), func(b *testing.B) {
			benchLookup(b, dialogs, func(d *dialog.Dialog) bool { return d.State() == dialog.DialogStateEstablished })
		})
	}
}

// BenchmarkStats reads the statistics of a stack that holds 1,000 calls.
func BenchmarkStats(b *testing.B) {
	s, _ := enrolled(b, 1000)
	b.ReportAllocs()
	for range b.N {
		_ = s.Stats()
	}
}

func enrolled(b *testing.B, n int) (*dialog.Stack, []dialog.DialogKey) {
	b.Helper()
	s, err := dialog.NewStack(nil)
	require.NoError(b, err)
	return s, dialog.Enrol(s, n)
}

func bareMap(s *dialog.Stack, keys []dialog.DialogKey) map[dialog.DialogKey]*dialog.Dialog {
	bare := make(map[dialog.DialogKey]*dialog.Dialog)
	for _, key := range keys {
		bare[key], _ = s.DialogByKey(key)
	}
	return bare
}

// shuffled returns the items in an order that no cache foresees.
func shuffled[T any](items []T) []T {
	random := rand.New(rand.NewPCG(1, 2))
	list := append([]T(nil), items...)
	random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// benchLookup asks about one item after the other, each processor from a place of
// its own.
func benchLookup[T any](b *testing.B, items []T, ask func(T) bool) {
	var starts atomic.Int64
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		i := int(starts.Add(1)) * 7919 % len(items)
		for pb.Next() {
			if !ask(items[i]) {
				b.Error("not found")
				return
			}
			if i++; i == len(items) {
				i = 0
			}
		}
	})
}
