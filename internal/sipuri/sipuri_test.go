package sipuri

import (
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"
)

// The examples of RFC 3261 19.1.4, and a few more.
func TestURIsAreComparedAsTheRFCHasIt(t *testing.T) {
	equal := [][2]string{
		{"sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"},
		{"sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"},
		{"sip:carol@chicago.com;security=on", "sip:carol@chicago.com"},
		{"sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com", "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com"},
		{"sip:alice@atlanta.com?subject=project%20x&priority=urgent", "sip:alice@atlanta.com?priority=urgent&subject=project%20x"},
		{"sip:a%2fb@example.com", "sip:a%2Fb@example.com"},
	}
	different := [][2]string{
		{"sip:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"},
		{"sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"},
		{"sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"},
		{"sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"},
		{"sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"},
		{"sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"},
		{"sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"},
		{"sip:bob@biloxi.com", "sips:bob@biloxi.com"},
		{"sip:bob@biloxi.com;maddr=192.0.2.1", "sip:bob@biloxi.com"},
		{"sip:bob@biloxi.com", "sip:bob:word@biloxi.com"},
		{"sip:a%2Fb@example.com", "sip:a/b@example.com"},
		{"sip:a%zz@example.com", "sip:a@example.com"},
	}
	for want, pairs := range map[bool][][2]string{true: equal, false: different} {
		for _, pair := range pairs {
			a, b := parsedURI(t, pair[0]), parsedURI(t, pair[1])
			require.Equal(t, want, Same(a, b), "%v", pair)
			require.Equal(t, want, Same(b, a), "%v", pair)
		}
	}
}

func parsedURI(t *testing.T, text string) sip.Uri {
	t.Helper()
	var uri sip.Uri
	require.NoError(t, sip.ParseUri(text, &uri))
	return uri
}

// RFC 3261 7.3.1, 19.1.1: names of parameters may be in any case.
func TestParametersOfURIs(t *testing.T) {
	uri := parsedURI(t, "sip:bob@biloxi.com;Transport=TCP;lr;transport=udp;x=%41")
	for name, want := range map[string]string{"transport": "TCP", "TRANSPORT": "TCP", "lr": "", "x": "%41"} {
		value, found := Param(uri.UriParams, name)
		require.True(t, found, name)
		require.Equal(t, want, value)
	}
	_, found := Param(uri.UriParams, "maddr")
	require.False(t, found)
	require.True(t, IsLoose(uri))
	RemoveParam(&uri.UriParams, "TRANSPORT")
	RemoveParam(&uri.UriParams, "LR")
	require.Equal(t, sip.HeaderParams{{K: "x", V: "%41"}}, uri.UriParams)
	require.False(t, IsLoose(uri))
	require.Equal(t, "A b%", UnescapeAll("%41%20b%25"))
	require.Equal(t, "%zz", UnescapeAll("%zz"), "what cannot be undone stays")
}

// RFC 3261 8.1.1.8, 12.1.1.
func TestTargetsAreSIPOrSIPS(t *testing.T) {
	for text, want := range map[string][2]bool{
		"sip:bob@biloxi.com": {true, false}, "SIPS:bob@biloxi.com": {true, true}, "tel:+15551234": {false, false},
	} {
		uri := parsedURI(t, text)
		require.Equal(t, want, [2]bool{IsTarget(uri), IsSIPS(uri)}, text)
	}
	require.False(t, IsTarget(sip.Uri{Scheme: "sip"}), "no host")
	require.False(t, IsTarget(sip.Uri{Scheme: "sip", Host: "*", Wildcard: true}))
	require.True(t, SameOfAny(parsedURI(t, "tel:+15551234"), parsedURI(t, "TEL:+15551234")))
	require.False(t, SameOfAny(parsedURI(t, "tel:+15551234"), parsedURI(t, "tel:+15551235")))
}
