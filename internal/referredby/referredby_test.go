package referredby_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/referredby"
)

const (
	referrer = `"Bob, of b" <sip:bob@example.com>;cid="20398823.2UWQFN309shb3@referrer.example"`
	token    = "Content-Type: multipart/signed;boundary=x\r\nContent-ID: <20398823.2UWQFN309shb3@referrer.example>\r\n\r\nthe proof"
)

func TestTheTokenIsThePartThatReferredByNames(t *testing.T) {
	session := "Content-Type: application/sdp\r\nContent-ID: <20398823.2UWQFN309shb3@referrer.example>\r\n\r\nv=0"
	join := func(parts ...string) []byte {
		return []byte("--b\r\n" + strings.Join(parts, "\r\n--b\r\n") + "\r\n--b--\r\n")
	}
	const mixed = "multipart/mixed;boundary=b"
	for name, row := range map[string]struct {
		referredBy, contentType string
		body                    []byte
		want                    string
	}{
		"alone":                {referrer, mixed, join(token), token},
		"the second":           {referrer, mixed, join("Content-Type: text/plain\r\n\r\nx", token), token},
		"of another type":      {referrer, mixed, join(session), ""},
		"another Content-ID":   {referrer, mixed, join(strings.Replace(token, "2039", "2038", 1)), ""},
		"named in its text":    {referrer, mixed, join("Content-Type: multipart/signed\r\n\r\n<20398823.2UWQFN309shb3@referrer.example>"), ""},
		"no cid":               {"<sip:bob@example.com>", mixed, join(token), ""},
		"a cid of the URI":     {"<sip:bob@example.com;cid=a>", mixed, join(token), ""},
		"no Referred-By":       {"", mixed, join(token), ""},
		"no multipart":         {referrer, "text/plain;boundary=b", join(token), ""},
		"no boundary":          {referrer, "multipart/mixed", join(token), ""},
		"no type":              {referrer, "", join(token), ""},
		"longer than a token":  {referrer, mixed, join(token + strings.Repeat("x", 32<<10)), ""},
		"PKCS #7, in any case": {referrer, mixed, join(strings.Replace(token, "multipart/signed", "Application/PKCS7-mime", 1)), strings.Replace(token, "multipart/signed", "Application/PKCS7-mime", 1)},
	} {
		require.Equal(t, row.want, string(referredby.Token(row.referredBy, row.contentType, row.body)), name)
	}
}

func TestTheTokenIsHandedOnBesideABody(t *testing.T) {
	for _, body := range []string{"", "v=0\r\n"} {
		contentType, both := referredby.Beside("application/sdp", []byte(body), []byte(token), "part-1")
		require.Equal(t, token, string(referredby.Token(referrer, contentType, both)))
		require.Equal(t, body != "", strings.Contains(string(both), "Content-Type: application/sdp\r\n\r\n"+body))
		require.Equal(t, body == "", strings.HasPrefix(string(both), "--part-1\r\n"+token))
	}
}
