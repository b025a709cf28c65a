package test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

// RFC 3261 19.1.1: requests go to the maddr of a Contact, not to its host. One that names
// another place moves the call as another host does.
func TestAContactWithAnotherMaddrIsGuarded(t *testing.T) {
	for name, policy := range map[string]dialog.MovePolicy{"never": dialog.MoveNever, "same address": dialog.MoveSameAddress} {
		for _, method := range []string{"INVITE", "UPDATE"} {
			t.Run(name+" "+method, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					server := w.stack(serverIP, byCredentials, func(c *dialog.StackConfig) { c.MoveFlow = policy })
					p := w.viaNAT(publicIP, 31337)
					contact := "Contact: <sip:peer@" + publicIP + ":31337"
					g := &guardedCall{phoneCase: &phoneCase{peerCall: w.incoming(server, p, withRport, withHeaders(contact+">"))}, server: server}
					res := g.says(p, method, withHeaders(contact+";maddr="+otherIP+">"))
					require.Equal(t, 401, res.StatusCode)
					if method == "INVITE" {
						g.acknowledge(g.seq)
					}
					res = g.says(p, method, withHeaders(contact+";maddr="+publicIP+">"))
					require.Equal(t, 200, res.StatusCode, "it names the same place")
					if method == "INVITE" {
						g.acknowledge(g.seq)
					}
					require.Equal(t, publicIP+":31337", g.byeTo())
					synctest.Wait()
				})
			})
		}
	}
}
