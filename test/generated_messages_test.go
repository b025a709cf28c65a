package test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
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
	"sipdialog.example/dialog/internal/siptext"
	"sipdialog.example/dialog/internal/testkit"
)

var (
	messagesSeed  = flag.Uint64("messages.seed", 0, "seed of the messages; 0 takes one at random")
	messagesFirst = flag.Uint64("messages.first", 0, "number of the first call")
	messagesCount = flag.Int("messages.n", 4000, "how many messages at least")
)

// callsInABubble is how many calls each way one stack takes part in.
const callsInABubble = 500

// Valid messages of all kinds are taken, as requests and as responses, and what
// the RFC wants repeated comes back letter by letter: in responses (RFC 3261 8.2.6.2,
// 12.1.1), in the ACK to a refusal (17.1.1.3), and in the requests of a dialog
// (12.2.1.1). HeaderText tells all of it as it came.
func TestGeneratedMessagesComeBackAsTheyWere(t *testing.T) {
	run := &messageRun{seed: *messagesSeed, next: *messagesFirst, left: *messagesCount, began: time.Now()}
	if run.seed == 0 {
		run.seed = rand.Uint64()
	}
	t.Cleanup(func() { run.report(t) })
	for worker := range runtime.GOMAXPROCS(0) {
		t.Run(fmt.Sprint(worker), func(t *testing.T) {
			t.Parallel()
			for first, end := run.batch(); first < end && !t.Failed(); first, end = run.batch() {
				synctest.Test(t, func(t *testing.T) { run.pass(t, first, end) })
			}
		})
	}
}

// messageRun is a run of numbered calls: one of the peer's, or another request of its,
// and one of the stack's, which the peer answers. All that the peer says is generated.
type messageRun struct {
	seed  uint64
	began time.Time

	mu   sync.Mutex // guards the fields below
	next uint64     // call
	left int        // messages
	said saidToStack
}

// saidToStack counts it.
type saidToStack struct{ requests, responses, octets int }

// batch takes calls for one stack; none when there were messages enough.
func (r *messageRun) batch() (first, end uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first = r.next
	r.next += uint64(max(0, min(r.left, callsInABubble)))
	return first, r.next
}

// pass has a stack take part in the calls of these numbers.
func (r *messageRun) pass(t *testing.T, first, end uint64) {
	s := newMessageStack(t)
	defer s.close()
	for number := first; number < end; number++ {
		s.number = number
		again := fmt.Sprintf("-args -messages.seed=%d -messages.first=%d -messages.n=1", r.seed, number)
		require.NoError(t, s.request(siptext.New(r.seed, 2*number, fmt.Sprint(number))), again)
		require.NoError(t, s.response(siptext.New(r.seed, 2*number+1, fmt.Sprint(number))), again)
	}
	r.count(s.said)
}

func (r *messageRun) count(more saidToStack) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left -= more.requests + more.responses
	r.said = saidToStack{r.said.requests + more.requests, r.said.responses + more.responses, r.said.octets + more.octets}
}

func (r *messageRun) report(t *testing.T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t.Logf("seed %d: %d requests and %d responses, %d octets, in %v; calls from %d on",
		r.seed, r.said.requests, r.said.responses, r.said.octets, time.Since(r.began).Round(time.Millisecond), *messagesFirst)
}

// messageStack is a stack that takes every call, and the peer that writes to it
// and reads what it writes.
type messageStack struct {
	*dialog.Stack
	t      *testing.T
	net    *dialogtest.Network
	calls  chan dialog.IDialog
	number uint64

	said saidToStack // to it

	mu  sync.Mutex // guards the field below
	out []dialogtest.Packet
}

func newMessageStack(t *testing.T) *messageStack {
	s := &messageStack{t: t, net: dialogtest.NewNetwork(), calls: make(chan dialog.IDialog, 1)}
	s.net.Tap(s.tap)
	var err error
	s.Stack, err = dialog.NewStack(&dialog.StackConfig{
		Transport:  &dialog.TransportConfig{Protocol: "udp", Address: "10.0.0.1", Port: 5060},
		Network:    s.net.Host("10.0.0.1"),
		Resolver:   testkit.NoNames(),
		MaxDialogs: -1,
	})
	require.NoError(t, err)
	s.OnIncomingDialog(func(d dialog.IDialog) {
		if err := d.Accept(context.Background(), withSDP(answerSDP)); err != nil {
			t.Errorf("accept: %v", err)
		}
		s.calls <- d
	})
	require.NoError(t, s.Start(context.Background()))
	return s
}

func (s *messageStack) close() {
	if err := s.Shutdown(context.Background()); err != nil && !s.t.Failed() {
		s.t.Errorf("shutdown: %v", err)
	}
	s.net.Close()
	synctest.Wait()
}

func (s *messageStack) tap(p dialogtest.Packet) {
	if p.From == tester {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = append(s.out, p)
}

// ask sends a request to the stack and returns what it writes to that.
func (s *messageStack) ask(data []byte) (sent, error) {
	s.said.requests++
	return s.say(data)
}

// answer is ask for a response.
func (s *messageStack) answer(data []byte) (sent, error) {
	s.said.responses++
	return s.say(data)
}

func (s *messageStack) say(data []byte) (sent, error) {
	s.said.octets += len(data)
	s.net.Inject(tester, s.Addr(), data)
	return s.heard()
}

func (s *messageStack) heard() (sent, error) {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	var list sent
	for _, p := range s.out {
		m, rest, err := siptext.Read(p.Data)
		if err != nil || len(rest) > 0 {
			return nil, fmt.Errorf("%w, %d octets too many: %q", err, len(rest), p.Data)
		}
		list = append(list, sentMessage{m, p.To})
	}
	s.out = nil
	return list, nil
}

// sent are messages that the stack has written.
type sent []sentMessage

type sentMessage struct {
	siptext.Message
	to netip.AddrPort
}

func (list sent) statuses() []int {
	var all []int
	for _, m := range list {
		all = append(all, m.Status())
	}
	return all
}

func (list sent) starts() []string {
	var all []string
	for _, m := range list {
		all = append(all, m.Start)
	}
	return all
}

// only is the one message, a request of that method.
func (list sent) only(method string) (siptext.Message, error) {
	if len(list) != 1 || list[0].Method() != method {
		return siptext.Message{}, fmt.Errorf("not one %s: %q", method, list.starts())
	}
	return list[0].Message, nil
}

// asked sends a request and checks that it gets these answers, and what they
// repeat.
func (s *messageStack) asked(data []byte, statuses ...int) (last siptext.Message, err error) {
	request, _, err := siptext.Read(data)
	if err != nil {
		return request, fmt.Errorf("the generator: %w: %q", err, data)
	}
	answers, err := s.ask(data)
	if err != nil {
		return request, fmt.Errorf("%w, to %q", err, data)
	}
	if got := answers.statuses(); !slices.Equal(got, statuses) {
		return request, fmt.Errorf("answered %v, not %v: %q", got, statuses, data)
	}
	for _, answer := range answers {
		last = answer.Message
		if err := siptext.Repeats(request, last, tester); err != nil {
			return last, fmt.Errorf("%w: %q", err, data)
		}
		if answer.to.Addr() != tester.Addr() {
			return last, fmt.Errorf("answered to %v: %q", answer.to, data)
		}
	}
	return last, nil
}

// readsAs checks that the application is told each header field of a message as it came.
func readsAs(told sip.Message, came siptext.Message) error {
	for _, f := range came.Fields {
		var want []string
		for _, other := range came.Fields {
			if other.Name == f.Name {
				want = append(want, other.Value)
			}
		}
		if got := dialog.HeaderText(told, f.Name); !slices.EqualFunc(want, got, siptext.Same) {
			return fmt.Errorf("the application is told %s: %q of %q", f.Name, got, want)
		}
	}
	return nil
}

// request sends a request of the generator's, and ends the call that it makes.
func (s *messageStack) request(g *siptext.Generator) error {
	method := g.Method()
	known := siptext.Known{Seq: 1 + int(s.number)}
	if method == "INVITE" {
		known.ContactHost, known.RouteHosts = g.Host("10.0.0.9"), g.Hosts("10.0.0.9")
		known.SDP = []string{"", offerSDP}[s.number%2]
	}
	data := g.Request(method, known)
	switch method {
	case "INVITE":
	case "OPTIONS":
		_, err := s.asked(data, 200)
		return err
	case "REGISTER", "MESSAGE", "PUBLISH":
		_, err := s.asked(data, 405)
		return err
	default:
		_, err := s.asked(data, 501)
		return err
	}
	answer, err := s.asked(data, 100, 180, 200)
	if err != nil {
		return err
	}
	if err := s.takenCall(g, answer, known, data); err != nil {
		return fmt.Errorf("%w: in the call of %q", err, data)
	}
	return nil
}

// takenCall acknowledges and ends a call of the peer's, from either side.
func (s *messageStack) takenCall(g *siptext.Generator, answer siptext.Message, known siptext.Known, data []byte) error {
	invite, _, err := siptext.Read(data)
	if err != nil {
		return err
	}
	d := (<-s.calls).(*dialog.Dialog)
	if err := readsAs(d.Request(), invite); err != nil {
		return err
	}
	known = siptext.Known{
		URI: uriIn(answer.Value("contact")), From: answer.Value("from"), To: answer.Value("to"),
		CallID: answer.Value("call-id"), Seq: known.Seq,
	}
	ack := g.Request("ACK", known)
	if heard, err := s.ask(ack); err != nil || len(heard) > 0 {
		return fmt.Errorf("%w: %q to the ACK %q", err, heard.starts(), ack)
	}
	if s.number%4 < 2 {
		known.Seq++
		_, err := s.asked(g.Request("BYE", known), 200)
		return err
	}
	return s.hangUp(g, d, peerOf{
		target: uriIn(invite.Value("contact")), routes: urisOf(invite.List("record-route")),
		uri: uriIn(invite.Value("from")), tag: tagParam(invite.Value("from")), own: uriIn(invite.Value("to")), ownTag: tagParam(answer.Value("to")),
		callID: invite.Value("call-id"),
	})
}

// response has the stack call, and answers that by a response of the generator's.
func (s *messageStack) response(g *siptext.Generator) error {
	target := sip.Uri{Scheme: "sip", User: "bob", Host: "10.0.0.9"}
	made, err := s.NewInvite(context.Background(), target, offer(offerSDP))
	if err != nil {
		return err
	}
	d := made.(*dialog.Dialog)
	heard, err := s.heard()
	if err != nil {
		return err
	}
	invite, err := heard.only("INVITE")
	if err != nil {
		return err
	}
	own, to := invite.Value("from"), uriIn(invite.Value("to"))
	known := siptext.Known{
		FromURI: uriIn(own), FromTag: tagParam(own), ToURI: to, ToTag: g.Token(),
		CallID: invite.Value("call-id"), Seq: seqOf(invite),
	}
	status := g.Status()
	if status < 300 {
		known.SDP, known.ContactHost, known.RouteHosts = answerSDP, g.Host("10.0.0.9"), g.Hosts("10.0.0.9")
	}
	data := g.Response(status, "INVITE", invite.Value("via"), known)
	if err := s.answered(g, d, invite, data); err != nil {
		return fmt.Errorf("%w: answered by %q", err, data)
	}
	return nil
}

func (s *messageStack) answered(g *siptext.Generator, d *dialog.Dialog, invite siptext.Message, data []byte) error {
	answer, _, err := siptext.Read(data)
	if err != nil {
		return fmt.Errorf("the generator: %w", err)
	}
	heard, err := s.answer(data)
	if err != nil {
		return err
	}
	ack, err := heard.only("ACK")
	if err != nil {
		return err
	}
	err = d.WaitAnswer(context.Background())
	if err := readsAs(d.Response(), answer); err != nil {
		return err
	}
	if answer.Status() >= 300 {
		return refused(invite, answer, ack, err)
	}
	if err != nil {
		return err
	}
	p := peerOf{
		target: uriIn(answer.Value("contact")), routes: urisOf(answer.List("record-route")), uri: uriIn(answer.Value("to")), tag: tagParam(answer.Value("to")),
		own: uriIn(invite.Value("from")), ownTag: tagParam(invite.Value("from")), callID: invite.Value("call-id"),
	}
	slices.Reverse(p.routes)
	if err := p.check(ack); err != nil {
		return err
	}
	return s.hangUp(g, d, p)
}

// refused checks the ACK to a refusal (RFC 3261 17.1.1.3), and what the
// application is told.
func refused(invite, answer, ack siptext.Message, err error) error {
	var told *dialog.ResponseError
	if !errors.As(err, &told) || told.StatusCode != answer.Status() {
		return fmt.Errorf("told of %v", err)
	}
	if !siptext.Same(answer.Value("to"), ack.Value("to")) {
		return fmt.Errorf("to: %q became %q in the ACK", answer.Value("to"), ack.Value("to"))
	}
	for _, name := range []string{"via", "from", "call-id"} {
		if invite.Value(name) != ack.Value(name) {
			return fmt.Errorf("%s: %q became %q in the ACK", name, invite.Value(name), ack.Value(name))
		}
	}
	return nil
}

// peerOf is what the requests of a call have to say, by what the peer has said.
type peerOf struct {
	target, uri, tag, own, ownTag, callID string
	routes                                []string
}

func (p peerOf) check(request siptext.Message) error {
	said := peerOf{
		target: request.RequestURI(), routes: urisOf(request.List("route")), uri: uriIn(request.Value("to")), tag: tagParam(request.Value("to")),
		own: uriIn(request.Value("from")), ownTag: tagParam(request.Value("from")), callID: request.Value("call-id"),
	}
	if fmt.Sprintf("%q", said) != fmt.Sprintf("%q", p) {
		return fmt.Errorf("a request with %q, not %q", said, p)
	}
	return nil
}

// hangUp ends a call, and answers the BYE by a response of the generator's.
func (s *messageStack) hangUp(g *siptext.Generator, d dialog.IDialog, p peerOf) error {
	if err := d.Close(); err != nil {
		return err
	}
	heard, err := s.heard()
	if err != nil {
		return err
	}
	bye, err := heard.only("BYE")
	if err != nil {
		return err
	}
	if err := p.check(bye); err != nil {
		return err
	}
	data := g.Response(200, "BYE", bye.Value("via"), siptext.Known{From: bye.Value("from"), To: bye.Value("to"), CallID: bye.Value("call-id"), Seq: seqOf(bye)})
	if heard, err = s.answer(data); err != nil || len(heard) > 0 {
		return fmt.Errorf("%w: %q to the 200 to BYE %q", err, heard.starts(), data)
	}
	return nil
}

// uriIn is the URI in an address. Its scheme means the same in any case, and is sent
// in lower case (RFC 3261 19.1.4).
func uriIn(address string) string {
	uri := siptext.URI(address)
	scheme, rest, _ := strings.Cut(uri, ":")
	return strings.ToLower(scheme) + ":" + rest
}

func urisOf(values []string) []string {
	var list []string
	for _, value := range values {
		list = append(list, uriIn(value))
	}
	return list
}

func tagParam(value string) string {
	tag, _ := siptext.Param(value, "tag")
	return tag
}

func seqOf(m siptext.Message) int {
	var number int
	_, _ = fmt.Sscan(m.Value("cseq"), &number)
	return number
}
