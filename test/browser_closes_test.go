package test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/bridge"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// moment plays a call up to the moment at which the page closes.
type moment struct {
	name string
	play func(p *page)
}

// established has the call established, by whoever calls.
func (p *page) established(calls bool) {
	if calls {
		p.accepted()
		p.say(p.acks())
	} else {
		p.say(p.answers(p.called(), 200, answerSDP))
		p.next("ACK")
		require.NoError(p.t, <-p.pending[0])
		p.pending = nil
	}
	synctest.Wait()
}

// accepted has the page call, and the server answer.
func (p *page) accepted() {
	p.t.Helper()
	p.say(p.invitation())
	p.d = <-p.calls
	require.NoError(p.t, p.d.Accept(context.Background(), withSDP(answerSDP)))
	p.picked()
}

// inCall are the steps of an established call that leave it so.
func inCall() []moment {
	ctx := context.Background()
	return []moment{
		{"nothing", func(*page) {}},
		{"its BYE in half", func(p *page) { p.half(p.asks("BYE")) }},
		{"its INFO", func(p *page) { p.say(p.asks("INFO")) }},
		{"its re-INVITE", func(p *page) { p.say(p.reinvites()) }},
		{"its re-INVITE in half", func(p *page) { p.half(p.reinvites()) }},
		{"the 200 of its re-INVITE", func(p *page) {
			go func() { p.let <- struct{}{} }()
			p.say(p.reinvites())
			p.owed = func() { p.say(p.acks()) }
		}},
		{"our re-INVITE", func(p *page) { p.reinvited() }},
		{"the 100 of our re-INVITE", func(p *page) { p.say(p.answers(p.reinvited(), 100, "")) }},
		{"half of the 200 of our re-INVITE", func(p *page) { p.half(p.answers(p.reinvited(), 200, answerSDP)) }},
		{"our UPDATE", func(p *page) {
			p.begin(func() error { _, err := p.d.Update(ctx, sdp(versioned(offerSDP, 2))); return err })
			p.next("UPDATE")
		}},
		{"our INFO", func(p *page) {
			p.begin(func() error { return p.d.SendInfo(ctx, nil) })
			p.next("INFO")
		}},
		{"half of the 200 of our MESSAGE", func(p *page) {
			p.begin(func() error { return p.d.SendMessage(ctx, dialog.NewBody("text/plain", []byte("x"))) })
			p.half(p.answers(p.next("MESSAGE"), 200, ""))
		}},
		{"our REFER", func(p *page) {
			p.begin(func() error { _, err := p.d.Transfer(ctx, uri("carol", otherIP), dialog.ReferOpts{}); return err })
			p.next("REFER")
		}},
		{"the 202 of our REFER", func(p *page) {
			p.outcome = began(func() error {
				subscription, err := p.d.Transfer(ctx, uri("carol", otherIP), dialog.ReferOpts{})
				require.NoError(p.t, err)
				_, err = subscription.Wait(ctx)
				return err
			})
			p.say(p.answers(p.next("REFER"), 202, ""))
		}},
		{"its REFER", func(p *page) {
			p.say(p.asks("REFER", withHeaders("Refer-To: <sip:carol@10.0.0.8>")))
			p.next("202 REFER")
		}},
	}
}

func sdp(text string) dialog.Body { return dialog.NewBody("application/sdp", []byte(text)) }

func (p *page) reinvited() dialogtest.Received {
	p.begin(func() error { return p.d.ReInvite(context.Background(), offer(versioned(offerSDP, 2))) })
	return p.next("INVITE")
}

// failed checks that all methods that waited have failed at once, and why.
func (p *page) failed() {
	p.t.Helper()
	start := time.Now()
	for _, result := range p.pending {
		require.ErrorIs(p.t, <-result, dialog.ErrTransport)
	}
	require.Zero(p.t, time.Since(start))
}

// afterwards is what becomes of a call whose page has closed.
var afterwards = map[string]func(p *page){
	"hung up": func(p *page) {
		require.ErrorIs(p.t, p.d.Bye(context.Background(), ""), dialog.ErrTransport)
		require.Equal(p.t, dialog.PartyLocal, p.d.Cause().By)
	},
	"left alone": func(p *page) {
		start := time.Now()
		<-p.d.Done()
		require.Less(p.t, time.Since(start), 3*time.Minute)
		require.Equal(p.t, dialog.PartyTimeout, p.d.Cause().By)
	},
	"back": func(p *page) {
		p.returns()
		require.NoError(p.t, p.d.Flow().Err())
		info := began(func() error { return p.d.SendInfo(context.Background(), nil) })
		p.say(p.answers(p.next("INFO"), 200, ""))
		require.NoError(p.t, <-info)
		bye := began(func() error { return p.d.Bye(context.Background(), "") })
		p.say(p.answers(p.next("BYE"), 200, ""))
		require.NoError(p.t, <-bye)
		require.Equal(p.t, dialog.Cause{By: dialog.PartyLocal, Method: "BYE"}, p.d.Cause())
	},
}

// over checks that nothing is left.
func (p *page) over() {
	p.t.Helper()
	select {
	case <-p.let:
	default:
		close(p.let)
	}
	time.Sleep(5 * time.Minute)
	synctest.Wait()
	require.Empty(p.t, p.server.Dialogs())
	require.Zero(p.t, testkit.Held(p.server))
	if p.outcome != nil {
		require.ErrorIs(p.t, <-p.outcome, dialog.ErrTimeout, "the transfer may go on without its call")
	}
}

// closes has the page close after what it plays.
func (p *page) closes(play func(p *page)) {
	p.t.Helper()
	told := losses(p.server)
	play(p)
	p.close()
	p.failed()
	require.Len(p.t, told, 1)
	require.True(p.t, p.flow.Equal(<-told))
	p.t.Cleanup(func() { require.Empty(p.t, told, "told once") })
}

// A browser that closes in the middle of a call sends nothing. The call stands, since the
// page may be loaded again, and ends with our BYE or its session timer.
func TestAPageThatClosesLeavesAnEstablishedCall(t *testing.T) {
	for role, calls := range map[string]bool{"calls": true, "is called": false} {
		for _, m := range inCall() {
			stands(t, role+", "+m.name, func(p *page) {
				p.established(calls)
				m.play(p)
			})
		}
	}
	stands(t, "calls, and would refresh the session", func(p *page) {
		p.timer = "90;refresher=uac"
		p.established(true)
	})
	stands(t, "calls, the 200", func(p *page) {
		p.accepted()
		p.owed = func() { p.say(p.acks()) }
	})
	stands(t, "calls, its ACK in half", func(p *page) {
		p.accepted()
		p.half(p.acks())
		p.owed = func() { p.say(p.acks()) }
	})
	stands(t, "is called, its 200, our ACK being lost", func(p *page) {
		invite := p.called()
		p.w.net.SetStreamPolicy(func(packet dialogtest.Packet) time.Duration {
			if packet.From == p.stack {
				return time.Second
			}
			return 0
		})
		p.say(p.answers(invite, 200, answerSDP))
		require.NoError(t, <-p.pending[0])
		p.pending = nil
		p.owed = func() {
			p.say(p.answers(invite, 200, answerSDP))
			p.next("ACK")
		}
	})
}

// stands checks a call that a closed page leaves established, and what becomes of it.
func stands(t *testing.T, name string, play func(p *page)) {
	for after, end := range afterwards {
		t.Run(name+", "+after, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := w.page()
				p.closes(play)
				require.Equal(t, dialog.DialogStateEstablished, p.d.State())
				end(p)
				p.over()
			})
		})
	}
}

// A call that is not established ends with its page, and so does one that is ending.
func TestAPageThatClosesEndsACallThatIsNotEstablished(t *testing.T) {
	ctx := context.Background()
	rings := func(p *page) {
		p.say(p.invitation())
		p.d = <-p.calls
	}
	lost := dialog.Cause{By: dialog.PartyTransport, Method: "INVITE"}
	for name, c := range map[string]struct {
		play func(p *page)
		want dialog.Cause
	}{
		"calls, INVITE": {rings, lost},
		"calls, 100":    {func(p *page) { rings(p); p.next("100 INVITE") }, lost},
		"calls, 180": {func(p *page) {
			rings(p)
			require.NoError(p.t, p.d.Provisional(ctx, 180, ""))
			p.next("180 INVITE")
		}, lost},
		"calls, its CANCEL": {func(p *page) {
			rings(p)
			p.say(p.cancels())
		}, dialog.Cause{By: dialog.PartyRemote, Method: "CANCEL"}},
		"calls, its CANCEL in half": {func(p *page) {
			rings(p)
			p.half(p.cancels())
		}, lost},
		"calls, its BYE":        {func(p *page) { p.established(true); p.say(p.asks("BYE")) }, dialog.Cause{By: dialog.PartyRemote, Method: "BYE"}},
		"calls, our BYE":        {func(p *page) { p.established(true); p.hungUp() }, dialog.Cause{By: dialog.PartyLocal, Method: "BYE"}},
		"is called, INVITE":     {func(p *page) { p.called() }, lost},
		"is called, its 100":    {func(p *page) { p.say(p.answers(p.called(), 100, "")) }, lost},
		"is called, its 180":    {func(p *page) { p.say(p.answers(p.called(), 180, "")) }, lost},
		"is called, half a 200": {func(p *page) { p.half(p.answers(p.called(), 200, answerSDP)) }, lost},
		"is called, its BYE":    {func(p *page) { p.established(false); p.say(p.asks("BYE")) }, dialog.Cause{By: dialog.PartyRemote, Method: "BYE"}},
		"is called, our BYE":    {func(p *page) { p.established(false); p.hungUp() }, dialog.Cause{By: dialog.PartyLocal, Method: "BYE"}},
		"is called, our CANCEL": {func(p *page) {
			p.say(p.answers(p.called(), 180, ""))
			synctest.Wait()
			p.pending = nil // WaitAnswer says that we have cancelled
			require.NoError(p.t, p.d.Close())
			p.next("CANCEL")
		}, dialog.Cause{By: dialog.PartyLocal}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := w.page()
				p.closes(c.play)
				start := time.Now()
				<-p.d.Done()
				require.Zero(t, time.Since(start))
				cause := p.d.Cause()
				require.Equal(t, c.want.By, cause.By, cause)
				require.Equal(t, c.want.Method, cause.Method)
				if c.want.By == dialog.PartyTransport {
					require.ErrorIs(t, cause.Err, dialog.ErrTransport)
				}
				require.Error(t, p.d.Accept(ctx))
				require.ErrorIs(t, p.d.SendInfo(ctx, nil), dialog.ErrState)
				p.over()
			})
		})
	}
}

// hungUp has the server's BYE wait for the page.
func (p *page) hungUp() {
	p.begin(func() error { return p.d.Bye(context.Background(), "") })
	p.next("BYE")
}

// Half of an INVITE is no call.
func TestAPageThatClosesInsideItsINVITE(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.page()
		p.closes(func(p *page) { p.half(p.invitation()) })
		require.Empty(t, p.server.Dialogs())
		require.Empty(t, p.calls)
		p.over()
	})
}

// bridged is a page whose calls are joined with those of a telephone.
type bridged struct {
	*page
	phone *dialog.Stack
	far   *dialog.Dialog // the telephone's end of the call
	rang  <-chan *dialog.Dialog
	done  chan error // what Join returns
}

func (w *world) pageAndPhone() *bridged {
	w.t.Helper()
	b := &bridged{page: w.page(), phone: w.stack(otherIP), done: make(chan error, 1)}
	b.rang = waiting(b.phone)
	b.phone.OnOfferRequest(func(ctx context.Context, _ *dialog.OfferRequest) (dialog.Body, error) {
		select {
		case <-b.let:
			return sdp(versioned(answerSDP, 2)), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	join := bridge.New(b.server, bridge.Options{})
	b.server.OnIncomingDialog(func(d dialog.IDialog) {
		target, opts := uri("phone", otherIP), dialog.InviteOpts{}
		if !strings.HasPrefix(d.(*dialog.Dialog).Flow().Transport(), "WS") {
			target, opts.Flow = uri("page", "x7k2.invalid"), b.flow
		}
		_, err := join.Join(context.Background(), d.(*dialog.Dialog), target, opts)
		b.done <- err
	})
	return b
}

// rings has the page, or the telephone, call the other.
func (b *bridged) rings(pageCalls bool) {
	b.t.Helper()
	if pageCalls {
		b.say(b.invitation())
		b.far = <-b.rang
		synctest.Wait()
		return
	}
	d, err := b.phone.NewInvite(context.Background(), uri("page", stackIP), offer(offerSDP))
	require.NoError(b.t, err)
	b.far = d.(*dialog.Dialog)
	b.rung()
}

// talks has the call established.
func (b *bridged) talks(pageCalls bool) {
	b.t.Helper()
	b.rings(pageCalls)
	if pageCalls {
		b.connected()
	} else {
		b.say(b.answers(b.invite, 200, answerSDP))
		require.NoError(b.t, b.far.WaitAnswer(context.Background()))
	}
	require.NoError(b.t, <-b.done)
	synctest.Wait()
}

// A bridged call that is not established ends on both sides when the page closes.
func TestAPageThatClosesEndsABridgedCallThatRings(t *testing.T) {
	for name, c := range map[string]struct {
		pageCalls bool
		play      func(b *bridged)
		want      string // how the telephone hears of the end
	}{
		"calls, 100":            {true, func(*bridged) {}, "CANCEL"},
		"calls, 183":            {true, func(b *bridged) { require.NoError(b.t, b.far.Provisional(context.Background(), 183, "")) }, "CANCEL"},
		"is called, INVITE":     {false, func(*bridged) {}, "INVITE"},
		"is called, its 180":    {false, func(b *bridged) { b.say(b.answers(b.invite, 180, "")) }, "INVITE"},
		"is called, half a 200": {false, func(b *bridged) { b.half(b.answers(b.invite, 200, answerSDP)) }, "INVITE"},
		"calls, its BYE":        {true, func(b *bridged) { b.connected(); b.say(b.asks("BYE")) }, "BYE"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.pageAndPhone()
				b.closes(func(*page) {
					b.rings(c.pageCalls)
					c.play(b)
				})
				start := time.Now()
				<-b.far.Done()
				require.Less(t, time.Since(start), time.Second)
				require.Equal(t, dialog.PartyRemote, b.far.Cause().By)
				require.Equal(t, c.want, b.far.Cause().Method)
				if c.want != "BYE" {
					require.Error(t, <-b.done)
				}
				b.over()
				require.Zero(t, testkit.Held(b.phone))
			})
		})
	}
}

// connected has the telephone answer, and the page acknowledge that.
func (b *bridged) connected() {
	require.NoError(b.t, b.far.Accept(context.Background(), withSDP(answerSDP)))
	b.picked()
	b.say(b.acks())
	synctest.Wait()
}

// An established one stands on both sides, and ends on both.
func TestAPageThatClosesLeavesABridgedCallToBothSides(t *testing.T) {
	ctx := context.Background()
	refused := func(f func(d *dialog.Dialog) error, method string) func(b *bridged) {
		return func(b *bridged) {
			result := began(func() error { return f(b.far) })
			b.next(method)
			b.close()
			var answer *dialog.ResponseError
			require.ErrorAs(b.t, <-result, &answer)
		}
	}
	moments := map[string]func(b *bridged){
		"nothing":                func(*bridged) {},
		"its re-INVITE":          func(b *bridged) { b.say(b.reinvites()) },
		"its BYE in half":        func(b *bridged) { b.half(b.asks("BYE")) },
		"the telephone's INVITE": refused(func(d *dialog.Dialog) error { return d.ReInvite(ctx, offer(versioned(offerSDP, 2))) }, "INVITE"),
		"the telephone's INFO":   refused(func(d *dialog.Dialog) error { return d.SendInfo(ctx, nil) }, "INFO"),
	}
	ends := map[string]func(b *bridged){
		"the telephone hangs up": func(b *bridged) { require.NoError(b.t, b.far.Bye(ctx, "")) },
		"left alone": func(b *bridged) {
			start := time.Now()
			<-b.far.Done()
			require.Less(b.t, time.Since(start), 3*time.Minute)
			require.Equal(b.t, dialog.PartyRemote, b.far.Cause().By)
			require.Equal(b.t, "BYE", b.far.Cause().Method)
		},
		"back": func(b *bridged) {
			b.returns()
			info := began(func() error { return b.far.SendInfo(ctx, nil) })
			b.say(b.answers(b.next("INFO"), 200, ""))
			require.NoError(b.t, <-info)
			b.say(b.asks("BYE"))
			b.next("200 BYE")
			<-b.far.Done()
			require.Equal(b.t, dialog.Cause{By: dialog.PartyRemote, Method: "BYE"}, b.far.Cause())
		},
	}
	for role, calls := range map[string]bool{"calls": true, "is called": false} {
		for name, play := range moments {
			for after, end := range ends {
				t.Run(role+", "+name+", "+after, func(t *testing.T) {
					bubble(t, func(t *testing.T, w *world) {
						b := w.pageAndPhone()
						b.closes(func(*page) {
							b.talks(calls)
							play(b)
						})
						require.Equal(t, dialog.DialogStateEstablished, b.far.State())
						require.Len(t, b.server.Dialogs(), 2)
						end(b)
						b.over()
						require.Zero(t, testkit.Held(b.phone))
					})
				})
			}
		}
	}
}

// The telephone's BYE ends a call whose page closes with the bridge's BYE on the wire.
func TestAPageThatClosesWithABridgedBYE(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.pageAndPhone()
		b.closes(func(*page) {
			b.talks(true)
			require.NoError(t, b.far.Bye(context.Background(), ""))
			b.next("BYE")
		})
		synctest.Wait()
		require.Empty(t, b.server.Dialogs())
		b.over()
		require.Zero(t, testkit.Held(b.phone))
	})
}
