package test

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"runtime"
	"slices"
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
)

const (
	offerSDP  = testkit.OfferSDP
	answerSDP = testkit.AnswerSDP
)

// versioned is an SDP with another version in its o= line.
func versioned(sdp string, version int) string {
	return regexp.MustCompile(`(o=\S+ \S+) \d+`).ReplaceAllString(sdp, fmt.Sprintf("$1 %d", version))
}

// bubble runs a test on a fake clock, with a network in memory.
func bubble(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, net: dialogtest.NewNetwork()}
		w.net.Tap(w.tap)
		defer w.close()
		test(t, w)
	})
}

// world is a network with stacks on it, and all that was said on it.
type world struct {
	t      *testing.T
	net    *dialogtest.Network
	stacks []*dialog.Stack

	mu  sync.Mutex // guards the fields below
	log []wire
	// quiet is true when logging has ended.
	quiet bool
}

// wire is one message that was sent.
type wire struct {
	from, to netip.AddrPort
	at       time.Time
	msg      sip.Message
	raw      string
}

func (w *world) tap(p dialogtest.Packet) {
	msg, err := sip.ParseMessage(p.Data)
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.quiet {
		return
	}
	w.log = append(w.log, wire{p.From, p.To, p.Time, msg, string(p.Data)})
}

func (w *world) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	for _, s := range w.stacks {
		if err := s.Shutdown(ctx); err != nil {
			w.t.Errorf("shutdown: %v", err)
		}
	}
	w.net.Close()
	synctest.Wait()
	for _, s := range w.stacks {
		if held := s.Stats().CallBytes; held != 0 {
			w.t.Errorf("%d bytes are counted of calls that are over", held)
		}
	}
}

// stack starts a stack on a host of its own, which takes REFERs and leaves them to the
// test.
func (w *world) stack(ip string, change ...func(*dialog.StackConfig)) *dialog.Stack {
	w.t.Helper()
	config := &dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: ip, Port: 5060},
		Network:   w.net.Host(ip),
		Resolver:  testkit.NoNames(),
	}
	for _, c := range change {
		c(config)
	}
	s, err := dialog.NewStack(config)
	require.NoError(w.t, err)
	s.OnIncomingRefer(func(dialog.IDialog, sip.Uri, *dialog.ReplacesInfo) {})
	require.NoError(w.t, s.Start(context.Background()))
	w.stacks = append(w.stacks, s)
	return s
}

// peer binds a scripted peer.
func (w *world) peer(ip string) *peer {
	w.t.Helper()
	e, err := dialogtest.NewEndpoint(w.net.Host(ip), ip+":5060")
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = e.Close() })
	return &peer{Endpoint: e, t: w.t, ip: ip}
}

func uri(user, ip string) sip.Uri {
	return sip.Uri{Scheme: "sip", User: user, Host: ip, Port: 5060}
}

// sent returns the messages sent by ip that match, in order. Like
// "INVITE" or "200 INVITE".
func (w *world) sent(ip, what string) []wire {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []wire
	for _, m := range w.log {
		if m.from.Addr().String() == ip && testkit.Describe(m.msg) == what {
			list = append(list, m)
		}
	}
	return list
}

// flow returns all that was said, as "10.0.0.1 INVITE".
func (w *world) flow() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []string
	for _, m := range w.log {
		list = append(list, m.from.Addr().String()+" "+testkit.Describe(m.msg))
	}
	return list
}

// states records the states a dialog reports.
type states struct {
	mu   sync.Mutex
	list []dialog.DialogState
}

// watch records the states from now on: of a call that is being made some may
// have passed, see watchedOffer.
func watch(d dialog.IDialog) *states {
	s := &states{}
	d.OnStateChange(s.add)
	return s
}

func (s *states) add(state dialog.DialogState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, state)
}

func (s *states) seen() []dialog.DialogState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]dialog.DialogState(nil), s.list...)
}

func withSDP(body string) dialog.ResponseOpt {
	return func(res *sip.Response) {
		res.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
		res.SetBody([]byte(body))
	}
}

func offer(body string) dialog.InviteOpts {
	return dialog.InviteOpts{Body: dialog.NewBody("application/sdp", []byte(body))}
}

// watchedOffer is offer with the call's states recorded from the first on.
func watchedOffer(body string) (dialog.InviteOpts, *states) {
	s, opts := &states{}, offer(body)
	opts.Setup = func(d *dialog.Dialog) { d.OnStateChange(s.add) }
	return opts, s
}

// established makes a call between two stacks and returns both ends.
func (w *world) established(a, b *dialog.Stack) (caller, callee *dialog.Dialog) {
	w.t.Helper()
	incoming := make(chan dialog.IDialog, 1)
	b.OnIncomingDialog(func(d dialog.IDialog) {
		if err := d.Accept(context.Background(), withSDP(answerSDP)); err != nil {
			w.t.Errorf("accept: %v", err)
		}
		incoming <- d
	})
	d, err := a.NewInvite(context.Background(), uri("bob", b.Addr().Addr().String()), offer(offerSDP))
	require.NoError(w.t, err)
	caller = d.(*dialog.Dialog)
	require.NoError(w.t, caller.WaitAnswer(context.Background()))
	callee = (<-incoming).(*dialog.Dialog)
	synctest.Wait()
	return caller, callee
}

// atOnce calls f with 0 to n-1, each on a goroutine of its own, which all begin
// together, and returns when all have returned.
func atOnce(n int, f func(i int)) {
	var ready, done sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		ready.Add(1)
		done.Add(1)
		go func() {
			defer done.Done()
			ready.Done()
			<-begin
			f(i)
		}()
	}
	ready.Wait()
	close(begin)
	done.Wait()
}

// overAndOver calls f again and again on a goroutine of its own until the
// function it returns is called. Until then synctest.Wait would not return.
func overAndOver(f func()) (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-quit:
				return
			default:
				f()
				runtime.Gosched()
			}
		}
	}()
	return sync.OnceFunc(func() { close(quit); <-ended })
}

// goroutines are the stacks of those that run this module's code, tests
// included.
func goroutines() []string {
	dump := make([]byte, 4<<20)
	all := strings.Split(string(dump[:runtime.Stack(dump, true)]), "\n\n")
	return slices.DeleteFunc(all, func(stack string) bool { return !strings.Contains(stack, reflect.TypeFor[dialog.Stack]().PkgPath()) })
}

// goroutinesAtMost checks how many of them there are. One that has ended is
// seen a moment longer.
func goroutinesAtMost(t *testing.T, n int) {
	t.Helper()
	var list []string
	for range 100 {
		if list = goroutines(); len(list) <= n {
			return
		}
		runtime.Gosched()
	}
	require.LessOrEqual(t, len(list), n, "%s", strings.Join(list, "\n\n"))
}

// works checks that two stacks can still make a call and end it.
func (w *world) works(a, b *dialog.Stack) {
	w.t.Helper()
	caller, callee := w.established(a, b)
	require.NoError(w.t, caller.Bye(context.Background(), ""))
	synctest.Wait()
	require.Equal(w.t, dialog.DialogStateTerminated, callee.State())
}
