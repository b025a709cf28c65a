package txn

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
)

// long is a Call-ID of some 30 KB, a new one each time.
func long(i int) string { return fmt.Sprint("call-", i, strings.Repeat("x", 30<<10)) }

// FX7: transactions are bounded in bytes, too; requests of what is there have the
// last eighth.
func TestTransactionsAreBoundedInBytes(t *testing.T) {
	bubbleWith(t, func(cfg *Config) { cfg.TransactionBytes = 4 << 20 }, func(t *testing.T, r *rig) {
		r.user.onRequest = func(s *Server) { _ = s.Respond(s.NewResponse(200, "")) }
		ask := func(method string, n int) map[string]int {
			codes := make(map[string]int)
			for i := range n {
				r.wire.send(r.textOf(long(r.calls+i), method, fmt.Sprint("z9hG4bK-", method, r.calls+i)))
				for _, line := range r.lines() {
					codes[line]++
				}
			}
			r.calls += n
			return codes
		}
		codes := ask("OPTIONS", 200)
		require.Greater(t, codes["200"], 30)
		require.Equal(t, 200, codes["200"]+codes["503"])
		require.LessOrEqual(t, r.layer.Held(), 4<<20-4<<20/8)
		codes = ask("BYE", 200)
		require.Greater(t, codes["200"], 3)
		require.LessOrEqual(t, r.layer.Held(), 4<<20)
		time.Sleep(time.Minute)
		require.Zero(t, r.layer.Held())
		require.Equal(t, 1, ask("OPTIONS", 1)["200"])
	})
}

// FX7: beyond the limit a BYE to no call gets 481, not 503.
func TestAByeToNoCallGets481AtTheLimit(t *testing.T) {
	bubbleWith(t, func(cfg *Config) {
		cfg.Transactions = 1
		cfg.InCall = func(m *sipmsg.Message) bool { return m.CallID == "known" }
	}, func(t *testing.T, r *rig) {
		r.wire.send(r.text("OPTIONS", "z9hG4bK-1"))
		for range 2 {
			r.wire.send(r.textOf("unknown", "BYE", "z9hG4bK-2"))
		}
		r.wire.send(r.textOf("unknown", "INFO", "z9hG4bK-3"))
		msgs := r.messages()
		require.Len(t, msgs, 3)
		require.Equal(t, "481", short(msgs[0]))
		require.Equal(t, msgs[0].String(), msgs[1].String())
		require.Equal(t, "503", short(msgs[2]))
		r.wire.send(r.textOf("known", "INFO", "z9hG4bK-4"))
		r.wire.send(r.textOf("known", "BYE", "z9hG4bK-5"))
		require.Empty(t, r.lines())
		require.Equal(t, []string{"request OPTIONS", "request INFO", "request BYE"}, r.user.take())
		require.Equal(t, 3, r.layer.Running().Servers)
	})
}

// FX7: a CANCEL for nothing, and what the user dismisses, take no transaction; the
// same again gets the same answer.
func TestStrayRequestsTakeNoTransaction(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		r.user.onRequest = func(s *Server) { s.Dismiss(481) }
		for _, method := range []string{"CANCEL", "BYE", "INFO"} {
			for range 2 {
				r.wire.send(r.text(method, "z9hG4bK-"+method))
				r.settle() // while the first is looked at the second is its repetition
			}
			msgs := r.messages()
			require.Len(t, msgs, 2)
			require.Equal(t, "481", short(msgs[0]))
			require.Equal(t, msgs[0].String(), msgs[1].String())
			require.Equal(t, Counts{}, r.layer.Running())
		}
	})
}

// FX7: the counted bytes of a transaction are no less than its real ones, for any kind of
// request.
func TestBytesOfTransactionsAreCounted(t *testing.T) {
	const n = 100
	fill := func(part string) string { return strings.Repeat(part, 20<<10/len(part)) }
	headers := func(part string, most int) string {
		return strings.Repeat(part+"\r\n", min(most, 20<<10/(len(part)+2)))
	}
	for name, c := range map[string]struct{ callID, more string }{
		"as usual":         {"call", ""},
		"a long Call-ID":   {fill("x"), ""},
		"many headers":     {"call", headers("X: y", 200)},
		"empty headers":    {"call", headers("X:", 200)},
		"many hops":        {"call", headers("Via: SIP/2.0/UDP a;branch=b", 200)},
		"many parameters":  {"call", headers("Via: SIP/2.0/UDP a;branch=b"+strings.Repeat(";a", 100), 200)},
		"many routes":      {"call", "Record-Route: " + strings.Repeat("<sip:a;b;c;d;lr>,", 200) + "<sip:a>\r\n"},
		"a long header":    {"call", "X: " + fill("y") + "\r\n"},
		"many contacts":    {"call", headers("Contact: <sip:a;b;c>;d;e", 200)},
		"a long parameter": {"call", "Via: SIP/2.0/UDP a;branch=b;c=" + fill("d") + "\r\n"},
	} {
		for _, method := range []string{"INVITE", "OPTIONS"} {
			for _, answered := range []bool{false, true} {
				t.Run(fmt.Sprint(name, " ", method, " ", answered), func(t *testing.T) {
					bubble(t, []string{"udp"}, func(t *testing.T, r *rig) {
						network, to := r.net, netip.MustParseAddrPort(ourIP+":5060")
						from := netip.MustParseAddrPort("10.9.9.9:5060") // an unused address: nothing is kept there
						r.layer.user = discarding{answered}
						send := func(i int) {
							text := requestText("UDP 10.9.9.9", fmt.Sprint(i, c.callID), method, fmt.Sprint("z9hG4bK-", i), strings.Split(strings.TrimSuffix(c.more, "\r\n"), "\r\n")...)
							network.Inject(from, to, []byte(strings.ReplaceAll(text, "\r\n\r\n\r\n", "\r\n\r\n")))
							r.settle()
						}
						for i := range 20 {
							send(-1 - i)
						}
						before, counted := heap(), r.layer.Held()
						for i := range n {
							send(i)
						}
						held, counted := (heap()-before)/n, (r.layer.Held()-counted)/n
						require.Equal(t, n+20, r.layer.Running().Servers)
						t.Logf("%s: %d B held, %d B counted", t.Name(), held, counted)
						require.LessOrEqual(t, held, counted)
					})
				})
			}
		}
	}
}

// discarding keeps nothing, and answers or not.
type discarding struct{ answers bool }

func (u discarding) Request(s *Server) {
	if u.answers {
		_ = s.Respond(s.NewResponse(486, ""))
	}
}
func (discarding) Ack(*sipmsg.Message, *transport.Flow) {}
func (discarding) Cancel(*Server, *sipmsg.Message)      {}
func (discarding) ServerFailed(*Server, error)          {}
