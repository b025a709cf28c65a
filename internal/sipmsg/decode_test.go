package sipmsg

import (
	"bytes"
	"encoding/csv"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"
)

// lined makes a header block of lines.
func lined(lines ...string) string { return strings.Join(lines, crlf) }

// whole decodes a datagram.
func whole(data []byte) *Message {
	head, body, _ := CutHead(bytes.Clone(data))
	m := Decode(head, 256)
	if m != nil {
		m.SetBody(body)
		if m.LengthFault != nil {
			m.Fail(m.LengthFault)
		}
	}
	return m
}

const tortureDir = "../../test/testdata/torture"

func torture(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(tortureDir, name))
	require.NoError(t, err)
	return data
}

// RFC 4475 and 5118: what has to be read is, and what must not is not. Faults of
// a header that a transaction can do without, and those that only an answer can
// tell, are for others.
func TestTortureMessagesAreReadAsTheRFCsHaveIt(t *testing.T) {
	malformed := map[string]string{
		"badinv01.dat": "Malformed Via", "clerr.dat": "", "ncl.dat": "Malformed Content-Length",
		"scalar02.dat": "Malformed CSeq", "scalarlg.dat": "Malformed CSeq", "quotbal.dat": "Malformed To",
		"ltgtruri.dat": "Malformed Request-URI", "lwsruri.dat": "Malformed Request-Line", "lwsstart.dat": "Malformed Request-Line",
		"trws.dat": "Malformed Request-Line", "multi01.dat": "Repeated", "mcl01.dat": "Differing Content-Length",
		"ipv6-bad.dat": "Malformed Request-URI", "bigcode.dat": "no SIP",
	}
	for _, row := range expectations(t) {
		m, name := whole(torture(t, row[0])), filepath.Base(row[0])
		want, bad := malformed[name]
		if want == "no SIP" {
			require.Nil(t, m, name)
			continue
		}
		require.NotNil(t, m, name)
		if !bad {
			require.Nil(t, m.Fault, name)
		} else if want != "" {
			require.NotNil(t, m.Fault, name)
			require.Contains(t, m.Fault.Reason, want, name)
		}
		if row[3] != "(unknown)" {
			require.Contains(t, row[3], m.Method, name)
		}
		_ = m.SIP().String()
	}
}

func expectations(t *testing.T) [][]string {
	t.Helper()
	f, err := os.Open(filepath.Join(tortureDir, "EXPECT.tsv"))
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	r := csv.NewReader(f)
	r.Comma, r.Comment, r.LazyQuotes = '\t', '#', true
	rows, err := r.ReadAll()
	require.NoError(t, err)
	require.NotEmpty(t, rows)
	return rows
}

func TestTheTortuousINVITE(t *testing.T) {
	m := whole(torture(t, "wsinv.dat"))
	require.Equal(t, "1918181833n", m.ToTag)
	require.Equal(t, "98asjd8", m.FromTag)
	require.Equal(t, "wsinv.ndaksdj@192.0.2.1", m.CallID)
	require.EqualValues(t, 9, m.CSeq)
	require.EqualValues(t, "INVITE", m.CSeqMethod)
	require.Equal(t, 3, m.Vias)
	require.Equal(t, "390skdjuw", m.Via.Branch())
	require.Equal(t, []string{"newfangled value continued newfangled value"}, m.Values("newfangledheader"))
	require.Equal(t, []string{""}, m.Values("Subject"))
	req := m.Request()
	require.Equal(t, "SIP/2.0/UDP 192.168.255.111;branch=z9hG4bK30239", req.GetHeaders("Via")[2].Value())
	require.Equal(t, `J Rosenberg \\\"`, req.From().DisplayName)
	q, _ := req.Contact().Params.Get("q")
	require.Equal(t, "0.33", q)
	require.EqualValues(t, 68, *req.MaxForwards())
}

func TestMethodsKeepTheirCase(t *testing.T) {
	for _, method := range []string{"invite", "Foo", "INVITE", "!interesting-Method0123456789*+`.%indeed'~"} {
		m := whole([]byte(lined(method+" sip:b@h SIP/2.0", "CSeq: 1 "+method)))
		require.Nil(t, m.Fault)
		require.EqualValues(t, method, m.Method)
		require.EqualValues(t, method, m.CSeqMethod)
		require.EqualValues(t, method, m.Request().Method)
	}
}

func TestFoldedLinesAreJoined(t *testing.T) {
	m := whole([]byte(lined("OPTIONS sip:b@h SIP/2.0", "From: Alice", "\t<sip:a@h>", "  ;tag=a  ", " ", "Subject:", " x", "To: <sip:b@h>")))
	require.Nil(t, m.Fault)
	require.Equal(t, []string{"Alice <sip:a@h> ;tag=a"}, m.Values("f"))
	require.Equal(t, []string{"x"}, m.Values("s"))
	require.Equal(t, "a", m.FromTag)
	m = whole([]byte(lined("OPTIONS sip:b@h SIP/2.0", " : x", "To: <sip:b@h>")))
	require.Equal(t, "Malformed Header Field", m.Fault.Reason, "what follows the start line goes on nothing")
	require.True(t, m.HasTo)
}

// Bare LF is a line end in a block that begins with one, and in no other.
func TestBareLineFeeds(t *testing.T) {
	m := whole([]byte("OPTIONS sip:b@h SIP/2.0\nFrom: Alice\n <sip:a@h>;tag=a\r\nTo: <sip:b@h>\nCSeq: 1 OPTIONS"))
	require.Nil(t, m.Fault)
	require.Equal(t, "a", m.FromTag)
	require.True(t, m.HasTo)
	require.EqualValues(t, 1, m.CSeq)
	m = whole([]byte("OPTIONS sip:b@h SIP/2.0\r\nSubject: a\nVia: SIP/2.0/UDP h"))
	require.Equal(t, "Malformed Header Field", m.Fault.Reason)
	require.Zero(t, m.Vias)
}

func TestMalformedMessagesHaveAFault(t *testing.T) {
	const request = "OPTIONS sip:b@example.com SIP/2.0"
	for name, c := range map[string]struct {
		lines  []string
		reason string
	}{
		"URI in brackets": {[]string{"INVITE <sip:b@example.com> SIP/2.0"}, "Malformed Request-URI"},
		"space in URI":    {[]string{"INVITE sip:b@example.com; lr SIP/2.0"}, "Malformed Request-Line"},
		"two spaces":      {[]string{"INVITE  sip:b@example.com SIP/2.0"}, "Malformed Request-Line"},
		"trailing space":  {[]string{request + "  "}, "Malformed Request-Line"},
		"star":            {[]string{"OPTIONS * SIP/2.0"}, "Malformed Request-URI"},
		"port":            {[]string{"OPTIONS sip:b@example.com:99999999 SIP/2.0"}, "Malformed Request-URI"},
		"no port":         {[]string{"OPTIONS sip:b@example.com: SIP/2.0"}, "Malformed Request-URI"},
		"status":          {[]string{"SIP/2.0 700 Far Out"}, "Malformed Status-Line"},
		"CSeq number":     {[]string{request, "CSeq: 36893488147419103232 OPTIONS"}, "Malformed CSeq"},
		"CSeq alone":      {[]string{request, "CSeq: 1"}, "Malformed CSeq"},
		"open quote":      {[]string{request, `To: "Mr. J. User <sip:j@example.com>`}, "Malformed To"},
		"empty From":      {[]string{request, "From:"}, "Malformed From"},
		"From of nothing": {[]string{request, "From: <>;tag=a"}, "Malformed From"},
		"empty Call-ID":   {[]string{request, "i:"}, "Malformed Call-ID"},
		"NUL in Call-ID":  {[]string{request, "i: a\x00b"}, "Malformed Call-ID"},
		"Via of ;,":       {[]string{request, "Via: SIP/2.0/UDP 192.0.2.15;;,;,,"}, "Malformed Via"},
		"Via port":        {[]string{request, "Via: SIP/2.0/UDP h:x;branch=z9hG4bK1"}, "Malformed Via"},
		"second From":     {[]string{request, "From: <sip:a@b>", "f: <sip:a@b>"}, "Repeated From"},
		"second Call-ID":  {[]string{request, "i: 1", "Call-ID: 1"}, "Repeated Call-ID"},
		"bare CR":         {[]string{request, "Subject: a\rb"}, "Malformed Header Field"},
		"no name":         {[]string{request, "To: <sip:a@b>", ": x"}, "Malformed Header Field"},
		"no colon":        {[]string{request, "Subject"}, "Malformed Header Field"},
		"many parameters": {[]string{request, "To: <sip:a@b>" + strings.Repeat(";a", 200)}, "Malformed To"},
		"many in a URI":   {[]string{"OPTIONS sip:a@b" + strings.Repeat(";a", 200) + " SIP/2.0"}, "Malformed Request-URI"},
		"many fields":     {[]string{request, strings.Repeat("X: y\r\n", 300)}, "Too Many Header Fields"},
		"many values":     {[]string{request, "Contact: " + strings.Repeat("<sip:a@b>,", 300) + "<sip:a@b>"}, "Too Many Header Fields"},
		"many lengths":    {[]string{request, "Content-Length: 1", "l: 2"}, "Differing Content-Length"},
		"negative length": {[]string{request, "Content-Length: -1"}, "Malformed Content-Length"},
	} {
		m := whole([]byte(lined(c.lines...)))
		require.NotNil(t, m, name)
		require.NotNil(t, m.Fault, name)
		require.Equal(t, c.reason, m.Fault.Reason, name)
	}
	for _, garbage := range []string{"", "GET / HTTP/1.1", "SIP/2.0 abc OK", "SIP/2.0 4294967301 X", "SIP/2.0 20 X", "\x16\x03\x01", "(x) sip:a SIP/2.0"} {
		require.Nil(t, whole([]byte(garbage)), garbage)
	}
}

// RFC 3261 8.2.2, 13.2.2.4.
func TestBrokenFieldsThatNoTransactionNeedsAreNoFault(t *testing.T) {
	broken := []string{
		"Max-Forwards: many", "Max-Forwards:", "Max-Forwards: 1", "Route: <", "Route: ,", "Record-Route: ;;", "Contact: <sip:", "Contact: ", "Date: EST",
		"Expires: soon", "Content-Type:", "Refer-To: ", "Referred-By: ;;", "Authorization: \"", "Timestamp: \x00",
	}
	for _, first := range []string{"OPTIONS sip:b@h SIP/2.0", "SIP/2.0 200 OK"} {
		m := whole([]byte(lined(append([]string{first}, broken...)...)))
		require.Nil(t, m.Fault)
		for _, l := range broken {
			name, value, _ := strings.Cut(l, ":")
			require.Contains(t, m.Values(name), strings.TrimSpace(value))
		}
		_ = m.SIP().String()
	}
	require.Nil(t, whole([]byte(lined("SIP/2.0 200 OK", "no colon", "a\rb: c"))).Fault, "a line that is none matters in a request only")
}

// A response with a From or To that cannot be read has a tag all the same: an ACK is
// needed.
func TestResponsesAreReadAsFarAsNeeded(t *testing.T) {
	for value, tag := range map[string]string{
		`"open <sip:a@b>;tag=x`: "x", "<sip:a@b;tag=x": "x", "<>;TAG = x;y": "x", `<sip:a@b>;x="open;tag=y`: "y", "<": "", "": "", ";;": "",
	} {
		m := whole([]byte(lined("SIP/2.0 200 OK", "From: "+value, "To: "+value, "From: <sip:other>", "Call-ID: 1", "Call-ID: 1")))
		require.Nil(t, m.Fault, value)
		require.True(t, m.HasFrom && m.HasTo)
		require.Equal(t, [2]string{tag, tag}, [2]string{m.FromTag, m.ToTag}, value)
		got, _ := m.Response().To().Params.Get("tag")
		require.Equal(t, tag, got)
		require.NotNil(t, m.Response().From())
	}
	for _, twice := range [][]string{{"To: <sip:a@b>", "To: <sip:c@d>"}, {"i: 1", "i: 2"}, {"CSeq: 1 BYE", "CSeq: 2 BYE"}} {
		require.NotNil(t, whole([]byte(lined(append([]string{"SIP/2.0 200 OK"}, twice...)...))).Fault)
	}
}

func TestUnusualMessagesAreRead(t *testing.T) {
	for _, lines := range [][]string{
		{"SIP/2.0 100"},
		{"sip/2.0 200 = 2**3 * 5**2"},
		{"OPTIONS nobodyKnowsThisScheme:totallyopaquecontent SIP/2.0"},
		{"OPTIONS soap.beep://192.0.2.103:3002 SIP/2.0"},
		{"OPTIONS sip:b@example.com SIP/7.0", "Via: SIP/7.0/UDP c.example.com;branch=z9hG4bKkdjuw"},
		{"OPTIONS sip:b@example.com SIP/2.0", "To: Bob   Smith <sip:b@example.com>;"},
		{"OPTIONS sip:b@example.com SIP/2.0", "To: <sip:?x>", "From: <isbn:2983792873>;tag=a"},
		{"OPTIONS sip:b@example.com SIP/2.0", "To : <sip:b@h>", "cSEQ\t:\t1\tOPTIONS", "Content-Length: 0", "l: 0"},
	} {
		m := whole([]byte(lined(lines...)))
		require.NotNil(t, m, lines[0])
		require.Nil(t, m.Fault, lines[0])
	}
	require.Equal(t, "soap.beep", whole([]byte("OPTIONS soap.beep://192.0.2.103:3002 SIP/2.0")).Request().Recipient.Scheme)
}

func TestCompactNames(t *testing.T) {
	m := whole([]byte(lined("REFER sip:b@example.com SIP/2.0",
		"K: timer", "x: 1800", "r: <sip:c@example.com>", "b: <sip:a@example.com>", "o: refer", "u: talk", "m: <sip:d@h>", "c: text/plain",
		"e: gzip", "s: hi", "a: *", "j: *", "d: proxy", "y: sig", "n: <https://example.com>")))
	for _, name := range []string{"Supported", "Session-Expires", "Refer-To", "Referred-By", "Event", "Allow-Events", "Contact", "Content-Type",
		"Content-Encoding", "Subject", "Accept-Contact", "Reject-Contact", "Request-Disposition", "Identity", "Identity-Info"} {
		require.NotNil(t, m.Request().GetHeader(name), name)
		require.Len(t, m.Values(strings.ToUpper(name)), 1, name)
	}
	require.True(t, SameName("r", "Refer-To"))
	require.True(t, SameName("X-Other", "x-oTHER"))
	require.False(t, SameName("r", "f"))
	require.Equal(t, "c", m.Request().ReferTo().Address.User)
}

// The structs are told apart from each other, the first of a kind is the one
// that sipgo's getters return, and the message is found again.
func TestStructs(t *testing.T) {
	const head = "INVITE sip:b@h;LR SIP/2.0\r\nVia: SIP/2.0/UDP a, SIP/2.0/UDP b:5061;branch=z9hG4bKb\r\n" +
		"Contact: \"A, \\\"B\\\"\" <sip:a,b@h>, <sip:c@h>;Q=0.1,sip:d@h\r\nRecord-Route: <sip:p1;lr>;x=y,<sip:p2;lr> , <sip:p3;LR>\r\n" +
		"Route: <sip:r1>,<sip:r2>\r\nFrom: Ann <sip:a@h>;Tag=A\r\nTo: \"\" <sip:b@h>;x=\"a b\"\r\nX: y\r\nCall-ID: 1@h\r\nCSeq: 1 INVITE"
	m := whole([]byte(head + "\r\n\r\nbody"))
	req := m.Request()
	require.Same(t, req, m.Request())
	require.Nil(t, m.Response())
	require.Equal(t, "a", req.Via().Host)
	require.Equal(t, "a,b", req.Contact().Address.User)
	require.Equal(t, `A, \"B\"`, req.Contact().DisplayName)
	require.Equal(t, "<sip:p1;lr>", req.RecordRoute().Value())
	require.Equal(t, "<sip:r1>", req.Route().Value())
	require.Len(t, req.GetHeaders("Via"), 2)
	require.Len(t, req.GetHeaders("Contact"), 3)
	require.Len(t, req.GetHeaders("Record-Route"), 3)
	require.Equal(t, `"Ann" <sip:a@h>;tag=A`, req.From().Value())
	require.Equal(t, `<sip:b@h>;x="a b"`, req.To().Value())
	require.Equal(t, "sip:b@h;LR", req.Recipient.String())
	require.EqualValues(t, 4, *req.ContentLength())
	require.Equal(t, "body", string(req.Body()))

	require.Same(t, m, Of(req))
	require.Same(t, m, Of(m.NewSIP()))
	require.Nil(t, Of(req.Clone()))
	require.Nil(t, Of(nil))
	require.Nil(t, Of((*sip.Request)(nil)))
	require.Nil(t, Of((*sip.Response)(nil)))

	own := m.NewSIP().(*sip.Request)
	own.Via().Params.Add("received", "1.2.3.4")
	own.From().Params.Add("tag", "B")
	own.RemoveHeader("Content-Length")
	own.SetBody([]byte("another body"))
	require.Equal(t, `"Ann" <sip:a@h>;tag=A`, m.Request().From().Value())
	require.False(t, m.Request().Via().Params.Has("received"))
	require.Equal(t, "body", string(m.Body()))
}

func TestAMessagePutAsideIsReadOnceMore(t *testing.T) {
	m := whole(torture(t, "wsinv.dat"))
	m.Arrived("UDP", peer)
	again := m.Keep().Message()
	require.Equal(t, m.SIP().String(), again.SIP().String())
	require.Equal(t, m.Text(), again.Text())
	require.Equal(t, peer.String(), again.SIP().Source())
	require.Equal(t, m.Body(), again.Body())
	require.Nil(t, (*Kept)(nil).Message())
}

func TestMemoryOfStructsIsBounded(t *testing.T) {
	m := whole([]byte("OPTIONS sip:b@h SIP/2.0\r\nContact: " + strings.Repeat("<sip:a@b>"+strings.Repeat(";a", 100)+",", 200) + "<sip:z@b>"))
	n := 0
	for _, h := range m.Request().GetHeaders("Contact") {
		if h, ok := h.(*sip.ContactHeader); ok {
			n += len(h.Params)
		}
	}
	require.LessOrEqual(t, n, maxHeld)
	require.Len(t, m.Request().GetHeaders("Contact"), 201)
}

func TestTheHeadEndsAtTheEmptyLine(t *testing.T) {
	for data, want := range map[string][2]string{
		"a\r\nb\r\n\r\nc\r\n\r\nd": {"a\r\nb", "c\r\n\r\nd"},
		"a\nb\n\nc\r\n\r\nd":       {"a\nb", "c\r\n\r\nd"},
		"a\nb\r\n\r\nc\n\nd":       {"a\nb", "c\n\nd"},
		"a\r\nb\n\nc\r\n\r\nd":     {"a\r\nb\n\nc", "d"},
		"a\r\n\r\n":                {"a", ""},
		"a\n\n":                    {"a", ""},
	} {
		head, body, ended := CutHead([]byte(data))
		require.True(t, ended, "%q", data)
		require.Equal(t, want, [2]string{string(head), string(body)}, "%q", data)
	}
	for _, data := range []string{"", "a", "a\n", "a\nb", "a\r\nb\r\n", "\n"} {
		_, _, ended := CutHead([]byte(data))
		require.False(t, ended, "%q", data)
	}
}

// A header field is bounded, also where the header block may be larger.
func TestHeaderFieldsAreBounded(t *testing.T) {
	for length, fault := range map[int]bool{maxValue: false, maxValue + 1: true} {
		head := "OPTIONS sip:a@b SIP/2.0\r\nSubject: " + strings.Repeat("x", length)
		m := Decode([]byte(head), 10)
		require.NotNil(t, m)
		require.Equal(t, fault, m.Fault != nil)
		value, found := m.Value("Subject")
		require.Equal(t, !fault, found)
		require.Len(t, value, map[bool]int{false: length}[fault])
	}
}
