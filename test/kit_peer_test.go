package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
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

// peer is a scripted peer: it says what the test says.
type peer struct {
	*dialogtest.Endpoint
	t  *testing.T
	ip string
}

// next returns the next message that is what the test expects, such as "BYE"
// or "200 INVITE", skipping others.
func (p *peer) next(what string) dialogtest.Received {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for {
		got, err := p.Recv(ctx)
		require.NoError(p.t, err, "waiting for %s", what)
		if testkit.Describe(got.Message) == what {
			return got
		}
	}
}

// quiet checks that nothing more that is such a message comes for a while.
func (p *peer) quiet(what string, wait time.Duration) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	for {
		got, err := p.Recv(ctx)
		if err != nil {
			return
		}
		require.NotEqual(p.t, what, testkit.Describe(got.Message))
	}
}

func (p *peer) reply(in dialogtest.Received, r dialogtest.Response) {
	p.t.Helper()
	require.NoError(p.t, p.Reply(in, r))
}

func request(msg sip.Message) *sip.Request { return msg.(*sip.Request) }

func response(msg sip.Message) *sip.Response { return msg.(*sip.Response) }

// nextAny returns the next message, whatever it is.
func (p *peer) nextAny() dialogtest.Received {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	got, err := p.Recv(ctx)
	require.NoError(p.t, err)
	return got
}

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

const contactOfPeer = "Contact: <sip:peer@10.0.0.9:5060>"

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
	tag := testkit.ToTag(res)
	inside := func(method string, seq uint32, headers ...string) dialogtest.Request {
		return dialogtest.Request{Method: method, URI: "sip:b@10.0.0.2", ToTag: tag, CSeq: seq, Headers: headers}
	}
	require.NoError(w.t, p.Send(b.Addr(), p.Request(inside("ACK", 10))))
	return <-taken, inside
}

// always is a code for answers.
func always(code int) func(*sip.Request) int { return func(*sip.Request) int { return code } }

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
		if testkit.Describe(res) == "200 INVITE" {
			return p.Send(got.From, p.ackTo(res))
		}
		return nil
	}
	req := got.Request()
	if status := code(req); req.Method != sip.ACK && status != 0 {
		return p.Reply(got, dialogtest.Response{Code: status, ToTag: farTag})
	}
	return nil
}

// ackTo is the ACK to a 2xx that a stack sent us.
func (p *peer) ackTo(res *sip.Response) string {
	return p.Request(dialogtest.Request{
		Method: "ACK", URI: res.Contact().Address.String(), CallID: res.CallID().Value(),
		From: res.From().Address.String(), FromTag: testkit.FromTag(res),
		To: res.To().Address.String(), ToTag: testkit.ToTag(res), CSeq: res.CSeq().SeqNo,
	})
}

// inside is a request of the peer's inside the dialog that a stack's INVITE
// has made; r says what is particular to it.
func (p *peer) inside(invite dialogtest.Received, r dialogtest.Request) string {
	req := invite.Request()
	r.URI = req.Contact().Address.String()
	r.From, r.FromTag = req.To().Address.String(), farTag
	r.To, r.ToTag = req.From().Address.String(), testkit.FromTag(req)
	r.CallID = req.CallID().Value()
	return p.Request(r)
}

// toPeer makes an established call from a stack to a scripted peer.
func (w *world) toPeer(s *dialog.Stack, p *peer) (*dialog.Dialog, dialogtest.Received) {
	w.t.Helper()
	l := w.outgoing(s, p)
	p.next("ACK")
	return l.d, l.invite
}

func (w *world) say(p *peer, s *dialog.Stack, text string) {
	w.t.Helper()
	require.NoError(w.t, p.Send(s.Addr(), text))
}

// scriptedPeer is a scripted peer that treats every call alike, and keeps for each
// what was said.
type scriptedPeer struct {
	// Set at construction.

	*peer
	ended chan struct{}

	mu sync.Mutex // guards the fields below
	// mute: nothing is answered any more.
	mute    bool
	invite  []dialogtest.Response // the answers to an INVITE that begins a call
	again   []dialogtest.Response // those to one inside a call
	refer   []dialogtest.Response
	noAck   bool // the 2xx to a call of the peer's own gets no ACK
	invites map[string]dialogtest.Received
	heard   map[string]map[string]bool // by Call-ID: what the stack has said
	said    map[string]map[string]bool // and the peer
}

func (w *world) scriptedPeer(ip string) *scriptedPeer {
	f := &scriptedPeer{
		peer: w.peer(ip), ended: make(chan struct{}),
		invites: make(map[string]dialogtest.Received), heard: make(map[string]map[string]bool), said: make(map[string]map[string]bool),
	}
	go f.run()
	return f
}

func (f *scriptedPeer) run() {
	defer close(f.ended)
	for {
		in, err := f.Recv(context.Background())
		if err != nil {
			return
		}
		f.note(f.heard, in.Message)
		f.mu.Lock()
		mute := f.mute
		f.mu.Unlock()
		switch {
		case mute:
		case in.Request() != nil:
			f.answer(in, in.Request())
		default:
			f.acknowledge(in, in.Response())
		}
	}
}

// close ends the peer.
func (f *scriptedPeer) close() {
	_ = f.Close()
	<-f.ended
}

func (f *scriptedPeer) silence() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mute = true
}

func (f *scriptedPeer) note(in map[string]map[string]bool, msg sip.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := msg.CallID().Value()
	if in[id] == nil {
		in[id] = make(map[string]bool)
	}
	in[id][testkit.Describe(msg)] = true
}

func (f *scriptedPeer) say(in dialogtest.Received, answers ...dialogtest.Response) {
	for _, r := range answers {
		_ = f.Reply(in, r)
		f.mu.Lock()
		id := in.Message.CallID().Value()
		if f.said[id] == nil {
			f.said[id] = make(map[string]bool)
		}
		f.said[id][fmt.Sprint(r.Code, " ", in.Request().Method)] = true
		f.mu.Unlock()
	}
}

func (f *scriptedPeer) answer(in dialogtest.Received, req *sip.Request) {
	branch := testkit.BranchOf(req)
	switch req.Method {
	case sip.INVITE:
		f.mu.Lock()
		f.invites[branch] = in
		answers := f.invite
		if testkit.ToTag(req) != "" {
			answers = f.again
		}
		f.mu.Unlock()
		f.say(in, answers...)
	case sip.ACK:
	case sip.REFER:
		f.say(in, f.refer...)
	case sip.CANCEL:
		f.say(in, dialogtest.Response{Code: 200, ToTag: "far"})
		f.mu.Lock()
		invite := f.invites[branch]
		f.mu.Unlock()
		f.say(invite, dialogtest.Response{Code: 487, ToTag: "far"})
	default:
		f.say(in, dialogtest.Response{Code: 200})
	}
}

// acknowledge sends the ACK to a final answer of the stack's.
func (f *scriptedPeer) acknowledge(in dialogtest.Received, res *sip.Response) {
	if res.CSeq().MethodName != sip.INVITE || res.StatusCode < 200 || f.noAck && res.IsSuccess() {
		return
	}
	ack := dialogtest.Request{
		Method: "ACK", URI: "sip:stack@" + in.From.String(), CallID: res.CallID().Value(), CSeq: res.CSeq().SeqNo,
		FromTag: testkit.FromTag(res), ToTag: testkit.ToTag(res),
	}
	if !res.IsSuccess() {
		ack.Branch = testkit.BranchOf(res)
	}
	_ = f.Send(in.From, f.Request(ack))
}

// calls places n calls to a stack.
func (f *scriptedPeer) calls(s *dialog.Stack, n int) {
	for i := range n {
		require.NoError(f.t, f.Send(s.Addr(), f.Request(dialogtest.Request{
			Method: "INVITE", URI: "sip:stack@" + s.Addr().String(), CallID: fmt.Sprintf("far-%d", i), FromTag: fmt.Sprintf("far-%d", i), Body: offerSDP,
		})))
	}
}

// halfOpen returns a call that one side has been left in, as the peer sees it,
// or "".
func (f *scriptedPeer) halfOpen() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, heard := range f.heard {
		said := f.said[id]
		switch {
		case said["200 INVITE"] && !(heard["ACK"] && (heard["BYE"] || said["BYE"])):
			return fmt.Sprintf("%s: answered, heard %v", id, heard)
		case heard["200 INVITE"] && !heard["BYE"]:
			return fmt.Sprintf("%s: answered by the stack, heard %v", id, heard)
		case (said["100 INVITE"] || said["180 INVITE"]) && !said["200 INVITE"] && !(heard["CANCEL"] && said["487 INVITE"]):
			return fmt.Sprintf("%s: ringing, heard %v, said %v", id, heard, said)
		case heard["180 INVITE"] && !heard["200 INVITE"] && !heard["503 INVITE"]:
			return fmt.Sprintf("%s: ringing at the stack, heard %v", id, heard)
		}
	}
	return ""
}
