//go:build interop && linux

package peers

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/chromium"
)

// tab is a telephone in a page of a browser.
type tab struct {
	*chromium.Page
	s         *scene
	transport string
	contact   sip.Uri
	flow      *dialog.Flow
	// talks is the event that says that a call is established.
	talks string
}

// pages serves the scripts of a folder, each in a page of its own.
func pages(t *testing.T, dir string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasSuffix(req.URL.Path, ".js") {
			http.ServeFile(w, req, filepath.Join(dir, filepath.Base(req.URL.Path)))
			return
		}
		_, _ = fmt.Fprintf(w, "<!doctype html><title>phone</title><script src='%s.bundle.js'></script>", filepath.Base(req.URL.Path))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// versionOf reads which version of a package of npm's is installed.
func versionOf(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("browser/package.json")
	require.NoError(t, err)
	var list struct{ Dependencies map[string]string }
	require.NoError(t, json.Unmarshal(text, &list))
	require.NotEmpty(t, list.Dependencies[name])
	return list.Dependencies[name]
}

// open opens a page, which connects to the first of our stacks and registers there.
func open(s *scene, b *chromium.Browser, address, transport, talks string) *tab {
	s.t.Helper()
	p := &tab{Page: b.Open(s.t, address), s: s, transport: transport, talks: talks}
	us := s.stations[0]
	bound := us.registers()
	p.Until("document.readyState === 'complete' && window.phone !== undefined")
	p.does("phone.connect(%q, %q)", fmt.Sprintf("%s://%s:%d", transport, us.ip, portOf(transport)), "sip:peer@"+us.ip)
	select {
	case b := <-bound:
		p.contact, p.flow = b.contact, b.flow
	case <-time.After(soon):
		require.FailNow(s.t, "the page does not register")
	}
	return p
}

func (p *tab) does(format string, args ...any) {
	p.s.t.Helper()
	text := fmt.Sprintf(format, args...)
	p.s.note("browser", strings.TrimPrefix(text, "phone."))
	p.Run("(async () => { await " + text + " })()") // without its value, which may be an object
}

// waits waits for an event of the page.
func (p *tab) waits(event string) {
	p.s.t.Helper()
	_, err := p.Try(fmt.Sprintf("phone.wait(%q)", event))
	require.NoError(p.s.t, err, "events so far: %v", p.Run("JSON.stringify(phone.events())"))
}

func (p *tab) target() (sip.Uri, *dialog.Flow) { return p.contact, p.flow }

func (p *tab) address(to *station) string {
	uri := to.at(p.transport)
	return uri.String()
}

func (p *tab) dial(to *station) { p.s.t.Helper(); p.does("phone.dial(%q)", p.address(to)) }
func (p *tab) rings()           { p.s.t.Helper(); p.waits("rings") }
func (p *tab) answer()          { p.s.t.Helper(); p.does("phone.answer()") }
func (p *tab) refuse()          { p.s.t.Helper(); p.does("phone.refuse()") }
func (p *tab) hangup()          { p.s.t.Helper(); p.does("phone.hangup()") }
func (p *tab) hold()            { p.s.t.Helper(); p.waits(p.talks); p.does("phone.hold()") }
func (p *tab) resume()          { p.s.t.Helper(); p.waits("hold"); p.does("phone.resume()") }
func (p *tab) press(key rune)   { p.s.t.Helper(); p.does("phone.press(%q)", string(key)) }
func (p *tab) complete()        { p.s.t.Helper(); p.does("phone.complete()") }
func (p *tab) text(to *station, words string) {
	p.s.t.Helper()
	p.does("phone.text(%q, %q)", p.address(to), words)
}
func (p *tab) transfer(to *station) {
	p.s.t.Helper()
	p.waits(p.talks)
	p.does("phone.transfer(%q)", p.address(to))
}
func (p *tab) consult(to *station) {
	p.s.t.Helper()
	p.waits(p.talks)
	p.does("phone.consult(%q)", p.address(to))
}

// The session of a browser: what WebRTC needs of RFC 8829. The media are not used.
const browserSession = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE %[1]s\r\n" +
	"m=audio 9 UDP/TLS/RTP/SAVPF 0\r\nc=IN IP4 0.0.0.0\r\na=mid:%[1]s\r\na=rtcp-mux\r\na=rtpmap:0 PCMU/8000\r\n" +
	"a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=setup:%[2]s\r\n" +
	"a=fingerprint:sha-256 %[3]s\r\na=%[4]s\r\n"

func webRTCSession(mid, setup, direction string) string {
	fingerprint := strings.TrimSuffix(strings.Repeat("AB:", 32), ":")
	return fmt.Sprintf(browserSession, mid, setup, fingerprint, direction)
}

func sdpBody(text string) dialog.Body { return dialog.NewBody("application/sdp", []byte(text)) }

func (p *tab) offer(*station) dialog.Body { return sdpBody(webRTCSession("0", "actpass", "sendrecv")) }

func (p *tab) answers(_ *station, d *dialog.Dialog) dialog.Body {
	return sdpBody(webRTCAnswer(string(d.Request().Body())))
}

// webRTCAnswer answers an offer of a browser.
func webRTCAnswer(offer string) string {
	mid := "0"
	if _, rest, is := strings.Cut(offer, "a=mid:"); is {
		mid, _, _ = strings.Cut(rest, "\r\n")
	}
	way := strings.TrimPrefix(direction([]byte(offer)), "a=")
	if opposite := map[string]string{"sendonly": "recvonly", "recvonly": "sendonly"}[way]; opposite != "" {
		way = opposite
	}
	return webRTCSession(mid, "active", way)
}

// answering lets a stack answer the offers of browsers.
func answering(st *station) {
	st.OnOfferRequest(func(_ context.Context, r *dialog.OfferRequest) (dialog.Body, error) {
		if r.Offer == nil {
			return sdpBody(webRTCSession("0", "actpass", "sendrecv")), nil
		}
		return sdpBody(webRTCAnswer(string(r.Offer.Data()))), nil
	})
}

// forPages lets pages of other origins connect, and asks for session timers.
func forPages(config *dialog.StackConfig) {
	timed(config)
	listener := *config.Transport
	listener.WebSocket = &dialog.WebSocketConfig{Origins: []string{"*"}}
	config.Transport = &listener
}

func TestBrowsers(t *testing.T) {
	for _, tool := range []string{"chromium", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			results.misses("JsSIP and SIP.js", tool+" is not installed")
			t.Skip(tool + " is not installed")
		}
	}
	site := pages(t, chromium.Bundle(t, "browser", "jssip", "sipjs"))
	browser := chromium.Start(t)
	in := " in Chromium " + packaged("chromium")
	for name, kind := range map[string]struct {
		talks   string
		remarks map[string]string
	}{
		"JsSIP": {"confirmed", map[string]string{
			"our INVITE has no offer": "if answer() is given rtcOfferConstraints with offerToReceiveAudio; else it rings for ever",
		}},
		"SIP.js": {talks: "Established"},
	} {
		results.meets(name, versionOf(t, strings.ToLower(name))+in)
		script := strings.ToLower(strings.ReplaceAll(name, ".", ""))
		p := peer{name: name, ready: answering, stack: forPages, oneStack: true, lingers: true, remarks: kind.remarks, make: func(s *scene, _ int, transport string) phone {
			return open(s, browser, site+"/"+script, transport, kind.talks)
		}}
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			p.tries(t, []string{"ws"}, features)
			p.tries(t, []string{"wss"}, everywhere())
		})
	}
}
