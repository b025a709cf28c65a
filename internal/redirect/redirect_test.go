package redirect_test

import (
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/redirect"
)

func uri(t *testing.T, text string) (u sip.Uri) {
	t.Helper()
	require.NoError(t, sip.ParseUri(text, &u))
	return u
}

// contacts are pairs of a URI and a q; an empty q is none.
func contacts(t *testing.T, pairs ...string) (list []redirect.Contact) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		c := redirect.Contact{URI: uri(t, pairs[i])}
		if pairs[i+1] != "" {
			c.Params = sip.HeaderParams{{K: "q", V: pairs[i+1]}}
		}
		list = append(list, c)
	}
	return list
}

// rest takes all targets that are left.
func rest(targets *redirect.Targets) (list []string) {
	for {
		next, found := targets.Next()
		if !found {
			return list
		}
		list = append(list, next.String())
	}
}

func TestTargetsAreTriedInTheOrderOfTheirRank(t *testing.T) {
	for name, row := range map[string]struct {
		first    string
		status   int
		contacts []redirect.Contact
		want     []string
	}{
		"by q, 1 without":   {"sip:a@x", 302, contacts(t, "sip:l@x", "0.1", "sip:n@x", "", "sip:h@x", "0.9"), []string{"sip:n@x", "sip:h@x", "sip:l@x"}},
		"unreadable is 1":   {"sip:a@x", 300, contacts(t, "sip:h@x", "0.9", "sip:n@x", "NaN", "sip:o@x", "7"), []string{"sip:n@x", "sip:o@x", "sip:h@x"}},
		"equal keep order":  {"sip:a@x", 301, contacts(t, "sip:c@x", "0.5", "sip:b@x", "0.5"), []string{"sip:c@x", "sip:b@x"}},
		"none twice":        {"sip:a@x", 302, contacts(t, "sip:a@X", "", "sip:b@x", "", "sip:%62@x", ""), []string{"sip:b@x"}},
		"no other schemes":  {"sip:a@x", 302, contacts(t, "tel:+1", "", "mailto:a@x", "", "sip:b@x", ""), []string{"sip:b@x"}},
		"SIPS stays SIPS":   {"sips:a@x", 302, contacts(t, "sip:b@x", "", "sips:c@x", ""), []string{"sips:c@x"}},
		"no method, header": {"sip:a@x", 302, contacts(t, "sip:b@x;method=REFER?Subject=y", ""), []string{"sip:b@x"}},
		"305 is none":       {"sip:a@x", 305, contacts(t, "sip:b@x", ""), nil},
		"380 is none":       {"sip:a@x", 380, contacts(t, "sip:b@x", ""), nil},
		"4xx is none":       {"sip:a@x", 486, contacts(t, "sip:b@x", ""), nil},
	} {
		targets := redirect.New(5, uri(t, row.first))
		targets.Learn(row.status, row.contacts)
		require.Equal(t, row.want, rest(targets), name)
	}
}

func TestTargetsOfATargetComeBeforeTheOthers(t *testing.T) {
	targets := redirect.New(5, uri(t, "sip:a@x"))
	targets.Learn(302, contacts(t, "sip:b@x", "0.9", "sip:c@x", "0.1"))
	next, found := targets.Next()
	require.True(t, found)
	require.Equal(t, "sip:b@x", next.String())
	targets.Learn(302, contacts(t, "sip:d@x", "0.1", "sip:a@x", ""))
	targets.Learn(486, nil)
	require.Equal(t, []string{"sip:d@x", "sip:c@x"}, rest(targets))
}

func TestAfterA6xxThereAreNoOthers(t *testing.T) {
	targets := redirect.New(5, uri(t, "sip:a@x"))
	targets.Learn(302, contacts(t, "sip:b@x", "", "sip:c@x", ""))
	targets.Learn(603, nil)
	require.Empty(t, rest(targets))
}

func TestNoMoreTargetsThanTheLimit(t *testing.T) {
	targets := redirect.New(2, uri(t, "sip:a@x"))
	targets.Learn(302, contacts(t, "sip:b@x", "", "sip:c@x", "", "sip:d@x", ""))
	require.Equal(t, []string{"sip:b@x", "sip:c@x"}, rest(targets))
	require.False(t, targets.MayGoOn())
	targets.Learn(302, contacts(t, "sip:e@x", ""))
	require.Empty(t, rest(targets))
	require.False(t, redirect.New(0, uri(t, "sip:a@x")).MayGoOn())
	require.False(t, (*redirect.Targets)(nil).MayGoOn())
}
