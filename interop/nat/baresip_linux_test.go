package nat

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/program"
)

// baresip is a telephone that shares no code with the library, behind a router.
type baresip struct {
	t       *testing.T
	control net.Conn
	said    *bufio.Reader
}

// The configuration of a baresip without sound, which accepts commands on a port of its
// machine.
const baresipConfig = `
module_path %s
sip_listen 0.0.0.0:5060
audio_player aubridge,a
audio_source aubridge,a
audio_alert aubridge,a
module g711.so
module aubridge.so
module_app account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen 127.0.0.1:4444
`

// Calls from and to a baresip behind a router, after its registration.
func TestBaresip(t *testing.T) {
	path, err := exec.LookPath("baresip")
	if err != nil {
		t.Skip("baresip is not installed (Debian: baresip-core)")
	}
	modules, err := filepath.Glob("/usr/lib*/baresip/modules")
	require.NoError(t, err)
	if len(modules) == 0 {
		t.Skip("the modules of baresip are not found")
	}
	t.Parallel()
	for _, transport := range []string{"udp", "tcp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			w := newWorld(t)
			s, r := w.serve(), w.router(linux)
			b := startBaresip(t, r.inside, path, modules[0], transport)
			require.Eventually(t, func() bool { return s.binding("alice").flow != nil }, soon, soon/100, "no REGISTER")

			in := s.invites("alice")
			s.speaks(in)
			within(t, soon, "hanging up", func(ctx context.Context) error { return in.Hangup(ctx) })

			b.order("dial", fmt.Sprintf("sip:service@%s:%d;transport=%s", serverIP, ports[transport], transport))
			out := s.called()
			within(t, soon, "accepting", func(ctx context.Context) error { return out.Accept(ctx, withBody) })
			s.speaks(out)
			if transport == "udp" { // baresip does not open a lost connection again
				r.forget()
			}
			b.order("hangup", "")
			select {
			case <-out.Done():
			case <-time.After(soon):
				require.FailNow(t, "the call goes on")
			}
			require.Equal(t, dialog.PartyRemote, out.Cause().By)
		})
	}
}

// binding returns the binding of a user; zero if there is none.
func (s *server) binding(user string) binding {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bindings[user]
}

// invites calls a user that answers at once.
func (s *server) invites(user string) *dialog.Dialog {
	s.t.Helper()
	var call *dialog.Dialog
	b := s.binding(user)
	within(s.t, soon, "calling", func(ctx context.Context) error {
		d, err := s.NewInvite(ctx, b.contact, dialog.InviteOpts{Flow: b.flow, Body: body()})
		if err != nil {
			return err
		}
		call = d.(*dialog.Dialog)
		return call.WaitAnswer(ctx)
	})
	return call
}

// speaks lets the server hold and resume the call.
func (s *server) speaks(d *dialog.Dialog) {
	s.t.Helper()
	within(s.t, soon, "the server holds", d.Hold)
	within(s.t, soon, "the server resumes", d.Resume)
}

func startBaresip(t *testing.T, n *namespace, path, modules, transport string) *baresip {
	t.Helper()
	dir := t.TempDir()
	account := fmt.Sprintf("<sip:alice@%s:%d;transport=%s>;regint=60;answermode=auto\n", serverIP, ports[transport], transport)
	for name, text := range map[string]string{"config": fmt.Sprintf(baresipConfig, modules), "accounts": account, "contacts": ""} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	n.start(t, path, "-f", dir)
	b := &baresip{t: t}
	require.Eventually(t, func() bool {
		conn, err := n.DialContext(context.Background(), "tcp", "127.0.0.1:4444")
		b.control = conn
		return err == nil
	}, soon, soon/100, "baresip takes no orders")
	t.Cleanup(func() { _ = b.control.Close() })
	b.said = bufio.NewReader(b.control)
	return b
}

// order sends a command, as a netstring, and waits for its confirmation.
func (b *baresip) order(command, params string) {
	b.t.Helper()
	text, err := json.Marshal(map[string]string{"command": command, "params": params, "token": "order"})
	require.NoError(b.t, err)
	_, err = fmt.Fprintf(b.control, "%d:%s,", len(text), text)
	require.NoError(b.t, err)
	require.NoError(b.t, b.control.SetReadDeadline(time.Now().Add(soon)))
	for {
		size, err := b.said.ReadString(':')
		require.NoError(b.t, err)
		length, err := strconv.Atoi(strings.Trim(size, ",:"))
		require.NoError(b.t, err)
		said := make([]byte, length)
		for read := 0; read < length; {
			n, err := b.said.Read(said[read:])
			require.NoError(b.t, err)
			read += n
		}
		if strings.Contains(string(said), `"token":"order"`) {
			return
		}
	}
}

// command is a program on this network.
func (n *namespace) command() program.Command {
	return program.Command{Thread: n.inside, Apart: true}
}

// start runs a program on this network until the end of the test, or of this program.
func (n *namespace) start(t *testing.T, path string, args ...string) {
	t.Helper()
	command := n.command()
	command.Path, command.Args = path, args
	p, err := program.Start(command)
	require.NoError(t, err)
	p.EndsWith(t)
}
