package transport

import (
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"
)

func decodeText(t *testing.T, msg string) parsed {
	t.Helper()
	l, _ := startLayer(t, Config{})
	block, _, _ := strings.Cut(msg, endBlock)
	return l.newDecoder().decode([]byte(block))
}

// tortuous is RFC 4475 3.1.1.1.
const tortuous = "INVITE sip:vivekg@chair-dnrc.example.com;unknownparam SIP/2.0\r\n" +
	"TO :\r\n sip:vivekg@chair-dnrc.example.com ;   tag    = 1918181833n\r\n" +
	"from   : \"J Rosenberg \\\\\\\"\"       <sip:jdrosen@example.com>\r\n  ;\r\n  tag = 98asjd8\r\n" +
	"MaX-fOrWaRdS: 0068\r\n" +
	"Call-ID: wsinv.ndaksdj@192.0.2.1\r\n" +
	"Content-Length   : 150\r\n" +
	"cseq: 0009\r\n  INVITE\r\n" +
	"Via  : SIP  /   2.0\r\n /UDP\r\n    192.0.2.2;branch=390skdjuw\r\n" +
	"s :\r\n" +
	"NewFangledHeader:   newfangled value\r\n continued newfangled value\r\n" +
	"UnknownHeaderWithUnusualValue: ;;,,;;,;\r\n" +
	"Content-Type: application/sdp\r\n" +
	"Route:\r\n <sip:services.example.com;lr;unknownwith=value;unknown-no-value>\r\n" +
	"v:  SIP  / 2.0  / TCP     spindle.example.com   ;\r\n  branch  =   z9hG4bK9ikj8  ,\r\n" +
	" SIP  /    2.0   / UDP  192.168.255.111   ; branch=\r\n z9hG4bK30239\r\n" +
	"m:\"Quoted string \\\"\\\"\" <sip:jdrosen@example.com> ; newparam =\r\n      newvalue ;\r\n" +
	"  secondparam ; q = 0.33\r\n\r\n"

func TestDecode_reads_the_tortuous_INVITE(t *testing.T) {
	p := decodeText(t, tortuous)
	require.Nil(t, p.fault)
	req := p.msg.(*sip.Request)
	vias := req.GetHeaders("Via")
	require.Len(t, vias, 3)
	require.Equal(t, "SIP/2.0/UDP 192.0.2.2;branch=390skdjuw", vias[0].Value())
	require.Equal(t, "SIP/2.0/TCP spindle.example.com;branch=z9hG4bK9ikj8", vias[1].Value())
	require.Equal(t, "SIP/2.0/UDP 192.168.255.111;branch=z9hG4bK30239", vias[2].Value())
	tag, _ := req.To().Params.Get("tag")
	require.Equal(t, "1918181833n", tag)
	tag, _ = req.From().Params.Get("tag")
	require.Equal(t, "98asjd8", tag)
	require.Equal(t, sip.CSeqHeader{SeqNo: 9, MethodName: sip.INVITE}, *req.CSeq())
	require.Equal(t, "", req.GetHeader("Subject").Value())
	require.Equal(t, "newfangled value continued newfangled value", req.GetHeader("NewFangledHeader").Value())
	q, _ := req.Contact().Params.Get("q")
	require.Equal(t, "0.33", q)
	require.Equal(t, 150, p.length)
}

func TestDecode_maps_compact_names(t *testing.T) {
	p := decodeText(t, text("", "REFER sip:b@example.com SIP/2.0",
		"K: timer", "x: 1800", "r: <sip:c@example.com>", "b: <sip:a@example.com>", "o: refer", "u: talk",
		"e: gzip", "s: hi", "a: *", "j: *", "d: proxy", "y: sig", "n: <https://example.com>"))
	require.Nil(t, p.fault)
	req := p.msg.(*sip.Request)
	for _, name := range []string{"Supported", "Session-Expires", "Refer-To", "Referred-By", "Event", "Allow-Events",
		"Content-Encoding", "Subject", "Accept-Contact", "Reject-Contact", "Request-Disposition", "Identity", "Identity-Info"} {
		require.NotNil(t, req.GetHeader(name), name)
	}
	require.Equal(t, "c", req.ReferTo().Address.User)
	require.NotContains(t, sip.DefaultHeadersParser(), "k", "the parser's global table is as it was")
}

func TestDecode_splits_lists_of_addresses(t *testing.T) {
	p := decodeText(t, text("", "INVITE sip:b@example.com SIP/2.0",
		"Via: SIP/2.0/UDP a.example.com, SIP/2.0/UDP b.example.com:5061;branch=z9hG4bKb",
		`Contact: "A, \"B\"" <sip:a,b@example.com>, <sip:c@example.com>;q=0.1,sip:d@example.com`,
		"Record-Route: <sip:p1;lr>,<sip:p2;lr> , <sip:p3;lr>"))
	require.Nil(t, p.fault)
	req := p.msg.(*sip.Request)
	require.Len(t, req.GetHeaders("Via"), 2)
	require.Equal(t, "a.example.com", req.Via().Host)
	require.Len(t, req.GetHeaders("Contact"), 3)
	require.Len(t, req.GetHeaders("Record-Route"), 3)
}

func TestDecode_finds_what_is_wrong(t *testing.T) {
	const line = "OPTIONS sip:b@example.com SIP/2.0"
	for name, c := range map[string]struct {
		lines  []string
		reason string
	}{
		"URI in brackets":    {[]string{"INVITE <sip:b@example.com> SIP/2.0"}, "Malformed Request-Line"},
		"space in URI":       {[]string{"INVITE sip:b@example.com; lr SIP/2.0"}, "Malformed Request-Line"},
		"trailing space":     {[]string{"OPTIONS sip:b@example.com SIP/2.0  "}, "Malformed Request-Line"},
		"star":               {[]string{"OPTIONS * SIP/2.0"}, "Malformed Request-Line"},
		"port":               {[]string{"OPTIONS sip:b@example.com:99999999 SIP/2.0"}, "Malformed Request-URI"},
		"status":             {[]string{"SIP/2.0 700 Far Out"}, "Malformed Status-Line"},
		"CSeq number":        {[]string{line, "CSeq: 36893488147419103232 OPTIONS"}, "Malformed CSeq"},
		"open quote":         {[]string{line, `To: "Mr. J. User <sip:j@example.com>`}, "Malformed To"},
		"Via of separators":  {[]string{line, "Via: SIP/2.0/UDP 192.0.2.15;;,;,,"}, "Malformed Via"},
		"Via port":           {[]string{line, "Via: SIP/2.0/UDP h:x;branch=z9hG4bK1"}, "Malformed Via"},
		"second From":        {[]string{line, "From: <sip:a@b>", "f: <sip:a@b>"}, "Repeated From"},
		"second Call-ID":     {[]string{line, "i: 1", "Call-ID: 1"}, "Repeated Call-ID"},
		"bare CR":            {[]string{line, "Subject: a\rb"}, "Malformed Header Field"},
		"bare LF":            {[]string{line, "Subject: a\nVia: b"}, "Malformed Header Field"},
		"no name":            {[]string{line, " : x"}, "Malformed Header Field"},
		"no colon":           {[]string{line, "Subject"}, "Malformed Header Field"},
		"Via parameters":     {[]string{line, "Via: SIP/2.0/UDP h" + strings.Repeat(";a", 200)}, "Malformed Via"},
		"To parameters":      {[]string{line, "To: <sip:a@b>" + strings.Repeat(";a", 200)}, "Malformed To"},
		"URI parameters":     {[]string{"OPTIONS sip:a@b" + strings.Repeat(";a", 200) + " SIP/2.0"}, "Malformed Request-Line"},
		"URI headers":        {[]string{"OPTIONS sip:a@b?x" + strings.Repeat("&a", 200) + " SIP/2.0"}, "Malformed Request-Line"},
		"empty Max-Forwards": {[]string{line, "Max-Forwards:"}, "Malformed Max-Forwards"},
	} {
		p := decodeText(t, text("", c.lines...))
		require.NotNil(t, p.msg, name)
		require.NotNil(t, p.fault, name)
		require.Equal(t, c.reason, p.fault.reason, name)
	}
	for _, garbage := range []string{"", "GET / HTTP/1.1", "SIP/2.0 abc OK", "SIP/2.0 4294967301 X", "\x16\x03\x01"} {
		require.Nil(t, decodeText(t, text("", garbage)).msg, garbage)
	}
}

func TestDecode_takes_what_is_unusual_but_legal(t *testing.T) {
	for _, lines := range [][]string{
		{"SIP/2.0 100"},
		{"SIP/2.0 200 = 2**3 * 5**2"},
		{"!INTERESTING-METHOD0123456789_*+`.%indeed'~ sip:b@example.com SIP/2.0"},
		{"OPTIONS nobodyKnowsThisScheme:totallyopaquecontent SIP/2.0"},
		{"OPTIONS soap.beep://192.0.2.103:3002 SIP/2.0"},
		{"OPTIONS sip:b@example.com SIP/7.0", "Via: SIP/7.0/UDP c.example.com;branch=z9hG4bKkdjuw"},
		{"OPTIONS sip:b@example.com SIP/2.0", "To: Bob   Smith <sip:b@example.com>", "Referred-By: ;;", "Refer-To: "},
	} {
		p := decodeText(t, text("", lines...))
		require.NotNil(t, p.msg, lines[0])
		require.Nil(t, p.fault, lines[0])
	}
	p := decodeText(t, text("", "OPTIONS soap.beep://192.0.2.103:3002 SIP/2.0"))
	require.Equal(t, "soap.beep", p.msg.(*sip.Request).Recipient.Scheme)
}

func TestDecode_makes_parameter_names_findable(t *testing.T) {
	p := decodeText(t, text("", "OPTIONS sip:b@example.com SIP/2.0",
		"Via: SIP/2.0/UDP [::1]:5062;BRANCH=z9hG4bKx;RPort", "From: <sip:a@b>;TAG=A", "To: <sip:a@b>;Tag=B"))
	req := p.msg.(*sip.Request)
	branch, _ := req.Via().Params.Get("branch")
	require.Equal(t, "z9hG4bKx", branch)
	require.True(t, req.Via().Params.Has("rport"))
	require.True(t, req.From().Params.Has("tag"))
	require.True(t, req.To().Params.Has("tag"))
}

func TestDecode_does_not_alias_its_input(t *testing.T) {
	l, _ := startLayer(t, Config{})
	in := []byte(options("alias", "a.example.com", "body"))
	block := in[:strings.Index(string(in), endBlock)]
	p := l.newDecoder().decode(block)
	p.setBody(in[len(in)-4:])
	before := p.msg.String()
	for i := range in {
		in[i] = '#'
	}
	require.Equal(t, before, p.msg.String())
}

func TestDecode_survives_a_panicking_parser(t *testing.T) {
	l, _ := startLayer(t, Config{})
	d := l.newDecoder()
	d.table = map[string]sip.HeaderParser{"subject": func([]byte, string) (sip.Header, error) { panic("boom") }}
	p := d.decode([]byte("OPTIONS sip:b@example.com SIP/2.0\r\nSubject: x\r\nX: y"))
	require.Equal(t, "Malformed subject", p.fault.reason)
	require.NotNil(t, p.msg.(*sip.Request).GetHeader("X"))
	require.EqualValues(t, 1, l.Stats().Panics)
}
