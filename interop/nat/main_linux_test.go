package nat

import (
	"flag"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// The tests change only their own networks, but they need root and take a minute. So they
// run only with this flag.
var wanted = flag.Bool("nat", false, "run the tests that need root, nft, ip and conntrack")

var traced = flag.Bool("trace", false, "print the first line of each message")

func TestMain(m *testing.M) {
	flag.Parse()
	if !*wanted {
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}
