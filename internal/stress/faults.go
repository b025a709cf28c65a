package stress

import (
	"context"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"

	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// archive keeps some of the datagrams that were sent, to be sent again.
type archive struct {
	mu   sync.Mutex // guards kept
	kept []dialogtest.Packet
}

const archived = 400

func (a *archive) keep(p dialogtest.Packet) {
	if p.Transport != "udp" || p.From == ghost {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kept = append(a.kept, p)
	if len(a.kept) > archived {
		a.kept = a.kept[len(a.kept)-archived:]
	}
}

func (a *archive) any(d *dice) (dialogtest.Packet, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.kept) == 0 {
		return dialogtest.Packet{}, false
	}
	return pick(d, a.kept), true
}

// replay sends old datagrams once more, whole or damaged.
func (r *round) replay(d *dice) {
	for range 10 {
		p, ok := r.archive.any(d)
		if !ok {
			return
		}
		data := append([]byte(nil), p.Data...)
		switch n := d.intn(10); {
		case n < 4:
			r.cover.hit("message: late duplicate")
		case n < 8:
			r.cover.hit("message: damaged")
			for range 1 + d.intn(4) {
				data[d.intn(len(data))] = byte(d.intn(256))
			}
		default:
			r.cover.hit("message: cut")
			data = data[:d.intn(len(data))]
		}
		r.net.Inject(ghost, p.To, data)
		d.pause(time.Second)
	}
}

// forge sends requests that lack something.
func (r *round) forge(d *dice) {
	whole := r.chaos.Request(dialogtest.Request{
		Method: pick(d, []string{"INVITE", "BYE", "ACK", "CANCEL", "OPTIONS", "REFER", "NOTIFY", "FOO"}),
		URI:    "sip:stress@" + udpOne, CallID: "forged", ToTag: pick(d, []string{"", "forged"}), Body: testkit.OfferSDP,
	})
	for name, text := range map[string]string{
		"without From":         strings.Replace(whole, "\r\nFrom:", "\r\nX-From:", 1),
		"without To":           strings.Replace(whole, "\r\nTo:", "\r\nX-To:", 1),
		"without Call-ID":      strings.Replace(whole, "\r\nCall-ID:", "\r\nX-Call-ID:", 1),
		"without CSeq":         strings.Replace(whole, "\r\nCSeq:", "\r\nX-CSeq:", 1),
		"without Via":          strings.Replace(whole, "\r\nVia:", "\r\nX-Via:", 1),
		"of another version":   strings.Replace(whole, " SIP/2.0\r\n", " SIP/3.0\r\n", 1),
		"with another CSeq":    strings.Replace(whole, "CSeq: 1 ", "CSeq: 1 X", 1),
		"with a lying length":  strings.Replace(whole, "Content-Length: ", "Content-Length: 9", 1),
		"to a telephone":       strings.Replace(whole, " sip:stress@"+udpOne+" ", " tel:+123 ", 1),
		"with the tags of all": strings.Replace(whole, ";tag=peer", ";tag=peer;tag=other", 1),
		"that are noise":       strings.Repeat("\x00\xff", 40),
	} {
		r.cover.hit("message: " + name)
		for _, ip := range []string{udpOne, udpTwo} {
			r.net.Inject(ghost, r.endpoint(ip), []byte(text))
		}
	}
}

// intrude connects to a listener as one who has nothing good in mind, and stays
// for a while.
func (r *round) intrude(d *dice) {
	what, data := pickStranger(d)
	r.cover.hit("fault: " + what)
	to := netip.AddrPortFrom(netip.MustParseAddr(pick(d, streamHosts())), 5060)
	from := strangerIP
	if to.Addr().Is6() {
		from = strangerIPv6
	}
	conn, err := r.net.Host(from).DialContext(context.Background(), "tcp", to.String())
	if err != nil {
		return // cut off, or gone
	}
	_, _ = io.WriteString(conn, data)
	d.pause(5 * time.Second)
	_ = conn.Close()
}

func pickStranger(d *dice) (what, data string) {
	const whole = "BYE sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP 10.0.0.77;branch=z9hG4bKstranger\r\nContent-Length: 0\r\n\r\n"
	switch d.intn(4) {
	case 0:
		return "a silent stranger", ""
	case 1:
		return "a stranger with noise", strings.Repeat("\x16\x03\xff\r\n\r\n", 40)
	case 2:
		return "a stranger with half a message", whole[:len(whole)/2]
	default:
		return "a stranger without a handshake", whole
	}
}
