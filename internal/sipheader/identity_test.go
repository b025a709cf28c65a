package sipheader_test

import (
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/sipheader"
)

func TestAddressesAsText(t *testing.T) {
	uri := sip.Uri{Scheme: "sip", User: "bob", Host: "b.example"}
	for name, want := range map[string]string{
		"": "<sip:bob@b.example>", "Bob": `"Bob" <sip:bob@b.example>`, `B "b"`: `"B \"b\"" <sip:bob@b.example>`, "a\r\nb": `"a  b" <sip:bob@b.example>`,
	} {
		require.Equal(t, want, sipheader.NameAddr{Display: name, URI: uri}.Text())
	}
}

func TestParametersAsText(t *testing.T) {
	for value, want := range map[string]string{"": "", "user-busy": ";reason=user-busy", "a b": `;reason="a b"`, `a"b`: `;reason="a\"b"`, "a\r\nb": `;reason="a  b"`} {
		require.Equal(t, want, sipheader.ParamText("reason", value))
	}
}

func TestParametersOfAddresses(t *testing.T) {
	a := sipheader.Address{Params: sip.HeaderParams{{K: "reason", V: `"no answer"`}, {K: "Index", V: "1.2"}}}
	require.Equal(t, "no answer", a.Param("reason"))
	require.Equal(t, "1.2", a.Param("index"))
	require.Empty(t, a.Param("counter"))
}

// RFC 3323 4.2.
func TestPrivacyValues(t *testing.T) {
	res := sip.NewResponse(200, "OK")
	require.Empty(t, sipheader.Privacy(res))
	res.AppendHeader(sip.NewHeader("Privacy", "id; Critical ;;"))
	res.AppendHeader(sip.NewHeader("privacy", "header,user"))
	require.Equal(t, []string{"id", "critical", "header", "user"}, sipheader.Privacy(res))
}
