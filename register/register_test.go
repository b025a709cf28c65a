package register_test

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
