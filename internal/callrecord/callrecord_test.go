package callrecord

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/dialogstate"
)

func TestATimeIsReadByItsDistanceFromNow(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, away := range []time.Duration{0, time.Second, -time.Hour, 300 * 24 * time.Hour} {
		require.Equal(t, now.Add(away), ClockTime(now, WallClock(now, now.Add(away))))
	}
	require.Equal(t, now.Add(maxAway*time.Millisecond), ClockTime(now, 1<<62))
	require.Equal(t, now.Add(-maxAway*time.Millisecond), ClockTime(now, -1<<62))
}

func TestEachTakerHasABlockOfCSeqNumbers(t *testing.T) {
	for _, row := range []struct {
		fence, saved uint64
		skipped      uint32
	}{{1, 0, 0}, {2, 1, 0}, {3, 1, SeqBlock}, {7, 1, 5 * SeqBlock}, {1, 3, 0}, {1 << 60, 1, maxTakers * SeqBlock}} {
		require.Equal(t, row.skipped, SkippedSeqs(row.fence, row.saved))
	}
	require.Equal(t, uint32(5+SeqBlock), SeqTop(5))
	require.Equal(t, uint32(maxSeq), SeqTop(maxSeq))
}

func TestAPartyIsReadAsItIsWritten(t *testing.T) {
	for _, row := range []struct {
		name, uri string
		ok        bool
	}{
		{"", "sip:a@h", true}, {"Alice", "sip:a@h;user=phone", true}, {`a \"b\"`, "tel:+1", true},
		{"a\r\nb", "sip:a@h", false}, {`a" <x>`, "sip:a@h", false}, {"", "sip:a@h>", false}, {"", "*", false}, {"", "a b", false}, {"", "", false},
	} {
		p, err := Party("local", row.name, row.uri)
		require.Equal(t, row.ok, err == nil, "%q %q: %v", row.name, row.uri, err)
		if row.ok {
			name, uri := Texts(p)
			require.Equal(t, row.name, name)
			require.Equal(t, row.uri, uri)
		}
	}
}

func TestRecordsThatWouldBreakAMessageAreRefused(t *testing.T) {
	require.NoError(t, CheckKey("a<b>@h", "1", ""))
	for _, key := range [][3]string{{"", "1", "2"}, {"a b", "1", "2"}, {"a\r\nb", "1", "2"}, {"a", "", "2"}, {"a", "1;x=y", "2"}, {"a", "1", "2 3"}} {
		require.Error(t, CheckKey(key[0], key[1], key[2]), "%q", key)
	}

	v, err := State(dialogstate.View{LocalTag: "1", LocalSeq: 5}, "sip:b@h", []string{"sip:p;lr"})
	require.NoError(t, err)
	require.Equal(t, "p", v.RouteSet[0].Host)
	for _, row := range []struct {
		seq    uint32
		target string
		routes []string
	}{
		{maxSeq + 1, "sip:b@h", nil}, {1, "", nil}, {1, "sip:b@h>", nil}, {1, "tel:+1", nil},
		{1, "sip:b@h", []string{"sip:"}}, {1, "sip:b@h", make([]string, maxRoutes+1)},
	} {
		_, err := State(dialogstate.View{LocalSeq: row.seq}, row.target, row.routes)
		require.Error(t, err, "%v", row)
	}

	contact, err := Contact("")
	require.NoError(t, err)
	require.Nil(t, contact)
	_, err = Contact("<sip:a@h>;+x=\"y\"")
	require.NoError(t, err)
	for _, value := range []string{"*", "<sip:a@h>, <sip:b@h>", "<sip:a@h>\r\nX: y", "<sip:"} {
		_, err = Contact(value)
		require.Error(t, err, value)
	}

	peer := netip.MustParseAddrPort("192.0.2.1:5060")
	require.NoError(t, CheckFlow("", netip.AddrPort{}, ""))
	require.NoError(t, CheckFlow("tcp", peer, "h"))
	require.Error(t, CheckFlow("SCTP", peer, ""))
	require.Error(t, CheckFlow("UDP", netip.AddrPort{}, ""))
	require.Error(t, CheckFlow("UDP", netip.AddrPortFrom(peer.Addr(), 0), ""))
	require.Error(t, CheckFlow("TLS", peer, "h\r\nX"))

	require.NoError(t, CheckSession("application/sdp", nil, make([]byte, maxSession)))
	require.Error(t, CheckSession("", make([]byte, maxSession+1)))
	require.Error(t, CheckSession("a\r\nb"))
}

func TestASessionTimerIsRead(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	v, err := Timer(now, 1800, 90, WallClock(now, now.Add(time.Minute)), true)
	require.NoError(t, err)
	require.Equal(t, now.Add(time.Minute), v.Expires)
	require.True(t, v.Refreshes && v.Interval == 30*time.Minute && v.MinSE == 90*time.Second)
	v, err = Timer(now, 0, 90, 5, false)
	require.NoError(t, err)
	require.Zero(t, v.Expires)
	for _, row := range [][2]int64{{-1, 0}, {0, -1}, {maxInterval + 1, 0}, {0, maxInterval + 1}} {
		_, err = Timer(now, row[0], row[1], 0, false)
		require.Error(t, err)
	}
	require.True(t, strings.Contains(err.Error(), "Min-SE"))
}
