//go:build interop && linux

package peers

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

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

// writePEM writes a certificate for these names as key.pem and cert.pem, as both.pem, and
// the authority's as ca.pem.
func writePEM(t *testing.T, dir string, ca *testcert.Authority, names ...string) {
	t.Helper()
	cert := ca.Issue(names...)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(t, err)
	keyText := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	certText := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
	for name, text := range map[string][]byte{
		"key.pem": keyText, "cert.pem": certText, "both.pem": slices.Concat(certText, keyText),
		"ca.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw()}),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
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
