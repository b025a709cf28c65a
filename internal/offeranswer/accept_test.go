package offeranswer_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/multipart"
	"sipdialog.example/dialog/internal/offeranswer"
)

// RFC 5621 8: which bodies are accepted.
func TestBodiesThatAreAccepted(t *testing.T) {
	types := []string{"application/sdp", "text/plain;charset=utf-8"}
	for name, row := range map[string]struct {
		whole, parts string // the parts are separated by spaces; "?" before one: it is optional
		accepted     bool
	}{
		"one of the types":            {"application/sdp", "", true},
		"in capitals":                 {"Application/SDP", "", true},
		"other parameters":            {"text/plain;charset=latin1", "", true},
		"another type":                {"application/pidf+xml", "", false},
		"two of the types":            {"multipart/mixed;boundary=b", "application/sdp text/plain", true},
		"a part of another type":      {"multipart/mixed;boundary=b", "application/sdp text/html", false},
		"an optional part of another": {"multipart/mixed;boundary=b", "application/sdp ?text/html", true},
		"an alternative":              {"multipart/alternative;boundary=b", "text/html application/sdp", true},
		"no alternative":              {"multipart/alternative;boundary=b", "text/html text/xml", false},
		"no parts":                    {"multipart/mixed;boundary=b", "", false},
	} {
		body := ""
		for _, part := range strings.Fields(row.parts) {
			kind, optional := strings.CutPrefix(part, "?")
			body += "--b\r\nContent-Type: " + kind + "\r\n"
			if optional {
				body += "Content-Disposition: render;handling=optional\r\n"
			}
			body += "\r\nx\r\n"
		}
		if body != "" {
			body += "--b--\r\n"
		}
		require.Equal(t, row.accepted, offeranswer.Accepts(types, multipart.Part{Type: row.whole, Data: []byte(body)}), name)
	}
}

func TestMediaRangesWithSDPInThem(t *testing.T) {
	for text, covers := range map[string]bool{
		"application/sdp": true, "Application/SDP;level=1": true, "application/*": true, "*/*;q=0.1": true, "application / sdp": true,
		"text/plain": false, "text/*": false, "": false, "application/sdp2": false,
	} {
		require.Equal(t, covers, offeranswer.CoversSDP(text), text)
	}
}
