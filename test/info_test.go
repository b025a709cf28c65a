package test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

func packages(names ...string) func(*dialog.StackConfig) {
	return func(c *dialog.StackConfig) { c.InfoPackages = append([]string{}, names...) }
}

// RFC 6086 5.2.3: the INVITE lists what its sender takes, the answer what the
// other does, and INFOs of these packages reach the handlers.
func TestInfoPackagesOfBothSides(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1", packages("foo", "bar")), w.stack("10.0.0.2", packages("baz"))
		caller, callee := w.established(a, b)
		require.Equal(t, "foo, bar", testkit.Value(w.sent("10.0.0.1", "INVITE")[0].msg, "Recv-Info"))
		for _, answer := range []string{"180 INVITE", "200 INVITE"} {
			require.Equal(t, "baz", testkit.Value(w.sent("10.0.0.2", answer)[0].msg, "Recv-Info"))
		}
		require.Empty(t, w.sent("10.0.0.1", "ACK")[0].msg.GetHeaders("Recv-Info"), "RFC 6086 7.1")
		require.Equal(t, []string{"baz"}, caller.Info().PeerInfoPackages)
		require.Equal(t, []string{"foo", "bar"}, callee.Info().PeerInfoPackages)

		got := make(chan string, 1)
		require.NoError(t, callee.OnRequest("INFO", func(_ context.Context, req *sip.Request) dialog.Answer {
			got <- dialog.InfoPackageOf(req) + " " + testkit.Value(req, "Content-Disposition") + " " + string(req.Body())
			return dialog.Answer{}
		}))
		body := dialog.NewBody("text/plain", []byte("hello"))
		require.NoError(t, caller.SendInfoPackage(context.Background(), "baz", body))
		require.Equal(t, "baz Info-Package hello", <-got)
		require.ErrorIs(t, caller.SendInfoPackage(context.Background(), "foo", body), dialog.ErrInfoPackage)
		require.ErrorIs(t, caller.SendInfo(context.Background(), body, dialog.Header{Name: "Info-Package", Value: "BAZ"}), dialog.ErrInfoPackage, "names are case sensitive")
		require.NoError(t, caller.SendInfo(context.Background(), body, dialog.Header{Name: "Info-Package", Value: "baz;p=1"}))
		require.Equal(t, "baz  hello", <-got)
		require.NoError(t, callee.SendInfoPackage(context.Background(), "bar", nil), "listed, and nobody asks for it: 200")
		require.NoError(t, caller.ReInvite(context.Background(), offer(offerSDP)))
		require.Equal(t, "foo, bar", testkit.Value(w.sent("10.0.0.1", "INVITE")[1].msg, "Recv-Info"))
		require.Equal(t, "baz", testkit.Value(w.sent("10.0.0.2", "200 INVITE")[1].msg, "Recv-Info"))
		require.NoError(t, caller.Bye(context.Background(), ""))
	})
}

// RFC 6086 5.2.3: no Recv-Info in an answer unless the request has one.
func TestInfoPackagesAreNotSpokenOfUnlessAsked(t *testing.T) {
	for config, want := range map[bool]string{true: "", false: "none"} {
		bubble(t, func(t *testing.T, w *world) {
			a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2", packages("foo"))
			if config {
				a = w.stack("10.0.0.3", packages())
			}
			caller, callee := w.established(a, b)
			header := w.sent("10.0.0.2", "200 INVITE")[0].msg.GetHeaders("Recv-Info")
			if want == "none" {
				require.Empty(t, header)
				require.Nil(t, callee.Info().PeerInfoPackages)
				require.ErrorIs(t, caller.SendInfoPackage(context.Background(), "foo", nil), dialog.ErrInfoPackage)
				return
			}
			require.Len(t, header, 1)
			require.Len(t, w.sent("10.0.0.3", "INVITE")[0].msg.GetHeaders("Recv-Info"), 1, "empty: we know them")
			require.NotNil(t, callee.Info().PeerInfoPackages)
			require.Empty(t, callee.Info().PeerInfoPackages)
		})
	}
	_, err := dialog.NewStack(&dialog.StackConfig{InfoPackages: []string{"foo bar"}})
	require.ErrorIs(t, err, dialog.ErrInvalidArgument)
}

// RFC 6086 4.2.2: a package that is not listed gets 469 with those that are,
// whatever handler there is, and the call goes on.
func TestInfoOfAnUnlistedPackageIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2", packages("foo", "bar")), w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		require.NoError(t, d.OnRequest("INFO", func(context.Context, *sip.Request) dialog.Answer {
			t.Error("must not be called")
			return dialog.Answer{}
		}))
		for i, name := range []string{"baz", "Foo", ""} {
			res := p.ask(b, inside("INFO", uint32(11+i), "Info-Package: "+name))
			require.Equal(t, 469, res.StatusCode)
			require.Equal(t, "foo, bar", testkit.Value(res, "Recv-Info"))
		}
		require.Equal(t, dialog.DialogStateEstablished, d.State())
		hangUp(t, d, p)
	})
}

// RFC 6086 5.2.2, 5.2.4: a request that is accepted changes what the peer takes,
// one that is refused, or says nothing, does not. A 469 ends nothing.
func TestInfoPackagesChangeWithAcceptedRequests(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2", withoutRetry), w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		takes := func() []string { return d.Info().PeerInfoPackages }
		require.Nil(t, takes())
		res := p.ask(b, inside("UPDATE", 11, contactOfPeer, "Recv-Info: foo;p=1", "Recv-Info: bar"))
		require.Equal(t, 200, res.StatusCode)
		require.Len(t, res.GetHeaders("Recv-Info"), 1)
		require.Equal(t, []string{"foo", "bar"}, takes())

		result := began(func() error { return d.ReInvite(context.Background(), offer(answerSDP)) })
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 488, Headers: []string{"Recv-Info: baz"}})
		require.Error(t, <-result)
		require.Equal(t, []string{"foo", "bar"}, takes())

		require.Equal(t, 200, p.ask(b, inside("UPDATE", 12, contactOfPeer)).StatusCode)
		require.Equal(t, []string{"foo", "bar"}, takes())

		sent := began(func() error { return d.SendInfoPackage(context.Background(), "foo", nil) })
		p.reply(p.next("INFO"), dialogtest.Response{Code: 469, Headers: []string{"Recv-Info: baz"}})
		var refused *dialog.ResponseError
		require.ErrorAs(t, <-sent, &refused)
		require.Equal(t, 469, refused.StatusCode)
		synctest.Wait()
		require.Equal(t, []string{"foo", "bar"}, takes(), "a 469 changes nothing")
		require.Equal(t, dialog.DialogStateEstablished, d.State())

		result = began(func() error { return d.ReInvite(context.Background(), offer(answerSDP)) })
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 200, Headers: []string{contactOfPeer, "Recv-Info: "}, Body: offerSDP})
		require.NoError(t, <-result)
		require.Empty(t, takes())
		require.ErrorIs(t, d.SendInfoPackage(context.Background(), "foo", nil), dialog.ErrInfoPackage)
		hangUp(t, d, p)
	})
}

func TestDTMFInBothForms(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		caller, callee := w.established(a, b)
		keys := make(chan dialog.DTMF, 20)
		callee.OnDTMF(func(key dialog.DTMF) { keys <- key })
		for _, digit := range "0123456789*#Ad" {
			require.NoError(t, caller.SendDTMF(context.Background(), digit, dialog.DTMFOpts{}))
		}
		require.NoError(t, caller.SendDTMF(context.Background(), '5', dialog.DTMFOpts{Duration: 2 * time.Second}))
		require.NoError(t, caller.SendDTMF(context.Background(), '#', dialog.DTMFOpts{Plain: true}))
		synctest.Wait()
		for _, digit := range "0123456789*#AD" {
			require.Equal(t, dialog.DTMF{Digit: digit, Duration: 160 * time.Millisecond}, <-keys)
		}
		require.Equal(t, dialog.DTMF{Digit: '5', Duration: 2 * time.Second}, <-keys)
		require.Equal(t, dialog.DTMF{Digit: '#'}, <-keys)
		sent := w.sent("10.0.0.1", "INFO")
		require.Equal(t, "application/dtmf-relay", testkit.Value(sent[1].msg, "Content-Type"))
		require.Equal(t, "Signal=1\r\nDuration=160\r\n", sent[1].body())
		require.Equal(t, "application/dtmf", testkit.Value(sent[len(sent)-1].msg, "Content-Type"))
		require.Equal(t, "#", sent[len(sent)-1].body())

		for _, digit := range []rune{'E', 'x', ' ', 0, '٣', 'é'} {
			require.ErrorIs(t, caller.SendDTMF(context.Background(), digit, dialog.DTMFOpts{}), dialog.ErrInvalidArgument)
		}
		require.ErrorIs(t, caller.SendDTMF(context.Background(), '1', dialog.DTMFOpts{Duration: -1}), dialog.ErrInvalidArgument)
		require.NoError(t, caller.Bye(context.Background(), ""))
		require.ErrorIs(t, caller.SendDTMF(context.Background(), '1', dialog.DTMFOpts{}), dialog.ErrTerminated)
	})
}

// FD13. The peer has its 200 before the application hears of the key, also when the
// 200 takes its time.
func TestKeyIsToldOfOnceItsInfoIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		slow := func(e dialog.TraceEvent) {
			if e.Outbound && strings.Contains(string(e.Data), "CSeq: 11 INFO") {
				time.Sleep(time.Second) // on the fake clock
			}
		}
		b, p := w.stack("10.0.0.2", func(c *dialog.StackConfig) { c.Trace = slow }), w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		answered := make(chan int, 1)
		d.OnDTMF(func(dialog.DTMF) { answered <- len(w.sent("10.0.0.2", "200 INFO")) })
		r := inside("INFO", 11, "Content-Type: application/dtmf")
		r.Body = "5"
		require.NoError(t, p.Send(b.Addr(), p.Request(r)))
		require.Equal(t, 1, <-answered)
		hangUp(t, d, p)
	})
}

// Bodies of gateways, correct and incorrect ones.
func TestDTMFIsReadAsItIsWritten(t *testing.T) {
	cases := []struct {
		kind, body string
		want       dialog.DTMF // zero: 400
	}{
		{"application/dtmf-relay", "Signal= 5\r\nDuration= 160\r\n", dialog.DTMF{Digit: '5', Duration: 160 * time.Millisecond}},
		{"Application/DTMF-Relay; x=y", "signal=*\nDuration=100\nVolume=3", dialog.DTMF{Digit: '*', Duration: 100 * time.Millisecond}},
		{"application/dtmf-relay", "Signal=11\r\n", dialog.DTMF{Digit: '#'}},
		{"application/dtmf-relay", "Duration=160\r\n", dialog.DTMF{}},
		{"application/dtmf-relay", "Signal=5\r\nDuration=-1\r\n", dialog.DTMF{}},
		{"application/dtmf-relay", "Signal=55\r\n", dialog.DTMF{}},
		{"application/dtmf-relay", "Signal=\r\n", dialog.DTMF{}},
		{"application/dtmf", "7", dialog.DTMF{Digit: '7'}},
		{"application/dtmf", " c \r\n", dialog.DTMF{Digit: 'C'}},
		{"application/dtmf", "15", dialog.DTMF{Digit: 'D'}},
		{"application/dtmf", "16", dialog.DTMF{}},
		{"application/dtmf", "\xff", dialog.DTMF{}},
		{"application/dtmf", "seven", dialog.DTMF{}},
	}
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		keys := make(chan dialog.DTMF, 20)
		d.OnDTMF(func(key dialog.DTMF) { keys <- key; panic("in the callback") })
		for i, c := range cases {
			r := inside("INFO", uint32(11+i), "Content-Type: "+c.kind)
			r.Body = c.body
			res := p.ask(b, r)
			if c.want == (dialog.DTMF{}) {
				require.Equal(t, 400, res.StatusCode, "%q", c.body)
				continue
			}
			require.Equal(t, 200, res.StatusCode, "%q", c.body)
			require.Equal(t, c.want, <-keys)
		}

		// Without a callback, and where it is something else, the handler has it.
		require.NoError(t, d.OnRequest("INFO", func(context.Context, *sip.Request) dialog.Answer { return dialog.Answer{Status: 406} }))
		r := inside("INFO", 40, "Content-Type: text/plain")
		r.Body = "5"
		require.Equal(t, 406, p.ask(b, r).StatusCode)
		d.OnDTMF(nil)
		r = inside("INFO", 41, "Content-Type: application/dtmf")
		r.Body = "5"
		require.Equal(t, 406, p.ask(b, r).StatusCode)
		hangUp(t, d, p)
	})
}
