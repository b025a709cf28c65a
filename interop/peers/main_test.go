//go:build interop && linux

package peers

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

var page = flag.String("page", "", "write the results to this file")

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if err := results.finish(*page, code == 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
