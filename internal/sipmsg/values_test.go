package sipmsg

import (
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"
)

func TestListsAreCutOutsideQuotesAndBrackets(t *testing.T) {
	for list, want := range map[string][]string{
		"":                                       nil,
		" , ,":                                   nil,
		"a":                                      {"a"},
		" a ,\tb":                                {"a", "b"},
		`"a,b" <sip:x>, c`:                       {`"a,b" <sip:x>`, "c"},
		`"a\"b,c" <sip:x>,d`:                     {`"a\"b,c" <sip:x>`, "d"},
		`"a\\",b`:                                {`"a\\"`, "b"},
		"<sip:a,b@c;x=1,2>;q=1,<sip:d>":          {"<sip:a,b@c;x=1,2>;q=1", "<sip:d>"},
		`<sip:a;x="1>,2">,b`:                     {`<sip:a;x="1>,2">`, "b"},
		`<sip:a"b>,<sip:c"d>`:                    {`<sip:a"b>,<sip:c"d>`}, // quotes that balance hide the bracket
		`<sip:a"b>,c`:                            {`<sip:a"b>`, "c"},
		`x;p="a,b";q,y`:                          {`x;p="a,b";q`, "y"},
		`"open, a`:                               {`"open, a`},
		"<open, a":                               {"<open, a"},
		"SIP/2.0/UDP a;x=\"\\\"\",SIP/2.0/TCP b": {"SIP/2.0/UDP a;x=\"\\\"\"", "SIP/2.0/TCP b"},
	} {
		require.Equal(t, want, Split(list, ','), list)
	}
	require.Equal(t, []string{"SIP", "cause=1", `text="a;b"`}, Split(`SIP;cause=1 ; text="a;b"`, ';'))
}

func TestQuotedStrings(t *testing.T) {
	for plain, quoted := range map[string]string{
		"": `""`, "a b": `"a b"`, `a"b`: `"a\"b"`, `a\b`: `"a\\b"`, "\x00\xff": "\"\x00\xff\"",
	} {
		require.Equal(t, quoted, Quote(plain))
		require.Equal(t, plain, Unquote(quoted))
	}
	require.Equal(t, "token", Unquote("token"))
	require.Equal(t, "open", Unquote(`"open`))
	require.Equal(t, "a\x00", Unquote("\"a\\\x00\" rest"))
	require.Equal(t, `\`, Unquote(`"\`))
}

func TestParameters(t *testing.T) {
	for text, want := range map[Params][]Param{
		"":                    nil,
		"x":                   nil,
		";a":                  {{Name: "a"}},
		";a=":                 {{Name: "a", Set: true}},
		" ; a = b ;c":         {{Name: "a", Value: "b", Set: true}, {Name: "c"}},
		`;a="x;tag=evil";b=y`: {{Name: "a", Value: `"x;tag=evil"`, Set: true}, {Name: "b", Value: "y", Set: true}},
		`;a="x\";y";b`:        {{Name: "a", Value: `"x\";y"`, Set: true}, {Name: "b"}},
		";a=[2001:db8::1];b":  {{Name: "a", Value: "[2001:db8::1]", Set: true}, {Name: "b"}},
		";a=b=c":              {{Name: "a", Value: "b=c", Set: true}},
		";;a":                 {{}, {Name: "a"}},
		`;a="open;b`:          {{Name: "a", Value: `"open;b`, Set: true}},
	} {
		var got []Param
		for p := text; ; {
			first, rest, ok := p.Next()
			if !ok {
				break
			}
			got = append(got, first)
			p = rest
		}
		require.Equal(t, want, got, text)
	}
	tag, found := Params(`;x="tag=evil";TAG=Good;tag=second`).Get("tag")
	require.True(t, found)
	require.Equal(t, "Good", tag)
	for _, bad := range []Params{`;a="open`, `;a="x"y`, `;a=x"y"`, ";a=\x00", ";=x", "x", Params(strings.Repeat(";a", 129))} {
		require.False(t, bad.Valid(), bad)
	}
}

func TestURIs(t *testing.T) {
	for text, want := range map[string]URI{
		"sip:h":                        {Scheme: "sip", Host: "h"},
		"SIPS:u@h:5061;LR":             {Scheme: "SIPS", User: "u", Host: "h", Port: 5061, Params: ";LR"},
		"sip:u:p@h":                    {Scheme: "sip", User: "u", Password: "p", Host: "h"},
		"sip:u:@h":                     {Scheme: "sip", User: "u:", Host: "h"},
		"sip:[2001:db8::1]:5070":       {Scheme: "sip", Host: "[2001:db8::1]", Port: 5070},
		"sip:u@[::ffff:1.2.3.4];x?a=b": {Scheme: "sip", User: "u", Host: "[::ffff:1.2.3.4]", Params: ";x", Headers: "?a=b"},
		"sip:127.0.0.1:5070;lr;received=[2001:db8::1]": {Scheme: "sip", Host: "127.0.0.1", Port: 5070, Params: ";lr;received=[2001:db8::1]"},
		"sip:1.2.3.4;a=x:y@z":                          {Scheme: "sip", User: "1.2.3.4;a=x", Password: "y", Host: "z"}, // userinfo by the grammar
		"sip:1.2.3.4:5060;received=sip:a@b":            {Scheme: "sip", Host: "1.2.3.4", Port: 5060, Params: ";received=sip:a@b"},
		"sip:[::1];a=b@c":                              {Scheme: "sip", Host: "[::1]", Params: ";a=b@c"},
		`sip:u@h;x="a?b;c"?d`:                          {Scheme: "sip", User: "u", Host: "h", Params: `;x="a?b;c"`, Headers: "?d"},
		"sip:user;par=u%40example.net@example.com":     {Scheme: "sip", User: "user;par=u%40example.net", Host: "example.com"},
		"sip:%00@h":                    {Scheme: "sip", User: "%00", Host: "h"},
		"tel:+1-201;phone-context=x":   {Scheme: "tel", Opaque: "+1-201;phone-context=x"},
		"soap.beep://192.0.2.103:3002": {Scheme: "soap.beep", Opaque: "//192.0.2.103:3002"},
	} {
		got, err := ParseURI(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, bad := range []string{
		"", "sip", "sip:", ":x", "*", "<sip:a@b>", "sip:u@", "sip:;lr", "sip:h:", "sip:h:x", "sip:h:65536", "sip:a b@c", "sip:[::1",
		"sip:[::1]x", "sip:2001:db8::10", "sip:h;x=\"open", "sip:h?a b", "sip:h/x", "sip:h\x00", "1x:y", "sip:@0;0@", "sip:@h;x=a@b", "sip:h?x" + strings.Repeat("&a", 200),
	} {
		_, err := ParseURI(bad)
		require.Error(t, err, bad)
	}
}

// A URI is written as it came, if it is one by the grammar and has no zeros
// before its port.
func TestURIsSurviveTheirStructs(t *testing.T) {
	for _, text := range []string{
		"sip:h", "sips:u@h:5061;LR;Transport=TCP", "sip:u:p@h;d=1;d=2;d=1", "sip:u:@h", "sip:[2001:db8::1]:5070;lr", "sip:[2001:db8::1]",
		"sip:127.0.0.1:5070;lr;received=[2001:db8::1]?X=%20&y=", "sip:u@[::ffff:1.2.3.4]", `sip:u@h;+sip.ice="a?b"`, "tel:+1-201;phone-context=x",
		"sip://@h:5060", "sip://:p@h", "sip://x@h", "soap.beep://192.0.2.103:3002", "urn:service:sos", "sip:h;", "sip:h;;x", `sip:h;x="a b"`,
		"sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com",
	} {
		uri, err := ToURI(text)
		require.NoError(t, err, text)
		if !strings.HasSuffix(text, "&y=") {
			require.Equal(t, text, uri.String())
		}
	}
	star, err := ToURI("*")
	require.NoError(t, err)
	require.True(t, star.Wildcard)
}

func TestAddresses(t *testing.T) {
	for text, want := range map[string]Address{
		"sip:a@b":                           {URI: "sip:a@b"},
		"sip:a@b;tag=x":                     {URI: "sip:a@b", Params: ";tag=x"},
		"<sip:a@b;lr>;tag=x":                {URI: "sip:a@b;lr", Params: ";tag=x"},
		"Bob  Smith <sip:a@b>":              {Display: "Bob  Smith", URI: "sip:a@b"},
		"caller<sip:a@b>":                   {Display: "caller", URI: "sip:a@b"},
		`"a\"b,c" <sip:a@b>`:                {Display: `"a\"b,c"`, URI: "sip:a@b"},
		`"<sip:x>;y" <sip:a@b>`:             {Display: `"<sip:x>;y"`, URI: "sip:a@b"},
		`"" <sip:a@b> ; tag = x`:            {Display: `""`, URI: "sip:a@b", Params: "; tag = x"},
		`<sip:a@b>;tag=good;x="a;tag=evil"`: {URI: "sip:a@b", Params: `;tag=good;x="a;tag=evil"`},
		`sip:a@b;x="<sip:c>"`:               {URI: "sip:a@b", Params: `;x="<sip:c>"`},
		`<sip:u@h;x="a>b">;q=1`:             {URI: `sip:u@h;x="a>b"`, Params: ";q=1"},
		"Bell, Alexander <sip:a@b>":         {Display: "Bell, Alexander", URI: "sip:a@b"},
		"*":                                 {URI: "*"},
		"< sip:a@b >":                       {URI: "sip:a@b"},
	} {
		got, err := ParseAddress(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, bad := range []string{
		"", "<>", "<sip:a@b", `"open <sip:a@b>`, `"a" sip:a@b`, "<sip:a@b> junk", `<sip:a@b>;x="open`, ";tag=x", "<sip:a@b>" + strings.Repeat(";a", 200),
	} {
		_, err := ParseAddress(bad)
		require.Error(t, err, bad)
	}
	a, err := ParseAddress(`"a\"b,c" <sip:a@b>`)
	require.NoError(t, err)
	require.Equal(t, `a"b,c`, a.Name())
	display, uri, params, err := ToAddress(`Bob "x" <sip:a@b;LR>;TAG="a b";Q=".5"`)
	require.NoError(t, err)
	require.Equal(t, `Bob \"x\"`, display)
	require.Equal(t, "sip:a@b;LR", uri.String())
	require.Equal(t, sip.HeaderParams{{K: "tag", V: "a b"}, {K: "q", V: `".5"`}}, params)
	require.Equal(t, `tag="a b";q=".5"`, params.ToString(';'))
}

func TestVias(t *testing.T) {
	for text, want := range map[string]Via{
		"SIP/2.0/UDP h":                                         {Protocol: "SIP", Version: "2.0", Transport: "UDP", SentBy: SentBy{Host: "h"}},
		"SIP / 2.0\t/ UDP   h : 5060 ;rport":                    {Protocol: "SIP", Version: "2.0", Transport: "UDP", SentBy: SentBy{Host: "h", Port: 5060, Params: ";rport"}},
		"SIP/2.0/TLS [2001:db8::1]:1;branch=z":                  {Protocol: "SIP", Version: "2.0", Transport: "TLS", SentBy: SentBy{Host: "2001:db8::1", Port: 1, Params: ";branch=z"}},
		"SIP/2.0/UDP [2001:db8:::192.0.2.1]":                    {Protocol: "SIP", Version: "2.0", Transport: "UDP", SentBy: SentBy{Host: "2001:db8:::192.0.2.1"}},
		`SIP/2.0/UDP h;x-route-tag="cid:A@h";branch=z9hG4bKAbC`: {Protocol: "SIP", Version: "2.0", Transport: "UDP", SentBy: SentBy{Host: "h", Params: `;x-route-tag="cid:A@h";branch=z9hG4bKAbC`}},
		"SIP/2.0/UDP 192.0.2.15;;":                              {Protocol: "SIP", Version: "2.0", Transport: "UDP", SentBy: SentBy{Host: "192.0.2.15", Params: ";;"}},
	} {
		got, err := ParseVia(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, bad := range []string{
		"", "SIP/2.0/UDP", "SIP/2.0/UDP ;", "SIP/2.0/UDP h:x", "SIP/2.0/UDP h:", "SIP/2.0/UDP h:65536", "SIP/2.0 h", "h", "//UDP h",
		"SIP/2.0/UDP h x", "SIP/2.0/UDP 2001:db8::1", "SIP/2.0/UDP [::1", `SIP/2.0/UDP h;x="open`, "SIP/2.0/UDP h;\x00",
		"SIP/2.0/UDP h" + strings.Repeat(";a", 200),
	} {
		_, err := ParseVia(bad)
		require.Error(t, err, bad)
	}
	v, err := ParseVia("SIP/2.0/UDP [::ffff:1.2.3.4]:5062;BRANCH=z9hG4bKx;RPort")
	require.NoError(t, err)
	require.Equal(t, "z9hG4bKx", v.Branch())
	require.Equal(t, "SIP/2.0/UDP [::ffff:1.2.3.4]:5062;branch=z9hG4bKx;rport", v.SIP().Value())
}

func TestChallenges(t *testing.T) {
	full := Challenge{Realm: "r", Nonce: "n", QOP: []string{"auth"}}
	for text, want := range map[string]Challenge{
		`Digest realm="r",nonce="n",qop="auth"`:                            full,
		"digest\trealm=\"r\",\tnonce=\"n\"\t,\tqop=\"AUTH\"":               full,
		`DIGEST Realm="r", NONCE="n", QOP="AUTH",`:                         full,
		`Digest realm=r,nonce=n,qop=auth`:                                  full,
		`Digest x.y_z-1="a,b", realm="r", q.=a_b-c.d, nonce="n", qop=auth`: full,
		`Digest realm="r" , flag , nonce = "n" ,, qop="auth"`:              full,
		`Digest realm="r", nonce="n", qop=""`:                              {Realm: "r", Nonce: "n"},
		`Digest realm="r", nonce="n", qop="auth,Auth-Int", algorithm=MD5, stale=TRUE, userhash=true, opaque="o\"", domain="sip:a sip:b", charset=UTF-8`: {
			Realm: "r", Nonce: "n", QOP: []string{"auth", "auth-int"}, Algorithm: "MD5", Stale: true, UserHash: true,
			Opaque: `o"`, Domain: []string{"sip:a", "sip:b"}, Charset: "UTF-8",
		},
	} {
		got, err := ParseChallenge(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, bad := range []string{
		"", "Digest", `Basic realm="r"`, `Digest nonce="n"`, `Digest realm="r"`, `Digest realm="r, nonce="n"`, `Digest realm="r", nonce="open`,
		`Digestrealm="r",nonce="n"`, `Digest realm, nonce`, `Digest realm="r" x, nonce="n"`,
	} {
		_, err := ParseChallenge(bad)
		require.Error(t, err, bad)
	}
}

func TestValuesAreCutFromTheirParameters(t *testing.T) {
	for value, want := range map[string][2]string{
		"":                                {"", ""},
		"refer":                           {"refer", ""},
		" refer ; id=7":                   {"refer", "; id=7"},
		"90;refresher=uac":                {"90", ";refresher=uac"},
		"application/sdp;x=\"a;b\"":       {"application/sdp", ";x=\"a;b\""},
		`a"<b@c;to-tag=1;from-tag=2`:      {`a"<b@c`, ";to-tag=1;from-tag=2"}, // a Call-ID may have either
		";reason=timeout":                 {"", ";reason=timeout"},
		"terminated;reason=noresource;;x": {"terminated", ";reason=noresource;;x"},
	} {
		bare, params := CutParams(value)
		require.Equal(t, want, [2]string{bare, string(params)}, value)
		require.Equal(t, want[0], Bare(value), value)
	}
}

func TestTextsOfParameters(t *testing.T) {
	params := Params(` ; id = 7 ;text="say \"a;b\"";lone;;ID=8;empty=`)
	for name, want := range map[string]string{"id": "7", "TEXT": `say "a;b"`, "lone": "", "empty": "", "none": ""} {
		require.Equal(t, want, params.Text(name), name)
	}
	var names []string
	for p := range params.All() {
		names = append(names, p.Name)
	}
	require.Equal(t, []string{"id", "text", "lone", "ID", "empty"}, names)
	for first := range params.All() {
		require.Equal(t, "id", first.Name)
		break
	}
}

// RFC 3261 25.1: delta-seconds; 20.19: at most 2^32-1.
func TestSeconds(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": -1, " ": -1, "0": 0, " 90\t": 90 * time.Second, "007": 7 * time.Second, "4294967295": 4294967295 * time.Second,
		"4294967296": -1, "-1": -1, "+1": -1, "1.5": -1, "1_0": -1, "90s": -1, "0x10": -1, "9 0": -1,
	} {
		got, ok := Seconds(text)
		require.Equal(t, want >= 0, ok, text)
		require.Equal(t, max(want, 0), got, text)
	}
	require.Equal(t, "4294967295", FormatSeconds(4294967295*time.Second))
	require.Equal(t, "1", FormatSeconds(1999*time.Millisecond))
}

func TestListsContainTokens(t *testing.T) {
	for list, want := range map[string]bool{
		"": false, "timer": true, "100rel,TIMER": true, " 100rel , timer ": true, "timers": false, "x-timer": false,
		`"timer"`: false, `"a,timer,b"`: false, ",,timer": true,
	} {
		require.Equal(t, want, Contains(list, "timer"), list)
	}
}
