package wellformed

import (
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"
)

// A Contact that passes the short check would pass if it were written.
func TestPlainContactsCanBeWritten(t *testing.T) {
	c := &sip.ContactHeader{Address: sip.Uri{
		Scheme: "sip", User: "us", Host: "10.0.0.1", Port: 5060, UriParams: sip.HeaderParams{{K: "transport", V: "tcp"}},
	}}
	require.True(t, isPlainContact(c))
	require.NoError(t, Header(c))
	for _, spoil := range []func(){
		func() { c.Address.User = "a b" }, func() { c.Address.User, c.Address.Host = "us", "h\r\nX: y" }, func() { c.Address.Host = "h>" },
		func() { c.Address.Host, c.Address.UriParams[0].V = "h", "t\n" }, func() { c.Address.UriParams[0].K, c.Address.UriParams[0].V = "<", "t" },
	} {
		spoil()
		require.False(t, isPlainContact(c), c.Value())
		require.Error(t, Header(c), c.Value())
	}
}
