package test

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// followed is what came of FollowRefer.
type followed struct {
	call *dialog.Dialog
	err  error
}

// followsRefers has the stack follow the REFERs it gets.
func followsRefers(ctx context.Context, s *dialog.Stack, opts dialog.InviteOpts) <-chan followed {
	result := make(chan followed, 10)
	s.OnIncomingRefer(func(d dialog.IDialog, referTo sip.Uri, _ *dialog.ReplacesInfo) {
		call, err := d.(*dialog.Dialog).FollowRefer(ctx, referTo, opts)
		result <- followed{call, err}
	})
	return result
}

// told answers NOTIFYs with 200 and returns what they said, up to the last.
func (l *peerCall) told() []string {
	l.t.Helper()
	list, err := l.hears()
	require.NoError(l.t, err)
	return list
}

// hears is told for any goroutine.
func (l *peerCall) hears() (said []string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	for {
		notify, err := l.Recv(ctx)
		if err != nil {
			return said, err
		}
		if describe(notify.Message) != "NOTIFY" {
			continue
		}
		if err := l.Reply(notify, dialogtest.Response{Code: 200}); err != nil {
			return said, err
		}
		said = append(said, strings.TrimSpace(strings.TrimPrefix(string(notify.Message.Body()), "SIP/2.0 ")))
		switch state := value(notify.Message, "Subscription-State"); {
		case state == "terminated;reason=noresource":
			return said, nil
		case strings.HasPrefix(state, "terminated"):
			return said, errors.New(state)
		}
	}
}
