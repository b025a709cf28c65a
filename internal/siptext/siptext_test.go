package siptext

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSplitKeepsQuotedStrings(t *testing.T) {
	require.Equal(t, []string{`"a,\"b" <sip:x,y@z>;p="c,d"`, "<sip:e>"}, Split(`"a,\"b" <sip:x,y@z>;p="c,d" , <sip:e>`, ','))
	require.Equal(t, []string{"a", "", "b"}, Split("a,,b", ','))
}

func TestSame(t *testing.T) {
	cases := []struct {
		asked, answered string
		same            bool
	}{
		{"a b", "a b", true},
		{"a  b", "a b", false},
		{"a \r\n b", "a b", true},
		{"a \r\n \r\n\tb", "a  b", true},
		{"a\r\n b", "a\r\n\tb", true},
		{"a\r\n b", "ab", false},
		{"a\r\n b", "a bc", false},
	}
	for _, c := range cases {
		require.Equal(t, c.same, Same(c.asked, c.answered), "%q %q", c.asked, c.answered)
	}
}

const request = "INVITE sip:b@h SIP/2.0\r\nv: SIP/2.0/UDP 10.0.0.9;rport;x=\"a,b\" ,SIP/2.0/UDP h2;branch=Z\r\nVIA : SIP/2.0/UDP h3\r\n" +
	"f: \"a\r\n b\" <sip:a@h>;x=\";tag=evil\";tag=good\r\nTo: sip:b@h\r\nCall-ID: \"<x\r\nCSeq: 007  INVITE\r\n" +
	"Record-Route: <sip:1;lr>;a=b, \"q\\\"\" <sip:2,3;lr>\r\nRecord-Route:<sip:4>\r\nContent-Length:3\r\n\r\nabcdef"

func TestReadAndRepeats(t *testing.T) {
	asked, rest, err := Read([]byte(request))
	require.NoError(t, err)
	require.Equal(t, "def", string(rest))
	require.Equal(t, "INVITE", asked.Method())
	tag, ok := Param(asked.Value("from"), "Tag")
	require.True(t, ok)
	require.Equal(t, "good", tag)
	require.Equal(t, "sip:a@h", URI(asked.Value("from")))
	require.Equal(t, "sip:b@h", URI(asked.Value("to")))

	source := netip.MustParseAddrPort("10.0.0.9:5071")
	good := "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 10.0.0.9;x=\"a,b\";received=10.0.0.9;rport=5071\r\nv:SIP/2.0/UDP h2;branch=Z\r\nVia:SIP/2.0/UDP h3\r\n" +
		"From: \"a b\" <sip:a@h>;x=\";tag=evil\";tag=good\r\nTo: sip:b@h;tag=1\r\nCall-ID: \"<x\r\nCSeq: 007  INVITE\r\n" +
		"Record-Route: <sip:1;lr>;a=b\r\nRecord-Route: \"q\\\"\" <sip:2,3;lr>,<sip:4>\r\nContent-Length: 0\r\n\r\n"
	check := func(text string) error {
		answered, _, err := Read([]byte(text))
		require.NoError(t, err)
		return Repeats(asked, answered, source)
	}
	require.NoError(t, check(good))
	for before, after := range map[string]string{
		"branch=Z": "branch=z", "rport=5071": "rport", "received=10.0.0.9": "received=10.0.0.8", "received=10.0.0.9;": "",
		"\r\nVia:SIP/2.0/UDP h3": "", "tag=evil": "tag=devil", "tag=good": "tag=bad", "tag=1": "", "\"<x": "<x", "007  INVITE": "7 INVITE",
		";a=b\r\n": "\r\n", "<sip:4>": "<sip:5>", "sip:b@h;tag": "<sip:b@h>;tag",
	} {
		require.Error(t, check(strings.Replace(good, before, after, 1)), "%q for %q", after, before)
	}
}

// Two generators with the same seeds write the same messages. Each message can be read,
// and its end is found.
func TestGeneratorIsDeterministic(t *testing.T) {
	for number := range uint64(1000) {
		data := someMessage(New(7, number, "u"))
		require.Equal(t, data, someMessage(New(7, number, "u")))
		m, rest, err := Read(data)
		require.NoError(t, err, "%q", data)
		require.Empty(t, rest)
		require.NotEmpty(t, m.List("via"))
		require.NotEmpty(t, URI(m.Value("from")))
		tag, ok := Param(m.Value("from"), "tag")
		require.True(t, ok)
		require.True(t, tag != "" && strings.Trim(tag, tokenChars) == "", "%q", data)
	}
}

func someMessage(g *Generator) []byte {
	known := Known{Seq: 1, FromTag: g.Token(), ContactHost: g.Host("h"), RouteHosts: g.Hosts("h")}
	if g.s.chance(50) {
		return g.Request(g.Method(), known)
	}
	known.CallID = "c"
	return g.Response(g.Status(), "INVITE", "SIP/2.0/UDP h;branch=z9hG4bK1", known)
}

// Every octet that a quoted string may contain occurs in one.
func TestQuotedStringsHaveEveryOctet(t *testing.T) {
	s := New(1, 1, "").s
	plain, paired := map[byte]bool{}, map[byte]bool{}
	for range 20000 {
		text := s.quoted()
		for i := 1; i < len(text)-1; i++ {
			if text[i] == '\\' {
				i++
				paired[text[i]] = true
			} else {
				plain[text[i]] = true
			}
		}
	}
	for c := range 256 {
		b := byte(c)
		control := b < 0x20 && b != '\t' && b != '\r' && b != '\n' || b == 0x7F
		require.Equal(t, !control && b != '"' && b != '\\' && b < 0xFE, plain[b], "%#x", b)
		require.Equal(t, b < 0x80 && b != '\r' && b != '\n', paired[b], "%#x after a backslash", b)
	}
}
