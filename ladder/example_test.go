package ladder_test

import (
	"net/netip"
	"os"
	"time"

	"sipdialog.example/dialog/ladder"
)

// A refused call, drawn from the messages of a trace or a tap.
func Example() {
	alice := netip.MustParseAddrPort("10.0.0.1:5060")
	bob := netip.MustParseAddrPort("10.0.0.2:5060")
	invite := []byte("INVITE sip:bob@example.com SIP/2.0\r\nCSeq: 1 INVITE\r\n" +
		"Content-Type: application/sdp\r\n\r\nv=0\r\nm=audio 4000 RTP/AVP 0\r\na=sendonly\r\n")
	busy := []byte("SIP/2.0 486 Busy Here\r\nCSeq: 1 INVITE\r\n\r\n")
	ack := []byte("ACK sip:bob@example.com SIP/2.0\r\nCSeq: 1 ACK\r\n\r\n")

	l := ladder.New(
		ladder.Participant{Name: "alice", Addr: alice},
		ladder.Participant{Name: "bob", Addr: bob},
	)
	start := time.Now()
	l.Message(start, alice, bob, invite)
	l.Message(start.Add(500*time.Millisecond), alice, bob, invite)
	l.Message(start.Add(510*time.Millisecond), bob, alice, busy)
	l.Note(start.Add(510*time.Millisecond), "alice", "Terminated")
	l.Message(start.Add(511*time.Millisecond), alice, bob, ack)
	_, _ = l.WriteTo(os.Stdout)
	// Output:
	//            alice                                   bob
	//              |                                      |
	//     0.000    |------- INVITE 1, SDP sendonly ------>|
	//     0.500    |-- INVITE 1, SDP sendonly, repeat 1 ->|
	//     0.510    |<----- 486 Busy Here (INVITE 1) ------|
	//     0.510    * Terminated                           |
	//     0.511    |--------------- ACK 1 --------------->|
}
