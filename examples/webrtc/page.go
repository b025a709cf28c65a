package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"html/template"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// servePage serves the page, which learns the port of the WebSocket.
func servePage(o options, secure *tls.Config, wss uint16) (*http.Server, error) {
	index, err := template.ParseFiles(filepath.Join(o.web, "index.html"))
	if err != nil {
		return nil, err
	}
	script := filepath.Join(o.web, "phone.bundle.js")
	if _, err := os.Stat(script); err != nil {
		return nil, fmt.Errorf("the page is not built (npm ci && npm run build): %w", err)
	}
	listener, err := tls.Listen("tcp", netip.AddrPortFrom(o.address, uint16(o.page)).String(), secure)
	if err != nil {
		return nil, err
	}
	pages := http.NewServeMux()
	pages.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _ = index.Execute(w, wss) })
	pages.HandleFunc("GET /phone.bundle.js", func(w http.ResponseWriter, req *http.Request) { http.ServeFile(w, req, script) })
	server := &http.Server{Addr: listener.Addr().String(), Handler: pages, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }() // until Close
	return server, nil
}

// selfSigned makes a certificate for an address that signs itself, and that visitors have to
// accept. A service has one that an authority signed.
func selfSigned(address netip.Addr) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{address.AsSlice()}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
