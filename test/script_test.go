package test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// Where the stack under test, its scripted peer and others live.
const (
	stackIP = "10.0.0.1"
	peerIP  = "10.0.0.9"
	otherIP = "10.0.0.8"
	proxyIP = "10.0.0.7"
	farTag  = "far"
)

// peerCall is a call between a stack and a scripted peer, as the peer sees it.
type peerCall struct {
	*peer
	w     *world
	stack netip.AddrPort
	d     *dialog.Dialog

	callID, stackTag, tag     string
	stackURI, peerURI, target string
	// seq is the peer's latest CSeq.
	seq uint32
	// inviteText is the INVITE as the peer wrote it, invite as the peer read it; final
	// is its 200, if the stack wrote it.
	inviteText    string
	invite, final dialogtest.Received
}

// waiting leaves every call to the test.
func waiting(s *dialog.Stack) <-chan *dialog.Dialog {
	calls := make(chan *dialog.Dialog, 10)
	s.OnIncomingDialog(func(d dialog.IDialog) { calls <- d.(*dialog.Dialog) })
	return calls
}

// rings has the peer call the stack, whose application does not answer yet.
func (w *world) rings(b *dialog.Stack, p *peer, change ...func(*dialogtest.Request)) *peerCall {
	w.t.Helper()
	calls := waiting(b)
	l := &peerCall{
		peer: p, w: w, stack: b.Addr(), tag: farTag, seq: 1,
		stackURI: "sip:service@" + b.Addr().String(), peerURI: "sip:caller@" + p.Addr().String(),
	}
	r := dialogtest.Request{Method: "INVITE", URI: l.stackURI, From: l.peerURI, FromTag: farTag, CSeq: 1, Body: offerSDP}
	for _, c := range change {
		c(&r)
	}
	l.inviteText = p.Request(r)
	require.NoError(w.t, p.Send(l.stack, l.inviteText))
	ringing := p.next("180 INVITE").Response()
	l.d = <-calls
	l.callID, l.stackTag, l.target = ringing.CallID().Value(), testkit.ToTag(ringing), contactOf(ringing)
	return l
}

// incoming is rings with the call answered and acknowledged.
func (w *world) incoming(b *dialog.Stack, p *peer, change ...func(*dialogtest.Request)) *peerCall {
	w.t.Helper()
	l := w.rings(b, p, change...)
	l.accepted()
	return l
}

// accepted answers the peer's call, which acknowledges that.
func (l *peerCall) accepted() {
	l.t.Helper()
	require.NoError(l.t, l.d.Accept(context.Background(), withSDP(answerSDP)))
	l.final = l.next("200 INVITE")
	l.acknowledge(1)
	synctest.Wait()
}

// acknowledge sends the peer's ACK to a 2xx.
func (l *peerCall) acknowledge(seq uint32, change ...func(*dialogtest.Request)) {
	l.t.Helper()
	r := l.made("ACK", change...)
	r.CSeq, l.seq = seq, l.seq-1
	require.NoError(l.t, l.Send(l.stack, l.Request(r)))
}

// calls has the stack call the peer, which does not answer yet.
func (w *world) calls(a *dialog.Stack, p *peer, opts dialog.InviteOpts) *peerCall {
	w.t.Helper()
	d, err := a.NewInvite(context.Background(), uri("bob", p.ip), opts)
	require.NoError(w.t, err)
	l := &peerCall{peer: p, w: w, stack: a.Addr(), d: d.(*dialog.Dialog), tag: farTag}
	l.invite = p.next("INVITE")
	req := l.invite.Request()
	l.callID, l.stackTag, l.target = req.CallID().Value(), testkit.FromTag(req), contactOf(req)
	l.stackURI, l.peerURI = req.From().Address.String(), req.To().Address.String()
	return l
}

// alerting is calls with the peer ringing.
func (w *world) alerting(a *dialog.Stack, p *peer) *peerCall {
	w.t.Helper()
	l := w.calls(a, p, offer(offerSDP))
	l.answer(dialogtest.Response{Code: 180})
	synctest.Wait()
	return l
}

// outgoing is calls with the call answered by 200 and acknowledged.
func (w *world) outgoing(a *dialog.Stack, p *peer, headers ...string) *peerCall {
	w.t.Helper()
	l := w.calls(a, p, offer(offerSDP))
	l.answer(dialogtest.Response{Code: 200, Headers: headers, Body: answerSDP})
	require.NoError(w.t, l.d.WaitAnswer(context.Background()))
	synctest.Wait()
	return l
}

// answer answers the stack's INVITE.
func (l *peerCall) answer(r dialogtest.Response) {
	l.t.Helper()
	if r.ToTag == "" {
		r.ToTag = farTag
	}
	l.reply(l.invite, r)
}

// made returns the peer's next request inside the dialog.
func (l *peerCall) made(method string, change ...func(*dialogtest.Request)) dialogtest.Request {
	l.seq++
	r := dialogtest.Request{
		Method: method, URI: l.target, From: l.peerURI, FromTag: l.tag, To: l.stackURI, ToTag: l.stackTag,
		CallID: l.callID, CSeq: l.seq,
	}
	for _, c := range change {
		c(&r)
	}
	return r
}

// ask sends the peer's next request inside the dialog and returns its text.
func (l *peerCall) ask(method string, change ...func(*dialogtest.Request)) string {
	l.t.Helper()
	text := l.Request(l.made(method, change...))
	require.NoError(l.t, l.Send(l.stack, text))
	return text
}

// hangUp has the stack send BYE, which at answers with 200.
func (l *peerCall) hangUp(at *peer) wire {
	l.t.Helper()
	result := make(chan error, 1)
	go func() { result <- l.d.Bye(context.Background(), "") }()
	at.reply(at.next("BYE"), dialogtest.Response{Code: 200})
	require.NoError(l.t, <-result)
	return l.w.one(stackIP, "BYE")
}

// hangUp has the stack end a call, whose peer agrees.
func hangUp(t *testing.T, d dialog.IDialog, p *peer) {
	t.Helper()
	require.NoError(t, d.Close())
	p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
	synctest.Wait()
}

// one returns the only message of that kind that ip has sent.
func (w *world) one(ip, what string) wire {
	w.t.Helper()
	list := w.sent(ip, what)
	require.Len(w.t, list, 1, "%s sent by %s", what, ip)
	return list[0]
}

// last returns the latest message of that kind that ip has sent.
func (w *world) last(ip, what string) wire {
	w.t.Helper()
	list := w.sent(ip, what)
	require.NotEmpty(w.t, list, "%s sent by %s", what, ip)
	return list[len(list)-1]
}

// values returns a header's lines as they stand on the wire.
func (m wire) values(name string) []string {
	head, _, _ := strings.Cut(m.raw, "\r\n\r\n")
	var list []string
	for _, line := range strings.Split(head, "\r\n")[1:] {
		if got, value, _ := strings.Cut(line, ":"); strings.EqualFold(strings.TrimSpace(got), name) {
			list = append(list, strings.TrimSpace(value))
		}
	}
	return list
}

// value returns the one line of a header.
func (m wire) value(t *testing.T, name string) string {
	t.Helper()
	list := m.values(name)
	require.Len(t, list, 1, "%s in\n%s", name, m.raw)
	return list[0]
}

// startLine returns the first line.
func (m wire) startLine() string {
	line, _, _ := strings.Cut(m.raw, "\r\n")
	return line
}

// body returns what follows the headers.
func (m wire) body() string {
	_, body, _ := strings.Cut(m.raw, "\r\n\r\n")
	return body
}

// times returns when messages were sent, counted from the first.
func times(list []wire) []time.Duration {
	var offsets []time.Duration
	for _, m := range list {
		offsets = append(offsets, m.at.Sub(list[0].at))
	}
	return offsets
}

func contactOf(msg sip.Message) string {
	return msg.GetHeaders("Contact")[0].(*sip.ContactHeader).Address.String()
}

// withHeaders returns a change that adds header lines to a request.
func withHeaders(lines ...string) func(*dialogtest.Request) {
	return func(r *dialogtest.Request) { r.Headers = append(r.Headers, lines...) }
}

// withBody returns a change that gives a request a body.
func withBody(text string) func(*dialogtest.Request) {
	return func(r *dialogtest.Request) { r.Body = text }
}

// began returns a channel with the result of f, which runs meanwhile.
func began(f func() error) <-chan error {
	result := make(chan error, 1)
	go func() { result <- f() }()
	return result
}

// bodies records the bodies a dialog reports.
func bodies(d dialog.IDialog) <-chan string {
	list := make(chan string, 100)
	d.OnBody(func(b dialog.Body) { list <- b.ContentType() + "\n" + string(b.Data()) })
	return list
}

// drained returns what is in a channel now.
func drained[T any](c <-chan T) []T {
	var list []T
	for {
		select {
		case v := <-c:
			list = append(list, v)
		default:
			return list
		}
	}
}

// withoutRetry lets a test see each refusal of a re-INVITE.
func withoutRetry(c *dialog.StackConfig) { c.NoRetry = true }
