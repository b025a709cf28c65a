package capability

import (
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/sessiontimer"
	"sipdialog.example/dialog/internal/sipmsg"
)

func request(method, uri string, lines ...string) *sipmsg.Message {
	body := ""
	if at := len(lines) - 1; at >= 0 && strings.HasPrefix(lines[at], "v=0") {
		lines, body = lines[:at], lines[at]
	}
	head := method + " " + uri + " SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: a\r\nCSeq: 1 " +
		method + "\r\n" + strings.Join(append(lines, ""), "\r\n")
	m := sipmsg.Decode([]byte(head), len(head))
	m.SetBody([]byte(body))
	return m
}

// One row for each reason to refuse a request outside dialogs, and rows just below that limit.
func TestARequestThatNeedsMoreThanWeSupportIsRefused(t *testing.T) {
	const contact, isSDP = "Contact: <sip:a@h>", "Content-Type: application/sdp"
	rules := Rules{Bodies: []string{"application/sdp"}, Timer: sessiontimer.Policy{MinSE: 2 * time.Minute}}
	required := Rules{NeedsReliable: true}
	for name, row := range map[string]struct {
		rules  Rules
		req    *sipmsg.Message
		status int
		header string
	}{
		"INVITE":                    {rules, request("INVITE", "sip:b@h", contact), 0, ""},
		"a number for a URI":        {rules, request("INVITE", "tel:+1", contact), 416, ""},
		"an extension of ours":      {rules, request("INVITE", "sip:b@h", contact, "Require: timer, 100rel"), 0, ""},
		"extensions of others":      {rules, request("OPTIONS", "sip:b@h", "Require: timer, foo, bar"), 420, "Unsupported: foo, bar"},
		"100rel, switched off":      {Rules{NoReliable: true}, request("INVITE", "sip:b@h", contact, "Require: 100rel"), 420, "Unsupported: 100rel"},
		"join, not announced":       {rules, request("INVITE", "sip:b@h", contact, "Require: join"), 420, "Unsupported: join"},
		"join, announced":           {Rules{Join: true}, request("INVITE", "sip:b@h", contact, "Require: join"), 0, ""},
		"tdialog, announced":        {Rules{TargetDialog: true}, request("REFER", "sip:b@h", "Require: tdialog"), 0, ""},
		"half a Replaces":           {rules, request("INVITE", "sip:b@h", contact, "Replaces: a;to-tag=1"), 400, ""},
		"no Contact":                {rules, request("INVITE", "sip:b@h"), 400, ""},
		"no Contact in an OPTIONS":  {rules, request("OPTIONS", "sip:b@h"), 0, ""},
		"a broken Record-Route":     {rules, request("INVITE", "sip:b@h", contact, "Record-Route: <sip:"), 400, ""},
		"a short interval":          {rules, request("INVITE", "sip:b@h", contact, "Supported: timer", "Session-Expires: 100"), 422, "Min-SE: 120"},
		"a short interval, UPDATE":  {rules, request("UPDATE", "sip:b@h", "Supported: timer", "Session-Expires: 100"), 422, "Min-SE: 120"},
		"a long enough interval":    {rules, request("INVITE", "sip:b@h", contact, "Supported: timer", "Session-Expires: 120"), 0, ""},
		"no 100rel where needed":    {required, request("INVITE", "sip:b@h", contact), 421, "Require: 100rel"},
		"100rel where needed":       {required, request("INVITE", "sip:b@h", contact, "Supported: 100rel"), 0, ""},
		"an UPDATE needs no 100rel": {required, request("UPDATE", "sip:b@h", contact), 0, ""},
		"another body":              {rules, request("INVITE", "sip:b@h", contact, "Content-Type: text/plain", "v=0"), 415, "Accept: application/sdp"},
		"another body, optional":    {rules, request("INVITE", "sip:b@h", contact, "Content-Type: text/plain", "Content-Disposition: render;handling=optional", "v=0"), 0, ""},
		"another body in an INFO":   {rules, request("INFO", "sip:b@h", "Content-Type: text/plain", "v=0"), 0, ""},
		"a compressed body":         {rules, request("INVITE", "sip:b@h", contact, isSDP, "Content-Encoding: gzip", "v=0"), 415, "Accept-Encoding: identity"},
		"a body as it is":           {rules, request("INVITE", "sip:b@h", contact, isSDP, "Content-Encoding: identity", "v=0"), 0, ""},
		"no SDP in the answer":      {rules, request("INVITE", "sip:b@h", contact, isSDP, "Accept: text/plain", "v=0"), 406, `Warning: 399 dialog "an answer in SDP is not accepted"`},
		"any answer":                {rules, request("INVITE", "sip:b@h", contact, isSDP, "Accept: application/*", "v=0"), 0, ""},
		"no offer, no SDP":          {rules, request("INVITE", "sip:b@h", contact, "Accept: text/plain"), 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := row.rules.Refuse(row.req)
			if row.status == 0 {
				require.Nil(t, got)
				return
			}
			require.NotNil(t, got)
			require.Equal(t, row.status, got.Status)
			if row.header != "" {
				require.Equal(t, row.header, got.Header.String())
			}
		})
	}
}

func TestBodiesThatAreTakenAndOffers(t *testing.T) {
	rules := Rules{Bodies: []string{"application/sdp"}}
	for _, row := range []struct {
		req          *sipmsg.Message
		takes, offer bool
	}{
		{request("INVITE", "sip:b@h"), false, false},
		{request("INVITE", "sip:b@h", "Content-Type: application/sdp", "v=0"), true, true},
		{request("INVITE", "sip:b@h", "Content-Type: application/sdp", "Content-Disposition: render", "v=0"), true, false},
		{request("INVITE", "sip:b@h", "Content-Type: text/plain", "v=0"), false, false},
	} {
		require.Equal(t, row.takes, rules.TakesBody(row.req))
		require.Equal(t, row.offer, rules.HasOffer(row.req))
	}
	require.Equal(t, "application/sdp", Rules{}.Accept())
	require.Equal(t, "a/b, c/d", Rules{Bodies: []string{"a/b", "c/d"}}.Accept())
}

func TestMethodsThatAreServed(t *testing.T) {
	const all = "INVITE ACK CANCEL BYE OPTIONS UPDATE REFER SUBSCRIBE NOTIFY INFO"
	require.Equal(t, all+" PRACK", strings.Join(Rules{}.Methods(), " "))
	require.Equal(t, all+" MESSAGE ODD", strings.Join(Rules{NoReliable: true}.Methods("ODD", "MESSAGE", "OPTIONS"), " "))
	require.True(t, Rules{}.InsideOnly(sip.PRACK))
	require.False(t, Rules{NoReliable: true}.InsideOnly(sip.PRACK))
	require.True(t, Rules{}.InsideOnly(sip.BYE))
	require.False(t, Rules{}.InsideOnly(sip.OPTIONS))
	require.Equal(t, sip.MESSAGE, Named("message"))
	require.Equal(t, sip.RequestMethod("odd"), Named("odd"))
	require.True(t, BelongsToCalls(sip.BYE) && !BelongsToCalls(sip.INFO))
	require.True(t, MakesDialog(sip.REFER) && !MakesDialog(sip.MESSAGE))
}
