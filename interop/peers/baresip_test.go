//go:build interop && linux

package peers

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

// baresip is a telephone of baresip's, without sound, that obeys over TCP.
type baresip struct {
	*process
	s         *scene
	transport string
	ip        string
	control   net.Conn
	events    heard[baresipEvent]
}

// baresipEvent is what baresip tells: an event, or the response to a command.
type baresipEvent struct {
	Event, Response, OK      bool
	Type, Token, Data, Param string
}

const baresipConfig = `
module_path %[1]s
sip_listen %[2]s:5060
sip_cafile %[3]s/ca.pem
sip_certificate %[3]s/both.pem
audio_player aubridge,a
audio_source aubridge,a
audio_alert aubridge,a
statmode_default off
ctrl_tcp_listen %[2]s:4444
module g711.so
module aubridge.so
module_app account.so
module_app menu.so
module_app ctrl_tcp.so
`

// baresips starts a phone of its own. account has more parameters for it.
func baresips(s *scene, host int, transport, account string) *baresip {
	s.t.Helper()
	b := &baresip{s: s, transport: transport, ip: s.address(host, fmt.Sprint("baresip", host-peerHost))}
	dir := s.t.TempDir()
	s.authority().Write(dir, b.ip)
	if account == "" {
		account = fmt.Sprintf("<sip:peer@%s:%d;transport=%s>;regint=0;answermode=manual", b.ip, portOf(transport), transport)
	}
	for name, text := range map[string]string{
		"config": fmt.Sprintf(baresipConfig, baresipModules(), b.ip, dir), "accounts": account + "\n", "contacts": "",
	} {
		require.NoError(s.t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	b.process = launch(s.t, dir, nil, "baresip", "-f", dir)
	b.says(0, "baresip is ready")
	conn, err := net.Dial("tcp", net.JoinHostPort(b.ip, "4444"))
	require.NoError(s.t, err)
	b.control = conn
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		b.listen()
	}()
	s.t.Cleanup(func() {
		_ = conn.Close()
		<-listening
	})
	return b
}

func baresipModules() string {
	dirs, _ := filepath.Glob("/usr/lib*/baresip/modules")
	return strings.Join(dirs, "")
}

// listen reads netstrings until the connection ends.
func (b *baresip) listen() {
	said := bufio.NewReader(b.control)
	for {
		size, err := said.ReadString(':')
		if err != nil {
			return
		}
		length, err := strconv.Atoi(strings.Trim(size, ",:"))
		if err != nil {
			return
		}
		text := make([]byte, length)
		if _, err := io.ReadFull(said, text); err != nil {
			return
		}
		b.hears(text)
	}
}

func (b *baresip) hears(text []byte) {
	var e baresipEvent
	if err := json.Unmarshal(text, &e); err != nil {
		e.Type = "unreadable: " + string(text)
	}
	if e.Event {
		b.s.note("baresip", e.Type)
	}
	b.events.add(e)
}

func (b *baresip) event(name string) {
	b.s.t.Helper()
	b.events.next(b.s.t, "baresip tells "+name, func(e baresipEvent) bool { return e.Event && e.Type == name })
}

// order gives a command, and waits until it has been carried out.
func (b *baresip) order(command, params string) {
	b.s.t.Helper()
	text, err := json.Marshal(map[string]string{"command": command, "params": params, "token": command})
	require.NoError(b.s.t, err)
	_, err = fmt.Fprintf(b.control, "%d:%s,", len(text), text)
	require.NoError(b.s.t, err)
	done := b.events.next(b.s.t, "baresip has done "+command, func(e baresipEvent) bool { return e.Response && e.Token == command })
	require.True(b.s.t, done.OK, "%s: %s", command, done.Data)
}

func (b *baresip) target() (sip.Uri, *dialog.Flow) {
	return sip.Uri{Scheme: "sip", User: "peer", Host: b.ip, Port: portOf(b.transport), UriParams: over(b.transport)}, nil
}

func (b *baresip) dial(to *station) {
	b.s.t.Helper()
	uri := to.at(b.transport)
	uri.UriParams = nil // the account's transport is added
	b.call(uri.String())
}

func (b *baresip) call(record string) { b.s.t.Helper(); b.order("dial", record) }

func (b *baresip) rings()  { b.s.t.Helper(); b.event("CALL_INCOMING") }
func (b *baresip) answer() { b.s.t.Helper(); b.order("accept", "") }
func (b *baresip) refuse() { b.s.t.Helper(); b.order("hangup", "") }
func (b *baresip) hangup() { b.s.t.Helper(); b.order("hangup", "") }
func (b *baresip) hold()   { b.s.t.Helper(); b.order("hold", "") }
func (b *baresip) resume() { b.s.t.Helper(); b.order("resume", "") }
func (b *baresip) transfer(to *station) {
	b.s.t.Helper()
	uri := to.at(b.transport)
	b.order("transfer", uri.String())
}

func TestBaresip(t *testing.T) {
	if _, err := exec.LookPath("baresip"); err != nil || baresipModules() == "" {
		results.misses("baresip", "it is not installed (Debian: baresip-core)")
		t.Skip("baresip is not installed")
	}
	results.meets("baresip", packaged("baresip-core"))
	make := func(s *scene, host int, transport string) phone { return baresips(s, host, transport, "") }
	both := peer{name: "baresip", make: make}
	both.tries(t, []string{"udp"}, features)
	both.tries(t, []string{"tcp", "tls"}, everywhere())
}
