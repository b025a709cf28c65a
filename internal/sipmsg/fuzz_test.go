package sipmsg

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"
)

// tortures are the messages of RFC 4475 and RFC 5118, with both line ends.
func tortures(t testing.TB) [][]byte {
	var list [][]byte
	for _, pattern := range []string{"*.dat", "ipv6/*.dat", "extra/*.dat"} {
		names, err := filepath.Glob(filepath.Join(tortureDir, pattern))
		require.NoError(t, err)
		require.NotEmpty(t, names)
		for _, name := range names {
			data, err := os.ReadFile(name)
			require.NoError(t, err)
			list = append(list, data, bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")))
		}
	}
	return list
}

// seedValues adds the values of some header fields of the torture messages.
func seedValues(f *testing.F, names ...string) {
	for _, data := range tortures(f) {
		if m := whole(data); m != nil {
			for _, name := range names {
				for _, value := range m.Values(name) {
					f.Add(value)
				}
			}
		}
	}
	for _, value := range []string{
		odd, "SIP/2.0/UDP h;oc;oc-algo=\"loss\";x=\"a\\\"b\";y=\"a,b\"", "<sip:127.0.0.1:5070;lr;received=[2001:db8::1]>;state=abc",
		`"a\"b,c" <sip:a@b>;x="a\"b,c"`, `<sip:u@h;transport=ws;+sip.ice="a?>b">;expires=5`, "<sip:b@h;LR>;Tag=x", `sip:a@b;x="<sip:c>"`,
		`"`, `\`, "<", ">", `"\`, "<\"", ";=", ";;", ",", "*", "sip:", "sip:@", "sip:[", "sip:h:", "SIP/ /", "\x00", "\xff",
	} {
		f.Add(value)
	}
}

// A list falls into values that do not fall any further, and nothing is lost.
func FuzzList(f *testing.F) {
	seedValues(f, "Via", "Contact", "Route", "UnknownHeaderWithUnusualValue", "Warning")
	f.Fuzz(func(t *testing.T, list string) {
		joined := ""
		for rest, more := list, true; more; {
			var value string
			value, rest, more = Cut(rest, ',')
			again, _, found := Cut(value, ',')
			require.Equal(t, value, again)
			require.False(t, found)
			joined += value
		}
		plain := func(s string) string { return strings.NewReplacer(" ", "", "\t", "", ",", "").Replace(s) }
		require.Equal(t, plain(list), plain(joined))
	})
}

func FuzzQuoted(f *testing.F) {
	seedValues(f, "To", "From", "Subject")
	f.Fuzz(func(t *testing.T, s string) {
		require.Equal(t, s, Unquote(Quote(s)))
		require.Equal(t, len(Quote(s)), quotedEnd(Quote(s), 0))
		_ = Unquote(s)
		_ = Unescape(s)
	})
}

// Parameters that are valid read the same once they have been written.
func FuzzParams(f *testing.F) {
	seedValues(f, "Via", "Contact", "From", "To")
	f.Fuzz(func(t *testing.T, s string) {
		p := Params(s)
		total := 0
		for {
			first, rest, ok := p.Next()
			if !ok {
				break
			}
			total += len(first.Name) + len(first.Value)
			require.Less(t, len(rest), len(p))
			p = rest
		}
		require.LessOrEqual(t, total, len(s))
		if p = Params(s); !p.Valid() {
			return
		}
		list := p.appendTo(nil, false)
		for _, kv := range list {
			if kv.K == "" || kv.V == "" && strings.Contains(s, "=") || strings.ContainsAny(kv.K+kv.V, lws) {
				return // sipgo leaves the equals sign out, and quotes what has white space
			}
		}
		if len(list) > 0 {
			require.Equal(t, list, Params(";"+list.ToString(';')).appendTo(nil, false))
		}
	})
}

// A URI that was read is the same when its struct has been written.
func FuzzURI(f *testing.F) {
	seedValues(f, "Contact", "From", "To")
	f.Add("sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com")
	f.Add("sip:@0;0@")
	f.Fuzz(func(t *testing.T, s string) {
		uri, err := ToURI(s)
		if err != nil {
			return
		}
		again, err := ToURI(uri.String())
		if len(uri.UriParams) == 0 || !strings.ContainsAny(s, "= \t\"") {
			require.NoError(t, err, uri.String())
			require.Equal(t, uri.String(), again.String())
		}
	})
}

func FuzzAddress(f *testing.F) {
	seedValues(f, "Contact", "From", "To", "Route", "Record-Route", "Refer-To")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(a.Display)+len(a.URI)+len(a.Params), len(s))
		// The brackets written, it reads the same.
		again, err := ParseAddress(a.Display + " <" + a.URI + ">" + string(a.Params))
		if strings.HasPrefix(trim(s), "<") || a.Display != "" {
			require.NoError(t, err)
			require.Equal(t, a, again)
		}
		_, _, _, _ = ToAddress(s)
	})
}

// A Via is repeated byte for byte, received and rport apart.
func FuzzVia(f *testing.F) {
	seedValues(f, "Via")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseVia(s)
		if err != nil {
			return
		}
		_ = v.SIP().Value()
		_, own := v.Params.Get("received")
		_, rport := v.Params.Get("rport")
		if !own && !rport {
			require.Equal(t, s, string(appendMarked(nil, s, peer, false)))
			require.Equal(t, s+";received=192.0.2.7", string(appendMarked(nil, s, peer, true)))
		}
		marked, err := ParseVia(string(appendMarked(nil, s, peer, true)))
		if trim(string(v.Params)) != "" || trimRight(s) == s {
			require.NoError(t, err)
			require.Equal(t, v.Branch(), marked.Branch())
		}
	})
}

func FuzzChallenge(f *testing.F) {
	seedValues(f, "WWW-Authenticate", "Authorization")
	for _, text := range []string{
		`Digest realm="r",nonce="n",qop="auth"`, "digest\trealm=\"r\",\tNONCE=\"n\"\t,\tqop=\"AUTH\",", `Digest x.y_z-1="a,b", realm=r, nonce=n, qop=""`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseChallenge(s)
		if err != nil {
			return
		}
		again, err := ParseChallenge("Digest realm=" + Quote(c.Realm) + ",nonce=" + Quote(c.Nonce) + ",opaque=" + Quote(c.Opaque) +
			",qop=" + Quote(strings.Join(c.QOP, ",")) + ",algorithm=" + Quote(c.Algorithm))
		require.NoError(t, err)
		require.Equal(t, []string{c.Realm, c.Nonce, c.Opaque, c.Algorithm}, []string{again.Realm, again.Nonce, again.Opaque, again.Algorithm})
		require.Equal(t, c.QOP, again.QOP)
	})
}

// Any input is read or refused without a panic, the memory is not much more than the input,
// and each response can be read by its receiver.
func FuzzMessage(f *testing.F) {
	for _, data := range tortures(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := whole(data)
		if m == nil {
			return
		}
		m.Arrived("UDP", peer)
		require.LessOrEqual(t, len(m.Text()), 2*len(data))
		_ = m.SIP().String()
		if !m.IsRequest() {
			return
		}
		short := m.AppendReply(nil, &Reply{Code: 400, Reason: "Bad Request", Tag: "ours"})
		answer := whole(short)
		require.NotNil(t, answer)
		require.Equal(t, len(m.Values("Via")), len(answer.Values("Via")))
		if m.Fault != nil {
			return
		}
		require.Nil(t, answer.Fault)
		require.Equal(t, m.Vias, answer.Vias)
		require.Equal(t, m.CallID, answer.CallID)
		require.Equal(t, m.FromTag, answer.FromTag)
		require.Equal(t, m.Values("From"), answer.Values("From"))
		require.Equal(t, m.Values("CSeq"), answer.Values("CSeq"))
		require.Equal(t, short, m.AppendResponse(nil, m.NewReply(400, "Bad Request", "ours")))
	})
}

// Input that both sipgo's parser and this one can read is read the same way; but for quotes,
// brackets, lists and bare line feeds, which sipgo gets wrong.
func FuzzAgainstSipgo(f *testing.F) {
	for _, data := range tortures(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.ContainsAny(data, "\"\\[,") || bytes.Count(data, []byte("\n")) != bytes.Count(data, []byte(crlf)) {
			return
		}
		theirs, err := sip.NewParser().ParseSIP(bytes.Clone(data))
		m := whole(data)
		if err != nil || m == nil || m.Fault != nil {
			return
		}
		if id := theirs.CallID(); id != nil && m.CallID != "" {
			require.Equal(t, m.CallID, trim(string(*id)))
		}
		if cseq := theirs.CSeq(); cseq != nil && m.CSeqMethod != "" && len(m.Values("CSeq")) == 1 {
			require.Equal(t, m.CSeq, cseq.SeqNo)
		}
		for _, pair := range [][2]*sip.Uri{uris(m.SIP(), theirs, (*sip.Request).To), uris(m.SIP(), theirs, (*sip.Request).From)} {
			if ours, other := pair[0], pair[1]; ours != nil && other != nil && !strings.ContainsAny(ours.String(), "@;? ") {
				if _, err := ParseURI(ours.String()); err == nil { // sipgo does not look at what it reads
					require.Equal(t, ours.String(), other.String())
				}
			}
		}
	})
}

func uris[H *sip.ToHeader | *sip.FromHeader](ours, theirs sip.Message, get func(*sip.Request) H) (pair [2]*sip.Uri) {
	for i, msg := range []sip.Message{ours, theirs} {
		if req, ok := msg.(*sip.Request); ok {
			switch h := any(get(req)).(type) {
			case *sip.ToHeader:
				if h != nil {
					pair[i] = &h.Address
				}
			case *sip.FromHeader:
				if h != nil {
					pair[i] = &h.Address
				}
			}
		}
	}
	return pair
}
