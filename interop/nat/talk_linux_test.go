package nat

import (
	"context"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

const description = "v=0\r\n" +
	"o=- 1 1 IN IP4 192.0.2.1\r\n" +
	"s=-\r\n" +
	"c=IN IP4 192.0.2.1\r\n" +
	"t=0 0\r\n" +
	"m=audio 17000 RTP/AVP 0\r\n"

func body() dialog.Body { return dialog.NewBody("application/sdp", []byte(description)) }

func withBody(res *sip.Response) {
	res.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	res.SetBody([]byte(description))
}

// call is a call between two stations, with its two ends.
type call struct {
	t      *testing.T
	phone  *dialog.Dialog
	server *dialog.Dialog
}

// within fails the test if f takes longer than limit.
func within(t *testing.T, limit time.Duration, what string, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	began := time.Now()
	require.NoError(t, f(ctx), "%s, after %s", what, time.Since(began))
}

// calls lets the phone call the server, which answers after the time ringing.
func (p *phone) calls(ringing time.Duration) *call {
	p.station.t.Helper()
	return ring(p.station, p.server.station, p.to("service"), dialog.InviteOpts{}, ringing).call(true)
}

// ends are a caller and a callee.
type ends struct {
	t              *testing.T
	caller, callee *dialog.Dialog
}

func ring(from, to *station, target sip.Uri, opts dialog.InviteOpts, ringing time.Duration) ends {
	from.t.Helper()
	opts.Body = body()
	e := ends{t: from.t}
	within(from.t, soon, "calling", func(ctx context.Context) error {
		d, err := from.NewInvite(ctx, target, opts)
		if err == nil {
			e.caller = d.(*dialog.Dialog)
		}
		return err
	})
	e.callee = to.called()
	time.Sleep(ringing)
	within(from.t, soon, "accepting", func(ctx context.Context) error { return e.callee.Accept(ctx, withBody) })
	within(from.t, 2*soon, "the answer", e.caller.WaitAnswer)
	return e
}

func (e ends) call(phoneCalls bool) *call {
	if phoneCalls {
		return &call{t: e.t, phone: e.caller, server: e.callee}
	}
	return &call{t: e.t, phone: e.callee, server: e.caller}
}

// talk lets each end send requests, which the other must answer.
func (c *call) talk() {
	c.t.Helper()
	for name, d := range map[string]*dialog.Dialog{"the phone": c.phone, "the server": c.server} {
		within(c.t, soon, name+" holds", d.Hold)
		within(c.t, soon, name+" resumes", d.Resume)
	}
}

// end lets one end hang up, and waits for the other.
func (c *call) end(by *dialog.Dialog) {
	c.t.Helper()
	within(c.t, soon, "hanging up", func(ctx context.Context) error { return by.Bye(ctx, "") })
	for _, d := range []*dialog.Dialog{c.phone, c.server} {
		select {
		case <-d.Done():
		case <-time.After(soon):
			require.FailNow(c.t, "the call goes on")
		}
		require.NoError(c.t, d.Cause().Err)
	}
}

func (c *call) phoneEnd() *dialog.Dialog  { return c.phone }
func (c *call) serverEnd() *dialog.Dialog { return c.server }

// phoneSpeaks lets the phone send an INFO.
func (c *call) phoneSpeaks() {
	c.t.Helper()
	within(c.t, soon, "the phone speaks", func(ctx context.Context) error { return c.phone.SendInfo(ctx, nil) })
}
