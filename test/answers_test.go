package test

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// ask sends a request to the stack under test and returns its final answer.
func (p *peer) ask(to *dialog.Stack, r dialogtest.Request) *sip.Response {
	p.t.Helper()
	text := p.Request(r)
	if slices.Contains(r.Headers, noContact) {
		text = regexp.MustCompile("(?m)^Contact: .*\n").ReplaceAllString(text, "")
	}
	require.NoError(p.t, p.Send(to.Addr(), text))
	return p.final(r.Method)
}

// noContact keeps ask from sending the Contact that requests are given.
const noContact = "X-Without: Contact"

// final returns the next final answer to such a request.
func (p *peer) final(method string) *sip.Response {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		got, err := p.Recv(ctx)
		require.NoError(p.t, err, "no final answer to %s", method)
		if res := got.Response(); res != nil && res.StatusCode >= 200 && string(res.CSeq().MethodName) == method {
			return res
		}
	}
}

func value(msg sip.Message, name string) string {
	if h := msg.GetHeaders(name); len(h) > 0 {
		return h[0].Value()
	}
	return ""
}

const contactOfPeer = "Contact: <sip:peer@10.0.0.9:5060>"

// The rows of the answers for requests outside a dialog.
func TestAnswersOutsideADialog(t *testing.T) {
	invite := func(r dialogtest.Request) dialogtest.Request {
		r.Method, r.URI = "INVITE", "sip:bob@10.0.0.2"
		if r.Headers == nil {
			r.Headers = []string{contactOfPeer}
		}
		return r
	}
	plain := func(method string) dialogtest.Request {
		return dialogtest.Request{Method: method, URI: "sip:bob@10.0.0.2"}
	}
	subscribe := func(event string) dialogtest.Request {
		r := plain("SUBSCRIBE")
		r.Headers = []string{event}
		return r
	}
	withTo := func(method string) dialogtest.Request {
		r := plain(method)
		r.ToTag = "nosuch"
		return r
	}
	cases := []struct {
		name   string
		ask    dialogtest.Request
		status int
		header string
		value  string
	}{
		{"method not recognised", plain("DANCE"), 501, "", ""},
		{"REGISTER not served", plain("REGISTER"), 405, "Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, REFER, SUBSCRIBE, NOTIFY, INFO, PRACK"},
		{"PUBLISH not served", plain("PUBLISH"), 405, "Allow", ""},
		{"SUBSCRIBE to an event we do not know", subscribe("Event: presence"), 489, "Allow-Events", "refer"},
		{"SUBSCRIBE without an event", plain("SUBSCRIBE"), 489, "Allow-Events", "refer"},
		{"SUBSCRIBE to a REFER that was none", subscribe("Event: refer"), 403, "", ""},
		{"MESSAGE without handler", plain("MESSAGE"), 405, "Allow", ""},
		// FD11. RFC 3261 21.4.6: served inside calls only, and not listed here.
		{"REFER without handler", plain("REFER"), 405, "Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, SUBSCRIBE, NOTIFY, INFO, PRACK"},
		{"UPDATE outside a dialog", plain("UPDATE"), 481, "", ""},
		{"PRACK outside a dialog", plain("PRACK"), 481, "", ""},
		{"BYE outside a dialog", plain("BYE"), 481, "", ""},
		{"INFO outside a dialog", plain("INFO"), 481, "", ""},
		{"NOTIFY outside a dialog", plain("NOTIFY"), 481, "", ""},
		{"CANCEL that matches nothing", plain("CANCEL"), 481, "", ""},
		{"OPTIONS", plain("OPTIONS"), 200, "Accept", "application/sdp"},
		{"tel URI", dialogtest.Request{Method: "OPTIONS", URI: "tel:+431234"}, 416, "", ""},
		{"Require with an unknown tag", invite(dialogtest.Request{Headers: []string{contactOfPeer, "Require: bar, timer, 100rel, foo"}}), 420, "Unsupported", "bar, foo"},
		{"Require: replaces", invite(dialogtest.Request{Headers: []string{contactOfPeer, "Require: replaces", "Replaces: x;from-tag=a;to-tag=b"}}), 481, "", ""},
		{"Proxy-Require is not ours", dialogtest.Request{Method: "OPTIONS", URI: "sip:bob@10.0.0.2", Headers: []string{"Proxy-Require: foo"}}, 200, "", ""},
		{"INVITE without Contact", invite(dialogtest.Request{Headers: []string{noContact}}), 400, "", ""},
		{"INVITE with two Contacts", invite(dialogtest.Request{Headers: []string{contactOfPeer, contactOfPeer}}), 400, "", ""},
		{"INVITE with a body of another type", invite(dialogtest.Request{Headers: []string{contactOfPeer, "Content-Type: text/plain"}, Body: "hello"}), 415, "Accept", "application/sdp"},
		{"INVITE with an encoded body", invite(dialogtest.Request{Headers: []string{contactOfPeer, "Content-Encoding: gzip", "Content-Type: application/sdp"}, Body: "zip"}), 415, "Accept-Encoding", "identity"},
		{"INFO for an unknown dialog", withTo("INFO"), 481, "", ""},
		{"BYE for an unknown dialog", withTo("BYE"), 481, "", ""},
		{"re-INVITE for an unknown dialog", dialogtest.Request{Method: "INVITE", URI: "sip:bob@10.0.0.2", ToTag: "nosuch", Headers: []string{contactOfPeer}}, 481, "", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.stack("10.0.0.2", func(c *dialog.StackConfig) { c.AcceptBodies = []string{"application/sdp"} })
				b.OnIncomingDialog(func(dialog.IDialog) { t.Error("must not reach the application") })
				p := w.peer("10.0.0.9")
				res := p.ask(b, c.ask)
				require.Equal(t, c.status, res.StatusCode)
				if c.value != "" {
					require.Equal(t, c.value, value(res, c.header))
				} else if c.header != "" {
					require.NotEmpty(t, value(res, c.header))
				}
			})
		})
	}
}

func TestInviteNobodyTakesGets480WithoutRinging(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		res := p.ask(b, dialogtest.Request{Method: "INVITE", URI: "sip:b@10.0.0.2", Headers: []string{contactOfPeer}})
		require.Equal(t, 480, res.StatusCode)
		require.Empty(t, w.sent("10.0.0.2", "180 INVITE"))
		res = p.ask(b, dialogtest.Request{Method: "OPTIONS", URI: "sip:b@10.0.0.2", CallID: "other"})
		require.Equal(t, 480, res.StatusCode, "OPTIONS is answered as an INVITE would be")
	})
}

func TestInviteBeyondMaxDialogsGets503(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack("10.0.0.2", func(c *dialog.StackConfig) { c.MaxDialogs = 1 })
		b.OnIncomingDialog(func(dialog.IDialog) {})
		p := w.peer("10.0.0.9")
		require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:b@10.0.0.2", CallID: "one", Headers: []string{contactOfPeer}})))
		p.next("180 INVITE")
		res := p.ask(b, dialogtest.Request{Method: "INVITE", URI: "sip:b@10.0.0.2", CallID: "two", Headers: []string{contactOfPeer}})
		require.Equal(t, 503, res.StatusCode)
		require.NotEmpty(t, value(res, "Retry-After"))
		res = p.ask(b, dialogtest.Request{Method: "OPTIONS", URI: "sip:b@10.0.0.2", CallID: "three"})
		require.Equal(t, 503, res.StatusCode)
	})
}

// RFC 3261 8.2.2.2: the same request by another path.
func TestMergedInviteGets482(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		var calls atomic.Int32
		b.OnIncomingDialog(func(dialog.IDialog) { calls.Add(1) })
		r := dialogtest.Request{Method: "INVITE", URI: "sip:b@10.0.0.2", Headers: []string{contactOfPeer}}
		require.NoError(t, p.Send(b.Addr(), p.Request(r)))
		p.next("180 INVITE")
		require.Equal(t, 482, p.ask(b, r).StatusCode)
		synctest.Wait()
		require.EqualValues(t, 1, calls.Load())
	})
}

// called makes a call from the scripted peer and returns the stack's side and
// a request inside it.
func (w *world) called(b *dialog.Stack, p *peer, answer string, headers ...string) (*dialog.Dialog, func(method string, seq uint32, headers ...string) dialogtest.Request) {
	w.t.Helper()
	taken := make(chan *dialog.Dialog, 1)
	b.OnIncomingDialog(func(d dialog.IDialog) {
		if err := d.Accept(context.Background(), withSDP(answer)); err != nil {
			w.t.Errorf("accept: %v", err)
		}
		taken <- d.(*dialog.Dialog)
	})
	res := p.ask(b, dialogtest.Request{Method: "INVITE", URI: "sip:b@10.0.0.2", CSeq: 10, Headers: append(headers, contactOfPeer), Body: offerSDP})
	require.Equal(w.t, 200, res.StatusCode)
	tag, _ := res.To().Params.Get("tag")
	inside := func(method string, seq uint32, headers ...string) dialogtest.Request {
		return dialogtest.Request{Method: method, URI: "sip:b@10.0.0.2", ToTag: tag, CSeq: seq, Headers: headers}
	}
	require.NoError(w.t, p.Send(b.Addr(), p.Request(inside("ACK", 10))))
	return <-taken, inside
}

// The rows of the answers for requests inside a dialog.
func TestAnswersInsideADialog(t *testing.T) {
	cases := []struct {
		name    string
		method  string
		seq     uint32
		headers []string
		status  int
		header  string
		value   string
	}{
		{"INFO", "INFO", 11, nil, 200, "", ""},
		{"INFO with an unknown package", "INFO", 11, []string{"Info-Package: foo"}, 469, "Recv-Info", ""},
		{"OPTIONS", "OPTIONS", 11, nil, 200, "Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, REFER, SUBSCRIBE, NOTIFY, INFO, PRACK"},
		{"MESSAGE without handler", "MESSAGE", 11, nil, 405, "Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, REFER, SUBSCRIBE, NOTIFY, INFO, PRACK"},
		{"SUBSCRIBE without an event", "SUBSCRIBE", 11, nil, 489, "Allow-Events", "refer"},
		{"SUBSCRIBE to another event", "SUBSCRIBE", 11, []string{"Event: presence"}, 489, "Allow-Events", "refer"},
		{"UPDATE", "UPDATE", 11, []string{contactOfPeer}, 200, "", ""},
		{"PRACK that matches nothing", "PRACK", 11, []string{"RAck: 1 10 INVITE"}, 481, "", ""},
		{"CSeq equal", "INFO", 10, nil, 500, "", ""},
		{"CSeq lower", "INFO", 9, nil, 500, "", ""},
		{"BYE with a lower CSeq", "BYE", 9, nil, 500, "", ""},
		{"NOTIFY without subscription", "NOTIFY", 11, []string{"Event: refer"}, 481, "", ""},
		{"NOTIFY of another event", "NOTIFY", 11, []string{"Event: presence"}, 489, "Allow-Events", "refer"},
		{"REFER without Refer-To", "REFER", 11, []string{contactOfPeer}, 400, "", ""},
		{"REFER with two", "REFER", 11, []string{contactOfPeer, "Refer-To: <sip:a@b>", "Refer-To: <sip:c@d>"}, 400, "", ""},
		{"REFER", "REFER", 11, []string{contactOfPeer, "Refer-To: <sip:c@10.0.0.3>"}, 202, "", ""},
		{"Require with an unknown tag", "INFO", 11, []string{"Require: foo"}, 420, "Unsupported", "foo"},
		{"BYE", "BYE", 11, nil, 200, "", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
				d, inside := w.called(b, p, answerSDP)
				res := p.ask(b, inside(c.method, c.seq, c.headers...))
				require.Equal(t, c.status, res.StatusCode)
				if c.value != "" {
					require.Equal(t, c.value, value(res, c.header))
				}
				if c.method != "BYE" || c.status != 200 {
					require.Equal(t, dialog.DialogStateEstablished, d.State())
					require.NoError(t, d.Close())
					bye := p.next("BYE")
					p.reply(bye, dialogtest.Response{Code: 200})
				}
			})
		})
	}
}

// RFC 5407 3.2.1, 3.2.2: while our BYE is on its way a BYE gets 200, anything
// else 481; and so it is for 64*T1 after the end.
func TestMortalDialog(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		require.NoError(t, d.Close())
		bye := p.next("BYE")
		require.Equal(t, 481, p.ask(b, inside("INFO", 11)).StatusCode)
		require.Equal(t, 481, p.ask(b, inside("INVITE", 12, contactOfPeer)).StatusCode)
		require.Equal(t, 200, p.ask(b, inside("BYE", 13)).StatusCode)
		require.Equal(t, 200, p.ask(b, inside("BYE", 14)).StatusCode, "the dialog is buried, but a BYE may still come")
		require.Equal(t, 481, p.ask(b, inside("INFO", 15)).StatusCode)
		p.reply(bye, dialogtest.Response{Code: 200})
		time.Sleep(33 * time.Second) // on the fake clock: 64*T1
		require.Equal(t, 481, p.ask(b, inside("BYE", 16)).StatusCode)
	})
}

// RFC 3261 14.2.
func TestSecondReInviteHasToWait(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		decide := make(chan struct{})
		d.OnOffer(func(ctx context.Context, offer dialog.Body) (dialog.Body, error) {
			<-decide
			return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
		})
		require.NoError(t, p.Send(b.Addr(), p.Request(inside("INVITE", 11, contactOfPeer))))
		p.next("100 INVITE")
		res := p.ask(b, inside("INVITE", 12, contactOfPeer))
		require.Equal(t, 500, res.StatusCode)
		seconds, err := strconv.Atoi(value(res, "Retry-After"))
		require.NoError(t, err)
		require.True(t, seconds >= 0 && seconds <= 10)
		close(decide)
		require.Equal(t, 200, p.final("INVITE").StatusCode)
		require.NoError(t, p.Send(b.Addr(), p.Request(inside("ACK", 11))))
		hangUp(t, d, p)
	})
}
