package txn

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// RFC 3261 8.2.7: a refusal takes no transaction, and is the same for each retransmission,
// even if a transaction could be had by then.
func TestARefusalTakesNoTransaction(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		r.wire.send(r.text("INVITE", "z9hG4bK-1"))
		r.settle()
		require.NoError(t, r.user.lastServer().Refuse())
		require.Equal(t, Counts{}, r.layer.Running())
		time.Sleep(31 * time.Second)
		r.wire.send(r.text("INVITE", "z9hG4bK-1"))
		msgs := r.messages()
		require.Len(t, msgs, 3)
		require.Equal(t, "503", short(msgs[1]))
		require.Equal(t, msgs[1].String(), msgs[2].String())
		time.Sleep(2 * time.Second)
		r.wire.send(r.text("INVITE", "z9hG4bK-1"))
		require.Equal(t, []string{"100"}, r.lines(), "64*T1 later it is a new request")
		require.Equal(t, []string{"request INVITE", "request INVITE"}, r.user.take())
		require.Empty(t, r.layer.refusals.known)
	})
}

func TestRememberedRefusalsAreBounded(t *testing.T) {
	r := newRefusals(time.Hour)
	for i := range maxRefusals + 10 {
		r.add(strconv.Itoa(i))
	}
	require.Len(t, r.known, maxRefusals)
	require.False(t, r.has("9"))
	require.True(t, r.has("10"))
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
		require.ElementsMatch(t, []string{"request OPTIONS", "request BYE"}, r.user.take())
		require.Equal(t, uint64(2), r.layer.Stats().Refused)
	})
}
