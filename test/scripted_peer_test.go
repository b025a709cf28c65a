package test

import (
	"context"
	"fmt"
	"sync"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

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
	in[id][describe(msg)] = true
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
