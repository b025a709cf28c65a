package main

// testCase is a call by way of a program, between two sipps.
type testCase struct {
	name string
	// program is the example that runs, b2bua unless it is set; args are its further
	// arguments. LISTEN, CALLER and CALLEE stand for addresses.
	program string
	args    []string
	// caller and callee are the steps of both sides. calleeCalled and callerCalled say that
	// the program places the call.
	caller, callee []string
	callerListens  bool
	// says is a text that the program prints.
	says string
}

// Parts of scripts.
var (
	callerTalks  = []string{"> INVITE sdp", "< 180", "< 200 sdp", "> ACK"}
	calleeTalks  = []string{"< INVITE sdp", "> 180", "> 200 sdp", "< ACK"}
	callerHangUp = []string{"wait 200", "> BYE", "< 200"}
	calleeHangUp = []string{"wait 200", "> BYE", "< 200"}
	hungUp       = []string{"< BYE", "> 200"}
	unanswered   = []string{"< INVITE", "> 180", "< CANCEL", "> 200", "of INVITE", "> 487", "< ACK"}
	refer        = "> REFER | Refer-To: <sip:carol@127.0.0.1:9>\nContact: <sip:[local_ip]:[local_port]>"
)

func steps(parts ...any) []string {
	var list []string
	for _, part := range parts {
		switch p := part.(type) {
		case string:
			list = append(list, p)
		case []string:
			list = append(list, p...)
		}
	}
	return list
}

func cases() []testCase {
	refused := func(code string) testCase {
		return testCase{name: "refused-" + code, caller: steps("> INVITE sdp", "< "+code+" | Warning: 399 x", "> ACK"),
			callee: steps("< INVITE sdp", "> "+code+` | Warning: 399 x "why"`, "< ACK")}
	}
	return []testCase{
		{name: "caller-hangs-up", caller: steps(callerTalks, "wait 200", "> BYE | Reason: Q.850;cause=16", "< 200"), callee: steps(calleeTalks, "< BYE | Q.850;cause=16", "> 200")},
		{name: "callee-hangs-up", caller: steps(callerTalks, hungUp), callee: steps(calleeTalks, calleeHangUp)},
		{name: "early-media", caller: steps("> INVITE sdp", "< 183 sdp", "> PRACK", "< 200", "< 200", "> ACK", callerHangUp),
			callee: steps("< INVITE sdp", "> 183 rel sdp", "< PRACK", "> 200", "wait 300", "of INVITE", "> 200", "< ACK", hungUp)},
		{name: "early-media-unreliable", caller: steps("> INVITE sdp", "< 183 sdp", "> PRACK", "< 200", "< 200", "> ACK", callerHangUp),
			callee: steps("< INVITE sdp", "> 183 sdp", "wait 300", "> 200 sdp", "< ACK", hungUp)},
		{name: "offer-last", caller: steps("> INVITE", "< 200 sdp", "> ACK sdp", callerHangUp), callee: steps("< INVITE nosdp", "> 200 sdp", "< ACK sdp", hungUp)},
		{name: "offer-in-reliable-183", caller: steps("> INVITE", "< 183 sdp", "> PRACK sdp", "< 200", "< 200", "> ACK", callerHangUp),
			callee: steps("< INVITE nosdp", "> 183 rel sdp", "< PRACK sdp", "> 200", "wait 300", "of INVITE", "> 200", "< ACK", hungUp)},
		refused("486"), refused("404"), refused("603"), refused("488"),
		{name: "refused-503", caller: steps("> INVITE sdp", "< 500", "> ACK"), callee: steps("< INVITE sdp", "> 503", "< ACK")},
		{name: "refused-302", caller: steps("> INVITE sdp", "< 302 | Contact: <sip:carol@example.com>", "> ACK"),
			callee: steps("< INVITE sdp", "> 302 | Contact: <sip:carol@example.com>", "< ACK")},
		{name: "busy-after-ringing", caller: steps("> INVITE sdp", "< 180", "< 486", "> ACK"), callee: steps("< INVITE sdp", "> 180", "wait 200", "> 486", "< ACK")},
		{name: "unanswered", caller: steps("> INVITE sdp", "< 180", "< 408", "> ACK"), callee: steps("< INVITE sdp", "> 180", "wait 500", "> 408", "< ACK")},
		{name: "cancelled", caller: steps("> INVITE sdp", "< 180", "wait 200", "> CANCEL", "< 200", "of INVITE", "< 487", "> ACK"),
			callee: steps("< INVITE sdp", "> 180", "< CANCEL", "> 200", "of INVITE", "> 487", "< ACK")},
		{name: "digest", args: []string{"-user", "me", "-password", "secret"}, caller: steps(callerTalks, callerHangUp),
			callee: steps("< INVITE sdp", `> 407 | Proxy-Authenticate: Digest realm="trunk", nonce="1", qop="auth", algorithm=MD5`, "< ACK",
				"< INVITE sdp | Proxy-Authorization: Digest .*username=\"me\"", "> 180", "> 200 sdp", "< ACK", hungUp)},
		{name: "digest-without-password", caller: steps("> INVITE sdp", "< 403", "> ACK"),
			callee: steps("< INVITE sdp", `> 407 | Proxy-Authenticate: Digest realm="trunk", nonce="1", qop="auth", algorithm=MD5`, "< ACK")},
		{name: "caller-holds", caller: steps(callerTalks, "wait 200", "> INVITE sdp", "< 200 sdp", "> ACK", callerHangUp),
			callee: steps(calleeTalks, "< INVITE sdp", "> 200 sdp", "< ACK", hungUp)},
		{name: "callee-holds", caller: steps(callerTalks, "< INVITE sdp", "> 200 sdp", "< ACK", hungUp),
			callee: steps(calleeTalks, "wait 200", "> INVITE sdp", "< 200 sdp", "> ACK", calleeHangUp)},
		{name: "caller-updates", caller: steps(callerTalks, "wait 200", "> UPDATE sdp", "< 200 sdp", callerHangUp), callee: steps(calleeTalks, "< UPDATE sdp", "> 200 sdp", hungUp)},
		{name: "callee-updates", caller: steps(callerTalks, "< UPDATE sdp", "> 200 sdp", hungUp), callee: steps(calleeTalks, "wait 200", "> UPDATE sdp", "< 200 sdp", calleeHangUp)},
		{name: "re-invite-without-offer", caller: steps(callerTalks, "wait 200", "> INVITE", "< 200 sdp", "> ACK sdp", callerHangUp),
			callee: steps(calleeTalks, "< INVITE nosdp", "> 200 sdp", "< ACK sdp", hungUp)},
		{name: "re-invite-without-offer-back", caller: steps(callerTalks, "< INVITE nosdp", "> 200 sdp", "< ACK sdp", hungUp),
			callee: steps(calleeTalks, "wait 200", "> INVITE", "< 200 sdp", "> ACK sdp", calleeHangUp)},
		{name: "refused-re-invite", caller: steps(callerTalks, "wait 200", "> INVITE sdp", "< 488", "> ACK", callerHangUp),
			callee: steps(calleeTalks, "< INVITE sdp", "> 488", "< ACK", hungUp)},
		{name: "caller-informs", caller: steps(callerTalks, "wait 200", "> INFO", "< 200", callerHangUp), callee: steps(calleeTalks, "< INFO", "> 200", hungUp)},
		{name: "callee-informs", caller: steps(callerTalks, "< INFO", "> 415", hungUp), callee: steps(calleeTalks, "wait 200", "> INFO", "< 415", calleeHangUp)},
		{name: "caller-writes", caller: steps(callerTalks, "wait 200", "> MESSAGE", "< 200", callerHangUp), callee: steps(calleeTalks, "< MESSAGE", "> 200", hungUp)},
		{name: "callee-writes", caller: steps(callerTalks, "< MESSAGE", "> 200", hungUp), callee: steps(calleeTalks, "wait 200", "> MESSAGE", "< 200", calleeHangUp)},
		{name: "caller-asks-options", caller: steps(callerTalks, "wait 200", "> OPTIONS", "< 200", callerHangUp), callee: steps(calleeTalks, "< OPTIONS", "> 200", hungUp)},
		{name: "refused-update", caller: steps(callerTalks, "wait 200", "> UPDATE sdp", "< 488", callerHangUp), callee: steps(calleeTalks, "< UPDATE sdp", "> 488", hungUp)},
		{name: "refused-re-invite-back", caller: steps(callerTalks, "< INVITE sdp", "> 488", "< ACK", hungUp), callee: steps(calleeTalks, "wait 200", "> INVITE sdp", "< 488", "> ACK", calleeHangUp)},
		{name: "refer-refused", args: []string{"-refer", "0"}, caller: steps(callerTalks, "wait 200", refer, "< 603", callerHangUp), callee: steps(calleeTalks, hungUp)},
		{name: "refer-relayed", args: []string{"-refer", "1"},
			caller: steps(callerTalks, "wait 200", refer, "< 202", "< NOTIFY | 100 Trying", "> 200", "< NOTIFY | 180 Scripted", "> 200", "< NOTIFY | 200 Scripted", "> 200", callerHangUp),
			callee: steps(calleeTalks, "< REFER | Refer-To: <sip:carol@127.0.0.1:9>", "> 202", "notify 100", "< 200", "notify 180", "< 200", "notify 200", "< 200", hungUp)},
		{name: "refer-relayed-back", args: []string{"-refer", "1"},
			caller: steps(callerTalks, "< REFER | Refer-To: <sip:carol@127.0.0.1:9>", "> 202", "notify 486", "< 200", hungUp),
			callee: steps(calleeTalks, "wait 200", refer, "< 202", "< NOTIFY | 100 Trying", "> 200", "< NOTIFY | 486 Scripted", "> 200", calleeHangUp)},
		{name: "refer-relayed-refused", args: []string{"-refer", "1"}, caller: steps(callerTalks, "wait 200", refer, "< 603", callerHangUp),
			callee: steps(calleeTalks, "< REFER", "> 603", hungUp)},
		{name: "hops", caller: steps("> INVITE sdp | Subject: hops", "< 200 sdp", "> ACK", callerHangUp), callee: steps("< INVITE sdp | Max-Forwards: 69", "> 200 sdp", "< ACK", hungUp)},

		{name: "ivr", program: "ivr", args: []string{"-listen", "LISTEN", "sip:sales@127.0.0.1:9", "sip:support@127.0.0.1:9"}, says: "support: 200",
			caller: steps("> INVITE sdp", "< 180", "< 200 | m=audio 4000 RTP/AVP 0", "> ACK", "wait 200", "> INFO dtmf", "< 200",
				"< REFER | Refer-To: *<sip:support@127.0.0.1:9>", "> 202", "notify 100", "< 200", "notify 200", "< 200", hungUp)},
		{name: "ivr-target-busy", program: "ivr", args: []string{"-listen", "LISTEN", "sip:sales@127.0.0.1:9", "sip:support@127.0.0.1:9"}, says: "support: 486",
			caller: steps("> INVITE sdp", "< 180", "< 200 | m=audio 4000 RTP/AVP 0", "> ACK", "wait 200", "> INFO dtmf", "< 200",
				"< REFER", "> 202", "notify 486", "< 200", hungUp)},
		{name: "ivr-target-unanswered", program: "ivr", args: []string{"-listen", "LISTEN", "sip:sales@127.0.0.1:9", "sip:support@127.0.0.1:9"}, says: "support: 408",
			caller: steps("> INVITE sdp", "< 180", "< 200 | m=audio 4000 RTP/AVP 0", "> ACK", "wait 200", "> INFO dtmf", "< 200",
				"< REFER", "> 202", "notify 180", "< 200", "notify 408", "< 200", hungUp)},
		{name: "ivr-caller-hangs-up", program: "ivr", args: []string{"-listen", "LISTEN", "sip:sales@127.0.0.1:9"}, says: "hung up",
			caller: steps("> INVITE sdp", "< 180", "< 200", "> ACK", callerHangUp)},

		{name: "clicktodial-1", program: "clicktodial", args: []string{"-flow", "1", "sip:caller@CALLER", "sip:callee@CALLEE"}, callerListens: true,
			caller: steps("< INVITE nosdp", "> 200 sdp", "< ACK sdp", callerHangUp), callee: steps("< INVITE sdp", "> 200 sdp", "< ACK", hungUp)},
		{name: "clicktodial-1-busy", program: "clicktodial", args: []string{"-flow", "1", "sip:caller@CALLER", "sip:callee@CALLEE"}, callerListens: true, says: "486",
			caller: steps("< INVITE nosdp", "> 200 sdp", "< ACK", hungUp), callee: steps("< INVITE sdp", "> 486", "< ACK")},
		{name: "clicktodial-1-unanswered", program: "clicktodial", args: []string{"-flow", "1", "-ring", "1s", "sip:caller@CALLER", "sip:callee@CALLEE"}, callerListens: true, says: "connected: false",
			caller: steps("< INVITE nosdp", "> 200 sdp", "< ACK", hungUp), callee: steps(unanswered)},
		{name: "clicktodial-4", program: "clicktodial", args: []string{"-flow", "4", "sip:caller@CALLER", "sip:callee@CALLEE"}, callerListens: true,
			caller: steps("< INVITE | o=- 1 1 ", "> 200 nomedia", "< ACK", "< INVITE | o=- 1 2 .*m=audio", "> 200 sdp", "< ACK", callerHangUp),
			callee: steps("< INVITE nosdp", "> 180", "wait 300", "> 200 sdp", "< ACK sdp", hungUp)},
		{name: "clicktodial-4-busy", program: "clicktodial", args: []string{"-flow", "4", "sip:caller@CALLER", "sip:callee@CALLEE"}, callerListens: true, says: "486",
			caller: steps("< INVITE", "> 200 nomedia", "< ACK", hungUp), callee: steps("< INVITE nosdp", "> 486", "< ACK")},
		{name: "clicktodial-4-unanswered", program: "clicktodial", args: []string{"-flow", "4", "-ring", "1s", "sip:caller@CALLER", "sip:callee@CALLEE"}, callerListens: true, says: "connected: false",
			caller: steps("< INVITE", "> 200 nomedia", "< ACK", hungUp), callee: steps(unanswered)},
		{name: "clicktodial-first-unanswered", program: "clicktodial", args: []string{"-flow", "4", "-ring", "1s", "sip:caller@CALLER", "sip:callee@CALLEE"}, callerListens: true, says: "connected: false",
			caller: steps(unanswered)},
		{name: "clicktodial-first-busy", program: "clicktodial", args: []string{"-flow", "4", "sip:caller@CALLER", "sip:callee@CALLEE"}, callerListens: true, says: "486",
			caller: steps("< INVITE", "> 486", "< ACK")},
	}
}
