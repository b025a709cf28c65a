package test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
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
		require.Equal(t, "foo, bar", value(w.sent("10.0.0.1", "INVITE")[0].msg, "Recv-Info"))
		for _, answer := range []string{"180 INVITE", "200 INVITE"} {
			require.Equal(t, "baz", value(w.sent("10.0.0.2", answer)[0].msg, "Recv-Info"))
		}
		require.Empty(t, w.sent("10.0.0.1", "ACK")[0].msg.GetHeaders("Recv-Info"), "RFC 6086 7.1")
		require.Equal(t, []string{"baz"}, caller.Info().PeerInfoPackages)
		require.Equal(t, []string{"foo", "bar"}, callee.Info().PeerInfoPackages)

		got := make(chan string, 1)
		require.NoError(t, callee.OnRequest("INFO", func(_ context.Context, req *sip.Request) dialog.Answer {
			got <- dialog.InfoPackageOf(req) + " " + value(req, "Content-Disposition") + " " + string(req.Body())
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
		require.Equal(t, "foo, bar", value(w.sent("10.0.0.1", "INVITE")[1].msg, "Recv-Info"))
		require.Equal(t, "baz", value(w.sent("10.0.0.2", "200 INVITE")[1].msg, "Recv-Info"))
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
			require.Equal(t, "foo, bar", value(res, "Recv-Info"))
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
