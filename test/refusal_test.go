package test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// How a refusal goes from one call to another, and what does not.

// bridged is two calls of one stack whose offers go to the other call.
func (w *world) bridged() (one, other *peerCall) {
	w.t.Helper()
	s := w.stack(stackIP, withoutRetry)
	one, other = w.incoming(s, w.peer(peerIP)), w.outgoing(s, w.peer(otherIP))
	one.d.OnOffer(func(ctx context.Context, offer dialog.Body) (dialog.Body, error) {
		return other.d.Renegotiate(ctx, offer)
	})
	return one, other
}

// asksThrough has the peer of one call offer, and that of the other refuse, and
// returns what the first gets.
func asksThrough(one, other *peerCall, method string, refusal dialogtest.Response) *sip.Response {
	one.t.Helper()
	one.ask(method, withBody(offerSDP))
	other.reply(other.next("INVITE"), refusal)
	other.next("ACK")
	return one.peer.final(method)
}

// FD14, RFC 3261 14.1, 14.2: what the other call was refused is what this one is
// refused, but for what ends a call, or is about credentials.
func TestRefusalOfTheOtherCallPasses(t *testing.T) {
	carried := []string{"Retry-After: 7", `Warning: 304 far "no, \"never\"", 399 far "x"`, `Reason: Q.850;cause=88;text="no"`}
	for code, want := range map[int]int{
		491: 491, 415: 415, 488: 488, 606: 606, 500: 500, 503: 503, 603: 603, 400: 400, 403: 403, 413: 413, 600: 600,
		401: 488, 407: 488, 408: 488, 481: 488, 404: 488, 410: 488, 482: 488, 604: 488, 480: 488, 501: 488,
		420: 488, 421: 488, 422: 488, 302: 488, 487: 488,
	} {
		for _, method := range []string{"INVITE", "UPDATE"} {
			t.Run(fmt.Sprintf("%d to %s", code, method), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					one, other := w.bridged()
					headers := append([]string{"Accept: application/sdp, text/plain"}, carried...)
					res := asksThrough(one, other, method, dialogtest.Response{Code: code, Reason: "Said so", Headers: headers})
					require.Equal(t, want, res.StatusCode)
					if code == want {
						require.Equal(t, "Said so", res.Reason)
						require.Equal(t, "7", value(res, "Retry-After"))
						require.Equal(t, []string{"application/sdp", "text/plain"}, valuesOf(res, "Accept"))
					} else {
						require.Empty(t, value(res, "Retry-After"))
						require.Empty(t, value(res, "WWW-Authenticate"))
					}
					require.Equal(t, []string{`304 far "no, \"never\""`, `399 far "x"`}, valuesOf(res, "Warning"))
					require.Equal(t, []string{`Q.850;cause=88;text="no"`}, valuesOf(res, "Reason"))
					require.Equal(t, dialog.DialogStateEstablished, one.d.State())
					hangUp(t, one.d, one.peer)
				})
			})
		}
	}
}

func valuesOf(msg sip.Message, name string) []string {
	var list []string
	for _, h := range msg.GetHeaders(name) {
		list = append(list, h.Value())
	}
	return list
}

// A 488 of the other call that says nothing gets a Warning of ours; the retry of a 491
// is the peer's.
func TestRefusalOfTheOtherCallWithoutHeaders(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		one, other := w.bridged()
		res := asksThrough(one, other, "INVITE", dialogtest.Response{Code: 488})
		require.Equal(t, `399 dialog "offer refused"`, value(res, "Warning"))
		res = asksThrough(one, other, "INVITE", dialogtest.Response{Code: 491})
		require.Equal(t, 491, res.StatusCode)
		require.Empty(t, value(res, "Warning"))
		require.Empty(t, value(res, "Retry-After"))
		hangUp(t, one.d, one.peer)
	})
}

// A Retry-After of no time says so too; a Reason that would make no header is left out.
func TestRefusalOfTheOtherCallAtItsEdges(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		one, other := w.bridged()
		res := asksThrough(one, other, "INVITE", dialogtest.Response{Code: 503, Headers: []string{"Retry-After: 0"}})
		require.Equal(t, []string{"0"}, valuesOf(res, "Retry-After"))
		hangUp(t, one.d, one.peer)
	})
	refused := dialog.ResponseError{StatusCode: 486, Reasons: []dialog.Reason{{Protocol: "no token", Cause: 1}, {Protocol: "SIP", Cause: 2}}}
	require.Equal(t, []dialog.Header{{Name: "Reason", Value: "SIP;cause=2"}}, refused.Refusal().Headers)
}

// FD14: an application chooses how it refuses.
func TestApplicationChoosesTheRefusal(t *testing.T) {
	headers := []dialog.Header{
		{Name: "Retry-After", Value: "3"}, {Name: "Warning", Value: `305 me "a"`}, {Name: "X", Value: "a\r\nY: b"}, {Name: "To", Value: "<sip:evil>"},
	}
	for name, c := range map[string]struct {
		err    error
		code   int
		reason string
	}{
		"chosen":             {&dialog.Refusal{Status: 606, Headers: headers}, 606, "Not Acceptable"},
		"wrapped":            {fmt.Errorf("no: %w", &dialog.Refusal{Status: 480, Reason: "Not\r\nnow", Headers: headers}), 480, "Not  now"},
		"challenge":          {&dialog.Refusal{Status: 407, Headers: headers}, 407, "Proxy Authentication Required"},
		"redirection":        {&dialog.Refusal{Status: 302, Headers: headers}, 302, "Moved Temporarily"},
		"nothing":            {&dialog.Refusal{Headers: headers}, 488, "Not Acceptable Here"},
		"no refusal":         {&dialog.Refusal{Status: 200, Headers: headers}, 488, "Not Acceptable Here"},
		"out of range":       {&dialog.Refusal{Status: 700, Headers: headers}, 488, "Not Acceptable Here"},
		"of a ResponseError": {(&dialog.ResponseError{StatusCode: 503, RetryAfter: 3 * time.Second, Warnings: []string{`305 me "a"`}}).Refusal(), 503, "Service Unavailable"},
	} {
		for _, method := range []string{"INVITE", "UPDATE"} {
			t.Run(name+" "+method, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					l := w.incoming(w.stack(stackIP), w.peer(peerIP))
					l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return sdpBody(answerSDP), c.err })
					res := l.offers(method, offerSDP)
					require.Equal(t, c.code, res.StatusCode)
					require.Equal(t, c.reason, res.Reason)
					require.Equal(t, "3", value(res, "Retry-After"))
					require.Equal(t, []string{`305 me "a"`}, valuesOf(res, "Warning"))
					require.Len(t, res.GetHeaders("To"), 1)
					require.Empty(t, valuesOf(res, "X"), "it would break the response")
					require.Empty(t, valuesOf(res, "Y"))
					require.Empty(t, res.Body())
					l.stands(l.peer)
				})
			})
		}
	}
}

// FD14: what is not a refusal of anybody's.
func TestOtherErrorsOfOnOffer(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		code int
	}{
		"any":                  {errors.New("no"), 488},
		"no answer":            {fmt.Errorf("other call: %w", dialog.ErrTimeout), 504},
		"a time that is over":  {context.DeadlineExceeded, 504},
		"busy":                 {fmt.Errorf("other call: %w", dialog.ErrPending), 491},
		"ended":                {&dialog.StateError{Op: "ReInvite", State: dialog.DialogStateTerminated}, 488},
		"lost":                 {dialog.ErrTransport, 488},
		"nil ResponseError":    {(*dialog.ResponseError)(nil), 500},
		"nil Refusal":          {(*dialog.Refusal)(nil), 500},
		"no Refusal inside":    {fmt.Errorf("no: %w", (*dialog.Refusal)(nil)), 488},
		"no response inside":   {fmt.Errorf("no: %w", (*dialog.ResponseError)(nil)), 488},
		"text that falls over": {fallsOver{}, 500},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l := w.incoming(w.stack(stackIP), w.peer(peerIP))
				l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return nil, c.err })
				for _, method := range []string{"INVITE", "UPDATE"} {
					require.Equal(t, c.code, l.offers(method, offerSDP).StatusCode)
				}
				l.stands(l.peer)
			})
		})
	}
}

type fallsOver struct{}

func (fallsOver) Error() string { panic("no text") }

// FD14: the other call's silence is a 504 here, and ends it alone.
func TestOtherCallThatDoesNotAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		one, other := w.bridged()
		one.ask("INVITE", withBody(offerSDP))
		other.next("INVITE")
		require.Equal(t, 504, one.peer.final("INVITE").StatusCode)
		require.Equal(t, dialog.DialogStateEstablished, one.d.State())
		other.reply(other.next("BYE"), dialogtest.Response{Code: 200})
		hangUp(t, one.d, one.peer)
	})
}

// FD15: a call that was answered 200, and ended since OnOffer refused what that
// offered, was refused by nobody: nothing of the other call's is found in its error.
func TestErrorOfACallIsNotThatOfTheOther(t *testing.T) {
	others := map[string]error{
		"refused":  &dialog.ResponseError{Method: "INVITE", StatusCode: 486, Reason: "Busy Here"},
		"silent":   dialog.ErrTimeout,
		"lost":     dialog.ErrTransport,
		"shut":     dialog.ErrShutdown,
		"over":     &dialog.StateError{Op: "ReInvite", State: dialog.DialogStateTerminated},
		"transfer": &dialog.TransferError{},
	}
	for name, err := range others {
		for _, reliable := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " ", reliable), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					opts := dialog.InviteOpts{Setup: func(d *dialog.Dialog) {
						d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return nil, fmt.Errorf("other call: %w", err) })
					}}
					l := w.calls(w.stack(stackIP), w.peer(peerIP), opts)
					if reliable {
						l.answer(dialogtest.Response{Code: 183, Body: offerSDP, Headers: reliably(1)})
						l.reply(l.next("PRACK"), dialogtest.Response{Code: 200})
						l.reply(l.next("CANCEL"), dialogtest.Response{Code: 200})
						l.answer(dialogtest.Response{Code: 487})
					} else {
						l.answer(dialogtest.Response{Code: 200, Body: offerSDP})
						require.Contains(t, string(l.next("ACK").Message.Body()), "m=audio 0 ")
						l.reply(l.next("BYE"), dialogtest.Response{Code: 200})
					}
					for _, got := range []error{l.d.WaitAnswer(context.Background()), l.d.Cause().Err} {
						require.ErrorContains(t, got, "other call: ")
						var refused *dialog.ResponseError
						var state *dialog.StateError
						var transfer *dialog.TransferError
						require.False(t, errors.As(got, &refused), "%v", got)
						require.False(t, errors.As(got, &state), "%v", got)
						require.False(t, errors.As(got, &transfer), "%v", got)
						for _, sentinel := range []error{dialog.ErrTimeout, dialog.ErrTransport, dialog.ErrShutdown, dialog.ErrTerminated} {
							require.NotErrorIs(t, got, sentinel)
						}
						var how *dialog.Refusal
						require.ErrorAs(t, got, &how, "how it was refused here")
					}
					require.ErrorIs(t, l.d.WaitAnswer(context.Background()), dialog.ErrCanceled)
					synctest.Wait()
					require.Equal(t, dialog.PartyLocal, l.d.Cause().By)
				})
			})
		}
	}
}

// An incoming call is refused with what refused another.
func TestCallIsRefusedAsAnotherWas(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.stack(stackIP)
		one := w.rings(s, w.peer(peerIP))
		other := w.calls(s, w.peer(otherIP), offer(offerSDP))
		other.answer(dialogtest.Response{Code: 603, Headers: []string{`Reason: Q.850;cause=21`, "Retry-After: 60", `Warning: 399 far "x"`}})
		var refused *dialog.ResponseError
		require.ErrorAs(t, other.d.WaitAnswer(context.Background()), &refused)
		require.Equal(t, []string{`399 far "x"`}, refused.Warnings)
		r := refused.Refusal()
		require.NoError(t, one.d.RejectWith(context.Background(), r.Status, r.Reason, dialog.WithHeaders(r.Headers...)))
		m := w.one(stackIP, "603 INVITE")
		require.Equal(t, "Q.850;cause=21", m.value(t, "Reason"))
		require.Equal(t, "60", m.value(t, "Retry-After"))
		require.Equal(t, `399 far "x"`, m.value(t, "Warning"))
	})
}
