package offeranswer

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/sdp"
)

// mediaOf returns the m= and a= lines of a body, and the version before them.
func mediaOf(t *testing.T, b Body) string {
	t.Helper()
	if b == nil {
		return "none"
	}
	var lines []string
	for line := range strings.SplitSeq(string(b.Data()), "\r\n") {
		if strings.HasPrefix(line, "o=") {
			lines = append(lines, strings.Fields(line)[2])
		}
		if strings.HasPrefix(line, "m=") || strings.HasPrefix(line, "a=") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, " ")
}

// agreed returns a negotiation in which our application has offered ours, and the peer
// has accepted.
func agreed(ours Body) *Negotiation {
	n := new(Negotiation)
	n.SendOffer("INVITE", ours, ByApplication)
	n.ReceiveAnswer("INVITE", nil)
	return n
}

// held returns agreed after a hold by the peer, with the default answer.
func held(t *testing.T, ours Body) *Negotiation {
	n := agreed(ours)
	offer := described(9, "m=audio 9 RTP/AVP 0", "a=sendonly")
	n.ReceiveOffer("hold", offer)
	answer, err := n.DefaultAnswer(offer)
	require.NoError(t, err)
	n.SendAnswer("hold", answer, ByDefault)
	return n
}

// Default offers and answers follow from the session that the application wants (RFC 3264
// 6, 8; RFC 6337 5).
func TestOffersAndAnswersThatFollow(t *testing.T) {
	wide := described(3, "m=audio 5 RTP/AVP 0 8", "m=video 7 RTP/AVP 31")
	for name, row := range map[string]struct {
		negotiation *Negotiation
		build       func(n *Negotiation) (Body, error)
		want        string
		err         error
	}{
		"an offer":                                   {agreed(wide), (*Negotiation).Offer, "4 m=audio 5 RTP/AVP 0 8 m=video 7 RTP/AVP 31", nil},
		"an offer without a session":                 {new(Negotiation), (*Negotiation).Offer, "none", ErrNoSession},
		"an offer that cannot be read":               {agreed(&body{TypeSDP, []byte("?")}), (*Negotiation).Offer, "none", ErrNoSession},
		"an offer after the peer's hold is not held": {held(t, described(3)), (*Negotiation).Offer, "5 m=audio 5 RTP/AVP 0", nil},
		"hold": {agreed(described(3)), func(n *Negotiation) (Body, error) {
			return n.OfferWithDirections(func(was sdp.Direction) sdp.Direction { return was &^ sdp.Receives })
		}, "4 m=audio 5 RTP/AVP 0 a=sendonly", nil},
		"hold without a session": {new(Negotiation), func(n *Negotiation) (Body, error) {
			return n.OfferWithDirections(func(was sdp.Direction) sdp.Direction { return was })
		}, "none", ErrNoSession},
		"an offer of what was, after a change": {agreed(described(3)), func(n *Negotiation) (Body, error) {
			return n.OfferAfter(agreed(described(7, "m=audio 9 RTP/AVP 8")))
		}, "8 m=audio 5 RTP/AVP 0", nil},
		"a refresh":                   {agreed(described(3)), (*Negotiation).Refresh, "3 m=audio 5 RTP/AVP 0", nil},
		"a refresh without a session": {new(Negotiation), (*Negotiation).Refresh, "none", nil},
		"a refresh after a refused offer": {func() *Negotiation {
			n := agreed(described(3))
			n.SendOffer("refused", described(4, "m=audio 6 RTP/AVP 0"), ByApplication)
			n.Rollback("refused")
			return n
		}(), (*Negotiation).Refresh, "5 m=audio 5 RTP/AVP 0", nil},
		"a refresh after the peer's hold offers what is wanted": {held(t, described(3)), (*Negotiation).Refresh, "5 m=audio 5 RTP/AVP 0", nil},

		"the answer":                          {agreed(wide), answerTo(described(1, "m=audio 4 RTP/AVP 8")), "4 m=audio 5 RTP/AVP 8 a=sendrecv", nil},
		"the answer to a hold":                {agreed(described(3)), answerTo(described(1, "m=audio 4 RTP/AVP 0", "a=sendonly")), "4 m=audio 5 RTP/AVP 0 a=recvonly", nil},
		"the offer for a message without one": {agreed(described(3)), answerTo(nil), "4 m=audio 5 RTP/AVP 0", nil},
		"no answer without a session of ours": {new(Negotiation), answerTo(described(1)), "none", nil},
		"no offer without a session of ours":  {new(Negotiation), answerTo(nil), "none", nil},
		"no answer to what is not SDP":        {agreed(described(3)), answerTo(&body{"image/png", []byte("x")}), "none", nil},
		"no answer to what cannot be read":    {agreed(described(3)), answerTo(&body{TypeSDP, []byte("?")}), "none", sdp.ErrUnreadable},

		"the answer to a refresh":                        {agreed(described(3)), refreshAnswerTo(described(1)), "3 m=audio 5 RTP/AVP 0", nil},
		"the answer to a refresh that changes something": {agreed(wide), refreshAnswerTo(described(1)), "4 m=audio 5 RTP/AVP 0 a=sendrecv", nil},
		"the answer to a refresh that cannot be read":    {agreed(wide), refreshAnswerTo(&body{TypeSDP, []byte("?")}), "none", sdp.ErrUnreadable},

		"in a 2xx: an answer":           {agreed(described(3)), answerOrRefuse(described(1)), "4 m=audio 5 RTP/AVP 0 a=sendrecv", nil},
		"in a 2xx: what cannot be read": {agreed(described(3)), answerOrRefuse(&body{TypeSDP, []byte("?")}), "none", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := row.build(row.negotiation)
			require.ErrorIs(t, err, row.err)
			require.Equal(t, row.want, mediaOf(t, got))
		})
	}
}

func answerTo(offer Body) func(n *Negotiation) (Body, error) {
	return func(n *Negotiation) (Body, error) { return n.DefaultAnswer(offer) }
}

func refreshAnswerTo(offer Body) func(n *Negotiation) (Body, error) {
	return func(n *Negotiation) (Body, error) { return n.RefreshAnswer(offer) }
}

func answerOrRefuse(offer Body) func(n *Negotiation) (Body, error) {
	return func(n *Negotiation) (Body, error) { return n.AnswerOrRefusal(offer) }
}

// RFC 6337 2.3, table 2: an unacceptable offer has no answer if its message can be
// refused, else an answer with port 0 in every line.
func TestOffersThatCannotBeAccepted(t *testing.T) {
	n, offer := agreed(described(3)), described(1, "m=video 4 RTP/AVP 31")
	answer, err := n.DefaultAnswer(offer)
	var unacceptable *sdp.Unacceptable
	require.ErrorAs(t, err, &unacceptable)
	require.Nil(t, answer)
	answer, err = n.AnswerOrRefusal(offer)
	require.ErrorAs(t, err, &unacceptable)
	require.Equal(t, "4 m=video 0 RTP/AVP 31", mediaOf(t, answer))
	require.Equal(t, "1 m=video 0 RTP/AVP 31", mediaOf(t, new(Negotiation).Refusal(offer)), "without a session of ours")
	require.Nil(t, n.Refusal(&body{TypeSDP, []byte("?")}))
	unreadable := agreed(&body{TypeSDP, []byte("?")})
	require.Equal(t, "1 m=video 0 RTP/AVP 31", mediaOf(t, unreadable.Refusal(offer)))
}

// RFC 6337 5.3: a part that the offer did not allow in the application's answer is still
// wanted. A part that the application's own offer leaves out is dropped.
func TestPreferencesFollowTheApplicationsSDP(t *testing.T) {
	wide := described(3, "m=audio 5 RTP/AVP 0 8", "m=video 7 RTP/AVP 31")
	narrow := described(8, "m=audio 5 RTP/AVP 8", "a=recvonly")
	for name, row := range map[string]struct {
		exchange func(n *Negotiation)
		want     string
	}{
		"an answer to a narrower offer": {func(n *Negotiation) {
			n.ReceiveOffer("UPDATE", described(1, "m=audio 4 RTP/AVP 8", "a=sendonly"))
			n.SendAnswer("UPDATE", narrow, ByApplication)
		}, "9 m=audio 5 RTP/AVP 8 0 a=sendrecv m=video 7 RTP/AVP 31 a=sendrecv"},
		"a narrower offer of its own": {func(n *Negotiation) {
			n.SendOffer("UPDATE", described(8, "m=audio 5 RTP/AVP 8"), ByApplication)
			n.ReceiveAnswer("UPDATE", nil)
		}, "9 m=audio 5 RTP/AVP 8"},
		"a narrower answer by default": {func(n *Negotiation) {
			n.ReceiveOffer("UPDATE", described(1, "m=audio 4 RTP/AVP 8"))
			n.SendAnswer("UPDATE", described(8, "m=audio 5 RTP/AVP 8"), ByDefault)
		}, "9 m=audio 5 RTP/AVP 0 8 m=video 7 RTP/AVP 31"},
		"an answer that cannot be read": {func(n *Negotiation) {
			n.ReceiveOffer("UPDATE", described(1))
			n.SendAnswer("UPDATE", &body{TypeSDP, []byte("?")}, ByApplication)
		}, "none"},
		"an answer to what cannot be read": {func(n *Negotiation) {
			n.ReceiveOffer("UPDATE", &body{TypeSDP, []byte("only ?")})
			n.SendAnswer("UPDATE", narrow, ByApplication)
		}, "9 m=audio 5 RTP/AVP 8 a=recvonly"},
	} {
		t.Run(name, func(t *testing.T) {
			n := agreed(wide)
			row.exchange(n)
			offer, _ := n.Offer()
			require.Equal(t, strings.TrimSpace(row.want), mediaOf(t, offer))
		})
	}
}

func TestNamesOfStatesAndOrigins(t *testing.T) {
	require.Equal(t, "stable have-local-offer have-remote-offer", Stable.String()+" "+HaveLocalOffer.String()+" "+HaveRemoteOffer.String())
	require.Equal(t, "default application", ByDefault.String()+" "+ByApplication.String())
}
