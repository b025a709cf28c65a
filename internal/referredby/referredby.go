// Package referredby finds and hands on the Referred-By token (RFC 3892 4): a part of a
// REFER's body by which the referrer proves to the refer target who it is. Who follows
// the REFER hands it on as it stands.
package referredby

import (
	"bufio"
	"bytes"
	"mime"
	"net/textproto"
	"strings"

	"sipdialog.example/dialog/internal/multipart"
	"sipdialog.example/dialog/internal/sipmsg"
)

// maxToken bounds a token: a signature, with certificates.
const maxToken = 32 << 10

// Token returns the part of a REFER's body that its Referred-By names by cid, with its
// headers, or nil when there is none.
func Token(referredBy, contentType string, body []byte) []byte {
	id := contentID(referredBy)
	mediaType, params, err := mime.ParseMediaType(contentType)
	if id == "" || err != nil || !strings.HasPrefix(mediaType, "multipart/") || params["boundary"] == "" {
		return nil
	}
	for _, part := range multipart.Split(body, params["boundary"]) {
		// A reader for each part would be 4 KiB for each.
		if len(part) <= maxToken && bytes.Contains(part, []byte(id)) && isTokenPart(part, id) {
			return bytes.Clone(part)
		}
	}
	return nil
}

// contentID returns the Content-ID that a Referred-By names (RFC 3892 3).
func contentID(referredBy string) string {
	_, params, _ := sipmsg.Cut(referredBy, ';')
	if id := sipmsg.Params(";" + params).Text("cid"); id != "" {
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
	switch strings.ToLower(sipmsg.Bare(header.Get("Content-Type"))) {
	case "multipart/signed", "application/pkcs7-mime":
		return true
	}
	return false
}

// Beside returns a multipart body with the token beside another body, which may be empty
// (RFC 3892 2.2, RFC 5621 4). The boundary must not occur in either.
func Beside(bodyType string, body, token []byte, boundary string) (contentType string, both []byte) {
	var b bytes.Buffer
	if len(body) > 0 {
		b.WriteString("--" + boundary + "\r\nContent-Type: " + bodyType + "\r\n\r\n")
		b.Write(body)
		b.WriteString("\r\n")
	}
	b.WriteString("--" + boundary + "\r\n")
	b.Write(token)
	b.WriteString("\r\n--" + boundary + "--\r\n")
	return "multipart/mixed;boundary=" + boundary, b.Bytes()
}
