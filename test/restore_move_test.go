package test

import (
	"bufio"
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

// The peer of a call that was restored without its flow, since the stack has no socket for
// that, proves who it is before the call moves, as the peer of any other does.
func TestACallThatIsRestoredWithoutItsFlowIsMovedByCredentials(t *testing.T) {
	for name, policy := range map[string]dialog.MovePolicy{"never": dialog.MoveNever, "same address": dialog.MoveSameAddress} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				change := func(c *dialog.StackConfig) { c.MoveFlow, c.MoveCredentials = policy, alicesPhone }
				l := w.incoming(w.stack(serverIP, change), w.peer(otherIP))
				l.restart(change, func(c *dialog.StackConfig) { c.Transport.Protocol = "tcp" })
				require.Nil(t, l.d.Flow())
				conn, err := w.net.Host(publicIP).DialContext(context.Background(), "tcp", l.stack.String())
				require.NoError(t, err)
				thief := &stream{Conn: conn, t: t, r: bufio.NewReader(conn)}
				ask := func(method string) int {
					t.Helper()
					thief.write(overTCP(l.Request(l.made(method, withHeaders("Contact: <sip:peer@"+publicIP+">")))))
					return response(thief.read().msg).StatusCode
				}
				require.Equal(t, 401, ask("UPDATE"))
				require.Equal(t, otherIP, l.d.Info().RemoteTarget.Host)
				require.Equal(t, 200, ask("BYE"))
			})
		})
	}
}
