package transport

import (
	"bufio"
	"bytes"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// admits decides whether the client of a WebSocket handshake may come in (RFC
// 6455 10.2). Only browsers name an origin, and cannot leave it out: that of the
// page whose script connects, which may be any page on the web.
func (lc ListenConfig) admits(ctx context.Context, r *http.Request) bool {
	if lc.CheckOrigin != nil {
		return lc.CheckOrigin(ctx, r)
	}
	origins := r.Header.Values("Origin")
	switch {
	case len(origins) == 0:
		return true
	case len(origins) > 1:
		return false
	case lc.Origins == nil:
		return sameHost(origins[0], r.Host)
	}
	return slices.ContainsFunc(lc.Origins, func(listed string) bool {
		return listed == "*" || canonicalOrigin(listed) == canonicalOrigin(origins[0])
	})
}

// sameHost reports whether a page comes from the host that it connects to. Ports
// are not compared: that of the page is the web server's.
func sameHost(origin, host string) bool {
	page, err := url.Parse(origin)
	here, wrong := url.Parse("//" + host)
	return err == nil && wrong == nil && page.Hostname() != "" && strings.EqualFold(page.Hostname(), here.Hostname())
}

// canonicalOrigin is an origin as it compares (RFC 6454 4): in lower case, without
// the scheme's default port.
func canonicalOrigin(origin string) string {
	u, err := url.Parse(strings.ToLower(origin))
	if err != nil || u.Host == "" {
		return strings.ToLower(origin) // "null", for one
	}
	if u.Scheme == "http" && u.Port() == "80" || u.Scheme == "https" && u.Port() == "443" {
		u.Host = strings.TrimSuffix(u.Host, ":"+u.Port())
	}
	return u.Scheme + "://" + u.Host
}

// upgradeRequest reads the header of a handshake as net/http has it.
func (r *link) upgradeRequest(head []byte) (*http.Request, error) {
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		return nil, err
	}
	req.RemoteAddr = r.raw.RemoteAddr().String()
	if r.tls != nil {
		state := r.tls.ConnectionState()
		req.TLS = &state
	}
	return req, nil
}
