package rel100_test

import (
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/rel100"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// response has a status and headers, each "name: value".
func response(code int, headers ...string) *sip.Response {
	res := sip.NewResponse(code, "x")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		res.AppendHeader(sip.NewHeader(name, value))
	}
	return res
}

// received is a response as it arrives.
func received(t *testing.T, res *sip.Response) *sipmsg.Message {
	t.Helper()
	start, headers, _ := strings.Cut(res.String(), "\r\n")
	m, err := sipmsg.Parse([]byte(start + "\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n" + headers))
	require.NoError(t, err)
	return m
}

// RFC 3262 4, 7.1: which responses are acknowledged.
func TestResponsesThatAreReliable(t *testing.T) {
	const required, number = "Require: 100rel", "RSeq: 17"
	for name, row := range map[string]struct {
		res  *sip.Response
		rseq uint32
	}{
		"reliable":               {response(180, required, number), 17},
		"among other tags":       {response(183, "Require: precondition, 100REL", number), 17},
		"199":                    {response(199, required, number), 17},
		"100 never is":           {response(100, required, number), 0},
		"nor is a final one":     {response(200, required, number), 0},
		"not required":           {response(180, number), 0},
		"supported only":         {response(180, "Supported: 100rel", number), 0},
		"no number":              {response(180, required), 0},
		"two numbers":            {response(180, required, number, "RSeq: 18"), 0},
		"not a number":           {response(180, required, "RSeq: x"), 0},
		"a number out of bounds": {response(180, required, "RSeq: 4294967296"), 0},
	} {
		require.Equal(t, row.rseq, rel100.RSeqOf(received(t, row.res)), name)
	}
}

// RFC 3262 3: what an INVITE says of reliable responses.
func TestINVITEsThatAllowReliableResponses(t *testing.T) {
	for header, row := range map[string]struct{ requires, allows bool }{
		"Supported: 100rel":        {false, true},
		"k: timer, 100rel":         {false, true},
		"Require: 100rel":          {true, true},
		"Require: timer":           {false, false},
		"Supported: replaces":      {false, false},
		"Proxy-Require: 100rel":    {false, false},
		"Unsupported: 100rel":      {false, false},
		"Require: x100rel, 100rel": {true, true},
	} {
		invite := response(200, header)
		require.Equal(t, row.requires, rel100.Requires(invite), header)
		require.Equal(t, row.allows, rel100.Allows(invite), header)
	}
}

func TestTheRAckOfAPRACK(t *testing.T) {
	ack, ok := rel100.RAckOf(response(200, "RAck: 17 3 INVITE"))
	require.True(t, ok)
	require.Equal(t, rel100.RAck{RSeq: 17, CSeq: 3, Method: "INVITE"}, ack)
	for _, headers := range [][]string{nil, {"RAck: 17"}, {"RAck: 17 3 INVITE", "RAck: 17 3 INVITE"}} {
		_, ok := rel100.RAckOf(response(200, headers...))
		require.False(t, ok, headers)
	}
}

func TestTheMarkOfAReliableResponse(t *testing.T) {
	for tags, row := range map[string]struct {
		marked bool
		left   []string
	}{
		"100rel":              {true, nil},
		"timer, 100REL, path": {true, []string{"timer", "path"}},
		"timer":               {false, []string{"timer"}},
	} {
		res := response(180, "Require: "+tags, "RSeq: 9")
		require.Equal(t, row.marked, rel100.Unmark(res), tags)
		require.ElementsMatch(t, row.left, sipheader.Listed(res, "Require"), tags)
		require.False(t, sipheader.Has(res, "RSeq"))
	}
}
