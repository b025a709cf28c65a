// Command restore hangs up the calls that a program has left behind which has crashed. The
// program writes each call that is established into a file (Dialog.Snapshot), FOLDER/*.json,
// and removes the file when the call has ended. ADDRESS is where the peers reach it:
//
//	go run ./examples/restore 192.0.2.1:5060 FOLDER
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"net/netip"
	"os"
	"path/filepath"

	"sipdialog.example/dialog"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: restore ADDRESS:PORT FOLDER")
	}
	if err := run(context.Background(), netip.MustParseAddrPort(os.Args[1]), os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, addr netip.AddrPort, folder string) error {
	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: addr.Addr().String(), Port: int(addr.Port())},
	})
	if err != nil {
		return err
	}
	if err := stack.Start(ctx); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	for _, file := range files {
		err = errors.Join(err, hangUp(ctx, stack, file))
	}
	return errors.Join(err, stack.Shutdown(ctx))
}

func hangUp(ctx context.Context, stack *dialog.Stack, file string) error {
	text, err := os.ReadFile(file)
	snapshot := new(dialog.Snapshot)
	if err := errors.Join(err, json.Unmarshal(text, snapshot)); err != nil {
		return err
	}
	call, err := stack.Restore(ctx, snapshot)
	if err != nil {
		return err
	}
	return errors.Join(call.Bye(ctx, "server restarted"), os.Remove(file))
}
