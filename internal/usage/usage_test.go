package usage

import (
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"
)

// RFC 5057 5.1 and 5.2: what a failed request ends besides itself.
func TestEffectOfAFailedRequest(t *testing.T) {
	dialogEnds := []int{404, 410, 416, 482, 483, 484, 485, 502, 604}
	nothingEnds := []int{
		301, 400, 401, 402, 403, 406, 407, 412, 413, 414, 415, 417, 420, 421, 422, 423, 428, 429, 436, 437, 438, 486, 487,
		488, 491, 493, 494, 499, 500, 503, 504, 505, 513, 580, 599, 600, 603, 606, 699,
	}
	for _, method := range []sip.RequestMethod{"INVITE", "REFER", "NOTIFY", "INFO", "UPDATE", "OPTIONS", "MESSAGE"} {
		for _, code := range dialogEnds {
			require.Equal(t, EndsDialog, EffectOf(method, code), "%s %d", method, code)
		}
		for _, code := range nothingEnds {
			require.Equal(t, EndsNothing, EffectOf(method, code), "%s %d", method, code)
		}
	}
	cases := []struct {
		code  int
		usage []sip.RequestMethod
		none  []sip.RequestMethod
	}{
		// 5.2, note 4: a 408 equals a timeout. OPTIONS and MESSAGE belong to no usage (5.3).
		{408, []sip.RequestMethod{"INVITE", "UPDATE", "INFO", "REFER", "NOTIFY"}, []sip.RequestMethod{"OPTIONS", "MESSAGE"}},
		{481, []sip.RequestMethod{"INVITE", "UPDATE", "INFO", "REFER", "NOTIFY"}, []sip.RequestMethod{"OPTIONS", "MESSAGE"}},
		// Note 3: only where the method is integral to the usage.
		{405, []sip.RequestMethod{"INVITE", "NOTIFY"}, []sip.RequestMethod{"INFO", "REFER", "OPTIONS", "MESSAGE"}},
		{501, []sip.RequestMethod{"INVITE", "NOTIFY"}, []sip.RequestMethod{"INFO", "REFER", "OPTIONS", "MESSAGE"}},
		{480, []sip.RequestMethod{"INVITE", "NOTIFY"}, []sip.RequestMethod{"OPTIONS", "MESSAGE", "REFER"}},
		// Note 12: a word for SUBSCRIBE and NOTIFY; elsewhere an unknown 4xx.
		{489, []sip.RequestMethod{"NOTIFY"}, []sip.RequestMethod{"INVITE", "INFO", "REFER", "OPTIONS", "MESSAGE"}},
	}
	for _, c := range cases {
		for _, method := range c.usage {
			require.Equal(t, EndsUsage, EffectOf(method, c.code), "%s %d", method, c.code)
		}
		for _, method := range c.none {
			require.Equal(t, EndsNothing, EffectOf(method, c.code), "%s %d", method, c.code)
		}
	}
}
