package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/store/bolt"
)

// scene has bob, the server, and the call between them. One goroutine plays it.
type scene struct {
	record *record
	file   string // of the server's calls; may be empty

	bob    *dialog.Stack
	server *process
	call   *dialog.Dialog // bob's
	first  int            // the process that has answered
	key    dialog.StoreKey
}

// step is an action, with the messages expected from it.
type step struct {
	name string
	do   func(ctx context.Context) error
	flow []string
}

func (s *scene) steps() []step {
	return []step{
		{"the server starts, and bob", s.begin, nil},
		{"bob calls the server, whose answer waits until the call is in the file", s.bobCalls, []string{
			"bob INVITE sendrecv", "server 100 INVITE", "server 180 INVITE", "server 200 INVITE sendrecv", "bob ACK",
		}},
		{"the server is killed, and bob hears nothing of that", s.kill, nil},
		{"it is started anew, at the same address and with the same file", s.restart, nil},
		{"bob refreshes the session: the new process finds the call, and answers", s.bobRefreshes, []string{
			"bob UPDATE", "server 200 UPDATE",
		}},
		{"the new process holds the call", s.serverDoes("hold"), []string{
			"server INVITE sendonly", "bob 100 INVITE", "bob 200 INVITE recvonly", "server ACK",
		}},
		{"it resumes the call", s.serverDoes("resume"), []string{
			"server INVITE sendrecv", "bob 100 INVITE", "bob 200 INVITE sendrecv", "server ACK",
		}},
		{"it hangs up", s.serverHangsUp, []string{"server BYE", "bob 200 BYE"}},
	}
}

// play runs the steps up to the first that fails.
func (s *scene) play(ctx context.Context, out io.Writer) error {
	for i, next := range s.steps() {
		err := next.do(ctx)
		if wrong := s.record.expect(ctx, next.flow); err == nil {
			err = wrong
		}
		if err != nil {
			return fmt.Errorf("step %d, %s: %w", i+1, next.name, err)
		}
		_, _ = fmt.Fprintf(out, "%d. %s\n", i+1, next.name)
	}
	return nil
}

// begin starts the server on a free port of the loopback interface, and bob's stack.
func (s *scene) begin(ctx context.Context) (err error) {
	if err = s.startServer("127.0.0.1:0"); err != nil {
		return err
	}
	s.first = s.server.cmd.Process.Pid
	address, err := s.server.says(ctx, "listening")
	if err != nil {
		return err
	}
	return s.startBob(ctx, address)
}

func (s *scene) startServer(address string) (err error) {
	s.server, err = start(address, s.file)
	return err
}

// startBob starts bob's stack, beside a server at that address.
func (s *scene) startBob(ctx context.Context, server string) error {
	address, err := netip.ParseAddrPort(server)
	if err != nil {
		return err
	}
	s.bob, err = dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: "127.0.0.1"},
		UserAgent: "bob", SessionExpires: sessionExpires, Trace: s.record.trace,
	})
	if err != nil {
		return err
	}
	// The end of Start's context would shut the stack down, but the scene does that.
	if err := s.bob.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	s.record.meet(s.bob.Addr(), address)
	return nil
}

func (s *scene) bobCalls(ctx context.Context) error {
	to := s.record.server
	uri := sip.Uri{Scheme: "sip", User: "server", Host: to.Addr().String(), Port: int(to.Port())}
	placed, err := s.bob.NewInvite(ctx, uri, dialog.InviteOpts{Body: session("bob")})
	if err != nil {
		return err
	}
	s.call = placed.(*dialog.Dialog)
	if err := s.call.WaitAnswer(ctx); err != nil {
		return err
	}
	s.key = dialog.NewStoreKey(s.call.Key().CallID, s.call.Key().RemoteTag)
	_, err = s.server.says(ctx, "answered")
	return err
}

func (s *scene) kill(context.Context) error {
	if err := s.server.kill(); err != nil {
		return err
	}
	s.record.note("server", fmt.Sprintf("kill -9 of process %d", s.first))
	return s.stillEstablished()
}

func (s *scene) stillEstablished() error {
	if state := s.call.State(); state != dialog.DialogStateEstablished {
		return fmt.Errorf("bob's call is %v: %v", state, s.call.Cause())
	}
	return nil
}

func (s *scene) restart(ctx context.Context) error {
	if err := s.startServer(s.record.server.String()); err != nil {
		return err
	}
	if _, err := s.server.says(ctx, "listening"); err != nil {
		return err
	}
	s.record.note("server", fmt.Sprintf("process %d, same address, same file", s.server.cmd.Process.Pid))
	return nil
}

// bobRefreshes sends the UPDATE that bob's stack sends by itself after half of the session
// interval (RFC 4028 7.4). For the new process it belongs to no call: the file has the call.
func (s *scene) bobRefreshes(ctx context.Context) error {
	if _, err := s.call.Update(ctx, nil); err != nil {
		return err
	}
	data, err := s.server.says(ctx, "restored")
	if err != nil {
		return err
	}
	if data != fmt.Sprint(s.first) {
		return fmt.Errorf("the call's data are %q, not those of process %d", data, s.first)
	}
	s.record.note("server", "has the call that process "+data+" has answered")
	return s.stillEstablished()
}

// serverDoes has the new process do something with the call.
func (s *scene) serverDoes(task string) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := s.server.tell(ctx, task); err != nil {
			return err
		}
		return s.stillEstablished()
	}
}

func (s *scene) serverHangsUp(ctx context.Context) error {
	if err := s.server.tell(ctx, "hang up"); err != nil {
		return err
	}
	select {
	case <-s.call.Done():
	case <-ctx.Done():
		return ctx.Err()
	}
	if cause := s.call.Cause(); cause.By != dialog.PartyRemote || cause.Method != "BYE" {
		return fmt.Errorf("bob's call ended by %q, not by a BYE of the server", cause)
	}
	return nil
}

// close ends the server and bob's stack.
func (s *scene) close(ctx context.Context) (err error) {
	if s.bob != nil { // first, since his BYE needs a response
		err = s.bob.Shutdown(ctx)
	}
	if s.server != nil {
		err = errors.Join(err, s.server.stop(ctx))
	}
	return err
}

// checkFile checks that the file says of the call that it has ended.
func (s *scene) checkFile(ctx context.Context) error {
	store, err := bolt.Open(s.file, nil)
	if err != nil {
		return err
	}
	_, err = store.Take(ctx, s.key, "bob")
	if err = errors.Join(err, store.Close()); !errors.Is(err, dialog.ErrEnded) {
		return fmt.Errorf("in the end the file should have a tombstone of the call: %v", err)
	}
	return nil
}
