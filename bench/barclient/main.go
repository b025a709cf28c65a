// Command barclient makes calls on bare sipgo transactions, without a dialog layer:
// INVITE, ACK after the 2xx, and BYE. bench/client is compared with it.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/bench/internal/child"
)

func main() {
	if err := child.Client(connect); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "barclient:", err)
		os.Exit(1)
	}
}

func connect(to string) (call func() error, err error) {
	silent := slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError + 1}))
	sip.SetDefaultLogger(silent)
	var target sip.Uri
	if err := sip.ParseUri("sip:service@"+to, &target); err != nil {
		return nil, err
	}
	agent, err := sipgo.NewUA()
	if err != nil {
		return nil, err
	}
	client, err := sipgo.NewClient(agent, sipgo.WithClientHostname("127.0.0.1"), sipgo.WithClientLogger(silent))
	if err != nil {
		return nil, err
	}
	return func() error { return place(client, target) }, nil
}

func place(client *sipgo.Client, target sip.Uri) error {
	ctx := context.Background()
	invite := sip.NewRequest(sip.INVITE, target)
	invite.AppendHeader(&sip.ContactHeader{Address: sip.Uri{Scheme: "sip", User: "bench", Host: "127.0.0.1"}})
	invite.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	invite.SetBody([]byte(child.Session))
	answer, err := client.Do(ctx, invite)
	if err != nil {
		return err
	}
	if !answer.IsSuccess() {
		return fmt.Errorf("answered %d", answer.StatusCode)
	}
	if err := client.WriteRequest(inside(sip.ACK, invite, answer, invite.CSeq().SeqNo)); err != nil {
		return err
	}
	_, err = client.Do(ctx, inside(sip.BYE, invite, answer, invite.CSeq().SeqNo+1))
	return err
}

// inside returns a request inside an answered call; the client adds the other headers.
func inside(method sip.RequestMethod, invite *sip.Request, answer *sip.Response, seq uint32) *sip.Request {
	req := sip.NewRequest(method, answer.Contact().Address)
	req.AppendHeader(sip.HeaderClone(invite.From()))
	req.AppendHeader(sip.HeaderClone(answer.To()))
	req.AppendHeader(sip.HeaderClone(invite.CallID()))
	req.AppendHeader(&sip.CSeqHeader{SeqNo: seq, MethodName: method})
	return req
}
