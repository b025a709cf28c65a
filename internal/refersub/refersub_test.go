package refersub_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/refersub"
)

func TestStatusLinesInNOTIFYs(t *testing.T) {
	for body, want := range map[string]refersub.Progress{
		"SIP/2.0 100 Trying\r\n":              {100, "Trying"},
		"SIP/2.0 200 OK":                      {200, "OK"},
		"sip/2.0 486 Busy Here\nContact: x":   {486, "Busy Here"},
		"SIP/2.0 180\r\n":                     {180, ""},
		"  SIP/2.0 603 Decline  \r\nX: y\r\n": {603, "Decline"},
	} {
		got, ok := refersub.ParseFrag([]byte(body))
		require.True(t, ok, body)
		require.Equal(t, want, got, body)
		require.True(t, bytes.HasSuffix(got.Frag(), []byte("\r\n")), "the line ends")
		again, ok := refersub.ParseFrag(got.Frag())
		require.True(t, ok)
		require.Equal(t, want, again)
	}
	for _, body := range []string{"", "SIP/2.0", "SIP/2.0 99 x", "SIP/2.0 700 x", "SIP/2.0 2xx x", "HTTP/1.1 200 OK", "INVITE sip:a@b SIP/2.0"} {
		_, ok := refersub.ParseFrag([]byte(body))
		require.False(t, ok, body)
	}
	require.False(t, refersub.Progress{Status: 199}.IsFinal())
	require.True(t, refersub.Progress{Status: 200}.IsFinal())
}

func TestEventsAndReferSub(t *testing.T) {
	for event, want := range map[string]string{"refer": "", "Refer;id=2": "2", "refer; id=93809824": "93809824", `refer;id="7"`: "7"} {
		require.True(t, refersub.IsRefer(event), event)
		require.Equal(t, want, refersub.EventID(event), event)
	}
	require.False(t, refersub.IsRefer("presence;id=2"))
	require.False(t, refersub.IsRefer(""))
	require.Equal(t, "refer;id=2", refersub.Event("2 REFER"))
	require.Equal(t, "2 REFER", refersub.CSeqOf("2"))
	for value, want := range map[string]bool{"false": true, "False;x=y": true, "true": false, "": false} {
		require.Equal(t, want, refersub.IsFalse(value), value)
	}
}

// RFC 3515 3.4: longer than a new call may ring.
func TestASubscriptionLastsLongerThanACallRings(t *testing.T) {
	for ringing, want := range map[time.Duration]time.Duration{
		-1: time.Hour, 0: 3 * time.Minute, time.Minute: 3 * time.Minute, 3 * time.Minute: 4 * time.Minute, 2 * time.Hour: time.Hour,
	} {
		require.Equal(t, want, refersub.DefaultLife(ringing), ringing)
	}
}

func TestTheSumOfAllRefreshesIsBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	var l refersub.Lifetime
	require.False(t, l.Begun())
	require.Equal(t, 10*time.Minute, l.Prolong(now, 10*time.Minute))
	require.True(t, l.Begun())
	require.Equal(t, 10*time.Minute, l.Left(now))
	later := now.Add(50 * time.Minute)
	require.Equal(t, -40*time.Minute, l.Left(later))
	require.Equal(t, 10*time.Minute, l.Prolong(later, time.Hour), "an hour after it began it ends")
	require.Zero(t, l.Prolong(now.Add(2*time.Hour), time.Minute))
	require.Zero(t, l.Prolong(now, -time.Minute))
}

func TestARefreshLeavesTheTimeOfATransaction(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, row := range []struct{ life, want time.Duration }{
		{10 * time.Minute, 10*time.Minute - 32*time.Second},
		{64 * time.Second, 32 * time.Second},
		{20 * time.Second, 10 * time.Second},
		{0, 0},
	} {
		var l refersub.Lifetime
		l.Prolong(now, row.life)
		require.Equal(t, row.want, l.RefreshIn(now, 32*time.Second), row.life)
	}
	var l refersub.Lifetime
	l.Prolong(now, time.Minute)
	require.Zero(t, l.RefreshIn(now.Add(time.Hour), 32*time.Second), "it is late")
}

func TestExpiresOfSUBSCRIBEs(t *testing.T) {
	for _, row := range []struct {
		expires string
		life    time.Duration
		ok      bool
	}{
		{"", 4 * time.Minute, true}, {"60", time.Minute, true}, {"3600", 4 * time.Minute, true}, {"0", 0, true}, {"-1", 0, false}, {"soon", 0, false},
	} {
		life, ok := refersub.Asked(row.expires, 4*time.Minute)
		require.Equal(t, row.ok, ok, row.expires)
		require.Equal(t, row.life, life, row.expires)
	}
	for expires, want := range map[string]time.Duration{"": 4 * time.Minute, "60": time.Minute, "0": 4 * time.Minute, "x": 4 * time.Minute, "7200": time.Hour} {
		require.Equal(t, want, refersub.Granted(expires, 4*time.Minute), expires)
	}
}

// RFC 3515 2.4.7, RFC 6665 4.2.2.
func TestTheStateOfASubscriptionInANOTIFY(t *testing.T) {
	trying, ok := refersub.Progress{Status: 100, Reason: "Trying"}, refersub.Progress{Status: 200, Reason: "OK"}
	for name, row := range map[string]struct {
		notify   refersub.Notify
		left     time.Duration
		progress refersub.Progress
		state    string
		last     bool
	}{
		"progress":        {refersub.Notify{Progress: refersub.Progress{Status: 180}}, time.Minute, refersub.Progress{Status: 180}, "active;expires=60", false},
		"the latest":      {refersub.Notify{}, 1500 * time.Millisecond, trying, "active;expires=1", false},
		"an outcome":      {refersub.Notify{Progress: ok}, time.Minute, ok, "terminated;reason=noresource", true},
		"an end":          {refersub.Notify{State: refersub.Timeout}, time.Minute, trying, "terminated;reason=timeout", true},
		"nothing is left": {refersub.Notify{}, -time.Second, trying, "active;expires=0", false},
	} {
		n := row.notify.Filled(trying, row.left)
		require.Equal(t, row.progress, n.Progress, name)
		require.Equal(t, row.state, n.State, name)
		require.Equal(t, row.last, row.notify.IsLast(), name)
		_, ends := n.Ends()
		require.Equal(t, row.last, ends, name)
	}
	reason, _ := refersub.Notify{State: refersub.Timeout}.Ends()
	require.Equal(t, "timeout", reason)
}

func TestARequestOfASubscriptionNamesItsREFER(t *testing.T) {
	notify := draft.New(sip.NOTIFY, &sip.Uri{Scheme: "sip", Host: "h"})
	refersub.Notify{Progress: refersub.Progress{Status: 180, Reason: "Ringing"}, State: refersub.Timeout}.Write(notify, "2 REFER")
	require.Equal(t, "refer;id=2", notify.Value("Event"))
	require.Equal(t, "terminated;reason=timeout", notify.Value("Subscription-State"))
	require.Equal(t, "message/sipfrag;version=2.0", notify.Value("Content-Type"))
	require.Equal(t, "SIP/2.0 180 Ringing\r\n", string(notify.Body))

	subscribe := draft.New(sip.SUBSCRIBE, &sip.Uri{Scheme: "sip", Host: "h"})
	refersub.WriteSubscribe(subscribe, "2 REFER", time.Minute)
	require.Equal(t, "refer;id=2", subscribe.Value("Event"))
	require.Equal(t, "60", subscribe.Value("Expires"))
	require.Equal(t, "message/sipfrag", subscribe.Value("Accept"))
}

func notify(status int) refersub.Notify {
	return refersub.Notify{Progress: refersub.Progress{Status: status}}
}

func TestOneNOTIFYIsUnansweredAtATime(t *testing.T) {
	var q refersub.Notifier
	begin := func() int { n, _ := q.Begin(); return n.Progress.Status }
	require.Zero(t, begin(), "there is none")
	require.True(t, q.Queue(notify(180)))
	require.True(t, q.Queue(notify(183)))
	n, may := q.Begin()
	require.True(t, may)
	require.Equal(t, 180, n.Progress.Status)
	require.True(t, n.Retry)
	require.Zero(t, begin(), "one is being written")
	number := q.Sent()
	q.Written()
	require.Zero(t, begin(), "the first has no response")
	require.True(t, q.IsLatest(number))
	require.True(t, q.Answered(number))
	require.False(t, q.Answered(number), "once")
	require.Equal(t, 183, begin())
	another := q.Sent()
	require.False(t, q.IsLatest(number))
	require.False(t, q.Answered(number))
	require.True(t, q.Answered(another))
	q.Written()
	require.Zero(t, begin())
}

func TestANOTIFYThatCouldNotBeWrittenLetsTheNextLeave(t *testing.T) {
	var q refersub.Notifier
	q.Queue(notify(180))
	q.Queue(notify(200))
	q.Begin()
	q.Written()
	n, may := q.Begin()
	require.True(t, may)
	require.Equal(t, 200, n.Progress.Status)
}

func TestNothingFollowsTheLastNOTIFY(t *testing.T) {
	for _, last := range []refersub.Notify{notify(486), {State: refersub.NoResource}} {
		var q refersub.Notifier
		q.Queue(notify(180))
		require.False(t, q.IsClosing())
		require.True(t, q.Queue(last))
		require.True(t, q.IsClosing())
		require.False(t, q.Queue(notify(180)))
		require.False(t, q.Queue(notify(200)))
		n, found := q.TakeLast()
		require.True(t, found)
		require.True(t, n.IsLast())
		_, found = q.TakeLast()
		require.False(t, found, "once")
	}
	var q refersub.Notifier
	q.Queue(notify(180))
	_, found := q.TakeLast()
	require.False(t, found, "it is not the last")
}

func TestTheNewestProgressReplacesTheLastOfAFullQueue(t *testing.T) {
	var q refersub.Notifier
	for i := range 100 {
		require.True(t, q.Queue(notify(100+i)))
	}
	require.True(t, q.Queue(notify(486)))
	var got []int
	for n, may := q.Begin(); may; n, may = q.Begin() {
		got = append(got, n.Progress.Status)
		q.Written()
	}
	require.Len(t, got, 32)
	require.Equal(t, []int{100, 101, 102}, got[:3])
	require.Equal(t, []int{130, 486}, got[30:])
}

func TestAnEndedSubscriptionSendsNothingMore(t *testing.T) {
	var q refersub.Notifier
	q.Queue(notify(180))
	q.Drop()
	_, may := q.Begin()
	require.False(t, may)
}

func uri(t *testing.T, text string) (u sip.Uri) {
	t.Helper()
	require.NoError(t, sip.ParseUri(text, &u))
	return u
}

func TestTheINVITEThatAReferToAsksFor(t *testing.T) {
	for referTo, want := range map[string]string{
		"sip:c@example.com": "sip:c@example.com",
		"sips:c@example.com;method=invite;transport=tcp?X=y": "sips:c@example.com;transport=tcp",
		"tel:+15551234":                      "",
		"sip:c@example.com;method=SUBSCRIBE": "",
	} {
		target, err := refersub.Target(uri(t, referTo))
		require.Equal(t, want == "", err != nil, referTo)
		if err == nil {
			require.Equal(t, want, target.String())
		}
	}
}

func TestHeadersThatAReferrerMayAdd(t *testing.T) {
	referTo := sip.Uri{Headers: sip.HeaderParams{
		{K: "Replaces", V: "a%3Bto-tag%3Db"}, {K: "From", V: "x"}, {K: "X-Id", V: "1"}, {K: "Route", V: "x"}, {K: "Contact", V: "x"}, {K: "%53ubject", V: "a%zz"}, {K: "subject", V: "hi"},
	}}
	require.Equal(t, [][2]string{{"Replaces", "a;to-tag=b"}, {"X-Id", "1"}, {"subject", "hi"}}, refersub.Headers(referTo))
}

func TestResponsesReportedToTheReferrer(t *testing.T) {
	var f refersub.Followed
	for _, row := range []struct {
		status int
		news   bool
	}{{100, false}, {180, true}, {180, false}, {183, true}, {180, true}, {200, false}, {486, false}} {
		require.Equal(t, row.news, f.Response(refersub.Progress{Status: row.status}), row.status)
	}
	require.Equal(t, refersub.Progress{Status: 200}, f.Accepted())
	f.Response(refersub.Progress{Status: 202})
	require.Equal(t, 200, f.Accepted().Status, "the first")
	require.Equal(t, refersub.Progress{Status: 200, Reason: "OK"}, new(refersub.Followed).Accepted())
}
