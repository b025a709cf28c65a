package dialog

import (
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/transport"
)

// The Contact of a response that nobody changes is written as the header is.
func TestContactTextIsThatOfTheHeader(t *testing.T) {
	for _, user := range []string{"", "us", "a%20b", "+1;x=y"} {
		for _, host := range []string{"10.0.0.1", "2001:db8::1", "[2001:db8::1]", "name.example"} {
			for _, port := range []int{0, 5060} {
				for _, name := range []string{"", "UDP", "TCP", "TLS", "WS", "WSS"} {
					for _, secure := range []bool{false, true} {
						local := transport.Local{Transport: name, Host: host, Port: port}
						require.Equal(t, contactFor(user, local, secure).Value(), contactText(user, local, secure))
					}
				}
			}
		}
	}
}

// What a Contact of ours is not written for to find out is what writing it would say.
func TestPlainContactsCanBeWritten(t *testing.T) {
	c := contactFor("us", transport.Local{Transport: "TCP", Host: "10.0.0.1", Port: 5060}, false)
	require.True(t, isPlainContact(c))
	require.NoError(t, checkOwnHeader(c))
	for _, spoil := range []func(){
		func() { c.Address.User = "a b" }, func() { c.Address.User, c.Address.Host = "us", "h\r\nX: y" }, func() { c.Address.Host = "h>" },
		func() { c.Address.Host, c.Address.UriParams[0].V = "h", "t\n" }, func() { c.Address.UriParams[0].K, c.Address.UriParams[0].V = "<", "t" },
	} {
		spoil()
		require.False(t, isPlainContact(c), c.Value())
		require.Error(t, checkOwnHeader(c), c.Value())
	}
}
