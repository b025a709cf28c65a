// Command diago answers calls with diago, without its media: 180 and 200 to INVITE,
// 200 to BYE.
package main

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"

	"github.com/emiago/diago"
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

func complain(err error) { _, _ = fmt.Fprintln(os.Stderr, "diago:", err) }

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
	// diago opens its sockets itself, with the system's buffers; all servers here
	// have the same.
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return "", err
	}
	_ = conn.SetReadBuffer(child.ReadBuffer)
	port := conn.LocalAddr().(*net.UDPAddr).Port
	phone := diago.NewDiago(agent, diago.WithServer(server), diago.WithLogger(silent),
		diago.WithTransport(diago.Transport{Transport: "udp", BindHost: "127.0.0.1", BindPort: port}))
	phone.HandleFunc(answer)
	go func() { _ = server.ServeUDP(conn) }()
	return conn.LocalAddr().String(), nil
}

func answer(call *diago.DialogServerSession) {
	if err := call.Ringing(); err != nil {
		complain(err)
		return
	}
	if err := call.RespondSDP([]byte(child.Session)); err != nil {
		return // no ACK: sipp counts the call as failed
	}
	<-call.Context().Done()
}
