package test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testcert"
	"sipdialog.example/dialog/internal/testkit"
)

// One stack listens on every transport at once, on ports that were free, and
// each carries a call.
func TestOneStackServesEveryTransport(t *testing.T) {
	ca := testcert.New(t)
	bubble(t, func(t *testing.T, w *world) {
		b := w.site("10.0.0.2", "udp", ca, func(c *dialog.StackConfig) {
			c.Transport.Port = 0
			for _, transport := range testkit.AllTransports()[1:] {
				more := dialog.TransportConfig{Protocol: transport, Address: "10.0.0.2"}
				if testkit.IsSecure(transport) {
					more.TLSConfig = ca.Server("10.0.0.2")
				}
				c.Listeners = append(c.Listeners, more)
			}
			c.TLS = ca.Client()
		})
		b.follows(t)
		calls := b.takes(t)
		addresses := b.Addrs()
		require.Len(t, addresses, len(testkit.AllTransports()))
		for i, transport := range testkit.AllTransports() {
			require.NotZero(t, addresses[i].Port())
			a := w.site([]string{"10.0.1.1", "10.0.1.2", "10.0.1.3", "10.0.1.4", "10.0.1.5"}[i], transport, ca)
			a.follows(t)
			caller, callee := a.call(t, testkit.URIOver(transport, "bob", addresses[i]), calls)
			converse(t, caller, callee, i%2 == 0)
			for _, m := range a.messages(true, "") {
				require.Equal(t, addresses[i], m.Remote, transport)
			}
		}
	})
}

// What an application says of itself goes with every request it may add
// headers to, and with the answer.
func TestFurtherHeadersGoWithEveryRequest(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		asserted := dialog.Header{Name: "P-Asserted-Identity", Value: "<sip:alice@example.com>"}
		ctx := context.Background()
		b.OnIncomingDialog(func(d dialog.IDialog) {
			if err := d.Accept(ctx, withSDP(answerSDP), dialog.WithHeader("P-Asserted-Identity", "<sip:bob@example.com>")); err != nil {
				t.Errorf("accept: %v", err)
			}
		})
		opts := offer(offerSDP)
		opts.Headers = []dialog.Header{asserted}
		d, err := a.NewInvite(ctx, uri("bob", "10.0.0.2"), opts)
		require.NoError(t, err)
		call := d.(*dialog.Dialog)
		require.NoError(t, call.WaitAnswer(ctx))
		synctest.Wait()
		require.NoError(t, call.ReInvite(ctx, opts))
		require.NoError(t, call.Refer(ctx, uri("carol", "10.0.0.3"), dialog.ReferOpts{Headers: map[string]string{asserted.Name: asserted.Value}}))
		require.NoError(t, call.ByeWith(ctx, dialog.ByeOpts{Headers: []dialog.Header{asserted}}))
		synctest.Wait()
		invites := w.sent("10.0.0.1", "INVITE")
		require.Len(t, invites, 2)
		for _, m := range append(invites, w.sent("10.0.0.1", "REFER")[0], w.sent("10.0.0.1", "BYE")[0]) {
			require.Equal(t, asserted.Value, value(m.msg, asserted.Name), m.raw)
		}
		require.Equal(t, "<sip:bob@example.com>", value(w.sent("10.0.0.2", "200 INVITE")[0].msg, asserted.Name))
	})
}

// The callee learns who calls, and when what happened; what it is given is its
// own.
func TestCalleeSeesTheCallAsItCame(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		calls := waiting(b)
		began := time.Now()
		opts := offer(offerSDP)
		opts.From = &dialog.Address{DisplayName: "Alice", URI: sip.Uri{Scheme: "sip", User: "alice", Host: "example.com"}}
		opts.Headers = []dialog.Header{{Name: "Subject", Value: "lunch"}}
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), opts)
		require.NoError(t, err)
		callee := <-calls
		time.Sleep(3 * time.Second)
		require.NoError(t, callee.Accept(context.Background(), withSDP(answerSDP)))
		synctest.Wait()

		info := callee.Info()
		require.False(t, info.IsUAC)
		require.Equal(t, "Alice", info.Remote.DisplayName)
		require.Equal(t, "sip:alice@example.com", info.Remote.URI.String())
		require.Equal(t, "sip:bob@10.0.0.2:5060", info.Local.URI.String())
		require.Len(t, info.History, 2)
		require.Equal(t, began, info.History[0].At)
		require.Equal(t, began.Add(3*time.Second), info.History[1].At)

		req := callee.Request()
		require.Equal(t, "sip:bob@10.0.0.2:5060", req.Recipient.String())
		require.Equal(t, `"Alice" <sip:alice@example.com>;tag=`+d.Key().LocalTag, req.From().Value())
		require.Equal(t, "lunch", value(req, "Subject"))
		require.Equal(t, "10.0.0.1:5060", req.Source())
		require.Equal(t, "UDP", req.Transport())
		require.Equal(t, offerSDP, string(req.Body()))
		req.From().Address.User, req.Body()[0] = "mallory", 'x'
		req.RemoveHeader("Subject")
		again := callee.Request()
		require.Equal(t, "alice", again.From().Address.User)
		require.Equal(t, offerSDP, string(again.Body()))
		require.Equal(t, "lunch", value(again, "Subject"))
		require.NoError(t, d.Close())
		<-callee.Done()
		require.Nil(t, d.(*dialog.Dialog).Request(), "a call of ours")
	})
}

// Hangup ends a call in any state, by what that state has for it.
func TestHangupEndsACallInAnyState(t *testing.T) {
	ctx := context.Background()
	t.Run("trying", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
			d, err := a.NewInvite(ctx, uri("bob", "10.0.0.9"), offer(offerSDP))
			require.NoError(t, err)
			invite := p.next("INVITE")
			result := began(func() error { return d.(*dialog.Dialog).Hangup(ctx) })
			synctest.Wait()
			require.Empty(t, w.sent("10.0.0.1", "CANCEL"), "RFC 3261 9.1: not before a response")
			p.reply(invite, dialogtest.Response{Code: 100})
			p.reply(p.next("CANCEL"), dialogtest.Response{Code: 200})
			p.reply(invite, dialogtest.Response{Code: 487, ToTag: "x"})
			require.NoError(t, <-result)
			<-d.(*dialog.Dialog).Done()
		})
	})
	t.Run("ringing here", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
			calls := waiting(b)
			require.NoError(t, p.Send(b.Addr(), p.Request(p.invite("rings"))))
			d := <-calls
			require.NoError(t, d.Hangup(ctx))
			require.Equal(t, 480, p.final("INVITE").StatusCode)
			<-d.Done()
		})
	})
	for name, caller := range map[string]bool{"established, by the caller": true, "established, by the callee": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				first, second := w.established(w.stack("10.0.0.1"), w.stack("10.0.0.2"))
				if !caller {
					first, second = second, first
				}
				require.NoError(t, first.Hangup(ctx))
				<-second.Done()
				require.Equal(t, dialog.Cause{By: dialog.PartyRemote, Method: "BYE"}, second.Cause())
				require.Equal(t, dialog.PartyLocal, first.Cause().By)
				require.NoError(t, first.Hangup(ctx), "it has ended")
				require.NoError(t, second.Hangup(ctx))
			})
		})
	}
}

// records is a slog handler that keeps what it is given.
type records struct {
	attrs []slog.Attr
	kept  *kept
}

type kept struct {
	mu   sync.Mutex // guards the field below
	list []map[string]string
}

func (r records) Enabled(context.Context, slog.Level) bool { return true }
func (r records) WithGroup(string) slog.Handler            { return r }
func (r records) WithAttrs(attrs []slog.Attr) slog.Handler {
	return records{append(r.attrs[:len(r.attrs):len(r.attrs)], attrs...), r.kept}
}

func (r records) Handle(_ context.Context, record slog.Record) error {
	values := map[string]string{"message": record.Message}
	for _, a := range r.attrs {
		values[a.Key] = a.Value.String()
	}
	record.Attrs(func(a slog.Attr) bool { values[a.Key] = a.Value.String(); return true })
	r.kept.mu.Lock()
	defer r.kept.mu.Unlock()
	r.kept.list = append(r.kept.list, values)
	return nil
}

// Whatever is logged of a call says which one.
func TestEveryRecordOfACallNamesIt(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		all := &kept{}
		b := w.stack("10.0.0.2", func(c *dialog.StackConfig) { c.Slog = slog.New(records{kept: all}) })
		p := w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		ctx := context.Background()
		d.OnStateChange(func(dialog.DialogState) { panic("OnStateChange") })
		d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { panic("OnOffer") })
		require.NoError(t, d.OnRequest("INFO", func(context.Context, *sip.Request) dialog.Answer { panic("OnRequest") }))
		b.OnIncomingRefer(func(dialog.IDialog, sip.Uri, *dialog.ReplacesInfo) { panic("OnIncomingRefer") })
		require.Equal(t, 500, p.ask(b, inside("INFO", 11)).StatusCode)
		require.Equal(t, 500, p.ask(b, inside("INVITE", 12, contactOfPeer)).StatusCode)
		require.NoError(t, p.Send(b.Addr(), p.Request(inside("ACK", 12))))
		require.Equal(t, 202, p.ask(b, inside("REFER", 13, contactOfPeer, "Refer-To: <sip:c@10.0.0.3>")).StatusCode)
		w.net.Host("10.0.0.2").Unreachable(true) // its answers cannot be written
		require.Error(t, d.Bye(ctx, ""))
		<-d.Done()
		w.net.Host("10.0.0.2").Unreachable(false)
		b.OnIncomingDialog(func(dialog.IDialog) { panic("OnIncomingDialog") })
		require.Equal(t, 500, p.ask(b, dialogtest.Request{Method: "INVITE", URI: "sip:b@10.0.0.2", CallID: d.Key().CallID + "2", Headers: []string{contactOfPeer}}).StatusCode)
		synctest.Wait()

		all.mu.Lock()
		defer all.mu.Unlock()
		where := make(map[string]bool)
		for _, r := range all.list {
			where[r["where"]] = true
			require.Contains(t, []string{d.Key().CallID, d.Key().CallID + "2"}, r["call_id"], "%v", r)
		}
		for _, w := range []string{"notification", "OnOffer", "OnIncomingRefer", "OnIncomingDialog", "request handler of INFO"} {
			require.True(t, where[w], w)
		}
	})
}
