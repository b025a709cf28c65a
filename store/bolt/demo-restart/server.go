package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/store/bolt"
)

// server is the process that is killed. Lines of its input tell it what to do with its call,
// and lines of its output say what has happened:
//
//	listening 127.0.0.1:5060    it takes calls
//	answered                    it has answered a call, with its process number as the call's data
//	restored 1234               it continues a call, whose data are these
//	done                        it has executed the latest line of the input
type server struct {
	say  func(format string, values ...any)
	call chan *dialog.Dialog // the only call
}

// serve runs the server until its input ends. args are its address and file.
func serve(args []string, in io.Reader, out io.Writer) (err error) {
	if len(args) != 2 {
		return errors.New("usage: server ADDRESS FILE")
	}
	s := &server{call: make(chan *dialog.Dialog, 1)}
	s.say = func(format string, values ...any) { _, _ = fmt.Fprintf(out, format+"\n", values...) }
	stack, closeStore, err := s.open(args[0], args[1])
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err = stack.Start(ctx); err == nil {
		s.say("listening %v", stack.Addr())
		err = s.obey(ctx, in)
	}
	return errors.Join(err, stack.Shutdown(ctx), closeStore())
}

// open makes the stack, and opens the file of its calls; an empty name is none.
func (s *server) open(address, file string) (stack *dialog.Stack, closeStore func() error, err error) {
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, nil, err
	}
	config := &dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: addr.Addr().String(), Port: int(addr.Port())},
		UserAgent: "server", SessionExpires: sessionExpires,
	}
	closeStore = func() error { return nil }
	if file != "" {
		store, err := bolt.Open(file, nil)
		if err != nil {
			return nil, nil, err
		}
		config.Store, closeStore = store, store.Close
	}
	stack, err = dialog.NewStack(config)
	if err != nil {
		return nil, nil, errors.Join(err, closeStore())
	}
	stack.OnIncomingDialog(s.answer)
	stack.OnRestored(func(d *dialog.Dialog, _ dialog.Takeover) {
		s.call <- d
		s.say("restored %s", d.AppData())
	})
	return stack, closeStore, nil
}

// sessionExpires is the interval of the session timer: calls whose peer has gone end with it.
const sessionExpires = 30 * time.Minute

// answer answers a call. Its 200 is sent when the call is in the file.
func (s *server) answer(incoming dialog.IDialog) {
	call := incoming.(*dialog.Dialog)
	if err := call.SetAppData(fmt.Append(nil, os.Getpid())); err != nil {
		s.say("failed %v", err)
	}
	call.OnStateChange(func(state dialog.DialogState) {
		if state == dialog.DialogStateEstablished {
			s.say("answered")
		}
	})
	if err := call.Accept(context.Background(), dialog.WithBody(session("server"))); err != nil {
		s.say("failed %v", err)
	}
}

// obey executes the input.
func (s *server) obey(ctx context.Context, in io.Reader) error {
	var call *dialog.Dialog
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if call == nil {
			call = <-s.call
		}
		var err error
		switch lines.Text() {
		case "hold":
			err = call.Hold(ctx)
		case "resume":
			err = call.Resume(ctx)
		case "hang up":
			err = call.Bye(ctx, "")
		default:
			err = fmt.Errorf("unknown: %q", lines.Text())
		}
		if err != nil {
			return err
		}
		s.say("done")
	}
	return lines.Err()
}

// session describes one audio stream.
func session(name string) dialog.Body {
	return dialog.NewBody("application/sdp", fmt.Appendf(nil, "v=0\r\no=%s 1 1 IN IP4 127.0.0.1\r\ns=-\r\n"+
		"c=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\na=sendrecv\r\n", name))
}
