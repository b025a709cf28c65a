package test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// Only an established call without a pending hang-up has a snapshot.
func TestSnapshotNeedsAnEstablishedCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP), w.peer(peerIP)
		refused := func(d *dialog.Dialog) {
			t.Helper()
			_, err := d.Snapshot()
			var state *dialog.StateError
			require.ErrorAs(t, err, &state)
			require.ErrorContains(t, err, "dialog: Snapshot needs Established state")
		}
		l := w.rings(s, p)
		refused(l.d)
		l.accepted()
		_, err := l.d.Snapshot()
		require.NoError(t, err)
		ended := began(func() error { return l.d.Bye(context.Background(), "") })
		in := p.next("BYE")
		refused(l.d)
		p.reply(in, dialogtest.Response{Code: 200})
		require.NoError(t, <-ended)
		refused(l.d)

		out := w.alerting(s, p)
		refused(out.d)
		require.NoError(t, out.d.Close())
		out.answers487(p)
		require.Error(t, out.d.SetAppData(nil))
	})
}

// Restore refuses these snapshots, with these errors.
func TestRestoreRefuses(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		s, p := w.stack(stackIP, func(c *dialog.StackConfig) { c.MaxDialogs = 1 }), w.peer(peerIP)
		l := w.incoming(s, p)
		snapshot, err := l.d.Snapshot()
		require.NoError(t, err)
		restore := func(s *dialog.Stack) error { _, err := s.Restore(ctx, snapshot); return err }
		require.ErrorIs(t, restore(s), dialog.ErrExists)
		other := *snapshot
		other.CallID = "another"
		_, err = s.Restore(ctx, &other)
		require.ErrorIs(t, err, dialog.ErrMaxDialogs)
		l.hangUp(p)
		require.ErrorIs(t, restore(s), dialog.ErrEnded)
		time.Sleep(33 * time.Second)
		require.NoError(t, restore(s))
		var none context.Context
		_, err = s.Restore(none, snapshot)
		require.ErrorIs(t, err, dialog.ErrInvalidArgument)
		_, err = s.Restore(ctx, nil)
		require.ErrorIs(t, err, dialog.ErrInvalidArgument)
		over, cancel := context.WithCancel(ctx)
		cancel()
		_, err = s.Restore(over, snapshot)
		require.ErrorIs(t, err, context.Canceled)

		later := *snapshot
		later.Version++
		_, err = s.Restore(ctx, &later)
		require.ErrorIs(t, err, dialog.ErrVersion)
		require.EqualError(t, err, "dialog: Restore: snapshot of a later version")

		idle, err := dialog.NewStack(nil)
		require.NoError(t, err)
		require.ErrorIs(t, restore(idle), dialog.ErrNotStarted)
		require.NoError(t, idle.Shutdown(ctx))
		require.ErrorIs(t, restore(idle), dialog.ErrShutdown)
		hangUp(t, s.Dialogs()[0], p)
	})
}

// A snapshot that is not a call, or would break a message, is refused, field by field.
func TestBadSnapshotsAreRefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(s, p)
		good, err := l.d.Snapshot()
		require.NoError(t, err)
		l.hangUp(p)
		time.Sleep(time.Minute)
		for name, change := range map[string]func(*dialog.Snapshot){
			"version zero":          func(s *dialog.Snapshot) { s.Version = 0 },
			"version below":         func(s *dialog.Snapshot) { s.Version = -1 },
			"no Call-ID":            func(s *dialog.Snapshot) { s.CallID = "" },
			"Call-ID of two lines":  func(s *dialog.Snapshot) { s.CallID = "a\r\nX: y" },
			"Call-ID with a space":  func(s *dialog.Snapshot) { s.CallID = "a b" },
			"no tag of ours":        func(s *dialog.Snapshot) { s.LocalTag = "" },
			"tag with a parameter":  func(s *dialog.Snapshot) { s.LocalTag = "a;b=c" },
			"tag of two lines":      func(s *dialog.Snapshot) { s.RemoteTag = "a\r\nX: y" },
			"tag in a list":         func(s *dialog.Snapshot) { s.RemoteTag = "a,<sip:x@y>" },
			"name that ends":        func(s *dialog.Snapshot) { s.LocalName = `a" <sip:x@y>;q="` },
			"name of two lines":     func(s *dialog.Snapshot) { s.RemoteName = "a\r\nb" },
			"name with a backslash": func(s *dialog.Snapshot) { s.RemoteName = `a\` },
			"no From":               func(s *dialog.Snapshot) { s.LocalURI = "" },
			"From that ends":        func(s *dialog.Snapshot) { s.LocalURI = "sip:a@b>;tag=c" },
			"no To":                 func(s *dialog.Snapshot) { s.RemoteURI = "" },
			"To of two lines":       func(s *dialog.Snapshot) { s.RemoteURI = "sip:a@b\r\nX: y" },
			"no target":             func(s *dialog.Snapshot) { s.RemoteTarget = "" },
			"target of two lines":   func(s *dialog.Snapshot) { s.RemoteTarget = "sip:a@b;x=\r\n" },
			"target of a number":    func(s *dialog.Snapshot) { s.RemoteTarget = "tel:+49" },
			"target of a star":      func(s *dialog.Snapshot) { s.RemoteTarget = "*" },
			"route of nothing":      func(s *dialog.Snapshot) { s.RouteSet = []string{""} },
			"route that ends":       func(s *dialog.Snapshot) { s.RouteSet = []string{"sip:p;lr>,<sip:q"} },
			"too many routes":       func(s *dialog.Snapshot) { s.RouteSet = slicesOf("sip:p;lr", 1000) },
			"Contact of two lines":  func(s *dialog.Snapshot) { s.Contact = "<sip:a@b>\r\nX: y" },
			"Contact of two":        func(s *dialog.Snapshot) { s.Contact = "<sip:a@b>, <sip:c@d>" },
			"Contact of a star":     func(s *dialog.Snapshot) { s.Contact = "*" },
			"Contact of no URI":     func(s *dialog.Snapshot) { s.Contact = "x" },
			"CSeq beyond 2^31":      func(s *dialog.Snapshot) { s.SeqTop = 1 << 31 },
			"transport unknown":     func(s *dialog.Snapshot) { s.FlowTransport = "SCTP" },
			"no address":            func(s *dialog.Snapshot) { s.FlowRemote = netip.AddrPort{} },
			"server of two lines":   func(s *dialog.Snapshot) { s.FlowServer = "a\nb" },
			"type of two lines":     func(s *dialog.Snapshot) { s.SessionType = "a/b\r\nX: y" },
			"large session":         func(s *dialog.Snapshot) { s.Session = make([]byte, 2<<20) },
			"large data":            func(s *dialog.Snapshot) { s.AppData = make([]byte, 17<<10) },
			"interval below zero":   func(s *dialog.Snapshot) { s.TimerInterval = -1 },
			"interval of ages":      func(s *dialog.Snapshot) { s.TimerInterval = 1 << 40 },
			"Min-SE below zero":     func(s *dialog.Snapshot) { s.TimerMinSE = -5 },
		} {
			bad := *good
			change(&bad)
			_, err := s.Restore(context.Background(), &bad)
			require.ErrorIs(t, err, dialog.ErrInvalidArgument, name)
			require.Empty(t, s.Dialogs(), name)
		}
		for _, text := range []string{
			``, `null`, `7`, `[]`, `{`, `{"v":"1"}`, `{"v":1.5}`, `{"v":1,"i":7}`, `{"v":1,"i":["a","b"]}`, `{"v":1,"i":["%"]}`,
			`{"v":1,"ls":-1}`, `{"v":1,"ls":4294967296}`, `{"v":1,"rr":"x"}`, `{"v":1,"rr":[1]}`, `{"v":1,"u":"true"}`, `{"v":1,"fr":"10.0.0.1"}`,
		} {
			require.Error(t, json.Unmarshal([]byte(text), new(dialog.Snapshot)), text)
		}
	})
}

func slicesOf(text string, n int) (list []string) {
	for range n {
		list = append(list, text)
	}
	return list
}

// A call whose two sides want different sessions, of eight lines each, takes 1 KB.
func TestSnapshotIsSmall(t *testing.T) {
	session := func(version string) string {
		return "v=0\r\no=- 1701337600 " + version + " IN IP4 192.0.2.101\r\ns=-\r\nc=IN IP4 192.0.2.101\r\nt=0 0\r\n" +
			"m=audio 49170 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
	}
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(s, p, withHeaders("Supported: timer", "Session-Expires: 1800;refresher=uas", "Allow: INVITE, UPDATE",
			"Record-Route: <sip:10.0.0.7;lr>"))
		require.NoError(t, l.d.Accept(context.Background(), withSDP(session("1"))))
		l.final = l.next("200 INVITE")
		l.acknowledge(1)
		synctest.Wait()
		plain := w.written(l.d)
		require.Equal(t, 1, strings.Count(string(plain), "o=- "))
		require.Less(t, len(plain), 700, "%s", plain)
		l.ask("INVITE", withBody(heldSDP)) // by the default answer our session is another one
		seq := l.seq
		l.peer.final("INVITE")
		l.acknowledge(seq)
		synctest.Wait()
		held := w.written(l.d)
		require.Equal(t, 2, strings.Count(string(held), "o=- "), "%s", held)
		require.Less(t, len(held), 1024, "%s", held)
		t.Logf("%d and %d bytes", len(plain), len(held))
		hangUp(t, l.d, w.peer(proxyIP))
	})
}

// Equal calls have equal texts. Fields of a later version are kept, by the reader of a snapshot
// and by the owner of the call, and so is a whole later version.
func TestUnknownFieldsAreKept(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(s, p)
		require.NoError(t, l.d.SetAppData([]byte(`{"account":"<7> & \u2028"}`+"\xff\x00")))
		text := w.written(l.d)
		require.Equal(t, text, reread(t, text))

		newer := bytes.Replace(text, []byte(`{"a":`), []byte(`{"A":[1, {"b":"<"}],"a":`), 1)
		newer = bytes.Replace(newer, []byte(`,"v":1}`), []byte(`,"unknown":{"x":"y\u003c"},"v":1,"zz":1.50}`), 1)
		require.Contains(t, string(newer), "zz")
		once := reread(t, newer)
		require.Equal(t, once, reread(t, once))
		require.Equal(t, `{"A":[1,{"b":"\u003c"}],`, string(once[:len(`{"A":[1,{"b":"\u003c"}],`)]))
		require.Equal(t, strings.Count(string(newer), ":"), strings.Count(string(once), ":"))

		old, _ := w.stackAt(l.stack)
		w.crash(old)
		s = w.stack(stackIP)
		l.d = w.restored(s, once)
		again := w.written(l.d)
		require.Equal(t, withoutSeq(once), withoutSeq(again))
		require.NoError(t, l.d.SetAppData(nil))
		require.Contains(t, string(w.written(l.d)), `"unknown":{"x":"y\u003c"}`)
		hangUp(t, l.d, p)

		later := []byte(`{"a":{"i":[]},"i":"7","v":2,"x":null}`)
		require.Equal(t, later, reread(t, later))
		snapshot := new(dialog.Snapshot)
		require.NoError(t, json.Unmarshal(later, snapshot))
		_, err := s.Restore(context.Background(), snapshot)
		require.ErrorIs(t, err, dialog.ErrVersion)
	})
}

func reread(t *testing.T, text []byte) []byte {
	t.Helper()
	snapshot := new(dialog.Snapshot)
	require.NoError(t, json.Unmarshal(text, snapshot))
	again, err := json.Marshal(snapshot)
	require.NoError(t, err)
	byValue, err := json.Marshal(*snapshot)
	require.NoError(t, err)
	require.Equal(t, again, byValue)
	return again
}

// withoutSeq is a snapshot without the number that each owner begins above.
func withoutSeq(text []byte) string {
	snapshot := new(dialog.Snapshot)
	_ = json.Unmarshal(text, snapshot)
	snapshot.SeqTop = 0
	again, _ := json.Marshal(snapshot)
	return string(again)
}

// The application's data go with the call.
func TestAppDataGoesWithTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(s, p)
		require.Nil(t, l.d.AppData())
		data := []byte("account 7")
		require.NoError(t, l.d.SetAppData(data))
		clear(data)
		l.accepted()
		l.restart()
		require.Equal(t, "account 7", string(l.d.AppData()))
		clear(l.d.AppData())
		require.Equal(t, "account 7", string(l.d.AppData()))
		require.ErrorIs(t, l.d.SetAppData(make([]byte, 16<<10+1)), dialog.ErrInvalidArgument)
		require.NoError(t, l.d.SetAppData(make([]byte, 16<<10)))
		l.restart()
		require.Len(t, l.d.AppData(), 16<<10)
		hangUp(t, l.d, p)
		require.ErrorIs(t, l.d.SetAppData(nil), dialog.ErrTerminated)
	})
}

// FuzzRestore gives Restore what may stand in a store. It refuses it, or has a call whose
// BYE is a message that can be read.
func FuzzRestore(f *testing.F) {
	f.Add([]byte(`{"e":1701337600000,"fi":true,"fl":"10.0.0.1:5060","fr":"10.0.0.9:5060","ft":"UDP","i":"at-10-0-0-9-5060","ls":100,` +
		`"lt":"5a1","lu":"sip:service@10.0.0.1","pu":true,"rk":true,"rn":"Far","rr":["sip:10.0.0.7"],"rs":1,"rt":"far","ru":"sip:caller@10.0.0.9",` +
		`"s":"v=0\r\no=bob 7 1 IN IP4 10.0.0.2\r\ns=-\r\nt=0 0\r\nm=audio 5000 RTP/AVP 0\r\n","sa":true,"t":"sip:peer@10.0.0.9:5060","te":1701337690000,` +
		`"ti":90,"to":true,"u":true,"v":1}`))
	f.Add([]byte(`{"v":1,"ss":"v=0\r\nm=x 1 y\r\n","sw":["/w=="],"p":[],"c":"<sip:a@b>"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		snapshot := new(dialog.Snapshot)
		if json.Unmarshal(text, snapshot) != nil {
			return
		}
		written, err := json.Marshal(snapshot)
		require.NoError(t, err)
		require.Equal(t, written, reread(t, written))
		bubble(t, func(t *testing.T, w *world) {
			s := w.stack(stackIP, func(c *dialog.StackConfig) { c.TxTimeout = time.Second })
			d, err := s.Restore(context.Background(), snapshot)
			if err != nil {
				require.Empty(t, s.Dialogs())
				return
			}
			again, err := d.Snapshot()
			require.NoError(t, err)
			kept := *again
			kept.CallID += "2"
			other, err := s.Restore(context.Background(), &kept)
			require.NoError(t, err, "what was restored can be restored once more")
			for _, d := range []*dialog.Dialog{d, other} {
				_, _ = d.Update(context.Background(), nil)
				_ = d.Bye(context.Background(), "")
			}
			for _, m := range w.saidBy(stackIP) {
				head, _, _ := strings.Cut(m.raw, "\r\n\r\n")
				require.Equal(t, 1, strings.Count(head, "\r\nFrom: "), m.raw)
				require.Equal(t, 1, strings.Count(head, "\r\nTo: "), m.raw)
				require.Equal(t, 1, strings.Count(head, "\r\nCall-ID: "), m.raw)
				require.NotContains(t, strings.ReplaceAll(head, "\r\n", ""), "\n", m.raw)
			}
			// Where the call is not answered it has ended all the same.
			require.NoError(t, d.Close())
			require.NoError(t, other.Close())
		})
	})
}
