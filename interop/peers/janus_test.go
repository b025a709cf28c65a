//go:build interop && linux

package peers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

// janusFiles are the configuration of a Janus with its SIP plugin, which obeys over HTTP. It
// takes only addresses of interfaces, so all have that of localhost, and ports of their own.
func janusFiles() map[string]string {
	return map[string]string{
		"janus.jcfg": `
general: {
	plugins_folder = "{{modules}}/plugins"
	transports_folder = "{{modules}}/transports"
	events_folder = "{{dir}}/none"
	loggers_folder = "{{dir}}/none"
	interface = "127.0.0.1"
	debug_colors = false
}
nat: { ice_enforce_list = "127.0.0.1" }
plugins: { disable = "{{plugins}}" }
transports: { disable = "{{transports}}" }
`,
		"janus.plugin.sip.jcfg": `
general: {
	local_ip = "127.0.0.1"
	sdp_ip = "127.0.0.1"
	rtp_port_range = "20000-29999"
}
`,
		"janus.transport.http.jcfg": `
general: { http = true, https = false, json = "compact", base_path = "/janus", port = {{port}}, ip = "127.0.0.1" }
admin: { admin_http = false }
`,
	}
}

// janusServer is a Janus, and where it obeys.
type janusServer string

// janusModules is the folder with its plugins; empty if it is not there.
func janusModules() string {
	dirs, _ := filepath.Glob("/usr/lib*/*/janus")
	return strings.Join(dirs, "")
}

// startJanus starts a Janus that has only the plugins that are needed.
func startJanus(t *testing.T) janusServer {
	t.Helper()
	dir, port := t.TempDir(), freePort(t)
	fill := strings.NewReplacer("{{modules}}", janusModules(), "{{dir}}", dir, "{{port}}", fmt.Sprint(port),
		"{{plugins}}", janusWithout("plugins", "sip"), "{{transports}}", janusWithout("transports", "http"))
	for name, text := range janusFiles() {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(fill.Replace(text)), 0o600))
	}
	p := launch(t, dir, nil, "janus", "-F", dir)
	p.says(0, "transport plugin initialized")
	return janusServer(fmt.Sprintf("http://127.0.0.1:%d/janus", port))
}

// janusWithout lists the plugins of a kind but for one.
func janusWithout(kind, wanted string) string {
	files, _ := filepath.Glob(filepath.Join(janusModules(), kind, "*.so"))
	var others []string
	for _, file := range files {
		if name := filepath.Base(file); name != "libjanus_"+wanted+".so" {
			others = append(others, name)
		}
	}
	return strings.Join(others, ",")
}

// freePort is a port of localhost that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	return listener.Addr().(*net.TCPAddr).Port
}

// janus is a telephone of Janus's: an account with two lines, one of which helps with a
// second call.
type janus struct {
	s         *scene
	transport string
	// session is where the telephone obeys.
	session string
	binding binding
	events  heard[janusEvent]

	lines   []int64 // the handles, the first of which is the account's
	line    int     // the index of the one with the present call
	offered string  // to the call that rings
	// consulted is who has been asked before a transfer.
	consulted string
}

// reflexes is how soon a call is accepted or declined. Janus tells of a call a moment before
// it can be.
const reflexes = 500 * time.Millisecond

// janusHaste is what happens to those that are faster, as Janus says it.
var janusHaste = fault{
	peer: "Janus", text: "An `accept` in the millisecond after `incomingcall` is told of as `accepted`, but sends no 200: the plugin notes the call after it has told of it.",
	shown: "nua: respond with invalid handle (nil)\n[WARN] NUA Handle for 200 OK still null??",
}

// janusEvent is what Janus tells, or answers.
type janusEvent struct {
	Janus  string
	Sender int64
	Data   struct{ ID int64 }
	Error  struct{ Reason string }
	Plugin struct {
		Data struct {
			CallID string `json:"call_id"`
			Error  string
			Result struct {
				Event, Replaces, Content, Reason string
				Code                             int
				MasterID                         int64  `json:"master_id"`
				ReferID                          int64  `json:"refer_id"`
				ReferTo                          string `json:"refer_to"`
			}
		}
	} `json:"plugindata"`
	JSEP struct{ SDP string }
}

// phone makes a phone that registers an account.
func (j janusServer) phone(s *scene, transport, account, secret, proxy string) *janus {
	s.t.Helper()
	p := &janus{s: s, transport: transport, session: string(j)}
	p.session += fmt.Sprint("/", p.order("", map[string]any{"janus": "create"}).Data.ID)
	ctx, cancel := context.WithCancel(context.Background())
	var listening sync.WaitGroup
	listening.Go(func() { p.listen(ctx, &listening) })
	s.t.Cleanup(func() {
		cancel()
		listening.Wait()
	})
	p.attach()
	p.asks(0, map[string]any{"request": "register", "username": account, "secret": secret, "proxy": proxy, "force_" + transport: true}, "", "")
	master := p.tells(0, "registered").Plugin.Data.Result.MasterID
	p.attach()
	p.asks(1, map[string]any{"request": "register", "type": "helper", "username": account, "master_id": master}, "", "")
	p.tells(1, "registered")
	return p
}

// order sends a message of Janus's API, and returns the response.
func (p *janus) order(path string, message map[string]any) (answer janusEvent) {
	p.s.t.Helper()
	message["transaction"] = "t"
	text, err := json.Marshal(message)
	require.NoError(p.s.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.session+path, bytes.NewReader(text))
	require.NoError(p.s.t, err)
	require.NoError(p.s.t, decoded(req, &answer))
	require.NotEqual(p.s.t, "error", answer.Janus, answer.Error.Reason)
	return answer
}

func decoded(req *http.Request, into any) error {
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	return json.NewDecoder(res.Body).Decode(into)
}

// attach makes a further line.
func (p *janus) attach() {
	p.s.t.Helper()
	p.lines = append(p.lines, p.order("", map[string]any{"janus": "attach", "plugin": "janus.plugin.sip"}).Data.ID)
}

// asks asks the plugin for something, on a line. kind is that of the session: "offer" or
// "answer", or empty if there is none.
func (p *janus) asks(line int, body map[string]any, kind, sdp string) {
	p.s.t.Helper()
	p.s.note("janus", fmt.Sprint(body["request"], " on line ", line+1))
	message := map[string]any{"janus": "message", "body": body}
	if kind != "" {
		message["jsep"] = map[string]string{"type": kind, "sdp": sdp}
	}
	p.order(fmt.Sprint("/", p.lines[line]), message)
}

// listen takes the events of the telephone as they come.
func (p *janus) listen(ctx context.Context, others *sync.WaitGroup) {
	for ctx.Err() == nil {
		var text json.RawMessage
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.session+"?maxev=10", nil)
		if err != nil || decoded(req, &text) != nil {
			return
		}
		var events []janusEvent
		_ = json.Unmarshal(text, &events) // it is no list if nothing has happened
		for _, e := range events {
			p.hears(e, others)
		}
	}
}

// hears does what a user does: it follows a transfer, and lets a call replace another.
func (p *janus) hears(e janusEvent, others *sync.WaitGroup) {
	said := e.Plugin.Data
	if e.Janus != "event" {
		return
	}
	p.s.note("janus", said.Result.Event+said.Error)
	switch {
	case said.Result.Event == "transfer":
		others.Go(func() {
			p.calls(1, map[string]any{"request": "call", "uri": said.Result.ReferTo, "refer_id": said.Result.ReferID})
		})
	case said.Result.Event == "incomingcall" && said.Result.Replaces != "":
		others.Go(func() {
			time.Sleep(reflexes)
			p.accepts(1, e.JSEP.SDP)
			p.asks(0, map[string]any{"request": "hangup"}, "", "")
		})
	}
	p.events.add(e)
}

// calls makes a call on a line.
func (p *janus) calls(line int, body map[string]any) {
	p.s.t.Helper()
	p.asks(line, body, "offer", webRTCSession("0", "actpass", "sendrecv"))
}

// accepts accepts a call on a line.
func (p *janus) accepts(line int, offer string) {
	p.s.t.Helper()
	kind, session := "answer", webRTCAnswer(offer)
	if offer == "" {
		kind, session = "offer", webRTCSession("0", "actpass", "sendrecv")
	}
	p.asks(line, map[string]any{"request": "accept"}, kind, session)
}

// tells waits for an event of a line; of any if it is -1.
func (p *janus) tells(line int, event string) janusEvent {
	p.s.t.Helper()
	return p.events.next(p.s.t, "janus tells "+event, func(e janusEvent) bool {
		return e.Plugin.Data.Result.Event == event && (line < 0 || e.Sender == p.lines[line])
	})
}

func (p *janus) target() (sip.Uri, *dialog.Flow) { return p.binding.contact, nil }

func (p *janus) address(to *station) string {
	uri := to.at(p.transport)
	return uri.String()
}

func (p *janus) dial(to *station) {
	p.s.t.Helper()
	p.call(p.address(to))
}

func (p *janus) call(to string) {
	p.s.t.Helper()
	if p.line == 0 {
		p.events.forget() // those of the call before
	}
	p.calls(p.line, map[string]any{"request": "call", "uri": to})
}

func (p *janus) rings() {
	p.s.t.Helper()
	e := p.tells(-1, "incomingcall")
	time.Sleep(reflexes)
	p.offered, p.line = e.JSEP.SDP, 0
	if e.Sender == p.lines[1] {
		p.line = 1
	}
}

// does is a request about the present call.
func (p *janus) does(request string, more ...string) {
	p.s.t.Helper()
	body := map[string]any{"request": request}
	for i := 0; i+1 < len(more); i += 2 {
		body[more[i]] = more[i+1]
	}
	p.asks(p.line, body, "", "")
}

func (p *janus) answer()        { p.s.t.Helper(); p.accepts(p.line, p.offered) }
func (p *janus) refuse()        { p.s.t.Helper(); p.does("decline") }
func (p *janus) hold()          { p.s.t.Helper(); p.tells(p.line, "accepted"); p.does("hold") }
func (p *janus) resume()        { p.s.t.Helper(); p.does("unhold") }
func (p *janus) press(key rune) { p.s.t.Helper(); p.does("dtmf_info", "digit", string(key)) }

// hangup gives Janus a moment to let go of the line: a call that is made in the same one is
// taken for that which ends.
func (p *janus) hangup() {
	p.s.t.Helper()
	p.does("hangup")
	p.tells(p.line, "hangup")
	time.Sleep(reflexes)
}

func (p *janus) text(to *station, words string) {
	p.s.t.Helper()
	p.does("message", "uri", p.address(to), "content", words)
}

func (p *janus) transfer(to *station) {
	p.s.t.Helper()
	p.tells(p.line, "accepted")
	p.does("transfer", "uri", p.address(to))
}

func (p *janus) consult(to *station) {
	p.s.t.Helper()
	p.hold()
	p.line, p.consulted = 1, p.address(to)
	p.dial(to)
}

func (p *janus) complete() {
	p.s.t.Helper()
	id := p.tells(1, "accepted").Plugin.Data.CallID
	p.line = 0
	p.does("transfer", "uri", p.consulted, "replace", id)
}

func TestJanus(t *testing.T) {
	if _, err := exec.LookPath("janus"); err != nil || janusModules() == "" {
		results.misses("Janus", "it is not installed (Debian: janus)")
		t.Skip("janus is not installed")
	}
	results.meets("Janus", packaged("janus")+" with its SIP plugin")
	results.shows(janusHaste)
	server := startJanus(t)
	p := peer{name: "Janus", lingers: true, make: func(s *scene, _ int, transport string) phone {
		us := s.stations[0]
		bound := us.registers()
		p := server.phone(s, transport, "sip:peer@"+us.ip, "secret", fmt.Sprintf("sip:%s:%d;transport=%s", us.ip, portOf(transport), transport))
		p.binding = <-bound
		return p
	}}
	p.tries(t, []string{"udp"}, features)
	p.tries(t, []string{"tcp"}, everywhere())
}
