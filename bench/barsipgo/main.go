// Command barsipgo answers calls on bare sipgo transactions, without a dialog
// layer: 180 and 200 to INVITE, nothing to ACK, 200 to BYE. bench/server is compared with
// it.
package main

import (
	"flag"
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
	trying := flag.Bool("trying", false, "answer INVITE with 100 first, as the library does")
	if err := child.Serve(func() (string, error) { return start(*trying) }); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "barsipgo:", err)
		os.Exit(1)
	}
}

func start(trying bool) (string, error) {
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
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return "", err
	}
	_ = conn.SetReadBuffer(child.ReadBuffer)
	port := conn.LocalAddr().(*net.UDPAddr).Port
	contact := sip.Uri{Scheme: "sip", Host: "127.0.0.1", Port: port}

	server.OnInvite(func(req *sip.Request, tx sip.ServerTransaction) {
		if trying {
			respond(tx, sip.NewResponseFromRequest(req, sip.StatusTrying, "Trying", nil))
		}
		respond(tx, sip.NewResponseFromRequest(req, sip.StatusRinging, "Ringing", nil))
		answer := sip.NewResponseFromRequest(req, sip.StatusOK, "OK", []byte(child.Session))
		answer.AppendHeader(&sip.ContactHeader{Address: contact})
		answer.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
		respond(tx, answer)
	})
	server.OnAck(func(*sip.Request, sip.ServerTransaction) {})
	server.OnBye(func(req *sip.Request, tx sip.ServerTransaction) {
		respond(tx, sip.NewResponseFromRequest(req, sip.StatusOK, "OK", nil))
	})
	go func() { _ = server.ServeUDP(conn) }()
	return conn.LocalAddr().String(), nil
}

func respond(tx sip.ServerTransaction, res *sip.Response) {
	if err := tx.Respond(res); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "barsipgo:", err)
	}
}
