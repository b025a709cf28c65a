package dialogname_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/dialogname"
	"sipdialog.example/dialog/internal/sipmsg"
)

// RFC 3891 3, 6.1 and RFC 3911 4: one value of one of the headers, in an INVITE that
// begins a call.
func TestTheCallThatAnINVITENames(t *testing.T) {
	one := dialogname.Replaces{CallID: "id", FromTag: "f", ToTag: "t"}
	for text, row := range map[string]struct {
		method, to  string
		want        dialogname.Replaces
		join, wrong bool
	}{
		"":                                                                         {method: "INVITE"},
		"Replaces: id;from-tag=f;to-tag=t\r\n":                                     {method: "INVITE", want: one},
		"Join: id;from-tag=f;to-tag=t\r\n":                                         {method: "INVITE", want: one, join: true},
		"join: id;to-tag=t;from-tag=f;x=y\r\n":                                     {method: "INVITE", want: one, join: true},
		"Replaces: id;from-tag=f;to-tag=t \r\n":                                    {method: "INVITE", to: ";tag=t", wrong: true},
		"Replaces: id ;from-tag=f;to-tag=t\r\n":                                    {method: "REFER", wrong: true},
		"Replaces: id;from-tag=f\r\n":                                              {method: "INVITE", wrong: true},
		"Replaces: id%3Bfrom-tag=f%3Bto-tag=t\r\n":                                 {method: "INVITE", wrong: true},
		"Replaces: id;from-tag=f;to-tag=t, id;from-tag=f;to-tag=t\r\n":             {method: "INVITE", wrong: true},
		"Replaces: id;from-tag=f;to-tag=t\r\nJoin: id;from-tag=f;to-tag=t\r\n":     {method: "INVITE", wrong: true},
		"Replaces: id;from-tag=f;to-tag=t\r\nReplaces: id;from-tag=f;to-tag=t\r\n": {method: "INVITE", wrong: true},
		"Replaces: id;from-tag=f;to-tag=t;from-tag=g\r\n":                          {method: "INVITE", wrong: true},
		"Subject: Replaces: id;from-tag=f;to-tag=t\r\n":                            {method: "INVITE"},
		"Replaces: id;from-tag=f;to-tag=t;early-only\r\n":                          {method: "INVITE", want: dialogname.Replaces{CallID: "id", FromTag: "f", ToTag: "t", EarlyOnly: true}},
	} {
		m, err := sipmsg.Parse([]byte(row.method + " sip:us@a SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>" + row.to +
			"\r\nCall-ID: c\r\nCSeq: 1 " + row.method + "\r\n" + text + "\r\n"))
		require.NoError(t, err, text)
		name, join, found, err := dialogname.InInvite(m)
		require.Equal(t, row.wrong, err != nil, "%q: %v", text, err)
		require.Equal(t, row.want, name, text)
		require.Equal(t, row.want != dialogname.Replaces{}, found, text)
		require.Equal(t, row.join, join, text)
	}
}

func TestTagsThatATagStandsFor(t *testing.T) {
	require.Equal(t, []string{"0", ""}, dialogname.Tags("0"))
	require.Equal(t, []string{"a"}, dialogname.Tags("a"))
	require.Equal(t, []string{""}, dialogname.Tags(""))
}
