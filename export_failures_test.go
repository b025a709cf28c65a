package dialog

import "github.com/emiago/sipgo/sip"

// EffectOf shows the table of what a failed request ends to the tests.
func EffectOf(method string, code int) string {
	return []string{"transaction", "usage", "dialog"}[effectOf(sip.RequestMethod(method), code)]
}
