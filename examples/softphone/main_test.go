package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/testcert"
)

// asPhone is set in the environment of this test's own program when it is to be the
// softphone.
const asPhone = "SOFTPHONE"

func TestMain(m *testing.M) {
	if os.Getenv(asPhone) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// soon is how long anything may take on a busy machine.
const soon = 90 * time.Second

// process is a program, and the lines that it has printed.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser

	mu    sync.Mutex // guards the fields below
	lines []string
	read  int           // how many of them the test has seen
	more  chan struct{} // gets one when there are more lines, or no more
	over  bool
}

// start starts a program, which ends with the test.
func start(t *testing.T, env string, name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(name, args...), more: make(chan struct{}, 1)}
	p.cmd.Env = append(os.Environ(), env)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	p.in, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	p.cmd.Stderr = p.cmd.Stdout
	require.NoError(t, p.cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.note(lines.Text(), false)
		}
		p.note("", true)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	})
	return p
}

func (p *process) note(line string, over bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over = over; !over {
		p.lines = append(p.lines, line)
	}
	select {
	case p.more <- struct{}{}:
	default:
	}
}

// says waits for a line that begins so, behind those that were waited for before.
func (p *process) says(prefix string) string {
	p.t.Helper()
	late := time.After(soon)
	for {
		line, found, over := p.next(prefix)
		if found {
			return line
		}
		if over {
			require.FailNow(p.t, "ended before it said "+prefix, "%s", strings.Join(p.lines, "\n"))
		}
		select {
		case <-p.more:
		case <-late:
			p.mu.Lock()
			defer p.mu.Unlock()
			require.FailNow(p.t, "does not say "+prefix, "%s", strings.Join(p.lines, "\n"))
		}
	}
}

func (p *process) next(prefix string) (line string, found, over bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := p.read; i < len(p.lines); i++ {
		if strings.HasPrefix(p.lines[i], prefix) {
			p.read = i + 1
			return p.lines[i], true, false
		}
	}
	return "", false, p.over
}

// forgets passes over all that was said.
func (p *process) forgets() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.read = len(p.lines)
}

// types types a line.
func (p *process) types(line string) {
	p.t.Helper()
	_, err := fmt.Fprintln(p.in, line)
	require.NoError(p.t, err)
}

// quits ends the softphone, as it should end.
func (p *process) quits() {
	p.t.Helper()
	p.types("quit")
	p.says("Unregistered")
}

// registrar is a Kamailio that registers, and sends calls where their callee is registered.
const registrarConfig = `
debug=1
log_stderror=yes
children=2
tcp_children=2
enable_tls=yes
auto_aliases=no
dns=no
rev_dns=no
tcp_connection_lifetime=3600
tcp_accept_no_cl=yes
listen=udp:%[1]s:5060
listen=tcp:%[1]s:5060
listen=tls:%[1]s:5061
listen=tcp:%[1]s:8080
loadmodule "tls.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "nathelper.so"
loadmodule "xhttp.so"
loadmodule "websocket.so"
modparam("tls", "tls_method", "TLSv1.2+")
modparam("tls", "private_key", "%[2]s/key.pem")
modparam("tls", "certificate", "%[2]s/cert.pem")
modparam("registrar", "min_expires", 1)
modparam("nathelper|registrar", "received_avp", "$avp(received)")
modparam("websocket", "keepalive_mechanism", 0)
request_route {
	force_rport();
	if (is_method("CANCEL")) {
		if (t_check_trans()) t_relay();
		exit;
	}
	if (is_first_hop()) {
		if (is_method("REGISTER")) fix_nated_register();
		else set_contact_alias();
	}
	if (has_totag()) {
		if (loose_route()) {
			if ($du == "") handle_ruri_alias();
			t_on_reply("ANSWER");
			t_relay();
		} else if (is_method("ACK") && t_check_trans()) {
			t_relay();
		}
		exit;
	}
	t_check_trans();
	if (is_method("REGISTER")) {
		if (!save("location")) sl_reply_error();
		exit;
	}
	record_route();
	if (!lookup("location")) {
		sl_send_reply("404", "Not Found");
		exit;
	}
	t_on_reply("ANSWER");
	t_relay();
}
onreply_route[ANSWER] {
	if (is_first_hop()) set_contact_alias();
}
event_route[xhttp:request] {
	set_reply_close();
	set_reply_no_connect();
	if ($hdr(Upgrade) =~ "websocket" && $rm =~ "GET" && ws_handle_handshake()) exit;
	xhttp_reply("404", "Not Found", "", "");
}
`

// registrar is a Kamailio on an address of its own.
type registrar struct {
	t               *testing.T
	ip, dir, binary string
	process         *process
}

func newRegistrar(t *testing.T) *registrar {
	binary, err := exec.LookPath("kamailio")
	if err != nil || runtime.GOOS != "linux" {
		t.Skip("kamailio is not installed (Debian: kamailio, kamailio-tls-modules, kamailio-websocket-modules)")
	}
	r := &registrar{t: t, dir: t.TempDir(), binary: binary, ip: fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))}
	ca := testcert.New(t)
	cert := ca.Issue(r.ip)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(t, err)
	write := func(name, kind string, data []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(r.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600))
	}
	write("cert.pem", "CERTIFICATE", cert.Certificate[0])
	write("key.pem", "PRIVATE KEY", key)
	write("ca.pem", "CERTIFICATE", cert.Certificate[len(cert.Certificate)-1])
	require.NoError(t, os.WriteFile(r.file("kamailio.cfg"), fmt.Appendf(nil, registrarConfig, r.ip, r.dir), 0o600))
	r.start()
	return r
}

func (r *registrar) file(name string) string { return filepath.Join(r.dir, name) }

// start starts it, and waits until it takes connections.
func (r *registrar) start() {
	r.t.Helper()
	r.process = start(r.t, "", r.binary, "-f", r.file("kamailio.cfg"), "-Y", r.dir, "-P", r.file("pid"), "-DD", "-E", "-m", "32", "-M", "4")
	require.Eventually(r.t, func() bool {
		conn, err := net.Dial("tcp", r.ip+":8080")
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, soon, 50*time.Millisecond, "kamailio takes no connections")
}

// restarts ends it, without a word to anybody, and starts it anew: it has forgotten all.
func (r *registrar) restarts() {
	r.t.Helper()
	require.NoError(r.t, syscall.Kill(-r.process.cmd.Process.Pid, syscall.SIGKILL))
	require.Eventually(r.t, func() bool {
		r.process.mu.Lock()
		defer r.process.mu.Unlock()
		return r.process.over
	}, soon, 20*time.Millisecond)
	r.start()
}

// phone starts a softphone by a transport.
func (r *registrar) phone(t *testing.T, user, transport string) *process {
	t.Helper()
	proxy := r.ip + map[string]string{"tls": ":5061", "ws": ":8080"}[transport]
	args := []string{"-as", "sip:" + user + "@" + r.ip, "-proxy", proxy, "-transport", transport, "-listen", "127.0.0.1:0", "-expires", "12s", "-retry", "1s"}
	if transport == "tls" {
		args = append(args, "-ca", r.file("ca.pem"))
	}
	p := start(t, asPhone+"=1", os.Args[0], args...)
	p.says("Registered for")
	return p
}

// The softphone as a program, with Kamailio: it registers, calls and is called, holds, is
// put through, and is called again after Kamailio has lost all.
func TestSoftphoneWithKamailio(t *testing.T) {
	if testing.Short() {
		t.Skip("starts programs")
	}
	r := newRegistrar(t)
	for _, transport := range []string{"udp", "tcp", "tls", "ws"} {
		t.Run(transport, func(t *testing.T) {
			user := func(name string) string { return name + "-" + transport }
			alice, bob, carol := r.phone(t, user("alice"), transport), r.phone(t, user("bob"), transport), r.phone(t, user("carol"), "udp")
			record := func(name string) string { return "sip:" + user(name) + "@" + r.ip }

			calls(alice, bob, record("bob"))
			for _, command := range []string{"hold", "resume"} {
				alice.types(command)
				alice.says(command + ": done")
				bob.types(command)
				bob.says(command + ": done")
			}
			bob.types("hangup")
			alice.says("call: Terminated")
			bob.says("call: Terminated")

			calls(bob, alice, record("alice"))
			bob.types("transfer " + record("carol"))
			carol.says("called by")
			carol.types("answer")
			carol.says("call: Established")
			alice.says("transferred to")
			bob.says("transfer: done")
			alice.says("call: Terminated") // that with bob
			carol.types("hangup")
			alice.says("call: Terminated")

			r.restarts()
			for _, p := range []*process{alice, bob} {
				p.forgets()
				p.says("Registered for")
			}
			calls(alice, bob, record("bob"))
			alice.types("ladder")
			alice.says("")
			alice.types("hangup")
			bob.says("call: Terminated")
			for _, p := range []*process{alice, bob, carol} {
				p.quits()
			}
		})
	}
}

// calls has one call the other, which answers.
func calls(caller, callee *process, record string) {
	caller.t.Helper()
	caller.types("call " + record)
	callee.says("called by")
	callee.types("answer")
	callee.says("call: Established")
	caller.says("call: Established")
}

func TestRun_says_what_is_wrong(t *testing.T) {
	for want, args := range map[string][]string{
		"-as":     {"-as", "x"},
		"a b":     {"-proxy", "a b"},
		"-listen": {"-listen", "x"},
		"-ca":     {"-ca", os.Args[0]},
		"nowhere": {"-ca", "nowhere.pem"},
		"flag":    {"-x"},
	} {
		require.ErrorContains(t, run(context.Background(), args, strings.NewReader(""), io.Discard), want)
	}
}
