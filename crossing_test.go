package dialog

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/errtext"
	"sipdialog.example/dialog/internal/invite"
	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/transport"
	"sipdialog.example/dialog/internal/txn"
)

// What only a test from inside can make happen at the right moment.

// insideSDP is a session, for offers and answers.
const insideSDP = "v=0\r\no=alice 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"

// inside is a stack and its scripted peer on a network in memory.
type inside struct {
	*dialogtest.Endpoint
	t     *testing.T
	net   *dialogtest.Network
	stack *Stack
}

// insideBubble runs a test on a fake clock.
func insideBubble(t *testing.T, test func(t *testing.T, w *inside), change ...func(*StackConfig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &inside{t: t, net: dialogtest.NewNetwork()}
		defer w.net.Close()
		w.Endpoint = w.peer("10.0.0.9")
		config := &StackConfig{Transport: &TransportConfig{Protocol: "udp", Address: "10.0.0.1", Port: 5060}, Network: w.net.Host("10.0.0.1")}
		for _, c := range change {
			c(config)
		}
		var err error
		w.stack, err = NewStack(config)
		require.NoError(t, err)
		require.NoError(t, w.stack.Start(context.Background()))
		defer w.shutdown()
		test(t, w)
	})
}

func (w *inside) peer(ip string) *dialogtest.Endpoint {
	w.t.Helper()
	e, err := dialogtest.NewEndpoint(w.net.Host(ip), ip+":5060")
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = e.Close() })
	return e
}

// shutdown gives the calls that are left no time.
func (w *inside) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	_ = w.stack.Shutdown(ctx)
	synctest.Wait()
}

// next returns the next request of a method, or response to one, that comes to an
// endpoint.
func (w *inside) next(at *dialogtest.Endpoint, method sip.RequestMethod) dialogtest.Received {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for {
		in, err := at.Recv(ctx)
		require.NoError(w.t, err, "waiting for %s", method)
		if req := in.Request(); req != nil && req.Method == method {
			return in
		}
		if res := in.Response(); res != nil && res.StatusCode >= 200 && res.CSeq().MethodName == method {
			return in
		}
	}
}

// silentBut checks that no request of another method comes for an hour.
func (w *inside) silentBut(method sip.RequestMethod) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	for {
		in, err := w.Recv(ctx)
		if err != nil {
			return
		}
		if req := in.Request(); req != nil {
			require.Equal(w.t, method, req.Method)
		}
	}
}

// calls has the stack call the peer.
func (w *inside) calls(opts InviteOpts) (*Dialog, dialogtest.Received) {
	w.t.Helper()
	opts.Body = NewBody("application/sdp", []byte(insideSDP))
	d, err := w.stack.NewInvite(context.Background(), sip.Uri{Scheme: "sip", User: "bob", Host: "10.0.0.9", Port: 5060}, opts)
	require.NoError(w.t, err)
	return d.(*Dialog), w.next(w.Endpoint, sip.INVITE)
}

// answers has the peer answer the stack's INVITE.
func (w *inside) answers(invite dialogtest.Received, code int) {
	w.t.Helper()
	r := dialogtest.Response{Code: code, ToTag: "far"}
	if code == sip.StatusOK {
		r.Body = insideSDP
	}
	require.NoError(w.t, w.Reply(invite, r))
}

// called has the peer call the stack, which answers. It returns how the peer asks for
// more in that call, and waits for the answer.
func (w *inside) called(headers ...string) (d *Dialog, ask func(method sip.RequestMethod, headers ...string)) {
	w.t.Helper()
	calls := make(chan *Dialog, 1)
	w.stack.OnIncomingDialog(func(d IDialog) { calls <- d.(*Dialog) })
	r := dialogtest.Request{Method: "INVITE", URI: "sip:us@10.0.0.1:5060", To: "sip:us@10.0.0.1:5060", CSeq: 1, Headers: headers, Body: insideSDP}
	require.NoError(w.t, w.Send(w.stack.Addr(), w.Request(r)))
	d = <-calls
	require.NoError(w.t, d.Accept(context.Background(), func(res *sip.Response) {
		res.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
		res.SetBody([]byte(insideSDP))
	}))
	w.next(w.Endpoint, sip.INVITE)
	r.ToTag, r.Body = d.Key().LocalTag, ""
	ask = func(method sip.RequestMethod, headers ...string) {
		w.t.Helper()
		r.Method, r.Headers = string(method), headers
		if method != sip.ACK {
			r.CSeq++
		}
		require.NoError(w.t, w.Send(w.stack.Addr(), w.Request(r)))
		if method != sip.ACK {
			w.next(w.Endpoint, method)
		}
		synctest.Wait()
	}
	ask(sip.ACK)
	return d, ask
}

// The time spent waiting for a dialog's lock, and for the stack's, is counted.
// Not in a bubble, whose clock a lock stops.
func TestWaitingAtLocksIsCounted(t *testing.T) {
	stack, err := NewStack(&StackConfig{Transport: &TransportConfig{Protocol: "udp", Address: "127.0.0.1"}})
	require.NoError(t, err)
	require.NoError(t, stack.Start(context.Background()))
	made, err := stack.NewInvite(context.Background(), sip.Uri{Scheme: "sip", Host: "127.0.0.1", Port: 9}, InviteOpts{})
	require.NoError(t, err)
	d := made.(*Dialog)
	for now := stack.Stats(); now.StackLock.Waited == 0 || now.DialogLocks.Waited == 0; now = stack.Stats() {
		stack.mutex.Lock()
		d.mutex.Lock()
		var waiting sync.WaitGroup
		waiting.Go(func() { d.State() })
		waiting.Go(func() { stack.Dialogs() })
		for range 100 {
			runtime.Gosched() // until they are at the locks, most likely
		}
		d.mutex.Unlock()
		stack.mutex.Unlock()
		waiting.Wait()
	}
	require.NotZero(t, stack.Stats().StackLock.Waits)
	require.NotZero(t, stack.Stats().DialogLocks.Waits)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = stack.Shutdown(ctx)
}

// A 2xx that comes again while the decision on it is being carried out is no
// further one: the application is not asked again, and the call that it makes is
// not released.
func TestA2xxThatComesAgainWhileItIsBeingChosen(t *testing.T) {
	for _, yes := range []bool{true, false} {
		insideBubble(t, func(t *testing.T, w *inside) {
			free := make(chan struct{})
			var asked atomic.Int32
			d, invite := w.calls(InviteOpts{Choose: func(ForkInfo) bool { asked.Add(1); <-free; return yes }})
			w.answers(invite, 200)
			synctest.Wait()
			w.stack.mutex.Lock() // which the decision has to wait for
			close(free)
			letOthersRun()
			w.answers(invite, 200)
			letOthersRun()
			w.stack.mutex.Unlock()
			synctest.Wait()
			require.EqualValues(t, 1, asked.Load())
			w.next(w.Endpoint, sip.ACK)
			if yes {
				require.NoError(t, d.WaitAnswer(context.Background()))
				w.silentBut(sip.ACK) // that to the 200 which came again
				require.NoError(t, d.Close())
			}
			require.NoError(t, w.Reply(w.next(w.Endpoint, sip.BYE), dialogtest.Response{Code: 200}))
			if !yes {
				require.ErrorIs(t, d.WaitAnswer(context.Background()), ErrCanceled)
				w.silentBut(sip.ACK)
			}
			require.Empty(t, w.stack.Dialogs())
		})
	}
}

// letOthersRun lets those run that can, while one that waits for a mutex keeps
// synctest.Wait from returning.
func letOthersRun() {
	for range 10000 {
		runtime.Gosched()
	}
}

// FT10: a timer may fire in the moment in which it is stopped. What it finds then is a
// call that was refreshed, or one whose timer is no more, and neither ends.
func TestAnExpiryThatComesTooLateEndsNothing(t *testing.T) {
	insideBubble(t, func(t *testing.T, w *inside) {
		d, ask := w.called("Supported: timer", "Session-Expires: 90;refresher=uac")
		time.Sleep(59 * time.Second)
		ask(sip.UPDATE, "Supported: timer", "Session-Expires: 90;refresher=uac")
		time.Sleep(time.Second) // the first would be over
		d.sessionExpired()
		ask(sip.UPDATE)
		d.sessionExpired()
		d.refreshSession()
		time.Sleep(time.Hour)
		d.sessionExpired()
		w.silentBut("")
		require.Equal(t, DialogStateEstablished, d.State())
	})
}

// A call that Shutdown has given up, and that is answered before the sockets are closed,
// is released: ACK alone would leave the peer with a call for ever.
func TestACallThatShutdownHasGivenUpIsReleasedWhenItIsAnswered(t *testing.T) {
	for _, heard := range []int{0, 100, 180} {
		insideBubble(t, func(t *testing.T, w *inside) {
			d, invite := w.calls(InviteOpts{})
			if heard != 0 {
				w.answers(invite, heard)
				synctest.Wait()
			}
			d.clear(Cause{By: PartyShutdown})
			w.answers(invite, 200)
			w.next(w.Endpoint, sip.ACK)
			require.NoError(t, w.Reply(w.next(w.Endpoint, sip.BYE), dialogtest.Response{Code: 200}))
			synctest.Wait()
			require.Zero(t, w.stack.Stats().Releasing)
			require.Equal(t, PartyShutdown, d.Cause().By)
		})
	}
}

// A call that followed a REFER does not keep the call in which that came: a chain
// of transfers would stay as long as the last.
func TestCallThatFollowedAReferLetsGoOfTheOld(t *testing.T) {
	insideBubble(t, func(t *testing.T, w *inside) {
		dora := w.peer("10.0.0.8")
		result := make(chan *Dialog, 1)
		w.stack.OnIncomingRefer(func(d IDialog, referTo sip.Uri, _ *ReplacesInfo) {
			followed, err := d.(*Dialog).FollowRefer(context.Background(), referTo, InviteOpts{})
			if err != nil {
				t.Error(err)
			}
			result <- followed
		})
		_, ask := w.called()
		ask(sip.REFER, "Refer-To: <sip:dora@10.0.0.8:5060>")
		require.NoError(t, dora.Reply(w.next(dora, sip.INVITE), dialogtest.Response{Code: 200, ToTag: "d", Body: insideSDP}))
		for range 2 { // 100, 200
			require.NoError(t, w.Reply(w.next(w.Endpoint, sip.NOTIFY), dialogtest.Response{Code: 200}))
		}
		followed := <-result
		followed.mutex.RLock()
		defer followed.mutex.RUnlock()
		require.Nil(t, followed.transfers.Asked())
	})
}

// FA5: what nobody reads costs nothing.
func TestLogsThatNobodyReadsCostNothing(t *testing.T) {
	for name, config := range map[string]func(*StackConfig){
		"none":  func(*StackConfig) {},
		"Info":  func(c *StackConfig) { c.Slog = slog.New(slog.NewTextHandler(io.Discard, nil)) },
		"lines": func(c *StackConfig) { c.Logger = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo) },
	} {
		insideBubble(t, func(t *testing.T, w *inside) {
			d, _ := w.called()
			require.Zero(t, testing.AllocsPerRun(100, func() {
				d.logPlaced()
				d.logArrived()
				d.mutex.Lock()
				defer d.mutex.Unlock()
				d.logStateLocked(DialogStateRinging)
				d.logAcceptedLocked(sip.INVITE, offeranswer.ByDefault)
				d.logEndedLocked()
			}), name)
		}, config)
	}
}

// RFC 3261 13.2.2.4: a repetition of the 2xx may find the call of a further fork as soon as
// that is in the list, and its ACK goes to the target of the 2xx.
func TestAFurtherForkIsFoundWithItsTarget(t *testing.T) {
	d := &Dialog{isUAC: true, callID: "call", localTag: "ours", remoteTarget: sip.Uri{Scheme: "sip", Host: "invited"}}
	i := &inviteClient{ackSender: ackSender{d: d, seq: 1}, forks: invite.WonBy[*earlyDialog, *Dialog]("first")}
	res := sip.NewResponse(sip.StatusOK, "OK")
	res.AppendHeader(&sip.ToHeader{Address: sip.Uri{Scheme: "sip", Host: "invited"}, Params: sip.HeaderParams{{K: "tag", V: "second"}}})
	res.AppendHeader(&sip.ContactHeader{Address: sip.Uri{Scheme: "sip", Host: "answered"}})
	res.AppendHeader(&sip.RecordRouteHeader{Address: sip.Uri{Scheme: "sip", Host: "proxy"}})
	d.mutex.Lock()
	fork := i.newForkLocked("second", received(res))
	found, _, _ := i.forks.Released("second")
	d.mutex.Unlock()

	require.Same(t, fork, found)
	state := found.currentLocked()
	require.Equal(t, "second", state.RemoteTag())
	require.Equal(t, "answered", state.Target().Host)
	require.Equal(t, "proxy", state.RouteSet()[0].Host)
}

// movedTx counts how often its response is moved to another flow.
type movedTx struct {
	serverTx
	moved int
}

func (tx *movedTx) ReplyBy(*transport.Flow) { tx.moved++ }

// A late response of a fork that has lost moves that fork alone.
func TestALosingForkMovesNoResponseOfTheCall(t *testing.T) {
	d := &Dialog{isUAC: true, callID: "call", localTag: "ours"}
	tx := &movedTx{}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.retransmissions = []*retransmission{{tx: tx}}
	current := d.currentLocked()
	lost := &dialogState{d: d, State: current.Fork("lost", 1)}
	lost.goByLocked(nil)
	require.Zero(t, tx.moved)
	current.goByLocked(nil)
	require.Equal(t, 1, tx.moved)
}

// cancels is a transaction whose CANCELs are counted.
type cancels int

func (c *cancels) Cancel(...sip.Header)   { *c++ }
func (c *cancels) Provisional() bool      { return false }
func (c *cancels) Flow() *transport.Flow  { return nil }
func (c *cancels) Heard() *transport.Flow { return nil }

func TestCallGivenUpWhileItsInviteLeavesIsCancelledOnce(t *testing.T) {
	d := &Dialog{ending: &ending{}}
	tx := new(cancels)
	i := &inviteClient{ackSender: ackSender{d: d}}
	i.inviteWritten(tx)
	i.inviteWritten(tx)
	require.Equal(t, cancels(1), *tx)

	re, tx := &reinviteClient{ackSender: ackSender{d: new(Dialog)}, canceled: true}, new(cancels)
	re.written(tx)
	re.written(tx)
	require.Equal(t, cancels(1), *tx)
}

// lostTx is the transaction of an INVITE whose connection turns out to be lost between the
// write of the response and what follows it.
type lostTx struct {
	whiteboxServer
	d *Dialog
}

func (tx lostTx) Respond(*sip.Response) error {
	tx.d.handleServerFailure(tx, errtext.As(txn.ErrTransport, io.ErrClosedPipe))
	return nil
}

// RFC 3261 18.2.2: the failure of the second connection is known to the one that counts the
// calls whose peers were not told.
func TestARefusalThatIsLostAtOnceIsNotCountedAsTold(t *testing.T) {
	req := sip.NewRequest(sip.INVITE, sip.Uri{Scheme: "sip", Host: "us"})
	for name, ended := range map[string]Cause{
		"by the application": {By: PartyLocal, Method: "INVITE", Status: 486},
		"by Shutdown":        {By: PartyShutdown},
	} {
		d := &Dialog{stack: &Stack{config: &StackConfig{}}, state: DialogStateRinging, phase: phaseIncoming}
		tx := lostTx{whiteboxServer{m: whiteboxReceived(t, req)}, d}
		_, err := d.reject(tx, sip.NewResponse(486, "Busy Here"), ended)
		require.NoError(t, err, name)
		require.ErrorIs(t, d.Cause().Err, ErrTransport, name)
	}
}

// prackTx is the transaction of a PRACK.
type prackTx struct{ whiteboxServer }

func (prackTx) NewResponse(code int, reason string) *sip.Response {
	return sip.NewResponse(code, reason)
}
func (prackTx) Respond(*sip.Response) error { return nil }

// RFC 6337 2.2: the answer in the 200 to a PRACK leaves before the 200 to the INVITE, which
// also waits while it is being written.
func TestThe200ToAPRACKIsNotOvertaken(t *testing.T) {
	d := &Dialog{stack: &Stack{config: &StackConfig{}}, state: DialogStateRinging, phase: phaseIncoming}
	tx := prackTx{whiteboxServer{m: whiteboxReceived(t, sip.NewRequest(sip.PRACK, sip.Uri{Scheme: "sip", Host: "us"}))}}
	in := &updateServer{tx: tx, prack: true, cancel: func() {}}
	waits := func() bool {
		d.mutex.Lock()
		defer d.mutex.Unlock()
		return d.awaitsPRACKLocked(nil)
	}
	d.mutex.Lock()
	d.currentLocked().updateIn = in
	d.mutex.Unlock()
	require.True(t, waits(), "the offer is not decided")
	require.True(t, d.claimUpdate(in, sip.StatusOK))
	require.True(t, waits(), "the answer is not written")
	d.answerPrack(in.tx, nil)
	require.False(t, waits())
}
