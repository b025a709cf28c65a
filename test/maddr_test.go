package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// FX4: responses, and each repetition of a 200 that nobody acknowledges, went to
// whomever the Via named.
func TestResponsesGoToTheSenderWhateverMaddrSays(t *testing.T) {
	for _, follow := range []bool{false, true} {
		for _, maddr := range []string{otherIP, stackIP, "255.255.255.255", "224.0.1.75", "0.0.0.0"} {
			for _, rport := range []string{"", ";rport"} {
				t.Run(fmt.Sprint(follow, maddr, rport), func(t *testing.T) {
					bubble(t, func(t *testing.T, w *world) {
						b := w.stack(stackIP, func(c *dialog.StackConfig) { c.FollowMaddr = follow })
						p := w.peer(peerIP)
						calls := waiting(b)
						say := func(r dialogtest.Request) {
							text := p.Request(r)
							via, rest, _ := strings.Cut(text, "\r\nVia: SIP/2.0/UDP ")
							require.NoError(t, p.Send(b.Addr(), via+"\r\nVia: SIP/2.0/UDP "+strings.Replace(rest, "\r\n", ";maddr="+maddr+rport+"\r\n", 1)))
						}
						say(dialogtest.Request{Method: "INVITE", URI: "sip:service@" + stackIP, FromTag: farTag, CSeq: 1, Body: offerSDP})
						d := <-calls
						require.NoError(t, d.Accept(t.Context(), withSDP(answerSDP)))
						time.Sleep(5 * time.Second)
						say(dialogtest.Request{Method: "OPTIONS", URI: "sip:service@" + stackIP, FromTag: "x", CSeq: 1, CallID: "other"})
						say(dialogtest.Request{Method: "foo bar", URI: "sip:service@" + stackIP, FromTag: "y", CSeq: 1, CallID: "broken"})
						synctest.Wait()
						want := peerIP
						if follow && maddr != "0.0.0.0" {
							want = maddr
						}
						w.mu.Lock()
						log := slices.Clone(w.log)
						w.mu.Unlock()
						for _, m := range log {
							switch {
							case m.from != b.Addr():
							case strings.HasPrefix(m.raw, "SIP/2.0 400"): // what is malformed is not believed
								require.Equal(t, peerIP, m.to.Addr().String(), m.raw)
							default:
								require.Equal(t, want, m.to.Addr().String(), m.raw)
							}
						}
						require.NotEmpty(t, w.sent(stackIP, "100 INVITE"))
						require.Greater(t, len(w.sent(stackIP, "200 INVITE")), 1)
						require.NotEmpty(t, w.sent(stackIP, "200 OPTIONS"))
						require.NoError(t, d.Close())
					})
				})
			}
		}
	}
}
