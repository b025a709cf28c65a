package test

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testcert"
)

// How errors read: this package, the method that was called, the reason, each once
// and in one line.

// failure is an error as the application gets it.
type failure struct {
	err error
	// text is what it says, is and as what errors.Is and errors.As find in it.
	text string
	is   []error
	as   any
}

func (f failure) check(t *testing.T) {
	t.Helper()
	require.EqualError(t, f.err, f.text)
	readsWell(t, f.err)
	for _, is := range f.is {
		require.ErrorIs(t, f.err, is)
	}
	if f.as != nil {
		require.ErrorAs(t, f.err, f.as)
	}
}

// readsWell checks what holds for every error.
func readsWell(t *testing.T, err error) {
	t.Helper()
	text := err.Error()
	require.True(t, strings.HasPrefix(text, "dialog: "), text)
	require.Equal(t, 1, strings.Count(text, "dialog: "), text)
	for _, inside := range []string{"transport: ", "txn: ", "\n", "<nil>", "%!"} {
		require.NotContains(t, text, inside)
	}
}

// FA4: calls of ours that come to nothing.
func TestErrorsOfFailedCallsSayWhy(t *testing.T) {
	ca := testcert.New(t)
	call := func(w *world, s *dialog.Stack, target sip.Uri) error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		d, err := s.NewInvite(ctx, target, offer(offerSDP))
		if err != nil {
			return err
		}
		return d.(*dialog.Dialog).WaitAnswer(context.Background())
	}
	parsed := func(text string) (uri sip.Uri) {
		require.NoError(t, sip.ParseUri(text, &uri))
		return uri
	}
	answered := func(code int) func(w *world) failure {
		return func(w *world) failure {
			p := w.peer(peerIP)
			result := began(func() error { return call(w, w.stack(stackIP), uri("bob", peerIP)) })
			if code != 0 {
				p.reply(p.next("INVITE"), dialogtest.Response{Code: code, ToTag: farTag})
			}
			return failure{err: <-result}
		}
	}
	for name, c := range map[string]struct {
		fail func(w *world) failure
		text string
		is   []error
		as   any
	}{
		"a name that nobody has": {
			func(w *world) failure {
				return failure{err: call(w, w.stack(stackIP, func(c *dialog.StackConfig) { c.Resolver = nil }), parsed("sip:bob@nowhere.test"))}
			},
			"dialog: NewInvite: transport failed: lookup nowhere.test: no such host",
			[]error{dialog.ErrTransport}, new(*net.DNSError),
		},
		"a connection that is refused": {
			func(w *world) failure {
				w.net.Host(peerIP)
				return failure{err: call(w, w.stack(stackIP, withTCP), parsed("sip:bob@"+peerIP+";transport=tcp"))}
			},
			"dialog: NewInvite: transport failed: dial tcp 10.0.0.9:5060: connect: connection refused",
			[]error{dialog.ErrTransport, syscall.ECONNREFUSED}, new(*net.OpError),
		},
		"a connection that is not made in time": {
			func(w *world) failure {
				return failure{err: call(w, w.stack(stackIP, withTCP), parsed("sip:bob@10.9.9.9;transport=tcp"))}
			},
			"dialog: NewInvite: dial TCP 10.9.9.9:5060: context deadline exceeded",
			[]error{context.DeadlineExceeded}, nil,
		},
		"a host that cannot be reached": {
			func(w *world) failure {
				s := w.stack(stackIP)
				w.net.Host(stackIP).Unreachable(true)
				return failure{err: call(w, s, uri("bob", peerIP))}
			},
			"dialog: NewInvite: transport failed: write udp 10.0.0.1:5060->10.0.0.9:5060: sendto: network is unreachable",
			[]error{dialog.ErrTransport, syscall.ENETUNREACH}, nil,
		},
		"a certificate for somebody else": {
			func(w *world) failure {
				w.site(peerIP, "tls", ca, func(c *dialog.StackConfig) { c.Transport.TLSConfig = ca.Server("other.test") })
				return failure{err: call(w, w.site(stackIP, "tls", ca).Stack, parsed("sips:bob@"+peerIP))}
			},
			"dialog: NewInvite: transport failed: TLS failed: 10.0.0.9:5061: tls: failed to verify certificate: " +
				"x509: cannot validate certificate for 10.0.0.9 because it doesn't contain any IP SANs",
			[]error{dialog.ErrTransport}, new(x509.HostnameError),
		},
		"a server that speaks no WebSocket": {
			func(w *world) failure {
				listener, err := w.net.Host(peerIP).Listen(context.Background(), "tcp", peerIP+":80")
				require.NoError(t, err)
				go func() {
					conn, err := listener.Accept()
					if err == nil {
						_, _ = http.ReadRequest(bufio.NewReader(conn))
						_, _ = conn.Write([]byte("HTTP/1.1 404 Not Found\r\n\r\n"))
						_ = conn.Close()
					}
				}()
				return failure{err: call(w, w.site(stackIP, "ws", nil).Stack, parsed("sip:bob@"+peerIP+":80;transport=ws"))}
			},
			"dialog: NewInvite: transport failed: WebSocket handshake failed: 10.0.0.9:80: unexpected HTTP response status: 404",
			[]error{dialog.ErrTransport}, nil,
		},
		"nobody answers": {answered(0), "dialog: WaitAnswer: no response in time", []error{dialog.ErrTimeout}, nil},
		"busy":           {answered(486), "dialog: WaitAnswer: INVITE answered 486 Busy Here", nil, new(*dialog.ResponseError)},
		"a connection that is lost": {
			func(w *world) failure {
				s, far := w.site(stackIP, "tcp", nil), w.far("tcp", ca)
				d, err := s.NewInvite(context.Background(), far.uri("far"), offer(offerSDP))
				require.NoError(t, err)
				far.next("INVITE")
				w.net.BreakStreams()
				return failure{err: d.(*dialog.Dialog).WaitAnswer(context.Background())}
			},
			"dialog: WaitAnswer: transport failed: read tcp 10.0.0.1:49152->10.0.0.9:5060: read: connection reset by peer",
			[]error{dialog.ErrTransport, syscall.ECONNRESET}, nil,
		},
		"given up": {
			func(w *world) failure {
				l := w.alerting(w.stack(stackIP), w.peer(peerIP))
				l.over()
				return failure{err: l.d.WaitAnswer(context.Background())}
			},
			"dialog: WaitAnswer: call canceled", []error{dialog.ErrCanceled}, nil,
		},
		"a number": {
			func(w *world) failure { return failure{err: call(w, w.stack(stackIP), parsed("tel:+15551234"))} },
			"dialog: NewInvite: invalid argument: target tel:+15551234 is a number without a host: " +
				"use sip:NUMBER@HOST;user=phone with the host of a gateway (RFC 3261 19.1.6)",
			[]error{dialog.ErrInvalidArgument}, nil,
		},
		"a web page": {
			func(w *world) failure { return failure{err: call(w, w.stack(stackIP), parsed("https://example.test"))} },
			`dialog: NewInvite: invalid argument: target "https://example.test" is not a SIP URI`,
			[]error{dialog.ErrInvalidArgument}, nil,
		},
		"no host": {
			func(w *world) failure {
				return failure{err: call(w, w.stack(stackIP), sip.Uri{Scheme: "sip", User: "bob"})}
			},
			"dialog: NewInvite: invalid argument: target without a host",
			[]error{dialog.ErrInvalidArgument}, nil,
		},
		"not started": {
			func(w *world) failure {
				s, err := dialog.NewStack(nil)
				require.NoError(t, err)
				return failure{err: call(w, s, uri("bob", peerIP))}
			},
			"dialog: NewInvite: stack not started", []error{dialog.ErrNotStarted}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				f := c.fail(w)
				f.text, f.is, f.as = c.text, c.is, c.as
				f.check(t)
			})
		})
	}
}

// FA4: a port that is taken, and a configuration that means nothing.
func TestErrorsOfAStackThatDoesNotStartSayWhy(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.stack(stackIP)
		s, err := dialog.NewStack(&dialog.StackConfig{
			Transport: &dialog.TransportConfig{Protocol: "udp", Address: stackIP, Port: 5060}, Network: w.net.Host(stackIP),
		})
		require.NoError(t, err)
		failure{err: s.Start(context.Background()), is: []error{dialog.ErrTransport, syscall.EADDRINUSE},
			text: "dialog: Start: transport failed: listen udp 10.0.0.1:5060: bind: address already in use"}.check(t)
		_, err = dialog.NewStack(&dialog.StackConfig{Transport: &dialog.TransportConfig{Protocol: "pigeon"}})
		failure{err: err, is: []error{dialog.ErrInvalidArgument},
			text: `dialog: NewStack: invalid argument: unknown transport "pigeon"`}.check(t)
		require.NoError(t, s.Shutdown(context.Background()))
		failure{err: s.Start(context.Background()), is: []error{dialog.ErrShutdown}, text: "dialog: Start: stack shut down"}.check(t)
	})
}

// methods are those of a call, by name.
var methods = map[string]func(ctx context.Context, d *dialog.Dialog) error{
	"Accept":      func(ctx context.Context, d *dialog.Dialog) error { return d.Accept(ctx) },
	"Reject":      func(ctx context.Context, d *dialog.Dialog) error { return d.Reject(ctx, 486, "") },
	"RejectWith":  func(ctx context.Context, d *dialog.Dialog) error { return d.RejectWith(ctx, 486, "") },
	"Provisional": func(ctx context.Context, d *dialog.Dialog) error { return d.Provisional(ctx, 183, "") },
	"ReInvite":    func(ctx context.Context, d *dialog.Dialog) error { return d.ReInvite(ctx, offer(offerSDP)) },
	"Renegotiate": func(ctx context.Context, d *dialog.Dialog) error {
		_, err := d.Renegotiate(ctx, ourSession())
		return err
	},
	"Hold":   func(ctx context.Context, d *dialog.Dialog) error { return d.Hold(ctx) },
	"Resume": func(ctx context.Context, d *dialog.Dialog) error { return d.Resume(ctx) },
	"Update": func(ctx context.Context, d *dialog.Dialog) error { _, err := d.Update(ctx, nil); return err },
	"Refer": func(ctx context.Context, d *dialog.Dialog) error {
		return d.Refer(ctx, uri("carol", otherIP), dialog.ReferOpts{})
	},
	"SendRefer": func(ctx context.Context, d *dialog.Dialog) error { return d.SendRefer(ctx, uri("carol", otherIP), nil) },
	"ReferReplace": func(ctx context.Context, d *dialog.Dialog) error {
		return d.ReferReplace(ctx, d, dialog.ReferOpts{})
	},
	"SendReferWithReplaces": func(ctx context.Context, d *dialog.Dialog) error {
		return d.SendReferWithReplaces(ctx, uri("carol", otherIP), d, nil)
	},
	"WaitRefer": func(ctx context.Context, d *dialog.Dialog) error { _, err := d.WaitRefer(ctx); return err },
	"FollowRefer": func(ctx context.Context, d *dialog.Dialog) error {
		_, err := d.FollowRefer(ctx, uri("x", otherIP), dialog.InviteOpts{})
		return err
	},
	"Do": func(ctx context.Context, d *dialog.Dialog) error {
		_, err := d.Do(ctx, sip.NewRequest(sip.OPTIONS, sip.Uri{}))
		return err
	},
	"SendInfo":        func(ctx context.Context, d *dialog.Dialog) error { return d.SendInfo(ctx, ourSession()) },
	"SendInfoPackage": func(ctx context.Context, d *dialog.Dialog) error { return d.SendInfoPackage(ctx, "x", ourSession()) },
	"SendMessage":     func(ctx context.Context, d *dialog.Dialog) error { return d.SendMessage(ctx, ourSession()) },
	"SendDTMF":        func(ctx context.Context, d *dialog.Dialog) error { return d.SendDTMF(ctx, '1', dialog.DTMFOpts{}) },
	"WaitAnswer":      func(ctx context.Context, d *dialog.Dialog) error { return d.WaitAnswer(ctx) },
	"Bye":             func(ctx context.Context, d *dialog.Dialog) error { return d.Bye(ctx, "") },
	"ByeWith":         func(ctx context.Context, d *dialog.Dialog) error { return d.ByeWith(ctx, dialog.ByeOpts{}) },
	"Hangup":          func(ctx context.Context, d *dialog.Dialog) error { return d.Hangup(ctx) },
}

// FA4: whatever a method is made of, its error names the method that was called: in
// every state, without a context, and when the peer refuses or does not answer.
func TestErrorsNameTheMethodThatWasCalled(t *testing.T) {
	none := context.Context(nil)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for name, op := range methods {
		for state, make := range map[string]func(w *world) *peerCall{
			"calling":     func(w *world) *peerCall { return w.alerting(w.stack(stackIP), w.peer(peerIP)) },
			"ringing":     func(w *world) *peerCall { return w.rings(w.stack(stackIP), w.peer(peerIP)) },
			"established": func(w *world) *peerCall { return w.incoming(w.stack(stackIP), w.peer(peerIP)) },
			"ended": func(w *world) *peerCall {
				l := w.incoming(w.stack(stackIP), w.peer(peerIP))
				l.ask("BYE")
				synctest.Wait()
				return l
			},
		} {
			t.Run(name+" "+state, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					l := make(w)
					for _, ctx := range []context.Context{none, ended} {
						namesItself(t, name, op(ctx, l.d))
					}
					result := began(func() error { return op(context.Background(), l.d) })
					if in, ok := l.asked(); ok {
						l.reply(in, dialogtest.Response{Code: 488})
					}
					namesItself(t, name, <-result)
				})
			})
		}
	}
}

// asked is the next request of the stack's that has to be answered, if one comes.
func (l *peerCall) asked() (in dialogtest.Received, ok bool) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for {
		in, err := l.Recv(ctx)
		if err != nil {
			return in, false
		}
		if req := in.Request(); req != nil && req.Method != sip.ACK && req.Method != sip.INVITE || req != nil && l.final.Message != nil {
			return in, true
		}
	}
}

func namesItself(t *testing.T, op string, err error) {
	t.Helper()
	if err == nil || op == "WaitAnswer" && errors.Is(err, context.Canceled) { // the context's own, as documented
		return
	}
	readsWell(t, err)
	require.Regexp(t, `^dialog: `+op+`(: | needs )`, err.Error())
	require.Equal(t, 1, strings.Count(err.Error(), op), err.Error())
}

// publicCalls are all methods of a dialog with the least that can be handed in:
// each with a nil context too.
func publicCalls(d *dialog.Dialog, ctx context.Context) map[string]func() {
	return map[string]func(){
		"Key":           func() { d.Key() },
		"State":         func() { _ = d.State().String() },
		"Cause":         func() { _ = d.Cause().String() },
		"IsUAC":         func() { d.IsUAC() },
		"IsUAS":         func() { d.IsUAS() },
		"Done":          func() { d.Done() },
		"OnStateChange": func() { d.OnStateChange(nil) },
		"OnBody":        func() { d.OnBody(nil) },
		"OnOffer":       func() { d.OnOffer(nil) },
		"Accept":        func() { _ = d.Accept(ctx) },
		"Accept nil":    func() { _ = d.Accept(ctx, nil) },
		"Reject":        func() { _ = d.Reject(ctx, 0, "") },
		"Reject 486":    func() { _ = d.Reject(ctx, 486, "") },
		"Refer":         func() { _ = d.Refer(ctx, sip.Uri{}, dialog.ReferOpts{}) },
		"Refer to":      func() { _ = d.Refer(ctx, uri("carol", "10.0.0.3"), dialog.ReferOpts{}) },
		"ReferReplace":  func() { _ = d.ReferReplace(ctx, nil, dialog.ReferOpts{}) },
		"ReferReplace (*Dialog)(nil)": func() {
			_ = d.ReferReplace(ctx, (*dialog.Dialog)(nil), dialog.ReferOpts{})
		},
		"ReferReplace zero": func() { _ = d.ReferReplace(ctx, new(dialog.Dialog), dialog.ReferOpts{}) },
		"WaitRefer":         func() { _, _ = d.WaitRefer(ctx) },
		"SendRefer":         func() { _ = d.SendRefer(ctx, sip.Uri{}, nil) },
		"SendRefer to":      func() { _ = d.SendRefer(ctx, uri("carol", "10.0.0.3"), nil) },
		"SendReferWithReplaces": func() {
			_ = d.SendReferWithReplaces(ctx, sip.Uri{}, nil, nil)
		},
		"SendReferWithReplaces zero": func() {
			_ = d.SendReferWithReplaces(ctx, uri("carol", "10.0.0.3"), new(dialog.Dialog), nil)
		},
		"SendReferWithReplaces itself": func() {
			_ = d.SendReferWithReplaces(ctx, uri("carol", "10.0.0.3"), d, nil)
		},
		"HandleIncomingRefer":     func() { _ = d.HandleIncomingRefer(nil, sip.Uri{}, nil) },
		"HandleIncomingRefer new": func() { _ = d.HandleIncomingRefer(sip.NewRequest(sip.REFER, sip.Uri{}), sip.Uri{}, nil) },
		"GetReferSubscription":    func() { d.GetReferSubscription("") },
		"GetAll":                  func() { d.GetAllReferSubscriptions() },
		"WaitAnswer":              func() { _ = d.WaitAnswer(ctx) },
		"ReInvite":                func() { _ = d.ReInvite(ctx, dialog.InviteOpts{}) },
		"ReInvite nil body":       func() { _ = d.ReInvite(ctx, dialog.InviteOpts{Body: (*dialog.BodyImpl)(nil)}) },
		"Bye":                     func() { _ = d.Bye(ctx, "") },
		"Hangup":                  func() { _ = d.Hangup(ctx) },
		"Close":                   func() { _ = d.Close() },
	}
}

// A14: no public method panics, whatever is handed in and whatever the dialog:
// zero, ringing, established, ended.
func TestNoMethodOfADialogPanics(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		ringing := func() *dialog.Dialog {
			incoming := make(chan dialog.IDialog, 1)
			b.OnIncomingDialog(func(d dialog.IDialog) { incoming <- d })
			_, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
			require.NoError(t, err)
			return (<-incoming).(*dialog.Dialog)
		}
		dialogs := map[string]func() *dialog.Dialog{
			"zero":        func() *dialog.Dialog { return new(dialog.Dialog) },
			"ringing":     ringing,
			"established": func() *dialog.Dialog { d, _ := w.established(a, b); return d },
			"callee":      func() *dialog.Dialog { _, d := w.established(a, b); return d },
			"terminated": func() *dialog.Dialog {
				d, _ := w.established(a, b)
				require.NoError(t, d.Bye(context.Background(), ""))
				return d
			},
		}
		//nolint:staticcheck // a nil context is the point
		for _, ctx := range []context.Context{nil, context.Background()} {
			for kind, make := range dialogs {
				for name := range publicCalls(nil, nil) {
					d := make()
					bounded, cancel := ctx, func() {}
					if ctx != nil {
						bounded, cancel = context.WithTimeout(ctx, time.Second)
					}
					require.NotPanics(t, publicCalls(d, bounded)[name], "%s of a %s dialog", name, kind)
					cancel()
					_ = d.Close()
					synctest.Wait()
				}
			}
		}
		w.works(a, b)
	})
}

// A14: no public method of a stack panics: zero, not started, running, ended.
func TestNoMethodOfAStackPanics(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var none context.Context // not a context at all is the point
		made, err := dialog.NewStack(nil)
		require.NoError(t, err)
		ended := w.stack("10.0.0.1")
		require.NoError(t, ended.Shutdown(context.Background()))
		stacks := map[string]*dialog.Stack{
			"zero": new(dialog.Stack), "not started": made, "running": w.stack("10.0.0.2"), "ended": ended,
		}
		for kind, s := range stacks {
			for _, ctx := range []context.Context{none, context.Background()} {
				calls := map[string]func(){
					"NewInvite":    func() { _, _ = s.NewInvite(ctx, sip.Uri{}, dialog.InviteOpts{}) },
					"NewInvite to": func() { _, _ = s.NewInvite(ctx, uri("bob", "10.0.0.9"), dialog.InviteOpts{}) },
					"NewInvite nil": func() {
						_, _ = s.NewInvite(ctx, uri("bob", "10.0.0.9"), dialog.InviteOpts{Body: (*dialog.SimpleBody)(nil)})
					},
					"DialogByKey":    func() { s.DialogByKey(dialog.DialogKey{}) },
					"OnIncoming":     func() { s.OnIncomingDialog(nil) },
					"OnRefer":        func() { s.OnIncomingRefer(nil) },
					"Addr":           func() { s.Addr() },
					"Start nil":      func() { _ = s.Start(none) },
					"Shutdown nil":   func() { _ = s.Shutdown(none) },
					"NewStack empty": func() { _, _ = dialog.NewStack(&dialog.StackConfig{Transport: &dialog.TransportConfig{}}) },
				}
				if kind == "zero" {
					calls["Start"] = func() { _ = s.Start(ctx) }
					calls["Shutdown"] = func() { _ = s.Shutdown(ctx) }
				}
				for name, call := range calls {
					require.NotPanics(t, call, "%s of a %s stack", name, kind)
				}
			}
		}
		var sub *dialog.ReferSubscription
		for _, sub := range []*dialog.ReferSubscription{sub, {}, {ID: "2 REFER"}} {
			require.NotPanics(t, func() {
				require.Error(t, sub.SendNotify(none, 200, "OK"))
				require.Error(t, sub.SendNotify(context.Background(), 200, "OK"))
				require.Error(t, sub.SendNotify(context.Background(), 0, ""))
				sub.Status()
				<-sub.Done()
			})
		}
	})
}
