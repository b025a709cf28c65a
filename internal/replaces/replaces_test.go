package replaces_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/dialogname"
	"sipdialog.example/dialog/internal/replaces"
)

// One row for each state of the named call: the status when the INVITE arrives, and what
// follows when it is accepted (RFC 3891 3, RFC 3911 4).
func TestWhichCallsMayBeReplacedOrJoined(t *testing.T) {
	replace := replaces.Claim{}
	early := replaces.ClaimOf(dialogname.Replaces{EarlyOnly: true}, false)
	join := replaces.ClaimOf(dialogname.Replaces{EarlyOnly: true}, true)
	for name, row := range map[string]struct {
		claim    replaces.Claim
		call     replaces.Call
		arrives  int
		reserves bool
		accepted int
	}{
		"established":                     {replace, replaces.Call{Confirmed: true}, 0, true, 0},
		"established, ours":               {replace, replaces.Call{Confirmed: true, Outgoing: true}, 0, true, 0},
		"our early dialog":                {replace, replaces.Call{Outgoing: true}, 0, true, 0},
		"the peer's early dialog":         {replace, replaces.Call{}, 481, true, 0},
		"it ends":                         {replace, replaces.Call{Confirmed: true, Ending: true}, 603, false, 0},
		"it is replaced":                  {replace, replaces.Call{Confirmed: true, Replaced: true}, 603, false, 603},
		"it is replaced, and ends":        {replace, replaces.Call{Confirmed: true, Replaced: true, Ending: true}, 603, false, 603},
		"early-only: early":               {early, replaces.Call{Outgoing: true}, 0, true, 0},
		"early-only: established":         {early, replaces.Call{Outgoing: true, Confirmed: true}, 486, false, 486},
		"early-only: established, ends":   {early, replaces.Call{Confirmed: true, Ending: true}, 603, false, 0},
		"early-only: the peer's":          {early, replaces.Call{}, 481, true, 0},
		"join":                            {join, replaces.Call{Confirmed: true}, 0, false, 0},
		"join: the peer's early dialog":   {join, replaces.Call{}, 0, false, 0},
		"join: it ends":                   {join, replaces.Call{Confirmed: true, Ending: true}, 603, false, 0},
		"join: it is replaced":            {join, replaces.Call{Confirmed: true, Replaced: true}, 603, false, 0},
		"join: early-only means nothing":  {join, replaces.Call{Outgoing: true, Confirmed: true}, 0, false, 0},
		"established by a callee, ending": {replace, replaces.Call{Ending: true}, 603, false, 0},
	} {
		require.Equal(t, row.arrives, row.claim.Refusal(row.call), name)
		reserves, refusal := row.claim.Accept(row.call)
		require.Equal(t, row.reserves, reserves, name)
		require.Equal(t, row.accepted, refusal, name)
	}
}

func TestTheApplicationMayRefuseAClaim(t *testing.T) {
	up, gone := replaces.Call{Confirmed: true}, replaces.Call{Ending: true}
	for _, row := range []struct {
		answer int
		late   bool
		call   replaces.Call
		want   int
	}{
		{0, false, up, 0}, {200, false, up, 0}, {299, false, up, 0}, {403, false, up, 403}, {302, false, up, 302},
		{0, false, gone, 603}, {200, false, gone, 603}, {403, false, gone, 403}, {200, true, up, 504}, {403, true, up, 504},
	} {
		require.Equal(t, row.want, replaces.Claim{}.Authorized(row.answer, row.late, row.call), row)
	}
}

// RFC 3891 6.1: a tag of zero is also none.
func TestTheDialogsThatAHeaderMayName(t *testing.T) {
	type tags = replaces.Tags
	for name, want := range map[dialogname.Replaces][]tags{
		{ToTag: "t", FromTag: "f"}: {{"t", "f"}},
		{ToTag: "t", FromTag: "0"}: {{"t", "0"}, {"t", ""}},
		{ToTag: "0", FromTag: "f"}: {{"0", "f"}, {"", "f"}},
		{ToTag: "0", FromTag: "0"}: {{"0", "0"}, {"0", ""}, {"", "0"}, {"", ""}},
	} {
		require.Equal(t, want, replaces.Named(name))
	}
}

// RFC 3891 3: one call, else 481; 603 for one that has ended.
func TestTheSearchForTheNamedCall(t *testing.T) {
	for name, row := range map[string]struct {
		found   []string
		ended   bool
		call    string
		refusal int
	}{
		"none":              {nil, false, "", 481},
		"one":               {[]string{"a"}, false, "a", 0},
		"one, twice":        {[]string{"a", "a"}, false, "a", 0},
		"several":           {[]string{"a", "b"}, false, "", 481},
		"one of three":      {[]string{"a", "b", "b"}, false, "", 481},
		"it has ended":      {nil, true, "", 603},
		"another has ended": {[]string{"a"}, true, "a", 0},
		"several, one over": {[]string{"a", "b"}, true, "", 481},
	} {
		var s replaces.Search[string]
		for _, call := range row.found {
			s.Found(call)
		}
		if row.ended {
			s.Ended()
		}
		call, refusal := s.Result()
		require.Equal(t, row.call, call, name)
		require.Equal(t, row.refusal, refusal, name)
	}
}
