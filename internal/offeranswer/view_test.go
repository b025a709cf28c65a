package offeranswer

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func sessionOf(version int, media ...string) Body {
	text := fmt.Sprintf("v=0\r\no=a 1 %d IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n", version)
	for _, m := range media {
		text += m
	}
	return &body{TypeSDP, []byte(text)}
}

const (
	ourAudio = "m=audio 4000 RTP/AVP 0 8\r\na=sendrecv\r\n"
	ourFax   = "m=image 4002 udptl t38\r\n"
	farHeld  = "m=audio 5000 RTP/AVP 0\r\na=sendonly\r\n"
	farAudio = "m=audio 5000 RTP/AVP 0\r\na=sendrecv\r\n"
)

// answered is a negotiation after an offer of the application's that was answered.
func afterOffer(t *testing.T, offer Body) *Negotiation {
	n := new(Negotiation)
	n.SendOffer("1", offer, ByApplication)
	n.ReceiveAnswer("1", nil)
	require.True(t, n.Agreed())
	return n
}

// A restored negotiation makes the same offers and answers as the original.
func TestViewRestoresTheNegotiation(t *testing.T) {
	for name, n := range map[string]*Negotiation{
		"nothing":   {},
		"one offer": afterOffer(t, sessionOf(1, ourAudio)),
		"held by the peer": func() *Negotiation {
			n := afterOffer(t, sessionOf(1, ourAudio))
			n.ReceiveOffer("2", sessionOf(2, farHeld))
			answer, err := n.DefaultAnswer(sessionOf(2, farHeld))
			require.NoError(t, err)
			n.SendAnswer("2", answer, ByDefault)
			return n
		}(),
		"an answer of the application's to a hold": func() *Negotiation {
			n := afterOffer(t, sessionOf(1, ourAudio))
			n.ReceiveOffer("2", sessionOf(2, farHeld))
			n.SendAnswer("2", sessionOf(2, "m=audio 4000 RTP/AVP 0\r\na=recvonly\r\n"), ByApplication)
			return n
		}(),
		"a stream in reserve": func() *Negotiation {
			n := afterOffer(t, sessionOf(1, ourAudio))
			n.SendOffer("2", sessionOf(2, ourFax), ByApplication)
			n.ReceiveAnswer("2", nil)
			return n
		}(),
		"an offer that was refused": func() *Negotiation {
			n := afterOffer(t, sessionOf(1, ourAudio))
			n.SendOffer("2", sessionOf(9, ourAudio, ourFax), ByApplication)
			n.Rollback("2")
			return n
		}(),
		"an offer that is open": func() *Negotiation {
			n := afterOffer(t, sessionOf(1, ourAudio))
			n.SendOffer("2", sessionOf(9, ourAudio, ourFax), ByApplication)
			return n
		}(),
		"an offer of the peer's that is open": func() *Negotiation {
			n := afterOffer(t, sessionOf(1, ourAudio))
			n.ReceiveOffer("2", sessionOf(2, farHeld))
			return n
		}(),
		"another type": afterOffer(t, &body{"application/sdp;x=y", sessionOf(1, ourAudio).Data()}),
	} {
		t.Run(name, func(t *testing.T) {
			view := n.View()
			restored := Restore(view)
			require.Equal(t, view, restored.View())
			require.Equal(t, Stable, restored.State())
			require.Equal(t, n.Agreed(), restored.Agreed())
			now := *n
			now.Rollback("2")
			for _, far := range []Body{nil, sessionOf(3, farHeld), sessionOf(4, farAudio), sessionOf(5, farAudio, ourFax), sessionOf(6, ourFax)} {
				sameMade(t, now.DefaultAnswer, restored.DefaultAnswer, far)
				sameMade(t, now.RefreshAnswer, restored.RefreshAnswer, far)
				sameMade(t, now.AnswerOrRefusal, restored.AnswerOrRefusal, far)
			}
			for _, make := range [][2]func(Body) (Body, error){
				{func(Body) (Body, error) { return now.Offer() }, func(Body) (Body, error) { return restored.Offer() }},
				{func(Body) (Body, error) { return now.Refresh() }, func(Body) (Body, error) { return restored.Refresh() }},
				{func(b Body) (Body, error) { return now.Numbered(b), nil }, func(b Body) (Body, error) { return restored.Numbered(b), nil }},
			} {
				sameMade(t, make[0], make[1], sessionOf(1, ourAudio))
			}
		})
	}
}

func sameMade(t *testing.T, before, after func(Body) (Body, error), remote Body) {
	t.Helper()
	want, wantErr := before(remote)
	got, err := after(remote)
	require.Equal(t, wantErr, err)
	require.Equal(t, isNone(want), isNone(got))
	if !isNone(want) {
		require.Equal(t, string(want.Data()), string(got.Data()))
		require.Equal(t, want.ContentType(), got.ContentType())
	}
}

// Our first offer, whose answer the ACK brings, is the session: there is none before it.
func TestViewOfTheFirstOffer(t *testing.T) {
	n := new(Negotiation)
	n.SendOffer("1", sessionOf(1, ourAudio), ByApplication)
	v := n.View()
	require.True(t, v.Agreed)
	require.Equal(t, sessionOf(1, ourAudio), v.Local)
	require.Equal(t, HaveLocalOffer, n.State(), "the negotiation itself goes on")
}
