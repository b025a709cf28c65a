package siptext

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// Repeats checks that a response repeats the headers of its request that RFC 3261
// 8.2.6.2 requires: Via, From, To, Call-ID and CSeq, and in a dialog-creating response
// Record-Route (12.1.1). White space may differ in place of a fold, around the commas of
// a list, and around the semicolons of a value that got a parameter. The top Via must
// have source, the source address of the request (18.2.1, RFC 3581 4). To must have a
// tag.
func Repeats(request, response Message, source netip.AddrPort) error {
	if err := repeatsVia(request.List("via"), response.List("via"), source); err != nil {
		return err
	}
	for _, name := range []string{"from", "call-id", "cseq"} {
		if asked, answered := request.Value(name), response.Value(name); !Same(asked, answered) {
			return fmt.Errorf("%s: %q became %q", name, asked, answered)
		}
	}
	if err := repeatsTo(request.Value("to"), response.Value("to"), response.Status()); err != nil {
		return err
	}
	if status := response.Status(); status <= 100 || status >= 300 || request.Method() != "INVITE" {
		return nil
	}
	asked, answered := request.List("record-route"), response.List("record-route")
	if !slices.EqualFunc(asked, answered, Same) {
		return fmt.Errorf("record-route: %q became %q", asked, answered)
	}
	return nil
}

func repeatsVia(asked, answered []string, source netip.AddrPort) error {
	if len(asked) != len(answered) || len(asked) == 0 {
		return fmt.Errorf("via: %q became %q", asked, answered)
	}
	for i := range asked {
		before, after := asked[i], answered[i]
		if i == 0 {
			if err := saysSource(before, after, source); err != nil {
				return err
			}
			before, after = Without(before, "received", "rport"), Without(after, "received", "rport")
		}
		if !Same(before, after) {
			return fmt.Errorf("via %d: %q became %q", i, before, after)
		}
	}
	return nil
}

// saysSource checks the parameters that were added to the top Via.
func saysSource(before, after string, source netip.AddrPort) error {
	_, asked := Param(before, "rport")
	port, told := Param(after, "rport")
	if asked != told || asked && port != strconv.Itoa(int(source.Port())) {
		return fmt.Errorf("rport: %q of %v became %q", before, source, after)
	}
	received, ok := Param(after, "received")
	if ok && received != source.Addr().String() || asked && !ok {
		return fmt.Errorf("received: %q of %v became %q", before, source, after)
	}
	return nil
}

// repeatsTo checks that only a tag was added to a To without one. A 100 may have none.
func repeatsTo(asked, answered string, status int) error {
	tag, tagged := Param(answered, "tag")
	if _, had := Param(asked, "tag"); had || !tagged && status == 100 {
		if !Same(asked, answered) {
			return fmt.Errorf("to: %q became %q", asked, answered)
		}
		return nil
	}
	if !tagged || tag == "" {
		return fmt.Errorf("to: no tag in %q", answered)
	}
	if !Same(Without(asked, "tag"), Without(answered, "tag")) {
		return fmt.Errorf("to: %q became %q", asked, answered)
	}
	return nil
}
