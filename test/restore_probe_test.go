package test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/store/memory"
)

// The ACK to a 200 went to the process that has died, or the 200 was lost with it: the peer
// is asked, once, and the call is not ended for want of an ACK.
func TestRestoredCallWithoutItsACKIsProbed(t *testing.T) {
	for name, c := range map[string]struct {
		allow, method string
		code          int // zero: none
		ends          bool
	}{
		"UPDATE":                   {"INVITE, UPDATE", "UPDATE", 200, false},
		"UPDATE, unknown call":     {"INVITE, UPDATE", "UPDATE", 481, true},
		"UPDATE, refused":          {"INVITE, UPDATE", "UPDATE", 500, false},
		"OPTIONS":                  {"INVITE", "OPTIONS", 200, false},
		"OPTIONS, unknown call":    {"INVITE", "OPTIONS", 481, true},
		"OPTIONS, timed out ahead": {"INVITE", "OPTIONS", 408, true},
		"OPTIONS, no answer":       {"INVITE", "OPTIONS", 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s, p := w.stack(stackIP), w.peer(peerIP)
				l := w.rings(s, p, withHeaders("Allow: "+c.allow))
				require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
				l.final = l.next("200 INVITE")
				s = l.restart()
				began := time.Now()
				in := p.next(c.method)
				require.Less(t, time.Since(began), 2*time.Second)
				if c.code != 0 {
					p.reply(in, dialogtest.Response{Code: c.code})
				}
				w.answersAll(p, "", dialogtest.Response{})
				time.Sleep(2 * time.Minute)
				if c.ends {
					require.Empty(t, s.Dialogs())
					return
				}
				require.Len(t, w.sent(stackIP, c.method), 1)
				require.Equal(t, dialog.DialogStateEstablished, l.d.State())
				require.NoError(t, l.d.Close())
				synctest.Wait()
			})
		})
	}
	t.Run("its peer speaks", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			store := memory.New()
			s, k := w.process(stackIP, store)
			l := w.rings(s, w.peer(peerIP), withHeaders("Allow: INVITE, UPDATE"))
			require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
			l.final = l.next("200 INVITE")
			s, _ = l.failsOver(k, store)
			l.theirs("INFO", 200)
			l.quiet("UPDATE", time.Minute)
			hangUp(t, oneCall(t, s), l.peer)
		})
	})
	t.Run("it was acknowledged", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			l := w.incoming(w.stack(stackIP), w.peer(peerIP), withHeaders("Allow: INVITE, UPDATE"))
			l.restart()
			l.quiet("UPDATE", time.Minute)
			hangUp(t, l.d, l.peer)
		})
	})
	t.Run("long ago", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			s := w.stack(stackIP)
			l := w.rings(s, w.peer(peerIP), withHeaders("Allow: INVITE, UPDATE"))
			require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
			l.final = l.next("200 INVITE")
			text := w.written(l.d)
			w.crash(s)
			time.Sleep(33 * time.Second)
			l.d = w.restored(w.stack(stackIP), text)
			l.quiet("UPDATE", time.Minute)
			hangUp(t, l.d, l.peer)
		})
	})
}
