package sipheader

import (
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/sipmsg"
)

const text = "INVITE sip:bob@10.0.0.2 SIP/2.0\n" +
	"v: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKx\n" +
	"f: \"Alice \\\"A\\\"\" <sip:alice@10.0.0.1>;tag=theirs\n" +
	"To: <sip:bob@10.0.0.2;user=phone>;Tag=ours\n" +
	"i: id@10.0.0.1\n" +
	"CSeq: 7 INVITE\n" +
	"m: <sip:a@10.0.0.1>, <tel:+15551234>, <sips:b@10.0.0.1>\n" +
	"Record-Route: <sip:p1;lr>, <sip:p2>\n" +
	"Record-Route: <sip:p3;lr>\n" +
	"k: 100rel, timer\n" +
	"Subject: one\n" +
	"Content-Length: 0\n\n"

// messages are one message as its text, as the structs of the parser, and as one made by
// hand of headers that have no types.
func messages(t *testing.T) map[string]Message {
	t.Helper()
	m, err := sipmsg.Parse([]byte(strings.ReplaceAll(text, "\n", "\r\n")))
	require.NoError(t, err)
	plain := sip.NewRequest(sip.INVITE, sip.Uri{Scheme: "sip", Host: "10.0.0.2"})
	for _, line := range strings.Split(text, "\n")[1:] {
		if name, value, ok := strings.Cut(line, ":"); ok {
			plain.AppendHeader(sip.NewHeader(name, strings.TrimSpace(value)))
		}
	}
	return map[string]Message{"text": m, "structs": m.NewSIP(), "plain headers": plain}
}

func hosts(uris []sip.Uri) (hosts []string) {
	for _, uri := range uris {
		hosts = append(hosts, uri.Host)
	}
	return hosts
}

// RFC 3261 7.3.1, 7.3.3, 20: whatever the message is made of, the same is read.
func TestMessagesAreReadAlike(t *testing.T) {
	for name, msg := range messages(t) {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, "theirs", FromTag(msg))
			require.Equal(t, "ours", ToTag(msg))
			require.Equal(t, "id@10.0.0.1", CallID(msg))
			require.Equal(t, uint32(7), CSeq(msg))
			require.Equal(t, "7 INVITE", CSeqValue(msg))
			require.Equal(t, "alice", NameAddrOf(msg, "From").URI.User)
			require.Equal(t, `Alice \"A\"`, NameAddrOf(msg, "From").Display)
			require.Equal(t, []string{"10.0.0.1", "10.0.0.1"}, hosts(Contacts(msg)), "a tel URI is no target")
			require.Equal(t, 3, CountContacts(msg))
			require.Equal(t, []string{"p1", "p2", "p3"}, hosts(RecordRoutes(msg)))
			require.True(t, ReadsRoutes(msg))
			require.Equal(t, []string{"100rel", "timer"}, Listed(msg, "Supported"))
			require.True(t, Lists(msg, "Supported", "TIMER"))
			require.False(t, Lists(msg, "Supported", "path"))
			require.True(t, Has(msg, "subject"))
			require.False(t, Has(msg, "Reason"))
			require.Equal(t, "one", Value(msg, "SUBJECT"))
			require.Empty(t, Value(msg, "Reason"))
			require.True(t, IsAlone(msg, "Subject"))
			require.False(t, IsAlone(msg, "Reason"))
			require.Len(t, AllNamed(msg, "Contact"), len(AllNamed(msg, "m")))
		})
	}
}

// Malformed headers are left out, or give the zero value.
func TestUnreadableHeaders(t *testing.T) {
	req := sip.NewRequest(sip.INVITE, sip.Uri{})
	for name, value := range map[string]string{"CSeq": "seven INVITE", "Record-Route": "<sip:", "Contact": "<sip:a@b", "From": "<"} {
		req.AppendHeader(sip.NewHeader(name, value))
	}
	number, method := CSeqOf(req)
	require.Zero(t, number)
	require.Empty(t, method)
	require.Empty(t, CSeqValue(req))
	require.Empty(t, Contacts(req))
	require.Equal(t, 1, CountContacts(req))
	require.False(t, ReadsRoutes(req))
	require.Equal(t, NameAddr{}, NameAddrOf(req, "From"))
	require.Empty(t, FromTag(req))
}

// RFC 3261 12.2.1.1: a peer of RFC 2543 has no tag, and none is sent to it.
func TestHeadersWithoutATag(t *testing.T) {
	who := NameAddr{Display: "Bob", URI: sip.Uri{Scheme: "sip", User: "bob", Host: "b"}}
	require.NotContains(t, who.To("").Value(), "tag")
	require.Contains(t, who.To("x").Value(), ";tag=x")
	require.Contains(t, who.From("x").Value(), ";tag=x")
	require.Equal(t, who, who.Party().NameAddr())
	require.Equal(t, "sip:bob@b", who.Party().URIText())
	require.True(t, who.Same(who.Party().NameAddr()))
}

func TestTextsStayInTheirLine(t *testing.T) {
	require.Equal(t, "a  b", OneLine(" a\r\nb\x7f"))
	require.Equal(t, "Retry-After: 7", RetryAfter(7).String())
}
