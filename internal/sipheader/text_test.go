package sipheader_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/siptext"
)

// said is what is read of a message.
func said(msg sipheader.Message) map[string]any {
	all := map[string]any{
		"tags": []string{sipheader.FromTag(msg), sipheader.ToTag(msg)}, "Call-ID": sipheader.CallID(msg), "CSeq": sipheader.CSeqValue(msg),
		"From": sipheader.NameAddrOf(msg, "From"), "To": sipheader.NameAddrOf(msg, "To"),
		"Contact": written(sipheader.Contacts(msg)), "Contacts": sipheader.CountContacts(msg),
		"Record-Route": written(sipheader.RecordRoutes(msg)), "readable": sipheader.ReadsRoutes(msg),
		"body": string(msg.Body()),
	}
	for _, name := range []string{"Supported", "Require", "Allow", "Accept", "Recv-Info", "Reason"} {
		all["list "+name], all["has "+name] = sipheader.Listed(msg, name), sipheader.Has(msg, name)
	}
	for _, name := range []string{"Content-Type", "Content-Disposition", "Event", "Session-Expires", "Min-SE", "Subject", "Reason"} {
		all[name] = sipheader.Value(msg, name)
	}
	return all
}

func written(uris []sip.Uri) (list []string) {
	for _, uri := range uris {
		list = append(list, uri.String())
	}
	return list
}

func sameEitherWay(t *testing.T, data []byte) {
	t.Helper()
	m, err := sipmsg.Parse(data)
	require.NoError(t, err, "%q", data)
	m.Arrived("UDP", netip.MustParseAddrPort("10.0.0.9:5060"))
	require.Equal(t, said(m.Request()), said(m), "%q", data)
	require.Equal(t, len(sipheader.Targets(m)), sipheader.CountTargets(m), "%q", data)
	require.Equal(t, sipheader.IsAlone(m.Request(), "Via"), m.Vias == 1, "%q", data)
}

// The values read from the text of a request are those of sipgo's structs.
func TestTextAndStructsOfARequestAgree(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	for number := range uint64(2000) {
		g := siptext.New(seed, number, fmt.Sprint(number))
		sameEitherWay(t, g.Request(g.Method(), siptext.Known{Seq: 1 + int(number), ContactHost: g.Host("10.0.0.9"), RouteHosts: g.Hosts("10.0.0.9")}))
	}
}

// Nor does it differ where a header is malformed, empty, or there more than once.
func TestTextAndStructsOfAMalformedRequestAgree(t *testing.T) {
	for _, headers := range []string{
		"", "Contact: *\r\n", "Contact:\r\n", "Contact: <sip:a@b>,\r\n", "Contact: ,<sip:a@b>\r\n", "m: <sip:a@b>;q=1, \"x, y\" <sips:c@d;lr>\r\nContact: <tel:1>\r\n",
		"Contact: <sip:a@b\r\n", "Contact: sip:a@b;tag=1\r\n", "Contact: <sip:*>, <http://x>\r\n",
		"Record-Route: <sip:a;lr>, \"r\" <sip:b;lr;x=\"y\">;p=q\r\nRecord-Route: <sip:c>\r\n", "Record-Route:\r\n", "Record-Route: <sip:a;lr>,\r\n", "Record-Route: nonsense\r\n",
		"Record-Route: <*>\r\n", "Supported:\r\n", "Supported: a,, b ,\r\nk: c\r\n", "Require: 100rel\r\nrequire: x\r\n", "Allow: INVITE\r\n",
		"Reason: Q.850;cause=16;text=\"a, b\", SIP;cause=200\r\n", "Session-Expires: 90 ; refresher=uac\r\n", "x: 90\r\nMin-SE: 90\r\n",
		"Content-Disposition: session\r\nc: application/sdp\r\n", "Event: refer ;id=1\r\n", "o: presence\r\n",
	} {
		sameEitherWay(t, []byte("INVITE sip:us@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK1;rport, SIP/2.0/UDP h\r\nFrom: \"A \\\"B\\\"\" <sip:a@b;x=y>;tag=1\r\nTo: C <sip:c@d>\r\n"+
			"Call-ID: c\r\nCSeq: 1 INVITE\r\n"+headers+"\r\nv=0"))
	}
}
