package sipmsg

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDigestCredentials(t *testing.T) {
	got, err := ParseCredentials(`digest  USERNAME="a\"b", realm = "r,s" ,nonce="n=",uri="sip:b@c;x=y",response="0f", algorithm=md5, ` +
		`cnonce="c", qop="AUTH", nc=0000000a, opaque="o", other=1,,`)
	require.NoError(t, err)
	require.Equal(t, Credentials{
		Username: `a"b`, Realm: "r,s", Nonce: "n=", URI: "sip:b@c;x=y", Response: "0f",
		Algorithm: "md5", Cnonce: "c", QOP: "auth", Count: 10,
	}, got)
	for _, bad := range []string{
		"", "Digest", `Basic username="a"`, `Digest username="a`, `Digest username="a"b`, `Digest a b="c"`,
		`Digest nc=x`, `Digest nc=1, nc=x`, `Digest nc=100000000`, `Digest nc=-1`, `Digest nc`,
	} {
		_, err := ParseCredentials(bad)
		require.Error(t, err, bad)
	}
}
