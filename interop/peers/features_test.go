//go:build interop && linux

package peers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

// peer is a kind of phone.
type peer struct {
	name string
	// make starts one, which is called and calls by the transport.
	make func(s *scene, host int, transport string) phone
	// stack changes the configuration of our stacks; nil changes nothing.
	stack func(*dialog.StackConfig)
	// ready is called with each of our stacks; it may be nil.
	ready func(*station)
	// oneStack is true if a phone reaches only one stack of ours: further users are there.
	oneStack bool
	// lingers is true for a phone that does not hang up the call that it has transferred.
	lingers bool
	// remarks say of a feature what it needs.
	remarks map[string]string
}

// feature is something that is tried with each kind of phone.
type feature struct {
	name string
	// always is true for what is tried over each transport.
	always bool
	run    func(*trial)
}

// trial is a feature that is being tried.
type trial struct {
	*scene
	peer
	over string
	// us is our stack.
	us *station
	// result goes into the table.
	result string
}

// tries tries features over transports, each in a scene of its own.
func (p peer) tries(t *testing.T, transports []string, list []feature) {
	for _, over := range transports {
		for _, f := range list {
			t.Run(over+"/"+strings.ReplaceAll(f.name, " ", "-"), func(t *testing.T) {
				t.Parallel()
				c := &trial{scene: newScene(t), peer: p, over: over, result: works}
				c.us = c.ours(aliceHost, "alice")
				f.run(c)
				if remark := p.remarks[f.name]; remark != "" {
					c.result += ", " + remark
				}
				results.add(row{peer: p.name, feature: f.name, over: over, result: c.result, order: f.order()})
			})
		}
	}
}

// order is the place of a feature among all.
func (f feature) order() int {
	return slices.IndexFunc(features, func(o feature) bool { return o.name == f.name })
}

// ours starts a stack of ours.
func (c *trial) ours(host int, name string, change ...func(*dialog.StackConfig)) *station {
	if c.oneStack && c.us != nil {
		return c.us.another(name)
	}
	if c.stack != nil {
		change = append([]func(*dialog.StackConfig){c.stack}, change...)
	}
	st := c.station(host, name, c.over, append(change, c.secure)...)
	if c.ready != nil {
		c.ready(st)
	}
	return st
}

// phone starts a phone of the peer's kind.
func (c *trial) phone() phone { return c.make(c.scene, peerHost, c.over) }

// otherwise says what the peer does instead.
func (c *trial) otherwise(format string, args ...any) { c.result = fmt.Sprintf(format, args...) }

// faulty notes a fault of the peer, and the message that shows it.
func (c *trial) faulty(text string, data []byte, headers ...string) {
	results.shows(fault{c.name, text, excerpt(data, headers...)})
}

var features = []feature{
	{"it calls, we hang up", true, callsAndWeHangUp},
	{"it calls, it hangs up", true, callsAndItHangsUp},
	{"we call, we hang up", true, calledAndWeHangUp},
	{"we call, it hangs up", true, calledAndItHangsUp},
	{"it cancels", true, itCancels},
	{"we cancel", true, weCancel},
	{"it refuses", false, itRefuses},
	{"we refuse", false, weRefuse},
	{"it holds and resumes", true, itHolds},
	{"we hold and resume", true, weHold},
	{"our INVITE has no offer", false, noOffer},
	{"our re-INVITE has no offer", true, reInviteWithoutOffer},
	{"UPDATE from us", false, update},
	{"100rel: its provisional responses", false, itsReliable},
	{"100rel: ours", false, ourReliable},
	{"session timer: we refresh", false, weRefresh},
	{"session timer: it refreshes", false, itRefreshes},
	{"INFO from us: a key", false, infoFromUs},
	{"INFO from it: a key", false, infoFromIt},
	{"MESSAGE from us, without a call", false, messageFromUs},
	{"MESSAGE from it, without a call", false, messageFromIt},
	{"blind transfer: it is transferred", true, itIsTransferred},
	{"blind transfer: it transfers us", true, itTransfers},
	{"attended transfer: it is transferred", false, itReplaces},
	{"attended transfer: it transfers us", false, itConsults},
	{"attended transfer: it is the target", false, itIsReplaced},
}

// everywhere has the features that are tried over each transport.
func everywhere() []feature {
	return slices.DeleteFunc(slices.Clone(features), func(f feature) bool { return !f.always })
}

func callsAndWeHangUp(c *trial) {
	d := c.us.called(c.phone())
	c.try("hanging up", d.Hangup)
	c.got("200 BYE")
}

func callsAndItHangsUp(c *trial) {
	p := c.phone()
	d := c.us.called(p)
	p.hangup()
	ended(c.t, d, dialog.PartyRemote)
}

func calledAndWeHangUp(c *trial) {
	d := c.us.calling(c.phone())
	c.try("hanging up", d.Hangup)
	c.got("200 BYE")
}

func calledAndItHangsUp(c *trial) {
	p := c.phone()
	d := c.us.calling(p)
	p.hangup()
	ended(c.t, d, dialog.PartyRemote)
}

func itCancels(c *trial) {
	p := c.phone()
	p.dial(c.us)
	d := c.us.rung()
	c.sent("180 INVITE")
	p.hangup()
	ended(c.t, d, dialog.PartyRemote)
	require.Equal(c.t, "CANCEL", d.Cause().Method)
	c.got("ACK")
}

func weCancel(c *trial) {
	p := c.phone()
	d := c.us.invites(p, dialog.InviteOpts{Body: sessionFor(p, c.us)})
	p.rings()
	c.got("180 INVITE")
	c.try("hanging up", d.Hangup)
	c.got("200 CANCEL")
	c.got("487 INVITE")
}

func itRefuses(c *trial) {
	p := c.phone()
	d := c.us.invites(p, dialog.InviteOpts{Body: sessionFor(p, c.us)})
	p.rings()
	p.refuse()
	ended(c.t, d, dialog.PartyRemote)
	c.otherwise("%s, with %d", works, d.Cause().Status)
}

func weRefuse(c *trial) {
	p := c.phone()
	p.dial(c.us)
	d := c.us.rung()
	c.try("refusing", func(ctx context.Context) error { return d.Reject(ctx, 486, "") })
	c.got("ACK")
}

func itHolds(c *trial) {
	p := c.phone()
	d := c.us.called(p)
	p.hold()
	held := func(msg sip.Message) bool { return body("a=sendonly")(msg) || body("a=inactive")(msg) }
	msg, _ := c.got("INVITE", held)
	if body("a=inactive")(msg) {
		c.otherwise("%s, with a=inactive", works)
	}
	seq := msg.CSeq().SeqNo
	c.sent("200 INVITE", func(res sip.Message) bool { return res.CSeq().SeqNo == seq })
	c.got("ACK", func(ack sip.Message) bool { return ack.CSeq().SeqNo == seq })
	p.resume()
	later := func(msg sip.Message) bool { return msg.CSeq().SeqNo > seq && !held(msg) }
	c.got("INVITE", later)
	c.got("ACK", later)
	c.try("hanging up", d.Hangup)
}

func weHold(c *trial) {
	d := c.us.calling(c.phone())
	c.try("holding", d.Hold)
	if _, data := c.has("200 INVITE", body("a=recvonly")); data == nil {
		_, data = c.got("200 INVITE", func(res sip.Message) bool { return res.CSeq().SeqNo > 1 })
		c.otherwise("%s, but its answer is %s", works, direction(data))
	}
	c.try("resuming", d.Resume)
	c.try("hanging up", d.Hangup)
}

// direction returns the direction of the media in a message.
func direction(data []byte) string {
	for _, name := range []string{"sendonly", "recvonly", "inactive", "sendrecv"} {
		if strings.Contains(string(data), "a="+name+"\r") {
			return "a=" + name
		}
	}
	return "without a direction"
}

func noOffer(c *trial) {
	p := c.phone()
	d := c.us.invites(p, dialog.InviteOpts{})
	if c.ready == nil { // else the stack answers
		d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return c.us.session(), nil })
	}
	p.rings()
	p.answer()
	c.try("being answered", d.WaitAnswer)
	c.sent("ACK", body("m=audio"))
	c.try("hanging up", d.Hangup)
}

func reInviteWithoutOffer(c *trial) {
	p := c.phone()
	d := c.us.calling(p)
	c.try("asking for an offer", func(ctx context.Context) error { return d.ReInvite(ctx, dialog.InviteOpts{}) })
	c.got("200 INVITE", body("m=audio"), func(res sip.Message) bool { return res.CSeq().SeqNo > 1 })
	c.sent("ACK", body("m=audio"))
	c.try("hanging up", d.Hangup)
}

func update(c *trial) {
	p := c.phone()
	d := c.us.calling(p)
	res, data := c.got("200 INVITE")
	err := updates(d)
	var refused *dialog.ResponseError
	switch {
	case errors.As(err, &refused) && !lists(res, "Allow", "UPDATE"):
		c.otherwise("no: UPDATE is not in its Allow, and gets %d", refused.StatusCode)
	case errors.As(err, &refused):
		c.otherwise("no: it gets %d", refused.StatusCode)
		c.faulty(fmt.Sprintf("UPDATE is in Allow, and gets %d.", refused.StatusCode), data, "Allow")
	default:
		require.NoError(c.t, err)
	}
	c.try("hanging up", d.Hangup)
	c.got("200 BYE")
}

func updates(d *dialog.Dialog) error {
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	_, err := d.Update(ctx, nil)
	return err
}

func itsReliable(c *trial) {
	p := c.phone()
	d := c.us.invites(p, dialog.InviteOpts{Body: sessionFor(p, c.us), Require: nil})
	p.rings()
	res, _ := c.got("180 INVITE")
	p.answer()
	c.try("being answered", d.WaitAnswer)
	if lists(res, "Require", "100rel") {
		c.sent("PRACK")
		c.got("200 PRACK")
	} else {
		c.otherwise("no: its 180 is not reliable")
	}
	c.try("hanging up", d.Hangup)
}

func ourReliable(c *trial) {
	p := c.phone()
	p.dial(c.us)
	d := c.us.rung()
	req := d.Request()
	early := []dialog.ResponseOpt{dialog.WithReliable(), dialog.WithBody(answerFor(p, c.us, d))}
	c.try("ringing", func(ctx context.Context) error { return d.Provisional(ctx, 183, "", early...) })
	if lists(req, "Supported", "100rel") || lists(req, "Require", "100rel") {
		c.got("PRACK")
	} else {
		c.otherwise("no: 100rel is not in its Supported")
	}
	c.try("accepting", func(ctx context.Context) error { return d.Accept(ctx, dialog.WithBody(answerFor(p, c.us, d))) })
	c.us.established(d)
	c.try("hanging up", d.Hangup)
}

// timed asks for the shortest session that RFC 4028 permits.
func timed(config *dialog.StackConfig) { config.SessionExpires = 90 * time.Second }

func weRefresh(c *trial) {
	timing := c.ours(carolHost, "carol", timed)
	d := timing.calling(c.phone())
	res, _ := c.got("200 INVITE")
	switch refresher, _ := dialog.HeaderParam(value(res, "Session-Expires"), "refresher"); refresher {
	case "":
		c.otherwise("no: its 200 has no Session-Expires")
	case "uas":
		c.otherwise("no: its 200 makes it the refresher, and it refreshes")
		refreshed(c, false)
	default:
		refreshed(c, true)
	}
	require.Equal(c.t, dialog.DialogStateEstablished, d.State())
	c.try("hanging up", d.Hangup)
}

// refreshed waits for the refresh of the session after 45 seconds, by either method, and
// for its response.
func refreshed(c *trial, ours bool) {
	for wait := time.Now().Add(100 * time.Second); time.Now().Before(wait); {
		if c.refreshedBy("UPDATE", ours) || c.refreshedBy("INVITE", ours) {
			return
		}
		c.pause()
	}
	require.FailNow(c.t, "the session is not refreshed")
}

// refreshedBy reports whether a request of the method inside the call has had its 200.
func (c *trial) refreshedBy(method string, ours bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	var began uint32 // zero if the other side has placed the call
	if first, _ := c.findLocked(ours, "INVITE"); first != nil {
		began = first.CSeq().SeqNo
	}
	later := func(msg sip.Message) bool { return msg.CSeq().SeqNo > began }
	req, _ := c.findLocked(ours, method, later)
	res, _ := c.findLocked(!ours, "200 "+method, later)
	return req != nil && res != nil
}

// pause waits for the next message or note, or a second.
func (c *trial) pause() {
	c.mu.Lock()
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	changed := c.changed
	c.mu.Unlock()
	select {
	case <-changed:
	case <-time.After(time.Second):
	}
}

func itRefreshes(c *trial) {
	timing := c.ours(carolHost, "carol", timed)
	p := c.phone()
	d := timing.called(p)
	if !lists(d.Request(), "Supported", "timer") {
		c.otherwise("no: timer is not in its Supported")
		c.try("hanging up", d.Hangup)
		return
	}
	refreshed(c, false)
	require.Equal(c.t, dialog.DialogStateEstablished, d.State())
	c.try("hanging up", d.Hangup)
}

func infoFromUs(c *trial) {
	p := c.phone()
	d := c.us.calling(p)
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	err := d.SendDTMF(ctx, '5', dialog.DTMFOpts{})
	var refused *dialog.ResponseError
	if errors.As(err, &refused) {
		c.otherwise("no: it gets %d", refused.StatusCode)
	} else {
		require.NoError(c.t, err)
	}
	c.try("hanging up", d.Hangup)
	c.got("200 BYE")
}

func infoFromIt(c *trial) {
	p, is := c.phone().(keyed)
	if !is {
		c.otherwise("no: it sends keys as RTP only")
		return
	}
	d := c.us.called(p)
	keys := make(chan rune, 10)
	d.OnDTMF(func(key dialog.DTMF) { keys <- key.Digit })
	p.press('5')
	select {
	case key := <-keys:
		require.Equal(c.t, '5', key)
	case <-time.After(soon):
		require.FailNow(c.t, "no key")
	}
	c.try("hanging up", d.Hangup)
}

func messageFromUs(c *trial) {
	target, flow := c.phone().target()
	req := sip.NewRequest(sip.MESSAGE, target)
	req.AppendHeader(sip.NewHeader("Content-Type", "text/plain"))
	req.SetBody([]byte("hello"))
	c.try("writing", func(ctx context.Context) error {
		res, _, err := c.us.DoWith(ctx, req, dialog.DoOpts{Flow: flow})
		if err == nil && res.StatusCode/100 != 2 {
			c.otherwise("no: it gets %d", res.StatusCode)
		}
		return err
	})
}

func messageFromIt(c *trial) {
	p, is := c.phone().(writing)
	if !is {
		c.otherwise("no: it cannot be told to")
		return
	}
	words := make(chan string, 10)
	require.NoError(c.t, c.us.OnRequest("MESSAGE", func(_ context.Context, req *sip.Request) dialog.Answer {
		words <- string(req.Body())
		return dialog.Answer{}
	}))
	p.text(c.us, "hello")
	select {
	case heard := <-words:
		require.Contains(c.t, heard, "hello")
	case <-time.After(soon):
		require.FailNow(c.t, "no message")
	}
}

// outcome waits for the final status that the peer reports of our REFER.
func (s *scene) outcome(d *dialog.Dialog) int {
	s.t.Helper()
	status := 0
	s.try("the transfer", func(ctx context.Context) error {
		sub, err := d.WaitRefer(ctx)
		if err != nil {
			return err
		}
		progress, err := sub.Wait(ctx)
		status = progress.Status
		return err
	})
	return status
}

// refers lets a call follow the REFERs of its peer. The result delivers the calls made.
func (st *station) refers(s *scene) <-chan *dialog.Dialog {
	followed := make(chan *dialog.Dialog, 1)
	st.OnIncomingRefer(func(d dialog.IDialog, referTo sip.Uri, _ *dialog.ReplacesInfo) {
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		call, err := d.(*dialog.Dialog).FollowRefer(ctx, referTo, dialog.InviteOpts{Body: st.session()})
		if err != nil {
			s.note(st.name, "following: "+err.Error())
			return
		}
		followed <- call
	})
	return followed
}

func (s *scene) follows(followed <-chan *dialog.Dialog) *dialog.Dialog {
	s.t.Helper()
	select {
	case d := <-followed:
		return d
	case <-time.After(soon):
		require.FailNow(s.t, "no REFER has been followed")
		return nil
	}
}

func itIsTransferred(c *trial) {
	p, carol := c.phone(), c.ours(carolHost, "carol")
	d := c.us.calling(p)
	c.try("referring", func(ctx context.Context) error { return d.Refer(ctx, carol.at(c.over), dialog.ReferOpts{}) })
	second := carol.accepts(p)
	require.Equal(c.t, 200, c.outcome(d))
	c.try("hanging up", d.Hangup)
	c.try("hanging up", second.Hangup)
}

func itTransfers(c *trial) {
	p, carol := c.phone(), c.ours(carolHost, "carol")
	followed := c.us.refers(c.scene)
	d := c.us.called(p)
	p.transfer(carol)
	target := carol.rung()
	c.try("accepting", func(ctx context.Context) error { return target.Accept(ctx, dialog.WithBody(carol.session())) })
	second := c.follows(followed)
	c.got("200 NOTIFY")
	leaves(c, p, d)
	c.try("hanging up", second.Hangup)
}

// leaves lets a phone hang up the call that it has transferred, if it does not by itself.
func leaves(c *trial, p phone, d *dialog.Dialog) {
	c.t.Helper()
	if c.lingers {
		p.hangup()
	}
	ended(c.t, d, dialog.PartyRemote)
}

func itReplaces(c *trial) {
	p, carol := c.phone(), c.ours(carolHost, "carol")
	d := c.us.calling(p)
	consultation := c.us.invite(carol.at(c.over), dialog.InviteOpts{Body: c.us.session()})
	there := carol.rung()
	c.try("accepting", func(ctx context.Context) error { return there.Accept(ctx, dialog.WithBody(carol.session())) })
	c.try("being answered", consultation.WaitAnswer)
	c.try("referring", func(ctx context.Context) error { return d.ReferReplace(ctx, consultation, dialog.ReferOpts{}) })
	second := carol.rung()
	if second.Replaces() != there {
		c.otherwise("no: it calls the target without Replaces")
		_, data := c.got("INVITE", func(msg sip.Message) bool { return msg.To().Address.User == "carol" })
		c.faulty("The INVITE lacks the Replaces of the Refer-To (RFC 3261 19.1.5, RFC 3891 4).", data, "Replaces", "Referred-By", "To")
	}
	c.try("accepting", func(ctx context.Context) error {
		return second.Accept(ctx, dialog.WithBody(answerFor(p, carol, second)))
	})
	carol.established(second)
	require.Equal(c.t, 200, c.outcome(d))
	for _, one := range []*dialog.Dialog{d, second, consultation} {
		c.try("hanging up", one.Hangup)
	}
}

func itConsults(c *trial) {
	p, is := c.phone().(consultant)
	if !is {
		c.otherwise("no: it has no attended transfer")
		return
	}
	carol := c.ours(carolHost, "carol")
	followed := c.us.refers(c.scene)
	d := c.us.called(p)
	p.consult(carol)
	there := carol.accepts(p)
	p.complete()
	target := carol.rung()
	require.Equal(c.t, there, target.Replaces())
	c.try("accepting", func(ctx context.Context) error { return target.Accept(ctx, dialog.WithBody(carol.session())) })
	second := c.follows(followed)
	ended(c.t, there, dialog.PartyLocal)
	leaves(c, p, d)
	c.try("hanging up", second.Hangup)
}

func itIsReplaced(c *trial) {
	p, carol := c.phone(), c.ours(carolHost, "carol")
	d := c.us.calling(p)
	target, flow := p.target()
	opts := dialog.InviteOpts{Body: sessionFor(p, carol), Replaces: replaced(d), Flow: flow}
	second := carol.invite(target, opts)
	if res, _ := c.got("200 INVITE"); !lists(res, "Supported", "replaces") {
		p.rings()
		c.otherwise("no: replaces is not in its Supported; it rings as for any other call")
		c.try("hanging up", second.Hangup)
		c.try("hanging up", d.Hangup)
		return
	}
	c.try("being answered", second.WaitAnswer)
	ended(c.t, d, dialog.PartyRemote)
	c.try("hanging up", second.Hangup)
}

// replaced names a call as its peer knows it.
func replaced(d *dialog.Dialog) *dialog.ReplacesInfo { return dialog.ReplacesOf(d) }
