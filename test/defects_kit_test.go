package test

import (
	"context"
	"errors"
	"net"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// What the tests of docs/testing.md's rows share.

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

// answers lets the peer answer each request by itself, with what code says,
// and acknowledge each 2xx to an INVITE, until the returned function is called.
// A code of 0 is silence.
func (p *peer) answers(code func(req *sip.Request) int) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			got, err := p.Recv(ctx)
			if err != nil {
				return
			}
			if err := p.answer(got, code); err != nil && !errors.Is(err, net.ErrClosed) {
				p.t.Errorf("peer: %v", err)
			}
		}
	}()
	return sync.OnceFunc(func() { cancel(); <-ended })
}

func (p *peer) answer(got dialogtest.Received, code func(req *sip.Request) int) error {
	if res := got.Response(); res != nil {
		if describe(res) == "200 INVITE" {
			return p.Send(got.From, p.ackTo(res))
		}
		return nil
	}
	req := got.Request()
	if status := code(req); req.Method != sip.ACK && status != 0 {
		return p.Reply(got, dialogtest.Response{Code: status, ToTag: "callee"})
	}
	return nil
}

// always is a code for answers.
func always(code int) func(*sip.Request) int { return func(*sip.Request) int { return code } }

// ackTo is the ACK to a 2xx that a stack sent us.
func (p *peer) ackTo(res *sip.Response) string {
	fromTag, _ := res.From().Params.Get("tag")
	toTag, _ := res.To().Params.Get("tag")
	return p.Request(dialogtest.Request{
		Method: "ACK", URI: res.Contact().Address.String(), CallID: res.CallID().Value(),
		From: res.From().Address.String(), FromTag: fromTag,
		To: res.To().Address.String(), ToTag: toTag, CSeq: res.CSeq().SeqNo,
	})
}

// inside is a request of the peer's inside the dialog that a stack's INVITE
// has made; r says what is particular to it.
func (p *peer) inside(invite dialogtest.Received, r dialogtest.Request) string {
	req := invite.Request()
	r.URI = req.Contact().Address.String()
	r.From, r.FromTag = req.To().Address.String(), "callee"
	r.To = req.From().Address.String()
	r.ToTag, _ = req.From().Params.Get("tag")
	r.CallID = req.CallID().Value()
	return p.Request(r)
}

// toPeer makes an established call from a stack to a scripted peer.
func (w *world) toPeer(s *dialog.Stack, p *peer) (*dialog.Dialog, dialogtest.Received) {
	w.t.Helper()
	d, err := s.NewInvite(context.Background(), uri("peer", p.ip), offer(offerSDP))
	require.NoError(w.t, err)
	in := p.next("INVITE")
	p.reply(in, dialogtest.Response{Code: 200, ToTag: "callee", Body: answerSDP})
	p.next("ACK")
	caller := d.(*dialog.Dialog)
	require.NoError(w.t, caller.WaitAnswer(context.Background()))
	synctest.Wait()
	return caller, in
}

func (w *world) say(p *peer, s *dialog.Stack, text string) {
	w.t.Helper()
	require.NoError(w.t, p.Send(s.Addr(), text))
}

// works checks that two stacks can still make a call and end it.
func (w *world) works(a, b *dialog.Stack) {
	w.t.Helper()
	caller, callee := w.established(a, b)
	require.NoError(w.t, caller.Bye(context.Background(), ""))
	synctest.Wait()
	require.Equal(w.t, dialog.DialogStateTerminated, callee.State())
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
