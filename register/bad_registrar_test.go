package register_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/testkit"
	"sipdialog.example/dialog/register"
)

// RFC 3261 10.2.8: the registrar wants a longer expiry, and gets it from then on.
func TestA423RaisesTheExpiry(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := w.registrar(serverIP, func(_ int, req *sip.Request) dialog.Answer {
			if testkit.Value(req, "Expires") == "60" {
				return refuses(423, dialog.Header{Name: "Min-Expires", Value: "1800"})(0, req)
			}
			return bound(req, 1800)
		})
		p := w.telephone(w.stack(phoneIP), register.Options{Expires: time.Minute})
		require.Equal(t, 30*time.Minute, p.waits().Expires)
		time.Sleep(time.Hour)
		var asked []string
		for _, req := range r.registers() {
			asked = append(asked, testkit.Value(req.Request, "Expires"))
		}
		require.Equal(t, []string{"60", "1800", "1800", "1800", "1800"}, asked[:5])
		inOrder(t, r.registers())
		p.closes()
	})
}

// Any registrar is asked no more often than the back-off allows, the state is correct, and the
// end leaves nothing.
func TestABadRegistrarMakesNoLoop(t *testing.T) {
	other := dialog.Header{Name: "Contact", Value: "<sip:alice@192.0.2.9>;expires=3600"}
	var nonces atomic.Int64
	challenge := func(stale string) func(int, *sip.Request) dialog.Answer {
		return func(int, *sip.Request) dialog.Answer {
			return dialog.Answer{Status: 401, Headers: []dialog.Header{{Name: "WWW-Authenticate",
				Value: fmt.Sprintf(`Digest realm="pbx", nonce="n%d", qop="auth"%s`, nonces.Add(1), stale)}}}
		}
	}
	for name, c := range map[string]struct {
		answer func(n int, req *sip.Request) dialog.Answer
		// most is how many REGISTERs one try may need.
		most int
	}{
		"423 without an end": {func(n int, _ *sip.Request) dialog.Answer {
			return refuses(423, dialog.Header{Name: "Min-Expires", Value: fmt.Sprint(10_000 * n)})(0, nil)
		}, 4},
		"423 that asks for less":     {refuses(423, dialog.Header{Name: "Min-Expires", Value: "1"}), 1},
		"423 that asks for nothing":  {refuses(423), 1},
		"423 that asks for nonsense": {refuses(423, dialog.Header{Name: "Min-Expires", Value: "-1"}), 1},
		"grants 0":                   {binds(0), 1},
		"forgets us":                 {refuses(200), 1},
		"binds another":              {refuses(200, other), 1},
		"new nonces":                 {challenge(""), 9},
		"new stale nonces":           {challenge(", stale=true"), 9},
		"no such user":               {refuses(404), 1},
		"forbidden":                  {refuses(403), 1},
		"at once, please":            {refuses(503, dialog.Header{Name: "Retry-After", Value: "0"}), 1},
		"decline":                    {refuses(603), 1},
		"to itself":                  {refuses(302, dialog.Header{Name: "Contact", Value: "<sip:" + serverIP + ">"}), 1},
		"to nobody":                  {refuses(301), 1},
		"to ever other ports": {func(n int, _ *sip.Request) dialog.Answer {
			return refuses(302, dialog.Header{Name: "Contact", Value: fmt.Sprintf("<sip:%s;x=%d;maddr=%s>", serverIP, n, serverIP)})(0, nil)
		}, 6},
		"unknown extension": {refuses(420, dialog.Header{Name: "Unsupported", Value: "path"}), 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				r := w.registrar(serverIP, c.answer)
				p := w.telephone(w.stack(phoneIP), register.Options{})
				s, err := p.Wait(context.Background())
				require.Error(t, err)
				require.Equal(t, register.Failed, s.State)
				require.Empty(t, s.Contacts)
				require.True(t, s.Until.IsZero())
				time.Sleep(24 * time.Hour)
				got := r.registers()
				inOrder(t, got)
				// 30 s, 1, 2, 4, 8, 16 minutes at least, then 15 to 30 minutes each.
				require.LessOrEqual(t, len(got), c.most*(6+24*4))
				require.GreaterOrEqual(t, len(got), 6+24*2-6)
				tries := 0
				for i := 1; i < len(got); i++ {
					if gap := got[i].at - got[i-1].at; gap > 0 {
						tries++
						require.GreaterOrEqual(t, gap, 30*time.Second)
						require.LessOrEqual(t, gap, 30*time.Minute)
						continue
					}
				}
				require.LessOrEqual(t, tries, 6+24*4)
				require.NotContains(t, p.states(), "Registered")
				require.Zero(t, p.InviteOpts(dialog.InviteOpts{}).Route)
				p.closes()
				require.Len(t, r.registers(), len(got), "nothing is bound")
			})
		})
	}
}

// A registrar that grants little is asked every five seconds at most; a grant that ends
// before that is none.
func TestAShortGrantIsNoLoop(t *testing.T) {
	for granted, most := range map[int]int{1: 8, 4: 8, 5: 721, 8: 721} {
		bubble(t, func(t *testing.T, w *world) {
			r := w.registrar(serverIP, binds(granted))
			p := w.telephone(w.stack(phoneIP), register.Options{})
			_, err := p.Wait(context.Background())
			time.Sleep(time.Hour - time.Second)
			require.LessOrEqual(t, len(r.registers()), most)
			if granted < 5 {
				require.ErrorIs(t, err, register.ErrNotBound)
				require.Equal(t, register.Failed, p.Status().State)
			} else {
				require.NoError(t, err)
				require.Equal(t, register.Registered, p.Status().State)
				require.False(t, time.Now().After(p.Status().Until))
			}
			p.closes()
		})
	}
}

// RFC 5626 4.2.1, 4.5: Retry-After makes the wait longer, never shorter.
func TestRetryAfterIsHonoured(t *testing.T) {
	for value, want := range map[string]time.Duration{"7200": 2 * time.Hour, "600 (later);duration=60": 10 * time.Minute, "1": 30 * time.Second, "x": 30 * time.Second} {
		bubble(t, func(t *testing.T, w *world) {
			r := w.registrar(serverIP, refuses(503, dialog.Header{Name: "Retry-After", Value: value}))
			p := w.telephone(w.stack(phoneIP), register.Options{})
			_, err := p.Wait(context.Background())
			var refused *dialog.ResponseError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, 503, refused.StatusCode)
			require.GreaterOrEqual(t, p.Status().RetryIn, want)
			r.answers(binds(60))
			time.Sleep(want - time.Second)
			require.Equal(t, register.Failed, p.Status().State)
			time.Sleep(time.Minute)
			require.Equal(t, register.Registered, p.Status().State)
			p.closes()
		})
	}
}

// A registrar that is gone for a while is found again; a REGISTER that it may have taken
// without its answer reaching us is taken back at the end.
func TestASilentRegistrarIsFoundAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := w.registrar(serverIP, binds(600, dialog.Header{Name: "Service-Route", Value: "<sip:a.example;lr>"}))
		p := w.telephone(w.stack(phoneIP), register.Options{})
		p.waits()
		r.host.Unreachable(true)
		s := p.becomes(register.Failed)
		require.ErrorIs(t, s.Err, dialog.ErrTimeout)
		require.NotEmpty(t, s.Contacts, "still bound")
		_, err := p.Wait(context.Background())
		require.ErrorIs(t, err, dialog.ErrTimeout)
		require.True(t, time.Now().Before(s.Until))
		require.Len(t, p.Route(), 1, "as long as it is bound")
		time.Sleep(time.Until(s.Until) + time.Second)
		require.Nil(t, p.Route())
		require.Contains(t, p.states(), "Registered Failed")
		r.host.Unreachable(false)
		time.Sleep(30 * time.Minute)
		require.Equal(t, register.Registered, p.Status().State)
		inOrder(t, r.registers())
		p.closes()

		r.host.Unreachable(true)
		lonely := w.telephone(p.stack, register.Options{})
		_, err = lonely.Wait(context.Background())
		require.ErrorIs(t, err, dialog.ErrTimeout)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.ErrorIs(t, lonely.Close(ctx), context.DeadlineExceeded)
		synctest.Wait()
		require.Equal(t, register.Unregistered, lonely.last().State)
		require.Error(t, lonely.last().Err)
		r.host.Unreachable(false)
	})
}

// A challenge with a new nonce each time is answered each time, and the CSeq stays in order.
func TestEachRefreshIsChallenged(t *testing.T) {
	for _, stale := range []string{"", ", stale=true"} {
		bubble(t, func(t *testing.T, w *world) {
			n := 0
			r := w.registrar(serverIP, func(_ int, req *sip.Request) dialog.Answer {
				if current := fmt.Sprintf(`nonce="n%d"`, n); n > 0 && strings.Contains(testkit.Value(req, "Authorization"), current) {
					n++ // good for once
					return bound(req, 600)
				}
				n++
				return dialog.Answer{Status: 401, Headers: []dialog.Header{{Name: "WWW-Authenticate",
					Value: fmt.Sprintf(`Digest realm="pbx", nonce="n%d", qop="auth"%s`, n, stale)}}}
			})
			p := w.telephone(w.stack(phoneIP), register.Options{})
			p.waits()
			time.Sleep(time.Hour)
			got := r.registers()
			inOrder(t, got)
			require.LessOrEqual(t, len(got), 2*14)
			require.GreaterOrEqual(t, len(got), 2*11)
			require.NotContains(t, p.states(), "Failed")
			p.closes()
		})
	}
}

// RFC 3261 8.1.3.4, 10.2.4: a redirection is followed, and the refreshes go there too.
func TestARedirectionIsFollowed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		first := w.registrar(serverIP, refuses(302, dialog.Header{Name: "Contact", Value: "<sip:registrar@" + secondIP + ":5060>"}))
		second := w.registrar(secondIP, binds(600))
		p := w.telephone(w.stack(phoneIP), register.Options{})
		p.waits()
		time.Sleep(time.Hour)
		require.Len(t, first.registers(), 1)
		require.Greater(t, len(second.registers()), 10)
		require.Equal(t, "sip:"+secondIP+":5060", second.registers()[0].Recipient.String())
		inOrder(t, append(first.registers(), second.registers()...))
		second.answers(refuses(500))
		time.Sleep(20 * time.Minute)
		require.Greater(t, len(first.registers()), 1, "where we were sent from")
		p.Shutdown()
	})
}

// A registrar that closes the connection with each answer is not asked faster for it.
func TestARegistrarThatHangsUpMakesNoLoop(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var r *registrar
		r = w.registrar(serverIP, func(_ int, req *sip.Request) dialog.Answer {
			time.AfterFunc(10*time.Millisecond, r.host.BreakStreams)
			return bound(req, 600)
		})
		p := w.telephone(w.stack(phoneIP), register.Options{Registrar: overTCP})
		p.waits()
		time.Sleep(24 * time.Hour)
		require.LessOrEqual(t, len(r.registers()), 6+24*4)
		inOrder(t, r.registers())
		time.Sleep(time.Second)
		p.Shutdown()
	})
}

// A binding that is still there after the registrar has accepted its removal is reported.
func TestARegistrarThatKeepsTheBinding(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.registrar(serverIP, func(_ int, req *sip.Request) dialog.Answer {
			return dialog.Answer{Headers: []dialog.Header{{Name: "Contact", Value: dialog.HeaderText(req, "Contact")[0] + ";expires=600"}}}
		})
		p := w.telephone(w.stack(phoneIP), register.Options{})
		p.waits()
		err := p.Close(context.Background())
		require.ErrorIs(t, err, register.ErrStillBound)
		require.Equal(t, err, p.Close(context.Background()))
		require.True(t, errors.Is(p.Status().Err, register.ErrStillBound))
	})
}
