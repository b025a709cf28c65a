package test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// page is a telephone in a web page: a scripted peer on a WebSocket, which can be closed.
type page struct {
	peerCall // what it says; its socket is not used
	server   *dialog.Stack
	host     *dialogtest.Host
	conn     net.Conn
	arrivals chan dialogtest.Received
	timer    string // the Session-Expires that it asks for, or answers with
	// flow is the server's way to the page; calls are those that the server gets.
	flow  *dialog.Flow
	calls <-chan *dialog.Dialog
	// pending are the methods of the server's that wait for the page; outcome, unless nil,
	// waits until the call is over.
	pending []<-chan error
	outcome <-chan error
	// let has the server answer the page's offer. owed is what the page says first when it
	// is back.
	let  chan struct{}
	owed func()
}

// page opens one, which registers.
func (w *world) page(change ...func(*dialog.StackConfig)) *page {
	w.t.Helper()
	p := &page{host: w.net.Host(peerIP), timer: "90;refresher=uas", let: make(chan struct{}), owed: func() {}}
	p.server = w.stack(stackIP, append(change, func(c *dialog.StackConfig) {
		c.Transport.Protocol, c.Transport.Port, c.NoAutoRinging = "ws", 80, true
		c.SessionExpires = 90 * time.Second
		alsoUDP(c)
	})...)
	p.calls = waiting(p.server)
	p.server.OnOfferRequest(func(ctx context.Context, _ *dialog.OfferRequest) (dialog.Body, error) {
		select {
		case <-p.let:
			return sdp(versioned(answerSDP, 2)), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	p.peerCall = peerCall{
		peer: w.peer(peerIP), w: w, stack: p.server.Addr(), tag: farTag, callID: "page",
		stackURI: "sip:service@" + stackIP, peerURI: "sip:page@example.com",
	}
	p.connect()
	p.register()
	return p
}

// connect opens a WebSocket, whose messages arrive until it is lost.
func (p *page) connect() {
	p.t.Helper()
	dialer := ws.Dialer{NetDial: p.host.DialContext, Protocols: []string{"sip"}}
	conn, _, _, err := dialer.Dial(context.Background(), "ws://"+p.server.Addr().String()+"/")
	require.NoError(p.t, err)
	p.t.Cleanup(func() { _ = conn.Close() })
	arrivals := make(chan dialogtest.Received, 100)
	p.conn, p.arrivals = conn, arrivals
	go func() {
		for {
			data, err := wsutil.ReadServerText(conn)
			if err != nil {
				return
			}
			if msg, err := sip.ParseMessage(data); err == nil {
				arrivals <- dialogtest.Received{Message: msg, Data: data}
			}
		}
	}()
}

// register has the server keep the page's way.
func (p *page) register() {
	p.t.Helper()
	flows := make(chan *dialog.Flow, 1)
	require.NoError(p.t, p.server.OnRequest("REGISTER", func(ctx context.Context, _ *sip.Request) dialog.Answer {
		flows <- dialog.FlowFrom(ctx)
		return dialog.Answer{}
	}))
	p.say(p.Request(dialogtest.Request{Method: "REGISTER", URI: "sip:" + stackIP, Headers: p.contact()}))
	p.flow = <-flows
	release := p.flow.Hold()
	p.flow.OnLost(func(error) { release() })
	p.next("200 REGISTER")
}

func (p *page) contact() []string { return []string{"Contact: <sip:page@x7k2.invalid;transport=ws>"} }

// frame is one message as a browser writes it.
func frame(text string) []byte {
	text = strings.Replace(text, "SIP/2.0/UDP 10.0.0.9:5060", "SIP/2.0/WS x7k2.invalid", 1)
	var b bytes.Buffer
	_ = wsutil.WriteClientText(&b, []byte(text))
	return b.Bytes()
}

func (p *page) say(text string) {
	p.t.Helper()
	_, err := p.conn.Write(frame(text))
	require.NoError(p.t, err)
}

// half says so much of a message that the connection breaks in the middle of its frame.
func (p *page) half(text string) {
	p.t.Helper()
	data := frame(text)
	_, err := p.conn.Write(data[:len(data)/2])
	require.NoError(p.t, err)
}

// next returns the next message that is what the test expects, skipping others.
func (p *page) next(what string) dialogtest.Received {
	p.t.Helper()
	for {
		select {
		case got := <-p.arrivals:
			if testkit.Describe(got.Message) == what {
				return got
			}
		case <-time.After(2 * time.Minute):
			require.FailNow(p.t, "nothing came", what)
		}
	}
}

// close is what closes the page: its connection is reset.
func (p *page) close() {
	synctest.Wait()
	p.host.BreakStreams()
	synctest.Wait()
}

// invitation is the page's INVITE.
func (p *page) invitation() string {
	p.seq = 1
	p.inviteText = p.Request(dialogtest.Request{
		Method: "INVITE", URI: p.stackURI, From: p.peerURI, FromTag: p.tag, CallID: p.callID, CSeq: 1, Body: offerSDP,
		Headers: append(p.contact(), "Supported: timer", "Session-Expires: "+p.timer),
	})
	return p.inviteText
}

// cancels is its CANCEL of that.
func (p *page) cancels() string {
	text := strings.NewReplacer("INVITE sip", "CANCEL sip", "1 INVITE", "1 CANCEL").Replace(p.inviteText)
	head, _, _ := strings.Cut(text, "Content-Type")
	return head + "Content-Length: 0\r\n\r\n"
}

// asks is the page's next request inside the call.
func (p *page) asks(method string, change ...func(*dialogtest.Request)) string {
	return p.Request(p.made(method, append(change, withHeaders(p.contact()...))...))
}

// reinvites is its re-INVITE.
func (p *page) reinvites() string {
	return p.asks("INVITE", withBody(versioned(offerSDP, int(p.seq)+1)), withHeaders("Supported: timer", "Session-Expires: 90"))
}

// acks is its ACK to a 200.
func (p *page) acks() string {
	r := p.made("ACK")
	p.seq--
	r.CSeq = p.seq
	return p.Request(r)
}

// answers is its response to a request.
func (p *page) answers(in dialogtest.Received, code int, body string) string {
	r := dialogtest.Response{Code: code, ToTag: p.tag, Headers: p.contact(), Body: body}
	if code == 200 && in.Request().IsInvite() {
		r.Headers = append(r.Headers, "Require: timer", "Session-Expires: "+p.timer)
	}
	return p.Response(in.Request(), r)
}

// begin has a method of the server's wait for the page.
func (p *page) begin(f func() error) { p.pending = append(p.pending, began(f)) }

// called has the server call the page, whose INVITE it returns.
func (p *page) called() dialogtest.Received {
	p.t.Helper()
	opts := offer(offerSDP)
	opts.Flow = p.flow
	d, err := p.server.NewInvite(context.Background(), uri("page", "x7k2.invalid"), opts)
	require.NoError(p.t, err)
	p.begin(func() error { return d.(*dialog.Dialog).WaitAnswer(context.Background()) })
	p.d = d.(*dialog.Dialog)
	return p.rung()
}

// rung reads an INVITE to the page.
func (p *page) rung() dialogtest.Received {
	p.t.Helper()
	p.invite = p.next("INVITE")
	req := p.invite.Request()
	p.callID, p.stackTag, p.target = req.CallID().Value(), testkit.FromTag(req), contactOf(req)
	p.stackURI, p.peerURI = req.From().Address.String(), req.To().Address.String()
	p.timer = "90;refresher=uac"
	return p.invite
}

// picked reads the 200 to the page's INVITE.
func (p *page) picked() {
	p.t.Helper()
	p.final = p.next("200 INVITE")
	p.stackTag, p.target = testkit.ToTag(p.final.Message), contactOf(p.final.Message)
}

// returns has the page come back, which takes its call to the new connection.
func (p *page) returns() {
	p.t.Helper()
	p.connect()
	close(p.let)
	synctest.Wait()
	p.owed()
	p.say(p.reinvites())
	p.next("200 INVITE")
	p.say(p.acks())
	synctest.Wait()
}
