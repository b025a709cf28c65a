//go:build interop && linux

package peers

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

// station is a stack of ours on an address of its own.
type station struct {
	*dialog.Stack
	s        *scene
	name, ip string
	calls    chan *dialog.Dialog
}

// The last bytes of addresses in a scene.
const (
	aliceHost, carolHost, proxyHost, peerHost, otherHost = 1, 3, 9, 20, 21
)

// station starts a stack that listens on the transport.
func (s *scene) station(host int, name, transport string, change ...func(*dialog.StackConfig)) *station {
	s.t.Helper()
	st := &station{s: s, name: name, ip: s.address(host, name), calls: make(chan *dialog.Dialog, 10)}
	config := &dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: transport, Address: st.ip, Port: portOf(transport)},
		From:      &dialog.Address{URI: sip.Uri{Scheme: "sip", User: name, Host: st.ip}},
		Trace:     s.trace(name),
	}
	for _, f := range change {
		f(config)
	}
	stack, err := dialog.NewStack(config)
	require.NoError(s.t, err)
	st.Stack = stack
	stack.OnIncomingDialog(func(d dialog.IDialog) {
		called := st.user(d.(*dialog.Dialog).Request().Recipient.User)
		called.watch(d.(*dialog.Dialog), "incoming")
		called.calls <- d.(*dialog.Dialog)
	})
	require.NoError(s.t, stack.Start(context.Background()))
	s.mu.Lock()
	s.stations = append(s.stations, st)
	s.mu.Unlock()
	s.t.Cleanup(st.leave)
	return st
}

// another is a further user of the same stack, for phones that have only one connection.
func (st *station) another(name string) *station {
	other := &station{Stack: st.Stack, s: st.s, name: name, ip: st.ip, calls: make(chan *dialog.Dialog, 10)}
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	st.s.stations = append(st.s.stations, other)
	return other
}

// user returns the user of this stack that is called: itself, or another.
func (st *station) user(name string) *station {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	for _, other := range st.s.stations {
		if other.Stack == st.Stack && other.name == name {
			return other
		}
	}
	return st
}

// leave ends the stack, which must have nothing left.
func (st *station) leave() {
	limit := soon
	if st.s.t.Failed() {
		limit = time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := st.Shutdown(ctx); err != nil && !st.s.t.Failed() {
		st.s.t.Errorf("%s: %v", st.name, err)
	}
}

// watch notes the states of a call in the ladder.
func (st *station) watch(d *dialog.Dialog, way string) {
	d.OnStateChange(func(state dialog.DialogState) { st.s.note(st.name, way+": "+state.String()) })
}

// session is the session that this station offers and answers with.
func (st *station) session() dialog.Body {
	text := "v=0\r\no=- 1 1 IN IP4 %[1]s\r\ns=-\r\nc=IN IP4 %[1]s\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 101\r\n" +
		"a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
	return dialog.NewBody("application/sdp", fmt.Appendf(nil, text, st.ip))
}

// at is the URI of this station.
func (st *station) at(transport string) sip.Uri {
	return sip.Uri{Scheme: "sip", User: st.name, Host: st.ip, Port: portOf(transport), UriParams: over(transport)}
}

// portOf is the port that stations and phones listen on. Browsers refuse to connect to 5060
// and 5061.
func portOf(transport string) int {
	switch transport {
	case "tls":
		return 5061
	case "ws", "wss":
		return 8080
	}
	return 5060
}

func over(transport string) sip.HeaderParams { return sip.HeaderParams{{K: "transport", V: transport}} }

// invites begins a call.
func (st *station) invites(p phone, opts dialog.InviteOpts) *dialog.Dialog {
	st.s.t.Helper()
	target, flow := p.target()
	opts.Flow = flow
	return st.invite(target, opts)
}

func (st *station) invite(target sip.Uri, opts dialog.InviteOpts) *dialog.Dialog {
	st.s.t.Helper()
	var call *dialog.Dialog
	opts.Setup = func(d *dialog.Dialog) { st.watch(d, "outgoing") }
	st.s.try("inviting", func(ctx context.Context) error {
		d, err := st.NewInvite(ctx, target, opts)
		if err == nil {
			call = d.(*dialog.Dialog)
		}
		return err
	})
	return call
}

// calling makes a call that the phone answers.
func (st *station) calling(p phone) *dialog.Dialog {
	st.s.t.Helper()
	call := st.invites(p, dialog.InviteOpts{Body: sessionFor(p, st)})
	p.rings()
	p.answer()
	st.s.try("being answered", call.WaitAnswer)
	return call
}

// called takes a call that the phone makes.
func (st *station) called(p phone) *dialog.Dialog {
	st.s.t.Helper()
	p.dial(st)
	return st.accepts(p)
}

// accepts answers a call that comes.
func (st *station) accepts(p phone) *dialog.Dialog {
	st.s.t.Helper()
	d := st.rung()
	st.s.try("accepting", func(ctx context.Context) error { return d.Accept(ctx, dialog.WithBody(answerFor(p, st, d))) })
	st.established(d)
	return d
}

// rung waits for a call.
func (st *station) rung() *dialog.Dialog {
	st.s.t.Helper()
	select {
	case d := <-st.calls:
		return d
	case <-time.After(soon):
		require.FailNow(st.s.t, "nobody calls "+st.name)
		return nil
	}
}

// established waits until the peer knows that its call has been answered.
func (st *station) established(d *dialog.Dialog) {
	st.s.t.Helper()
	id := d.Key().CallID
	st.s.got("ACK", func(ack sip.Message) bool { return ack.CallID().Value() == id })
	require.Equal(st.s.t, dialog.DialogStateEstablished, d.State())
}

// ended waits for the end of a call.
func ended(t *testing.T, d *dialog.Dialog, by dialog.Party) {
	t.Helper()
	select {
	case <-d.Done():
	case <-time.After(soon):
		require.FailNow(t, "the call goes on")
	}
	require.Equal(t, by, d.Cause().By, d.Cause().String())
}

// binding is where a phone has registered that it is reached.
type binding struct {
	contact sip.Uri
	flow    *dialog.Flow
}

// registers lets a station be a registrar. The result has the first registration.
func (st *station) registers() <-chan binding {
	st.s.t.Helper()
	first := make(chan binding, 1)
	require.NoError(st.s.t, st.OnRequest("REGISTER", func(ctx context.Context, req *sip.Request) dialog.Answer {
		select {
		case first <- binding{*req.Contact().Address.Clone(), dialog.FlowFrom(ctx)}:
		default:
		}
		contact := dialog.Header{Name: "Contact", Value: req.Contact().Value() + ";expires=600"}
		return dialog.Answer{Headers: []dialog.Header{contact}}
	}))
	return first
}
