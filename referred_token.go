package dialog

import (
	"bufio"
	"bytes"
	"mime"
	"net/textproto"
	"strings"

	"sipdialog.example/dialog/internal/multipart"
)

// The Referred-By token (RFC 3892 4): a part of a REFER's body by which the
// referrer proves to the refer target who it is. Who follows the REFER hands it
// on as it stands.

// maxToken bounds a token: a signature, with certificates.
const maxToken = 32 << 10

// tokenOf returns the part of a REFER's body that its Referred-By names by cid,
// with its headers, or nil when there is none.
func tokenOf(refer message) []byte {
	id := contentIDIn(headerValue(refer, "Referred-By"))
	mediaType, params, err := mime.ParseMediaType(headerValue(refer, "Content-Type"))
	if id == "" || err != nil || !strings.HasPrefix(mediaType, "multipart/") || params["boundary"] == "" {
		return nil
	}
	for _, part := range multipart.Split(refer.Body(), params["boundary"]) {
		// A reader for each part would be 4 KiB for each.
		if len(part) <= maxToken && bytes.Contains(part, []byte(id)) && isTokenPart(part, id) {
			return bytes.Clone(part)
		}
	}
	return nil
}

// contentIDIn returns the Content-ID that a Referred-By names (RFC 3892 3).
func contentIDIn(referredBy string) string {
	if id, _ := HeaderParam(referredBy, "cid"); id != "" {
		return "<" + id + ">"
	}
	return ""
}

// isTokenPart reports whether a part has that Content-ID and is an authenticated
// identity body in S/MIME (RFC 3892 4). Other parts, such as a session, are not taken:
// a referrer must not describe a session in our name.
func isTokenPart(part []byte, id string) bool {
	header, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(part))).ReadMIMEHeader()
	if err != nil || header.Get("Content-Id") != id {
		return false
	}
	switch strings.ToLower(mediaType(header.Get("Content-Type"))) {
	case "multipart/signed", "application/pkcs7-mime":
		return true
	}
	return false
}

// withToken returns a multipart body with the token beside body (RFC 3892 2.2, RFC 5621
// 4), or body itself without a token.
func withToken(body Body, token []byte) Body {
	if len(token) == 0 {
		return body
	}
	boundary := "part-" + randomHex(12)
	var b bytes.Buffer
	if !isNilBody(body) && len(body.Data()) > 0 {
		b.WriteString("--" + boundary + "\r\nContent-Type: " + oneLine(body.ContentType()) + "\r\n\r\n")
		b.Write(body.Data())
		b.WriteString("\r\n")
	}
	b.WriteString("--" + boundary + "\r\n")
	b.Write(token)
	b.WriteString("\r\n--" + boundary + "--\r\n")
	return NewBody("multipart/mixed;boundary="+boundary, b.Bytes())
}
