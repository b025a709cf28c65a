package test

import (
	"context"
	"fmt"
	"net/netip"
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

// FD23: who is at the other end after a transfer by a PBX.

const carolAsserted = `P-Asserted-Identity: "Carol" <sip:carol@pbx.example>, <tel:+15551234>`

// identities keeps what OnIdentity is told.
type identities struct {
	mu   sync.Mutex
	told []string
}

func (i *identities) watch(d *dialog.Dialog) { d.OnIdentity(i.tell) }

func (i *identities) tell(who dialog.Identity) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.told = append(i.told, inWords(who))
}

// next returns what was told since the last time.
func (i *identities) next() []string {
	synctest.Wait()
	i.mu.Lock()
	defer i.mu.Unlock()
	told := i.told
	i.told = nil
	return told
}

func inWords(who dialog.Identity) string {
	text := who.String()
	if who.Asserted {
		text += fmt.Sprint(" asserted ", who.Others, who.Privacy)
	}
	return text
}

const carolTold = `"Carol" <sip:carol@pbx.example> asserted [<tel:+15551234>] []`

func headers(lines ...string) func(*dialogtest.Request) {
	return func(r *dialogtest.Request) { r.Headers = append(r.Headers, append(lines, contactOfPeer)...) }
}

func from(uri string) func(*dialogtest.Request) {
	return func(r *dialogtest.Request) { r.From = uri }
}

// takes sends a request that is accepted, a re-INVITE with its ACK.
func (l *peerCall) takes(method string, change ...func(*dialogtest.Request)) {
	l.t.Helper()
	l.ask(method, change...)
	res := l.peer.final(method)
	require.Equal(l.t, 200, res.StatusCode)
	if method == "INVITE" {
		l.acknowledge(l.seq)
	}
}

// FD23
func TestAChangeOfThePeersIdentityIsReported(t *testing.T) {
	for _, method := range []string{"UPDATE", "INVITE"} {
		t.Run(method, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l, heard := w.incoming(w.stack(stackIP), w.peer(peerIP)), &identities{}
				heard.watch(l.d)
				l.d.OnIdentity(nil)
				caller := inWords(l.d.Info().Identity)
				require.Equal(t, "<"+l.peerURI+">", caller)

				l.takes(method, headers(carolAsserted))
				require.Equal(t, []string{carolTold}, heard.next())
				require.Equal(t, carolTold, inWords(l.d.Info().Identity))
				require.Equal(t, netip.MustParseAddrPort(peerIP+":5060"), l.d.Info().Identity.Source)

				l.takes(method)
				l.takes(method, headers(carolAsserted))
				require.Empty(t, heard.next(), "a refresh, and the same again")
				require.Equal(t, carolTold, inWords(l.d.Info().Identity))

				l.takes(method, headers("P-Asserted-Identity: <sip:dora@pbx.example>", "Privacy: id"))
				require.Equal(t, []string{"<sip:dora@pbx.example> asserted [] [id]"}, heard.next())
				l.takes(method, from("sip:eve@pbx.example"))
				require.Equal(t, []string{"<sip:eve@pbx.example>"}, heard.next(), "of whom nothing was asserted")
				require.Zero(t, w.stacks[0].Stats().Panics, "nil is no callback")
				hangUp(t, l.d, l.peer)
			})
		})
	}
}

// FD23: in what answers a request of ours.
func TestTheIdentityInAResponseIsReported(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l, heard := w.outgoing(w.stack(stackIP), w.peer(peerIP)), &identities{}
		heard.watch(l.d)
		for method, ask := range map[string]func(context.Context) error{
			"UPDATE": func(ctx context.Context) error { _, err := l.d.Update(ctx, nil); return err },
			"INVITE": func(ctx context.Context) error { return l.d.ReInvite(ctx, offer(offerSDP)) },
		} {
			who := "sip:" + method + "@pbx.example"
			result := began(func() error { return ask(context.Background()) })
			body := ""
			if method == "INVITE" {
				body = answerSDP
			}
			l.reply(l.next(method), dialogtest.Response{Code: 200, Body: body, Headers: []string{contactOfPeer, "P-Asserted-Identity: <" + who + ">"}})
			require.NoError(t, <-result)
			require.Equal(t, []string{"<" + who + "> asserted [] []"}, heard.next())
		}
		hangUp(t, l.d, l.peer)
	})
}

// FD23: a refused request tells nothing of who is there.
func TestARefusedRequestDoesNotChangeTheIdentity(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l, heard := w.incoming(w.stack(stackIP), w.peer(peerIP)), &identities{}
		heard.watch(l.d)
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return nil, fmt.Errorf("no") })
		for _, method := range []string{"UPDATE", "INVITE"} {
			l.ask(method, headers(carolAsserted), from("sip:carol@pbx.example"), func(r *dialogtest.Request) { r.Body = offerSDP })
			require.Equal(t, 488, l.peer.final(method).StatusCode)
			require.Empty(t, heard.next())
			require.Equal(t, "<"+l.peerURI+">", inWords(l.d.Info().Identity))
		}
		hangUp(t, l.d, l.peer)
		require.Equal(t, l.peerURI, w.one(stackIP, "BYE").msg.To().Address.String())
	})
}

// FD23: each fork says who it is; the call is that of the current early dialog.
func TestTheIdentityOfEachForkIsReported(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		heard := &identities{}
		f := w.forks(offer(offerSDP))
		heard.watch(f.d)
		asserts := func(who string) string { return "P-Asserted-Identity: <sip:" + who + "@pbx.example>" }
		told := func(who string) []string { return []string{"<sip:" + who + "@pbx.example> asserted [] []"} }
		f.says("A", 180, "", asserts("a"))
		require.Equal(t, told("a"), heard.next())
		f.says("B", 180, "", asserts("b"))
		require.Empty(t, heard.next(), "A is the current one")
		f.says("A", 180, "", asserts("a2"))
		require.Equal(t, told("a2"), heard.next())
		f.says("B", 200, answerSDP)
		require.Equal(t, told("b"), heard.next())
		require.Equal(t, told("b")[0], inWords(f.d.Info().Identity))
		f.over("B")
	})
}

// FD23: RFC 3325 6, 8.
func TestAssertionsAreHeededOfTheHopsThatAreListed(t *testing.T) {
	for name, c := range map[string]struct {
		listed []netip.Prefix
		heeded bool
	}{
		"no list":        {nil, true},
		"nobody":         {[]netip.Prefix{}, false},
		"somebody else":  {[]netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}, false},
		"the peer's net": {[]netip.Prefix{netip.MustParsePrefix("10.0.1.0/24"), netip.MustParsePrefix("10.0.0.0/24")}, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.stack(stackIP, func(config *dialog.StackConfig) { config.IdentityFrom = c.listed })
				l, heard := w.incoming(b, w.peer(peerIP), headers(carolAsserted)), &identities{}
				require.Equal(t, c.heeded, l.d.Info().Identity.Asserted, "in the INVITE")
				heard.watch(l.d)
				l.takes("UPDATE", headers("P-Asserted-Identity: <sip:dora@pbx.example>"))
				require.Equal(t, c.heeded, len(heard.next()) == 1)
				require.Equal(t, c.heeded, l.d.Info().Identity.Asserted)
				hangUp(t, l.d, l.peer)
			})
		})
	}
}

// FD23: RFC 4916 4.4.1, 4.4.2.
func TestAnotherFromIsTheToOfLaterRequests(t *testing.T) {
	for _, method := range []string{"UPDATE", "INVITE"} {
		t.Run(method, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l, heard := w.outgoing(w.stack(stackIP), w.peer(peerIP)), &identities{}
				heard.watch(l.d)
				l.takes(method, from("sip:carol@pbx.example"))
				require.Equal(t, []string{"<sip:carol@pbx.example>"}, heard.next())
				require.Equal(t, "carol", l.d.Info().Remote.URI.User)
				hangUp(t, l.d, l.peer)
				to := w.one(stackIP, "BYE").msg.To()
				require.Equal(t, "sip:carol@pbx.example", to.Address.String())
				require.Equal(t, farTag, testkit.ToTag(w.one(stackIP, "BYE").msg))
			})
		})
	}
}

// FD23: an early dialog whose From has changed leaves the INVITE's To to the others,
// and to the next target.
func TestAnotherFromOfAForkIsThatForksOnly(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP))
		called := f.peerURI
		f.says("A", 183, answerSDP)
		require.Equal(t, 200, f.asks("A", "UPDATE", 1, from("sip:carol@pbx.example")).StatusCode)
		require.Equal(t, "carol", f.d.Info().Remote.URI.User)
		f.says("B", 200, answerSDP)
		remote := f.d.Info().Remote.URI
		require.Equal(t, called, remote.String())
		f.over("B")
	})
	bubble(t, func(t *testing.T, w *world) {
		a, p, q := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP)
		opts := offer(offerSDP)
		opts.FollowRedirects = 3
		l := w.calls(a, p, opts)
		called := l.peerURI
		l.answer(dialogtest.Response{Code: 183, Headers: []string{contactOfPeer}, Body: answerSDP})
		l.takes("UPDATE", from("sip:carol@pbx.example"))
		require.Equal(t, "carol", l.d.Info().Remote.URI.User)
		l.answer(dialogtest.Response{Code: 302, Headers: []string{"Contact: <sip:dora@" + otherIP + ">"}})
		second := q.next("INVITE")
		require.Equal(t, called, second.Request().To().Address.String())
		q.reply(second, dialogtest.Response{Code: 200, ToTag: "q", Headers: []string{"Contact: <sip:dora@" + otherIP + ">"}, Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		hangUp(t, l.d, q)
		require.Equal(t, called, w.one(stackIP, "BYE").msg.To().Address.String())
	})
}

// FD23: RFC 4916 4.2 demands an UPDATE of who announces it.
func TestFromChangeIsNotAnnounced(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		require.NotContains(t, testkit.Value(l.invite.Request(), "Supported"), "from-change")
		hangUp(t, l.d, l.peer)
	})
}

// FD23: a blocked callback delays nothing. Of the changes meanwhile the last is reported,
// unless it equals the identity before.
func TestACallbackOfOnIdentityHoldsNothingUp(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l, heard := w.incoming(w.stack(stackIP), w.peer(peerIP)), &identities{}
		release := make(chan struct{})
		l.d.OnIdentity(func(who dialog.Identity) {
			heard.tell(who)
			require.Equal(t, inWords(who), inWords(l.d.Info().Identity))
			<-release
		})
		asserts := func(who string) { l.takes("UPDATE", headers("P-Asserted-Identity: <sip:"+who+"@pbx.example>")) }
		asserts("a")
		require.Len(t, heard.next(), 1)
		asserts("b")
		asserts("c")
		close(release)
		require.Equal(t, []string{"<sip:c@pbx.example> asserted [] []"}, heard.next())
		hangUp(t, l.d, l.peer)
		time.Sleep(time.Minute)
	})
}

// FD23: if the identity changes to another and back before the callback runs, nothing is
// reported.
func TestAnIdentityThatReturnsBeforeTheCallbackRunsIsNotReported(t *testing.T) {
	const asserted = "<sip:%s@pbx.example> asserted [] []"
	told := func(who string) []string { return []string{fmt.Sprintf(asserted, who)} }
	bubble(t, func(t *testing.T, w *world) {
		l, heard, other := w.incoming(w.stack(stackIP), w.peer(peerIP)), &identities{}, &identities{}
		release := make(chan struct{})
		l.d.OnIdentity(func(who dialog.Identity) {
			heard.tell(who)
			<-release
		})
		other.watch(l.d)
		asserts := func(who string) { l.takes("UPDATE", headers("P-Asserted-Identity: <sip:"+who+"@pbx.example>")) }
		asserts("a")
		require.Equal(t, told("a"), heard.next())
		require.Empty(t, other.next(), "one at a time")
		asserts("b")
		asserts("a")
		release <- struct{}{}
		require.Empty(t, heard.next(), "it knows of a")
		require.Equal(t, told("a"), other.next(), "once")
		asserts("b")
		require.Equal(t, told("b"), heard.next())
		asserts("a")
		asserts("b")
		asserts("a")
		close(release)
		require.Equal(t, told("a"), heard.next())
		require.Empty(t, other.next(), "b went by unheard")
		hangUp(t, l.d, l.peer)
	})
}

// FD23: what stands is for Info to say, also for who comes late or while others are
// told.
func TestOnIdentityTellsOfChangesOnly(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l, late, later := w.incoming(w.stack(stackIP), w.peer(peerIP)), &identities{}, &identities{}
		asserts := func(who string) { l.takes("UPDATE", headers("P-Asserted-Identity: <sip:"+who+"@pbx.example>")) }
		asserts("a")
		l.d.OnIdentity(func(who dialog.Identity) {
			late.tell(who)
			later.watch(l.d)
		})
		require.Empty(t, late.next())
		require.Equal(t, "<sip:a@pbx.example> asserted [] []", inWords(l.d.Info().Identity))
		asserts("a")
		require.Empty(t, late.next(), "no change")
		asserts("b")
		require.Len(t, late.next(), 1)
		require.Empty(t, later.next(), "registered when it was b already")
		hangUp(t, l.d, l.peer)
	})
}

func invited(headers ...dialog.Header) *sip.Request {
	req := sip.NewRequest(sip.INVITE, sip.Uri{Scheme: "sip", Host: "example.com"})
	for _, h := range headers {
		req.AppendHeader(sip.NewHeader(h.Name, h.Value))
	}
	return req
}

func texts[T fmt.Stringer](list []T) []string {
	var texts []string
	for _, v := range list {
		texts = append(texts, v.String())
	}
	return texts
}

// The examples of RFC 3325 10, RFC 5806 5 and RFC 7044 5.5, and what does not
// parse.
func TestIdentityHeadersOfTheNetworkAreRead(t *testing.T) {
	req := invited(
		dialog.Header{Name: "P-Asserted-Identity", Value: `"Cullen, \"C\" Jennings" <sip:fluffy@cisco.com>, tel:+14085264000`},
		dialog.Header{Name: "P-Asserted-Identity", Value: `<>, `},
		dialog.Header{Name: "Privacy", Value: "ID;critical"},
		dialog.Header{Name: "Diversion", Value: `<sip:+19195551004@uunet.com>;reason=time-of-day;counter=2, <tel:+12125551003>;reason="user-busy";privacy=full;screen=no;limit=5`},
		dialog.Header{Name: "History-Info", Value: `<sip:bob@example.com>;index=1, <sip:bob@192.0.2.4?Reason=SIP%3bcause%3D302%3Btext%3D%22Moved%22>;index=1.1;rc=1`},
		dialog.Header{Name: "History-Info", Value: `<sip:carol@example.com>;index=1.2;mp=1`},
	)
	require.Equal(t, []string{`"Cullen, \"C\" Jennings" <sip:fluffy@cisco.com>`, "<tel:+14085264000>"}, texts(dialog.AssertedIdentities(req)))
	require.Equal(t, `Cullen, "C" Jennings`, dialog.AssertedIdentities(req)[0].DisplayName)
	require.Equal(t, []string{"id", "critical"}, dialog.PrivacyOf(req))

	diversions := dialog.DiversionsOf(req)
	require.Equal(t, []string{
		"<sip:+19195551004@uunet.com>;reason=time-of-day;counter=2",
		"<tel:+12125551003>;reason=user-busy;limit=5;privacy=full;screen=no",
	}, texts(diversions))
	require.Equal(t, "user-busy", diversions[1].Reason)
	require.Equal(t, 2, diversions[0].Counter)

	history := dialog.HistoryOf(req)
	require.Equal(t, []string{
		"<sip:bob@example.com>;index=1", "<sip:bob@192.0.2.4?Reason=SIP%3bcause%3D302%3Btext%3D%22Moved%22>;index=1.1;rc=1",
		"<sip:carol@example.com>;index=1.2;mp=1",
	}, texts(history))
	require.Equal(t, []dialog.Reason{{Protocol: "SIP", Cause: 302, Text: "Moved"}}, history[1].Reasons())
	require.Empty(t, history[0].Reasons())
	require.Equal(t, "mp", history[2].ChangedBy)
	require.Equal(t, "1", history[2].From)

	for _, none := range []*sip.Request{invited(), invited(dialog.Header{Name: "Diversion"}, dialog.Header{Name: "Privacy"}, dialog.Header{Name: "History-Info", Value: `"`})} {
		require.Empty(t, dialog.AssertedIdentities(none))
		require.Empty(t, dialog.PrivacyOf(none))
		require.Empty(t, dialog.DiversionsOf(none))
		require.Empty(t, dialog.HistoryOf(none))
	}
}
