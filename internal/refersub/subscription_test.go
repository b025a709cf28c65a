package refersub_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/refersub"
)

const (
	life        = time.Hour
	transaction = 32 * time.Second
)

var (
	start     = time.Unix(1e9, 0)
	errCause  = errors.New("cause")
	errCause2 = errors.New("another cause")
)

// machine is a subscription with a clock, and the effects of the latest input.
type machine struct {
	*refersub.Subscription
	now     time.Time
	effects []refersub.Effect
}

// step gives the machine an input.
func (m *machine) step(input func(*refersub.Step)) {
	s := refersub.Step{Now: m.now, Life: life, Transaction: transaction}
	input(&s)
	m.effects = s.Effects
}

// sent is the subscription of a REFER of ours that got its 202; received that of a REFER
// of the peer's, after the first NOTIFY was answered.
func sent() *machine {
	m := &machine{Subscription: &refersub.Subscription{Sent: true}, now: start}
	m.step(func(s *refersub.Step) { m.Accepted(s, false) })
	return m
}

func received() *machine {
	m := &machine{Subscription: new(refersub.Subscription), now: start}
	m.Begins(refersub.Progress{Status: 100})
	m.step(func(s *refersub.Step) { m.Take(s, false) })
	m.step(func(s *refersub.Step) { m.Start(s) })
	m.writes(refersub.Notify{})
	return m
}

// writes has a NOTIFY leave and be answered.
func (m *machine) writes(n refersub.Notify) {
	m.step(func(s *refersub.Step) {
		n, number := m.Leave(s, n)
		m.Left(s, n)
		m.NotifyOver(s, number, refersub.Failure{})
	})
}

// notified gives the machine a NOTIFY and returns the status of the response.
func (m *machine) notified(state, contentType, body string) (reply refersub.Reply) {
	m.step(func(s *refersub.Step) { reply = m.Notified(s, refersub.Read(notifyOf(state, contentType, body))) })
	return reply
}

func notifyOf(state, contentType, body string) *sip.Request {
	req := sip.NewRequest(sip.NOTIFY, sip.Uri{Scheme: "sip", Host: "h"})
	for name, value := range map[string]string{"Subscription-State": state, "Content-Type": contentType} {
		if value != "" {
			req.AppendHeader(sip.NewHeader(name, value))
		}
	}
	req.SetBody([]byte(body))
	return req
}

// text writes the latest effects, such as "told 180, expires 1m0s".
func (m *machine) text() string {
	names := map[refersub.Kind]string{
		refersub.Expires: "expires", refersub.Refreshes: "refreshes", refersub.Rests: "rests", refersub.Told: "told",
		refersub.Decided: "decided", refersub.Answered: "answered", refersub.Unfollowed: "unfollowed", refersub.Ended: "ended",
		refersub.Writes: "writes", refersub.NotifyOver: "over", refersub.Subscribes: "subscribes",
	}
	var list []string
	for _, e := range m.effects {
		text := names[e.Kind]
		switch e.Kind {
		case refersub.Expires, refersub.Refreshes, refersub.Subscribes:
			text += " " + e.After.String()
		case refersub.Told:
			text += " " + strconv.Itoa(e.Progress.Status)
		case refersub.Writes:
			text += " " + strings.TrimPrefix(strconv.Itoa(e.Notify.Progress.Status)+e.Notify.State, "0")
			if e.Last {
				text += " last"
			}
		}
		list = append(list, text)
	}
	return strings.Join(list, ", ")
}

// lost is the failure of a machine: reason, and cause.
func lost(t *testing.T, m *machine) *refersub.Lost {
	t.Helper()
	var l *refersub.Lost
	require.ErrorAs(t, m.Failure(), &l)
	return l
}

// One row for each state of a REFER of ours and each input: what follows. A space
// separates the inputs that lead to the state.
func TestInputsOfTheSubscriptionOfAREFERSent(t *testing.T) {
	inputs := map[string]func(m *machine, s *refersub.Step){
		"202":        func(m *machine, s *refersub.Step) { m.Accepted(s, false) },
		"202-silent": func(m *machine, s *refersub.Step) { m.Accepted(s, true) },
		"603":        func(m *machine, s *refersub.Step) { m.Refused(s, errCause) },
		"drop":       func(m *machine, s *refersub.Step) { m.Drop(s, errCause2) },
		"close":      func(m *machine, s *refersub.Step) { m.Close(s, errCause2, true) },
		"abandon":    func(m *machine, s *refersub.Step) { m.Abandon(s, errCause2) },
		"notify-180": func(m *machine, s *refersub.Step) {
			m.Notified(s, refersub.Read(notifyOf("active;expires=60", "", "SIP/2.0 180 R")))
		},
		"notify-200": func(m *machine, s *refersub.Step) {
			m.Notified(s, refersub.Read(notifyOf("terminated;reason=noresource", "", "SIP/2.0 200 OK")))
		},
		"notify-end": func(m *machine, s *refersub.Step) {
			m.Notified(s, refersub.Read(notifyOf("terminated;reason=giveup", "", "")))
		},
		"notify-odd": func(m *machine, s *refersub.Step) {
			m.Notified(s, refersub.Read(notifyOf("terminated", "", "SIP/2.0 180 R")))
		},
		"wait":        func(m *machine, s *refersub.Step) { m.Wait(s) },
		"waited":      func(m *machine, s *refersub.Step) { m.Waited(s) },
		"refresh":     func(m *machine, s *refersub.Step) { m.Refresh(s) },
		"refreshed":   func(m *machine, s *refersub.Step) { m.Refreshed(s, "90", refersub.Failure{}) },
		"refresh-500": func(m *machine, s *refersub.Step) { m.Refreshed(s, "", refersub.Failure{Err: errCause, Status: 500}) },
		"refresh-481": func(m *machine, s *refersub.Step) { m.Refreshed(s, "", refersub.Failure{Err: errCause, Status: 481}) },
		"refresh-no":  func(m *machine, s *refersub.Step) { m.Refreshed(s, "", refersub.Failure{Err: errCause, Unsent: true}) },
		"minute":      func(m *machine, s *refersub.Step) { m.now = m.now.Add(time.Minute); s.Now = m.now; m.Expire(s) },
		"hour":        func(m *machine, s *refersub.Step) { m.now = m.now.Add(time.Hour); s.Now = m.now; m.Expire(s) },
	}
	const lapsed = "decided, ended"
	for _, row := range []struct{ before, input, effects string }{
		{"", "202", "answered, expires 1h0m0s, rests"},
		{"", "202-silent", "answered, decided, ended"},
		{"", "603", "answered, decided, ended"},
		{"", "drop", "answered, decided, ended"},
		{"", "close", "answered, decided, ended"},
		{"", "abandon", "answered, decided, ended"},
		{"", "notify-180", "told 180, expires 1m0s, rests"},
		{"", "notify-200", "told 200, decided, answered, ended"},
		{"", "notify-end", "answered, decided, ended"},
		{"", "wait", "rests"},
		{"", "refresh", ""},
		{"notify-180", "202", "answered"},
		{"notify-200", "202", ""},
		{"notify-180 wait", "202-silent", "answered, decided, ended"},
		{"202", "abandon", ""},
		{"202", "drop", lapsed},
		{"202", "close", lapsed},
		{"202", "notify-180", "told 180, expires 1m0s, rests"},
		{"202", "notify-odd", "told 180, expires 32s, rests"},
		{"202", "notify-200", "told 200, decided, ended"},
		{"202", "notify-end", lapsed},
		{"202", "wait", "refreshes 59m28s"},
		{"202", "minute", "expires 59m0s"},
		{"202", "hour", lapsed},
		{"202 notify-180", "notify-180", "expires 1m0s, rests"},
		{"202 notify-180", "minute", lapsed},
		{"202 notify-odd", "wait", "rests"},
		{"202 notify-odd", "notify-180", "expires 1m0s, rests"},
		{"202 notify-odd", "notify-200", "told 200, decided, ended"},
		{"202 notify-odd", "minute", lapsed},
		{"202 wait", "wait", "refreshes 59m28s"},
		{"202 wait", "waited", "rests"},
		{"202 wait wait", "waited", "refreshes 59m28s"},
		{"202 wait", "notify-180", "told 180, expires 1m0s, refreshes 30s"},
		{"202 wait", "refresh", "subscribes 1h0m0s"},
		{"202 wait refresh", "refresh", ""},
		{"202 wait refresh", "refreshed", "expires 1m30s, refreshes 58s"},
		{"202 wait refresh", "refresh-500", ""},
		{"202 wait refresh", "refresh-481", lapsed},
		{"202 wait refresh", "refresh-no", ""},
		{"202 wait refresh refresh-500", "refresh", "subscribes 1h0m0s"},
		{"202 wait refresh drop", "refreshed", ""},
		{"202 wait refresh notify-200", "refreshed", ""},
		{"202 wait waited", "refresh", ""},
		{"202 drop", "603", ""},
		{"202 drop", "202", ""},
		{"202 drop", "hour", ""},
		{"202 drop", "notify-180", ""},
		{"202 wait drop", "refresh", ""},
		{"202 drop", "wait", "rests"},
		{"603", "202", ""},
	} {
		m := &machine{Subscription: &refersub.Subscription{Sent: true}, now: start}
		for _, name := range append(strings.Fields(row.before), row.input) {
			m.step(func(s *refersub.Step) { inputs[name](m, s) })
		}
		require.Equal(t, row.effects, m.text(), "%q, then %q", row.before, row.input)
	}
}

// One row for each state of a REFER of the peer's and each input: what follows.
func TestInputsOfTheSubscriptionOfAREFERReceived(t *testing.T) {
	var number int
	inputs := map[string]func(m *machine, s *refersub.Step){
		"drop":        func(m *machine, s *refersub.Step) { m.Drop(s, errCause2) },
		"close":       func(m *machine, s *refersub.Step) { m.Close(s, errCause2, true) },
		"close-alone": func(m *machine, s *refersub.Step) { m.Close(s, errCause2, false) },
		"queue-180":   func(m *machine, s *refersub.Step) { m.Queue(s, notify(180)) },
		"queue-200":   func(m *machine, s *refersub.Step) { m.Queue(s, notify(200)) },
		"leaves-180":  func(m *machine, s *refersub.Step) { n, i := m.Leave(s, notify(180)); number = i; m.Left(s, n) },
		"leaves-200":  func(m *machine, s *refersub.Step) { n, i := m.Leave(s, notify(200)); number = i; m.Left(s, n) },
		"written":     func(m *machine, s *refersub.Step) { m.Written(s, notify(180), nil) },
		"unwritten":   func(m *machine, s *refersub.Step) { m.Written(s, notify(180), errCause) },
		"last-not":    func(m *machine, s *refersub.Step) { m.Written(s, notify(200), errCause) },
		"200":         func(m *machine, s *refersub.Step) { m.NotifyOver(s, number, refersub.Failure{}) },
		"481": func(m *machine, s *refersub.Step) {
			m.NotifyOver(s, number, refersub.Failure{Err: errCause, Status: 481})
		},
		"500": func(m *machine, s *refersub.Step) {
			m.NotifyOver(s, number, refersub.Failure{Err: errCause, Status: 500})
		},
		"silence": func(m *machine, s *refersub.Step) { m.NotifyOver(s, number, refersub.Failure{Err: errCause}) },
		"unsent": func(m *machine, s *refersub.Step) {
			m.NotifyOver(s, number, refersub.Failure{Err: errCause, Unsent: true})
		},
		"subscribe":   func(m *machine, s *refersub.Step) { m.Subscribed(s, "60") },
		"unsubscribe": func(m *machine, s *refersub.Step) { m.Subscribed(s, "0") },
		"nonsense":    func(m *machine, s *refersub.Step) { m.Subscribed(s, "soon") },
		"follow":      func(m *machine, _ *refersub.Step) { m.Follow() },
		"call-180":    func(m *machine, s *refersub.Step) { m.CallResponse(s, refersub.Progress{Status: 180}) },
		"call-202":    func(m *machine, s *refersub.Step) { m.CallResponse(s, refersub.Progress{Status: 202}) },
		"call-up":     func(m *machine, s *refersub.Step) { m.CallOver(s, refersub.Progress{}) },
		"call-486":    func(m *machine, s *refersub.Step) { m.CallOver(s, refersub.Progress{Status: 486}) },
		"minute":      func(m *machine, s *refersub.Step) { m.now = m.now.Add(time.Minute); s.Now = m.now; m.Expire(s) },
		"hour":        func(m *machine, s *refersub.Step) { m.now = m.now.Add(time.Hour); s.Now = m.now; m.Expire(s) },
	}
	for _, row := range []struct{ before, input, effects string }{
		{"", "drop", "decided, ended"},
		{"", "close", "writes terminated;reason=noresource last"},
		{"", "close-alone", "decided, ended"},
		{"close", "close", ""},
		{"", "queue-180", "writes 180"},
		{"queue-180", "queue-180", ""},
		{"queue-180", "written", ""},
		{"queue-180 queue-200", "written", "writes 200 last"},
		{"queue-180 queue-200", "unwritten", "writes 200 last"},
		{"queue-180 queue-200 leaves-180", "written", ""},
		{"queue-180 queue-200 leaves-180 written", "200", "over, writes 200 last"},
		{"queue-180 queue-200 leaves-180", "200", "over"},
		{"queue-180 queue-200 leaves-180 200", "written", "writes 200 last"},
		{"queue-200", "last-not", "decided, ended"},
		{"leaves-180", "queue-180", ""},
		{"", "leaves-180", "told 180"},
		{"leaves-180", "leaves-180", ""},
		{"", "leaves-200", "told 200, decided, unfollowed, ended"},
		{"leaves-200", "leaves-200", "unfollowed"},
		{"leaves-200", "481", "over"},
		{"leaves-180", "200", "over"},
		{"leaves-180 200", "200", ""},
		{"leaves-180", "481", "decided, ended, over"},
		{"leaves-180", "500", "over"},
		{"leaves-180", "silence", "decided, ended, over"},
		{"leaves-180", "unsent", "over"},
		{"leaves-180 drop", "200", "over"},
		{"", "subscribe", "expires 1m0s, writes "},
		{"", "unsubscribe", "writes terminated;reason=timeout last"},
		{"", "nonsense", ""},
		{"drop", "subscribe", ""},
		{"subscribe", "minute", ""},                                              // a NOTIFY is being written
		{"subscribe minute", "written", "writes terminated;reason=timeout last"}, // and then the last
		{"follow subscribe written", "minute", "expires 32s"},
		{"", "minute", "expires 59m0s"},
		{"", "hour", "writes terminated;reason=timeout last"},
		{"follow", "hour", "expires 32s"},
		{"hour", "queue-180", ""},
		{"drop", "hour", ""},
		{"follow", "call-180", "writes 180"},
		{"follow call-180 written", "call-180", ""},
		{"follow", "call-202", ""},
		{"follow call-202", "call-up", "writes 202 last"},
		{"follow", "call-up", "writes 200 last"},
		{"follow", "call-486", "writes 486 last"},
		{"drop", "call-486", ""},
		{"drop", "queue-180", ""},
	} {
		m := received()
		for _, name := range append(strings.Fields(row.before), row.input) {
			m.step(func(s *refersub.Step) { inputs[name](m, s) })
		}
		require.Equal(t, row.effects, m.text(), "%q, then %q", row.before, row.input)
	}
}

// RFC 3515 2.4.5: the first final status is the outcome.
func TestTheFirstFinalStatusIsTheOutcome(t *testing.T) {
	m := sent()
	for _, row := range []struct {
		status  int
		effects string
		latest  int
	}{{100, "told 100, ", 100}, {100, "", 100}, {180, "told 180, ", 180}, {100, "told 100, ", 100}, {486, "told 486, decided, ", 486}, {200, "", 486}, {180, "", 486}} {
		m.notified("active", "", "SIP/2.0 "+strconv.Itoa(row.status)+" x")
		require.Equal(t, row.effects+"expires 1h0m0s, rests", m.text())
		require.Equal(t, row.latest, m.Progress().Status)
		require.Equal(t, row.latest >= 200, m.IsDecided())
	}
	m.step(func(s *refersub.Step) { m.Drop(s, errCause) })
	require.Equal(t, "ended", m.text())
	require.NoError(t, m.Failure(), "there is an outcome")
}

// Why there is no outcome, and with which progress.
func TestReasonsForNoOutcome(t *testing.T) {
	for name, row := range map[string]struct {
		end  func(m *machine)
		want refersub.Lost
	}{
		"dropped": {func(m *machine) { m.step(func(s *refersub.Step) { m.Drop(s, errCause) }) }, refersub.Lost{Err: errCause}},
		"twice": {func(m *machine) {
			m.step(func(s *refersub.Step) { m.Drop(s, errCause) })
			m.step(func(s *refersub.Step) { m.Drop(s, errCause2) })
		}, refersub.Lost{Err: errCause}},
		"no time left":       {func(m *machine) { m.now = m.now.Add(time.Hour); m.step(m.Expire) }, refersub.Lost{Err: refersub.ErrTimeout}},
		"the peer's timeout": {func(m *machine) { m.notified("terminated;reason=timeout", "", "") }, refersub.Lost{Reason: "timeout", Err: refersub.ErrTimeout}},
		"another chance":     {func(m *machine) { m.notified("terminated;reason=probation;retry-after=5", "", "") }, refersub.Lost{Reason: "probation", RetryAfter: 5 * time.Second}},
		"lingered": {func(m *machine) {
			m.notified("terminated", "", "SIP/2.0 180 Ringing")
			m.now = m.now.Add(transaction)
			m.step(m.Expire)
		}, refersub.Lost{}},
	} {
		m := sent()
		m.notified("active", "", "SIP/2.0 180 Ringing")
		row.end(m)
		row.want.Last = refersub.Progress{Status: 180, Reason: "Ringing"}
		require.Equal(t, &row.want, lost(t, m), name)
		require.True(t, m.IsOver(), name)
		require.NoError(t, m.Refusal(), name)
	}
	silent := &machine{Subscription: &refersub.Subscription{Sent: true}, now: start}
	silent.step(func(s *refersub.Step) { silent.Accepted(s, true) })
	require.Equal(t, refersub.ErrNone, lost(t, silent).Err)
	refused := &machine{Subscription: &refersub.Subscription{Sent: true}, now: start}
	refused.step(func(s *refersub.Step) { refused.Refused(s, errCause) })
	require.Equal(t, errCause, refused.Failure(), "not the subscription has failed, but the REFER")
	require.Equal(t, errCause, refused.Refusal())
	mine := &machine{Subscription: new(refersub.Subscription), now: start}
	mine.step(func(s *refersub.Step) { mine.Take(s, true) })
	require.Equal(t, refersub.ErrNone, lost(t, mine).Err)
	require.False(t, mine.IsActive())
}

// RFC 3515 2.4.4, 2.4.5; RFC 6665 4.1.3: the response to each NOTIFY, and what it makes of
// the subscription.
func TestNOTIFYUpdatesTheSubscription(t *testing.T) {
	for name, row := range map[string]struct {
		state, contentType, body string
		status                   int
		effects                  string
	}{
		"active":                         {"active;expires=60", "message/sipfrag", "SIP/2.0 100 Trying", 200, "told 100, expires 1m0s, rests"},
		"pending, in capitals":           {"PENDING", "Message/SIPfrag;version=2.0", "SIP/2.0 100 Trying", 200, "told 100, expires 1h0m0s, rests"},
		"no state":                       {"", "message/sipfrag", "SIP/2.0 200 OK", 400, ""},
		"no body":                        {"active;expires=60", "", "", 200, "expires 1m0s, rests"},
		"a body that is none":            {"active", "text/plain", "hello", 415, ""},
		"a status line of another type":  {"active", "text/plain", "SIP/2.0 180 Ringing", 200, "told 180, expires 1h0m0s, rests"},
		"the end, with any body":         {"terminated;reason=giveup", "text/plain", "bye", 200, "decided, ended"},
		"the outcome":                    {"terminated;reason=noresource", "message/sipfrag", "SIP/2.0 200 OK", 200, "told 200, decided, ended"},
		"the outcome, no reason":         {"terminated", "message/sipfrag", "SIP/2.0 486 Busy Here", 200, "told 486, decided, ended"},
		"terminated in every NOTIFY":     {"Terminated", "message/sipfrag", "SIP/2.0 180 Ringing", 200, "told 180, expires 32s, rests"},
		"terminated without a progress":  {"terminated", "message/sipfrag", "", 200, "decided, ended"},
		"no outcome, and another chance": {"terminated;reason=probation;retry-after=5", "message/sipfrag", "SIP/2.0 180 Ringing", 200, "told 180, decided, ended"},
	} {
		m := sent()
		reply := m.notified(row.state, row.contentType, row.body)
		require.Equal(t, row.status, reply.Status, name)
		require.Equal(t, row.status == 200, reply.HasContact, name)
		require.Equal(t, row.status == 415, reply.Header != nil, name)
		require.Equal(t, row.effects, m.text(), name)
	}
}

// The responses to NOTIFYs and SUBSCRIBEs, by the state of what they belong to.
func TestRepliesToRequestsForSubscriptions(t *testing.T) {
	for _, row := range []struct {
		method sip.RequestMethod
		over   bool
		status int
	}{{sip.NOTIFY, false, 481}, {sip.NOTIFY, true, 481}, {sip.SUBSCRIBE, false, 403}, {sip.SUBSCRIBE, true, 481}} {
		require.Equal(t, refersub.Reply{Status: row.status}, refersub.Stray(row.method, row.over))
	}
	for expires, want := range map[string]string{"": "3600", "60": "60", "7200": "3600", "0": "0"} {
		m := received()
		m.step(func(s *refersub.Step) {
			reply := m.Subscribed(s, expires)
			require.Equal(t, 200, reply.Status)
			require.True(t, reply.HasContact)
			require.Equal(t, "Expires: "+want, reply.Header.String(), expires)
		})
	}
	m := received()
	m.step(func(s *refersub.Step) { require.Equal(t, refersub.Reply{Status: 400}, m.Subscribed(s, "soon")) })
	m.step(func(s *refersub.Step) { m.Drop(s, nil) })
	m.step(func(s *refersub.Step) { require.Equal(t, refersub.Reply{Status: 481}, m.Subscribed(s, "60")) })
	ended := sent()
	ended.step(func(s *refersub.Step) { ended.Drop(s, nil) })
	require.Equal(t, refersub.Reply{Status: 481}, ended.notified("active", "", "SIP/2.0 180 Ringing"))
}

// The first NOTIFY goes with the REFER, whether a SUBSCRIBE came before it or not.
func TestTheFirstNOTIFYIsDue(t *testing.T) {
	isDue := func(m *machine) (due bool) {
		m.step(func(s *refersub.Step) { due = m.Start(s) })
		return due
	}
	m := &machine{Subscription: new(refersub.Subscription), now: start}
	require.False(t, isDue(m), "it was not accepted")
	m.step(func(s *refersub.Step) { m.Take(s, false) })
	require.Empty(t, m.text(), "no timer runs yet")
	require.True(t, isDue(m))
	require.Equal(t, "expires 1h0m0s", m.text())
	m.step(func(s *refersub.Step) { m.Subscribed(s, "60") })
	require.True(t, isDue(m))
	require.Empty(t, m.text(), "the SUBSCRIBE's time counts")
	m.step(func(s *refersub.Step) { m.Drop(s, errCause) })
	require.False(t, isDue(m))
}

// A NOTIFY says how long the subscription goes on (RFC 6665 4.2.2).
func TestANOTIFYSaysTheTimeThatIsLeft(t *testing.T) {
	m := &machine{Subscription: new(refersub.Subscription), now: start}
	state := func() (text string) {
		m.step(func(s *refersub.Step) { n, _ := m.Leave(s, refersub.Notify{}); text = n.State })
		return text
	}
	m.step(func(s *refersub.Step) { m.Take(s, false) })
	require.Equal(t, "active;expires=3600", state(), "not begun")
	m.step(func(s *refersub.Step) { m.Subscribed(s, "60") })
	m.now = m.now.Add(20 * time.Second)
	require.Equal(t, "active;expires=40", state())
}

// At the end of a Shutdown the last NOTIFY leaves, whatever waits before it.
func TestTheLastNOTIFYNeedNotWait(t *testing.T) {
	m := received()
	m.step(func(s *refersub.Step) { m.Queue(s, notify(180)) })
	_, found := m.TakeLast()
	require.False(t, found)
	m.step(func(s *refersub.Step) { m.Queue(s, notify(183)) })
	m.step(func(s *refersub.Step) { m.Close(s, errCause, true) })
	last, found := m.TakeLast()
	require.True(t, found)
	require.Equal(t, refersub.NoResource, last.State)
	m.step(func(s *refersub.Step) { m.Written(s, last, nil) })
	require.Empty(t, m.text())
}
