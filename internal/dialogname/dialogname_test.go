package dialogname_test

import (
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/dialogname"
)

func TestReplacesIsReadAndWritten(t *testing.T) {
	for value, want := range map[string]dialogname.Replaces{
		"98732@sip.example.com;from-tag=r33th4x0r;to-tag=ff87ff": {CallID: "98732@sip.example.com", FromTag: "r33th4x0r", ToTag: "ff87ff"},
		"a;to-tag=t;from-tag=f;early-only":                       {CallID: "a", FromTag: "f", ToTag: "t", EarlyOnly: true},
		" a ; From-Tag = f ; TO-TAG=t ;x=y":                      {CallID: "a", FromTag: "f", ToTag: "t"},
		"12adf2f34456gs5%3Bto-tag%3D12345%3Bfrom-tag%3D54321":    {CallID: "12adf2f34456gs5", FromTag: "54321", ToTag: "12345"},
		"a%40b%3Bto-tag%3Dt%3Bfrom-tag%3Df%3Bearly-only":         {CallID: "a@b", FromTag: "f", ToTag: "t", EarlyOnly: true},
		"a%zz;from-tag=f;to-tag=t":                               {CallID: "a%zz", FromTag: "f", ToTag: "t"},
	} {
		got, err := dialogname.ParseReplaces(value)
		require.NoError(t, err, value)
		require.Equal(t, want, got, value)
		again, err := dialogname.ParseReplaces(got.String())
		require.NoError(t, err)
		require.Equal(t, want, again, value)
	}
	for _, value := range []string{
		"", ";from-tag=f;to-tag=t", "a", "a;from-tag=f", "a;to-tag=t", "a;from-tag=;to-tag=t",
		"a;from-tag=f;to-tag=t;to-tag=u", "a;from-tag=f;FROM-TAG=f;to-tag=t", "a%zz", `a;from-tag="f;to-tag=t`,
	} {
		_, err := dialogname.ParseReplaces(value)
		require.Error(t, err, value)
	}
}

func TestReplacesInAURI(t *testing.T) {
	value, found, err := dialogname.ReplacesIn(sip.Uri{Headers: sip.HeaderParams{{K: "Subject", V: "x"}, {K: "replaces", V: "a%3Bto-tag%3Dt"}}})
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, "a;to-tag=t", value)
	_, found, err = dialogname.ReplacesIn(sip.Uri{})
	require.NoError(t, err)
	require.False(t, found)
	_, found, err = dialogname.ReplacesIn(sip.Uri{Headers: sip.HeaderParams{{K: "Replaces", V: "a%z"}}})
	require.Error(t, err)
	require.True(t, found)
}

func TestTargetDialogIsReadAndWritten(t *testing.T) {
	const value = "fa77as7dad8-sd98ajzz@host.example.com;local-tag=kkaz-;remote-tag=6544"
	got, err := dialogname.ParseTargetDialog(value)
	require.NoError(t, err)
	require.Equal(t, dialogname.TargetDialog{CallID: "fa77as7dad8-sd98ajzz@host.example.com", LocalTag: "kkaz-", RemoteTag: "6544"}, got)
	require.Equal(t, value, got.String())
	for _, value := range []string{"", "a;local-tag=b", "a;remote-tag=b", ";local-tag=a;remote-tag=b", "a;local-tag=b;local-tag=b;remote-tag=c"} {
		_, err := dialogname.ParseTargetDialog(value)
		require.Error(t, err, value)
	}
}
