package transport

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSettingsOfWebSocketServers(t *testing.T) {
	for _, row := range []struct {
		url       string
		header    http.Header
		protocols []string
		wrong     string // a part of the error, or empty
	}{
		{"wss://pbx.example:8089/ws?key=value", http.Header{"Cookie": {"a=b"}}, nil, ""},
		{"WS://[2001:db8::1]", nil, []string{"sip", "x"}, ""},
		{"https://pbx.example", nil, nil, "URL"},
		{"ws://", nil, nil, "URL"},
		{"ws://user@pbx.example", nil, nil, "URL"},
		{"ws://pbx.example/#x", nil, nil, "URL"},
		{"ws://%zz", nil, nil, "URL"},
		{"ws://pbx.example", nil, []string{}, "subprotocols"},
		{"ws://pbx.example", nil, []string{"a b"}, "subprotocols"},
		{"ws://pbx.example", http.Header{"Host": {"x"}}, nil, "header"},
		{"ws://pbx.example", http.Header{"sec-websocket-key": {"x"}}, nil, "header"},
		{"ws://pbx.example", http.Header{"A B": {"x"}}, nil, "header"},
		{"ws://pbx.example", http.Header{"X": {"a\r\nb"}}, nil, "header"},
	} {
		server, err := ParseWebSocketServer(row.url, row.header, row.protocols)
		if row.wrong != "" {
			require.ErrorContains(t, err, row.wrong, row.url)
			continue
		}
		require.NoError(t, err, row.url)
		require.NotEmpty(t, server.URL.Hostname())
		require.Equal(t, row.header, server.Header)
		require.Equal(t, row.protocols, server.Protocols)
	}
}

// RFC 6454 6.2.
func TestTextsThatAreOrigins(t *testing.T) {
	for text, is := range map[string]bool{
		"https://phone.example": true, "http://phone.example:8080": true, "*": true, "null": true,
		"": false, "phone.example": false, "https://": false, "https://phone.example/": false, "https://phone.example?x": false, "%": false,
	} {
		require.Equal(t, is, IsOrigin(text), text)
	}
}
