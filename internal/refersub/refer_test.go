package refersub

import (
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/dialogname"
	"sipdialog.example/dialog/internal/draft"
)

// One row for each option of a REFER: the lines that are written.
func TestAREFERHasItsHeaders(t *testing.T) {
	text := func(s string) *string { return &s }
	for name, row := range map[string]struct {
		refer Refer
		lines string
	}{
		"nothing":         {Refer{}, ""},
		"Refer-Sub":       {Refer{ReferSub: text("false")}, "Refer-Sub: false"},
		"nosub":           {Refer{NoSub: true}, "Require: nosub"},
		"Target-Dialog":   {Refer{TargetDialog: &dialogname.TargetDialog{CallID: "c", LocalTag: "l", RemoteTag: "r"}}, "Target-Dialog: c;local-tag=l;remote-tag=r|Require: tdialog"},
		"both":            {Refer{NoSub: true, TargetDialog: &dialogname.TargetDialog{CallID: "c", LocalTag: "l", RemoteTag: "r"}}, "Target-Dialog: c;local-tag=l;remote-tag=r|Require: nosub, tdialog"},
		"Referred-By":     {Refer{By: "<sip:a@h>"}, "Referred-By: <sip:a@h>"},
		"another":         {Refer{By: "<sip:a@h>", Headers: map[string]string{"referred-by": "<sip:x@h>"}}, "referred-by: <sip:x@h>"},
		"another, short":  {Refer{By: "<sip:a@h>", Headers: map[string]string{"b": "<sip:x@h>"}}, "b: <sip:x@h>"},
		"a header beside": {Refer{By: "<sip:a@h>", Headers: map[string]string{"X-Any": "1"}}, "X-Any: 1|Referred-By: <sip:a@h>"},
	} {
		t.Run(name, func(t *testing.T) {
			row.refer.To, row.refer.Supported = sip.Uri{Scheme: "sip", User: "c", Host: "h"}, sip.NewHeader("Supported", "replaces")
			req := draft.New(sip.REFER, &sip.Uri{Scheme: "sip", Host: "h"})
			row.refer.Write(req)
			lines := []string{"Refer-To: <sip:c@h>", "Supported: replaces"}
			if row.lines != "" {
				lines = append(lines, strings.Split(row.lines, "|")...)
			}
			_, got, _ := strings.Cut(string(req.Text()), "\r\n")
			require.True(t, strings.HasPrefix(got, strings.Join(lines, "\r\n")+"\r\n"), got)
		})
	}
}

// One row for each REFER of the peer: what it asks for, and what is wrong with it.
func TestAREFERIsRead(t *testing.T) {
	for name, row := range map[string]struct {
		lines  [][2]string
		silent bool
		err    string
	}{
		"one target":               {[][2]string{{"Refer-To", "<sip:c@h>"}}, false, ""},
		"none":                     {nil, false, "0 Refer-To headers"},
		"two":                      {[][2]string{{"Refer-To", "<sip:c@h>"}, {"Refer-To", "<sip:d@h>"}}, false, "2 Refer-To headers"},
		"two in one":               {[][2]string{{"Refer-To", "<sip:c@h>, <sip:d@h>"}}, false, `Refer-To "<sip:c@h>, <sip:d@h>"`},
		"no subscription":          {[][2]string{{"Refer-To", "<sip:c@h>"}, {"Refer-Sub", "false"}}, true, ""},
		"a subscription":           {[][2]string{{"Refer-To", "<sip:c@h>"}, {"Refer-Sub", "true"}}, false, ""},
		"required: none":           {[][2]string{{"Refer-To", "<sip:c@h>"}, {"Require", "x, nosub"}}, true, ""},
		"a referrer":               {[][2]string{{"Refer-To", "<sip:c@h>"}, {"Referred-By", "<sip:a@h>"}}, false, ""},
		"two referrers (RFC 3892)": {[][2]string{{"Refer-To", "<sip:c@h>"}, {"Referred-By", "<sip:a@h>"}, {"Referred-By", "<sip:b@h>"}}, false, "several Referred-By headers"},
	} {
		t.Run(name, func(t *testing.T) {
			req := sip.NewRequest(sip.REFER, sip.Uri{Scheme: "sip", Host: "h"})
			for _, line := range row.lines {
				req.AppendHeader(sip.NewHeader(line[0], line[1]))
			}
			uri, err := ReferTo(req)
			require.Equal(t, row.silent, ReadRefer(req).Silent)
			if row.err != "" {
				require.EqualError(t, err, row.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, "sip:c@h", uri.String())
		})
	}
}
