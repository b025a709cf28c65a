package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"image/png"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/chromium"
)

var picture = flag.String("picture", "", "write a picture of the page in a call to this file")

// A browser calls a telephone and is called by it; both hear each other, hold, resume and
// hang up.
func TestBrowserAndPhone(t *testing.T) {
	for _, tool := range []string{"chromium", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT TESTED IN A BROWSER: %s is not installed", tool)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	phone := newPhone(t)
	site, browserURI := start(t, ctx, chromium.Bundle(t, "web", "phone"), phone)
	p := page{chromium.Start(t).Open(t, site)}
	p.shows("ready")

	require.True(t, t.Run("the browser calls", func(t *testing.T) {
		p.click("call")
		p.shows("calling phone")
		c := <-phone.calls
		require.NoError(t, c.Accept(ctx))
		require.Equal(t, "sendrecv", <-c.offers)
		p.shows("in a call with phone")
		talks(t, p, c)
		looks(t, p)
		holds(t, ctx, p, c)
		p.click("hangup")
		ends(t, p, c)
	}))
	t.Run("the phone calls", func(t *testing.T) {
		c := phone.dial(ctx, browserURI, func() {
			p.shows("phone calls")
			p.click("answer")
		})
		p.shows("in a call with phone")
		talks(t, p, c)
		holds(t, ctx, p, c)
		require.NoError(t, c.Hangup(ctx))
		ends(t, p, c)
	})
}

// page is the phone in the browser.
type page struct{ *chromium.Page }

func (p page) shows(state string) {
	p.Until(fmt.Sprintf("document.getElementById('state')?.textContent === %q", state))
}

func (p page) click(button string) {
	p.Until(fmt.Sprintf("!document.getElementById(%q).disabled", button))
	p.Run(fmt.Sprintf("document.getElementById(%q).click()", button))
}

// talks waits until each side has heard the other.
func talks(t *testing.T, p page, c *call) {
	t.Helper()
	p.Until("Number(document.getElementById('received').textContent) > 20")
	require.Eventually(t, func() bool { return c.received.Load() > 20 }, chromium.Wait, 20*time.Millisecond)
}

// holds has each side hold and resume the call.
func holds(t *testing.T, ctx context.Context, p page, c *call) {
	t.Helper()
	p.click("hold")
	require.Equal(t, "sendonly", <-c.offers)
	p.shows("holding phone")
	p.click("resume")
	require.Equal(t, "sendrecv", <-c.offers)
	p.shows("in a call with phone")
	// The page shows what it has asked for; the phone may not have its ACK yet.
	require.Eventually(t, func() bool { return c.Hold(ctx) == nil }, chromium.Wait, 20*time.Millisecond)
	p.shows("held by phone")
	require.NoError(t, c.Resume(ctx))
	p.shows("in a call with phone")
}

// ends waits until the call is over on both sides.
func ends(t *testing.T, p page, c *call) {
	t.Helper()
	p.shows("ready")
	select {
	case <-c.Done():
	case <-time.After(chromium.Wait):
		require.FailNow(t, "the phone's call does not end")
	}
}

// looks takes a picture of the page.
func looks(t *testing.T, p page) {
	t.Helper()
	data := p.Screenshot()
	_, err := png.Decode(bytes.NewReader(data))
	require.NoError(t, err)
	if *picture != "" {
		require.NoError(t, os.WriteFile(*picture, data, 0o644))
	}
}

// start runs the program until the test ends. It returns the page's address, and whom the
// phone calls.
func start(t *testing.T, ctx context.Context, web string, p *phone) (site string, browser sip.Uri) {
	t.Helper()
	running, stop := context.WithCancel(ctx)
	said, says := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(running, []string{"-page", "0", "-wss", "0", "-sip", "0", "-web", web, "-phone", "sip:phone@" + p.Addr().String() + ";transport=tcp"}, says)
		_ = says.CloseWithError(err)
		ended <- err
	}()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
	})
	lines := bufio.NewReader(said)
	line, err := lines.ReadString('\n')
	require.NoError(t, err)
	go func() { _, _ = io.Copy(os.Stderr, lines) }() // what the program says later
	site, uri, found := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "open "), ", call ")
	require.True(t, found, line)
	require.NoError(t, sip.ParseUri(uri, &browser))
	return site, browser
}
