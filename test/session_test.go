package test

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// brief is whose o= line a session description has, its version and its direction.
func brief(b dialog.Body) string {
	if b == nil {
		return "none"
	}
	text := string(b.Data())
	said := strings.Join(regexp.MustCompile(`o=(\S+) \S+ (\S+)`).FindStringSubmatch(text)[1:], "")
	for _, direction := range []string{"sendonly", "recvonly", "inactive"} {
		if strings.Contains(text, "a="+direction) {
			said += " " + direction
		}
	}
	return said
}

func inBrief(s dialog.Session) string {
	return fmt.Sprintf("%s / %s by %v, %v", brief(s.Local), brief(s.Remote), s.OfferedBy, s.State)
}

// sessions records the changes of a call's session, and by which message they came.
func sessions(t *testing.T, d *dialog.Dialog) <-chan string {
	heard := make(chan string, 20)
	d.OnSession(func(c dialog.SessionChange) {
		if c.By == dialog.PartyRemote && (c.Request() == nil) == (c.Response() == nil) {
			t.Errorf("no message: %+v", c)
		}
		if c.By != dialog.PartyRemote && (c.Request() != nil || c.Response() != nil) {
			t.Errorf("a message of ours: %+v", c)
		}
		if c.Key != d.Key() {
			t.Errorf("key %v instead of %v", c.Key, d.Key())
		}
		heard <- fmt.Sprintf("%v %s %d: %s", c.By, c.Method, c.Status, inBrief(c.Session))
	})
	return heard
}

const (
	nearSDP = "v=0\r\no=near 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
	awaySDP = "v=0\r\no=away 1 1 IN IP4 192.0.2.2\r\ns=-\r\nc=IN IP4 192.0.2.2\r\nt=0 0\r\nm=audio 5000 RTP/AVP 0\r\n"
)

// on is a session description in another version, with a direction.
func on(sdp string, version int, direction string) string {
	return versioned(sdp, version) + "a=" + direction + "\r\n"
}

// RFC 6337 2.2: each pattern of offer and answer changes the session once, with the message
// that brought it; one that was refused leaves it as it was.
func TestSessionFollowsOffersAndAnswers(t *testing.T) {
	ctx := context.Background()
	incoming := func(change ...func(*dialogtest.Request)) func(w *world, s *dialog.Stack, p *peer) *peerCall {
		return func(w *world, s *dialog.Stack, p *peer) *peerCall { return w.rings(s, p, change...) }
	}
	outgoing := func(opts dialog.InviteOpts) func(w *world, s *dialog.Stack, p *peer) *peerCall {
		return func(w *world, s *dialog.Stack, p *peer) *peerCall { return w.calls(s, p, opts) }
	}
	accept := func(l *peerCall) {
		require.NoError(l.t, l.d.Accept(ctx, withSDP(nearSDP)))
		l.next("200 INVITE")
	}
	agreed := func(l *peerCall) {
		accept(l)
		l.acknowledge(1)
		synctest.Wait()
	}
	reinvite := func(l *peerCall, code int, body string) {
		done := began(func() error { return l.d.Hold(ctx) })
		l.reply(l.next("INVITE"), dialogtest.Response{Code: code, ToTag: l.tag, Body: body})
		l.next("ACK")
		<-done
	}
	for name, row := range map[string]struct {
		begin  func(w *world, s *dialog.Stack, p *peer) *peerCall
		before string
		do     func(l *peerCall)
		heard  []string
	}{
		"INVITE of the peer, our 200": {incoming(withBody(awaySDP)), "none / none by none, have-remote-offer", agreed,
			[]string{"local INVITE 200: near1 / away1 by remote, stable"}},
		"our 200, ACK of the peer": {incoming(withBody("")), "none / none by none, stable", func(l *peerCall) {
			accept(l)
			require.Equal(l.t, "none / none by none, have-local-offer", inBrief(l.d.Session()))
			l.acknowledge(1, withBody(awaySDP))
		}, []string{"remote ACK 0: near1 / away1 by local, stable"}},
		"our INVITE, 200 of the peer": {outgoing(offer(nearSDP)), "none / none by none, have-local-offer", func(l *peerCall) {
			l.answer(dialogtest.Response{Code: 200, Body: awaySDP})
			l.next("ACK")
		}, []string{"remote INVITE 200: near1 / away1 by local, stable"}},
		"200 of the peer, our ACK": {outgoing(dialog.InviteOpts{}), "none / none by none, stable", func(l *peerCall) {
			l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
				return dialog.NewBody("application/sdp", []byte(nearSDP)), nil
			})
			l.answer(dialogtest.Response{Code: 200, Body: awaySDP})
			l.next("ACK")
		}, []string{"local ACK 0: near1 / away1 by remote, stable"}},
		"our INVITE, reliable 183 of the peer": {outgoing(offer(nearSDP)), "none / none by none, have-local-offer", func(l *peerCall) {
			l.answer(dialogtest.Response{Code: 183, Headers: []string{"Require: 100rel", "RSeq: 1"}, Body: awaySDP})
			l.reply(l.next("PRACK"), dialogtest.Response{Code: 200})
			l.answer(dialogtest.Response{Code: 200})
			l.next("ACK")
		}, []string{"remote INVITE 183: near1 / away1 by local, stable"}},
		"our UPDATE without an answer in time": {incoming(withBody(awaySDP)), "none / none by none, have-remote-offer", func(l *peerCall) {
			agreed(l)
			_, err := l.d.Update(ctx, dialog.NewBody("application/sdp", []byte(on(nearSDP, 2, "inactive"))))
			require.Error(l.t, err)
		}, []string{"local INVITE 200: near1 / away1 by remote, stable", "none  0: near1 / away1 by remote, stable"}},
		"reliable 183 of ours, PRACK of the peer, with another offer": {incoming(withBody(awaySDP), withHeaders("Supported: 100rel")),
			"none / none by none, have-remote-offer", func(l *peerCall) {
				l.progress(183, withSDP(nearSDP))
				l.pracked(l.next("183 INVITE").Message, withBody(on(awaySDP, 2, "sendonly")))
				require.NoError(l.t, l.d.Accept(ctx))
			}, []string{"local INVITE 183: near1 / away1 by remote, stable", "local PRACK 200: near2 recvonly / away2 sendonly by remote, stable"}},
		"hold by the peer": {incoming(withBody(awaySDP)), "none / none by none, have-remote-offer", func(l *peerCall) {
			agreed(l)
			l.ask("INVITE", withBody(on(awaySDP, 2, "sendonly")))
			l.next("200 INVITE")
			l.acknowledge(2)
		}, []string{"local INVITE 200: near1 / away1 by remote, stable", "local INVITE 200: near2 recvonly / away2 sendonly by remote, stable"}},
		"hold by us": {incoming(withBody(awaySDP)), "none / none by none, have-remote-offer", func(l *peerCall) {
			agreed(l)
			reinvite(l, 200, on(awaySDP, 2, "recvonly"))
		}, []string{"local INVITE 200: near1 / away1 by remote, stable", "remote INVITE 200: near2 sendonly / away2 recvonly by local, stable"}},
		"hold by us, refused": {incoming(withBody(awaySDP)), "none / none by none, have-remote-offer", func(l *peerCall) {
			agreed(l)
			reinvite(l, 488, "")
		}, []string{"local INVITE 200: near1 / away1 by remote, stable", "remote INVITE 488: near1 / away1 by remote, stable"}},
		"re-INVITE of the peer, refused": {incoming(withBody(awaySDP)), "none / none by none, have-remote-offer", func(l *peerCall) {
			agreed(l)
			l.ask("INVITE", withBody(strings.Replace(versioned(awaySDP, 2), "m=audio 5000 RTP/AVP 0", "m=video 5000 RTP/AVP 31", 1)))
			l.next("488 INVITE")
		}, []string{"local INVITE 200: near1 / away1 by remote, stable", "local INVITE 488: near1 / away1 by remote, stable"}},
		"UPDATE of the peer": {incoming(withBody(awaySDP)), "none / none by none, have-remote-offer", func(l *peerCall) {
			agreed(l)
			l.ask("UPDATE", withBody(on(awaySDP, 2, "sendonly")))
			l.next("200 UPDATE")
			l.ask("UPDATE") // without an offer
			l.next("200 UPDATE")
		}, []string{"local INVITE 200: near1 / away1 by remote, stable", "local UPDATE 200: near2 recvonly / away2 sendonly by remote, stable"}},
		"UPDATE of ours": {incoming(withBody(awaySDP)), "none / none by none, have-remote-offer", func(l *peerCall) {
			agreed(l)
			done := began(func() error {
				_, err := l.d.Update(ctx, dialog.NewBody("application/sdp", []byte(on(nearSDP, 2, "inactive"))))
				return err
			})
			in := l.next("UPDATE")
			require.Equal(l.t, "near1 / away1 by remote, have-local-offer", inBrief(l.d.Session()))
			l.reply(in, dialogtest.Response{Code: 200, ToTag: l.tag, Body: on(awaySDP, 2, "inactive")})
			require.NoError(l.t, <-done)
		}, []string{"local INVITE 200: near1 / away1 by remote, stable", "remote UPDATE 200: near2 inactive / away2 inactive by local, stable"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s, p := w.stack(stackIP), w.peer(peerIP)
				l := row.begin(w, s, p)
				require.Equal(t, row.before, inBrief(l.d.Session()))
				heard := sessions(t, l.d)
				row.do(l)
				synctest.Wait()
				require.Equal(t, row.heard, drained(heard))
				require.Contains(t, row.heard[len(row.heard)-1], inBrief(l.d.Session()))
			})
		})
	}
}

// Forks keep their own sessions until one wins.
func TestSessionIsThatOfTheForkThatAnswers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(s, p, offer(nearSDP))
		heard := sessions(t, l.d)
		early := func(tag string, version int) {
			l.answer(dialogtest.Response{Code: 183, ToTag: tag, Headers: []string{"Require: 100rel", "RSeq: 1"}, Body: versioned(awaySDP, version)})
			p.reply(p.next("PRACK"), dialogtest.Response{Code: 200, ToTag: tag})
			synctest.Wait()
		}
		early("one", 1)
		early("two", 2)
		require.Equal(t, "near1 / away1 by local, stable", inBrief(l.d.Session()))
		l.answer(dialogtest.Response{Code: 200, ToTag: "two"})
		p.next("ACK")
		synctest.Wait()
		require.Equal(t, []string{
			"remote INVITE 183: near1 / away1 by local, stable", "remote INVITE 200: near1 / away2 by local, stable",
		}, drained(heard))
	})
}

// A call that was restored has its session, and a snapshot of the version before has ours.
func TestSessionIsRestored(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(s, p, withBody(awaySDP))
		require.NoError(t, l.d.Accept(context.Background(), withSDP(nearSDP)))
		p.next("200 INVITE")
		l.acknowledge(1)
		synctest.Wait()
		s = l.restart()
		require.Equal(t, "near1 / away1 by remote, stable", inBrief(l.d.Session()))
		require.Equal(t, len(awaySDP), s.Stats().CallBytes, "the peer's description is counted")
		heard := sessions(t, l.d)
		l.ask("UPDATE", withBody(on(awaySDP, 2, "sendonly")))
		p.next("200 UPDATE")
		synctest.Wait()
		require.Equal(t, []string{"local UPDATE 200: near2 recvonly / away2 sendonly by remote, stable"}, drained(heard))

		var old map[string]any
		require.NoError(t, json.Unmarshal(w.written(l.d), &old))
		delete(old, "sr")
		delete(old, "so")
		text, err := json.Marshal(old)
		require.NoError(t, err)
		w.crash(s)
		d := w.restored(w.stack(stackIP), text)
		require.Equal(t, "near2 recvonly / none by local, stable", inBrief(d.Session()))
	})
}

// A peer's description beyond the bound is not kept, and the call continues.
func TestSessionWithoutThePeersDescriptionAtTheLimit(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP, func(c *dialog.StackConfig) { c.Limits.CallBytes = 1 }), w.peer(peerIP)
		l := w.calls(s, p, offer(nearSDP))
		l.answer(dialogtest.Response{Code: 200, Body: awaySDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		require.Equal(t, "near1 / none by local, stable", inBrief(l.d.Session()))
	})
}

// A callback that panics loses nothing for the others, and none comes after the end.
func TestOnSessionCallbacks(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(s, p, withBody(awaySDP))
		l.d.OnSession(nil)
		l.d.OnSession(func(dialog.SessionChange) { panic("session") })
		heard := sessions(t, l.d)
		l.d.OnSession(func(dialog.SessionChange) { _ = l.d.Session() }) // no lock is held
		require.NoError(t, l.d.Accept(context.Background(), withSDP(nearSDP)))
		p.next("200 INVITE")
		l.acknowledge(1)
		synctest.Wait()
		require.Len(t, drained(heard), 1)
		l.ask("BYE")
		p.next("200 BYE")
		synctest.Wait()
		require.Empty(t, drained(heard))
		require.Equal(t, "near1 / away1 by remote, stable", inBrief(l.d.Session()))
	})
}

// The PRACK to a 183 may come after the call was refused, and while the refusal is written: the
// response is let go of by then, and the PRACK still gets its 200 (RFC 3262 3).
func TestSessionOfACallThatWasRefusedBeforeThePRACK(t *testing.T) {
	for name, written := range map[string]bool{"refused": true, "being refused": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s, p := w.stack(stackIP), w.peer(peerIP)
				l := w.rings(s, p, withBody(awaySDP), withHeaders("Supported: 100rel"))
				heard := sessions(t, l.d)
				l.progress(183, withSDP(nearSDP))
				early := l.next("183 INVITE").Message
				refusing, release := w.holdsBack("SIP/2.0 486")
				defer release()
				refused := began(func() error { return l.d.Reject(context.Background(), 486, "") })
				<-refusing
				if written {
					release()
					l.next("486 INVITE")
				}
				l.pracked(early)
				release()
				require.NoError(t, <-refused)
				synctest.Wait()
				if told := drained(heard); written {
					require.Empty(t, told)
				}
				require.Equal(t, dialog.DialogStateTerminated, l.d.State())
			})
		})
	}
}

// holdsBack stops the first message that begins with that text while it is written, until
// release is called.
func (w *world) holdsBack(text string) (writing <-chan struct{}, release func()) {
	begun, over := make(chan struct{}), make(chan struct{})
	first := sync.OnceFunc(func() { close(begun); <-over })
	w.net.Tap(func(p dialogtest.Packet) {
		if strings.HasPrefix(string(p.Data), text) {
			first()
		}
	})
	return begun, sync.OnceFunc(func() { close(over) })
}
