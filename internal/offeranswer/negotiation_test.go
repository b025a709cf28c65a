package offeranswer

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/sdp"
)

// described returns a session description with that version and these media lines.
func described(version int, lines ...string) Body {
	text := fmt.Sprintf("v=0\r\no=a 1 %d IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\n", version)
	if len(lines) == 0 {
		lines = []string{"m=audio 5 RTP/AVP 0"}
	}
	return &body{TypeSDP, []byte(text + strings.Join(lines, "\r\n") + "\r\n")}
}

// step is one message of an exchange, as one side sends or receives it.
type step struct {
	do     func(n *Negotiation, owner any)
	state  State
	agreed bool
}

func sendOffer(n *Negotiation, owner any)     { n.SendOffer(owner, described(1), ByApplication) }
func receiveOffer(n *Negotiation, owner any)  { n.ReceiveOffer(owner, described(1)) }
func sendAnswer(n *Negotiation, owner any)    { n.SendAnswer(owner, described(1), ByApplication) }
func receiveAnswer(n *Negotiation, owner any) { n.ReceiveAnswer(owner, described(1)) }
func rollback(n *Negotiation, owner any)      { n.Rollback(owner) }

// RFC 6337 2.1, table 1: the six patterns, seen from each side, before and after a session
// was established; and the rollback of each (table 2, RFC 3261 14.1, RFC 3311 5).
func TestPatternsOfOffersAndAnswers(t *testing.T) {
	for pattern, row := range map[string]struct{ offerer, answerer []step }{
		"1: INVITE, 2xx":     {ours(), theirs()},
		"2: 2xx, ACK":        {ours(), theirs()},
		"3: INVITE, 1xx-rel": {ours(), theirs()},
		"4: 1xx-rel, PRACK":  {ours(), theirs()},
		"5: PRACK, 2xx":      {ours(), theirs()},
		"6: UPDATE, 2xx":     {ours(), theirs()},
		"refused or no answer": {
			[]step{{sendOffer, HaveLocalOffer, false}, {rollback, Stable, false}, {receiveAnswer, Stable, false}},
			[]step{{receiveOffer, HaveRemoteOffer, false}, {rollback, Stable, false}, {sendAnswer, Stable, false}},
		},
		"answered twice: a 1xx-rel, and the 2xx": {
			append(ours(), step{receiveAnswer, Stable, true}), append(theirs(), step{sendAnswer, Stable, true}),
		},
		"undone too late": {
			append(ours(), step{rollback, Stable, true}), append(theirs(), step{rollback, Stable, true}),
		},
	} {
		for side, steps := range map[string][]step{"offerer": row.offerer, "answerer": row.answerer} {
			for name, before := range map[string]func(n *Negotiation){
				"first": func(*Negotiation) {},
				"later": func(n *Negotiation) { sendOffer(n, "before"); receiveAnswer(n, "before") },
			} {
				t.Run(pattern+" "+side+" "+name, func(t *testing.T) {
					var n Negotiation
					before(&n)
					agreed := n.Agreed()
					for i, s := range steps {
						s.do(&n, pattern)
						require.Equal(t, s.state, n.State(), i)
						require.Equal(t, s.agreed || agreed, n.Agreed(), i)
						require.Equal(t, s.state != Stable, n.IsOpen(pattern), i)
						require.False(t, n.IsOpen("another"))
					}
				})
			}
		}
	}
}

func ours() []step {
	return []step{{sendOffer, HaveLocalOffer, false}, {receiveAnswer, Stable, true}}
}

func theirs() []step {
	return []step{{receiveOffer, HaveRemoteOffer, false}, {sendAnswer, Stable, true}}
}

// Every state and every input, of the owner of the open offer and of another exchange
// (RFC 3264 4, RFC 6337 3 and 4: crossing messages and glare).
func TestStatesAndInputs(t *testing.T) {
	begin := map[State]func(n *Negotiation){
		Stable:          func(*Negotiation) {},
		HaveLocalOffer:  func(n *Negotiation) { sendOffer(n, "owner") },
		HaveRemoteOffer: func(n *Negotiation) { receiveOffer(n, "owner") },
	}
	for _, row := range []struct {
		state  State
		input  string
		do     func(n *Negotiation, owner any)
		owner  string
		next   State
		holder string
		agreed bool
	}{
		{Stable, "SendOffer", sendOffer, "owner", HaveLocalOffer, "owner", false},
		{Stable, "ReceiveOffer", receiveOffer, "owner", HaveRemoteOffer, "owner", false},
		{Stable, "SendAnswer", sendAnswer, "owner", Stable, "", false},
		{Stable, "ReceiveAnswer", receiveAnswer, "owner", Stable, "", false},
		{Stable, "Rollback", rollback, "owner", Stable, "", false},

		{HaveLocalOffer, "ReceiveAnswer", receiveAnswer, "owner", Stable, "", true},
		{HaveLocalOffer, "Rollback", rollback, "owner", Stable, "", false},
		{HaveLocalOffer, "SendAnswer", sendAnswer, "owner", HaveLocalOffer, "owner", false},
		{HaveLocalOffer, "ReceiveAnswer of another", receiveAnswer, "another", HaveLocalOffer, "owner", false},
		{HaveLocalOffer, "Rollback of another", rollback, "another", HaveLocalOffer, "owner", false},
		{HaveLocalOffer, "SendOffer again, of another attempt", sendOffer, "another", HaveLocalOffer, "another", false},
		{HaveLocalOffer, "ReceiveOffer: glare that the peer does not see", receiveOffer, "another", HaveRemoteOffer, "another", false},

		{HaveRemoteOffer, "SendAnswer", sendAnswer, "owner", Stable, "", true},
		{HaveRemoteOffer, "Rollback", rollback, "owner", Stable, "", false},
		{HaveRemoteOffer, "ReceiveAnswer", receiveAnswer, "owner", HaveRemoteOffer, "owner", false},
		{HaveRemoteOffer, "SendAnswer of another", sendAnswer, "another", HaveRemoteOffer, "owner", false},
		{HaveRemoteOffer, "Rollback of another", rollback, "another", HaveRemoteOffer, "owner", false},
		{HaveRemoteOffer, "ReceiveOffer: a second one", receiveOffer, "another", HaveRemoteOffer, "another", false},
		{HaveRemoteOffer, "SendOffer", sendOffer, "another", HaveLocalOffer, "another", false},
	} {
		t.Run(row.state.String()+" "+row.input, func(t *testing.T) {
			var n Negotiation
			begin[row.state](&n)
			require.Equal(t, row.state, n.State())
			row.do(&n, row.owner)
			require.Equal(t, row.next, n.State())
			require.Equal(t, row.agreed, n.Agreed())
			for _, owner := range []string{"owner", "another"} {
				require.Equal(t, owner == row.holder, n.IsOpen(owner), owner)
			}
		})
	}
}

// A message without a session description opens no offer, and closes one without an
// answer.
func TestMessagesWithoutSDP(t *testing.T) {
	for name, none := range map[string]Body{"nil": nil, "empty": &body{TypeSDP, nil}} {
		var n Negotiation
		n.SendOffer("owner", none, ByApplication)
		require.Equal(t, Stable, n.State(), name)
		n.ReceiveOffer("owner", none)
		require.Equal(t, Stable, n.State(), name)
		n.ReceiveOffer("owner", described(1))
		n.SendAnswer("owner", none, ByApplication)
		require.True(t, n.Agreed(), name)
		require.Nil(t, n.Local())
		require.False(t, n.HasSent())
		require.Nil(t, n.Refusal(none))
	}
	var n Negotiation
	n.SendOffer("owner", &body{"multipart/mixed;boundary=x", []byte("--x\r\nContent-Type: text/plain\r\n\r\nhi\r\n--x--\r\n")}, ByApplication)
	require.Equal(t, Stable, n.State(), "no part describes the session")
}

// The session is the last one negotiated, not a refused or open offer.
func TestSessionIsTheLatestThatWasAgreedUpon(t *testing.T) {
	first, second := described(1), described(2, "m=audio 7 RTP/AVP 0")
	var n Negotiation
	n.SendOffer("INVITE", first, ByApplication)
	require.Nil(t, n.Local(), "it is open")
	n.ReceiveAnswer("INVITE", nil)
	require.Equal(t, first, n.Local())
	n.SendOffer("re-INVITE", second, ByApplication)
	n.Rollback("re-INVITE")
	require.Equal(t, first, n.Local(), "it was refused")
	n.ReceiveOffer("UPDATE", described(9))
	n.Rollback("UPDATE")
	require.Equal(t, first, n.Local())
	n.ReceiveOffer("UPDATE", described(9))
	n.SendAnswer("UPDATE", second, ByApplication)
	require.Equal(t, second, n.Local())
	n.SendOffer("picture", &body{"image/png", []byte("x")}, ByApplication)
	n.ReceiveAnswer("picture", nil)
	require.Equal(t, second, n.Local(), "not SDP")
	copied := n
	copied.SendOffer("copy", first, ByApplication)
	require.Equal(t, Stable, n.State(), "a copy is independent")
}

// RFC 6337 5.2.5, RFC 3264 8: the next version. A refused offer has used up its version.
func TestVersionsOnlyGoUp(t *testing.T) {
	version := func(b Body) int {
		v, ok := sdp.Version(b.Data())
		require.True(t, ok)
		return int(v)
	}
	other := []string{"m=audio 7 RTP/AVP 0"}
	for name, row := range map[string]struct {
		sent []Body
		next Body
		want int
	}{
		"the first is as it is":         {nil, described(1), 1},
		"the same again":                {[]Body{described(3)}, described(3), 3},
		"the same with a lower version": {[]Body{described(3)}, described(1), 3},
		"a change with the same":        {[]Body{described(3)}, described(3, other...), 4},
		"a change with a lower one":     {[]Body{described(3)}, described(1, other...), 4},
		"a change with a higher one":    {[]Body{described(3)}, described(9, other...), 9},
		"back to what was before":       {[]Body{described(3), described(4, other...)}, described(3), 5},
		"no SDP was sent":               {[]Body{&body{"image/png", []byte("x")}, nil}, described(1), 1},
	} {
		t.Run(name, func(t *testing.T) {
			var n Negotiation
			for _, b := range row.sent {
				n.Sent(b)
			}
			require.Equal(t, row.want, version(n.Numbered(row.next)))
		})
	}
	var n Negotiation
	n.Sent(described(5))
	for _, as := range []Body{nil, &body{"image/png", []byte("x")}, &body{TypeSDP, []byte("no SDP")}} {
		require.Equal(t, as, n.Numbered(as))
	}
	n.SendOffer("refused", described(6, other...), ByDefault)
	n.Rollback("refused")
	n.ReceiveOffer("UPDATE", described(1))
	n.SendAnswer("UPDATE", described(7), ByApplication)
	next, err := n.Offer()
	require.NoError(t, err)
	require.Equal(t, 8, version(next))
}

// SDP that cannot be read stays as it is.
func TestUnreadableSDPKeepsItsVersion(t *testing.T) {
	var n Negotiation
	n.Sent(described(5))
	unreadable := &body{TypeSDP, []byte("v=0\r\no=other 1 1 IN IP4 h\r\nm=audio\r\n\x00")}
	require.Equal(t, Body(unreadable), n.Numbered(unreadable))
}

// The version of a part is changed in place. A part that had to be decoded is unchanged.
func TestVersionsAmongParts(t *testing.T) {
	whole := func(encoding string, part []byte) Body {
		return &body{"multipart/mixed;boundary=x", []byte("--x\r\nContent-Type: application/sdp\r\n" + encoding + "\r\n" + string(part) + "\r\n--x--\r\n")}
	}
	var n Negotiation
	n.Sent(described(5))
	changed := n.Numbered(whole("", described(1, "m=audio 7 RTP/AVP 0").Data()))
	require.Equal(t, whole("", described(6, "m=audio 7 RTP/AVP 0").Data()), changed)
	encoded := whole("Content-Transfer-Encoding: base64\r\n", []byte("dj0wDQpvPWEgMSAxIElOIElQNCAxMC4wLjAuMQ0Kcz0tDQp0PTAgMA0K"))
	require.Equal(t, encoded, n.Numbered(encoded))
}

// The session that stands: both descriptions, and who has made the offer. A refused offer
// changes none of it.
func TestSessionHasBothDescriptionsAndItsOfferer(t *testing.T) {
	first, second := described(1), described(2, "m=audio 7 RTP/AVP 0")
	theirs, later := described(8, "m=audio 9 RTP/AVP 0"), described(9, "m=audio 9 RTP/AVP 0")
	picture := &body{"image/png", []byte("x")}
	ours := func(n *Negotiation, offer, answer Body) {
		n.SendOffer("ours", offer, ByApplication)
		n.ReceiveAnswer("ours", answer)
	}
	peers := func(n *Negotiation, offer, answer Body) {
		n.ReceiveOffer("peers", offer)
		n.SendAnswer("peers", answer, ByDefault)
	}
	for name, row := range map[string]struct {
		do            func(n *Negotiation)
		local, remote Body
		byPeer        bool
		closed        uint32
	}{
		"nothing":                     {func(*Negotiation) {}, nil, nil, false, 0},
		"our offer":                   {func(n *Negotiation) { ours(n, first, theirs) }, first, theirs, false, 1},
		"the peer's offer":            {func(n *Negotiation) { peers(n, theirs, first) }, first, theirs, true, 1},
		"theirs, then ours":           {func(n *Negotiation) { peers(n, theirs, first); ours(n, second, later) }, second, later, false, 2},
		"ours, then theirs":           {func(n *Negotiation) { ours(n, first, theirs); peers(n, later, second) }, second, later, true, 2},
		"the same answer":             {func(n *Negotiation) { ours(n, first, theirs); peers(n, later, first) }, first, later, true, 2},
		"an answer without a session": {func(n *Negotiation) { ours(n, first, theirs); ours(n, second, nil) }, second, theirs, false, 2},
		"an answer that is no SDP":    {func(n *Negotiation) { ours(n, first, picture) }, first, nil, false, 1},
		"no answer of ours":           {func(n *Negotiation) { ours(n, first, theirs); peers(n, later, nil) }, first, theirs, false, 2},
		"no room":                     {func(n *Negotiation) { peers(n, theirs, first); n.ForgetRemote() }, first, nil, true, 1},
		"an offer that is open":       {func(n *Negotiation) { ours(n, first, theirs); n.ReceiveOffer("open", later) }, first, theirs, false, 1},
		"ours refused": {func(n *Negotiation) {
			peers(n, theirs, first)
			n.SendOffer("refused", second, ByApplication)
			n.Rollback("refused")
			n.Rollback("refused")
		}, first, theirs, true, 2},
		"theirs refused": {func(n *Negotiation) {
			ours(n, first, theirs)
			n.ReceiveOffer("refused", later)
			n.Rollback("refused")
		}, first, theirs, false, 2},
	} {
		t.Run(name, func(t *testing.T) {
			n := new(Negotiation)
			row.do(n)
			require.Equal(t, row.local, n.Local())
			require.Equal(t, row.remote, n.Remote())
			require.Equal(t, row.byPeer, n.OfferedByPeer())
			require.Equal(t, row.closed, n.Closed())
			restored := Restore(n.View())
			require.Equal(t, row.remote, restored.Remote())
			require.Equal(t, row.byPeer, restored.OfferedByPeer())
		})
	}
}
