//go:build go1.25

package txn

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// RFC 3261 8.2.7: a refusal that takes no transaction has the same tag each
// time that the request comes.
func TestARefusalTakesNoTransaction(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		for range 2 {
			r.wire.send(r.text("INVITE", "z9hG4bK-1"))
			r.settle()
			s := r.user.lastServer()
			require.NoError(t, s.Refuse(s.NewResponse(503, "")))
			require.ErrorIs(t, s.Refuse(s.NewResponse(486, "")), ErrFinalSent)
			require.Equal(t, Counts{}, r.layer.Running())
		}
		msgs := r.messages()
		require.Len(t, msgs, 4)
		require.Equal(t, "503", short(msgs[1]))
		require.Equal(t, msgs[1].String(), msgs[3].String())
		require.Equal(t, []string{"request INVITE", "request INVITE"}, r.user.take())
	})
}

func TestServerTransactionsAreBounded(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		r.layer.most = 1
		r.wire.send(r.text("OPTIONS", "z9hG4bK-1"))
		for range 2 {
			r.wire.send(r.textOf("call-2", "OPTIONS", "z9hG4bK-2"))
		}
		r.wire.send(r.textOf("call-2", "BYE", "z9hG4bK-3"))
		msgs := r.messages()
		require.Len(t, msgs, 2)
		require.Equal(t, "503", short(msgs[0]))
		require.NotNil(t, msgs[0].GetHeaders("Retry-After"))
		require.Equal(t, msgs[0].String(), msgs[1].String())
		require.Equal(t, []string{"request OPTIONS", "request BYE"}, r.user.take())
		require.Equal(t, uint64(2), r.layer.Stats().Refused)
	})
}
