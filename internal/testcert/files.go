package testcert

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"

	"github.com/stretchr/testify/require"
)

// Write writes a certificate for names into a folder as key.pem and cert.pem, both as
// both.pem, and the authority's as ca.pem.
func (a *Authority) Write(dir string, names ...string) {
	a.t.Helper()
	cert := a.Issue(names...)
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(a.t, err)
	key, own := block("PRIVATE KEY", der), block("CERTIFICATE", cert.Certificate[0])
	for name, text := range map[string][]byte{
		"key.pem": key, "cert.pem": own, "both.pem": slices.Concat(own, key), "ca.pem": block("CERTIFICATE", a.Raw()),
	} {
		require.NoError(a.t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
}

func block(kind string, data []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data})
}
