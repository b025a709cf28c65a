package register_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
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

func TestMain(m *testing.M) { testkit.Main(m) }

const (
	serverIP = "198.51.100.1"
	secondIP = "198.51.100.2"
	phoneIP  = "203.0.113.5"
	newIP    = "203.0.113.77"
)

// alice is the address of record.
var alice = dialog.Address{DisplayName: "Alice", URI: sip.Uri{Scheme: "sip", User: "alice", Host: serverIP}}

// overTCP is the Request-URI of a registrar.
var overTCP = sip.Uri{Scheme: "sip", Host: serverIP, UriParams: sip.HeaderParams{{K: "transport", V: "tcp"}}}

// world is a network, and the stacks on it.
type world struct {
	t      *testing.T
	net    *dialogtest.Network
	stacks []*dialog.Stack
}

// bubble runs a test on a fake clock; nothing may be left after it.
func bubble(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, net: dialogtest.NewNetwork()}
		defer w.net.Close()
		test(t, w)
		for _, s := range w.stacks {
			require.NoError(t, s.Shutdown(context.Background()))
			require.Zero(t, testkit.Held(s))
		}
	})
}

// stack starts a stack that listens on UDP and TCP.
func (w *world) stack(ip string, change ...func(*dialog.StackConfig)) *dialog.Stack {
	w.t.Helper()
	config := &dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: "0.0.0.0", Port: 5060},
		Listeners: []dialog.TransportConfig{{Protocol: "tcp", Address: "0.0.0.0", Port: 5060}},
		Network:   w.net.Host(ip), Resolver: testkit.NoNames(),
		Credentials: func(realm string) (string, string, bool) { return "alice", "secret", realm == "pbx" },
	}
	for _, f := range change {
		f(config)
	}
	s, err := dialog.NewStack(config)
	require.NoError(w.t, err)
	require.NoError(w.t, s.Start(context.Background()))
	w.stacks = append(w.stacks, s)
	return s
}

// registrar answers REGISTERs as the test wants, and notes them.
type registrar struct {
	*dialog.Stack
	host *dialogtest.Host

	mu     sync.Mutex // guards the fields below
	answer func(n int, req *sip.Request) dialog.Answer
	got    []received
}

// received is a REGISTER.
type received struct {
	*sip.Request
	at   time.Duration // since the first one
	flow *dialog.Flow
	raw  time.Time
}

// registrar starts a registrar; n counts its REGISTERs from 1 on.
func (w *world) registrar(ip string, answer func(n int, req *sip.Request) dialog.Answer) *registrar {
	w.t.Helper()
	r := &registrar{Stack: w.stack(ip), host: w.net.Host(ip), answer: answer}
	require.NoError(w.t, r.OnRequest("REGISTER", func(ctx context.Context, req *sip.Request) dialog.Answer {
		r.mu.Lock()
		defer r.mu.Unlock()
		now := time.Now()
		if len(r.got) == 0 {
			r.got = append(r.got, received{req, 0, dialog.FlowFrom(ctx), now})
		} else {
			r.got = append(r.got, received{req, now.Sub(r.got[0].raw), dialog.FlowFrom(ctx), now})
		}
		return r.answer(len(r.got), req)
	}))
	return r
}

// registers are those that came so far.
func (r *registrar) registers() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]received(nil), r.got...)
}

// answers changes what the registrar does.
func (r *registrar) answers(answer func(n int, req *sip.Request) dialog.Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

// binds answers with the Contacts of the request, bound for so many seconds, or unbound.
func binds(seconds int, more ...dialog.Header) func(int, *sip.Request) dialog.Answer {
	return func(_ int, req *sip.Request) dialog.Answer { return bound(req, seconds, more...) }
}

func bound(req *sip.Request, seconds int, more ...dialog.Header) dialog.Answer {
	a := dialog.Answer{Headers: more}
	if testkit.Value(req, "Expires") == "0" {
		return a
	}
	for _, c := range dialog.HeaderText(req, "Contact") {
		a.Headers = append(a.Headers, dialog.Header{Name: "Contact", Value: fmt.Sprintf("%s;expires=%d", c, seconds)})
	}
	return a
}

// refuses answers with a status.
func refuses(status int, more ...dialog.Header) func(int, *sip.Request) dialog.Answer {
	return func(int, *sip.Request) dialog.Answer { return dialog.Answer{Status: status, Headers: more} }
}

// telephone is a registration, and what its application was told.
type telephone struct {
	*register.Registration
	t     *testing.T
	stack *dialog.Stack

	mu   sync.Mutex // guards the field below
	told []register.Status
}

// telephone starts a registration.
func (w *world) telephone(stack *dialog.Stack, opts register.Options) *telephone {
	w.t.Helper()
	p := &telephone{t: w.t, stack: stack}
	if opts.Record.URI.Host == "" {
		opts.Record = alice
	}
	onState := opts.OnState
	opts.OnState = func(s register.Status) {
		p.mu.Lock()
		p.told = append(p.told, s)
		p.mu.Unlock()
		if onState != nil {
			onState(s)
		}
	}
	r, err := register.Start(stack, opts)
	require.NoError(w.t, err)
	p.Registration = r
	return p
}

// states are those that were told, as "Registering Registered".
func (p *telephone) states() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []string
	for _, s := range p.told {
		list = append(list, s.State.String())
	}
	return strings.Join(list, " ")
}

// last is what was told last.
func (p *telephone) last() register.Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told[len(p.told)-1]
}

// waits waits for the first outcome.
func (p *telephone) waits() register.Status {
	p.t.Helper()
	s, err := p.Wait(context.Background())
	require.NoError(p.t, err)
	require.Equal(p.t, register.Registered, s.State)
	return s
}

// becomes waits for a state.
func (p *telephone) becomes(state register.State) register.Status {
	p.t.Helper()
	for range int(time.Hour / time.Second) {
		if s := p.Status(); s.State == state {
			return s
		}
		time.Sleep(time.Second)
	}
	require.FailNow(p.t, "does not become "+state.String())
	return register.Status{}
}

// closes takes the registration back.
func (p *telephone) closes() {
	p.t.Helper()
	require.NoError(p.t, p.Close(context.Background()))
	synctest.Wait()
	require.Equal(p.t, register.Unregistered, p.last().State)
	require.NoError(p.t, p.last().Err)
}

// inOrder checks that REGISTERs have one Call-ID and rising CSeqs (RFC 3261 10.2).
func inOrder(t *testing.T, got []received) {
	t.Helper()
	for i := 1; i < len(got); i++ {
		require.Equal(t, got[0].CallID().Value(), got[i].CallID().Value())
		require.Equal(t, testkit.FromTag(got[0].Request), testkit.FromTag(got[i].Request))
		require.Greater(t, got[i].CSeq().SeqNo, got[i-1].CSeq().SeqNo)
	}
}
