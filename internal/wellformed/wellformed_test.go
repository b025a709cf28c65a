package wellformed_test

import (
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/wellformed"
)

func TestTextsAndTokens(t *testing.T) {
	for text, fine := range map[string]bool{
		"": true, "busy here": true, "a\tb": true, "grüße": true,
		"a\r\nVia: x": false, "a\nb": false, "a\x00b": false, "a\x7f": false,
	} {
		require.Equal(t, fine, wellformed.Text("x", text) == nil, "%q", text)
		require.Equal(t, fine, wellformed.IsOneLine(text), "%q", text)
	}
	for text, fine := range map[string]bool{"X-Id": true, "100rel": true, "": false, "a b": false, "a:": false, "a\n": false} {
		require.Equal(t, fine, wellformed.Token("x", text) == nil, "%q", text)
	}
}

func TestURIsReadBackUnchanged(t *testing.T) {
	host := "example.com"
	params := func(kv ...string) (p sip.HeaderParams) {
		for i := 0; i < len(kv); i += 2 {
			p = append(p, sip.HeaderKV{K: kv[i], V: kv[i+1]})
		}
		return p
	}
	for name, row := range map[string]struct {
		uri         sip.Uri
		uriOK, goal bool // taken by URI, by Target
	}{
		"plain":               {sip.Uri{Scheme: "sip", User: "a", Host: host, Port: 5070}, true, true},
		"IPv6":                {sip.Uri{Scheme: "sip", Host: "2001:db8::1"}, true, true},
		"parameters":          {sip.Uri{Scheme: "sips", Host: host, UriParams: params("transport", "tcp", "lr", "")}, true, true},
		"a header":            {sip.Uri{Scheme: "sip", Host: host, Headers: params("Replaces", "a%3Bb")}, true, true},
		"no host":             {sip.Uri{Scheme: "sip", User: "a"}, false, false},
		"the star":            {sip.Uri{Wildcard: true, Host: host}, false, false},
		"a space":             {sip.Uri{Scheme: "sip", User: "a b", Host: host}, false, false},
		"a line end":          {sip.Uri{Scheme: "sip", User: "a\r\nVia", Host: host}, false, false},
		"a bracket":           {sip.Uri{Scheme: "sip", User: "a>", Host: host}, false, false},
		"a host in the user":  {sip.Uri{Scheme: "sip", User: "a@evil.example", Host: host}, false, false},
		"a param in the host": {sip.Uri{Scheme: "sip", Host: "example.com;lr"}, false, false},
		"two in a parameter":  {sip.Uri{Scheme: "sip", Host: host, UriParams: params("x", "1;y=2")}, false, false},
		"a nameless one":      {sip.Uri{Scheme: "sip", Host: host, UriParams: params("", "1")}, false, false},
		"two in a header":     {sip.Uri{Scheme: "sip", Host: host, Headers: params("Subject", "a&Route=b")}, false, false},
	} {
		require.Equal(t, row.uriOK, wellformed.URI("x", row.uri) == nil, name)
		require.Equal(t, row.goal, wellformed.Target("x", row.uri) == nil, name)
	}
	var tel sip.Uri
	require.NoError(t, sip.ParseUri("tel:+15551234", &tel))
	require.NoError(t, wellformed.URI("x", tel))
	require.ErrorContains(t, wellformed.Target("x", tel), "RFC 3261 19.1.6")
	require.NoError(t, wellformed.Address("From", "Alice", sip.Uri{User: "alice"}), "its host is filled in")
	require.Error(t, wellformed.Address("From", "Al\nice", sip.Uri{User: "alice"}))
}

func TestHeadersReadBackUnchanged(t *testing.T) {
	uri := sip.Uri{Scheme: "sip", User: "a", Host: "example.com"}
	bad := sip.Uri{Scheme: "sip", User: "a>", Host: "example.com"}
	for name, row := range map[string]struct {
		header sip.Header
		fine   bool
	}{
		"plain":                       {sip.NewHeader("X-Id", "1"), true},
		"a name that is no token":     {sip.NewHeader("X Id", "1"), false},
		"a value of two lines":        {sip.NewHeader("X-Id", "1\r\nRoute: x"), false},
		"our Contact":                 {&sip.ContactHeader{Address: uri}, true},
		"a Contact beyond its end":    {&sip.ContactHeader{Address: bad}, false},
		"a star":                      {&sip.ContactHeader{Address: sip.Uri{Wildcard: true}}, true},
		"an escaped name":             {&sip.FromHeader{DisplayName: `A \"B\" \\`, Address: uri}, true},
		"a name that ends its quotes": {&sip.FromHeader{DisplayName: `A" <sip:b>`, Address: uri}, false},
		"a name that opens them":      {&sip.ToHeader{DisplayName: `A\`, Address: uri}, false},
		"a route beyond its end":      {&sip.RouteHeader{Address: bad}, false},
		"a Record-Route":              {&sip.RecordRouteHeader{Address: uri}, true},
		"a Refer-To beyond its end":   {&sip.ReferToHeader{Address: bad}, false},
	} {
		require.Equal(t, row.fine, wellformed.Header(row.header) == nil, name)
	}
}

func TestHeadersOfWhichThereIsOne(t *testing.T) {
	one, two := sip.NewHeader("From", "<sip:a@b>"), sip.NewHeader("f", "<sip:c@d>")
	require.NoError(t, wellformed.Single([]sip.Header{one, sip.NewHeader("Route", "x"), sip.NewHeader("Route", "y")}))
	require.ErrorContains(t, wellformed.Single([]sip.Header{one, two}), "From 2 times")
}
