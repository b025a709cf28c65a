package test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/store/memory"
)

// answerTo sends a request of the peer and returns the final response.
func (l *peerCall) answerTo(method string, change ...func(*dialogtest.Request)) *sip.Response {
	l.t.Helper()
	l.ask(method, change...)
	return l.peer.final(method)
}

// refusedForNow checks that a request got 503 with Retry-After: it ends the transaction
// only (RFC 5057 5.1).
func refusedForNow(t *testing.T, res *sip.Response) {
	t.Helper()
	require.Equal(t, 503, res.StatusCode)
	require.NotEmpty(t, res.GetHeaders("Retry-After"))
}

// A store that fails in any way ends no call: its requests get 503, and are served once it
// answers.
func TestStoreThatFailsEndsNoCall(t *testing.T) {
	for name, fault := range map[string]func(ctx context.Context, operation string) error{
		"down":                 func(context.Context, string) error { return errNoStore },
		"silent":               func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() },
		"panics":               func(context.Context, string) error { panic("in the store") },
		"slower than its time": func(ctx context.Context, _ string) error { time.Sleep(time.Second); return ctx.Err() },
		"an error of its own": func(context.Context, string) error {
			return dialog.ErrTerminated // says nothing of the call
		},
		"ErrMoved, which is not for Take": func(context.Context, string) error { return dialog.ErrMoved },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				store := memory.New()
				l, k := w.keptCall("callee", store)
				s, k2 := l.failsOver(k, store)
				k2.meets(fault)
				for _, method := range []string{"INFO", "BYE", "INVITE", "NOTIFY"} {
					began := time.Now()
					refusedForNow(t, l.answerTo(method))
					require.Less(t, time.Since(began), 2*time.Second)
				}
				require.EqualValues(t, 4, s.Stats().Refused["takeovers"])
				require.Zero(t, s.Stats().TakenOver)
				k2.meets(nil)
				time.Sleep(time.Second)
				l.theirs("INFO", 200)
				l.d = oneCall(t, s)
				hangUp(t, l.d, l.peer)
			})
		})
	}
}

// A call that has ended is said to have: a BYE that is late gets 200, anything else 481. So
// does one that was never kept, but for the BYE.
func TestEndedAndUnknownCallsAreNotTakenOver(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		store := memory.New()
		l, k := w.keptCall("callee", store)
		hangUp(t, l.d, l.peer)
		_, k2 := l.failsOver(k, store)
		require.Equal(t, 200, l.answerTo("BYE").StatusCode)
		require.Equal(t, 481, l.answerTo("INFO").StatusCode)
		require.Equal(t, 481, l.answerTo("INVITE").StatusCode)
		require.Equal(t, 1, k2.calls("Peek"), "what the store has said is remembered")
		time.Sleep(33 * time.Second)
		require.Equal(t, 481, l.answerTo("BYE").StatusCode, "the tombstone has gone")
		require.Equal(t, 2, k2.calls("Peek"))
		l.stackTag = "unknown"
		require.Equal(t, 481, l.answerTo("BYE").StatusCode)
		require.Equal(t, 481, l.answerTo("INVITE", withBody(offerSDP)).StatusCode)
		require.Equal(t, 3, k2.calls("Peek"))
	})
}

// A record in the store may be unreadable for this process, or for all: it ends no call, and
// stays for a process that can read it.
func TestRecordThatCannotBeReadEndsNoCall(t *testing.T) {
	later := func(data []byte) []byte { return []byte(strings.Replace(string(data), `"v":1`, `"v":2`, 1)) }
	for name, change := range map[string]func([]byte) []byte{
		"a later version":        later,
		"no bytes":               func([]byte) []byte { return nil },
		"no JSON":                func([]byte) []byte { return []byte("\x00\xff garbage") },
		"another type":           func([]byte) []byte { return []byte(`[1,2]`) },
		"half of it":             func(data []byte) []byte { return data[:len(data)/2] },
		"no target":              func(data []byte) []byte { return withoutField(data, "t") },
		"another call":           func(data []byte) []byte { return []byte(strings.Replace(string(data), `"i":"`, `"i":"x`, 1)) },
		"a field that is a list": func(data []byte) []byte { return []byte(strings.Replace(string(data), `"e":`, `"e":[],"e2":`, 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				store := memory.New()
				l, k := w.keptCall("callee", store)
				s, k2 := l.failsOver(k, store)
				key := dialog.NewStoreKey(l.callID, l.stackTag)
				good := rewritten(t, store, key, change)
				for _, method := range []string{"INFO", "BYE", "UPDATE"} {
					refusedForNow(t, l.answerTo(method))
				}
				require.Equal(t, 1, k2.calls("Peek"), "what the store has said is remembered")
				require.Empty(t, s.Dialogs())
				rewritten(t, store, key, func([]byte) []byte { return good })
				time.Sleep(33 * time.Second)
				l.theirs("INFO", 200)
				hangUp(t, oneCall(t, s), l.peer)
			})
		})
	}
}

// withoutField is a snapshot without a field.
func withoutField(data []byte, field string) []byte {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		panic(err)
	}
	delete(fields, field)
	text, _ := json.Marshal(fields)
	return text
}

// rewritten changes the data of a record, by its owner, and returns what it was.
func rewritten(t *testing.T, store dialog.Store, key dialog.StoreKey, change func([]byte) []byte) (was []byte) {
	t.Helper()
	ctx := context.Background()
	r, err := store.Take(ctx, key, "test")
	require.NoError(t, err)
	was = r.Data
	r.Data = change(r.Data)
	require.NoError(t, store.Save(ctx, r))
	return was
}

// TakeoverFilter leaves calls to other processes. It may misbehave.
func TestTakeoverFilter(t *testing.T) {
	for name, filter := range map[string]func(*dialog.Snapshot) bool{
		"refuses":       func(s *dialog.Snapshot) bool { return string(s.AppData) != "theirs" },
		"panics":        func(*dialog.Snapshot) bool { panic("in the application") },
		"changes it":    func(s *dialog.Snapshot) bool { clear(s.AppData); clear(s.Session); return false },
		"takes nothing": func(*dialog.Snapshot) bool { return false },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				store := memory.New()
				l, k := w.keptCall("callee", store)
				require.NoError(t, l.d.SetAppData([]byte("theirs")))
				synctest.Wait()
				s, _ := l.failsOver(k, store, func(c *dialog.StackConfig) { c.TakeoverFilter = filter })
				refusedForNow(t, l.answerTo("INFO"))
				require.Empty(t, s.Dialogs())
				other, _ := w.process(otherIP, store)
				l.stack = other.Addr()
				l.theirs("INFO", 200)
				require.Equal(t, "theirs", string(oneCall(t, other).AppData()))
				hangUp(t, oneCall(t, other), l.peer)
			})
		})
	}
}

// MaxDialogs bounds what is taken over: the request gets 503, and the call stays where it
// is.
func TestTakeoverBeyondMaxDialogs(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		store := memory.New()
		l, k := w.keptCall("callee", store)
		s, k2 := l.failsOver(k, store, func(c *dialog.StackConfig) { c.MaxDialogs = 1 })
		other := w.incoming(s, w.peer(otherIP))
		refusedForNow(t, l.answerTo("INFO"))
		require.Zero(t, k2.calls("Take"), "its owner may live")
		hangUp(t, other.d, other.peer)
		l.theirs("INFO", 200)
		hangUp(t, oneCall(t, s), l.peer)
	})
}

// A request with the peer's tag of another call does not find the call, and does not end
// it.
func TestTakeoverByTheWrongPeer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		store := memory.New()
		l, k := w.keptCall("callee", store)
		s, _ := l.failsOver(k, store)
		tag := l.tag
		l.tag = "stranger"
		require.Equal(t, 481, l.answerTo("BYE").StatusCode)
		l.tag = tag
		l.theirs("INFO", 200)
		hangUp(t, oneCall(t, s), l.peer)
	})
}
