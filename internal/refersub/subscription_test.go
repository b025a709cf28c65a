package refersub_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/refersub"
)

const transaction = 32 * time.Second

var start = time.Unix(1e9, 0)

// after returns a time after the start of a test.
func after(wait time.Duration) time.Time { return start.Add(wait) }

// active is a subscription that has begun for a minute.
func active(sent bool) *refersub.Subscription {
	s := &refersub.Subscription{Sent: sent}
	s.Prolong(start, time.Minute)
	return s
}

// RFC 3515 2.4.5: the first final status is the outcome.
func TestTheFirstFinalStatusIsTheOutcome(t *testing.T) {
	s := new(refersub.Subscription)
	for _, row := range []struct {
		status int
		isNews bool
		latest int
	}{{100, true, 100}, {100, false, 100}, {180, true, 180}, {100, true, 100}, {486, true, 486}, {200, false, 486}, {180, false, 486}} {
		require.Equal(t, row.isNews, s.Report(refersub.Progress{Status: row.status}), row.status)
		require.Equal(t, row.latest, s.Progress().Status)
		require.Equal(t, row.latest >= 200, s.IsDecided())
	}
	s.Fail(errors.New("too late"))
	require.NoError(t, s.Failure(), "there is an outcome")
}

func TestThereIsNoOutcomeAfterAFailure(t *testing.T) {
	first, s := errors.New("first"), new(refersub.Subscription)
	s.Report(refersub.Progress{Status: 180})
	s.Fail(first)
	s.Fail(errors.New("second"))
	require.True(t, s.IsDecided())
	require.Equal(t, first, s.Failure())
	require.False(t, s.Report(refersub.Progress{Status: 200}))
	require.Equal(t, 180, s.Progress().Status)
}

func TestASubscriptionEndsOnce(t *testing.T) {
	s := active(true)
	require.False(t, s.IsOver())
	require.True(t, s.End())
	require.False(t, s.End())
	require.True(t, s.IsOver())
}

func TestTheTimeThatIsLeft(t *testing.T) {
	s := new(refersub.Subscription)
	require.False(t, s.HasBegun())
	require.Equal(t, time.Hour, s.Left(start, time.Hour), "not begun")
	s.Prolong(start, time.Minute)
	require.True(t, s.HasBegun())
	require.Equal(t, 40*time.Second, s.Left(after(20*time.Second), time.Hour))
}

// RFC 6665 4.1.3: a NOTIFY prolongs, or ends; and some peers end in every NOTIFY.
func TestNOTIFYProlongsOrEndsASubscription(t *testing.T) {
	const frag = "message/sipfrag"
	for name, row := range map[string]struct {
		state, body string
		isNews      bool
		effect      refersub.Effect
		left        time.Duration
		expiry      refersub.Expiry
	}{
		"goes on as before":     {"active", "SIP/2.0 180 Ringing", true, refersub.Continues, time.Hour, refersub.TimedOut},
		"is prolonged":          {"active;expires=90", "SIP/2.0 100 Trying", true, refersub.Continues, 90 * time.Second, refersub.TimedOut},
		"without a body":        {"active;expires=90", "", false, refersub.Continues, 90 * time.Second, refersub.TimedOut},
		"lingers":               {"terminated", "SIP/2.0 180 Ringing", true, refersub.Lingers, transaction, refersub.WithoutOutcome},
		"ends with its outcome": {"terminated;reason=noresource", "SIP/2.0 200 OK", true, refersub.Ends, time.Minute, refersub.TimedOut},
		"ends without outcome":  {"terminated;reason=giveup", "SIP/2.0 180 Ringing", true, refersub.Ends, time.Minute, refersub.TimedOut},
	} {
		s := active(true)
		isNews, effect := s.Receive(start, refersub.Read(row.state, frag, []byte(row.body)), time.Hour, transaction)
		require.Equal(t, row.isNews, isNews, name)
		require.Equal(t, row.effect, effect, name)
		require.Equal(t, row.left, s.Left(start, 0), name)
		expiry, _ := s.Expire(after(row.left), transaction)
		require.Equal(t, row.expiry, expiry, name)
	}
}

// A peer that ended the subscription, and goes on, has not ended it.
func TestAPeerThatGoesOnHasNotEnded(t *testing.T) {
	s := active(true)
	s.Receive(start, refersub.Read("terminated", "", []byte("SIP/2.0 180 Ringing")), time.Hour, transaction)
	s.Receive(start, refersub.Read("active", "", nil), time.Minute, transaction)
	expiry, _ := s.Expire(after(time.Hour), transaction)
	require.Equal(t, refersub.TimedOut, expiry)
}

func TestExpiryOfASubscription(t *testing.T) {
	for name, row := range map[string]struct {
		sent, followed, over bool
		at                   time.Duration
		expiry               refersub.Expiry
		again                time.Duration
	}{
		"ours":                     {true, false, false, time.Minute, refersub.TimedOut, 0},
		"the peer's":               {false, false, false, time.Minute, refersub.TimedOutOfPeer, 0},
		"prolonged meanwhile":      {true, false, false, 50 * time.Second, refersub.NotYet, 10 * time.Second},
		"ended meanwhile":          {true, false, true, time.Minute, refersub.Never, 0},
		"its call is being placed": {false, true, false, time.Minute, refersub.NotYet, transaction},
		"its call takes too long":  {false, true, false, time.Minute + transaction, refersub.TimedOutOfPeer, 0},
	} {
		s := active(row.sent)
		if row.followed {
			s.Follow()
		}
		if row.over {
			s.End()
		}
		expiry, again := s.Expire(after(row.at), transaction)
		require.Equal(t, row.expiry, expiry, name)
		require.Equal(t, row.again, again, name)
		require.Equal(t, row.followed, s.IsFollowed(), name)
	}
}

// A subscription is refreshed while the application waits for an outcome that may come.
func TestWhenASubscriptionIsRefreshed(t *testing.T) {
	for name, row := range map[string]struct {
		sent    bool
		change  func(*refersub.Subscription)
		isDue   bool
		mayMake bool
	}{
		"somebody waits":     {true, func(s *refersub.Subscription) { s.Wait() }, true, true},
		"nobody waits":       {true, func(*refersub.Subscription) {}, false, false},
		"nobody waits now":   {true, func(s *refersub.Subscription) { s.Wait(); s.Waited() }, false, false},
		"one of two waits":   {true, func(s *refersub.Subscription) { s.Wait(); s.Wait(); s.Waited() }, true, true},
		"the peer's":         {false, func(s *refersub.Subscription) { s.Wait() }, false, false},
		"it has its outcome": {true, func(s *refersub.Subscription) { s.Wait(); s.Report(refersub.Progress{Status: 200}) }, false, false},
		"it failed":          {true, func(s *refersub.Subscription) { s.Wait(); s.Fail(errors.New("closed")) }, false, false},
		"it lingers": {true, func(s *refersub.Subscription) {
			s.Wait()
			s.Receive(start, refersub.Read("terminated", "", []byte("SIP/2.0 180 Ringing")), 0, transaction)
		}, false, false},
		"it has ended": {true, func(s *refersub.Subscription) { s.Wait(); s.End() }, false, true},
	} {
		s := active(row.sent)
		row.change(s)
		wait, isDue := s.RefreshIn(start, transaction)
		require.Equal(t, row.isDue, isDue, name)
		if isDue {
			require.Equal(t, 30*time.Second, wait, name)
		}
		require.Equal(t, row.mayMake, s.BeginRefresh(), name)
	}
	waiting := &refersub.Subscription{Sent: true}
	waiting.Wait()
	_, isDue := waiting.RefreshIn(start, transaction)
	require.False(t, isDue, "it has not begun")
}

func TestOneRefreshIsUnderWayAtATime(t *testing.T) {
	s := active(true)
	s.Wait()
	require.True(t, s.BeginRefresh())
	require.False(t, s.BeginRefresh())
	s.EndRefresh()
	require.True(t, s.BeginRefresh())
}

// RFC 3515 2.4.6: a NOTIFY names its REFER, or belongs to the first.
func TestTheREFERThatAnEventNames(t *testing.T) {
	isFirst := func(name string) bool { return name == "first" }
	two := map[string]string{"1 REFER": "first", "2 REFER": "second"}
	for event, want := range map[string]string{"refer": "first", "refer;id=1": "first", "refer;id=2": "second", "refer;id=3": ""} {
		require.Equal(t, want, refersub.Named(two, event, isFirst), event)
	}
	require.Equal(t, "second", refersub.Named(map[string]string{"2 REFER": "second"}, "refer", isFirst), "the only one")
	require.Empty(t, refersub.Named(map[string]string{"2 REFER": "second", "3 REFER": "third"}, "refer", isFirst), "the first has ended")
}

func TestREFERsAreWaitedForInTheirOrder(t *testing.T) {
	var q refersub.Queue[string]
	next := func() string { r, _ := q.Next(); return r }
	q.Push("a")
	q.Push("b")
	q.Push("c")
	require.Equal(t, "a", next())
	require.Equal(t, "b", next())
	q.PutBack("a")
	require.Equal(t, "a", next(), "nobody waits for it any more")
	q.Drop("b")
	q.PutBack("b")
	require.Equal(t, "c", next())
	_, found := q.Next()
	require.False(t, found)
}

func TestREFERsWithoutAWaiterAreBounded(t *testing.T) {
	var q refersub.Queue[int]
	for i := range 1001 {
		q.Push(i)
	}
	first, found := q.Next()
	require.True(t, found)
	require.Equal(t, 1, first)
}

func TestAREFERIsFollowedOnce(t *testing.T) {
	var f refersub.Followable[string]
	f.Add("a", 2)
	f.Add("b", 2)
	oldest, dropped := f.Add("c", 2)
	require.True(t, dropped)
	require.Equal(t, "a", oldest)
	before := f.All()
	require.False(t, f.Take("a"))
	require.True(t, f.Take("b"))
	require.False(t, f.Take("b"))
	require.False(t, f.Has("b"))
	require.True(t, f.Has("c"))
	require.Equal(t, []string{"b", "c"}, before, "a list that was returned stays")
	_, dropped = f.Add("d", 2)
	require.False(t, dropped)
	require.Equal(t, []string{"c", "d"}, f.All())
}
