package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/kamailio"
	"sipdialog.example/dialog/internal/program"
	"sipdialog.example/dialog/internal/testcert"
)

// soon is how long anything may take on a busy machine.
const soon = 90 * time.Second

// process is a softphone, or another program, and what the test has read of its output.
type process struct {
	*program.Program
	t    *testing.T
	read int
}

// start starts a program, which ends with the test.
func start(t *testing.T, env string, name string, args ...string) *process {
	t.Helper()
	p, err := program.Start(program.Command{Path: name, Args: args, Env: []string{env}})
	require.NoError(t, err)
	p.EndsWith(t)
	return &process{Program: p, t: t}
}

// says waits for a text, behind those that were waited for before.
func (p *process) says(text string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	read, err := p.Says(ctx, p.read, text)
	require.NoError(p.t, err)
	p.read = read
}

// forgets passes over all that was said.
func (p *process) forgets() { p.read = p.Length() }

// types types a line.
func (p *process) types(line string) {
	p.t.Helper()
	require.NoError(p.t, p.Type(line))
}

// quits ends the softphone, as it should end.
func (p *process) quits() {
	p.t.Helper()
	p.types("quit")
	p.says("Unregistered")
}

// registrar is a Kamailio on an address of its own.
type registrar struct {
	*kamailio.Server
	ip, dir string
}

func newRegistrar(t *testing.T) *registrar {
	t.Helper()
	if !kamailio.Installed() {
		t.Skip("kamailio is not installed (Debian: " + kamailio.Packages + ")")
	}
	r := &registrar{dir: t.TempDir(), ip: fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))}
	ca := testcert.New(t)
	ca.Write(r.dir, r.ip)
	var err error
	r.Server, err = kamailio.Start(context.Background(), kamailio.Config{
		Text: kamailio.Registrar(r.ip, r.dir, kamailio.NAT, kamailio.Digest), Dir: r.dir,
		Answers: kamailio.Handshake(r.ip, ca.Client(), new(net.Dialer).DialContext),
	})
	require.NoError(t, err)
	r.EndsWith(t)
	return r
}

// phone starts a softphone by a transport.
func (r *registrar) phone(t *testing.T, user, transport string) *process {
	t.Helper()
	proxy := fmt.Sprintf("%s:%d", r.ip, kamailio.Port(transport))
	args := []string{"-as", "sip:" + user + "@" + r.ip, "-password", user, "-proxy", proxy, "-transport", transport, "-listen", "127.0.0.1:0", "-expires", "12s", "-retry", "1s"}
	if transport == "tls" || transport == "wss" {
		args = append(args, "-ca", filepath.Join(r.dir, "ca.pem"))
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
	for _, transport := range []string{"udp", "tcp", "tls", "ws", "wss"} {
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

			require.NoError(t, r.Restart(context.Background()))
			for _, p := range []*process{alice, bob} {
				p.forgets()
				p.says("Registered for")
			}
			calls(alice, bob, record("bob"))
			alice.types("ladder")
			alice.says("INVITE")
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
