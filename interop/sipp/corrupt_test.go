package main

import (
	"context"
	"net"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// corruption is one fault in the library's messages: in each message that starts with
// kind, old becomes replacement. Its case must fail, with an error that contains says.
type corruption struct {
	name        string
	kind        string
	old         string
	replacement string
	says        string
}

var corruptions = []corruption{
	{"sipp-calls-udp", "SIP/2.0 180", `branch=z9hG4bK-inv`, "branch=z9hG4bK-inw", "invbranch"},
	{"sipp-calls-udp", "SIP/2.0 180", `;rport=\d+`, ";rport=1", "rport"},
	{"sipp-calls-udp", "SIP/2.0 180", `(From: .*;tag=)`, "${1}x", "fromtag"},
	{"sipp-calls-udp", "SIP/2.0 200", `(To: .*;tag=)`, "${1}x", "totag"},
	{"sipp-calls-udp", "SIP/2.0 200", `(Contact: <sip:.*)127\.0\.0\.1`, "${1}0.0.0.0", "contact"},
	{"sipp-calls-udp", "SIP/2.0 200", `CSeq: 4711`, "CSeq: 4710", "4711 INVITE"},
	{"sipp-calls-udp", "SIP/2.0 200", `(Content-Length: \d+\r\n)`, "${1}${1}", "Content-Length"},
	{"library-calls-udp", "INVITE", `Max-Forwards: 70`, "Max-Forwards: 71", "70"},
	{"library-calls-udp", "INVITE", `(To: .*)\r`, "${1};tag=early\r", "tag="},
	{"library-calls-udp", "ACK", `CSeq: 1 `, "CSeq: 2 ", "invcseq"},
	{"library-calls-udp", "ACK", `sip:answering@`, "sip:sipp@", "answering"},
	{"library-calls-udp", "BYE", `CSeq: 2 `, "CSeq: 1 ", "bye:1"},
	{"library-calls-udp", "BYE", `(From: .*;tag=)`, "${1}x", "librarytag"},
	{"sipp-cancels", "SIP/2.0 487", `(To: .*;tag=)`, "${1}x", "tag487"},
	{"sipp-cancels", "SIP/2.0 200", `(To: .*;tag=)`, "${1}x", "tagcancel"},
	{"library-cancels", "CANCEL", `branch=z9hG4bK`, "branch=z9hG4bKx", "cvia"},
	{"library-cancels", "CANCEL", `CSeq: 1 `, "CSeq: 2 ", "ccseq"},
	{"sipp-holds", "SIP/2.0 200", `a=recvonly`, "a=sendrecv", "recvonly"},
	{"sipp-holds", "SIP/2.0 200", `o=library 7000 \d+`, "o=library 7000 1", "v2:1"},
	{"hops-loose-callee", "SIP/2.0 180", `Record-Route: <sip:hop1`, "Record-Route: <sip:hop3", "Record-Route"},
	{"hops-loose-caller", "ACK", `(?s)(Route: .*)hop1(.*)hop2`, "${1}hop2${2}hop1", "Route"},
	{"hops-strict-caller", "BYE", `BYE sip:hop1`, "BYE sip:answering", "hop1"},
	{"sipp-forks", "BYE sip:second", `tag=fork2`, "tag=fork1", "tag2"},
	{"sipp-rings-reliably", "PRACK", `RAck: 776656`, "RAck: 776655", "776656"},
	{"sipp-rings-reliably", "PRACK", `CSeq: 3 `, "CSeq: 2 ", "prack"},
	{"sipp-rings-reliably", "PRACK", `(?s)(Route: .*)hop1(.*)hop2`, "${1}hop2${2}hop1", "Route"},
	{"sipp-rings-reliably", "PRACK", `(To: .*;tag=)`, "${1}x", "mytag"},
	{"sipp-forks-reliably", "PRACK sip:first", `tag=fork1`, "tag=fork2", "tag1"},
	{"sipp-forks-reliably", "PRACK sip:first", `RAck: 17 `, "RAck: 9001 ", "17"},
	{"sipp-agrees-reliably", "PRACK", `a=sendonly`, "a=sendrecv", "sendonly"},
	{"sipp-agrees-reliably", "PRACK", `RAck: 976 `, "RAck: 41 ", "976"},
	{"sipp-updates", "SIP/2.0 200", `a=recvonly`, "a=sendonly", "recvonly"},
	{"sipp-updates", "SIP/2.0 200", `CSeq: 73 UPDATE`, "CSeq: 72 UPDATE", "73 UPDATE"},
	{"sipp-updates", "SIP/2.0 183", `Require: 100rel`, "Require: timer", "100rel"},
	{"library-holds", "INVITE sip:answering", `a=sendonly`, "a=sendrecv", "sendonly"},
	{"library-holds", "INVITE sip:answering", `o=library 7000 3`, "o=library 7000 2", "next"},
	{"library-updates", "UPDATE", `CSeq: 3 `, "CSeq: 2 ", "number"},
	{"library-updates", "UPDATE sip:moved", `sip:moved@`, "sip:answering@", "moved"},
	{"sipp-asks-for-offers", "SIP/2.0 488", `Warning: 399`, "Warning: 398", "399"},
	{"sipp-asks-for-offers", "SIP/2.0 200", `a=recvonly`, "a=sendonly", "recvonly"},
	{"sipp-asks-for-offers", "SIP/2.0 183", `o=library 7000`, "o=other 7000", "origin"},
	{"library-asks-for-offers", "ACK", `o=library 7000 2`, "o=library 7000 3", "7000 2"},
	{"library-asks-for-offers", "PRACK", `o=library 7000 1`, "o=library 7000 2", "7000 1"},
	{"sipp-says-who", "SIP/2.0 200", `Privacy: id`, "Privacy: none", "id"},
	{"library-says-who", "BYE", `text="done"`, `text="gone"`, "done"},
	{"sipp-crosses", "SIP/2.0 491", `CSeq: 900`, "CSeq: 901", "900"},
	{"sipp-asks-timer", "SIP/2.0 422", `Min-SE: 90`, "Min-SE: 91", "90"},
	{"sipp-asks-timer", "SIP/2.0 200", `refresher=uas`, "refresher=uac", "600;refresher=uas"},
	{"sipp-asks-timer", "SIP/2.0 200", `(?s)(CSeq: 84 .*)o=library 7000 1`, "${1}o=library 7000 2", "origin"},
	{"sipp-asks-timer", "SIP/2.0 200", `Require: timer`, "Require: 100rel", "timer"},
	{"library-asks-timer", "INVITE", `Session-Expires: 300`, "Session-Expires: 120", "300"},
	{"library-asks-timer", "UPDATE", `refresher=uas`, "refresher=uac", "400;refresher=uas"},
	{"sipp-redirects", "INVITE sip:first", `INVITE sip:first`, "INVITE sip:second", "first"},
	{"sipp-redirects", "INVITE sip:second", `CSeq: 3 `, "CSeq: 2 ", "number"},
	{"sipp-informs", "SIP/2.0 469", `Recv-Info: known`, "Recv-Info: other", "known"},
	{"library-informs", "INFO", `Signal=5`, "Signal=6", "Signal=5"},
	{"library-informs", "INFO", `Info-Package: beta`, "Info-Package: alpha", "beta"},
	{"sipp-transfers", "NOTIFY", `SIP/2\.0 486 `, "SIP/2.0 487 ", "486"},
	{"sipp-transfers", "NOTIFY", `refer;id=32`, "refer;id=31", "32"},
	{"sipp-transfers", "NOTIFY", `noresource`, "giveup", "noresource"},
	{"library-waits", "UPDATE", `o=library 7000 3`, "o=library 7000 4", "7000 3"},
	{"library-refreshes", "UPDATE", `refresher=uac`, "refresher=uas", "90;refresher=uac"},
	{"library-reinvites", "INVITE sip:sipp", `o=library 7000 1`, "o=library 7000 2", "origin"},
	{"sipp-stops-refreshing", "BYE", `cause=408`, "cause=487", "408"},
	{"sipp-never-acks", "BYE", `(To: .*;tag=)`, "${1}x", "mytag"},
}

// The results of this program depend on the checks in the scenarios. So this test shows
// that each kind of check fails for a wrong message.
func TestScenariosNoticeAWrongHeader(t *testing.T) {
	if testing.Short() {
		t.Skip("starts sipp many times")
	}
	if _, err := exec.LookPath("sipp"); err != nil {
		t.Skip("sipp is not installed; make interop-sipp installs it")
	}
	complaints := make([]error, len(corruptions))
	slots := make(chan struct{}, 6)
	var running sync.WaitGroup
	for i, fault := range corruptions {
		dir := t.TempDir()
		running.Add(1)
		go func() {
			defer running.Done()
			c := fault.caseOf()
			if c.lasts == 0 { // else it waits, and needs no slot
				slots <- struct{}{}
				defer func() { <-slots }()
			}
			complaints[i] = c.run(dir)
		}()
	}
	running.Wait()
	for i, fault := range corruptions {
		err := complaints[i]
		require.Error(t, err, "%s: %s %s", fault.name, fault.kind, fault.old)
		require.ErrorContains(t, err, "sipp: exit status", "%s: %s %s", fault.name, fault.kind, fault.old)
		require.ErrorContains(t, err, fault.says, "%s: %s %s", fault.name, fault.kind, fault.old)
	}
}

// caseOf returns the case, over a network that has the fault.
func (c corruption) caseOf() testCase {
	for _, known := range cases() {
		if known.name == c.name {
			known.calls = 1
			known.network = corruptNetwork{Dialer: &net.Dialer{}, kind: c.kind, old: regexp.MustCompile(c.old), replacement: c.replacement}
			return known
		}
	}
	panic("no case " + c.name)
}

// corruptNetwork is the operating system's UDP, with a fault in the sent messages.
type corruptNetwork struct {
	*net.Dialer
	kind        string
	old         *regexp.Regexp
	replacement string
}

func (n corruptNetwork) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	var config net.ListenConfig
	conn, err := config.ListenPacket(ctx, network, address)
	return corruptConn{conn, n}, err
}

func (n corruptNetwork) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	var config net.ListenConfig
	return config.Listen(ctx, network, address)
}

type corruptConn struct {
	net.PacketConn
	network corruptNetwork
}

func (c corruptConn) WriteTo(data []byte, to net.Addr) (int, error) {
	text := string(data)
	if strings.HasPrefix(text, c.network.kind) {
		text = c.network.old.ReplaceAllString(text, c.network.replacement)
	}
	if _, err := c.PacketConn.WriteTo([]byte(text), to); err != nil {
		return 0, err
	}
	return len(data), nil
}
