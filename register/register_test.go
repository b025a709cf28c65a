package register_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
	"sipdialog.example/dialog/register"
)

// RFC 3261 10.2.4: a registration is refreshed before it expires, with the same Call-ID and
// a CSeq that rises by one; and taken back by the Contact that was bound.
func TestARegistrationIsRefreshedBeforeItExpires(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := w.registrar(serverIP, binds(600))
		p := w.telephone(w.stack(phoneIP), register.Options{})
		s := p.waits()
		require.Equal(t, 10*time.Minute, s.Expires)
		require.Equal(t, "sip:alice@"+phoneIP+":5060", s.Contacts[0].String())
		require.Equal(t, "UDP", s.Flow.Transport())
		time.Sleep(24*time.Hour - time.Second) // not while a refresh is under way
		got := r.registers()
		inOrder(t, got)
		for i := 1; i < len(got); i++ {
			gap := got[i].at - got[i-1].at
			require.Equal(t, got[i-1].CSeq().SeqNo+1, got[i].CSeq().SeqNo)
			require.LessOrEqual(t, gap, 5*time.Minute)
			require.GreaterOrEqual(t, gap, 270*time.Second)
			require.Equal(t, "3600", testkit.Value(got[i].Request, "Expires"))
		}
		first := got[0].Request
		require.Equal(t, "sip:"+serverIP, first.Recipient.String())
		require.Equal(t, alice.URI.String(), first.To().Address.String())
		require.Equal(t, alice.URI.String(), first.From().Address.String())
		require.Equal(t, "path", testkit.Value(first, "Supported"))
		require.Equal(t, strings.Repeat(" Registered", len(got)), strings.TrimPrefix(p.states(), "Registering"))

		p.closes()
		require.NoError(t, p.Close(context.Background()))
		all := r.registers()
		require.Len(t, all, len(got)+1)
		inOrder(t, all)
		last := all[len(got)].Request
		require.Equal(t, "0", testkit.Value(last, "Expires"))
		require.Equal(t, "sip:alice@"+phoneIP+":5060", last.Contact().Address.String())
		time.Sleep(24 * time.Hour)
		require.Len(t, r.registers(), len(all))
	})
}

// While nothing happens there is no goroutine, and nothing else but the timer.
func TestARegistrationHasNoGoroutine(t *testing.T) {
	for _, registrar := range []sip.Uri{{}, overTCP} {
		bubble(t, func(t *testing.T, w *world) {
			w.registrar(serverIP, binds(600))
			phone := w.stack(phoneIP)
			p := w.telephone(phone, register.Options{Registrar: registrar})
			p.waits()
			time.Sleep(time.Minute)
			synctest.Wait()
			require.Zero(t, testkit.Held(phone))
		})
	}
}

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

// RFC 3608 6.1: calls take the route that the registrar has given last, behind our own
// proxy; none once it has refused us.
func TestCallsTakeTheServiceRoute(t *testing.T) {
	hop := func(host string) sip.Uri {
		return sip.Uri{Scheme: "sip", Host: host, UriParams: sip.HeaderParams{{K: "lr"}}}
	}
	texts := func(uris []sip.Uri) (list []string) {
		for _, u := range uris {
			list = append(list, u.String())
		}
		return list
	}
	proxy := sip.Uri{Scheme: "sip", Host: serverIP, UriParams: sip.HeaderParams{{K: "lr"}}}
	bubble(t, func(t *testing.T, w *world) {
		r := w.registrar(serverIP, binds(600, dialog.Header{Name: "Service-Route", Value: "<sip:a.example;lr>, <sip:b.example;lr>"},
			dialog.Header{Name: "Service-Route", Value: "<sip:c.example;lr>"}, dialog.Header{Name: "Path", Value: "<sip:edge.example;lr>"}))
		p := w.telephone(w.stack(phoneIP, func(c *dialog.StackConfig) { c.OutboundProxy = &proxy }), register.Options{})
		s := p.waits()
		require.Equal(t, []string{"sip:a.example;lr", "sip:b.example;lr", "sip:c.example;lr"}, texts(s.ServiceRoute))
		require.Equal(t, []string{"sip:edge.example;lr"}, texts(s.Path))
		opts := p.InviteOpts(dialog.InviteOpts{})
		require.Equal(t, append([]string{proxy.String()}, texts(s.ServiceRoute)...), texts(opts.Route))
		require.Equal(t, opts.Route, p.Route())
		require.Equal(t, alice.URI.String(), opts.From.URI.String())
		require.Nil(t, opts.Flow)
		own := dialog.InviteOpts{Route: []sip.Uri{hop("own.example")}, Anonymous: true}
		require.Equal(t, own.Route, p.InviteOpts(own).Route)
		require.Nil(t, p.InviteOpts(own).From)
		require.Equal(t, "<"+proxy.String()+">", r.registers()[0].Route().Value())

		r.answers(binds(600, dialog.Header{Name: "Service-Route", Value: "<" + proxy.String() + ">"}))
		p.Refresh()
		time.Sleep(10 * time.Second)
		require.Equal(t, []string{proxy.String()}, texts(p.Route()), "named by both")
		r.answers(binds(600))
		p.Refresh()
		time.Sleep(10 * time.Second)
		require.Empty(t, p.Status().ServiceRoute)
		r.answers(binds(600, dialog.Header{Name: "Service-Route", Value: "<sip:a.example;lr>"}))
		p.Refresh()
		time.Sleep(10 * time.Second)
		require.Len(t, p.Status().ServiceRoute, 1)
		r.answers(refuses(403))
		p.Refresh()
		time.Sleep(10 * time.Second)
		require.Empty(t, p.Status().ServiceRoute)
		require.Equal(t, []string{proxy.String()}, texts(p.Route()))
		require.NotEmpty(t, p.Status().Contacts, "the binding from before stands")
		r.answers(binds(600))
		p.closes()
		require.Equal(t, "0", testkit.Value(r.registers()[len(r.registers())-1].Request, "Expires"))
	})
}

// Of several Contacts those are bound that the registrar lists; the shortest grant counts.
func TestSeveralContacts(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := w.registrar(serverIP, func(_ int, req *sip.Request) dialog.Answer {
			a := bound(req, 3600)
			if len(a.Headers) > 2 {
				a.Headers[1].Value = strings.Replace(a.Headers[1].Value, "expires=3600", "expires=120", 1)
				a.Headers = append(a.Headers[:2], dialog.Header{Name: "Contact", Value: "<sip:alice@192.0.2.9>;expires=5"})
			}
			return a
		})
		p := w.telephone(w.stack(phoneIP), register.Options{Contacts: []register.Contact{
			{URI: sip.Uri{Scheme: "sip", User: "alice"}, Params: sip.HeaderParams{{K: "q", V: "0.9"}}},
			{URI: sip.Uri{Scheme: "sip", User: "mobile", Host: "192.0.2.1"}},
			{URI: sip.Uri{Scheme: "sip", User: "voicemail", Host: "192.0.2.2"}},
		}})
		s := p.waits()
		require.Len(t, s.Contacts, 2)
		require.Equal(t, 2*time.Minute, s.Expires)
		require.Len(t, dialog.HeaderText(r.registers()[0].Request, "Contact"), 3)
		require.Contains(t, dialog.HeaderText(r.registers()[0].Request, "Contact")[0], ";q=0.9")
		p.closes()
		require.Len(t, dialog.HeaderText(r.registers()[1].Request, "Contact"), 3)
	})
}

// When the network has changed, the registrar gets the new address, and the old one back.
func TestANewAddressReplacesTheOld(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		bindings := make(map[string]bool)
		r := w.registrar(serverIP, func(_ int, req *sip.Request) dialog.Answer {
			for _, c := range dialog.HeaderText(req, "Contact") {
				bindings[c] = testkit.Value(req, "Expires") != "0"
			}
			var a dialog.Answer
			for c, is := range bindings {
				if is {
					a.Headers = append(a.Headers, dialog.Header{Name: "Contact", Value: c + ";expires=600"})
				}
			}
			return a
		})
		w.net.Unspecified = true
		phone := w.stack(phoneIP)
		p := w.telephone(phone, register.Options{})
		p.waits()
		time.Sleep(time.Minute)
		w.net.Host(phoneIP).Move(newIP)
		phone.NetworkChanged()
		time.Sleep(time.Second)
		require.Equal(t, "sip:alice@"+newIP+":5060", p.Status().Contacts[0].String())
		require.Equal(t, map[string]bool{"<sip:alice@" + phoneIP + ":5060>": false, "<sip:alice@" + newIP + ":5060>": true}, bindings)
		inOrder(t, r.registers())
		for range 1000 {
			phone.NetworkChanged()
			p.Refresh()
			time.Sleep(10 * time.Millisecond)
		}
		require.LessOrEqual(t, len(r.registers()), 3+3)
		p.closes()
		require.False(t, bindings["<sip:alice@"+newIP+":5060>"])
	})
}

// RFC 5626 4.4, 4.5: a registration whose connection is lost is made anew: at once if it
// has lasted, else after a while.
func TestALostConnectionIsReplaced(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := w.registrar(serverIP, binds(3600))
		p := w.telephone(w.stack(phoneIP), register.Options{Registrar: overTCP})
		p.waits()
		time.Sleep(time.Minute)
		r.host.BreakStreams()
		time.Sleep(time.Millisecond)
		require.Len(t, r.registers(), 2)
		require.Equal(t, "Registering Registered Failed Registering Registered", p.states())
		require.Equal(t, "TCP", p.Status().Flow.Transport())
		require.NoError(t, p.Status().Flow.Err())
		inOrder(t, r.registers())

		for range 5 { // it is cut whenever it is there
			r.host.BreakStreams()
			time.Sleep(time.Second)
			require.Equal(t, register.Failed, p.Status().State)
			require.ErrorIs(t, p.Status().Err, dialog.ErrFlowLost)
			require.NotEmpty(t, p.Status().Contacts)
			time.Sleep(p.Status().RetryIn)
			require.Equal(t, register.Registered, p.Status().State)
		}
		got := r.registers()
		require.Len(t, got, 7)
		require.Greater(t, got[6].at-got[2].at, 30*(2+4+8+16)*time.Second-time.Minute)
		p.closes()
	})
}

// A refresh whose connection breaks before the answer goes by another at once.
func TestARefreshWhoseConnectionBreaksIsSentAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var r *registrar
		r = w.registrar(serverIP, func(n int, req *sip.Request) dialog.Answer {
			if n == 2 {
				r.host.BreakStreams()
			}
			return bound(req, 600)
		})
		p := w.telephone(w.stack(phoneIP), register.Options{Registrar: overTCP})
		p.waits()
		time.Sleep(5 * time.Minute)
		got := r.registers()
		require.Len(t, got, 3)
		require.Equal(t, got[1].at, got[2].at)
		require.False(t, got[1].flow.Equal(got[2].flow))
		require.Equal(t, "Registering Registered Registered", p.states())
		inOrder(t, got)
		p.closes()
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

// RFC 5626 4.2.1: instance, reg-id, the connection as the way of calls, and its Flow-Timer.
func TestAnOutboundRegistration(t *testing.T) {
	const instance = "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"
	bubble(t, func(t *testing.T, w *world) {
		r := w.registrar(serverIP, binds(3600, dialog.Header{Name: "Require", Value: "outbound"}, dialog.Header{Name: "Flow-Timer", Value: "20"}))
		phone := w.stack(phoneIP)
		p := w.telephone(phone, register.Options{Registrar: overTCP, Instance: instance})
		s := p.waits()
		require.True(t, s.Outbound)
		got := r.registers()[0]
		contact := dialog.HeaderText(got.Request, "Contact")[0]
		require.Contains(t, contact, `;+sip.instance="<`+instance+`>"`)
		require.Contains(t, contact, ";reg-id=1")
		require.Equal(t, "path, outbound, gruu", testkit.Value(got.Request, "Supported"))
		opts := p.InviteOpts(dialog.InviteOpts{})
		require.True(t, s.Flow.Equal(opts.Flow))
		_, ob := opts.Contact.UriParams.Get("ob")
		require.True(t, ob)

		time.Sleep(time.Minute)
		w.net.Host(serverIP).Unreachable(true) // dies without a word
		time.Sleep(20*time.Second + 10*time.Second + time.Second)
		require.Contains(t, p.states(), "Registered Failed")
		w.net.Host(serverIP).Unreachable(false)
		time.Sleep(5 * time.Minute)
		require.Equal(t, register.Registered, p.Status().State)
		inOrder(t, r.registers())
		p.closes()
	})
}

// RFC 5626 4.2.1: several flows have a Call-ID and a reg-id each; calls go by one that is
// there.
func TestSeveralProxies(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		outbound := dialog.Header{Name: "Require", Value: "outbound"}
		first, second := w.registrar(serverIP, binds(3600, outbound)), w.registrar(secondIP, binds(3600, outbound))
		through := func(ip string) sip.Uri {
			return sip.Uri{Scheme: "sip", Host: ip, UriParams: sip.HeaderParams{{K: "transport", V: "tcp"}}}
		}
		p := w.telephone(w.stack(phoneIP), register.Options{
			Record: dialog.Address{URI: sip.Uri{Scheme: "sip", User: "alice", Host: "example.com"}}, Instance: "urn:uuid:1",
			Proxies: []sip.Uri{through(serverIP), through(secondIP)},
		})
		p.waits()
		time.Sleep(time.Minute)
		require.Len(t, p.Statuses(), 2)
		a, b := first.registers()[0], second.registers()[0]
		require.NotEqual(t, a.CallID().Value(), b.CallID().Value())
		require.Contains(t, dialog.HeaderText(a.Request, "Contact")[0], ";reg-id=1")
		require.Contains(t, dialog.HeaderText(b.Request, "Contact")[0], ";reg-id=2")
		require.Contains(t, a.Route().Value(), ";lr")
		require.Equal(t, "sip:example.com", a.Recipient.String())

		first.answers(refuses(500))
		w.net.Host(serverIP).BreakStreams()
		time.Sleep(time.Second)
		require.Equal(t, register.Failed, p.Statuses()[0].State)
		require.GreaterOrEqual(t, p.Statuses()[0].RetryIn, 90*time.Second)
		require.Equal(t, 1, p.Status().Proxy)
		opts := p.InviteOpts(dialog.InviteOpts{})
		require.Equal(t, secondIP, opts.Flow.Remote().Addr().String())
		require.Equal(t, secondIP, opts.Route[0].Host)
		first.answers(binds(3600, outbound))
		p.closes()
		require.Equal(t, "0", testkit.Value(second.registers()[1].Request, "Expires"))
	})
}

// RFC 5626 11.6: a proxy without support for it has the registration made without.
func TestAProxyWithoutOutbound(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := w.registrar(serverIP, func(_ int, req *sip.Request) dialog.Answer {
			if strings.Contains(dialog.HeaderText(req, "Contact")[0], "reg-id") {
				return dialog.Answer{Status: 439, Reason: "First Hop Lacks Outbound Support"}
			}
			return bound(req, 600)
		})
		p := w.telephone(w.stack(phoneIP), register.Options{Instance: "urn:uuid:1"})
		require.False(t, p.waits().Outbound)
		require.Len(t, r.registers(), 2)
		p.closes()
	})
}

// A phone behind a router hears its public address, and registers that.
func TestTheRegistrarMayWriteTheAddressThatItSees(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		router := w.net.NAT("203.0.113.1", dialogtest.NATConfig{RandomPorts: true})
		r := w.registrar(serverIP, func(int, *sip.Request) dialog.Answer { return dialog.Answer{} })
		r.answers(func(_ int, req *sip.Request) dialog.Answer {
			if testkit.Value(req, "Expires") == "0" {
				return dialog.Answer{}
			}
			return dialog.Answer{Headers: []dialog.Header{{Name: "Contact", Value: "<sip:alice@" + r.got[len(r.got)-1].flow.Remote().String() + ">;expires=60"}}}
		})
		p := w.telephone(w.stack("192.168.0.2", func(c *dialog.StackConfig) { c.Network = router.Host("192.168.0.2") }), register.Options{})
		require.Equal(t, time.Minute, p.waits().Expires)
		p.closes()
	})
}

func TestOptionsThatCannotBe(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		stack := w.stack(phoneIP)
		for name, change := range map[string]func(*register.Options){
			"no record":        func(o *register.Options) { o.Record = dialog.Address{} },
			"another scheme":   func(o *register.Options) { o.Record.URI = sip.Uri{Scheme: "tel", User: "1", Host: "x"} },
			"registrar's user": func(o *register.Options) { o.Registrar = alice.URI },
			"no Contact":       func(o *register.Options) { o.Contacts = []register.Contact{} },
			"any Contact":      func(o *register.Options) { o.Contacts = []register.Contact{{URI: sip.Uri{Wildcard: true}}} },
			"negative":         func(o *register.Options) { o.Expires = -1 },
			"too long":         func(o *register.Options) { o.Expires = 1 << 62 },
			"less than before": func(o *register.Options) { o.RetryBase, o.RetryMax = time.Hour, time.Minute },
			"too many":         func(o *register.Options) { o.Proxies = []sip.Uri{overTCP, overTCP} },
			"no proxy":         func(o *register.Options) { o.Proxies = []sip.Uri{{}} },
			"no URN":           func(o *register.Options) { o.Instance = "me" },
			"a broken URN":     func(o *register.Options) { o.Instance = "urn:x>\r\n" },
			"a header of ours": func(o *register.Options) { o.Headers = []dialog.Header{{Name: "m", Value: "x"}} },
			"Expires":          func(o *register.Options) { o.Headers = []dialog.Header{{Name: "expires", Value: "1"}} },
			"a broken header":  func(o *register.Options) { o.Headers = []dialog.Header{{Name: "X", Value: "a\r\nb"}} },
			"expires parameter": func(o *register.Options) {
				o.Contacts = []register.Contact{{URI: alice.URI, Params: sip.HeaderParams{{K: "expires", V: "1"}}}}
			},
		} {
			opts := register.Options{Record: alice}
			change(&opts)
			_, err := register.Start(stack, opts)
			require.ErrorIs(t, err, dialog.ErrInvalidArgument, name)
		}
		_, err := register.Start(nil, register.Options{Record: alice})
		require.ErrorIs(t, err, dialog.ErrInvalidArgument)
		fresh, err := dialog.NewStack(nil)
		require.NoError(t, err)
		_, err = register.Start(fresh, register.Options{Record: alice})
		require.ErrorIs(t, err, dialog.ErrNotStarted)
		require.NoError(t, stack.Shutdown(context.Background()))
		_, err = register.Start(stack, register.Options{Record: alice})
		require.ErrorIs(t, err, dialog.ErrShutdown)
	})
}

// The registration ends with its stack, at whatever moment.
func TestShutdownEndsARegistration(t *testing.T) {
	for _, wait := range []time.Duration{0, time.Millisecond, time.Minute, 10 * time.Minute} {
		for _, silent := range []bool{false, true} {
			bubble(t, func(t *testing.T, w *world) {
				r := w.registrar(serverIP, binds(600))
				r.host.Unreachable(silent)
				phone := w.stack(phoneIP)
				p := w.telephone(phone, register.Options{})
				time.Sleep(wait)
				began := time.Now()
				require.NoError(t, phone.Shutdown(context.Background()))
				require.Less(t, time.Since(began), time.Second)
				<-p.Done()
				_, err := p.Wait(context.Background())
				require.ErrorIs(t, err, dialog.ErrShutdown)
				require.Equal(t, register.Unregistered, p.last().State)
				require.ErrorIs(t, p.Close(context.Background()), dialog.ErrShutdown)
				p.Refresh()
				got := len(r.registers())
				time.Sleep(time.Hour)
				require.Len(t, r.registers(), got)
				r.host.Unreachable(false)
			})
		}
	}
}

// Close waits for a REGISTER that is under way (RFC 3261 10.2); a refresh, a loss, a change
// of the network, another Close and the end of the stack may cross it.
func TestCloseCrossesEverything(t *testing.T) {
	for _, shutdown := range []bool{false, true} {
		for _, delay := range []time.Duration{0, time.Millisecond, 4 * time.Second, 5 * time.Second} {
			bubble(t, func(t *testing.T, w *world) {
				w.net.SetStreamPolicy(func(dialogtest.Packet) time.Duration { return time.Millisecond })
				r := w.registrar(serverIP, binds(60))
				phone := w.stack(phoneIP)
				p := w.telephone(phone, register.Options{Registrar: overTCP})
				time.Sleep(delay)
				var all sync.WaitGroup
				for range 10 {
					all.Go(p.Refresh)
					all.Go(phone.NetworkChanged)
					all.Go(r.host.BreakStreams)
					all.Go(func() { _ = p.Close(context.Background()) })
					all.Go(func() { _ = p.Status(); _ = p.InviteOpts(dialog.InviteOpts{}); _ = p.Statuses() })
				}
				if shutdown {
					all.Go(func() { _ = phone.Shutdown(context.Background()) })
				}
				all.Wait()
				<-p.Done()
				synctest.Wait()
				inOrder(t, r.registers())
				require.Equal(t, 1, strings.Count(p.states(), "Unregistered"))
				require.True(t, strings.HasSuffix(p.states(), "Unregistered"))
				if got := r.registers(); !shutdown && p.last().Err == nil && len(got) > 0 {
					require.Equal(t, "0", testkit.Value(got[len(got)-1].Request, "Expires"))
				}
				got := len(r.registers())
				time.Sleep(time.Hour)
				require.Len(t, r.registers(), got)
			})
		}
	}
}

// The functions of the application may do what they like.
func TestCallbacksMayMisbehave(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.registrar(serverIP, binds(600))
		phone := w.stack(phoneIP)
		p := w.telephone(phone, register.Options{OnState: func(s register.Status) {
			time.Sleep(time.Second)
			if s.State == register.Registering {
				panic("as a test")
			}
			runtime.Goexit()
		}})
		p.waits()
		time.Sleep(time.Minute)
		require.Equal(t, "Registering Registered", p.states())
		require.EqualValues(t, 2, phone.Stats().Panics)
		p.closesBy(func() error { return p.Close(context.Background()) })

		closed := make(chan error, 1)
		var inside atomic.Pointer[register.Registration]
		q := w.telephone(phone, register.Options{OnState: func(s register.Status) {
			if s.State == register.Registered {
				closed <- inside.Load().Close(context.Background())
			}
		}})
		inside.Store(q.Registration)
		require.NoError(t, <-closed)
		<-q.Done()
	})
}

func (p *telephone) closesBy(end func() error) {
	p.t.Helper()
	require.NoError(p.t, end())
	time.Sleep(time.Minute)
	require.Equal(p.t, register.Unregistered, p.last().State)
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
