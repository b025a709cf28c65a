// Command sipgodialogs answers calls with sipgo's dialogs: 180 and 200 to INVITE,
// 200 to BYE.
package main

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/bench/internal/child"
)

func main() {
	if err := child.Serve(start); err != nil {
		complain(err)
		os.Exit(1)
	}
}

func complain(err error) { _, _ = fmt.Fprintln(os.Stderr, "sipgodialogs:", err) }

func start() (string, error) {
	silent := slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError + 1}))
	sip.SetDefaultLogger(silent)
	agent, err := sipgo.NewUA()
	if err != nil {
		return "", err
	}
	server, err := sipgo.NewServer(agent, sipgo.WithServerLogger(silent))
	if err != nil {
		return "", err
	}
	client, err := sipgo.NewClient(agent, sipgo.WithClientLogger(silent))
	if err != nil {
		return "", err
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return "", err
	}
	_ = conn.SetReadBuffer(child.ReadBuffer)
	contact := sip.Uri{Scheme: "sip", Host: "127.0.0.1", Port: conn.LocalAddr().(*net.UDPAddr).Port}
	serve(server, sipgo.NewDialogServerCache(client, sip.ContactHeader{Address: contact}))
	go func() { _ = server.ServeUDP(conn) }()
	return conn.LocalAddr().String(), nil
}

func serve(server *sipgo.Server, dialogs *sipgo.DialogServerCache) {
	server.OnInvite(func(req *sip.Request, tx sip.ServerTransaction) {
		call, err := dialogs.ReadInvite(req, tx)
		if err != nil {
			complain(err)
			return
		}
		defer func() { _ = call.Close() }()
		if err := call.Respond(sip.StatusRinging, "Ringing", nil); err != nil {
			complain(err)
		}
		// It returns when the ACK has arrived.
		if err := call.RespondSDP([]byte(child.Session)); err != nil {
			return // no ACK: sipp counts the call as failed
		}
		<-call.Context().Done()
	})
	// An ACK or BYE of an ended call is ignored.
	server.OnAck(func(req *sip.Request, tx sip.ServerTransaction) { _ = dialogs.ReadAck(req, tx) })
	server.OnBye(func(req *sip.Request, tx sip.ServerTransaction) { _ = dialogs.ReadBye(req, tx) })
}
