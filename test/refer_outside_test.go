package test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// referral is a REFER of the stack's outside calls, as the peer sees it.
type referral struct {
	*peerCall
	refer  dialogtest.Received
	result chan referred
}

// referred is what Stack.Refer returned.
type referred struct {
	r   *dialog.ReferSubscription
	err error
}

// referOutOfDialog has the stack refer the peer to dora, who does not answer yet.
func (w *world) referOutOfDialog(ctx context.Context, s *dialog.Stack, p *peer, opts dialog.ReferOpts) *referral {
	w.t.Helper()
	x := &referral{result: make(chan referred, 1)}
	go func() {
		r, err := s.Refer(ctx, uri("bob", p.ip), uri("dora", otherIP), opts)
		x.result <- referred{r, err}
	}()
	x.refer = p.next("REFER")
	req := x.refer.Request()
	x.peerCall = &peerCall{
		peer: p, w: w, stack: s.Addr(), tag: farTag, callID: req.CallID().Value(), stackTag: testkit.FromTag(req), target: contactOf(req),
		stackURI: req.From().Address.String(), peerURI: req.To().Address.String(),
	}
	return x
}

// answers answers the REFER.
func (x *referral) answers(code int, headers ...string) {
	x.t.Helper()
	x.reply(x.refer, dialogtest.Response{Code: code, ToTag: x.tag, Headers: headers})
}

// notifies sends a NOTIFY and returns the answer's status.
func (x *referral) notifies(state, line string, headers ...string) int {
	x.t.Helper()
	headers = append(headers, "Event: refer", "Subscription-State: "+state, "Content-Type: message/sipfrag", "Contact: <sip:bob@"+x.ip+":5060;there>")
	x.ask("NOTIFY", withHeaders(headers...), withBody(line))
	return x.peer.final("NOTIFY").StatusCode
}

const ends = "terminated;reason=noresource"

func TestReferOutsideCallsTellsTheOutcome(t *testing.T) {
	for name, first := range map[string]string{"the 202 first": "202", "the NOTIFY first": "NOTIFY"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s, p := w.stack(stackIP), w.peer(peerIP)
				x := w.referOutOfDialog(context.Background(), s, p, dialog.ReferOpts{})
				m := w.one(stackIP, "REFER")
				require.Equal(t, "<sip:dora@"+otherIP+":5060>", m.value(t, "Refer-To"))
				require.NotContains(t, m.value(t, "To"), "tag")
				require.Empty(t, m.values("Referred-By"), "nobody has said who we are")
				if first == "202" {
					x.answers(202)
				}
				require.Equal(t, 200, x.notifies("active;expires=60", "SIP/2.0 100 Trying"))
				if first != "202" {
					x.answers(202)
				}
				got := <-x.result
				require.NoError(t, got.err)
				require.Equal(t, 100, got.r.Status().Status)
				require.Empty(t, s.Dialogs(), "it is no call")
				require.Equal(t, 1, s.Stats().Subscribed)
				result := waits(got.r)
				require.Equal(t, 200, x.notifies("active", "SIP/2.0 180 Ringing"))
				require.Equal(t, 200, x.notifies(ends, "SIP/2.0 486 Busy Here"))
				require.Equal(t, 486, (<-result).Status)
				require.Equal(t, 481, x.notifies(ends, "SIP/2.0 200 OK"))
				time.Sleep(time.Minute)
				require.Zero(t, testkit.Held(s))
			})
		})
	}
}

// RFC 6665 4.4.1: the dialog is that of the peer who is heard first, its route
// what that has recorded; another fork of the REFER is not listened to.
func TestReferOutsideCallsHasTheDialogOfTheFirstPeer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP), w.peer(peerIP)
		x := w.referOutOfDialog(context.Background(), s, p, dialog.ReferOpts{})
		require.Equal(t, 481, x.notifies("active", "SIP/2.0 100 Trying", "Event: refer;id=77"), "of another REFER")
		x.ask("BYE")
		require.Equal(t, 481, p.final("BYE").StatusCode)
		stranger := *x.peerCall
		stranger.tag = "stranger"
		require.Equal(t, 481, (&referral{peerCall: &stranger}).notifies("active", "SIP/2.0 100 Trying", "Event: presence"))
		require.Equal(t, 200, x.notifies("active;expires=100", "SIP/2.0 100 Trying", "Record-Route: <sip:10.0.0.9;lr;second>, <sip:10.0.0.7;lr>"))
		other := *x.peerCall
		other.tag = "another"
		require.Equal(t, 481, (&referral{peerCall: &other}).notifies("active", "SIP/2.0 180 Ringing"))
		x.answers(202)
		got := <-x.result
		require.NoError(t, got.err)
		waits(got.r)
		refresh := p.next("SUBSCRIBE") // so that the outcome is heard
		require.Equal(t, "sip:bob@10.0.0.9:5060;there", refresh.Request().Recipient.String())
		require.Equal(t, []string{"<sip:10.0.0.9;lr;second>", "<sip:10.0.0.7;lr>"}, w.one(stackIP, "SUBSCRIBE").values("Route"))
		require.Equal(t, farTag, testkit.ToTag(refresh.Message))
		p.reply(refresh, dialogtest.Response{Code: 200})
		require.Equal(t, 200, x.notifies(ends, "SIP/2.0 200 OK"))
	})
}

// RFC 3261 12.1.2: the route that a 2xx has recorded, the other way round.
func TestReferOutsideCallsTakesTheRouteOfThe202(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP), w.peer(peerIP)
		x := w.referOutOfDialog(context.Background(), s, p, dialog.ReferOpts{})
		x.answers(202, "Record-Route: <sip:10.0.0.7;lr>, <sip:10.0.0.9;lr;first>", "Contact: <sip:bob@10.0.0.9:5060;there>")
		result := waits((<-x.result).r)
		time.Sleep(3 * time.Minute)
		refresh := p.next("SUBSCRIBE")
		require.Equal(t, "sip:bob@10.0.0.9:5060;there", refresh.Request().Recipient.String())
		require.Equal(t, []string{"<sip:10.0.0.9;lr;first>", "<sip:10.0.0.7;lr>"}, w.one(stackIP, "SUBSCRIBE").values("Route"))
		p.reply(refresh, dialogtest.Response{Code: 481})
		require.ErrorIs(t, (<-result).err, dialog.ErrNoOutcome)
	})
}

// A REFER leaves no state, whatever its outcome.
func TestReferOutsideCallsThatFails(t *testing.T) {
	for name, c := range map[string]struct {
		opts dialog.ReferOpts
		play func(x *referral, s *dialog.Stack, giveUp func())
		is   error
	}{
		"no answer":  {play: func(*referral, *dialog.Stack, func()) {}, is: dialog.ErrTimeout},
		"refused":    {play: func(x *referral, _ *dialog.Stack, _ func()) { x.answers(603) }, is: &dialog.ResponseError{}},
		"challenged": {play: func(x *referral, _ *dialog.Stack, _ func()) { x.answers(401, credentialsWanted) }, is: &dialog.ResponseError{}},
		"given up": {play: func(x *referral, _ *dialog.Stack, giveUp func()) {
			giveUp()
			synctest.Wait()
			x.answers(202)
			require.Equal(x.t, 481, x.notifies("active", "SIP/2.0 100 Trying"))
		}, is: context.Canceled},
		"given up, and challenged": {play: func(x *referral, _ *dialog.Stack, giveUp func()) {
			giveUp()
			synctest.Wait()
			x.answers(401, credentialsWanted)
			x.quiet("REFER", time.Minute)
		}, is: context.Canceled},
		"shut down": {play: func(x *referral, s *dialog.Stack, _ func()) {
			x.w.stacks = nil
			require.NoError(x.t, s.Shutdown(context.Background()))
		}, is: dialog.ErrShutdown},
		"no subscription": {opts: dialog.ReferOpts{NoReferSub: true}, play: func(x *referral, _ *dialog.Stack, _ func()) {
			x.answers(202, "Refer-Sub: false")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s := w.stack(stackIP, func(c *dialog.StackConfig) {
					c.Credentials = func(string) (string, string, bool) { return "alice", "secret", name != "challenged" }
				})
				ctx, giveUp := context.WithCancel(context.Background())
				defer giveUp()
				x := w.referOutOfDialog(ctx, s, w.peer(peerIP), c.opts)
				c.play(x, s, giveUp)
				got := <-x.result
				var refused *dialog.ResponseError
				switch {
				case c.is == nil:
					require.NoError(t, got.err)
					require.True(t, ended(got.r))
				case name == "refused" || name == "challenged":
					require.ErrorAs(t, got.err, &refused)
				default:
					require.ErrorIs(t, got.err, c.is)
				}
				time.Sleep(2 * time.Minute)
				require.Zero(t, testkit.Held(s))
			})
		})
	}
}

// Shutdown ends the subscription, as those of calls.
func TestShutdownEndsAReferOutsideCalls(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP), w.peer(peerIP)
		x := w.referOutOfDialog(context.Background(), s, p, dialog.ReferOpts{})
		x.answers(202)
		result := waits((<-x.result).r)
		w.stacks = nil
		require.NoError(t, s.Shutdown(context.Background()))
		require.ErrorIs(t, (<-result).err, dialog.ErrShutdown)
		require.Zero(t, testkit.Held(s))
		_, err := s.Refer(context.Background(), uri("bob", peerIP), uri("dora", otherIP), dialog.ReferOpts{})
		require.ErrorIs(t, err, dialog.ErrShutdown)
	})
}

// It answers a challenge, and is known by the number of what was accepted.
func TestReferOutsideCallsAnswersAChallenge(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.stack(stackIP, func(c *dialog.StackConfig) {
			c.Credentials = func(string) (string, string, bool) { return "alice", "secret", true }
		})
		p := w.peer(peerIP)
		x := w.referOutOfDialog(context.Background(), s, p, dialog.ReferOpts{})
		x.answers(401, credentialsWanted)
		x.refer = p.next("REFER")
		require.NotEmpty(t, testkit.Value(x.refer.Message, "Authorization"))
		x.answers(202)
		got := <-x.result
		require.NoError(t, got.err)
		require.Equal(t, "2 REFER", got.r.ID)
		require.Equal(t, 200, x.notifies(ends, "SIP/2.0 200 OK", "Event: refer;id=2"))
	})
}

// They are bounded, as are the calls that are over but for subscriptions.
func TestRefersOutsideCallsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP, func(c *dialog.StackConfig) { c.Limits.SubscribedCalls = 1 }), w.peer(peerIP)
		x := w.referOutOfDialog(context.Background(), s, p, dialog.ReferOpts{})
		_, err := s.Refer(context.Background(), uri("bob", peerIP), uri("dora", otherIP), dialog.ReferOpts{})
		require.ErrorIs(t, err, dialog.ErrMaxDialogs)
		x.answers(603)
		require.Error(t, (<-x.result).err)
		_, err = s.Refer(context.Background(), uri("bob", ""), uri("dora", otherIP), dialog.ReferOpts{})
		require.ErrorIs(t, err, dialog.ErrInvalidArgument)
	})
}
