package txn

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"
)

// A step moves a transaction under test; row says what must come of the last.
type (
	clientStep func(r *rig, req *sip.Request)
	serverStep func(r *rig, s *Server)
)

func receive(code int) clientStep {
	return func(r *rig, req *sip.Request) { r.answer(req, code, "far") }
}
func pass(d time.Duration) clientStep { return func(*rig, *sip.Request) { time.Sleep(d) } }
func lose() clientStep                { return func(r *rig, _ *sip.Request) { r.net.BreakStreams() } }
func askCancel() clientStep           { return func(r *rig, _ *sip.Request) { r.client.Cancel() } }
func reachClient(s ...clientStep) []clientStep {
	return s
}

// TestClientTransactionsFollowTheTables goes through RFC 3261 figure 6 and
// figure 5 of RFC 6026 row by row.
func TestClientTransactionsFollowTheTables(t *testing.T) {
	type row struct {
		name    string
		method  sip.RequestMethod
		network []string
		reach   []clientStep
		step    clientStep
		state   state
		wire    []string
		user    []string
	}
	udp, tcp := []string{"udp"}, []string{"tcp"}
	for _, row := range []row{
		{"INVITE Calling, Timer A: sent again", sip.INVITE, udp, nil, pass(t1), stateCalling, []string{"INVITE"}, nil},
		{"INVITE Calling, Timer A doubles", sip.INVITE, udp, reachClient(pass(t1)), pass(2 * t1), stateCalling, []string{"INVITE"}, nil},
		{"INVITE Calling on a stream: no Timer A", sip.INVITE, tcp, nil, pass(31 * time.Second), stateCalling, nil, nil},
		{"INVITE Calling, Timer B", sip.INVITE, tcp, nil, pass(64 * t1), stateTerminated, nil, []string{"done: timeout"}},
		{"INVITE Calling, transport error", sip.INVITE, tcp, nil, lose(), stateTerminated, nil, []string{"done: transport"}},
		{"INVITE Calling, 1xx", sip.INVITE, both, nil, receive(180), stateProceeding, nil, []string{"response 180"}},
		{"INVITE Calling, 2xx", sip.INVITE, both, nil, receive(200), stateAccepted, nil, []string{"response 200"}},
		{"INVITE Calling, 300-699", sip.INVITE, udp, nil, receive(486), stateCompleted, []string{"ACK"}, []string{"response 486", "done: <nil>"}},
		{"INVITE Calling, 300-699 on a stream: Timer D is 0", sip.INVITE, tcp, nil, receive(486), stateTerminated, []string{"ACK"}, []string{"response 486", "done: <nil>"}},
		{"INVITE Calling, CANCEL is held", sip.INVITE, tcp, nil, askCancel(), stateCalling, nil, nil},

		{"INVITE Proceeding, Timer B stopped", sip.INVITE, tcp, reachClient(receive(100)), pass(10 * time.Minute), stateProceeding, nil, nil},
		{"INVITE Proceeding, Timer A stopped", sip.INVITE, udp, reachClient(receive(100)), pass(freshTime - 1), stateProceeding, nil, nil},
		{"INVITE Proceeding, repeated for the routers (RFC 3581 3)", sip.INVITE, udp, reachClient(receive(100)), pass(2 * freshTime), stateProceeding, []string{"INVITE", "INVITE"}, nil},
		{"INVITE Proceeding, 1xx", sip.INVITE, both, reachClient(receive(100)), receive(183), stateProceeding, nil, []string{"response 183"}},
		{"INVITE Proceeding, 2xx", sip.INVITE, both, reachClient(receive(100)), receive(200), stateAccepted, nil, []string{"response 200"}},
		{"INVITE Proceeding, 300-699", sip.INVITE, udp, reachClient(receive(180)), receive(603), stateCompleted, []string{"ACK"}, []string{"response 603", "done: <nil>"}},
		{"INVITE Proceeding, transport error", sip.INVITE, tcp, reachClient(receive(180)), lose(), stateTerminated, nil, []string{"done: transport"}},
		{"INVITE Proceeding, CANCEL leaves", sip.INVITE, both, reachClient(receive(180)), askCancel(), stateProceeding, []string{"CANCEL"}, nil},
		{"INVITE Proceeding, held CANCEL leaves at the first 1xx", sip.INVITE, both, reachClient(askCancel()), receive(180), stateProceeding, []string{"CANCEL"}, []string{"response 180"}},
		{"INVITE Proceeding, nothing after CANCEL", sip.INVITE, tcp, reachClient(receive(180), askCancel()), pass(64 * t1), stateTerminated, nil, []string{"done: cancelled"}},
		{"INVITE Proceeding, 487 after CANCEL", sip.INVITE, udp, reachClient(receive(180), askCancel()), receive(487), stateCompleted, []string{"ACK"}, []string{"response 487", "done: <nil>"}},

		{"INVITE Completed, 300-699 again", sip.INVITE, udp, reachClient(receive(486)), receive(486), stateCompleted, []string{"ACK"}, nil},
		{"INVITE Completed, 2xx", sip.INVITE, udp, reachClient(receive(486)), receive(200), stateCompleted, nil, nil},
		{"INVITE Completed, 1xx", sip.INVITE, udp, reachClient(receive(486)), receive(180), stateCompleted, nil, nil},
		{"INVITE Completed, CANCEL", sip.INVITE, udp, reachClient(receive(486)), askCancel(), stateCompleted, nil, nil},
		{"INVITE Completed, before Timer D", sip.INVITE, udp, reachClient(receive(486)), pass(32*time.Second - 1), stateCompleted, nil, nil},
		{"INVITE Completed, Timer D", sip.INVITE, udp, reachClient(receive(486)), pass(32 * time.Second), stateTerminated, nil, nil},

		{"INVITE Accepted, 2xx again", sip.INVITE, both, reachClient(receive(200)), receive(200), stateAccepted, nil, []string{"response 200"}},
		{"INVITE Accepted, 2xx of another fork", sip.INVITE, both, reachClient(receive(200)), func(r *rig, req *sip.Request) { r.answer(req, 200, "other") }, stateAccepted, nil, []string{"response 200"}},
		{"INVITE Accepted, 1xx", sip.INVITE, both, reachClient(receive(200)), receive(180), stateAccepted, nil, nil},
		{"INVITE Accepted, 300-699", sip.INVITE, both, reachClient(receive(200)), receive(486), stateAccepted, nil, nil},
		{"INVITE Accepted, CANCEL", sip.INVITE, both, reachClient(receive(200)), askCancel(), stateAccepted, nil, nil},
		{"INVITE Accepted, transport error", sip.INVITE, tcp, reachClient(receive(200)), lose(), stateAccepted, nil, nil},
		{"INVITE Accepted, Timer M", sip.INVITE, both, reachClient(receive(200)), pass(64 * t1), stateTerminated, nil, []string{"done: <nil>"}},

		{"BYE Trying, Timer E: sent again", sip.BYE, udp, nil, pass(t1), stateTrying, []string{"BYE"}, nil},
		{"BYE Trying, Timer E doubles up to T2", sip.BYE, udp, reachClient(pass(15 * t1)), pass(4 * time.Second), stateTrying, []string{"BYE"}, nil},
		{"BYE Trying on a stream: no Timer E", sip.BYE, tcp, nil, pass(31 * time.Second), stateTrying, nil, nil},
		{"BYE Trying, Timer F", sip.BYE, tcp, nil, pass(64 * t1), stateTerminated, nil, []string{"done: timeout"}},
		{"BYE Trying, transport error", sip.BYE, tcp, nil, lose(), stateTerminated, nil, []string{"done: transport"}},
		{"BYE Trying, 1xx", sip.BYE, both, nil, receive(100), stateProceeding, nil, []string{"response 100"}},
		{"BYE Trying, final", sip.BYE, udp, nil, receive(200), stateCompleted, nil, []string{"response 200", "done: <nil>"}},
		{"BYE Trying, final on a stream: Timer K is 0", sip.BYE, tcp, nil, receive(481), stateTerminated, nil, []string{"response 481", "done: <nil>"}},
		{"BYE Trying, CANCEL has no effect", sip.BYE, tcp, reachClient(receive(100)), askCancel(), stateProceeding, nil, nil},
		{"BYE Proceeding, Timer E is T2", sip.BYE, udp, reachClient(receive(100), pass(t1)), pass(4 * time.Second), stateProceeding, []string{"BYE"}, nil},
		{"BYE Proceeding, Timer F", sip.BYE, tcp, reachClient(receive(100)), pass(64 * t1), stateTerminated, nil, []string{"done: timeout"}},
		{"BYE Proceeding, transport error", sip.BYE, tcp, reachClient(receive(100)), lose(), stateTerminated, nil, []string{"done: transport"}},
		{"BYE Proceeding, 1xx", sip.BYE, both, reachClient(receive(100)), receive(100), stateProceeding, nil, []string{"response 100"}},
		{"BYE Proceeding, final", sip.BYE, udp, reachClient(receive(100)), receive(200), stateCompleted, nil, []string{"response 200", "done: <nil>"}},
		{"BYE Completed, final again", sip.BYE, udp, reachClient(receive(200)), receive(200), stateCompleted, nil, nil},
		{"BYE Completed, Timers E and F stopped", sip.BYE, udp, reachClient(receive(200)), pass(5*time.Second - 1), stateCompleted, nil, nil},
		{"BYE Completed, Timer K", sip.BYE, udp, reachClient(receive(200)), pass(5 * time.Second), stateTerminated, nil, nil},
	} {
		for _, network := range row.network {
			t.Run(row.name+" "+network, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t, network)
					req := r.request(row.method)
					for _, step := range row.reach {
						step(r, req)
						r.settle()
					}
					r.lines()
					r.user.take()
					row.step(r, req)
					require.Equal(t, row.wire, r.lines())
					require.Equal(t, row.user, r.user.take())
					require.Equal(t, row.state.String(), stateOf(r.layer.pastClients, &r.client.tx.transaction))
				})
			})
		}
	}
}

// stateOf is the state of a transaction, or of its record once that is what is left.
func stateOf(records *over, tx *transaction) string {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if !tx.over {
		return tx.state.String()
	}
	if r, found := records.find([]byte(tx.key)); found {
		return r.Value.state.String()
	}
	return stateTerminated.String()
}

func respondWith(code int) serverStep {
	return func(r *rig, s *Server) { _ = s.Respond(s.NewResponse(code, "")) }
}
func arrives(method string) serverStep {
	return func(r *rig, _ *Server) { r.wire.send(r.text(method, "z9hG4bK-1")) }
}
func wait(d time.Duration) serverStep          { return func(*rig, *Server) { time.Sleep(d) } }
func acknowledged() serverStep                 { return func(_ *rig, s *Server) { s.Acknowledged() } }
func repeat() serverStep                       { return func(_ *rig, s *Server) { _ = s.Repeat() } }
func reachServer(s ...serverStep) []serverStep { return s }
func twice(first, second serverStep) serverStep {
	return func(r *rig, s *Server) { first(r, s); second(r, s) }
}

// TestServerTransactionsFollowTheTables goes through figure 7 of RFC 6026 and
// RFC 3261 figure 8 row by row.
func TestServerTransactionsFollowTheTables(t *testing.T) {
	type row struct {
		name    string
		method  string
		network []string
		reach   []serverStep
		step    serverStep
		state   state
		wire    []string
		user    []string
	}
	udp, tcp := []string{"udp"}, []string{"tcp"}
	for _, row := range []row{
		{"INVITE Proceeding, INVITE: the 100 again", "INVITE", both, nil, arrives("INVITE"), stateProceeding, []string{"100"}, nil},
		{"INVITE Proceeding, 1xx", "INVITE", both, nil, respondWith(180), stateProceeding, []string{"180"}, nil},
		{"INVITE Proceeding, INVITE: the last 1xx again", "INVITE", both, reachServer(respondWith(180), respondWith(183)), arrives("INVITE"), stateProceeding, []string{"183"}, nil},
		{"INVITE Proceeding has no timer", "INVITE", both, nil, wait(time.Hour / 4), stateProceeding, nil, nil},
		{"INVITE Proceeding, ACK", "INVITE", both, nil, arrives("ACK"), stateProceeding, nil, nil},
		{"INVITE Proceeding, CANCEL", "INVITE", both, nil, arrives("CANCEL"), stateProceeding, []string{"200"}, []string{"cancel"}},
		{"INVITE Proceeding, 2xx", "INVITE", both, nil, respondWith(200), stateAccepted, []string{"200"}, nil},
		{"INVITE Proceeding, 300-699", "INVITE", both, nil, respondWith(486), stateCompleted, []string{"486"}, nil},

		{"INVITE Completed, INVITE", "INVITE", both, reachServer(respondWith(486)), arrives("INVITE"), stateCompleted, []string{"486"}, nil},
		{"INVITE Completed, the final again", "INVITE", both, reachServer(respondWith(486)), respondWith(486), stateCompleted, []string{"486"}, nil},
		{"INVITE Completed, another final", "INVITE", both, reachServer(respondWith(486)), respondWith(200), stateCompleted, nil, nil},
		{"INVITE Completed, 1xx", "INVITE", both, reachServer(respondWith(486)), respondWith(180), stateCompleted, nil, nil},
		{"INVITE Completed, Timer G", "INVITE", udp, reachServer(respondWith(486)), wait(t1), stateCompleted, []string{"486"}, nil},
		{"INVITE Completed, Timer G up to T2", "INVITE", udp, reachServer(respondWith(486), wait(15*t1)), wait(4 * time.Second), stateCompleted, []string{"486"}, nil},
		{"INVITE Completed on a stream: no Timer G", "INVITE", tcp, reachServer(respondWith(486)), wait(31 * time.Second), stateCompleted, nil, nil},
		{"INVITE Completed, Timer H", "INVITE", tcp, reachServer(respondWith(486)), wait(64 * t1), stateTerminated, nil, []string{"failed: timeout"}},
		{"INVITE Completed, ACK", "INVITE", udp, reachServer(respondWith(486)), arrives("ACK"), stateConfirmed, nil, nil},
		{"INVITE Completed, ACK on a stream: Timer I is 0", "INVITE", tcp, reachServer(respondWith(486)), arrives("ACK"), stateTerminated, nil, nil},
		{"INVITE Completed, CANCEL: 200 only", "INVITE", both, reachServer(respondWith(486)), arrives("CANCEL"), stateCompleted, []string{"200"}, nil},

		{"INVITE Confirmed, Timer G stopped", "INVITE", udp, reachServer(respondWith(486), arrives("ACK")), wait(5*time.Second - 1), stateConfirmed, nil, nil},
		{"INVITE Confirmed, ACK", "INVITE", udp, reachServer(respondWith(486), arrives("ACK")), arrives("ACK"), stateConfirmed, nil, nil},
		{"INVITE Confirmed, INVITE", "INVITE", udp, reachServer(respondWith(486), arrives("ACK")), arrives("INVITE"), stateConfirmed, nil, nil},
		{"INVITE Confirmed, the final again", "INVITE", udp, reachServer(respondWith(486), arrives("ACK")), twice(respondWith(486), repeat()), stateConfirmed, nil, nil},
		{"INVITE Confirmed, Timer I", "INVITE", udp, reachServer(respondWith(486), arrives("ACK")), wait(5 * time.Second), stateTerminated, nil, nil},

		{"INVITE Accepted, INVITE is absorbed", "INVITE", both, reachServer(respondWith(200)), arrives("INVITE"), stateAccepted, nil, nil},
		{"INVITE Accepted, the user repeats", "INVITE", both, reachServer(respondWith(200)), repeat(), stateAccepted, []string{"200"}, nil},
		{"INVITE Accepted, the same 2xx", "INVITE", both, reachServer(respondWith(200)), respondWith(200), stateAccepted, []string{"200"}, nil},
		{"INVITE Accepted, another 2xx", "INVITE", both, reachServer(respondWith(200)), respondWith(202), stateAccepted, nil, nil},
		{"INVITE Accepted repeats nothing by itself", "INVITE", udp, reachServer(respondWith(200)), wait(31 * time.Second), stateAccepted, nil, nil},
		{"INVITE Accepted, ACK", "INVITE", both, reachServer(respondWith(200)), arrives("ACK"), stateAccepted, nil, []string{"ack"}},
		{"INVITE Accepted, CANCEL: 200 only", "INVITE", both, reachServer(respondWith(200)), arrives("CANCEL"), stateAccepted, []string{"200"}, nil},
		{"INVITE Accepted, Timer L", "INVITE", both, reachServer(respondWith(200)), wait(64 * t1), stateTerminated, nil, nil},

		{"INVITE Accepted, INVITE is absorbed after the ACK", "INVITE", both, reachServer(respondWith(200), acknowledged()), arrives("INVITE"), stateAccepted, nil, nil},
		{"INVITE Accepted, nothing is repeated after the ACK", "INVITE", both, reachServer(respondWith(200), acknowledged()), twice(respondWith(200), repeat()), stateAccepted, nil, nil},
		{"INVITE Accepted, ACK after the ACK", "INVITE", both, reachServer(respondWith(200), acknowledged()), arrives("ACK"), stateAccepted, nil, []string{"ack"}},
		{"INVITE Accepted, CANCEL after the ACK", "INVITE", both, reachServer(respondWith(200), acknowledged()), arrives("CANCEL"), stateAccepted, []string{"200"}, nil},
		{"INVITE Accepted, before Timer L after the ACK", "INVITE", both, reachServer(respondWith(200), wait(time.Second), twice(acknowledged(), acknowledged())), wait(64*t1 - 1), stateAccepted, nil, nil},
		{"INVITE Accepted, Timer L after the ACK", "INVITE", both, reachServer(respondWith(200), acknowledged()), wait(64 * t1), stateTerminated, nil, nil},
		{"INVITE Proceeding, an ACK to nothing", "INVITE", both, reachServer(acknowledged()), respondWith(200), stateAccepted, []string{"200"}, nil},

		{"BYE Trying, BYE is discarded", "BYE", both, nil, arrives("BYE"), stateTrying, nil, nil},
		{"BYE Trying, no 100 before Timer E is T2", "BYE", both, nil, wait(7*t1 - 1), stateTrying, nil, nil},
		{"BYE Trying, 100 once Timer E is T2", "BYE", both, nil, wait(7 * t1), stateProceeding, []string{"100"}, nil},
		{"BYE Trying, 1xx is refused", "BYE", both, nil, respondWith(183), stateTrying, nil, nil},
		{"BYE Trying, 408 is refused", "BYE", both, nil, respondWith(408), stateTrying, nil, nil},
		{"BYE Trying, final", "BYE", udp, nil, respondWith(200), stateCompleted, []string{"200"}, nil},
		{"BYE Trying, final on a stream: Timer J is 0", "BYE", tcp, nil, respondWith(481), stateTerminated, []string{"481"}, nil},
		{"BYE Trying, CANCEL: 200 only", "BYE", both, nil, arrives("CANCEL"), stateTrying, []string{"200"}, nil},
		{"BYE Proceeding, BYE", "BYE", both, reachServer(wait(7 * t1)), arrives("BYE"), stateProceeding, []string{"100"}, nil},
		{"BYE Proceeding, final", "BYE", udp, reachServer(wait(7 * t1)), respondWith(200), stateCompleted, []string{"200"}, nil},
		{"BYE Proceeding, never answered", "BYE", both, reachServer(wait(7 * t1)), wait(57 * t1), stateTerminated, nil, nil},
		{"BYE Completed, BYE", "BYE", udp, reachServer(respondWith(200)), arrives("BYE"), stateCompleted, []string{"200"}, nil},
		{"BYE Completed, another final", "BYE", udp, reachServer(respondWith(200)), respondWith(500), stateCompleted, nil, nil},
		{"BYE Completed, the same final", "BYE", udp, reachServer(respondWith(200)), respondWith(200), stateCompleted, []string{"200"}, nil},
		{"BYE Completed, no 100", "BYE", udp, reachServer(respondWith(200)), wait(64*t1 - 1), stateCompleted, nil, nil},
		{"BYE Completed, Timer J", "BYE", udp, reachServer(respondWith(200)), wait(64 * t1), stateTerminated, nil, nil},
	} {
		for _, network := range row.network {
			t.Run(row.name+" "+network, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t, network)
					r.wire.send(r.text(row.method, "z9hG4bK-1"))
					r.settle()
					s := r.user.lastServer()
					require.NotNil(t, s)
					for _, step := range row.reach {
						step(r, s)
						r.settle()
					}
					r.lines()
					r.user.take()
					row.step(r, s)
					require.Equal(t, row.wire, r.lines())
					require.Equal(t, row.user, r.user.take())
					require.Equal(t, row.state.String(), stateOf(r.layer.pastServers, &s.tx.transaction))
				})
			})
		}
	}
}

func TestEveryStateHasAName(t *testing.T) {
	seen := map[string]bool{}
	for s := stateNone; s < stateCount; s++ {
		require.False(t, seen[s.String()])
		seen[s.String()] = true
	}
}
