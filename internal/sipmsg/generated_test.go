package sipmsg

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/siptext"
)

// Every message of the grammar is read without fault, and a reply repeats it.
func TestGeneratedMessagesAreRepeated(t *testing.T) {
	seed := rand.Uint64()
	for number := range uint64(1000) {
		g := siptext.New(seed, number, fmt.Sprint(number))
		data := g.Request(g.Method(), siptext.Known{Seq: 1 + int(number), ContactHost: g.Host("10.0.0.9"), RouteHosts: g.Hosts("10.0.0.9")})
		asked, _, err := siptext.Read(data)
		require.NoError(t, err)
		m := whole(data)
		require.NotNil(t, m, "seed %d: %q", seed, data)
		require.Nil(t, m.Fault, "seed %d: %q", seed, data)
		m.Arrived("UDP", peer)
		reply := m.AppendReply(nil, &Reply{Code: 200, Reason: "OK", Tag: "ours"})
		answered, _, err := siptext.Read(reply)
		require.NoError(t, err)
		require.NoError(t, siptext.Repeats(asked, answered, peer), "seed %d: %q", seed, data)
	}
}

// Likewise responses: of the grammar, and not faulty.
func TestGeneratedResponsesAreRead(t *testing.T) {
	seed := rand.Uint64()
	for number := range uint64(1000) {
		g := siptext.New(seed, number, fmt.Sprint(number))
		known := siptext.Known{FromTag: "from", ToTag: g.Token(), CallID: "c", Seq: 1, ContactHost: g.Host("10.0.0.9"), RouteHosts: g.Hosts("10.0.0.9")}
		data := g.Response(g.Status(), "INVITE", "SIP/2.0/UDP h;branch=z9hG4bK1", known)
		asked, _, err := siptext.Read(data)
		require.NoError(t, err)
		m := whole(data)
		require.NotNil(t, m, "seed %d: %q", seed, data)
		require.Nil(t, m.Fault, "seed %d: %q", seed, data)
		require.Equal(t, []any{asked.Status(), "z9hG4bK1", "from", known.ToTag, "c", sip.INVITE}, []any{m.Status, m.Via.Branch(), m.FromTag, m.ToTag, m.CallID, m.CSeqMethod}, "seed %d: %q", seed, data)
	}
}
