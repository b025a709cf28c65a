package test

import (
	"context"
	"sync"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/icholy/digest"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

// strict is a server that lets nothing through without credentials, and notes the
// nonce counts in the order in which they came.
type strict struct {
	*element

	mu     sync.Mutex // guards the fields below
	counts map[sip.RequestMethod][]int
	all    []int
}

// admits answers whatever comes, until the element is closed.
func (s *strict) admits(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case in := <-s.arrivals:
			if req, ok := in.msg.(*sip.Request); ok {
				s.answer(in, req)
			}
		}
	}
}

func (s *strict) answer(in passing, req *sip.Request) {
	nc := s.count(req)
	switch {
	case req.Method == sip.ACK:
	case nc == 0:
		s.reply(in, 401, "", sip.NewHeader("WWW-Authenticate", `Digest realm="provider", nonce="shared", qop="auth"`))
	case req.Method == sip.INVITE:
		s.reply(in, 200, answerSDP)
	case req.Method == sip.REFER:
		s.reply(in, 202, "")
	default:
		s.reply(in, 200, "")
	}
}

// count returns and notes the nonce count of a request, 0 when it has none. An ACK
// repeats its INVITE's (RFC 3261 22.1).
func (s *strict) count(req *sip.Request) int {
	list := values(req, "Authorization")
	if len(list) == 0 {
		return 0
	}
	got, err := digest.ParseCredentials(list[0])
	if err != nil {
		s.t.Errorf("%q: %v", list[0], err)
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[req.Method] = append(s.counts[req.Method], got.Nc)
	if req.Method != sip.ACK {
		s.all = append(s.all, got.Nc)
	}
	return got.Nc
}

// FX8: whatever sends them, requests with one nonce arrive with counts that rise (RFC
// 7616 3.4), and no two have the same.
func TestNonceCountsRiseAcrossMethods(t *testing.T) {
	const calls = 20
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				server := &strict{element: w.element(peerIP, transport, nil, nil), counts: make(map[sip.RequestMethod][]int)}
				s := w.stack(stackIP, known, func(c *dialog.StackConfig) { c.Transport.Protocol = transport })
				ended, end := context.WithCancel(context.Background())
				defer end()
				go server.admits(ended)
				var all sync.WaitGroup
				for range calls {
					all.Go(func() { requestsOfACall(t, s, server.uri("bob")) })
				}
				all.Wait()
				for _, method := range []sip.RequestMethod{
					sip.INVITE, sip.UPDATE, sip.INFO, sip.REFER, sip.BYE, sip.REGISTER, sip.SUBSCRIBE, sip.MESSAGE,
				} {
					require.NotEmpty(t, server.counts[method], method)
				}
				require.Subset(t, server.counts[sip.INVITE], server.counts[sip.ACK])
				require.Len(t, server.counts[sip.ACK], calls)
				for i, nc := range server.all[1:] {
					require.Greater(t, nc, server.all[i], "%v", server.all)
				}
			})
		})
	}
}

// requestsOfACall makes a call and sends in it, and beside it, what can be sent at once.
func requestsOfACall(t *testing.T, s *dialog.Stack, target sip.Uri) {
	ctx := context.Background()
	call, err := s.NewInvite(ctx, target, offer(offerSDP))
	if err != nil {
		t.Error(err)
		return
	}
	d := call.(*dialog.Dialog)
	check := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	check(d.WaitAnswer(ctx))
	var all sync.WaitGroup
	for _, f := range []func() error{
		func() error { _, err := d.Update(ctx, nil); return err },
		func() error { return d.SendInfo(ctx, dialog.NewBody("text/plain", []byte("x"))) },
		func() error { return d.Refer(ctx, target, dialog.ReferOpts{NoReferSub: true}) },
		func() error { return <-does(s, sip.REGISTER, target) },
		func() error { return <-does(s, sip.SUBSCRIBE, target) },
		func() error { return <-does(s, sip.MESSAGE, target) },
	} {
		all.Go(func() { check(f()) })
	}
	all.Wait()
	check(d.ByeWith(ctx, dialog.ByeOpts{}))
}
