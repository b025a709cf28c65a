package test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// breaks are texts that would end the line they stand in.
var breaks = []string{"a\r\nX-Evil: 1", "a\rb", "a\nb", "a\x00b", "\r\n\r\nINVITE sip:x@y SIP/2.0", "a\x7fb"}

// handing is one way of handing something over.
type handing struct {
	name string
	hand func(l *peerCall, text string) error
}

// handings are all ways into a message of an established call, and outside it.
func handings(s *dialog.Stack) []handing {
	ctx := context.Background()
	typed := func(text string) dialog.Body { return dialog.NewBody(text, []byte("x")) }
	plain := typed("text/plain")
	all := []handing{
		{"NewInvite, content type", func(_ *peerCall, text string) error {
			_, err := s.NewInvite(ctx, uri("bob", otherIP), dialog.InviteOpts{Body: typed(text)})
			return err
		}},
		{"ReInvite, content type", func(l *peerCall, text string) error { return l.d.ReInvite(ctx, dialog.InviteOpts{Body: typed(text)}) }},
		{"Renegotiate, content type", func(l *peerCall, text string) error { _, err := l.d.Renegotiate(ctx, typed(text)); return err }},
		{"Update, content type", func(l *peerCall, text string) error { _, err := l.d.Update(ctx, typed(text)); return err }},
		{"SendInfo, content type", func(l *peerCall, text string) error { return l.d.SendInfo(ctx, typed(text)) }},
		{"SendMessage, content type", func(l *peerCall, text string) error { return l.d.SendMessage(ctx, typed(text)) }},
		{"SendInfoPackage, content type", func(l *peerCall, text string) error { return l.d.SendInfoPackage(ctx, "known", typed(text)) }},
		{"SendInfoPackage, name", func(l *peerCall, text string) error { return l.d.SendInfoPackage(ctx, text, plain) }},
		{"Bye, reason", func(l *peerCall, text string) error { return l.d.Bye(ctx, text) }},
		{"Bye, whole reason", func(l *peerCall, text string) error { return l.d.Bye(ctx, "SIP;cause=200;text="+text) }},
		{"ByeWith, text", func(l *peerCall, text string) error {
			return l.d.ByeWith(ctx, dialog.ByeOpts{Reasons: []dialog.Reason{{Protocol: "SIP", Text: text}}})
		}},
		{"ByeWith, protocol", func(l *peerCall, text string) error {
			return l.d.ByeWith(ctx, dialog.ByeOpts{Reasons: []dialog.Reason{{Protocol: text}}})
		}},
		{"SendNotify, reason", func(l *peerCall, text string) error {
			return l.d.GetAllReferSubscriptions()[0].SendNotify(ctx, 180, text)
		}},
		{"Stack.OnRequest, method", func(_ *peerCall, text string) error { return s.OnRequest(text, nil) }},
		{"Dialog.OnRequest, method", func(l *peerCall, text string) error { return l.d.OnRequest(text, nil) }},
		{"NewInvite, option tag", func(_ *peerCall, text string) error {
			_, err := s.NewInvite(ctx, uri("bob", otherIP), dialog.InviteOpts{Require: []string{text}})
			return err
		}},
		{"NewInvite, display name", func(_ *peerCall, text string) error {
			_, err := s.NewInvite(ctx, uri("bob", otherIP), dialog.InviteOpts{From: &dialog.Address{DisplayName: text, URI: uri("a", stackIP)}})
			return err
		}},
		{"Refer, display name", func(l *peerCall, text string) error {
			return l.d.Refer(ctx, uri("c", otherIP), dialog.ReferOpts{ReferredBy: &dialog.Address{DisplayName: text, URI: uri("a", stackIP)}})
		}},
		{"Refer, Refer-Sub", func(l *peerCall, text string) error {
			return l.d.Refer(ctx, uri("c", otherIP), dialog.ReferOpts{ReferSub: &text})
		}},
		{"Refer, target dialog", func(l *peerCall, text string) error {
			return l.d.Refer(ctx, uri("c", otherIP), dialog.ReferOpts{TargetDialog: &dialog.DialogKey{CallID: "c", LocalTag: text, RemoteTag: "r"}})
		}},
		{"SendReferWithReplaces, key", func(l *peerCall, text string) error {
			return l.d.SendReferWithReplaces(ctx, uri("c", otherIP), keyed{key: dialog.DialogKey{CallID: text, LocalTag: "l", RemoteTag: "r"}}, nil)
		}},
		{"NewInvite, Replaces", func(_ *peerCall, text string) error {
			_, err := s.NewInvite(ctx, uri("bob", otherIP), dialog.InviteOpts{Replaces: &dialog.ReplacesInfo{CallID: "c", FromTag: text, ToTag: "t"}})
			return err
		}},
		{"NewInvite, Join", func(_ *peerCall, text string) error {
			_, err := s.NewInvite(ctx, uri("bob", otherIP), dialog.InviteOpts{Join: &dialog.ReplacesInfo{CallID: text, FromTag: "f", ToTag: "t"}})
			return err
		}},
		{"Stack.Do, method", func(_ *peerCall, text string) error {
			_, err := s.Do(ctx, sip.NewRequest(sip.RequestMethod(text), uri("b", otherIP)))
			return err
		}},
		{"Dialog.Do, method", func(l *peerCall, text string) error {
			_, err := l.d.Do(ctx, sip.NewRequest(sip.RequestMethod(text), sip.Uri{}))
			return err
		}},
		{"Stack.Do, version", func(_ *peerCall, text string) error {
			req := sip.NewRequest(sip.OPTIONS, uri("b", otherIP))
			req.SipVersion = text
			_, err := s.Do(ctx, req)
			return err
		}},
		{"Stack.Do, From", func(_ *peerCall, text string) error {
			req := sip.NewRequest(sip.OPTIONS, uri("b", otherIP))
			req.AppendHeader(&sip.FromHeader{DisplayName: text, Address: uri("a", stackIP)})
			_, err := s.Do(ctx, req)
			return err
		}},
		{"Stack.Do, tag", func(_ *peerCall, text string) error {
			req := sip.NewRequest(sip.OPTIONS, uri("b", otherIP))
			req.AppendHeader(&sip.FromHeader{Address: uri("a", stackIP), Params: sip.HeaderParams{{K: "tag", V: text}}})
			_, err := s.Do(ctx, req)
			return err
		}},
	}
	for place, call := range map[string]func(l *peerCall, h dialog.Header) error{
		"NewInvite": func(_ *peerCall, h dialog.Header) error {
			_, err := s.NewInvite(ctx, uri("bob", otherIP), dialog.InviteOpts{Headers: []dialog.Header{h}})
			return err
		},
		"ReInvite": func(l *peerCall, h dialog.Header) error {
			return l.d.ReInvite(ctx, dialog.InviteOpts{Headers: []dialog.Header{h}})
		},
		"Renegotiate": func(l *peerCall, h dialog.Header) error { _, err := l.d.Renegotiate(ctx, nil, h); return err },
		"Update":      func(l *peerCall, h dialog.Header) error { _, err := l.d.Update(ctx, nil, h); return err },
		"SendInfo":    func(l *peerCall, h dialog.Header) error { return l.d.SendInfo(ctx, plain, h) },
		"SendMessage": func(l *peerCall, h dialog.Header) error { return l.d.SendMessage(ctx, plain, h) },
		"SendInfoPackage": func(l *peerCall, h dialog.Header) error {
			return l.d.SendInfoPackage(ctx, "known", plain, h)
		},
		"ByeWith": func(l *peerCall, h dialog.Header) error {
			return l.d.ByeWith(ctx, dialog.ByeOpts{Headers: []dialog.Header{h}})
		},
		"Refer": func(l *peerCall, h dialog.Header) error {
			return l.d.Refer(ctx, uri("c", otherIP), dialog.ReferOpts{Headers: map[string]string{h.Name: h.Value}})
		},
		"Stack.Refer": func(_ *peerCall, h dialog.Header) error {
			_, err := s.Refer(ctx, uri("b", otherIP), uri("c", otherIP), dialog.ReferOpts{Headers: map[string]string{h.Name: h.Value}})
			return err
		},
		"Stack.Do": func(_ *peerCall, h dialog.Header) error {
			req := sip.NewRequest(sip.OPTIONS, uri("b", otherIP))
			req.AppendHeader(sip.NewHeader(h.Name, h.Value))
			_, err := s.Do(ctx, req)
			return err
		},
		"Dialog.Do": func(l *peerCall, h dialog.Header) error {
			req := sip.NewRequest(sip.OPTIONS, sip.Uri{})
			req.AppendHeader(sip.NewHeader(h.Name, h.Value))
			_, err := l.d.Do(ctx, req)
			return err
		},
	} {
		all = append(all,
			handing{place + ", header name", func(l *peerCall, text string) error { return call(l, dialog.Header{Name: text, Value: "x"}) }},
			handing{place + ", header value", func(l *peerCall, text string) error { return call(l, dialog.Header{Name: "X-Test", Value: text}) }},
			handing{place + ", header that is there", func(l *peerCall, _ string) error {
				for _, name := range []string{"Via", "v", "From", "f", "Call-ID", "i", "CSeq", "Record-Route", "Content-Length", "l", "To", "t", "Contact", "m", "Max-Forwards", "Route"} {
					if strings.HasSuffix(place, "Do") {
						return dialog.ErrInvalidArgument // Do has a request of the application's
					}
					if err := call(l, dialog.Header{Name: name, Value: "1"}); err == nil {
						return fmt.Errorf("%s was taken", name)
					}
				}
				return dialog.ErrInvalidArgument
			}},
			handing{place + ", header name with a space", func(l *peerCall, _ string) error { return call(l, dialog.Header{Name: "Bad Name", Value: "x"}) }},
			handing{place + ", header without a name", func(l *peerCall, _ string) error { return call(l, dialog.Header{Value: "x"}) }},
		)
	}
	for place, call := range map[string]func(l *peerCall, u sip.Uri) error{
		"NewInvite, target": func(_ *peerCall, u sip.Uri) error { _, err := s.NewInvite(ctx, u, dialog.InviteOpts{}); return err },
		"NewInvite, From": func(_ *peerCall, u sip.Uri) error {
			_, err := s.NewInvite(ctx, uri("b", otherIP), dialog.InviteOpts{From: &dialog.Address{URI: u}})
			return err
		},
		"NewInvite, Contact": func(_ *peerCall, u sip.Uri) error {
			_, err := s.NewInvite(ctx, uri("b", otherIP), dialog.InviteOpts{Contact: &u})
			return err
		},
		"NewInvite, Route": func(_ *peerCall, u sip.Uri) error {
			_, err := s.NewInvite(ctx, uri("b", otherIP), dialog.InviteOpts{Route: []sip.Uri{uri("p", otherIP), u}})
			return err
		},
		"Refer":     func(l *peerCall, u sip.Uri) error { return l.d.Refer(ctx, u, dialog.ReferOpts{}) },
		"SendRefer": func(l *peerCall, u sip.Uri) error { return l.d.SendRefer(ctx, u, nil) },
		"ReferredBy": func(l *peerCall, u sip.Uri) error {
			return l.d.Refer(ctx, uri("c", otherIP), dialog.ReferOpts{ReferredBy: &dialog.Address{URI: u}})
		},
		"Stack.Refer": func(_ *peerCall, u sip.Uri) error {
			_, err := s.Refer(ctx, u, uri("c", otherIP), dialog.ReferOpts{})
			return err
		},
		"Stack.Refer, Refer-To": func(_ *peerCall, u sip.Uri) error {
			_, err := s.Refer(ctx, uri("b", otherIP), u, dialog.ReferOpts{})
			return err
		},
		"SendReferWithReplaces": func(l *peerCall, u sip.Uri) error { return l.d.SendReferWithReplaces(ctx, u, l.d, nil) },
		"Stack.Do": func(_ *peerCall, u sip.Uri) error {
			_, err := s.Do(ctx, sip.NewRequest(sip.OPTIONS, u))
			return err
		},
	} {
		part := func(name string, change func(u *sip.Uri, text string)) {
			all = append(all, handing{place + ", " + name, func(l *peerCall, text string) error {
				u := uri("bob", otherIP)
				change(&u, text)
				return call(l, u)
			}})
		}
		part("scheme", func(u *sip.Uri, text string) { u.Scheme = text })
		part("user", func(u *sip.Uri, text string) { u.User = text })
		part("password", func(u *sip.Uri, text string) { u.Password = text })
		part("host", func(u *sip.Uri, text string) { u.Host = text })
		part("parameter", func(u *sip.Uri, text string) { u.UriParams.Add("x", text) })
		part("parameter name", func(u *sip.Uri, text string) { u.UriParams.Add(text, "x") })
		part("header", func(u *sip.Uri, text string) { u.Headers.Add("Subject", text) })
		part("header name", func(u *sip.Uri, text string) { u.Headers.Add(text, "x") })
		for _, c := range []struct {
			name   string
			change func(u *sip.Uri)
		}{
			{"user that ends the URI", func(u *sip.Uri) { u.User = "a>;tag=1,<sip:b" }},
			{"user with a host", func(u *sip.Uri) { u.User = "a@evil.example;x" }},
			{"host with a parameter", func(u *sip.Uri) { u.Host = "10.0.0.8;maddr=10.0.0.66" }},
			{"host with a header", func(u *sip.Uri) { u.Host = "10.0.0.8?Route=x" }},
			{"two parameters in one", func(u *sip.Uri) { u.UriParams.Add("x", "1;maddr=10.0.0.66") }},
			{"headers in a parameter", func(u *sip.Uri) { u.UriParams.Add("x", "1?Route=y") }},
			{"two headers in one", func(u *sip.Uri) { u.Headers.Add("Subject", "x&Route=y") }},
			{"a space", func(u *sip.Uri) { u.User = "a b" }},
			{"a quote", func(u *sip.Uri) { u.User = `a"b` }},
			{"a port out of range", func(u *sip.Uri) { u.Port = 70000 }},
			{"a negative port", func(u *sip.Uri) { u.Port = -1 }},
			{"a star", func(u *sip.Uri) { u.Wildcard = true }},
		} {
			part(c.name, func(u *sip.Uri, _ string) { c.change(u) })
		}
	}
	return all
}

// keyed is an IDialog of the application's own.
type keyed struct {
	dialog.IDialog
	key dialog.DialogKey
}

func (k keyed) Key() dialog.DialogKey { return k.key }

// FX5, FA1: nothing that would break a message is taken, and nothing is sent; the
// call is as it was.
func TestValuesThatWouldBreakAMessageAreRefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(s, p, "Recv-Info: known", "Allow: UPDATE")
		l.ask("REFER", withHeaders("Refer-To: <sip:c@10.0.0.5>"))
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		synctest.Wait()
		before := len(w.flow())
		for _, h := range handings(s) {
			for _, text := range breaks {
				require.ErrorIs(t, h.hand(l, text), dialog.ErrInvalidArgument, "%s: %q", h.name, text)
			}
		}
		synctest.Wait()
		require.Len(t, w.flow(), before, "something was sent")
		require.Empty(t, w.sent(stackIP, "BYE"))
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		l.hangUp(p)
	})
}

// FX5: a ResponseOpt has no error of its own; the method that it is given to has.
func TestAResponseOptThatBreaksTheResponseIsTheMethodsError(t *testing.T) {
	ctx := context.Background()
	opts := map[string]func(text string) dialog.ResponseOpt{
		"WithHeader, name":    func(text string) dialog.ResponseOpt { return dialog.WithHeader(text, "x") },
		"WithHeader, value":   func(text string) dialog.ResponseOpt { return dialog.WithHeader("X-Test", text) },
		"WithHeader, To":      func(string) dialog.ResponseOpt { return dialog.WithHeader("To", "<sip:x@y>") },
		"WithHeader, Contact": func(text string) dialog.ResponseOpt { return dialog.WithHeader("m", "<sip:"+text+"@y>") },
		"WithHeader, length":  func(string) dialog.ResponseOpt { return dialog.WithHeader("Content-Length", "0") },
		"WithBody":            func(text string) dialog.ResponseOpt { return dialog.WithBody(dialog.NewBody(text, []byte("x"))) },
		"WithWarning":         func(text string) dialog.ResponseOpt { return dialog.WithWarning(399, text) },
		"WithReason": func(text string) dialog.ResponseOpt {
			return dialog.WithReason(dialog.Reason{Protocol: "SIP", Text: text})
		},
		"WithReason, protocol": func(text string) dialog.ResponseOpt {
			return dialog.WithReason(dialog.Reason{Protocol: text})
		},
		"WithContacts":      func(text string) dialog.ResponseOpt { return dialog.WithContacts(uri(text, otherIP)) },
		"WithWarning, code": func(string) dialog.ResponseOpt { return dialog.WithWarning(1000, "x") },
		"WithRetryAfter":    func(string) dialog.ResponseOpt { return dialog.WithRetryAfter(-time.Minute) },
		"its own code, header": func(text string) dialog.ResponseOpt {
			return func(res *sip.Response) { res.AppendHeader(sip.NewHeader("X-Test", text)) }
		},
		"its own code, name": func(text string) dialog.ResponseOpt {
			return func(res *sip.Response) { res.AppendHeader(sip.NewHeader(text, "x")) }
		},
		"its own code, reason": func(text string) dialog.ResponseOpt {
			return func(res *sip.Response) { res.Reason = text }
		},
		"its own code, Contact": func(text string) dialog.ResponseOpt {
			return func(res *sip.Response) {
				res.AppendHeader(&sip.ContactHeader{DisplayName: text, Address: uri("x", otherIP)})
			}
		},
		"its own code, a quote in a name": func(string) dialog.ResponseOpt {
			return func(res *sip.Response) {
				res.AppendHeader(&sip.ContactHeader{DisplayName: `a"b`, Address: uri("x", otherIP)})
			}
		},
		"its own code, two types": func(string) dialog.ResponseOpt {
			return func(res *sip.Response) {
				res.AppendHeader(sip.NewHeader("Content-Type", "text/plain"))
				res.AppendHeader(sip.NewHeader("c", "text/html"))
			}
		},
	}
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(s, p)
		synctest.Wait()
		before := len(w.flow())
		for name, opt := range opts {
			for _, text := range breaks {
				require.ErrorIs(t, l.d.Accept(ctx, opt(text)), dialog.ErrInvalidArgument, "%s: %q", name, text)
				require.ErrorIs(t, l.d.Provisional(ctx, 183, "", opt(text)), dialog.ErrInvalidArgument, "%s: %q", name, text)
				require.ErrorIs(t, l.d.RejectWith(ctx, 486, "", opt(text)), dialog.ErrInvalidArgument, "%s: %q", name, text)
			}
		}
		for _, text := range breaks {
			require.ErrorIs(t, l.d.Reject(ctx, 486, text), dialog.ErrInvalidArgument)
			require.ErrorIs(t, l.d.Provisional(ctx, 183, text), dialog.ErrInvalidArgument)
		}
		synctest.Wait()
		require.Len(t, w.flow(), before, "something was sent")
		require.NoError(t, l.d.Accept(ctx, dialog.WithHeader("X-Test", "a\tb"), withSDP(answerSDP)))
		require.Equal(t, "a\tb", p.next("200 INVITE").Response().GetHeader("X-Test").Value())
		l.acknowledge(1)
		l.hangUp(p)
	})
}

// FX5: a handler has no caller for an error: the peer gets 500, and the log has the reason.
func TestAnAnswerThatBreaksTheResponseIs500(t *testing.T) {
	plain := dialog.NewBody("text/plain", []byte("x"))
	for name, a := range map[string]dialog.Answer{
		"reason":       {Status: 404, Reason: "a\r\nX: y"},
		"header":       {Headers: []dialog.Header{{Name: "X-Test", Value: "a\nb"}}},
		"header name":  {Headers: []dialog.Header{{Name: "X Test", Value: "a"}}},
		"Via":          {Headers: []dialog.Header{{Name: "Via", Value: "a"}}},
		"content type": {Body: dialog.NewBody("a\r\nb", []byte("x"))},
		"two types":    {Body: plain, Headers: []dialog.Header{{Name: "c", Value: "text/html"}}},
		"status":       {Status: 1000},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s, p := w.stack(stackIP, func(c *dialog.StackConfig) {
					c.AuthorizeReplaces = func(context.Context, dialog.TakeoverRequest) dialog.Answer { a.Status = max(a.Status, 403); return a }
				}), w.peer(peerIP)
				handler := func(context.Context, *sip.Request) dialog.Answer { return a }
				require.NoError(t, s.OnRequest("OPTIONS", handler))
				s.OnReferRequest(func(context.Context, *dialog.ReferRequest) dialog.Answer { return a })
				l := w.incoming(s, p)
				require.NoError(t, l.d.OnRequest("MESSAGE", handler))
				for _, method := range []string{"MESSAGE", "REFER"} {
					l.ask(method, withHeaders("Refer-To: <sip:c@10.0.0.5>"))
					require.Equal(t, 500, p.final(method).StatusCode, method)
				}
				require.NoError(t, p.Send(l.stack, p.Request(dialogtest.Request{Method: "OPTIONS", URI: "sip:" + stackIP})))
				require.Equal(t, 500, p.final("OPTIONS").StatusCode)
				replaces := fmt.Sprintf("Replaces: %s;from-tag=%s;to-tag=%s", l.callID, l.tag, l.stackTag)
				require.NoError(t, p.Send(l.stack, p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:" + stackIP, CallID: "other", FromTag: "x", Headers: []string{replaces}})))
				require.Equal(t, 500, p.final("INVITE").StatusCode)
				l.stands(p)
			})
		})
	}
}

// FX5: nor does the answer of an OnOffer, nor an offer of PrackOffer.
func TestAnAnswerToAnOfferWithABrokenTypeRefusesIt(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(s, p)
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
			return dialog.NewBody("application/sdp\r\nX-Evil: 1", []byte(answerSDP)), nil
		})
		for _, method := range []string{"INVITE", "UPDATE"} {
			l.ask(method, withBody(offerSDP))
			require.Equal(t, 488, p.final(method).StatusCode)
		}
		l.stands(p)
	})
}

// FX5: what a configuration puts into messages.
func TestConfigurationBreaksNoMessage(t *testing.T) {
	for _, text := range breaks {
		for name, change := range map[string]func(c *dialog.StackConfig){
			"UserAgent":     func(c *dialog.StackConfig) { c.UserAgent = text },
			"From, name":    func(c *dialog.StackConfig) { c.From = &dialog.Address{DisplayName: text, URI: uri("a", stackIP)} },
			"From, user":    func(c *dialog.StackConfig) { c.From = &dialog.Address{URI: uri(text, stackIP)} },
			"OutboundProxy": func(c *dialog.StackConfig) { u := uri(text, stackIP); c.OutboundProxy = &u },
			"InfoPackages":  func(c *dialog.StackConfig) { c.InfoPackages = []string{text} },
			"AcceptBodies":  func(c *dialog.StackConfig) { c.AcceptBodies = []string{text} },
			"PublicAddress": func(c *dialog.StackConfig) { c.Transport.PublicAddress = text },
			"ViaAddress":    func(c *dialog.StackConfig) { c.Transport.ViaAddress = text },
			"a listener's PublicAddress": func(c *dialog.StackConfig) {
				c.Listeners = []dialog.TransportConfig{{Protocol: "tcp", Address: stackIP, PublicAddress: text}}
			},
		} {
			c := &dialog.StackConfig{Transport: &dialog.TransportConfig{Protocol: "udp", Address: stackIP}}
			change(c)
			_, err := dialog.NewStack(c)
			require.ErrorIs(t, err, dialog.ErrInvalidArgument, "%s: %q", name, text)
		}
	}
}

// FA1: the error names the option.
func TestAHeaderThatIsThereNamesItsOption(t *testing.T) {
	s, err := dialog.NewStack(nil)
	require.NoError(t, err)
	for header, option := range map[string]string{
		"Max-Forwards": "InviteOpts.MaxForwards", "contact": "InviteOpts.Contact", "F": "InviteOpts.From", "Route": "InviteOpts.Route",
		"CSeq": "the stack alone", "Content-Length": "the body", "To": "the URI that is called",
	} {
		_, err := s.NewInvite(context.Background(), uri("bob", otherIP), dialog.InviteOpts{Headers: []dialog.Header{{Name: header, Value: "1"}}})
		require.ErrorIs(t, err, dialog.ErrInvalidArgument)
		require.ErrorContains(t, err, option)
	}
	for _, hops := range []int{-1, 256} {
		_, err := s.NewInvite(context.Background(), uri("bob", otherIP), dialog.InviteOpts{MaxForwards: hops})
		require.ErrorIs(t, err, dialog.ErrInvalidArgument)
	}
}

// A literal IPv6 address needs no brackets where it stands alone.
func TestPublicAddressMayBeAnIPv6Literal(t *testing.T) {
	for _, address := range []string{"2001:db8::1", "[2001:db8::1]"} {
		_, err := dialog.NewStack(&dialog.StackConfig{Transport: &dialog.TransportConfig{Protocol: "udp", Address: stackIP, PublicAddress: address}})
		require.NoError(t, err, address)
	}
}

// RFC 3261 19.1.5: the headers in a URI are for the request, not for its To.
func TestToOfARequestHasNoHeadersOfTheURI(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP), w.peer(peerIP)
		target := uri("x", peerIP)
		target.Headers.Add("Subject", "a")
		done := does(s, sip.OPTIONS, target)
		in := p.next("OPTIONS")
		require.Equal(t, "<sip:x@"+peerIP+":5060>", testkit.Value(in.Message, "To"))
		p.reply(in, dialogtest.Response{Code: 200, ToTag: "x"})
		require.NoError(t, <-done)
	})
}

// Unusual but readable URIs are accepted.
func TestUnusualURIsAreTaken(t *testing.T) {
	for _, text := range []string{
		"sip:#31#+43%20123;phone-context=x@10.0.0.9:5060;user=phone", "sip:a;b=c?d/e@10.0.0.9", "sips:bob:secret@[2001:db8::1]:5061;transport=tls",
		"sip:bob@10.0.0.9;received=[2001:db8::1];x=a:b;flag", "sip:bob@10.0.0.9?Subject=a%20b&Priority=urgent", "tel:+43-1-234;phone-context=+43",
		"sip:b%C3%BCro@xn--bro-hoa.example", "sip:bob@under_score.example.", "urn:service:sos",
	} {
		bubble(t, func(t *testing.T, w *world) {
			s, p := w.stack(stackIP), w.peer(peerIP)
			l := w.outgoing(s, p)
			var u sip.Uri
			require.NoError(t, sip.ParseUri(text, &u), text)
			require.NoError(t, l.d.Refer(context.Background(), u, dialog.ReferOpts{}), text)
			require.Equal(t, "<"+u.String()+">", w.one(stackIP, "REFER").value(t, "Refer-To"))
			p.reply(p.next("REFER"), dialogtest.Response{Code: 603})
		})
	}
}

// FA1: Max-Forwards of a re-INVITE, and of a request by Do.
func TestMaxForwardsIsTheApplications(t *testing.T) {
	ctx := context.Background()
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(s, p)
		again := began(func() error { return l.d.ReInvite(ctx, dialog.InviteOpts{MaxForwards: 9}) })
		in := p.next("INVITE")
		require.Equal(t, "9", testkit.Value(in.Message, "Max-Forwards"))
		p.reply(in, dialogtest.Response{Code: 488})
		require.Error(t, <-again)
		req := sip.NewRequest(sip.OPTIONS, uri("x", peerIP))
		hops := sip.MaxForwardsHeader(0)
		req.AppendHeader(&hops)
		for _, do := range []func(context.Context, *sip.Request) (*sip.Response, error){s.Do, l.d.Do} {
			done := began(func() error { _, err := do(ctx, req); return err })
			in = p.next("OPTIONS")
			require.Equal(t, []string{"0"}, values(in.Message, "Max-Forwards"))
			p.reply(in, dialogtest.Response{Code: 200, ToTag: "x"})
			require.NoError(t, <-done)
		}
		l.hangUp(p)
	})
}

// FX5: what a request for Do has of its own is once there, or refused.
func TestRequestForDoHasEachHeaderOnce(t *testing.T) {
	ctx := context.Background()
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(s, p)
		with := func(headers ...string) *sip.Request {
			req := sip.NewRequest(sip.OPTIONS, uri("x", peerIP))
			for _, h := range headers {
				name, value, _ := strings.Cut(h, ": ")
				req.AppendHeader(sip.NewHeader(name, value))
			}
			return req
		}
		for _, do := range []func(context.Context, *sip.Request) (*sip.Response, error){s.Do, l.d.Do} {
			for _, refused := range []*sip.Request{
				with("Max-Forwards: many"), with("Max-Forwards: 256"), with("Max-Forwards: 1", "max-forwards: 2"),
				with("From: <sip:a@b>", "f: <sip:c@d>"), with("Content-Type: a/b", "c: d/e"), with("Call-ID: 1", "Call-ID: 2"),
			} {
				_, err := do(ctx, refused)
				require.ErrorIs(t, err, dialog.ErrInvalidArgument, refused.String())
			}
			done := began(func() error {
				_, err := do(ctx, with("Max-Forwards: 3", "Content-Length: 7", "l: 8", "v: SIP/2.0/UDP evil.example", "Via: SIP/2.0/UDP evil.example"))
				return err
			})
			p.reply(p.next("OPTIONS"), dialogtest.Response{Code: 200, ToTag: "x"})
			require.NoError(t, <-done)
			m := w.last(stackIP, "OPTIONS")
			require.Equal(t, []string{"3"}, m.values("Max-Forwards"))
			require.Equal(t, []string{"0"}, append(m.values("Content-Length"), m.values("l")...))
			require.Len(t, append(m.values("Via"), m.values("v")...), 1)
		}
		l.hangUp(p)
	})
}

// FA2: RFC 3261 10.2.
func TestToOfARegisterIsTheAddressOfRecord(t *testing.T) {
	for name, c := range map[string]struct {
		from, to string
		config   *dialog.Address
		want     string
	}{
		"From of the request":  {from: "<sip:alice@home.example>;tag=1", want: "<sip:alice@home.example>"},
		"From of the stack":    {config: &dialog.Address{URI: sip.Uri{User: "bob", Host: "home.example"}}, want: "<sip:bob@home.example>"},
		"without a host":       {config: &dialog.Address{URI: sip.Uri{User: "bob"}}, want: "<sip:bob@10.0.0.1>"},
		"by default":           {want: "<sip:SoftPhone@10.0.0.1>"},
		"To of the request":    {from: "<sip:alice@home.example>;tag=1", to: "<sip:third@home.example>", want: "<sip:third@home.example>"},
		"with a name and more": {from: `"Alice" <sip:alice@home.example:5080;x=y>;tag=1;z=1`, want: "<sip:alice@home.example:5080;x=y>"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s, p := w.stack(stackIP, func(config *dialog.StackConfig) { config.From = c.config }), w.peer(peerIP)
				req := sip.NewRequest(sip.REGISTER, sip.Uri{Scheme: "sip", Host: peerIP})
				for header, text := range map[string]string{"From": c.from, "To": c.to} {
					if text == "" {
						continue
					}
					var u sip.Uri
					params := sip.NewParams()
					display, err := sip.ParseAddressValue(text, &u, &params)
					require.NoError(t, err)
					if header == "From" {
						req.AppendHeader(&sip.FromHeader{DisplayName: display, Address: u, Params: params})
					} else {
						req.AppendHeader(&sip.ToHeader{Address: u})
					}
				}
				done := began(func() error { _, err := s.Do(context.Background(), req); return err })
				in := p.next("REGISTER")
				require.Equal(t, c.want, testkit.Value(in.Message, "To"))
				require.Equal(t, "sip:"+peerIP, in.Request().Recipient.String())
				p.reply(in, dialogtest.Response{Code: 200, ToTag: "r"})
				require.NoError(t, <-done)
			})
		})
	}
}
