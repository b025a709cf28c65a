package retry

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sipdialog.example/dialog/internal/auth"
	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
	"sipdialog.example/dialog/internal/txn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sentTx is a transaction whose request has that text.
type sentTx struct {
	text    []byte
	cancels int
}

func (c *sentTx) Cancel(...sip.Header)   { c.cancels++ }
func (c *sentTx) Provisional() bool      { return false }
func (c *sentTx) Flow() *transport.Flow  { return nil }
func (c *sentTx) Heard() *transport.Flow { return nil }
func (c *sentTx) Sent() []byte           { return c.text }

// owner has a call of which every request is sent at once, and the transaction layer
// below it: sent are the requests that were given to that.
type owner struct {
	sent    []*sentTx
	stopped bool
	mayNot  error
	unsent  error
	logins  bool
	held    int
}

func (o *owner) Request(_ context.Context, req *draft.Request, opt txn.RequestOptions, _ txn.ClientUser) (Tx, error) {
	if o.unsent != nil {
		return nil, o.unsent
	}
	tx := &sentTx{text: req.Text()}
	o.sent = append(o.sent, tx)
	return tx, nil
}

func (o *owner) Go(f func()) bool {
	if !o.stopped {
		f()
	}
	return !o.stopped
}
func (o *owner) GoAsk(f func()) bool { return o.Go(f) }
func (o *owner) Begin(_ context.Context, sent *draft.Request) (uint32, error) {
	if o.mayNot != nil {
		return 0, o.mayNot
	}
	o.held++
	return sent.CSeq() + 10, nil
}
func (o *owner) End()                                   { o.held-- }
func (o *owner) Left(sip.Uri, *transport.Flow)          {}
func (o *owner) Heard(*sipmsg.Message, *transport.Flow) {}
func (o *owner) Destination(*draft.Request, *transport.Flow, txn.RequestOptions) auth.Destination {
	return auth.Destination{}
}
func (o *owner) Login(context.Context, Sent, auth.Challenge) (auth.Login, bool) {
	return auth.Login{Username: "alice", Password: "secret"}, o.logins
}
func (o *owner) Unsent(_ txn.RequestOptions, err error) error { return err }
func (o *owner) Lost(_ txn.RequestOptions, err error) error   { return err }

// report is what is reported of a request.
type report struct {
	statuses []int
	errs     []error
}

func invite() *draft.Request {
	req := draft.New(sip.INVITE, &sip.Uri{Scheme: "sip", User: "bob", Host: "example.com"})
	req.AddCSeq(1)
	req.Add("Session-Expires", "90")
	req.Add("Authorization", "Digest of the application's")
	return req
}

func begin(o *owner) (*Request, *report) {
	got := new(report)
	x := &Request{
		Layer: o, Owner: o, Base: context.Background(), Timeout: time.Second,
		Attempt:    new(auth.Cache).Begin(&auth.Scope{}, false),
		OnResponse: func(res *sipmsg.Message) { got.statuses = append(got.statuses, res.Status) },
		OnDone:     func(err error) { got.errs = append(got.errs, err) },
	}
	return x, got
}

func response(code int, lines string) *sipmsg.Message {
	head := fmt.Sprintf("SIP/2.0 %d Whatever\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>;tag=2\r\nCall-ID: a\r\nCSeq: 1 INVITE\r\n%s", code, lines)
	return sipmsg.Decode([]byte(head), len(head))
}

const challenge = "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", algorithm=SHA-256, qop=\"auth\"\r\n"

// One row for each response: whether the request is sent again, and what has changed.
func TestAResponseIsTheOutcomeOrSendsTheRequestAgain(t *testing.T) {
	elsewhere := func(*sipmsg.Message) func(*draft.Request) txn.RequestOptions {
		return func(req *draft.Request) txn.RequestOptions {
			req.SetURI(&sip.Uri{Scheme: "sip", Host: "other.example"})
			return txn.RequestOptions{}
		}
	}
	for name, row := range map[string]struct {
		res          *sipmsg.Message
		set          func(x *Request, o *owner)
		again        bool
		header, want string
		uri          string
	}{
		"100":                        {res: response(100, "")},
		"200":                        {res: response(200, "")},
		"486":                        {res: response(486, "")},
		"486, another target":        {res: response(486, ""), set: func(x *Request, _ *owner) { x.Alternatives = elsewhere }, again: true, header: "Authorization", uri: "sip:other.example"},
		"180, another target":        {res: response(180, ""), set: func(x *Request, _ *owner) { x.Alternatives = elsewhere }},
		"302, the stack has ended":   {res: response(302, ""), set: func(x *Request, o *owner) { x.Alternatives, o.stopped = elsewhere, true }},
		"422":                        {res: response(422, "Min-SE: 300\r\n"), again: true, header: "Session-Expires", want: "300"},
		"422 that demands nothing":   {res: response(422, "")},
		"422, may not be sent again": {res: response(422, "Min-SE: 300\r\n"), set: func(_ *Request, o *owner) { o.mayNot = errors.New("cancelled") }},
		"500":                        {res: response(500, "")},
		"500, overtaken":             {res: response(500, ""), set: func(x *Request, _ *owner) { x.Overtaken = true }, again: true, header: "Session-Expires", want: "90"},
		"401, no login":              {res: response(401, challenge)},
		"401, no credentials":        {res: response(401, challenge), set: func(x *Request, _ *owner) { x.Attempt = nil }},
		"401, a login":               {res: response(401, challenge), set: func(_ *Request, o *owner) { o.logins = true }, again: true, header: "Session-Expires", want: "90"},
		"401, the stack has ended":   {res: response(401, challenge), set: func(_ *Request, o *owner) { o.logins, o.stopped = true, true }},
	} {
		t.Run(name, func(t *testing.T) {
			o := new(owner)
			x, got := begin(o)
			if row.set != nil {
				row.set(x, o)
			}
			require.NoError(t, x.Send(t.Context(), invite()))
			x.answered(o.sent[0], row.res)
			require.Zero(t, o.held, "the send slot")
			if !row.again {
				require.Equal(t, []int{row.res.Status}, got.statuses)
				require.Len(t, o.sent, 1)
				return
			}
			require.Empty(t, got.statuses)
			require.Len(t, o.sent, 2)
			again := draft.Parse(o.sent[1].text)
			require.Equal(t, uint32(11), again.CSeq())
			require.Equal(t, row.want, again.Value(row.header))
			if row.uri != "" {
				require.Equal(t, row.uri, again.URI())
			}
			x.ended(o.sent[0], nil) // not the end
			require.Empty(t, got.errs)
			x.answered(o.sent[1], response(200, ""))
			x.ended(o.sent[1], nil)
			require.Equal(t, report{[]int{200}, []error{nil}}, *got)
		})
	}
}

func TestA422IsObeyedThreeTimes(t *testing.T) {
	o := new(owner)
	x, got := begin(o)
	require.NoError(t, x.Send(t.Context(), invite()))
	for n := range 4 {
		x.answered(o.sent[n], response(422, "Min-SE: 300\r\n"))
	}
	require.Equal(t, []int{422}, got.statuses)
	require.Len(t, o.sent, 4)
}

func TestARequestWithoutAResponseGoesToTheNextTarget(t *testing.T) {
	o, lost := new(owner), errors.New("timeout")
	x, got := begin(o)
	left := 1
	x.Alternatives = func(res *sipmsg.Message) func(*draft.Request) txn.RequestOptions {
		require.Nil(t, res)
		if left--; left < 0 {
			return nil
		}
		return func(*draft.Request) txn.RequestOptions { return txn.RequestOptions{} }
	}
	require.NoError(t, x.Send(t.Context(), invite()))
	x.ended(o.sent[0], lost)
	require.Len(t, o.sent, 2)
	require.Empty(t, got.errs)
	x.ended(o.sent[1], lost)
	require.Equal(t, []error{lost}, got.errs)
}

func TestARetryThatCannotBeWrittenIsTheOutcome(t *testing.T) {
	o := new(owner)
	x, got := begin(o)
	require.NoError(t, x.Send(t.Context(), invite()))
	o.unsent = errors.New("no route")
	x.answered(o.sent[0], response(422, "Min-SE: 300\r\n"))
	require.Equal(t, []error{o.unsent}, got.errs)
	require.ErrorIs(t, x.Send(t.Context(), invite()), o.unsent)
}

// A 2xx that came while the sender of the INVITE was about to tell of its
// transaction was read without it: the call did not know its WebSocket, and the BYE
// dialled.
func TestResponseIsReadWithItsTransactionKnown(t *testing.T) {
	var sent Tx
	first, telling, resume := make(chan bool, 1), make(chan struct{}), make(chan struct{})
	first <- true
	x := &Request{Owner: new(owner), Sent: func(tx Tx) {
		select {
		case <-first:
			close(telling)
			<-resume
		default:
			sent = tx
		}
	}}
	tx, written := new(sentTx), make(chan struct{})
	go func() { // as the sender does
		defer close(written)
		x.announce(tx)
	}()
	<-telling
	x.announce(tx) // as the first response does
	require.Equal(t, Tx(tx), sent)
	close(resume)
	<-written
}

// So the first response tells of it by itself, before it is read.
func TestResponseTellsOfItsTransaction(t *testing.T) {
	tx, read := new(sentTx), false
	var known Tx
	x := &Request{
		Owner: new(owner),
		Sent:  func(tx Tx) { known = tx },
		OnResponse: func(*sipmsg.Message) {
			read = true
			require.Equal(t, Tx(tx), known)
		},
	}
	x.answered(tx, response(180, ""))
	require.True(t, read)
}

func TestDestinationListsThePlacesBehindTheNextHop(t *testing.T) {
	req := sip.NewRequest(sip.INVITE, sip.Uri{Scheme: "sip", Host: "target.example"})
	first, second := sip.Uri{Scheme: "sip", Host: "10.0.0.1", Port: 5070}, sip.Uri{Scheme: "sip", Host: "second.example"}
	req.AppendHeader(&sip.RouteHeader{Address: first})
	req.AppendHeader(&sip.RouteHeader{Address: second})
	require.Equal(t, []string{PlaceOf(second), PlaceOf(req.Recipient)}, pathBehind(req, first))
	require.Equal(t, []string{PlaceOf(first), PlaceOf(second), PlaceOf(req.Recipient)}, pathBehind(req, sip.Uri{Host: "elsewhere.example"}))
}

func TestTheFirstOutcomeIsWaitedFor(t *testing.T) {
	late, named := errors.New("late"), errors.New("named")
	for _, row := range []struct {
		tell   func(w *Waiter)
		status int
		err    error
	}{
		{func(w *Waiter) { w.Response(response(180, "")); w.Response(response(486, "")); w.Done(nil) }, 486, nil},
		{func(w *Waiter) { w.Response(response(200, "")); w.Done(late) }, 200, nil},
		{func(w *Waiter) { w.Done(late); w.Response(response(200, "")) }, 0, named},
		{func(w *Waiter) { w.Response(response(180, "")) }, 0, context.Canceled},
	} {
		w := NewWaiter(func(error) error { return named })
		ctx, cancel := context.WithCancel(t.Context())
		row.tell(w)
		if row.err == context.Canceled {
			cancel()
		}
		res, err := w.Wait(ctx)
		cancel()
		require.Equal(t, row.err, err)
		if row.status != 0 {
			require.Equal(t, row.status, res.Status)
		}
	}
}
