package dialog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/dialogname"
	"sipdialog.example/dialog/internal/refersub"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
)

// Tests from inside, in the way that applications of the package this one
// replaces wrote theirs: with half-empty literals and unexported fields. The
// names they use are kept, and none of what they call may panic. Such tests can
// be put next to this file: its helpers carry its name, so as not to collide.

// whiteboxDialogs are dialogs as such tests make them.
func whiteboxDialogs() map[string]*Dialog {
	return map[string]*Dialog{
		"zero":                {},
		"no stack":            {state: DialogStateEstablished},
		"empty stack":         {stack: &Stack{}, state: DialogStateEstablished},
		"empty configuration": {stack: &Stack{config: &StackConfig{}}, state: DialogStateEstablished},
		"caller":              {stack: &Stack{config: &StackConfig{}}, state: DialogStateEstablished, isUAC: true, localTag: "ours"},
		"trying":              {stack: &Stack{config: &StackConfig{}}, state: DialogStateTrying, isUAC: true},
		"ringing caller":      {stack: &Stack{config: &StackConfig{}}, state: DialogStateRinging, isUAC: true},
		"ringing callee":      {stack: &Stack{config: &StackConfig{}}, state: DialogStateRinging},
		"terminated":          {stack: &Stack{config: &StackConfig{}}, state: DialogStateTerminated},
		"no stack, ringing":   {state: DialogStateRinging, isUAC: true},
	}
}

func whiteboxRefer(seq uint32) *sip.Request {
	req := sip.NewRequest(sip.REFER, sip.Uri{Scheme: "sip", User: "us", Host: "127.0.0.1"})
	req.AppendHeader(&sip.CSeqHeader{SeqNo: seq, MethodName: sip.REFER})
	return req
}

func whiteboxResponse(code int, headers ...sip.Header) *sip.Response {
	res := sip.NewResponse(code, "Reason")
	for _, h := range headers {
		res.AppendHeader(h)
	}
	return res
}

func whiteboxTo(tag string) sip.Header {
	return sipheader.NameAddr{URI: sip.Uri{Scheme: "sip", Host: "127.0.0.1"}}.To(tag)
}

func whiteboxRoute(host string) sip.Header {
	return &sip.RecordRouteHeader{Address: sip.Uri{Scheme: "sip", Host: host, UriParams: sip.HeaderParams{{K: "lr"}}}}
}

func TestReferOnAHalfMadeDialogLeavesOneSubscription(t *testing.T) {
	for _, d := range []*Dialog{
		{stack: &Stack{config: &StackConfig{}}, state: DialogStateEstablished},
		{stack: &Stack{config: &StackConfig{}}, state: DialogStateEstablished, referSubscriptions: make(map[string]*ReferSubscription)},
		{state: DialogStateEstablished},
	} {
		target := sip.Uri{Scheme: "sip", User: "carol", Host: "127.0.0.3"}
		require.NoError(t, d.HandleIncomingRefer(whiteboxRefer(2), target, nil))
		require.NoError(t, d.HandleIncomingRefer(whiteboxRefer(2), target, nil), "once per CSeq")
		if d.stack != nil {
			require.Zero(t, d.stack.tasks.Running()+d.stack.callbacksRunning()+d.stack.deliveries.Running())
		}

		list := d.GetAllReferSubscriptions()
		require.Len(t, list, 1)
		sub, ok := d.GetReferSubscription("2 REFER")
		require.True(t, ok)
		require.Same(t, list[0], sub)
		require.Same(t, sub, d.referSubscriptions["2 REFER"])
		require.Equal(t, "2 REFER", sub.ID)
		require.True(t, sub.active)
		require.Same(t, d, sub.dialog)
		require.Equal(t, "carol", sub.referToURI.User)
		require.Nil(t, sub.expiry, "no timer runs")
		require.Zero(t, d.Info().LocalSeq, "nothing was sent")

		require.NoError(t, d.HandleIncomingRefer(whiteboxRefer(3), target, &ReplacesInfo{CallID: "id", FromTag: "f", ToTag: "t"}))
		require.Len(t, d.GetAllReferSubscriptions(), 2)
		d.mutex.Lock()
		sub.active = false
		d.mutex.Unlock()
		require.Len(t, d.GetAllReferSubscriptions(), 1)
	}
}

func TestSubscriptionLiteralsNeverPanic(t *testing.T) {
	ctx := context.Background()
	for _, sub := range []*ReferSubscription{
		{},
		{ID: "2 REFER", active: true},
		{ID: "2 REFER", active: true, dialog: &Dialog{}},
		{ID: "2 REFER", active: false, dialog: &Dialog{state: DialogStateEstablished}},
		{ID: "2 REFER", active: true, dialog: &Dialog{state: DialogStateEstablished}},
		{ID: "2 REFER", active: true, dialog: &Dialog{state: DialogStateEstablished, stack: &Stack{config: &StackConfig{}}}, referToURI: sip.Uri{Host: "127.0.0.3"}},
		{ID: "no CSeq", active: true, dialog: &Dialog{state: DialogStateTerminated, stack: &Stack{}}},
	} {
		require.NotPanics(t, func() {
			require.Error(t, sub.SendNotify(ctx, 100, "Trying"))
			require.Error(t, sub.SendNotify(ctx, 200, "OK"))
			sub.Status()
			sub.Done()
		})
	}
}

func TestProcessResponseOnAHalfMadeDialogNeverPanics(t *testing.T) {
	responses := map[string]func() *sip.Response{"none": func() *sip.Response { return nil }}
	for _, code := range []int{100, 180, 183, 200, 202, 302, 404, 408, 481, 486, 500, 603} {
		responses[fmt.Sprintf("%d bare", code)] = func() *sip.Response { return whiteboxResponse(code) }
		responses[fmt.Sprintf("%d whole", code)] = func() *sip.Response {
			res := whiteboxResponse(code, whiteboxTo("theirs"), whiteboxRoute("127.0.0.7"),
				&sip.ContactHeader{Address: sip.Uri{Scheme: "sip", Host: "127.0.0.9"}},
				&sip.CSeqHeader{SeqNo: 1, MethodName: sip.INVITE}, sip.NewHeader("Content-Type", "application/sdp"))
			res.SetBody([]byte("v=0\r\n"))
			return res
		}
	}
	for name, make := range responses {
		for kind, d := range whiteboxDialogs() {
			require.NotPanics(t, func() {
				_ = d.processResponse(make())
				_ = d.processResponse(make())
			}, "%s to a %s dialog", name, kind)
		}
	}
}

// The 2xx of a second fork, whose call needs a stack that was made.
func TestFurtherForkOfAHalfMadeCallerNeverPanics(t *testing.T) {
	d := &Dialog{stack: &Stack{config: &StackConfig{}}, isUAC: true}
	for _, tag := range []string{"one", "two"} {
		require.NotPanics(t, func() { _ = d.processResponse(whiteboxResponse(200, whiteboxTo(tag))) })
	}
	require.Equal(t, "one", d.Key().RemoteTag)
}

func TestProcessResponseMovesAHalfMadeCaller(t *testing.T) {
	d := &Dialog{stack: &Stack{config: &StackConfig{}}, isUAC: true, localTag: "ours", state: DialogStateTrying}
	require.NoError(t, d.processResponse(whiteboxResponse(100)))
	require.Equal(t, DialogStateTrying, d.state)
	require.NoError(t, d.processResponse(whiteboxResponse(180, whiteboxTo("theirs"))))
	require.Equal(t, DialogStateRinging, d.state)
	require.NoError(t, d.processResponse(whiteboxResponse(200, whiteboxTo("theirs"),
		&sip.ContactHeader{Address: sip.Uri{Scheme: "sip", User: "peer", Host: "127.0.0.9", Port: 5070}})))
	require.Equal(t, DialogStateEstablished, d.state)
	require.Equal(t, "peer", d.remoteTarget.User)
	require.Equal(t, DialogKey{LocalTag: "ours", RemoteTag: "theirs"}, d.Key())
	require.NoError(t, d.WaitAnswer(context.Background()))

	refused := &Dialog{stack: &Stack{config: &StackConfig{}}, isUAC: true, state: DialogStateTrying}
	require.NoError(t, refused.processResponse(whiteboxResponse(486, whiteboxTo("theirs"))))
	require.Equal(t, DialogStateTerminated, refused.state)
	var err *ResponseError
	require.ErrorAs(t, refused.WaitAnswer(context.Background()), &err)
	require.Equal(t, 486, err.StatusCode)
}

// RFC 3261 12.1.2: the caller's route set is the Record-Route reversed.
func TestRouteSetOfACallerIsReversed(t *testing.T) {
	d := &Dialog{stack: &Stack{config: &StackConfig{}}, isUAC: true, state: DialogStateTrying}
	require.NoError(t, d.processResponse(whiteboxResponse(200, whiteboxRoute("a.example"), whiteboxRoute("b.example"), whiteboxRoute("c.example"), whiteboxTo("theirs"))))
	require.Equal(t, []string{"c.example", "b.example", "a.example"}, whiteboxHosts(d.routeSet))
}

// RFC 3261 12.1.1: the callee's keeps its order.
func TestRouteSetOfACalleeKeepsItsOrder(t *testing.T) {
	s, err := NewStack(nil)
	require.NoError(t, err)
	req := sip.NewRequest(sip.INVITE, sip.Uri{Scheme: "sip", Host: "127.0.0.1"})
	id := sip.CallIDHeader("id")
	for _, h := range []sip.Header{
		whiteboxRoute("a.example"), whiteboxRoute("b.example"), whiteboxRoute("c.example"), &id, whiteboxTo(""),
		sipheader.NameAddr{URI: sip.Uri{Scheme: "sip", Host: "127.0.0.9"}}.From("theirs"),
		&sip.CSeqHeader{SeqNo: 1, MethodName: sip.INVITE},
		&sip.ContactHeader{Address: sip.Uri{Scheme: "sip", Host: "127.0.0.9"}},
	} {
		req.AppendHeader(h)
	}
	m := whiteboxReceived(t, req)
	d := s.newCallee(whiteboxServer{m: m}, m)
	require.False(t, d.isUAC)
	require.Equal(t, []string{"a.example", "b.example", "c.example"}, whiteboxHosts(d.routeSet))
	require.Equal(t, DialogKey{CallID: "id", LocalTag: "ours", RemoteTag: "theirs"}, d.Key())
}

// whiteboxServer is the least of a server transaction.
type whiteboxServer struct {
	serverTx
	m *sipmsg.Message
}

// whiteboxReceived is a message made by hand as if it had come off the wire.
func whiteboxReceived(t *testing.T, req *sip.Request) *sipmsg.Message {
	t.Helper()
	m, err := sipmsg.Parse(transport.Encode(req))
	require.NoError(t, err)
	return m
}

func (f whiteboxServer) Flow() *transport.Flow    { return nil }
func (f whiteboxServer) Message() *sipmsg.Message { return f.m }
func (f whiteboxServer) ToTag() string            { return "ours" }

func whiteboxHosts(uris []sip.Uri) []string {
	var list []string
	for _, uri := range uris {
		list = append(list, uri.Host)
	}
	return list
}

func TestReInviteInAWrongStateSaysWhatItNeeds(t *testing.T) {
	for kind, d := range whiteboxDialogs() {
		if d.state == DialogStateEstablished {
			continue
		}
		err := d.ReInvite(context.Background(), InviteOpts{})
		require.ErrorContains(t, err, "Established state", kind)
		require.ErrorIs(t, err, ErrState, kind)
		var wrong *StateError
		require.ErrorAs(t, err, &wrong)
		require.Equal(t, d.state, wrong.State)
	}
	// Established, but with nothing to send by.
	d := &Dialog{stack: &Stack{config: &StackConfig{}}, state: DialogStateEstablished, remoteTarget: sip.Uri{Host: "127.0.0.9"}}
	require.ErrorIs(t, d.ReInvite(context.Background(), InviteOpts{Body: &SimpleBody{contentType: "application/sdp", data: []byte("v=0\r\n")}}), ErrNotStarted)
	require.Equal(t, DialogStateEstablished, d.state)
}

// A14: no method panics on a dialog made by a literal either, and none blocks
// for ever.
func TestNoMethodOfAHalfMadeDialogPanics(t *testing.T) {
	uri := sip.Uri{Scheme: "sip", User: "carol", Host: "127.0.0.3"}
	calls := func(d *Dialog, ctx context.Context) map[string]func() {
		return map[string]func(){
			"Key": func() { d.Key() }, "State": func() { d.State() }, "Cause": func() { d.Cause() },
			"IsUAC": func() { d.IsUAC() }, "IsUAS": func() { d.IsUAS() }, "Done": func() { d.Done() },
			"OnStateChange": func() { d.OnStateChange(func(DialogState) {}) },
			"OnBody":        func() { d.OnBody(func(Body) {}) },
			"OnOffer":       func() { d.OnOffer(func(context.Context, Body) (Body, error) { return nil, nil }) },
			"Accept":        func() { _ = d.Accept(ctx) },
			"Reject":        func() { _ = d.Reject(ctx, 486, "") },
			"Refer":         func() { _ = d.Refer(ctx, uri, ReferOpts{}) },
			"ReferReplace":  func() { _ = d.ReferReplace(ctx, d, ReferOpts{}) },
			"WaitRefer":     func() { _, _ = d.WaitRefer(ctx) },
			"SendReferWithReplaces": func() {
				_ = d.SendReferWithReplaces(ctx, uri, withPeer(&Dialog{callID: "id", localTag: "l"}, "r"), nil)
			},
			"HandleIncomingRefer":      func() { _ = d.HandleIncomingRefer(whiteboxRefer(2), uri, &ReplacesInfo{}) },
			"GetReferSubscription":     func() { d.GetReferSubscription("2 REFER") },
			"GetAllReferSubscriptions": func() { d.GetAllReferSubscriptions() },
			"WaitAnswer": func() {
				if d.State() > DialogStateRinging {
					_ = d.WaitAnswer(ctx)
				}
			},
			"ReInvite": func() { _ = d.ReInvite(ctx, InviteOpts{Body: NewBody("application/sdp", nil)}) },
			"Bye":      func() { _ = d.Bye(ctx, "enough") },
			"Hangup":   func() { _ = d.Hangup(ctx) },
			"Close":    func() { _ = d.Close(); _ = d.Close() },
		}
	}
	for name := range calls(nil, nil) { //nolint:staticcheck // only the names
		for kind, d := range whiteboxDialogs() {
			require.NotPanics(t, calls(d, context.Background())[name], "%s of a %s dialog", name, kind)
		}
		for kind, d := range whiteboxDialogs() {
			require.NotPanics(t, calls(d, nil)[name], "%s of a %s dialog, nil context", name, kind) //nolint:staticcheck // the point
		}
	}
}

// A9: Close of dialogs made by literals, many times at once.
func TestCloseOfAHalfMadeDialogEndsItOnce(t *testing.T) {
	for kind, d := range whiteboxDialogs() {
		ends := make(chan DialogState, 100)
		before := d.State()
		d.OnStateChange(func(s DialogState) { ends <- s })
		var all sync.WaitGroup
		for range 50 {
			all.Add(1)
			go func() { defer all.Done(); _ = d.Close() }()
		}
		all.Wait()
		require.Equal(t, DialogStateTerminated, d.State(), kind)
		<-d.Done()
		if before != DialogStateTerminated {
			require.Equal(t, DialogStateTerminated, <-ends, kind)
		}
		require.Empty(t, ends, kind)
	}
}

// A11: responses processed at once, while the dialog is read.
func TestResponsesAreProcessedOneByOne(t *testing.T) {
	for range 200 {
		d := &Dialog{stack: &Stack{config: &StackConfig{}, dialogs: make(map[DialogKey]*Dialog)}, isUAC: true, state: DialogStateTrying}
		var all sync.WaitGroup
		begin := make(chan struct{})
		for i := range 16 {
			all.Add(2)
			go func() {
				defer all.Done()
				<-begin
				_ = d.processResponse(whiteboxResponse([]int{180, 183, 200, 200}[i%4], whiteboxTo("theirs"), whiteboxRoute("127.0.0.7"),
					&sip.ContactHeader{Address: sip.Uri{Scheme: "sip", Host: "127.0.0.9"}}))
			}()
			go func() {
				defer all.Done()
				<-begin
				d.Info()
				d.stack.DialogByKey(DialogKey{})
				_ = (&Dialog{state: DialogStateEstablished}).ReferReplace(context.Background(), d, ReferOpts{})
			}()
		}
		close(begin)
		all.Wait()
		require.Equal(t, DialogStateEstablished, d.State())
		require.Equal(t, "theirs", d.Key().RemoteTag)
	}
}

// A10: the maps themselves are empty in the end.
func TestEndedSubscriptionsLeaveTheMaps(t *testing.T) {
	d := &Dialog{stack: &Stack{config: &StackConfig{}}, state: DialogStateEstablished}
	var all sync.WaitGroup
	for i := range 50 {
		all.Add(1)
		go func() {
			defer all.Done()
			_ = d.HandleIncomingRefer(whiteboxRefer(uint32(i)), sip.Uri{Host: "127.0.0.3"}, nil)
			d.GetAllReferSubscriptions()
			id := fmt.Sprintf("%d REFER", i)
			if sub, ok := d.GetReferSubscription(id); ok && i%2 == 0 {
				d.mutex.Lock()
				sub.changeLocked(func(s *refersub.Step) { sub.state.Drop(s, ErrTerminated) })
				d.mutex.Unlock()
			}
		}()
	}
	all.Wait()
	require.Len(t, d.referSubscriptions, 25)
	require.NoError(t, d.Close())
	require.Empty(t, d.referSubscriptions)
	require.Empty(t, d.transfers.Sent())
	require.ErrorIs(t, d.HandleIncomingRefer(whiteboxRefer(99), sip.Uri{Host: "127.0.0.3"}, nil), ErrTerminated)
	require.Empty(t, d.referSubscriptions)
}

// A16: a request that looks its dialog up holds the stack's mutex and takes the
// dialog's; an end takes both. With two orders this stands still.
func TestLookUpAndEndLockInTheSameOrder(t *testing.T) {
	s, err := NewStack(nil)
	require.NoError(t, err)
	d := &Dialog{stack: s, isUAC: true, localTag: "ours", phase: phaseInviting}
	s.dialogs[d.Key()] = d
	foreign := DialogKey{LocalTag: "ours", RemoteTag: "unheard"}
	var all sync.WaitGroup
	for range 2 {
		all.Add(2)
		go func() {
			defer all.Done()
			for range 20000 {
				if s.find(foreign) != d {
					t.Error("not found")
					return
				}
			}
		}()
		go func() {
			defer all.Done()
			for range 20000 {
				d.lockBoth().unlock()
			}
		}()
	}
	all.Wait()
}

// A18: a call that Shutdown finds before its INVITE has left ends there, and
// the INVITE is not sent.
func TestShutdownFindsACallBeforeItsInvite(t *testing.T) {
	s, err := NewStack(&StackConfig{Transport: &TransportConfig{Protocol: "udp", Address: "127.0.0.1"}})
	require.NoError(t, err)
	require.NoError(t, s.Start(context.Background()))
	d := &Dialog{stack: s, isUAC: true, callID: "id", localTag: "ours", remoteTarget: sip.Uri{Host: "127.0.0.1", Port: 9}}
	require.NoError(t, s.register(d))
	require.Len(t, s.dialogs, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	require.NoError(t, s.Shutdown(ctx))
	require.NoError(t, ctx.Err(), "nothing had to be waited for")
	require.Equal(t, DialogStateTerminated, d.State())
	require.Equal(t, PartyShutdown, d.Cause().By)
	require.ErrorIs(t, d.WaitAnswer(ctx), ErrShutdown)
	require.Empty(t, s.dialogs)
	require.Zero(t, s.registry.Sizes())
}

// A18: the same when it was found just before.
func TestInviteOfACallThatShutdownFoundIsNotSent(t *testing.T) {
	s, err := NewStack(&StackConfig{Transport: &TransportConfig{Protocol: "udp", Address: "127.0.0.1"}})
	require.NoError(t, err)
	require.NoError(t, s.Start(context.Background()))
	d := &Dialog{stack: s, isUAC: true, callID: "id", localTag: "ours", remoteTarget: sip.Uri{Host: "127.0.0.1", Port: 9}}
	require.NoError(t, s.register(d))
	d.hangup(&ending{cause: Cause{By: PartyShutdown}})
	require.ErrorIs(t, d.sendInvite(context.Background(), InviteOpts{}), ErrShutdown)
	require.Zero(t, d.Info().LocalSeq)
	require.NoError(t, s.Shutdown(context.Background()))
}

func TestStackAsItsOldTestsSeeIt(t *testing.T) {
	given := &StackConfig{Transport: &TransportConfig{Protocol: "udp", Address: "127.0.0.1"}, UserAgent: "Test/1"}
	before, transport := *given, *given.Transport
	s, err := NewStack(given)
	require.NoError(t, err)
	require.Equal(t, before.UserAgent, given.UserAgent)
	require.Equal(t, transport, *given.Transport, "the caller's configuration is not written to")
	require.Equal(t, "Test/1", s.config.UserAgent)
	require.Equal(t, transport, *s.config.Transport, "an unmodified copy")
	require.NotSame(t, given, s.config)
	require.NotSame(t, given.Transport, s.config.Transport)
	require.Nil(t, s.client)

	s.mutex.RLock()
	require.Zero(t, len(s.dialogs))
	s.mutex.RUnlock()

	require.NoError(t, s.Start(context.Background()))
	s.mutex.RLock()
	require.NotNil(t, s.client)
	s.mutex.RUnlock()
	require.NoError(t, s.Shutdown(context.Background()))
	require.Nil(t, s.client)

	empty, err := NewStack(nil)
	require.NoError(t, err)
	require.Equal(t, &StackConfig{}, empty.config)
}

func TestDefaultsApplyAtThePointOfUse(t *testing.T) {
	c := &StackConfig{}
	require.Equal(t, 32*time.Second, c.txTimeout())
	require.Equal(t, 1000, c.maxDialogs())
	require.Equal(t, "SoftPhone/1.0", c.userAgent())
	require.Equal(t, DefaultTransportConfig(), c.transport())
	require.Equal(t, 180*time.Second, c.ringingLimit())
	require.Equal(t, &StackConfig{}, c)
	require.Equal(t, time.Second, (&StackConfig{TxTimeout: time.Second}).txTimeout())
	require.Equal(t, -1, (&StackConfig{MaxDialogs: -1}).maxDialogs())
	require.Equal(t, 32*time.Second, (&Dialog{}).config().txTimeout())
	require.Equal(t, 32*time.Second, (&Dialog{stack: &Stack{}}).config().txTimeout())
}

func TestTagsAreSixteenHexDigitsAndNeverTheSame(t *testing.T) {
	seen := make(map[string]bool)
	for range 1000 {
		tag := TagGen()
		require.Len(t, tag, 16)
		require.Empty(t, strings.Trim(tag, "0123456789abcdef"))
		require.False(t, seen[tag])
		seen[tag] = true
	}
}

func TestSimpleBodyLiterals(t *testing.T) {
	body := &SimpleBody{contentType: "application/sdp", data: []byte("v=0\r\n")}
	require.Equal(t, "application/sdp", body.ContentType())
	require.Equal(t, "v=0\r\n", string(body.Data()))
	var none *SimpleBody
	require.Empty(t, none.ContentType())
	require.Empty(t, none.Data())
}

func TestResponseOptionOfOldTests(t *testing.T) {
	res := whiteboxResponse(200)
	require.NoError(t, applyOpts(res, []ResponseOpt{func(res *sip.Response) { res.SetBody([]byte("v=0\r\n")) }, nil}))
	require.Equal(t, "v=0\r\n", string(res.Body()))
	require.ErrorIs(t, applyOpts(res, []ResponseOpt{func(*sip.Response) { panic(errors.New("no")) }}), ErrPanic)
}

// RFC 3891 3: several matches are none. Our tags being what they are, only forks
// of one INVITE could be taken for each other, by peers that have no tag.
func TestReplacesThatMatchesSeveralCallsMatchesNone(t *testing.T) {
	s, err := NewStack(nil)
	require.NoError(t, err)
	for _, tag := range []string{"0", ""} {
		d := withPeer(&Dialog{stack: s, callID: "id", localTag: "l", state: DialogStateEstablished}, tag)
		s.dialogs[d.Key()] = d
	}
	call, refusal := s.findNamed(dialogname.Replaces{CallID: "id", FromTag: "0", ToTag: "l"})
	if call != nil || refusal != 481 {
		t.Errorf("found %v, refused with %d", call, refusal)
	}
	delete(s.dialogs, DialogKey{CallID: "id", LocalTag: "l"})
	if call, _ = s.findNamed(dialogname.Replaces{CallID: "id", FromTag: "0", ToTag: "l"}); call == nil {
		t.Error("one match not found")
	}
}
