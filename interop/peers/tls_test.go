//go:build interop && linux

package peers

import (
	"crypto/tls"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/testcert"
)

// authority signs the certificates of a scene.
func (s *scene) authority() *testcert.Authority {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.signs == nil {
		s.signs = testcert.New(s.t)
	}
	return s.signs
}

// secure gives a stack that listens on TLS a certificate, and lets every stack trust the
// authority of its scene.
func (s *scene) secure(config *dialog.StackConfig) {
	listener := *config.Transport
	if listener.Protocol == "tls" || listener.Protocol == "wss" {
		listener.TLSConfig = s.authority().Server(listener.Address)
		config.Transport = &listener
	}
	config.TLS = &tls.Config{RootCAs: s.authority().Pool()}
}
