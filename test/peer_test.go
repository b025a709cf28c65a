package test

import (
	"context"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
)

// peer is a scripted peer: it says what the test says.
type peer struct {
	*dialogtest.Endpoint
	t  *testing.T
	ip string
}

// next returns the next message that is what the test expects, such as "BYE"
// or "200 INVITE", skipping others.
func (p *peer) next(what string) dialogtest.Received {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for {
		got, err := p.Recv(ctx)
		require.NoError(p.t, err, "waiting for %s", what)
		if describe(got.Message) == what {
			return got
		}
	}
}

// quiet checks that nothing more that is such a message comes for a while.
func (p *peer) quiet(what string, wait time.Duration) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	for {
		got, err := p.Recv(ctx)
		if err != nil {
			return
		}
		require.NotEqual(p.t, what, describe(got.Message))
	}
}

func (p *peer) reply(in dialogtest.Received, r dialogtest.Response) {
	p.t.Helper()
	require.NoError(p.t, p.Reply(in, r))
}

func request(msg sip.Message) *sip.Request   { return msg.(*sip.Request) }
func response(msg sip.Message) *sip.Response { return msg.(*sip.Response) }

// nextAny returns the next message, whatever it is.
func (p *peer) nextAny() dialogtest.Received {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	got, err := p.Recv(ctx)
	require.NoError(p.t, err)
	return got
}
