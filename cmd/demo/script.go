package main

import "context"

// steps returns the script: the actions in their order, and all expected messages and
// notes.
func (s *scene) steps() []step {
	return []step{
		{
			name: "alice calls bob, whose phone rings",
			do:   s.aliceCalls,
			flow: []string{"alice>bob INVITE sendrecv 90", "bob>alice 100 INVITE", "bob>alice 180 INVITE"},
			notes: []string{
				"alice outgoing: Trying", "alice outgoing: Ringing",
				"bob incoming: Ringing", "bob incoming: peer's media sendrecv",
			},
		}, {
			name:  "bob answers her offer in a reliable 183, while the phone rings on",
			do:    s.bobSendsEarlyMedia,
			flow:  []string{"bob>alice 183 INVITE sendrecv reliable", "alice>bob PRACK", "bob>alice 200 PRACK"},
			notes: []string{"alice outgoing: peer's media sendrecv"},
			check: s.bothRing,
		}, {
			name:  "bob answers the call",
			do:    s.bobAnswers,
			flow:  []string{"bob>alice 200 INVITE 90;refresher=uac", "alice>bob ACK"},
			notes: []string{"bob incoming: Established", "alice outgoing: Established"},
		}, {
			name: "alice holds the call",
			do:   func(ctx context.Context) error { return s.alicesCall.Hold(ctx) },
			flow: []string{
				"alice>bob INVITE sendonly 90;refresher=uac", "bob>alice 100 INVITE",
				"bob>alice 200 INVITE recvonly 90;refresher=uac", "alice>bob ACK",
			},
			notes: []string{"bob incoming: peer's media sendonly", "alice outgoing: peer's media recvonly"},
		}, {
			name: "alice resumes it",
			do:   func(ctx context.Context) error { return s.alicesCall.Resume(ctx) },
			flow: []string{
				"alice>bob INVITE sendrecv 90;refresher=uac", "bob>alice 100 INVITE",
				"bob>alice 200 INVITE sendrecv 90;refresher=uac", "alice>bob ACK",
			},
			notes: []string{"bob incoming: peer's media sendrecv", "alice outgoing: peer's media sendrecv"},
		}, {
			name: "alice refreshes the session, as her stack would by itself after 45 s",
			do:   s.aliceRefreshes,
			flow: []string{"alice>bob UPDATE 90;refresher=uac", "bob>alice 200 UPDATE 90;refresher=uac"},
		}, {
			name:  "alice asks bob to call carol instead",
			do:    s.aliceRefers,
			flow:  []string{"alice>bob REFER", "bob>alice 202 REFER", "bob>alice NOTIFY 100", "alice>bob 200 NOTIFY"},
			notes: []string{"bob asked to call carol"},
			check: s.transferBegan,
		}, {
			name: "bob calls carol, and tells alice that her phone rings",
			do:   s.bobCallsCarol,
			flow: []string{
				"bob>carol INVITE sendrecv", "carol>bob 100 INVITE", "carol>bob 180 INVITE",
				"bob>alice NOTIFY 180", "alice>bob 200 NOTIFY",
			},
			notes: []string{
				"bob outgoing: Trying", "bob outgoing: Ringing",
				"carol incoming: Ringing", "carol incoming: peer's media sendrecv",
				"alice transfer: 180 Ringing",
			},
		}, {
			name: "carol answers, and bob tells alice",
			do:   s.carolAnswers,
			flow: []string{
				"carol>bob 200 INVITE sendrecv", "bob>carol ACK", "bob>alice NOTIFY 200", "alice>bob 200 NOTIFY",
			},
			notes: []string{
				"carol incoming: Established",
				"bob outgoing: Established", "bob outgoing: peer's media sendrecv",
				"alice transfer: 200 OK",
			},
		}, {
			name:  "alice hangs up",
			do:    func(ctx context.Context) error { return s.alicesCall.Bye(ctx, "transferred") },
			flow:  []string{"alice>bob BYE", "bob>alice 200 BYE"},
			notes: []string{"alice outgoing: Terminated", "bob incoming: Terminated"},
			check: func() error { return s.hungUp(s.alicesCall, s.bobsCall) },
		}, {
			name:  "carol hangs up",
			do:    func(ctx context.Context) error { return s.carolsCall.Bye(ctx, "") },
			flow:  []string{"carol>bob BYE", "bob>carol 200 BYE"},
			notes: []string{"carol incoming: Terminated", "bob outgoing: Terminated"},
			check: func() error { return s.hungUp(s.carolsCall, s.newCall) },
		},
	}
}
