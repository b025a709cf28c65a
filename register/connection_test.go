package register_test

import (
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/testkit"
	"sipdialog.example/dialog/register"
)

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
