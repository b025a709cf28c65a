package dtmf_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/dtmf"
)

func TestBodiesOfKeys(t *testing.T) {
	for _, row := range []struct {
		mediaType, body string
		key             dtmf.Key
		ok              bool
	}{
		{dtmf.TypeRelay, "Signal=5\r\nDuration=160\r\n", dtmf.Key{'5', 160 * time.Millisecond}, true},
		{dtmf.TypeRelay, "signal = *\nDURATION = 0\n", dtmf.Key{'*', 0}, true},
		{dtmf.TypeRelay, "Duration=80\rSignal=#", dtmf.Key{'#', 80 * time.Millisecond}, true},
		{dtmf.TypeRelay, "Signal=a\r\n", dtmf.Key{'A', 0}, true},
		{dtmf.TypeRelay, "Signal=10\r\n", dtmf.Key{'*', 0}, true},
		{dtmf.TypeRelay, "Signal=15\r\nVolume=3\r\n", dtmf.Key{'D', 0}, true},
		{dtmf.TypeRelay, "Signal=16\r\n", dtmf.Key{}, false},
		{dtmf.TypeRelay, "Signal=\r\n", dtmf.Key{}, false},
		{dtmf.TypeRelay, "Signal=5\r\nDuration=-1\r\n", dtmf.Key{}, false},
		{dtmf.TypeRelay, "Signal=5\r\nDuration=99999999999\r\n", dtmf.Key{}, false},
		{dtmf.TypeRelay, "Duration=160\r\n", dtmf.Key{}, false},
		{dtmf.TypeRelay, "", dtmf.Key{}, false},
		{"Application/DTMF", "7", dtmf.Key{'7', 0}, true},
		{dtmf.TypePlain, " d\r\n", dtmf.Key{'D', 0}, true},
		{dtmf.TypePlain, "11", dtmf.Key{'#', 0}, true},
		{dtmf.TypePlain, "09", dtmf.Key{}, false},
		{dtmf.TypePlain, "x", dtmf.Key{}, false},
		{dtmf.TypePlain, "12345", dtmf.Key{}, false},
		{dtmf.TypePlain, "\xff", dtmf.Key{}, false},
	} {
		key, ok := dtmf.Reader(row.mediaType)(row.body)
		require.Equal(t, row.ok, ok, "%q", row.body)
		if ok {
			require.Equal(t, row.key, key, "%q", row.body)
		}
	}
	require.Nil(t, dtmf.Reader("application/sdp"))
}

func TestBodiesAreReadAsWritten(t *testing.T) {
	for _, r := range "0123456789*#ABCDabcd" {
		digit, ok := dtmf.Digit(r)
		require.True(t, ok)
		want := dtmf.Key{Digit: digit, Duration: 250 * time.Millisecond}
		key, ok := dtmf.Reader(dtmf.TypeRelay)(string(dtmf.Relay(want)))
		require.True(t, ok)
		require.Equal(t, want, key)
	}
	for _, r := range "eE \x00é" {
		_, ok := dtmf.Digit(r)
		require.False(t, ok, "%q", r)
	}
}
