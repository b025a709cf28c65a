package stress

import "sipdialog.example/dialog/internal/testkit"

// A run must have seen these, besides every method. TestStress fails
// without.

func expectedWire() []string {
	return []string{
		"sent: INVITE", "sent: ACK", "sent: BYE", "sent: CANCEL", "sent: REFER", "sent: NOTIFY",
		"sent: 100 INVITE", "sent: 180 INVITE", "sent: 200 INVITE", "sent: 200 BYE", "sent: 200 CANCEL", "sent: 200 NOTIFY",
		"sent: 200 INFO", "sent: 200 OPTIONS", "sent: 202 REFER", "sent: 302 INVITE", "sent: 480 INVITE", "sent: 486 INVITE",
		"sent: 487 INVITE", "sent: 488 INVITE", "sent: 491 INVITE", "sent: 500 INVITE", "sent: 503 INVITE", "sent: 420 INVITE",
		"sent: 400 INVITE", "sent: 416", "sent: 505", "sent: 482 INVITE", "sent: 400 REFER", "sent: 405 MESSAGE",
		"sent: 501 FOO", "sent: 469 INFO", "sent: 489 NOTIFY", "sent: 481 NOTIFY", "sent: 481 BYE", "sent: 481 CANCEL", "sent: 500 INFO",
		"received: INVITE", "received: ACK", "received: BYE", "received: CANCEL", "received: REFER", "received: NOTIFY", "received: INFO",
		"received: 100 INVITE", "received: 180 INVITE", "received: 183 INVITE", "received: 200 INVITE", "received: 302 INVITE",
		"received: 404 INVITE", "received: 481 INVITE", "received: 486 INVITE", "received: 487 INVITE", "received: 491 INVITE",
		"received: 503 INVITE", "received: 603 INVITE", "received: 200 BYE", "received: 481 BYE", "received: 500 BYE",
		"received: 200 CANCEL", "received: 481 CANCEL", "received: 202 REFER", "received: 603 REFER", "received: 200 NOTIFY",
		"received: 481 NOTIFY", "received: 489 NOTIFY", "sent: 400 NOTIFY", "sent: 415 NOTIFY", "sent: 603 REFER", "sent: 504 REFER",
		"sent: reliable 1xx", "sent: 200 PRACK", "sent: 481 PRACK", "sent: 400 PRACK", "received: PRACK", "sent: 421 INVITE",
		"sent: UPDATE", "received: UPDATE", "sent: 422 INVITE",
		"sent: PRACK", "received: 199 INVITE", "received: 200 PRACK",
		"sent: SUBSCRIBE", "received: SUBSCRIBE", "sent: 200 SUBSCRIBE", "sent: 403 SUBSCRIBE", "sent: 489 SUBSCRIBE",
		"message: late duplicate", "message: damaged", "message: cut", "message: without From", "message: without To",
		"message: without Call-ID", "message: without CSeq", "message: without Via", "message: of another version",
		"message: with another CSeq", "message: with a lying length", "message: to a telephone", "message: that are noise",
	}
}

func expectedTimers() []string {
	return []string{
		"timer: A, INVITE again", "timer: E, request again", "timer: G, failure again", "timer: 2xx again", "timer: 180 again",
		"timer: INVITE timed out", "timer: ACK timed out", "timer: PRACK timed out", "timer: subscription expired", "timer: offer not decided",
		"timer: caller refreshes by UPDATE", "timer: caller refreshes by INVITE", "timer: callee refreshes by UPDATE",
		"timer: callee refreshes by INVITE", "timer: session expired",
	}
}

func expectedFaults() []string {
	list := []string{
		"fault: host unreachable", "fault: lossy network", "fault: write error", "fault: write error on a stream",
		"fault: socket lost", "fault: all streams broken",
		"fault: streams broken, tcp", "fault: streams broken, tls", "fault: streams broken, ws", "fault: streams broken, wss",
		"fault: a silent stranger", "fault: a stranger with noise", "fault: a stranger with half a message",
		"fault: a stranger without a handshake",
		"fault: bindings forgotten",
	}
	for _, transport := range testkit.AllTransports() {
		list = append(list, "fault: a phone moves, over "+transport, "calls of a phone, over "+transport, "calls by a flow, over "+transport)
		if transport != "udp" {
			list = append(list, "fault: connections cut silently, over "+transport)
		}
	}
	return list
}

func expectedCallbacks() []string {
	return []string{
		"callback: blocks", "callback: panics", "callback: Goexit", "callback: offer refused", "callback: offer never decided",
		"callback: nobody answers", "callback: chooses a fork", "callback: offer for a PRACK", "callback: REFER", "callback: REFER followed", "callback: REFER decided", "callback: trace",
		"callback: trace of tls", "callback: trace of ws", "callback: trace of wss",
	}
}

func expectedErrors() []string {
	return []string{
		"error: timeout", "error: transport", "error: wrong state", "error: answered", "error: canceled", "error: pending",
		"error: too many", "error: no REFER", "error: no subscription", "error: no outcome", "error: argument", "error: panic", "error: terminated",
		"error: shutdown", "error: exists", "error: context", "error: context canceled", "error: refused", "error: package",
		"cause: local", "cause: remote", "cause: timeout", "cause: transport", "cause: shutdown",
	}
}

func expectedScript() []string {
	return []string{
		"script: INVITE answered", "script: INVITE answered by forks", "script: INVITE reliably", "script: INVITE reliably, with an offer",
		"script: INVITE reliably, with a gap", "script: INVITE reliably, without a number", "script: INVITE reliably, by forks",
		"script: INVITE ended by 199", "script: INVITE BYE of one of two", "script: PRACK 200", "script: PRACK 481", "script: PRACK silence", "script: INVITE answered in the wrong order",
		"script: INVITE answered, to be refreshed", "script: INVITE answered, and not refreshed",
		"script: UPDATE 200 with the timer", "script: UPDATE 500", "script: UPDATE silence",
		"script: calls to be refreshed", "script: calls and does not refresh", "script: calls with too short an interval",
		"script: INVITE early media", "script: INVITE refused", "script: INVITE redirected", "script: INVITE silence", "script: INVITE 100 only",
		"script: INVITE rings for ever", "script: INVITE BYE while ringing", "script: INVITE nonsense",
		"script: re-INVITE 200", "script: re-INVITE reliably", "script: re-INVITE reliably, then refused", "script: PRACK answered", "script: re-INVITE 491", "script: re-INVITE silence", "script: re-INVITE rings for ever",
		"script: CANCEL 200 487", "script: CANCEL 200 200", "script: CANCEL silence", "script: BYE 200", "script: BYE 481",
		"script: BYE silence", "script: BYE 100 only", "script: REFER 202 and NOTIFY", "script: REFER NOTIFY before 202",
		"script: REFER 202 and NOTIFYs of all kinds", "script: REFER silence", "script: REFER outside calls", "script: asks SUBSCRIBE to a REFER", "script: NOTIFY silence", "script: 2xx acknowledged", "script: 2xx acknowledged late",
		"script: 2xx acknowledged wrongly", "script: 2xx not acknowledged", "script: calls with an offer",
		"script: calls without an offer", "script: calls twice", "script: calls by two paths", "script: calls and cancels",
		"script: calls and cancels first", "script: calls and hangs up while ringing", "script: calls with Require",
		"script: calls that demand 100rel", "script: calls that know 100rel", "script: calls that know 100rel, without an offer",
		"script: 1xx acknowledged", "script: 1xx acknowledged with a session", "script: 1xx acknowledged late",
		"script: 1xx acknowledged wrongly", "script: 1xx acknowledged without a number", "script: 1xx not acknowledged",
		"script: asks BYE", "script: asks INFO", "script: asks INFO with a key", "script: asks INFO with our package", "script: asks re-INVITE", "script: asks two re-INVITEs", "script: asks REFER",
		"script: asks REFER to two", "script: asks something late", "script: asks UPDATE", "script: asks UPDATE with a timer", "script: asks PRACK", "script: asks FOO",
	}
}
