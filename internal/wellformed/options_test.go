package wellformed_test

import (
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/wellformed"
)

// A header that an option sets, or the stack, names it, by its long and short name.
func TestHeadersThatAnApplicationCannotAdd(t *testing.T) {
	for name, by := range map[string]string{
		"From": "InviteOpts.From or StackConfig.From", "F": "InviteOpts.From or StackConfig.From", "t": "the URI that is called",
		"CONTACT": "InviteOpts.Contact", "m": "InviteOpts.Contact", "Max-Forwards": "InviteOpts.MaxForwards",
		"route": "InviteOpts.Route or StackConfig.OutboundProxy", "l": "the body", "Content-Length": "the body",
		"Via": "the stack alone", "v": "the stack alone", "Call-ID": "the stack alone", "i": "the stack alone", "CSeq": "the stack alone", "Record-Route": "the stack alone",
		"Subject": "", "Refer-To": "", "Content-Type": "", "": "",
	} {
		require.Equal(t, by, wellformed.SetBy(name), name)
	}
	for name, by := range map[string]string{"refer-to": "the URI to refer to", "R": "the URI to refer to", "Refer-Sub": "ReferOpts.ReferSub or NoReferSub", "Via": "the stack alone", "Subject": ""} {
		require.Equal(t, by, wellformed.SetByRefer(name), name)
	}
}

func TestRequestsThatAreReadBack(t *testing.T) {
	request := func(change func(*sip.Request)) *sip.Request {
		req := sip.NewRequest(sip.MESSAGE, sip.Uri{Scheme: "sip", Host: "a.example"})
		change(req)
		return req
	}
	add := func(name, value string) func(*sip.Request) {
		return func(req *sip.Request) { req.AppendHeader(sip.NewHeader(name, value)) }
	}
	hops := func(n uint32) func(*sip.Request) {
		return func(req *sip.Request) { h := sip.MaxForwardsHeader(n); req.AppendHeader(&h) }
	}
	for name, row := range map[string]struct {
		change func(*sip.Request)
		wrong  string
	}{
		"nothing":             {func(*sip.Request) {}, ""},
		"a header":            {add("Subject", "hi"), ""},
		"the most hops":       {hops(255), ""},
		"too many hops":       {hops(256), "Max-Forwards"},
		"hops as text":        {add("Max-Forwards", "70"), ""},
		"a header that ends":  {add("Subject", "a\r\nb"), "Subject"},
		"a name that is none": {add("Sub ject", "a"), "Sub ject"},
		"hops that are none":  {add("Max-Forwards", "x"), "Max-Forwards"},
		"no method":           {func(req *sip.Request) { req.Method = "A B" }, "method"},
		"a version of two":    {func(req *sip.Request) { req.SipVersion = "SIP/2.0\r\n" }, "start line"},
		"two Call-IDs":        {func(req *sip.Request) { add("Call-ID", "a")(req); add("i", "b")(req) }, "Call-ID"},
	} {
		err := wellformed.Request(request(row.change))
		if row.wrong == "" {
			require.NoError(t, err, name)
			continue
		}
		require.ErrorContains(t, err, row.wrong, name)
	}
}
