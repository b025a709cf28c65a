package chromium

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/stretchr/testify/require"
)

// Wait bounds each wait for the browser.
const Wait = 90 * time.Second

// Browser is a Chromium that ends with its test. Its microphone plays a tone, and it
// trusts every certificate.
type Browser struct{ endpoint string }

// Start starts a Chromium.
func Start(t testing.TB) *Browser {
	t.Helper()
	cmd := exec.Command("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--autoplay-policy=no-user-gesture-required",
		"--ignore-certificate-errors", "--allow-loopback-in-peer-connection", "--remote-debugging-port=0", "--user-data-dir="+t.TempDir(), "--window-size=800,600", "about:blank")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	said, err := cmd.StderrPipe()
	require.NoError(t, err)
	started, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // whose end is taken for that of this program
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	require.NoError(t, <-started)
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	})
	return &Browser{endpoint: endpoint(t, said)}
}

// endpoint reads the URL of the browser's control interface, such as "http://127.0.0.1:9222".
func endpoint(t testing.TB, said io.Reader) string {
	t.Helper()
	found := make(chan string, 1)
	go func() {
		var all strings.Builder
		lines := bufio.NewScanner(said)
		for lines.Scan() {
			all.WriteString(lines.Text() + "\n")
			if _, at, is := strings.Cut(lines.Text(), "DevTools listening on ws://"); is {
				host, _, _ := strings.Cut(at, "/")
				found <- "http://" + host
			}
		}
		select {
		case found <- "the browser has ended: " + all.String():
		default:
		}
	}()
	select {
	case at := <-found:
		require.True(t, strings.HasPrefix(at, "http://"), at)
		return at
	case <-time.After(Wait):
		require.FailNow(t, "the browser does not start")
		return ""
	}
}

// Page is a page of a browser.
type Page struct {
	t    testing.TB
	conn *websocket.Conn

	mu      sync.Mutex // guards the fields below
	number  int
	replies map[int]chan reply
}

// reply is what the browser answers to a command.
type reply struct {
	ID     int
	Result json.RawMessage
	Error  *struct{ Message string }
}

// Open opens a page. It is closed with the test.
func (b *Browser) Open(t testing.TB, address string) *Page {
	t.Helper()
	req, err := http.NewRequest(http.MethodPut, b.endpoint+"/json/new?"+url.QueryEscape(address), nil)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	var opened struct{ WebSocketDebuggerURL string }
	require.NoError(t, json.NewDecoder(res.Body).Decode(&opened))
	require.NoError(t, res.Body.Close())
	conn, _, err := websocket.Dial(context.Background(), opened.WebSocketDebuggerURL, nil)
	require.NoError(t, err)
	conn.SetReadLimit(1 << 26)
	p := &Page{t: t, conn: conn, replies: make(map[int]chan reply)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.read()
	}()
	t.Cleanup(func() {
		_ = conn.CloseNow()
		<-read
	})
	return p
}

// read hands the replies to those who wait for them.
func (p *Page) read() {
	for {
		var r reply
		if err := wsjson.Read(context.Background(), p.conn, &r); err != nil {
			return
		}
		p.mu.Lock()
		waits := p.replies[r.ID]
		delete(p.replies, r.ID)
		p.mu.Unlock()
		if waits != nil {
			waits <- r
		}
	}
}

// command sends a command and reads its result.
func (p *Page) command(method string, params, result any) error {
	ctx, cancel := context.WithTimeout(context.Background(), Wait)
	defer cancel()
	p.mu.Lock()
	p.number++
	id, waits := p.number, make(chan reply, 1)
	p.replies[id] = waits
	p.mu.Unlock()
	if err := wsjson.Write(ctx, p.conn, map[string]any{"id": id, "method": method, "params": params}); err != nil {
		return err
	}
	select {
	case r := <-waits:
		if r.Error != nil {
			return fmt.Errorf("%s: %s", method, r.Error.Message)
		}
		return json.Unmarshal(r.Result, result)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, ctx.Err())
	}
}

// Run evaluates an expression in the page, waits if it is a promise, and returns its value.
func (p *Page) Run(expression string) any {
	p.t.Helper()
	value, err := p.Try(expression)
	require.NoError(p.t, err)
	return value
}

// Try is Run with the error of the page.
func (p *Page) Try(expression string) (any, error) {
	var got struct {
		Result           struct{ Value any }
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	params := map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true}
	if err := p.command("Runtime.evaluate", params, &got); err != nil {
		return nil, fmt.Errorf("%s: %w", expression, err)
	}
	if e := got.ExceptionDetails; e != nil {
		return nil, fmt.Errorf("%s: %s %s", expression, e.Text, e.Exception.Description)
	}
	return got.Result.Value, nil
}

// Screenshot returns a picture of the page, as a PNG.
func (p *Page) Screenshot() []byte {
	p.t.Helper()
	var got struct{ Data []byte }
	require.NoError(p.t, p.command("Page.captureScreenshot", map[string]any{"format": "png"}, &got))
	return got.Data
}

// Until waits until an expression is true.
func (p *Page) Until(expression string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		value, err := p.Try(expression)
		return err == nil && value == true
	}, Wait, 50*time.Millisecond, "not true in the page: %s", expression)
}
