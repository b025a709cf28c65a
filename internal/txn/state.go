package txn

// state is a state of one of the four machines.
type state uint8

// The states of RFC 3261 17 and RFC 6026. stateNone is the zero value: the
// table has no entry.
const (
	stateNone state = iota
	stateCalling
	stateTrying
	stateProceeding
	stateAccepted
	stateCompleted
	stateConfirmed
	stateTerminated
	stateCount
)

// String returns the RFC's name.
func (s state) String() string {
	switch s {
	case stateCalling:
		return "Calling"
	case stateTrying:
		return "Trying"
	case stateProceeding:
		return "Proceeding"
	case stateAccepted:
		return "Accepted"
	case stateCompleted:
		return "Completed"
	case stateConfirmed:
		return "Confirmed"
	case stateTerminated:
		return "Terminated"
	default:
		return "None"
	}
}

// event moves a machine. A response is one that arrives at a client, or one that the user
// of a server sends.
type event uint8

const (
	event1xx     event = iota
	event2xx           // 200 to 299
	eventFailure       // 300 to 699
	eventRequest       // the request again
	eventAck           // ACK with the INVITE's branch
	eventRepeat        // the user repeats its final response
	eventRetry         // Timer A, E or G; for a non-INVITE server the time for 100
	eventLimit         // Timer B, F or H, the wait after CANCEL, and Timers D, I, J, K, L, M
	eventLost          // the transport failed
	eventCount
)

// responseEvent classifies a status code.
func responseEvent(code int) event {
	switch {
	case code < 200:
		return event1xx
	case code < 300:
		return event2xx
	default:
		return eventFailure
	}
}

// action is a set of things to do on a transition.
type action uint16

const (
	send    action = 1 << iota // write the request, or the last response
	ack                        // write the ACK
	up                         // hand the message to the user
	done                       // deliver the end
	fail                       // deliver the failure
	quiet                      // stop the timers
	start                      // start retransmission and limit
	again                      // start the retransmission timer once more, backed off
	linger                     // wait for stragglers: Timer D, I, J, K, L or M
	freshen                    // start the timer that keeps the way of the response open
)

// transition is one arrow of a figure.
type transition struct {
	next state
	do   action
}

// machine is one figure. An event without an arrow is ignored.
type machine [stateCount][eventCount]transition

// inviteClient is figure 5 of RFC 6026 8.4. In Proceeding the limit is the wait
// for a final response after CANCEL (RFC 3261 9.1), and over UDP the request is sent
// again at times (RFC 3581 3). Done follows a failure at once, and a 2xx only after Timer M,
// since more of them may come.
var inviteClient = machine{
	stateCalling: {
		event1xx:     {stateProceeding, up | quiet | freshen},
		event2xx:     {stateAccepted, up | linger},
		eventFailure: {stateCompleted, ack | up | done | linger},
		eventRetry:   {stateCalling, send | again},
		eventLimit:   {stateTerminated, fail},
		eventLost:    {stateTerminated, fail},
	},
	stateProceeding: {
		event1xx:     {stateProceeding, up},
		event2xx:     {stateAccepted, up | linger},
		eventFailure: {stateCompleted, ack | up | done | linger},
		eventRetry:   {stateProceeding, send | freshen},
		eventLimit:   {stateTerminated, fail},
		eventLost:    {stateTerminated, fail},
	},
	stateCompleted: {
		eventFailure: {stateCompleted, ack},
		eventLimit:   {stateTerminated, 0},
	},
	stateAccepted: {
		event2xx:   {stateAccepted, up},
		eventLimit: {stateTerminated, done},
	},
}

// nonInviteClient is figure 6 of RFC 3261 17.1.2.2.
var nonInviteClient = machine{
	stateTrying: {
		event1xx:     {stateProceeding, up},
		event2xx:     {stateCompleted, up | done | linger},
		eventFailure: {stateCompleted, up | done | linger},
		eventRetry:   {stateTrying, send | again},
		eventLimit:   {stateTerminated, fail},
		eventLost:    {stateTerminated, fail},
	},
	stateProceeding: {
		event1xx:     {stateProceeding, up},
		event2xx:     {stateCompleted, up | done | linger},
		eventFailure: {stateCompleted, up | done | linger},
		eventRetry:   {stateProceeding, send | again},
		eventLimit:   {stateTerminated, fail},
		eventLost:    {stateTerminated, fail},
	},
	stateCompleted: {
		eventLimit: {stateTerminated, 0},
	},
}

// inviteServer is figure 7 of RFC 6026 8.6. Transport errors change no state.
var inviteServer = machine{
	stateProceeding: {
		eventRequest: {stateProceeding, send},
		event1xx:     {stateProceeding, send},
		event2xx:     {stateAccepted, send | linger},
		eventFailure: {stateCompleted, send | start},
	},
	stateCompleted: {
		eventRequest: {stateCompleted, send},
		eventRepeat:  {stateCompleted, send},
		eventRetry:   {stateCompleted, send | again},
		eventAck:     {stateConfirmed, linger},
		eventLimit:   {stateTerminated, fail},
	},
	stateConfirmed: {
		eventLimit: {stateTerminated, 0},
	},
	stateAccepted: {
		eventRepeat: {stateAccepted, send},
		eventAck:    {stateAccepted, up},
		eventLimit:  {stateTerminated, 0},
	},
}

// nonInviteServer is figure 8 of RFC 3261 17.2.2 without the provisional
// responses of the user: RFC 4320 4.1 leaves only a 100, at a fixed time. A
// user that never answers ends the transaction without a response (RFC 4320 4.2).
var nonInviteServer = machine{
	stateTrying: {
		eventRetry:   {stateProceeding, send},
		event2xx:     {stateCompleted, send | linger},
		eventFailure: {stateCompleted, send | linger},
		eventLimit:   {stateTerminated, 0},
	},
	stateProceeding: {
		eventRequest: {stateProceeding, send},
		event2xx:     {stateCompleted, send | linger},
		eventFailure: {stateCompleted, send | linger},
		eventLimit:   {stateTerminated, 0},
	},
	stateCompleted: {
		eventRequest: {stateCompleted, send},
		eventRepeat:  {stateCompleted, send},
		eventLimit:   {stateTerminated, 0},
	},
}
