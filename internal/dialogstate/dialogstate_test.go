package dialogstate

import (
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"
)

// uri reads a SIP URI.
func uri(t *testing.T, text string) (u sip.Uri) {
	t.Helper()
	require.NoError(t, sip.ParseUri(text, &u))
	return u
}

func uris(t *testing.T, texts ...string) (list []sip.Uri) {
	t.Helper()
	for _, text := range texts {
		list = append(list, uri(t, text))
	}
	return list
}

func texts(list []sip.Uri) (texts []string) {
	for _, u := range list {
		texts = append(texts, u.String())
	}
	return texts
}

func text(u sip.Uri) string { return u.String() }

// next draws a number, and request makes a request, of a state that has them.
func next(s *State) uint32 {
	seq, ok := s.NextSeq(sip.INFO)
	if !ok {
		panic("no number")
	}
	return seq
}

func request(s *State, method sip.RequestMethod) Request {
	r, ok := s.Next(method)
	if !ok {
		panic("no number")
	}
	return r
}

// RFC 3261 12.1.1: the INVITE creates the callee's state.
func TestRequestMakesTheState(t *testing.T) {
	s := FromRequest("ours", Message{
		Tag: "theirs", CSeq: 7, Targets: uris(t, "sip:a@10.0.0.1", "sip:other@10.0.0.2"),
		Routes: uris(t, "sip:p1;lr", "sip:p2;lr"),
	})
	require.Equal(t, View{
		LocalTag: "ours", RemoteTag: "theirs", RemoteSeq: 7, RemoteSeqKnown: true,
		Target: uri(t, "sip:a@10.0.0.1"), RouteSet: uris(t, "sip:p1;lr", "sip:p2;lr"),
	}, s.View())
	require.Equal(t, uint32(1), next(&s), "ours is empty before the first request")

	// A client of RFC 2543 has no tag (RFC 3261 12.1.1).
	s = FromRequest("ours", Message{CSeq: 1, Targets: uris(t, "sip:a@10.0.0.1")})
	require.Empty(t, s.RemoteTag())
	require.Empty(t, request(&s, sip.BYE).ToTag)
}

// RFC 3261 12.1.2: a response creates the caller's state, with the Record-Routes reversed.
func TestResponseMakesTheState(t *testing.T) {
	for name, row := range map[string]struct {
		targets, routes []string
		target          string
		want            []string
	}{
		"no proxy":         {[]string{"sip:b@10.0.0.9"}, nil, "sip:b@10.0.0.9", nil},
		"one proxy":        {[]string{"sip:b@10.0.0.9"}, []string{"sip:p;lr"}, "sip:b@10.0.0.9", []string{"sip:p;lr"}},
		"three proxies":    {[]string{"sip:b@10.0.0.9"}, []string{"sip:c;lr", "sip:b;lr", "sip:a;lr"}, "sip:b@10.0.0.9", []string{"sip:a;lr", "sip:b;lr", "sip:c;lr"}},
		"no Contact":       {nil, []string{"sip:p;lr"}, "sip:b@first", []string{"sip:p;lr"}},
		"several Contacts": {[]string{"sip:b@10.0.0.9", "sip:b@10.0.0.8"}, nil, "sip:b@10.0.0.9", nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := Restore(View{LocalTag: "ours", LocalSeq: 4, Target: uri(t, "sip:b@first"), RouteSet: uris(t, "sip:preloaded;lr")})
			received := uris(t, row.routes...)
			s.LearnResponse(Message{Tag: "theirs", CSeq: 4, Targets: uris(t, row.targets...), Routes: received})
			require.Equal(t, "theirs", s.RemoteTag())
			require.Equal(t, row.target, text(s.Target()))
			require.Equal(t, row.want, texts(s.RouteSet()), "the preloaded route does not stay")
			require.Equal(t, row.routes, texts(received), "the message's own stay in their order")
			require.Equal(t, uint32(4), s.LocalSeq())
			require.False(t, s.View().RemoteSeqKnown, "a response has no CSeq of the peer's")
		})
	}
}

// RFC 3261 13.2.2.4: the 2xx replaces the route set.
func TestConfirmingResponseReplacesTheRouteSet(t *testing.T) {
	s := Restore(View{LocalTag: "ours", Target: uri(t, "sip:b@first")})
	s.LearnResponse(Message{Tag: "t", Targets: uris(t, "sip:b@early"), Routes: uris(t, "sip:p1;lr", "sip:p2;lr")})
	s.LearnResponse(Message{Tag: "t", Targets: uris(t, "sip:b@answered"), Routes: uris(t, "sip:p3;lr")})
	require.Equal(t, []string{"sip:p3;lr"}, texts(s.RouteSet()))
	require.Equal(t, "sip:b@answered", text(s.Target()))
	s.LearnResponse(Message{Tag: "t"})
	require.Empty(t, s.RouteSet(), "no Record-Route is an empty route set")
	require.Equal(t, "sip:b@answered", text(s.Target()))
}

// RFC 3261 12.1.2: each early dialog has its own CSeq, which begins with that of the INVITE.
func TestForksHaveStatesOfTheirOwn(t *testing.T) {
	origin := Restore(View{LocalTag: "ours", LocalSeq: 3, RemoteSeq: 9, RemoteSeqKnown: true, Target: uri(t, "sip:b@first"), RouteSet: uris(t, "sip:out;lr")})
	one, two := origin.Fork("one", 2), origin.Fork("two", 2)
	require.Equal(t, View{LocalTag: "ours", RemoteTag: "one", LocalSeq: 2, Target: uri(t, "sip:b@first"), RouteSet: uris(t, "sip:out;lr")}, one.View())
	require.Equal(t, uint32(3), next(&one))
	require.Equal(t, uint32(3), next(&two))
	require.True(t, one.InOrder(sip.INFO, 0), "its peer has sent nothing yet")
	one.Refresh(uris(t, "sip:b@10.0.0.1"))
	require.Equal(t, "sip:b@first", text(two.Target()))
}

// The BYE of a released fork and other requests in it have different CSeq numbers.
func TestSplitStatesDrawDifferentNumbers(t *testing.T) {
	s := Restore(View{LocalSeq: 5})
	own := s.Split(3)
	drawn := map[uint32]bool{}
	for range 3 {
		drawn[next(&own)] = true
	}
	require.Equal(t, map[uint32]bool{6: true, 7: true, 8: true}, drawn)
	require.Equal(t, uint32(9), next(&s))
}

// RFC 3261 8.1.3.4: the INVITE to another target has a new state; our tag and CSeq stay.
func TestInviteElsewhereForgetsThePeer(t *testing.T) {
	s := FromRequest("ours", Message{Tag: "theirs", CSeq: 7, Targets: uris(t, "sip:a@10.0.0.1"), Routes: uris(t, "sip:p;lr")})
	next(&s)
	e := s.Elsewhere(uri(t, "sip:c@10.0.0.3"), uris(t, "sip:out;lr"))
	require.Equal(t, View{LocalTag: "ours", LocalSeq: 1, Target: uri(t, "sip:c@10.0.0.3"), RouteSet: uris(t, "sip:out;lr")}, e.View())
}

// RFC 3261 12.2.2: the order of the peer's requests.
func TestRequestsAreTakenInOrder(t *testing.T) {
	for name, row := range map[string]struct {
		known        bool
		last, number uint32
		method       sip.RequestMethod
		inOrder      bool
	}{
		"the first":                             {false, 0, 4711, sip.INFO, true},
		"zero, as the first":                    {false, 0, 0, sip.INFO, true},
		"the next":                              {true, 7, 8, sip.INFO, true},
		"after a gap":                           {true, 7, 4000, sip.INFO, true},
		"a lower one":                           {true, 7, 6, sip.INFO, false},
		"zero after zero":                       {true, 0, 0, sip.INFO, false},
		"the same once more":                    {true, 7, 7, sip.INFO, false},
		"a BYE with that of the request before": {true, 7, 7, sip.BYE, true},
		"a BYE that was overtaken":              {true, 7, 6, sip.BYE, false},
		"the highest of RFC 3261 8.1.1.5":       {true, 1<<31 - 2, 1<<31 - 1, sip.INFO, true},
		"beyond it":                             {true, 1<<31 - 1, 1<<32 - 1, sip.INFO, true},
	} {
		s := Restore(View{RemoteSeq: row.last, RemoteSeqKnown: row.known})
		require.Equal(t, row.inOrder, s.InOrder(row.method, row.number), name)
		want := row.last
		if row.inOrder {
			want = row.number
		}
		require.Equal(t, want, s.RemoteSeq(), name)
	}
}

// RFC 3261 12.2.1.1: each request has a higher CSeq than the one before; an ACK that of
// its INVITE (13.2.2.4).
func TestRequestsCountUp(t *testing.T) {
	s := Restore(View{LocalTag: "ours", RemoteTag: "theirs", Target: uri(t, "sip:b@10.0.0.9")})
	invite := request(&s, sip.INVITE)
	require.Equal(t, uint32(1), invite.CSeq)
	require.Equal(t, uint32(2), next(&s), "an INVITE that is sent again")
	require.Equal(t, uint32(3), request(&s, sip.INFO).CSeq)
	ack := s.Ack(2)
	require.Equal(t, uint32(2), ack.CSeq)
	require.Equal(t, sip.ACK, ack.Method)
	require.Equal(t, "ours", ack.FromTag)
	require.Equal(t, "theirs", ack.ToTag)
	require.Equal(t, uint32(4), request(&s, sip.BYE).CSeq, "an ACK draws no number")
	require.Equal(t, uint32(4), s.LocalSeq())
}

// RFC 3261 12.2.1.2, 12.2.2: the messages that refresh the target, and those that do not.
func TestTargetIsRefreshed(t *testing.T) {
	for name, row := range map[string]struct {
		targets []string
		want    string
	}{
		"another Contact":   {[]string{"sip:b@10.0.0.8"}, "sip:b@10.0.0.8"},
		"the same Contact":  {[]string{"sip:b@10.0.0.9"}, "sip:b@10.0.0.9"},
		"no Contact":        {nil, "sip:b@10.0.0.9"},
		"the first of many": {[]string{"sip:b@10.0.0.7", "sip:b@10.0.0.6"}, "sip:b@10.0.0.7"},
	} {
		s := Restore(View{Target: uri(t, "sip:b@10.0.0.9"), RouteSet: uris(t, "sip:p;lr")})
		s.Refresh(uris(t, row.targets...))
		require.Equal(t, row.want, text(s.Target()), name)
		require.Equal(t, []string{"sip:p;lr"}, texts(s.RouteSet()), name)
	}
}

// RFC 6141 4.8: a request of the peer has refreshed the target while ours was in progress.
func TestTargetRefreshesThatCross(t *testing.T) {
	for name, row := range map[string]struct{ sentTo, now, answered, want string }{
		"nothing crossed, same":             {"sip:b@old", "sip:b@old", "sip:b@old", "sip:b@old"},
		"nothing crossed, moved":            {"sip:b@old", "sip:b@old", "sip:b@new", "sip:b@new"},
		"it moved, and answers from before": {"sip:b@old", "sip:b@new", "sip:b@old", "sip:b@new"},
		"the same in another writing":       {"sip:b@old", "sip:b@new", "SIP:b@OLD", "sip:b@new"},
		"it moved, and answers so":          {"sip:b@old", "sip:b@new", "sip:b@new", "sip:b@new"},
		"it moved, and moves on":            {"sip:b@old", "sip:b@new", "sip:b@third", "sip:b@third"},
		"an answer without Contact":         {"sip:b@old", "sip:b@new", "", "sip:b@new"},
	} {
		s := Restore(View{Target: uri(t, row.now)})
		var targets []sip.Uri
		if row.answered != "" {
			targets = uris(t, row.answered)
		}
		s.RefreshBy(targets, uri(t, row.sentTo))
		require.Equal(t, row.want, text(s.Target()), name)
	}
}

// RFC 3261 12.2.1.1, 8.1.2: Request-URI, Route and next hop.
func TestPathOfRequests(t *testing.T) {
	for name, row := range map[string]struct {
		target string
		routes []string
		uri    string
		route  []string
		hop    string
	}{
		"no route": {"sip:b@10.0.0.9", nil, "sip:b@10.0.0.9", nil, "sip:b@10.0.0.9"},
		"a loose router": {
			"sip:b@10.0.0.9", []string{"sip:p1;lr"},
			"sip:b@10.0.0.9", []string{"sip:p1;lr"}, "sip:p1;lr",
		},
		"lr with a value": {
			"sip:b@10.0.0.9", []string{"sip:p1;lr=on"},
			"sip:b@10.0.0.9", []string{"sip:p1;lr=on"}, "sip:p1;lr=on",
		},
		"a strict router": {
			"sip:b@10.0.0.9", []string{"sip:p1", "sip:p2;lr"},
			"sip:p1", []string{"sip:p2;lr", "sip:b@10.0.0.9"}, "sip:p1",
		},
		"a strict router alone": {
			"sip:b@10.0.0.9", []string{"sip:p1"},
			"sip:p1", []string{"sip:b@10.0.0.9"}, "sip:p1",
		},
		"a strict router behind a loose one": {
			"sip:b@10.0.0.9", []string{"sip:p1;lr", "sip:p2"},
			"sip:b@10.0.0.9", []string{"sip:p1;lr", "sip:p2"}, "sip:p1;lr",
		},
		"what no Request-URI has (19.1.1)": {
			"sip:b@10.0.0.9?Subject=x", nil, "sip:b@10.0.0.9", nil, "sip:b@10.0.0.9?Subject=x",
		},
		"nor that of a strict router": {
			"sip:b@10.0.0.9", []string{"sip:p1;method=INVITE;maddr=10.1.1.1?Subject=x"},
			"sip:p1;maddr=10.1.1.1", []string{"sip:b@10.0.0.9"}, "sip:p1;method=INVITE;maddr=10.1.1.1?Subject=x",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := Restore(View{Target: uri(t, row.target), RouteSet: uris(t, row.routes...)})
			requestURI, route := s.Path()
			require.Equal(t, row.uri, text(requestURI))
			require.Equal(t, row.route, texts(route))
			require.Equal(t, row.hop, text(s.Hop()))
			r := request(&s, sip.BYE)
			require.Equal(t, row.uri, text(r.URI))
			require.Equal(t, row.route, texts(r.Route))
		})
	}
}

// RFC 3261 8.1.1.8, 12.1.1: when our Contact is a SIPS URI.
func TestSecureStates(t *testing.T) {
	for _, row := range []struct {
		target string
		routes []string
		secure bool
	}{
		{"sip:b@10.0.0.9", nil, false},
		{"sips:b@10.0.0.9", nil, true},
		{"sip:b@10.0.0.9", []string{"sips:p;lr"}, true},
		{"sip:b@10.0.0.9", []string{"sip:p;lr", "sips:q;lr"}, false},
	} {
		s := Restore(View{Target: uri(t, row.target), RouteSet: uris(t, row.routes...)})
		require.Equal(t, row.secure, s.IsSecure(), "%v", row)
	}
}

// A View restores its state.
func TestViewRestoresTheState(t *testing.T) {
	s := FromRequest("ours", Message{Tag: "theirs", CSeq: 7, Targets: uris(t, "sip:a@10.0.0.1"), Routes: uris(t, "sip:p;lr")})
	next(&s)
	require.Equal(t, s, Restore(s.View()))
}

// RFC 6665 4.4.1: a NOTIFY before the 2xx creates the dialog, and the peer's requests are
// counted from then on.
func TestNotifyMakesTheStateOfASubscription(t *testing.T) {
	s := Restore(View{LocalTag: "ours", LocalSeq: 1, Target: uri(t, "sip:b@first")})
	s.LearnRequest(Message{Tag: "theirs", CSeq: 99, Targets: uris(t, "sip:b@10.0.0.9"), Routes: uris(t, "sip:p1;lr", "sip:p2;lr")})
	require.Equal(t, []string{"sip:p1;lr", "sip:p2;lr"}, texts(s.RouteSet()))
	require.Equal(t, "theirs", s.RemoteTag())
	require.True(t, s.InOrder(sip.NOTIFY, 99))
	require.False(t, s.InOrder(sip.NOTIFY, 99))
}

// No request has a number beyond the limit, not the one that is sent again either; the last
// ones are for a BYE that is challenged (RFC 3261 22.2).
func TestNoNumberBeyondTheLimitIsDrawn(t *testing.T) {
	draws := func(s *State, method sip.RequestMethod) (n int) {
		for before := s.LocalSeq(); ; n++ {
			draw := func() (uint32, bool) { r, ok := s.Next(method); return r.CSeq, ok }
			if n%2 == 1 {
				draw = func() (uint32, bool) { return s.NextSeq(method) }
			}
			seq, ok := draw()
			if !ok {
				require.Equal(t, before, s.LocalSeq(), method)
				return n
			}
			require.Equal(t, before+1, seq)
			before = seq
		}
	}
	s := Restore(View{LocalTag: "ours", LocalSeq: 7, Target: uri(t, "sip:b@10.0.0.9")})
	require.Equal(t, noLimit, s.SeqsLeft())
	s.Allow(9)
	require.Equal(t, noLimit, s.SeqsLeft(), "there is no limit to be raised")
	s.Limit(107)
	s.Limit(2000)
	require.Equal(t, 100-ByeReserve, s.SeqsLeft(), "the first record counts until another is saved")
	for _, method := range []sip.RequestMethod{sip.INFO, sip.INVITE, sip.UPDATE, sip.PRACK, sip.NOTIFY, sip.SUBSCRIBE, sip.REFER, sip.OPTIONS} {
		draws(&s, method)
		require.Zero(t, s.SeqsLeft())
		s.Allow(s.limit + 3)
		s.Allow(s.limit - 1)
		require.Equal(t, 3, draws(&s, method), method)
	}
	require.Equal(t, ByeReserve, draws(&s, sip.BYE))
	require.Equal(t, s.limit, s.LocalSeq())

	s.Skip(1000, ByeReserve) // what others may have, and nothing of ours
	require.Zero(t, draws(&s, sip.INFO))
	require.Equal(t, ByeReserve, draws(&s, sip.BYE))
	s.Unlimit()
	require.Equal(t, noLimit, s.SeqsLeft())
	require.NotZero(t, request(&s, sip.NOTIFY).CSeq)
}
