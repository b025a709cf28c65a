package txn

import (
	"context"
	"strconv"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
)

// benchSDP is a body of a usual size.
const benchSDP = "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\n" +
	"m=audio 40000 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"

// benchUser is both ends of the benchmark's calls.
type benchUser struct {
	layer *Layer // of the caller
	ended chan struct{}
}

func (u *benchUser) Request(tx *Server) {
	if tx.Request().Method == sip.INVITE {
		_ = tx.Respond(tx.NewResponse(180, ""))
	}
	res := tx.NewResponse(200, "")
	if tx.Request().Method == sip.INVITE {
		res.SetBody([]byte(benchSDP))
	}
	_ = tx.Respond(res)
}
func (u *benchUser) Ack(*sipmsg.Message, *transport.Flow) {}
func (u *benchUser) Cancel(*Server, *sipmsg.Message)      {}
func (u *benchUser) ServerFailed(*Server, error)          {}
func (u *benchUser) Done(*Client, error)                  {}

func (u *benchUser) Response(_ *Client, res *sipmsg.Message) {
	switch {
	case res.Status < 200:
	case res.CSeqMethod == sip.INVITE:
		id := res.CallID
		opt := RequestOptions{NextHop: sip.Uri{Host: "10.0.0.2"}}
		_, _ = u.layer.SendAck(context.Background(), benchRequest(sip.ACK, id, 1), opt)
		_, _ = u.layer.Request(context.Background(), benchRequest(sip.BYE, id, 2), opt, u)
	default:
		u.ended <- struct{}{}
	}
}

func benchRequest(method sip.RequestMethod, callID string, seq uint32) *draft.Request {
	req := sip.NewRequest(method, sip.Uri{Scheme: "sip", User: "bob", Host: "10.0.0.2"})
	from := &sip.FromHeader{Address: sip.Uri{Scheme: "sip", User: "alice", Host: "10.0.0.1"}}
	from.Params.Add("tag", "alice")
	id := sip.CallIDHeader(callID)
	req.AppendHeader(from)
	req.AppendHeader(&sip.ToHeader{Address: req.Recipient})
	req.AppendHeader(&id)
	req.AppendHeader(&sip.CSeqHeader{SeqNo: seq, MethodName: method})
	return draft.Of(req)
}

// BenchmarkCall is a whole call, INVITE, 100, 180, 200, ACK, BYE and 200, both ends in
// one process on a network in memory.
func BenchmarkCall(b *testing.B) {
	network := dialogtest.NewNetwork()
	user := &benchUser{ended: make(chan struct{})}
	for _, ip := range []string{"10.0.0.1", "10.0.0.2"} {
		below := transport.New(transport.Config{Network: network.Host(ip)})
		layer := New(Config{Transport: below, User: user})
		_, err := below.Listen(context.Background(), transport.ListenConfig{Transport: "udp", Address: ":5060"})
		require.NoError(b, err)
		if user.layer == nil {
			user.layer = layer
		}
		defer func() {
			layer.Close()
			_ = below.Close()
		}()
	}
	defer network.Close()

	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		req := benchRequest(sip.INVITE, "call-"+strconv.Itoa(i), 1)
		req.Body = []byte(benchSDP)
		_, err := user.layer.Request(context.Background(), req, RequestOptions{NextHop: sip.Uri{Host: "10.0.0.2"}}, user)
		if err != nil {
			b.Fatal(err)
		}
		<-user.ended
	}
}
