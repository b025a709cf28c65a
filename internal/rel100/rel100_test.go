package rel100

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// RFC 3262 7.1, 7.2.
func TestRAckAndRSeqHeaders(t *testing.T) {
	for value, want := range map[string]RAck{
		"776656 1 INVITE":              {776656, 1, "INVITE"},
		"  1\t2  INVITE ":              {1, 2, "INVITE"},
		"4294967295 4294967295 INVITE": {math.MaxUint32, math.MaxUint32, "INVITE"},
		"1 2 invite":                   {1, 2, "invite"}, // methods are case-sensitive
		"007 1 INVITE":                 {7, 1, "INVITE"},
	} {
		got, ok := ParseRAck(value)
		require.True(t, ok, value)
		require.Equal(t, want, got)
		again, ok := ParseRAck(got.String())
		require.True(t, ok)
		require.Equal(t, got, again)
	}
	for _, value := range []string{"", "1", "1 2", "1 2 INVITE x", "x 2 INVITE", "1 x INVITE", "-1 2 INVITE", "4294967296 1 INVITE", "1 4294967296 INVITE", "1 2.0 INVITE"} {
		got, ok := ParseRAck(value)
		require.False(t, ok, value)
		require.Zero(t, got)
	}
	for value, want := range map[string]uint32{"1": 1, "2147483647": MaxFirstRSeq, "4294967295": math.MaxUint32, "0": 0, "": 0, "x": 0, "-1": 0, "4294967296": 0, "1 2": 0} {
		require.Equal(t, want, ParseRSeq(value), value)
	}
	require.Equal(t, "4294967295", FormatRSeq(math.MaxUint32))
}

// RFC 3262 3: numbers rise by one, and one response is outstanding at a time.
func TestServerOrder(t *testing.T) {
	s := NewServer[string](314, 41)
	require.False(t, s.Started())
	_, _, ok := s.Next()
	require.False(t, ok, "there is none")
	require.Zero(t, s.Awaited())
	for _, response := range []string{"180", "183", "182"} {
		require.True(t, s.Enqueue(response))
	}
	require.False(t, s.Started())
	for i, want := range []string{"180", "183", "182"} {
		response, rseq, ok := s.Next()
		require.True(t, ok)
		require.Equal(t, want, response)
		require.Equal(t, uint32(41+i), rseq)
		require.True(t, s.Started())
		_, _, ok = s.Next()
		require.False(t, ok, "the one before is not acknowledged")
		require.Equal(t, RAck{rseq, 314, "INVITE"}, s.Awaited())
		require.Equal(t, []string{"180", "183", "182"}[i:], slices.Collect(s.Unacknowledged()))
		require.Equal(t, 2-i, s.Queued())
		acknowledged, ok := s.Acknowledge(s.Awaited())
		require.True(t, ok)
		require.Equal(t, want, acknowledged)
	}
	require.Empty(t, slices.Collect(s.Unacknowledged()))
	require.True(t, s.IsIdle())
	require.True(t, s.Enqueue("181"))
	require.False(t, s.IsIdle())
	_, rseq, _ := s.Next()
	require.Equal(t, uint32(44), rseq)
}

// RFC 3262 3: the method, the CSeq number and the response number match, or the PRACK
// gets 481.
func TestPRACKsThatMatch(t *testing.T) {
	for name, row := range map[string]struct {
		ack     RAck
		matches bool
	}{
		"all match":             {RAck{7, 314, "INVITE"}, true},
		"of the response after": {RAck{8, 314, "INVITE"}, false},
		"of a response before":  {RAck{6, 314, "INVITE"}, false},
		"of another INVITE":     {RAck{7, 315, "INVITE"}, false},
		"of another method":     {RAck{7, 314, "SUBSCRIBE"}, false},
		"in other letters":      {RAck{7, 314, "invite"}, false},
		"of nothing":            {RAck{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewServer[int](314, 7)
			_, ok := s.Acknowledge(row.ack)
			require.False(t, ok, "nothing was sent")
			s.Enqueue(1)
			s.Enqueue(2)
			_, ok = s.Acknowledge(row.ack)
			require.False(t, ok, "nothing was sent")
			s.Next()
			response, ok := s.Acknowledge(row.ack)
			require.Equal(t, row.matches, ok)
			require.Equal(t, row.matches, response == 1)
			_, ok = s.Acknowledge(row.ack)
			require.False(t, ok, "a second time")
			_, waits := s.Outstanding()
			require.Equal(t, !row.matches, waits)
		})
	}
}

// RFC 3262 3: no new response follows the final response, but the PRACK to the
// outstanding one still matches.
func TestServerOfAnINVITEThatIsAnswered(t *testing.T) {
	s := NewServer[string](1, MaxFirstRSeq)
	s.Enqueue("180")
	s.Enqueue("183")
	s.Next()
	s.Close()
	require.False(t, s.Enqueue("182"))
	require.Equal(t, []string{"180"}, slices.Collect(s.Unacknowledged()))
	response, ok := s.Acknowledge(RAck{MaxFirstRSeq, 1, "INVITE"})
	require.True(t, ok)
	require.Equal(t, "180", response)
	_, _, ok = s.Next()
	require.False(t, ok)
}

func TestServerIsBounded(t *testing.T) {
	s := NewServer[int](1, 1)
	s.Enqueue(0)
	s.Next()
	for i := range MaxQueued {
		require.True(t, s.Enqueue(i))
	}
	require.False(t, s.Enqueue(99))
	require.Equal(t, MaxQueued, s.Queued())
	for range s.Unacknowledged() {
		break
	}
}

func TestNoServer(t *testing.T) {
	var s *Server[int]
	_, acknowledged := s.Acknowledge(RAck{})
	_, waits := s.Outstanding()
	require.False(t, acknowledged || waits || s.Started())
	require.Zero(t, s.Awaited())
	require.Empty(t, slices.Collect(s.Unacknowledged()))
	s.Close()
}

// RFC 3262 3: T1, doubling without a cap, until 64*T1.
func TestScheduleOfRetransmissions(t *testing.T) {
	const t1 = 500 * time.Millisecond
	now := time.Unix(1000, 0)
	s := NewSchedule(now, t1)
	var waits []time.Duration
	for wait, ok := t1, true; ok; wait, ok = s.Next(now) {
		waits = append(waits, wait)
		now = now.Add(wait)
	}
	require.Equal(t, []time.Duration{t1, 2 * t1, 4 * t1, 8 * t1, 16 * t1, 32 * t1, t1}, waits)
	require.Equal(t, time.Unix(1032, 0), now)
}

// RFC 3262 4: the first response begins the numbers, the next is one higher, and all
// others are ignored. Each row is a script of RSeqs, and the handling of each.
func TestClientOrder(t *testing.T) {
	words := map[Order]string{InOrder: "taken", Repeated: "repeated", OutOfOrder: "ignored", TooMany: "too many"}
	for name, row := range map[string]struct {
		rseqs []uint32
		want  string
	}{
		"in order":                           {[]uint32{1, 2, 3}, "taken taken taken"},
		"the first may be any":               {[]uint32{776656, 776657}, "taken taken"},
		"retransmission of the first":        {[]uint32{5, 5, 5, 6}, "taken repeated repeated taken"},
		"retransmission of an older one":     {[]uint32{5, 6, 5, 7}, "taken taken ignored taken"},
		"a gap":                              {[]uint32{5, 7, 7}, "taken ignored ignored"},
		"a gap that closes":                  {[]uint32{5, 7, 6, 7}, "taken ignored taken taken"},
		"lower than the first":               {[]uint32{5, 4, 6}, "taken ignored taken"},
		"the first was lost":                 {[]uint32{6, 5, 6, 7}, "taken ignored repeated taken"}, // RFC 3262 3: why there is one outstanding
		"far away":                           {[]uint32{5, math.MaxUint32, 1}, "taken ignored ignored"},
		"numbers that wrap around":           {[]uint32{math.MaxUint32, 0, 1}, "taken ignored ignored"},
		"the highest of all, and once again": {[]uint32{math.MaxUint32 - 1, math.MaxUint32, math.MaxUint32}, "taken taken repeated"},
	} {
		t.Run(name, func(t *testing.T) {
			var c Client[uint32]
			require.False(t, c.Started())
			var got []string
			for _, rseq := range row.rseqs {
				order := c.Check(rseq)
				require.Equal(t, order, c.Check(rseq), "it changes nothing")
				if order == InOrder {
					c.Take(rseq)
				}
				got = append(got, words[order])
			}
			require.Equal(t, row.want, strings.Join(got, " "))
			require.True(t, c.Started())
		})
	}
}

// One PRACK is in progress at a time, and those that wait are bounded.
func TestPRACKsWaitForEachOther(t *testing.T) {
	var c Client[uint32]
	for rseq := range uint32(MaxQueued) {
		require.Equal(t, InOrder, c.Check(rseq+1))
		c.Take(rseq + 1)
		require.Equal(t, rseq == 0, c.Enqueue(rseq+1))
	}
	require.Equal(t, TooMany, c.Check(MaxQueued+1))
	require.Equal(t, Repeated, c.Check(MaxQueued))
	next, ok := c.Done()
	require.True(t, ok)
	require.Equal(t, uint32(2), next)
	require.Equal(t, InOrder, c.Check(MaxQueued+1))
	for range MaxQueued - 2 {
		_, ok = c.Done()
		require.True(t, ok)
	}
	_, ok = c.Done()
	require.False(t, ok)
	_, ok = c.Done()
	require.False(t, ok, "there was none under way")
	require.True(t, c.Enqueue(17))
	c.Drop()
	require.True(t, c.Enqueue(18))
}

// RFC 3262 4: a repeated response gets no second PRACK, unless the first has failed.
func TestPRACKsThatFailedAreSentAgain(t *testing.T) {
	var c Client[string]
	c.Take(5)
	_, ok := c.Resend(5)
	require.False(t, ok, "it has not failed")
	require.True(t, c.Fail(5, "to 5"))
	for _, rseq := range []uint32{4, 6, 0} {
		_, ok = c.Resend(rseq)
		require.False(t, ok, "another response")
	}
	prack, ok := c.Resend(5)
	require.True(t, ok)
	require.Equal(t, "to 5", prack)
	_, ok = c.Resend(5)
	require.False(t, ok, "it is under way again")
	require.True(t, c.Fail(5, "to 5"))
	c.Take(6)
	_, ok = c.Resend(6)
	require.False(t, ok, "its own has not failed")
	require.False(t, c.Fail(5, "to 5 again"), "a later response was taken")
	prack, ok = c.Resend(5)
	require.True(t, ok, "it failed before the later response was taken")
	require.Equal(t, "to 5", prack)
}

// RFC 5057 5.1, RFC 3261 12.2.2, RFC 6337 2.3.
func TestOutcomesOfAPRACK(t *testing.T) {
	for status, want := range map[int]Outcome{
		200: Accepted, 202: Accepted,
		400: Failed, 401: Failed, 488: Failed, 491: Failed, 500: Failed, 503: Failed, 603: Failed,
		408: Refused, 481: Refused, 404: Refused, 410: Refused, 482: Refused, 604: Refused,
	} {
		require.Equal(t, want, OutcomeOf(status), status)
	}
}

// The next PRACK begins whatever the outcome of the one before; only one that failed, to the
// latest response, is sent again.
func TestTheEndOfAPRACK(t *testing.T) {
	for name, row := range map[string]struct {
		outcome      Outcome
		later        bool // a later response was accepted
		kept, resent bool
	}{
		"accepted":                         {Accepted, false, false, false},
		"failed":                           {Failed, false, true, true},
		"failed, of an earlier response":   {Failed, true, false, false},
		"refused: it is not sent again":    {Refused, false, false, false},
		"accepted, of an earlier response": {Accepted, true, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			var c Client[string]
			c.Take(5)
			require.True(t, c.Enqueue("to 5"))
			if row.later {
				c.Take(6)
				require.False(t, c.Enqueue("to 6"))
			}
			next, ok, kept := c.End("to 5", 5, row.outcome)
			require.Equal(t, row.later, ok)
			require.Equal(t, row.later, next == "to 6")
			require.Equal(t, row.kept, kept)
			_, resent := c.Resend(5)
			require.Equal(t, row.resent, resent)
		})
	}
}
