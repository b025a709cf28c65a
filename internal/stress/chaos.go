package stress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// chaos is a scripted peer that says what it likes: it answers or not, late,
// twice, out of order and wrong, calls the stacks, and leaves them alone.
type chaos struct {
	// Set at construction.

	*dialogtest.Endpoint
	round *round
	dice  *dice
	ctx   context.Context
	leave context.CancelFunc

	work sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	invites map[string]dialogtest.Received
	seqs    map[string]uint32
	calls   int
	named   []namedCall
}

func (r *round) newChaos() *chaos {
	e, err := dialogtest.NewEndpoint(r.net.Host(chaosIP), chaosIP+":5060")
	require.NoError(r.t, err)
	ctx, leave := context.WithCancel(context.Background())
	return &chaos{
		Endpoint: e, round: r, dice: r.dice.child(), ctx: ctx, leave: leave,
		invites: make(map[string]dialogtest.Received), seqs: make(map[string]uint32),
	}
}

func (c *chaos) start() {
	c.goes(func() {
		for {
			in, err := c.Recv(c.ctx)
			switch {
			case errors.Is(err, net.ErrClosed) || c.ctx.Err() != nil:
				return
			case in.From == ghost: // who damages what he repeats
			case err != nil:
				c.round.errorf("", "a stack sent what does not parse: %v\n%s", err, in.Data)
			default:
				c.goes(func() { c.hear(in) })
			}
		}
	})
	for range 4 {
		c.goes(func() {
			for range 18 {
				c.pause(5 * time.Second)
				c.placeCall()
			}
		})
	}
}

// stop leaves without a word; what it has begun is never ended.
func (c *chaos) stop() {
	c.leave()
	_ = c.Close()
	c.work.Wait()
}

func (c *chaos) goes(f func()) {
	c.work.Add(1)
	go func() { defer c.work.Done(); f() }()
}

// pause waits up to limit, or until it is time to leave.
func (c *chaos) pause(limit time.Duration) {
	select {
	case <-time.After(c.dice.upTo(limit)):
	case <-c.ctx.Done():
	}
}

func (c *chaos) say(to netip.AddrPort, text string) { _ = c.Send(to, text) }

func (c *chaos) answer(in dialogtest.Received, r dialogtest.Response) { _ = c.Reply(in, r) }

func (c *chaos) hear(in dialogtest.Received) {
	if c.ctx.Err() != nil {
		return
	}
	if req := in.Request(); req != nil {
		c.asked(in, req)
		return
	}
	c.answered(in, in.Response())
}

// script is one way to continue; its name is counted.
type script struct {
	name string
	play func()
}

func (c *chaos) play(prefix string, scripts []script) {
	s := pick(c.dice, scripts)
	c.round.cover.hit("script: " + prefix + s.name)
	s.play()
}

// asked answers a request, or does not.
func (c *chaos) asked(in dialogtest.Received, req *sip.Request) {
	code := func(code int) script {
		return script{fmt.Sprint(code), func() { c.answer(in, dialogtest.Response{Code: code}) }}
	}
	silence := script{"silence", func() {}}
	hesitation := script{"100 only", func() { c.answer(in, dialogtest.Response{Code: 100}) }}
	switch req.Method {
	case sip.INVITE:
		c.mu.Lock()
		c.invites[testkit.BranchOf(req)] = in
		c.mu.Unlock()
		if testkit.ToTag(req) == "" {
			c.play("INVITE ", c.initialScripts(in))
		} else {
			c.play("re-INVITE ", c.reinviteScripts(in))
		}
	case sip.ACK:
		c.sometimes(in, req)
	case sip.CANCEL:
		c.play("CANCEL ", []script{
			silence, code(481), {"200 487", func() { c.cancelled(in, req, 487) }}, {"200 487", func() { c.cancelled(in, req, 487) }},
			{"200 200", func() { c.cancelled(in, req, 200) }},
		})
	case sip.BYE:
		c.play("BYE ", []script{code(200), code(200), code(200), code(481), code(500), code(302), silence, hesitation})
	case sip.REFER:
		c.play("REFER ", c.referScripts(in, req))
	case sip.NOTIFY:
		c.play("NOTIFY ", []script{code(200), code(200), code(481), code(489), code(500), silence})
	case sip.UPDATE:
		c.play("UPDATE ", c.refreshScripts(in))
	case sip.PRACK:
		answered := func() { c.answer(in, dialogtest.Response{Code: 200, Body: testkit.AnswerSDP}) }
		if len(req.Body()) > 0 && c.dice.chance(70) {
			c.play("PRACK ", []script{{"answered", answered}})
			return
		}
		c.play("PRACK ", []script{code(200), code(200), code(200), code(200), code(481), code(500), silence})
	default:
		code(200).play()
	}
}

// initialScripts are the ways to take a call.
func (c *chaos) initialScripts(in dialogtest.Received) []script {
	tag := fmt.Sprintf("c%d", c.dice.intn(1<<30))
	c.remember(in, tag, testkit.FromTag(in.Message))
	ok := dialogtest.Response{Code: 200, ToTag: tag, Body: testkit.AnswerSDP}
	ring := dialogtest.Response{Code: 180, ToTag: tag}
	say := func(wait time.Duration, list ...dialogtest.Response) {
		for _, r := range list {
			c.answer(in, r)
			c.pause(wait)
		}
	}
	refusal := pick(c.dice, []int{302, 404, 481, 486, 500, 503, 603})
	answers := func() {
		say(2*time.Second, dialogtest.Response{Code: 100}, ring, ok)
		say(2*time.Second, ok, ok)
	}
	return append(append(c.forkScripts(in, tag), c.timedScripts(in, tag)...), []script{
		{"answered", answers},
		{"answered", answers},
		{"answered at once", func() { say(0, ok) }},
		{"answered in the wrong order", func() { say(0, ok, ring, dialogtest.Response{Code: 100}, ok) }},
		{"answered by forks", func() {
			other := ok
			other.ToTag = tag + "-b"
			say(time.Second, ring, dialogtest.Response{Code: 183, ToTag: other.ToTag, Body: testkit.AnswerSDP}, ok, other, other, ok)
			c.pause(20 * time.Second)
			say(0, other)
		}},
		{"early media", func() {
			say(time.Second, dialogtest.Response{Code: 183, ToTag: tag, Body: testkit.AnswerSDP}, dialogtest.Response{Code: 183, Body: testkit.AnswerSDP}, ok)
		}},
		{"refused", func() { say(time.Second, ring, dialogtest.Response{Code: refusal, ToTag: tag}) }},
		{"refused twice", func() {
			say(time.Second, dialogtest.Response{Code: refusal, ToTag: tag}, dialogtest.Response{Code: refusal, ToTag: tag})
		}},
		{"redirected", func() {
			to := fmt.Sprintf("Contact: <sip:%s@%s>, <sip:elsewhere@%s>;q=0.5", tag, chaosIP, pick(c.dice, []string{udpOne, udpTwo, nobodyIP}))
			say(time.Second, ring, dialogtest.Response{Code: 302, ToTag: tag, Headers: []string{to}})
		}},
		{"silence", func() {}},
		{"100 only", func() { say(0, dialogtest.Response{Code: 100}) }},
		{"rings for ever", func() { say(0, ring) }},
		{"BYE while ringing", func() {
			say(time.Second, ring)
			c.demand("BYE", in, tag)
		}},
		{"nonsense", func() {
			text := c.Response(in.Request(), ok)
			c.say(in.From, strings.Replace(text, "Call-ID:", "X-Call-ID:", 1))
			c.say(in.From, strings.Replace(text, "Via:", "Via: SIP/2.0/UDP 10.9.9.9;branch=z9hG4bKother\nVia:", 1))
			c.say(in.From, strings.Replace(text, "SIP/2.0 200", "SIP/2.0 2000", 1))
			c.say(in.From, text[:len(text)/2])
			say(time.Second, dialogtest.Response{Code: 486, ToTag: tag})
		}},
	}...)
}

func (c *chaos) reinviteScripts(in dialogtest.Received) []script {
	ok := dialogtest.Response{Code: 200, Body: testkit.AnswerSDP}
	say := func(list ...dialogtest.Response) func() {
		return func() {
			for _, r := range list {
				c.answer(in, r)
			}
		}
	}
	reliably := func(last int) func() {
		return func() {
			c.answer(in, dialogtest.Response{Code: 183, Headers: []string{"Require: 100rel", "RSeq: 5"}, Body: testkit.AnswerSDP})
			c.pause(2 * time.Second)
			c.answer(in, dialogtest.Response{Code: last})
		}
	}
	return []script{
		{"reliably", reliably(200)}, {"reliably, then refused", reliably(403)},
		{"200", say(ok)}, {"200", say(ok, ok)}, {"200 without a body", say(dialogtest.Response{Code: 200})},
		{"491", say(dialogtest.Response{Code: 491})}, {"488", say(dialogtest.Response{Code: 488})},
		{"481", say(dialogtest.Response{Code: 481})}, {"silence", say()},
		{"100 only", say(dialogtest.Response{Code: 100})}, {"rings for ever", say(dialogtest.Response{Code: 180})},
	}
}

func (c *chaos) referScripts(in dialogtest.Received, req *sip.Request) []script {
	mine := testkit.ToTag(req)
	if mine == "" {
		c.round.cover.hit("script: REFER outside calls")
		mine = "outside"
	}
	accepted := dialogtest.Response{Code: 202, ToTag: mine}
	notify := func(state string) {
		body := "SIP/2.0 200 OK\n"
		c.request("NOTIFY", in, mine, testkit.FromTag(req), body,
			fmt.Sprintf("Event: refer;id=%d", req.CSeq().SeqNo), "Subscription-State: "+state, "Content-Type: message/sipfrag")
	}
	return []script{
		{"202 and NOTIFY", func() {
			c.answer(in, accepted)
			notify("active;expires=60")
			c.pause(3 * time.Second)
			notify("terminated;reason=noresource")
		}},
		{"NOTIFY before 202", func() { notify("active;expires=60"); c.pause(time.Second); c.answer(in, accepted) }},
		{"202 and NOTIFYs of all kinds", func() {
			c.answer(in, accepted)
			c.notifies(in, req, mine)
		}},
		{"202 alone", func() { c.answer(in, accepted) }},
		{"202 without subscription", func() { c.answer(in, dialogtest.Response{Code: 202, Headers: []string{"Refer-Sub: false"}}) }},
		{"603", func() { c.answer(in, dialogtest.Response{Code: 603}) }},
		{"silence", func() {}},
	}
}

// notifies reports on a REFER in wrong ways.
func (c *chaos) notifies(in dialogtest.Received, req *sip.Request, mine string) {
	event := fmt.Sprintf("Event: refer;id=%d", req.CSeq().SeqNo)
	for _, wrong := range []string{"Content-Type: text/plain", "X-Type: none"} {
		c.request("NOTIFY", in, mine, testkit.FromTag(req), "nonsense\n", event, "Subscription-State: active", wrong)
	}
	c.request("NOTIFY", in, mine, testkit.FromTag(req), "", event)
	for range 1 + c.dice.intn(5) {
		c.pause(5 * time.Second)
		headers := []string{
			pick(c.dice, []string{event, event, "Event: refer", "Event: refer;id=77", "X-Event: none"}),
			pick(c.dice, []string{
				"Subscription-State: active;expires=60", "Subscription-State: pending", "X-State: none",
				"Subscription-State: terminated", "Subscription-State: terminated;reason=rejected;retry-after=5",
			}),
			pick(c.dice, []string{"Content-Type: message/sipfrag", "Content-Type: text/plain", "X-Type: none"}),
		}
		body := pick(c.dice, []string{"", "SIP/2.0 180 Ringing\n", "SIP/2.0 200 OK\n", "SIP/2.0 486 Busy Here\n", "nonsense\n"})
		c.request("NOTIFY", in, mine, testkit.FromTag(req), body, headers...)
	}
}

// cancelled answers a CANCEL and the INVITE it is for.
func (c *chaos) cancelled(in dialogtest.Received, req *sip.Request, code int) {
	c.answer(in, dialogtest.Response{Code: 200, ToTag: "cancelled"})
	c.mu.Lock()
	invite, ok := c.invites[testkit.BranchOf(req)]
	c.mu.Unlock()
	if ok {
		c.answer(invite, dialogtest.Response{Code: code, ToTag: "cancelled"})
	}
}

// sometimes does something inside a call that a stack has just acknowledged.
func (c *chaos) sometimes(in dialogtest.Received, ack *sip.Request) {
	tag := testkit.ToTag(ack)
	if tag == "" || tag == "cancelled" || c.dice.chance(30) {
		return
	}
	c.inside(in, tag)
}

// answered continues after a response to its own request.
func (c *chaos) answered(in dialogtest.Received, res *sip.Response) {
	switch {
	case res.CSeq().MethodName != sip.INVITE:
		return
	case res.StatusCode < 200:
		c.early(in, res)
		return
	}
	ack := func(seq uint32) {
		c.say(in.From, c.Request(dialogtest.Request{
			Method: "ACK", URI: "sip:stress@" + in.From.String(), CallID: res.CallID().Value(), CSeq: seq,
			FromTag: testkit.FromTag(res), ToTag: testkit.ToTag(res), Branch: "",
		}))
	}
	seq := res.CSeq().SeqNo
	if res.StatusCode < 300 {
		c.remember(in, testkit.FromTag(res), testkit.ToTag(res))
	}
	if res.StatusCode >= 300 {
		if c.dice.chance(80) {
			c.say(in.From, c.Request(dialogtest.Request{
				Method: "ACK", URI: "sip:stress@" + in.From.String(), CallID: res.CallID().Value(), CSeq: seq,
				FromTag: testkit.FromTag(res), ToTag: testkit.ToTag(res), Branch: testkit.BranchOf(res),
			}))
		}
		return
	}
	c.play("2xx ", []script{
		{"acknowledged", func() { ack(seq) }},
		{"acknowledged", func() { ack(seq) }},
		{"acknowledged late", func() { c.pause(5 * time.Second); ack(seq) }},
		{"acknowledged twice", func() { ack(seq); ack(seq) }},
		{"acknowledged wrongly", func() { ack(seq + 7) }},
		{"not acknowledged", func() { c.pause(time.Minute) }},
	})
	if c.dice.chance(40) {
		c.inside(in, testkit.FromTag(res))
	}
}

// placeCall places a call, correctly or not.
func (c *chaos) placeCall() {
	c.mu.Lock()
	c.calls++
	id := fmt.Sprintf("chaos-%d", c.calls)
	c.mu.Unlock()
	to := netip.MustParseAddrPort(pick(c.dice, []string{udpOne, udpTwo, lostIP, bridgeUDP, bridgeUDP}) + ":5060")
	invite := dialogtest.Request{
		Method: "INVITE", URI: "sip:stress@" + to.String(), CallID: id, FromTag: "c-" + id, CSeq: 1,
		Branch: "z9hG4bK-" + id, Body: testkit.OfferSDP,
	}
	if c.dice.chance(60) {
		invite.Headers = []string{"Supported: 100rel"}
	}
	send := func() { c.say(to, c.Request(invite)) }
	give := func(headers ...string) func() {
		return func() { invite.Headers = headers; send() }
	}
	cancel := func() {
		other := invite
		other.Method, other.Body = "CANCEL", ""
		c.say(to, c.Request(other))
	}
	c.play("calls ", append(append(c.takeoverScripts(to, give), c.timedCalls(give)...), []script{
		{"with an offer", send}, {"with an offer", send}, {"with an offer", send}, {"with an offer", send}, {"with an offer", send},
		{"without an offer", func() { invite.Body = ""; send() }},
		{"twice", func() { send(); c.pause(time.Second); send() }},
		{"by two paths", func() { send(); invite.Branch += "-2"; send() }},
		{"and cancels", func() { send(); c.pause(3 * time.Second); cancel() }},
		{"and cancels first", func() { cancel(); send() }},
		{"and hangs up while ringing", func() {
			send()
			c.pause(time.Second)
			c.say(to, c.Request(dialogtest.Request{Method: "BYE", URI: invite.URI, CallID: id, FromTag: invite.FromTag, CSeq: 2}))
		}},
		{"with Require", give("Require: foo")},
		{"that demand 100rel", give("Require: 100rel")}, {"that know 100rel", give("Supported: 100rel")},
		{"that know 100rel, without an offer", func() { invite.Body = ""; give("Supported: 100rel")() }},
		{"with two Contacts", give("Contact: <sip:a@" + chaosIP + ">, <sip:b@" + chaosIP + ">")},
		{"through a proxy", give("Record-Route: <sip:" + chaosIP + ";lr>")},
	}...))
}

// inside does some things inside a call.
func (c *chaos) inside(in dialogtest.Received, tag string) {
	refer := func(headers ...string) func() {
		return func() { c.demand("REFER", in, tag, headers...) }
	}
	method := func(name string, headers ...string) script {
		return script{name, func() { c.demand(name, in, tag, headers...) }}
	}
	for range c.dice.intn(5) {
		c.pause(10 * time.Second)
		c.play("asks ", []script{
			method("BYE"), method("INFO"), method("OPTIONS"), method("MESSAGE"), method("UPDATE"), method("PRACK"),
			method("FOO"), method("SUBSCRIBE"),
			{"UPDATE with a timer", func() { c.demand("UPDATE", in, tag, timerHeaders("uas")...) }},
			{"UPDATE with a timer", func() { c.demand("UPDATE", in, tag, timerHeaders("uas")...) }},
			{"INFO with a key", func() {
				mine, theirs := tags(in.Message, tag)
				c.request("INFO", in, mine, theirs, pick(c.dice, []string{"5", "?"}), "Content-Type: application/dtmf")
			}},
			{"INFO with our package", func() { c.demand("INFO", in, tag, "Info-Package: stress") }},
			{"INFO with Replaces", func() { c.demand("INFO", in, tag, "Replaces: "+c.naming(in.From)) }},
			{"INFO with a package", func() { c.demand("INFO", in, tag, "Info-Package: foo") }},
			{"re-INVITE", func() { c.demand("INVITE", in, tag, "Content-Type: application/sdp") }},
			{"re-INVITE", func() { c.demand("INVITE", in, tag, "Content-Type: application/sdp") }},
			{"two re-INVITEs", func() { c.demand("INVITE", in, tag); c.demand("INVITE", in, tag) }},
			{"re-INVITE without an offer", func() { c.demand("INVITE", in, tag) }},
			{"REFER", refer("Refer-To: <sip:carol@" + udpTwo + ">")},
			{"REFER", refer("Refer-To: <sip:carol@" + udpTwo + "?Replaces=x%3Bto-tag%3Da%3Bfrom-tag%3Db>")},
			{"REFER without subscription", refer("Refer-To: <sip:carol@"+udpTwo+">", "Refer-Sub: false")},
			{"REFER to two", refer("Refer-To: <sip:carol@"+udpTwo+">", "Refer-To: <sip:dave@"+udpTwo+">")},
			{"REFER to nobody", refer()},
			{"REFER to the chaos", refer("Refer-To: <sip:carol@" + chaosIP + ":5060>")},
			{"SUBSCRIBE to a REFER", func() {
				refer("Refer-To: <sip:carol@" + udpTwo + ">")()
				c.pause(time.Second)
				for _, expires := range []string{"30", pick(c.dice, []string{"0", "x"})} {
					c.demand("SUBSCRIBE", in, tag, "Event: refer", "Expires: "+expires)
				}
			}},
			{"NOTIFY of nothing", func() {
				c.demand("NOTIFY", in, tag, "Event: refer;id=999", "Subscription-State: active")
			}},
			{"NOTIFY of an unknown event", func() {
				c.demand("NOTIFY", in, tag, "Event: presence", "Subscription-State: active")
			}},
			{"something late", func() { c.late(in, tag) }},
		})
	}
}

// demand sends a request inside the call that the message in belongs to, the
// peer's tag there being tag.
func (c *chaos) demand(method string, in dialogtest.Received, tag string, headers ...string) {
	body := ""
	if method == "INVITE" && len(headers) > 0 {
		body = testkit.OfferSDP
	}
	mine, theirs := tags(in.Message, tag)
	c.request(method, in, mine, theirs, body, headers...)
}

// tags returns a call's tags: ours, and the stack's.
func tags(msg sip.Message, mine string) (string, string) {
	if testkit.FromTag(msg) == mine {
		return mine, testkit.ToTag(msg)
	}
	return mine, testkit.FromTag(msg)
}

func (c *chaos) request(method string, in dialogtest.Received, mine, theirs, body string, headers ...string) {
	id := in.Message.CallID().Value()
	c.mu.Lock()
	c.seqs[id+mine]++
	seq := 10 + c.seqs[id+mine]
	c.mu.Unlock()
	c.say(in.From, c.Request(dialogtest.Request{
		Method: method, URI: "sip:stress@" + in.From.String(), CallID: id, FromTag: mine, ToTag: theirs, CSeq: seq,
		Headers: headers, Body: body,
	}))
}

// late sends a request whose CSeq is long over.
func (c *chaos) late(in dialogtest.Received, tag string) {
	mine, theirs := tags(in.Message, tag)
	c.say(in.From, c.Request(dialogtest.Request{
		Method: "INFO", URI: "sip:stress@" + in.From.String(), CallID: in.Message.CallID().Value(), FromTag: mine, ToTag: theirs, CSeq: 1,
	}))
}
