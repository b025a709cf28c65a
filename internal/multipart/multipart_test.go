package multipart

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// crlf converts the line ends of a text to CRLF.
func crlf(text string) string { return strings.ReplaceAll(text, "\n", "\r\n") }

// summary returns the result of Parts, one line for each part.
func summary(contentType, body string) []string {
	var lines []string
	for _, p := range Parts(Part{Type: contentType, Data: []byte(body)}) {
		line := fmt.Sprintf("%s|%s|%s|%q", p.Type, p.Disposition, p.Encoding, p.Data)
		if p.Offset >= 0 && body[p.Offset:p.Offset+len(p.Data)] != string(p.Data) {
			line += " is not there"
		}
		if p.Offset < 0 {
			line += " decoded"
		}
		if p.Alternative {
			line += " alternative"
		}
		lines = append(lines, line)
	}
	return lines
}

// FS4, RFC 2046 5.1, RFC 5621: the parts of a body.
func TestPartsOfABody(t *testing.T) {
	const one = "--b\nContent-Type: a/b\n\nx\n--b--\n"
	for name, c := range map[string]struct {
		contentType, body string
		parts             []string
	}{
		"no parts":             {"application/sdp", "v=0\n", []string{`application/sdp|||"v=0\r\n"`}},
		"no boundary":          {"multipart/mixed", one, nil},
		"empty boundary":       {`multipart/mixed;boundary=""`, "--\n\nx\n----", nil},
		"no kind of multipart": {"multipart/", "x", []string{`multipart/|||"x"`}},
		"a quote in quotes":    {`multipart/mixed;x="\";boundary=c";boundary=b`, one, []string{`a/b|||"x"`}},
		"one":                  {"multipart/mixed;boundary=b", one, []string{`a/b|||"x"`}},
		"quoted boundary":      {`Multipart/Mixed; charset="x;boundary=c"; Boundary = "b"`, one, []string{`a/b|||"x"`}},
		"escaped boundary":     {`multipart/mixed;boundary="\b"`, one, []string{`a/b|||"x"`}},
		"odd boundary":         {"multipart/mixed;boundary=--=_Part:1", "----=_Part:1\n\nx\n----=_Part:1--", []string{`|||"x"`}},
		"boundary with spaces": {`multipart/mixed;boundary="a b"`, "--a b\n\nx\n--a b--", []string{`|||"x"`}},
		"preamble, epilogue":   {"multipart/mixed;boundary=b", "hello\n--bx\n" + one + "\n--b\n\ny\n--b--", []string{`a/b|||"x"`}},
		"padding":              {"multipart/mixed;boundary=b", "--b \t\n\nx\n--b \n\ny\n--b-- \n", []string{`|||"x"`, `|||"y"`}},
		"no header":            {"multipart/mixed;boundary=b", "--b\n\nx\n\ny\n--b--\n", []string{`|||"x\r\n\r\ny"`}},
		"all headers":          {"multipart/mixed;boundary=b", "--b\nCONTENT-TYPE:a/b;\n c=d\nContent-Disposition: session ; handling=required\nContent-Encoding: gzip\nContent-ID: <x>\n\nx\n--b--\n", []string{`a/b; c=d|session ; handling=required|gzip|"x"`}},
		"nothing in it":        {"multipart/mixed;boundary=b", "--b\nContent-Type: a/b\n\n--b\n--b--\n", []string{`a/b|||""`, `|||""`}},
		"not ended":            {"multipart/mixed;boundary=b", "--b\n\nx\n--b\n\ny\n", []string{`|||"x"`, `|||"y\r\n"`}},
		"a delimiter inside":   {"multipart/mixed;boundary=b", "--b\n\nx --b\n--bb\n --b\n--b-\n--b--\n", []string{`|||"x --b\r\n--bb\r\n --b\r\n--b-"`}},
		"plain encodings":      {"multipart/mixed;boundary=b", "--b\nContent-Transfer-Encoding: 7BIT\n\nx\n--b\nContent-Transfer-Encoding: binary\n\ny\n--b\nContent-Transfer-Encoding: 8bit\n\nz\n--b--", []string{`|||"x"`, `|||"y"`, `|||"z"`}},
		"base64":               {"multipart/mixed;boundary=b", "--b\nContent-Transfer-Encoding: Base64\n\ndj0w\nDQo=\n--b--", []string{`|||"v=0\r\n" decoded`}},
		"quoted-printable":     {"multipart/mixed;boundary=b", "--b\nContent-Transfer-Encoding: quoted-printable\n\nv=3D0\n--b--", []string{`|||"v=0" decoded`}},
		"what is no base64":    {"multipart/mixed;boundary=b", "--b\nContent-Transfer-Encoding: base64\n\n!!\n--b--", []string{`|||"!!" decoded`}},
		"another encoding":     {"multipart/mixed;boundary=b", "--b\nContent-Transfer-Encoding: x-zip\n\nx\n--b--", []string{`|||"x" decoded`}},
		"nested":               {"multipart/mixed;boundary=b", "--b\nContent-Type: multipart/whatever;boundary=c\n\n--c\n\nx\n--c--\n--b\n\ny\n--b--", []string{`|||"x"`, `|||"y"`}},
		"nested in base64":     {"multipart/mixed;boundary=b", "--b\nContent-Type: multipart/mixed;boundary=c\nContent-Transfer-Encoding: base64\n\nLS1jDQoNCngNCi0tYy0t\n--b--", []string{`|||"x" decoded`}},
		"alternatives":         {"multipart/alternative;boundary=b", "--b\nContent-Type: multipart/mixed;boundary=c\n\n--c\n\nx\n--c--\n--b\n\ny\n--b--", []string{`|||"x" alternative`, `|||"y" alternative`}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.parts, summary(c.contentType, crlf(c.body)))
			unix := summary(c.contentType, c.body)
			require.Len(t, unix, len(c.parts), "with LF")
			for i, part := range c.parts {
				require.Equal(t, strings.ReplaceAll(strings.ReplaceAll(part, `0\r\n`, `0\n`), `\r\n`, `\n`), strings.ReplaceAll(unix[i], `\r\n`, `\n`))
			}
		})
	}
}

// FX10: the cost of a body is bounded by its size.
func TestPartsAreBounded(t *testing.T) {
	deep := "--b0\n\nx\n--b0--"
	for i := 1; i < 20; i++ {
		if i <= maxDepth {
			require.Len(t, summary(fmt.Sprintf("multipart/mixed;boundary=b%d", i-1), deep), 1)
		}
		deep = fmt.Sprintf("--b%d\nContent-Type: multipart/mixed;boundary=b%d\n\n%s\n--b%d--", i, i-1, deep, i)
	}
	require.Empty(t, summary("multipart/mixed;boundary=b19", deep))
	const size = 1 << 20
	for name, body := range map[string]string{
		"parts":             strings.Repeat("--b\n\nx\n", size/7),
		"one line":          strings.Repeat("--b", size/3),
		"one header":        "--b\n" + strings.Repeat("Content-Type: a\n", size/16),
		"a folded header":   "--b\nContent-Type: a\n" + strings.Repeat(" b\n", size/3),
		"parts of one kind": strings.Repeat("--b\nContent-Type: multipart/mixed;boundary=b\n\n", size/46),
		"blank lines":       "--b\n" + strings.Repeat("\n", size),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		Parts(Part{Type: "multipart/mixed;boundary=b", Data: []byte(body)})
		runtime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16*size), name)
		require.LessOrEqual(t, len(Parts(Part{Type: "multipart/mixed;boundary=b", Data: []byte(body)})), maxParts, name)
	}
	require.Len(t, Split([]byte(strings.Repeat("--b\n\nx\n", 1000)), "b"), maxParts)
}

func TestSplitLeavesOutAnUnterminatedPart(t *testing.T) {
	parts := Split([]byte("--b\r\nA: b\r\n\r\nx\r\n--b\r\n\r\ny"), "b")
	require.Equal(t, [][]byte{[]byte("A: b\r\n\r\nx")}, parts)
}
