package contact_test

import (
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/contact"
	"sipdialog.example/dialog/internal/sipheader"
)

func TestContactsOfOurAddresses(t *testing.T) {
	for want, ours := range map[string]contact.Ours{
		"<sip:us@10.0.0.1:5060>":                 {User: "us", Host: "10.0.0.1", Port: 5060, Transport: "UDP"},
		"<sip:10.0.0.1>":                         {Host: "10.0.0.1", Transport: "UDP"},
		"<sip:us@[2001:db8::1];transport=tcp>":   {User: "us", Host: "2001:db8::1", Transport: "TCP"},
		"<sip:us@[2001:db8::2];transport=tls>":   {User: "us", Host: "[2001:db8::2]", Transport: "TLS"},
		"<sips:us@name.example:1;transport=tls>": {User: "us", Host: "name.example", Port: 1, Transport: "TLS", IsSIPS: true},
		"<sip:us@name.example>":                  {User: "us", Host: "name.example", Port: 5060, Transport: "UDP"},
		"<sip:us@name.example:5061>":             {User: "us", Host: "name.example", Port: 5061, Transport: "UDP"},
		"<sip:name.example;transport=tcp>":       {Host: "name.example", Port: 5060, Transport: "TCP"},
		"<sips:name.example;transport=tls>":      {Host: "name.example", Port: 5061, Transport: "TLS", IsSIPS: true},
		"<sips:name.example:5060;transport=tls>": {Host: "name.example", Port: 5060, Transport: "TLS", IsSIPS: true},
		"<sip:name.example:5060;transport=ws>":   {Host: "name.example", Port: 5060, Transport: "WS"},
		"<sip:a.invalid;transport=ws>":           {Host: "a.invalid", Transport: "WS"},
		"<sips:b.invalid;transport=ws>":          {Host: "b.invalid", Transport: "WSS", IsSIPS: true},
	} {
		require.Equal(t, want, ours.Text())
		require.Equal(t, want, ours.Header().Value())
	}
}

// An unchanged Contact is written as the header is.
func TestContactTextIsThatOfTheHeader(t *testing.T) {
	for _, user := range []string{"", "us", "a%20b", "+1;x=y"} {
		for _, host := range []string{"10.0.0.1", "2001:db8::1", "[2001:db8::1]", "name.example"} {
			for _, port := range []int{0, 5060} {
				for _, name := range []string{"", "UDP", "TCP", "TLS", "WS", "WSS"} {
					for _, secure := range []bool{false, true} {
						ours := contact.Ours{User: user, Host: host, Port: port, Transport: name, IsSIPS: secure}
						require.Equal(t, ours.Header().Value(), ours.Text())
					}
				}
			}
		}
	}
}

// RFC 3261 12.1.1: a response has one Contact, the application's if it has set one.
func TestTheContactThatAnApplicationChooses(t *testing.T) {
	typed := func(host string) sip.Header {
		return &sip.ContactHeader{Address: sip.Uri{Scheme: "sip", Host: host}}
	}
	plain := func(value string) sip.Header { return sip.NewHeader("Contact", value) }
	for name, row := range map[string]struct {
		ours   sip.Header
		change func(res *sip.Response)
		want   string // the one Contact; empty for an error
		chosen bool
	}{
		"nothing":            {typed("ours"), func(*sip.Response) {}, "<sip:ours>", false},
		"nothing of a text":  {plain("<sip:ours>"), func(*sip.Response) {}, "<sip:ours>", false},
		"another added":      {typed("ours"), func(res *sip.Response) { res.AppendHeader(typed("theirs")) }, "<sip:theirs>", true},
		"a text added":       {typed("ours"), func(res *sip.Response) { res.AppendHeader(plain("<sip:theirs>")) }, "<sip:theirs>", true},
		"a short name":       {typed("ours"), func(res *sip.Response) { res.AppendHeader(sip.NewHeader("m", "<sip:theirs>")) }, "<sip:theirs>", true},
		"ours added again":   {typed("ours"), func(res *sip.Response) { res.AppendHeader(typed("ours")) }, "<sip:ours>", false},
		"ours taken away":    {typed("ours"), func(res *sip.Response) { sipheader.Remove(res, "Contact") }, "<sip:ours>", false},
		"its host changed":   {typed("ours"), func(res *sip.Response) { res.Contact().Address.Host = "theirs" }, "<sip:theirs>", true},
		"a parameter added":  {typed("ours"), func(res *sip.Response) { res.Contact().Params.Add("x", "y") }, "<sip:ours>;x=y", true},
		"a name added":       {typed("ours"), func(res *sip.Response) { res.Contact().DisplayName = "Us" }, `"Us" <sip:ours>`, true},
		"two others":         {typed("ours"), func(res *sip.Response) { res.AppendHeader(typed("a")); res.AppendHeader(typed("b")) }, "", false},
		"two in one":         {typed("ours"), func(res *sip.Response) { res.AppendHeader(plain("<sip:a>, <tel:1>")) }, "", false},
		"one that is no SIP": {typed("ours"), func(res *sip.Response) { res.AppendHeader(plain("<tel:1>")) }, "", false},
	} {
		res := sip.NewResponse(200, "OK")
		res.AppendHeader(row.ours)
		before := contact.Note(row.ours)
		row.change(res)
		chosen, err := before.Choose(res, typed("ours"))
		if row.want == "" {
			require.ErrorIs(t, err, contact.ErrNotOneURI, name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, row.chosen, chosen != nil, name)
		require.True(t, sipheader.IsAlone(res, "Contact"), name)
		require.Equal(t, row.want, sipheader.Value(res, "Contact"), name)
	}
}
