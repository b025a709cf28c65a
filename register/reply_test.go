package register

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/sipmsg"
)

// register is a REGISTER with these lines, as it was sent.
func sentWith(t testing.TB, lines ...string) *sip.Request {
	msg, err := sip.ParseMessage([]byte("REGISTER sip:x SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:a@x>\r\n" +
		"Call-ID: 1\r\nCSeq: 1 REGISTER\r\n" + strings.Join(lines, "\r\n") + "\r\nContent-Length: 0\r\n\r\n"))
	require.NoError(t, err)
	return msg.(*sip.Request)
}

// answered is a 200 as this module reads it from the network.
func answered(via string, lines ...string) *sip.Response {
	text := "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK1" + via + "\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:a@x>;tag=2\r\nCall-ID: 1\r\nCSeq: 1 REGISTER\r\n"
	for _, line := range lines {
		text += line + "\r\n"
	}
	text += "Content-Length: 0\r\n\r\n"
	return sipmsg.Decode([]byte(text), len(text)).Response()
}

// RFC 3261 10.2.4: the expiry of our own Contact counts, by the comparison of 19.1.4.
func TestTheGrantOfOurContactCounts(t *testing.T) {
	const ours = "Contact: <sip:alice@10.0.0.1:5060;transport=tcp>"
	for name, c := range map[string]struct {
		ours, via string
		lines     []string
		want      time.Duration
	}{
		"parameter":                      {ours, "", []string{ours + ";expires=60"}, time.Minute},
		"among several in one line":      {ours, "", []string{"Contact: <sip:b@10.0.0.2>;expires=1, <sip:alice@10.0.0.1:5060;transport=tcp>;q=0.5;expires=60, <sip:c@10.0.0.3>;expires=2"}, time.Minute},
		"among several lines":            {ours, "", []string{"m: <sip:b@10.0.0.2>;expires=1", "M: <sip:alice@10.0.0.1:5060;transport=tcp>;EXPIRES=60"}, time.Minute},
		"parameter before header":        {ours, "", []string{ours + ";expires=60", "Expires: 5"}, time.Minute},
		"header":                         {ours, "", []string{ours, "Expires: 60"}, time.Minute},
		"header when unreadable":         {ours, "", []string{ours + ";expires=soon", "Expires: 60"}, time.Minute},
		"as asked":                       {ours, "", []string{ours}, time.Hour},
		"quoted name with a comma":       {ours, "", []string{`Contact: "A, <sip:z@z>;expires=9" <sip:alice@10.0.0.1:5060;transport=tcp>;expires=60`}, time.Minute},
		"other case":                     {ours, "", []string{"Contact: <SIP:alice@10.0.0.1:5060;Transport=TCP>;expires=60"}, time.Minute},
		"escaped":                        {ours, "", []string{"Contact: <sip:%61lice@10.0.0.1:5060;transport=tcp>;expires=60"}, time.Minute},
		"another parameter of the URI":   {ours, "", []string{"Contact: <sip:alice@10.0.0.1:5060;transport=tcp;x=y>;expires=60"}, time.Minute},
		"user in another case":           {ours, "", []string{"Contact: <sip:Alice@10.0.0.1:5060;transport=tcp>;expires=60"}, 0},
		"without the transport":          {ours, "", []string{"Contact: <sip:alice@10.0.0.1:5060>;expires=60"}, 0},
		"without the port":               {"Contact: <sip:alice@10.0.0.1>", "", []string{"Contact: <sip:alice@10.0.0.1:5060>;expires=60"}, 0},
		"another port":                   {ours, "", []string{"Contact: <sip:alice@10.0.0.1:5061;transport=tcp>;expires=60"}, 0},
		"sips is another":                {ours, "", []string{"Contact: <sips:alice@10.0.0.1:5060;transport=tcp>;expires=60"}, 0},
		"none":                           {ours, "", nil, 0},
		"zero":                           {ours, "", []string{ours + ";expires=0"}, 0},
		"zero by header":                 {ours, "", []string{ours, "Expires: 0"}, 0},
		"a star":                         {ours, "", []string{"Contact: *", "Expires: 60"}, 0},
		"unreadable beside":              {ours, "", []string{"Contact: <<>>", ours + ";expires=60"}, time.Minute},
		"the longest":                    {ours, "", []string{ours + ";expires=4294967295"}, longestExpires},
		"too long":                       {ours, "", []string{ours + ";expires=4294967296", "Expires: 60"}, time.Minute},
		"as the registrar sees us":       {ours, ";received=203.0.113.1;rport=4711", []string{"Contact: <sip:alice@203.0.113.1:4711;transport=tcp>;expires=60"}, time.Minute},
		"that is of another user":        {ours, ";received=203.0.113.1;rport=4711", []string{"Contact: <sip:bob@203.0.113.1:4711>;expires=60"}, 0},
		"that is behind our NAT":         {ours, ";received=203.0.113.1;rport=4711", []string{"Contact: <sip:alice@203.0.113.1:4712>;expires=60"}, 0},
		"another, when we are not seen":  {ours, ";rport", []string{"Contact: <sip:alice@203.0.113.1>;expires=60"}, 0},
		"instance and reg-id":            {ours + `;+sip.instance="<urn:uuid:A>";reg-id=1`, "", []string{`Contact: <sip:alice@192.0.2.1>;+sip.instance="<urn:uuid:a>";reg-id=1;expires=60`}, time.Minute},
		"another reg-id":                 {ours + `;+sip.instance="<urn:uuid:A>";reg-id=1`, "", []string{`Contact: <sip:alice@192.0.2.1>;+sip.instance="<urn:uuid:A>";reg-id=2;expires=60`}, 0},
		"another instance":               {ours + `;+sip.instance="<urn:uuid:A>";reg-id=1`, "", []string{`Contact: <sip:alice@192.0.2.1>;+sip.instance="<urn:uuid:B>";reg-id=1;expires=60`}, 0},
		"neither instance where we have": {ours, "", []string{"Contact: <sip:alice@192.0.2.1>;expires=60"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := readReply(answered(c.via, c.lines...), sentWith(t, c.ours, "Expires: 3600"))
			require.Equal(t, c.want, r.expires)
			require.Equal(t, c.want > 0, len(r.bound) == 1)
		})
	}
}

func TestFurtherHeadersOfARegistrar(t *testing.T) {
	r := readReply(answered("", `Contact: <sip:a@10.0.0.1>;expires=60;pub-gruu="sip:a@x;gr=urn:uuid:1";temp-gruu="sip:t@x;gr"`,
		"Service-Route: <sip:s1;lr>, <sip:s2;lr>", "Path: <sip:p;lr>", "Require: gruu, outbound", "Flow-Timer: 120"), sentWith(t, "Contact: <sip:a@10.0.0.1>"))
	require.Equal(t, "sip:a@x;gr=urn:uuid:1", r.public.String())
	require.Equal(t, "t", r.temporary.User)
	require.Len(t, r.serviceRoute, 2)
	require.Len(t, r.path, 1)
	require.True(t, r.outbound)
	require.Equal(t, 2*time.Minute, r.flowTimer)
	require.Empty(t, r.stale(r.bound))
	old := sip.Uri{Scheme: "sip", User: "a", Host: "10.0.0.9"}
	require.Empty(t, r.stale([]sip.Uri{old}), "it is not bound any more")
	r.listed = append(r.listed, old)
	require.Equal(t, []sip.Uri{old}, r.stale([]sip.Uri{old}))
}

func TestBackOffIsThatOfRFC5626(t *testing.T) {
	for failures, w := range map[int]time.Duration{1: time.Minute, 2: 2 * time.Minute, 3: 4 * time.Minute, 6: 30 * time.Minute, 1 << 40: 30 * time.Minute} {
		least, most := time.Hour, time.Duration(0)
		for range 2000 {
			wait := backOff(failures, 30*time.Second, 30*time.Minute)
			least, most = min(least, wait), max(most, wait)
		}
		require.GreaterOrEqual(t, least, w/2)
		require.LessOrEqual(t, most, w)
		require.Less(t, least, w*6/10, "uniform")
		require.Greater(t, most, w*9/10, "uniform")
	}
}

func TestARefreshLeavesTimeForAnother(t *testing.T) {
	for _, granted := range []time.Duration{0, 1, time.Second, time.Minute, 20 * time.Minute, time.Hour, longestExpires} {
		for range 100 {
			wait := refreshIn(granted)
			require.GreaterOrEqual(t, wait, granted*9/20-1)
			require.LessOrEqual(t, wait, max(granted/2, granted-10*time.Minute))
		}
	}
}

// Any response of a registrar gives usable values.
// A timer that is set again while it fires fires twice; and it may have fired when Close
// stops it.
func TestATimerRegistersOnce(t *testing.T) {
	f := newFlow(&Registration{}, 0, nil)
	require.True(t, f.begin())
	require.False(t, f.begin(), "one is under way")
	closing := newFlow(&Registration{closing: true}, 0, nil)
	require.False(t, closing.begin(), "Close takes the registration back")
}

func FuzzReply(f *testing.F) {
	f.Add("Contact: <sip:alice@10.0.0.1>;expires=60\r\nService-Route: <sip:s;lr>", ";received=1.2.3.4;rport=1")
	f.Add("m: *\r\nExpires: -1", ";rport=99999")
	f.Add(`Contact: <sip:x>;+sip.instance="<urn:uuid:A>";reg-id=1;pub-gruu="sip:a@b;gr"`, "")
	sent := sentWith(f, `Contact: <sip:alice@10.0.0.1>;+sip.instance="<urn:uuid:A>";reg-id=1`, "Expires: 3600")
	f.Fuzz(func(t *testing.T, lines, via string) {
		if strings.Contains(lines+via, "\r\n\r\n") || strings.ContainsAny(via, "\r\n") {
			return
		}
		res := answered(via, strings.Split(lines, "\r\n")...)
		r := readReply(res, sent)
		require.Equal(t, len(r.bound) > 0, r.expires > 0)
		require.LessOrEqual(t, r.expires, longestExpires)
		require.LessOrEqual(t, len(r.bound), 1)
		require.LessOrEqual(t, refreshIn(r.expires), longestExpires)
		for _, uri := range append(targetURIs(res), r.serviceRoute...) {
			_ = uri.String()
		}
		require.GreaterOrEqual(t, retryAfter(res), time.Duration(0))
		_ = fmt.Sprint(refusal(res))
	})
}

func targetURIs(res *sip.Response) (uris []sip.Uri) {
	for _, c := range targets(res) {
		uris = append(uris, c.URI)
	}
	return uris
}
