package sipheader

import (
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"
)

// A party that is put aside as text is the same one; what cannot be text stays.
func TestPartyAsTextIsTheSameParty(t *testing.T) {
	for _, text := range []string{
		"<sip:a@b>", "Bob <sip:a:p@b:5070;lr;x=y?h=v>", `"A \"B\", C" <sips:[2001:db8::1]>`, "<tel:+1-201-555-0123;phone-context=example.com>", "<sip://@b>",
	} {
		known := Party{text: text}.NameAddr().Party()
		short := known.AsText()
		require.Nil(t, short.known, text)
		require.Equal(t, known.NameAddr(), short.NameAddr(), text)
		require.Equal(t, short, short.AsText())
	}
	for _, odd := range []NameAddr{{}, {URI: sip.Uri{Scheme: "sip", Host: "a b"}}, {Display: "x\"", URI: sip.Uri{Scheme: "sip", Host: "h"}}} {
		require.Equal(t, odd, odd.Party().AsText().NameAddr())
	}
}
