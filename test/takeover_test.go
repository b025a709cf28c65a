package test

import (
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/store/memory"
)

// A request of the peer finds its call in another process, whatever it is, and is handled
// there as if the call had always been there.
func TestRequestFindsItsCallInAnotherProcess(t *testing.T) {
	hold := withBody(heldSDP)
	for _, role := range []string{"callee", "caller"} {
		for name, theirs := range map[string]struct {
			method string
			code   int
			change []func(*dialogtest.Request)
		}{
			"BYE":        {"BYE", 200, nil},
			"re-INVITE":  {"INVITE", 200, []func(*dialogtest.Request){withBody(versioned(offerSDP, 5))}},
			"hold":       {"INVITE", 200, []func(*dialogtest.Request){hold}},
			"no offer":   {"INVITE", 200, nil},
			"UPDATE":     {"UPDATE", 200, []func(*dialogtest.Request){withBody(versioned(offerSDP, 5))}},
			"INFO":       {"INFO", 200, nil},
			"OPTIONS":    {"OPTIONS", 200, nil},
			"REFER":      {"REFER", 202, []func(*dialogtest.Request){withHeaders("Refer-To: <sip:carol@10.0.0.3>", "Refer-Sub: false")}},
			"a NOTIFY":   {"NOTIFY", 481, []func(*dialogtest.Request){withHeaders("Event: refer", "Subscription-State: active")}},
			"MESSAGE":    {"MESSAGE", 405, nil},
			"some other": {"FOO", 501, nil},
		} {
			t.Run(role+", "+name, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					store := memory.New()
					l, k := w.keptCall(role, store)
					w.kill(w.stacks[0], k)
					s, _ := w.process(stackIP, store)
					taken := restoring(s)
					l.theirs(theirs.method, theirs.code, theirs.change...)
					d := l.takenOver(taken, sip.RequestMethod(theirs.method))
					require.Equal(t, uint64(1), s.Stats().TakenOver)
					if theirs.method == "BYE" {
						require.Equal(t, "remote BYE", d.Cause().String())
						require.Zero(t, store.Len())
						return
					}
					hangUp(t, d, l.peer)
					require.Zero(t, store.Len(), "an ended call stays in the store")
				})
			})
		}
	}
}

// keptCall is an established call of a stack with a Store.
func (w *world) keptCall(role string, store *memory.Store, change ...func(*dialog.StackConfig)) (*peerCall, *link) {
	w.t.Helper()
	s, k := w.process(stackIP, store, change...)
	p := w.peer(peerIP)
	if role == "callee" {
		return w.incoming(s, p, withHeaders("Allow: INVITE, UPDATE")), k
	}
	l := w.outgoing(s, p, "Allow: INVITE, UPDATE")
	l.next("ACK")
	return l, k
}
